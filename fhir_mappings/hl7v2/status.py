"""How a translated change meets what is already stored: state never goes backwards.

v2 messages arrive late, twice and out of order. These pure functions decide for each stored resource whether an
assertion still counts (HL7 v2 chapter 7 table 0085 and 0123 give the results, chapter 3 the visits), and
:func:`apply` does the element-wise merge. https://hl7.org/fhir/R4/valueset-observation-status.html
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fhir_mappings.hl7v2 import visit_history
from fhir_mappings.hl7v2.base import Upsert
from fhir_mappings.hl7v2.finished_orders import finished_by
from fhir_mappings.identifiers import CANONICAL_BASE

_RESULT_RANK = {
    "unknown": -1,
    "registered": 0,
    "preliminary": 1,
    "partial": 2,
    "final": 3,
    "amended": 4,
    "corrected": 4,
    "appended": 4,
}
_CORRECTIONS = frozenset({"amended", "corrected", "appended"})

#: Objects that several messages fill together; other elements are replaced whole.
_SHARED_OBJECTS = frozenset({"meta", "period", "hospitalization"})

#: Lists that several fields fill together: what a message says of one field leaves the entries of the others.
_KEYED = frozenset({"extension", "participant"})

#: Extension of ``Encounter.status``: since when it stands, where a later message spoke of the visit but not of this.
#: An A08 that overtook the A03 would otherwise keep the visit open for good.
STATUS_AS_OF = f"{CANONICAL_BASE}/StructureDefinition/status-as-of"

_ALLERGY_CLINICAL = "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical"
_CONDITION_VERIFICATION = "http://terminology.hl7.org/CodeSystem/condition-ver-status"

#: What a Patient holds of whom only a number is known.
_NUMBER_ALONE = frozenset({"resourceType", "id", "meta", "identifier", "active", "managingOrganization", "link"})

#: What only a visit that has ended has.
_DISCHARGE = ("period.end", "hospitalization.dischargeDisposition", "hospitalization.destination")


def _result_allows(old: str, new: str) -> bool:
    if old == new or new == "entered-in-error":
        return True
    if old in {"cancelled", "entered-in-error"}:
        # Only an explicit correction takes a withdrawal back; a late final does not.
        return new in _CORRECTIONS
    if new == "cancelled":
        return True
    return _RESULT_RANK.get(new, -1) >= _RESULT_RANK.get(old, -1)


def observation_status_allows(old: str, new: str) -> bool:
    """Whether a stored Observation in status *old* may become *new*."""
    return _result_allows(old, new)


def report_status_allows(old: str, new: str) -> bool:
    """Whether a stored DiagnosticReport in status *old* may become *new*."""
    return _result_allows(old, new)


def encounter_status_allows(old: str, new: str) -> bool:
    """Whether a message without a later event time may move an Encounter from *old* to *new*.

    The events of a visit may legally go to and fro (A03 then A13), so for a newer message every move is allowed but
    out of ``entered-in-error``; ``unknown`` never replaces a status that somebody knew.
    """
    if new == "unknown":
        return old == "unknown"
    return old != "entered-in-error" or new == "entered-in-error"


def request_status_allows(old: str, new: str) -> bool:
    """Whether a stored ServiceRequest or MedicationRequest in status *old* may become *new*.

    A request is held and released at will; one that has ended stays so, but work that was done all the same completes
    a revoked one. https://hl7.org/fhir/R4/valueset-request-status.html, and for a MedicationRequest, whose revoked is
    ``cancelled`` or ``stopped``, https://hl7.org/fhir/R4/valueset-medicationrequest-status.html.
    """
    if old == new:
        return True
    match old:
        case "entered-in-error":
            return False
        case "completed":
            return new == "entered-in-error"
        case "revoked" | "cancelled" | "stopped":
            return new in {"completed", "entered-in-error"}
        case _:
            return True


def is_older(stored_asserted_at: datetime | None, asserted_at: datetime) -> bool:
    """Whether *asserted_at* speaks of an earlier moment than what is stored; equal moments count by receipt."""
    return stored_asserted_at is not None and asserted_at < stored_asserted_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What :func:`apply` made of a stored resource and a change.

    Attributes:
        resource: the resource as it should be stored now.
        changed: whether it differs from what was stored.
        superseded: the change came too late and was, wholly or in part, kept out; it belongs into the history only.
    """

    resource: dict[str, Any]
    changed: bool
    superseded: bool


