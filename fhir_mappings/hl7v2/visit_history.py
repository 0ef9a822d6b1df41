"""Where a patient lay and as what: Encounter.location and Encounter.classHistory out of transfers that come in any order.

HL7 v2 chapter 3.3.2 (A02), 3.3.12 (A12), 3.3.6 and 3.3.7 (A06, A07); https://hl7.org/fhir/R4/encounter.html.

A transfer is an entry with ``period.start``; everything else about it (when it ended, whether the patient is there,
whether it was taken back) follows from the other transfers, and is worked out anew each time. So the same messages end
in the same list in whatever order they come. A message that merely names the place (A01, A08) adds to the list only
where it contradicts it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from fhir_mappings.identifiers import CANONICAL_BASE

Json = dict[str, Any]

#: Extension of an entry: ``taken-back`` is a transfer that never was, ``takes-back`` the A12 that said so, ``implied`` one
#: that nobody told, but a later message names another place.
TRANSFER = f"{CANONICAL_BASE}/StructureDefinition/transfer"


#: Extension of an entry that is no transfer: when it was stated, where later messages did not speak of the place.
STATED = f"{CANONICAL_BASE}/StructureDefinition/stated"


def takes_back(entry: Mapping[str, Any]) -> Json:
    """Return *entry* marked as the place to which a cancelled transfer leads back."""
    return {**entry, **_marked("takes-back")}


def _marked(mark: str) -> Json:
    return {"extension": [{"url": TRANSFER, "valueCode": mark}]}


def places(stored: Sequence[Json], given: Sequence[Json], *, newer: bool, stored_as_of: str, given_as_of: str) -> Any:
    """Return ``Encounter.location`` after a message about the visit.

    Args:
        newer: whether the message speaks of no earlier moment than what is stored.
        stored_as_of: the moment of which what is stored speaks last, as a dateTime.
        given_as_of: the moment of which the message speaks.
    """
    moves = {one["period"]["start"]: one for one in (*stored, *given) if _start(one)}
    stated, said = _stated(stored), _stated(given)
    stated_at = _since(stated, stored_as_of)
    if not moves:
        if newer:
            return list(given)
        # What came after it may have said nothing of the place.
        if not stored or (stated and said and _moment(given_as_of) > _moment(stated_at)):
            return [as_of(one, given_as_of) if one is said else one for one in given]
        return list(stored)
    log = sorted(moves.values(), key=lambda one: _moment(one["period"]["start"]))
    first = _moment(log[0]["period"]["start"])
    origin = _origin([*stored, *given])
    if origin is None and _mark(log[0]) != "takes-back":
        # A transfer without PV1-6 leads away from where the patient was said to lie.
        origin = _before(stated, stated_at, first)
    # Whoever names another place after the last transfer knows of one that nobody told.
    for place, moment in ((stated, stated_at), (said, given_as_of)):
        if place and _moment(moment) > _moment(log[-1]["period"]["start"]) and place["location"] != log[-1]["location"]:
            log.append({**_marked("implied"), "location": place["location"], "period": {"start": moment}})
    # Once the transfer is told that explains it, the other place needs no move of its own.
    before = [None, *(one["location"] for one in log)]
    log = [one for one, last in zip(log, before, strict=False) if _mark(one) != "implied" or one["location"] != last]
    made = [_shaped(one, after) for one, after in zip(log, [*log[1:], None], strict=True)]
    # Readers look at the first entry for where the patient is.
    made.reverse()
    if origin:
        made.append({"location": origin["location"], "status": "completed", "period": {"end": _start(log[0])}})
    return made + [one for one in (given if newer else stored) if _is_aside(one)]


def as_of(entry: Json, moment: str) -> Json:
    """Return the place *entry* with the moment when it was stated, for later messages that do not speak of it."""
    return {"extension": [{"url": STATED, "valueDateTime": moment}], **entry}


def unspoken(stored: Sequence[Json], moment: str) -> list[Json]:
    """Return ``Encounter.location`` after a newer message that says nothing of the place, last stated at *moment*."""
    stated = _stated(stored)
    return [as_of(one, moment) if one is stated and "extension" not in one else one for one in stored]


def classes(stored: Sequence[Json], given: Sequence[Json], *, before: Json | None, before_as_of: str) -> list[Json]:
    """Return ``Encounter.classHistory`` after a message; *before* is the class that a change found.

    The changes are the same in whatever order they come. What the visit was before the first of them is kept where it
    was known when that one came: an older message that comes later still is no history of a class that nobody told.
    """
    changes = {one["period"]["start"]: one for one in (*stored, *given) if _start(one)}
    if not changes:
        return []
    log = sorted(changes.values(), key=lambda one: _moment(one["period"]["start"]))
    initial = [one for one in stored if not _start(one)]
    known = before is not None and before.get("code") != "UNK"
    if not initial and known and _moment(before_as_of) < _moment(_start(log[0])):
        initial = [{"class": before}]
    made = [{"class": one["class"], "period": {"end": _start(log[0])}} for one in initial[:1]]
    for one, after in zip(log, [*log[1:], None], strict=True):
        period = {"start": _start(one), **({"end": _start(after)} if after else {})}
        made.append({"class": one["class"], "period": period})
    return made


def as_text(moment: datetime) -> str:
    """Return *moment* as the dateTime that entries are compared by."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _shaped(one: Json, after: Json | None) -> Json:
    taken_back = after is not None and _mark(after) == "takes-back"
    mark = _mark(one) if _mark(one) in {"takes-back", "implied"} else ("taken-back" if taken_back else "")
    made: Json = _marked(mark) if mark else {}
    made["location"] = one["location"]
    made["status"] = "completed" if after else "active"
    made["period"] = {"start": _start(one), **({"end": _start(after)} if after else {})}
    return made


def _start(one: Mapping[str, Any]) -> str:
    return str(one.get("period", {}).get("start", ""))


def _since(one: Json | None, default: str) -> str:
    extensions = (one or {}).get("extension", ())
    return next((str(item["valueDateTime"]) for item in extensions if item["url"] == STATED), default)


def _mark(one: Mapping[str, Any]) -> str:
    return next((str(item["valueCode"]) for item in one.get("extension", ()) if item["url"] == TRANSFER), "")


def _origin(entries: Sequence[Json]) -> Json | None:
    """The place from which the earliest transfer led away: an entry that has an end and no start."""
    ended = [one for one in entries if one.get("period", {}).get("end") and not _start(one)]
    return min(ended, key=lambda one: _moment(one["period"]["end"]), default=None)


def _stated(entries: Sequence[Json]) -> Json | None:
    """The place that a message names without a transfer; the first active one is PV1-3."""
    return next(
        (one for one in entries if "location" in one and one["status"] == "active" and "period" not in one), None
    )


def _before(place: Json | None, as_of: str, first: datetime) -> Json | None:
    return place if place and as_of and _moment(as_of) < first else None


def _is_aside(one: Mapping[str, Any]) -> bool:
    """Whether an entry is no stay: a bed that is planned or reserved."""
    return one["status"] in {"planned", "reserved"} and "period" not in one


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