def apply(
    stored: Mapping[str, Any] | None,
    upsert: Upsert,
    *,
    asserted_at: datetime,
    stored_asserted_at: datetime | None = None,
) -> Applied:
    """Return the resource that results from *upsert* on *stored*.

    The caller skips ``update_only`` changes where nothing is stored. Given elements replace, ``identifier`` is united, ``period`` and ``hospitalization`` are merged by key, cleared
    elements go, absent ones stay. *stored_asserted_at* is the moment the stored resource last spoke of.
    """
    given = upsert.resource
    if stored is None:
        fresh = {"resourceType": given["resourceType"], "id": given["id"], **upsert.defaults, **given}
        return Applied(resource=fresh, changed=True, superseded=False)
    if upsert.create_only:
        finished = finished_by(stored, given)
        return Applied(
            resource={**stored, "status": "completed"} if finished else dict(stored), changed=finished, superseded=False
        )
    older = upsert.guard != "none" and is_older(stored_asserted_at, asserted_at)
    kind = given["resourceType"]
    if kind == "Encounter" and older:
        merged = _older_visit(stored, upsert, asserted_at, stored_asserted_at)
        _lists_of_visit(merged, stored, given, asserted_at, stored_asserted_at)
        return Applied(resource=merged, changed=merged != stored, superseded=True)
    late_result = upsert.guard == "status" and kind != "Encounter" and not _result_counts(stored, given, older=older)
    if late_result or (older and upsert.guard == "demographics"):
        merged = _united_identifiers(stored, given)
        if kind == "Patient" and stored.keys() <= _NUMBER_ALONE:
            # A merge or a move made the record when it was but a number; whatever is known of it is news.
            merged = {**given, **merged}
        return Applied(resource=merged, changed=merged != stored, superseded=True)
    merged = _merged(stored, given, upsert.cleared)
    for name, leaving in upsert.by_item.items():
        _change_items(merged, name, stored.get(name, []), leaving)
    superseded = False
    old, new = str(stored.get("status", "unknown")), str(given.get("status", ""))
    if kind == "Encounter" and upsert.guard == "status":
        _lists_of_visit(merged, stored, given, asserted_at, stored_asserted_at)
        if new and not encounter_status_allows(old, new):
            merged["status"] = old
            superseded = True
        elif new:
            merged.pop("_status", None)
            if new not in {"finished", "unknown"}:
                _drop_discharge(merged, given)
        elif old != "unknown" and stored_asserted_at is not None and stored_asserted_at < asserted_at:
            merged.setdefault("_status", _as_of(stored_asserted_at))
    elif kind in {"ServiceRequest", "MedicationRequest"} and new and not request_status_allows(old, new):
        merged["status"] = old
        superseded = True
    return Applied(resource=merged, changed=merged != stored, superseded=superseded)


def retire(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return *stored* as a snapshot leaves it that no longer lists it: inactive, never deleted."""
    resource = dict(stored)
    match resource["resourceType"]:
        case "AllergyIntolerance":
            resource["clinicalStatus"] = {"coding": [{"system": _ALLERGY_CLINICAL, "code": "inactive"}]}
        case "Condition":
            # A diagnosis that vanished from the list was withdrawn by its author, which FHIR words so. Clinical
            # status must then be absent (con-5).
            resource.pop("clinicalStatus", None)
            resource["verificationStatus"] = {
                "coding": [{"system": _CONDITION_VERIFICATION, "code": "entered-in-error"}]
            }
        case "RelatedPerson":
            resource["active"] = False
        case "Coverage":
            resource["status"] = "cancelled"
    return resource


def _result_counts(stored: Mapping[str, Any], given: Mapping[str, Any], *, older: bool) -> bool:
    old, new = str(stored.get("status", "unknown")), str(given.get("status", "unknown"))
    if not _result_allows(old, new):
        return False
    # A later moment wins inside one rank; a higher rank wins even when its clock is behind.
    if not older:
        return True
    if new in {"cancelled", "entered-in-error"} or old in {"cancelled", "entered-in-error"}:
        return False
    return _RESULT_RANK.get(new, -1) > _RESULT_RANK.get(old, -1)


def _key(identifier: Mapping[str, Any]) -> tuple[Any, Any]:
    return identifier.get("system"), identifier.get("value")


def _united(stored: list[Any], given: list[Any]) -> list[Any]:
    fresh = {_key(item): item for item in given}
    united = [fresh.pop(_key(item), item) for item in stored]
    return united + list(fresh.values())


def _united_identifiers(stored: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(stored)
    if "identifier" in given and isinstance(given["identifier"], list):
        present = {_key(item) for item in stored.get("identifier", [])}
        extra = [item for item in given["identifier"] if _key(item) not in present]
        if extra:
            merged["identifier"] = [*stored.get("identifier", []), *extra]
    return merged


def _older_visit(
    stored: Mapping[str, Any], upsert: Upsert, asserted_at: datetime, stored_asserted_at: datetime | None
) -> dict[str, Any]:
    """Return the visit after an older message: it fills what nobody has said yet, and says where the visit stood.

    The status counts when nobody knew one, or when all that is newer said nothing about it.
    """
    merged = _united_identifiers(stored, upsert.resource)
    for name, value in upsert.resource.items():
        if name in _SHARED_OBJECTS and name in merged:
            merged[name] = {**value, **merged[name]}
        elif name not in merged or (name == "class" and merged[name].get("code") == "UNK"):
            merged[name] = value
    old, new = str(stored.get("status", "unknown")), str(upsert.resource.get("status", ""))
    since = _status_since(stored) or stored_asserted_at
    if new and encounter_status_allows(old, new) and (old == "unknown" or not is_older(since, asserted_at)):
        merged["status"], merged["_status"] = new, _as_of(asserted_at)
        for path in upsert.cleared.intersection(_DISCHARGE):
            _clear(merged, path)
    if merged["status"] not in {"finished", "unknown"}:
        _drop_discharge(merged, stored)
    return merged


def _drop_discharge(merged: dict[str, Any], said: Mapping[str, Any]) -> None:
    """Take out what only an ended visit has and *said* does not say: a discharge that was taken back, or never was."""
    for path in _DISCHARGE:
        head, _, rest = path.partition(".")
        if rest not in said.get(head, {}):
            _clear(merged, path)


def _lists_of_visit(
    merged: dict[str, Any],
    stored: Mapping[str, Any],
    given: Mapping[str, Any],
    asserted_at: datetime,
    stored_asserted_at: datetime | None,
) -> None:
    """Put into *merged* where the patient lay and as what, which no message says alone."""
    before, now = visit_history.as_text(stored_asserted_at or asserted_at), visit_history.as_text(asserted_at)
    if "location" in given:
        merged["location"] = visit_history.places(
            stored.get("location", []),
            given["location"],
            newer=not is_older(stored_asserted_at, asserted_at),
            stored_as_of=before,
            given_as_of=now,
        )
    elif "location" in merged and stored_asserted_at is not None and stored_asserted_at < asserted_at:
        merged["location"] = visit_history.unspoken(merged["location"], before)
    changed = "classHistory" in given
    if changed or "classHistory" in stored:
        merged["classHistory"] = visit_history.classes(
            stored.get("classHistory", []),
            given.get("classHistory", []),
            before=stored.get("class") if changed else None,
            before_as_of=before,
        )


def _as_of(moment: datetime) -> dict[str, Any]:
    said = moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"extension": [{"url": STATUS_AS_OF, "valueDateTime": said}]}


def _status_since(stored: Mapping[str, Any]) -> datetime | None:
    for extension in stored.get("_status", {}).get("extension", ()):
        if extension.get("url") == STATUS_AS_OF:
            return datetime.fromisoformat(extension["valueDateTime"])
    return None


def _change_items(merged: dict[str, Any], name: str, before: list[Any], leaving: Collection[Any]) -> None:
    """Let the items of *merged* join those of *before*, the same actor once, and take out what is *leaving*."""
    given = merged.get(name, [])
    replaced = [_item_key(item) for item in (*given, *leaving)]
    items = [item for item in before if _item_key(item) not in replaced]
    items += [item for item in given if item not in items and _item_key(item) not in map(_item_key, leaving)]
    if items:
        merged[name] = items
    else:
        merged.pop(name, None)


def _item_key(item: Mapping[str, Any]) -> Any:
    actor = item.get("actor")
    return (actor.get("reference") or actor.get("display")) if isinstance(actor, dict) else item


def _merged(stored: Mapping[str, Any], given: Mapping[str, Any], cleared: frozenset[str]) -> dict[str, Any]:
    merged = dict(stored)
    for name, value in given.items():
        before = merged.get(name)
        if name == "identifier" and isinstance(before, list) and isinstance(value, list):
            merged[name] = _united(before, value)
        elif name == "result" and isinstance(before, list):
            # A correction may carry the corrected result alone; the others still belong to the report.
            merged[name] = before + [item for item in value if item not in before]
        elif name in _SHARED_OBJECTS and isinstance(before, dict):
            merged[name] = {**before, **value}
        elif name in _KEYED and isinstance(before, list) and isinstance(value, list):
            keys = {_entry_key(name, item) for item in value}
            merged[name] = [item for item in before if _entry_key(name, item) not in keys] + value
        else:
            _drop_choice_siblings(merged, name, given)
            merged[name] = value
    for path in cleared:
        _clear(merged, path, keep=given.keys())
    return merged


#: Choice elements (``value[x]``) of the resources made here: a new type takes the old one's place.
_CHOICES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "Observation": (("value", "dataAbsentReason"), ("effective",)),
    "DiagnosticReport": (("effective",),),
    "Patient": (("deceased",), ("multipleBirth",)),
    "ServiceRequest": (("occurrence",),),
    "Condition": (("onset",), ("abatement",)),
    "MedicationAdministration": (("effective",),),
    "AllergyIntolerance": (("onset",),),
    "Procedure": (("performed",),),
}


def _drop_choice_siblings(merged: dict[str, Any], name: str, given: Mapping[str, Any]) -> None:
    for group in _CHOICES.get(str(merged.get("resourceType")), ()):
        if any(_is_choice(name, stem) for stem in group):
            for other in [key for key in merged if key not in given and any(_is_choice(key, stem) for stem in group)]:
                del merged[other]


def _is_choice(name: str, stem: str) -> bool:
    return name == stem or (name.startswith(stem) and name[len(stem)].isupper())


def _entry_key(name: str, entry: Mapping[str, Any]) -> str:
    """What tells one entry of a keyed list from another: the end of its URL, or the code of its type."""
    if name == "extension":
        return str(entry.get("url", "")).rpartition("/")[2]
    codes = [coding.get("code", "") for kind in entry.get("type", ()) for coding in kind.get("coding", ())]
    return str(codes[0]) if codes else ""


def _clear(merged: dict[str, Any], path: str, keep: Collection[str] = ()) -> None:
    name, keyed, key = path.partition(":")
    if keyed:
        left = [entry for entry in merged.get(name, ()) if _entry_key(name, entry) != key]
        if left:
            merged[name] = left
        else:
            merged.pop(name, None)
        return
    head, _, rest = path.partition(".")
    if not rest:
        stem = head.removesuffix("[x]")
        for name in [key for key in merged if key == head or (stem != head and _is_choice(key, stem))]:
            if name not in keep:
                del merged[name]
        return
    inner = merged.get(head)
    if isinstance(inner, dict):
        inner = dict(inner)
        _clear(inner, rest)
        if inner:
            merged[head] = inner
        else:
            del merged[head]
