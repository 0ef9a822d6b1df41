"""A merge taken back: what the two records say once they are two again, and what came while they were one.

HL7 v2 chapter 3.3.37 and 3.3.40. A merge rewrote nothing that was stored: it linked two records and gave the survivor the
other's numbers as old ones. So taking it back ends the link and gives the numbers back, each by a new version; whoever
was merged into the dead record before goes with it. What came meanwhile is only looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from fhir_mappings.errors import MappingError
from fhir_mappings.hl7v2.base import Merge, Translation
from fhir_mappings.hl7v2.translate import translate
from fhir_mappings.json import loads
from hub import merge_items
from hub.access import UNRESTRICTED, Scope
from hub.arrival import read_arrival
from hub.errors import HubError
from hub.message_search import body_of
from hub.ports import Entry, NewVersion, Stored, Tx
from hub.rows import number_of, replaced_by, row_of

if TYPE_CHECKING:
    from hub.boot import Services

Json = dict[str, Any]
#: Under whose number a message came: that of the record merged away, the survivor's, or nobody can tell.
Said = Literal["former", "survivor", "unknown"]

#: Most versions of a record that are looked at for the moment of its merge, and most records that merges join.
_VERSIONS_MAX = 1000
_RECORDS_MAX = 1000
#: Most resources that one list names.
LISTED_MAX = 1000
_PAGE = 200
_NEVER_MOVED = frozenset({"Provenance", "AuditEvent"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """What the history of a record says of its merge.

    Attributes:
        survivor_id: into whom it was merged.
        since: when that was stored.
        before: the version before; ``None`` where the merge made the record.
        still: it has not been taken back.
    """

    survivor_id: str
    since: datetime
    before: Stored | None
    still: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Came:
    """One resource of the survivor's that came or changed after the merge.

    Attributes:
        message: the number in the journal of the message that said it last; 0 where no message of the owner's did.
    """

    reference: str
    last_updated: datetime
    message: int
    said: Said


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What ended because two records are two persons again.

    Attributes:
        shares: ids of share links that showed studies of both.
        grants: (Task id, ``Type/id``) of single resources of the one that a Task for the other had opened.
    """

    shares: tuple[str, ...] = ()
    grants: tuple[tuple[str, str], ...] = ()

    def __add__(self, other: Ended) -> Ended:
        return Ended(shares=(*self.shares, *other.shares), grants=(*self.grants, *other.grants))

    def entities(self) -> tuple[str, ...]:
        """Return what the audit line names."""
        return (*(f"share:{one}" for one in self.shares), *(what for _, what in self.grants))

    def shown(self) -> Json:
        """Return what people are told."""
        return {
            "ended_shares": list(self.shares),
            "ended_grants": [{"task": f"Task/{task}", "reference": what} for task, what in self.grants],
        }


def merge_of(tx: Tx, dead: Stored) -> Merged | None:
    """Return the merge that *dead* is under, or the last one that was taken back; ``None`` where it never was merged."""
    found: tuple[str, datetime] | None = None
    still = replaced_by(loads(dead.body)) is not None
    for version in tx.records.history("Patient", dead.id, UNRESTRICTED, count=_VERSIONS_MAX):
        following = None if version.deleted else replaced_by(loads(version.body))
        if found is not None and following != found[0]:
            return Merged(
                survivor_id=found[0], since=found[1], before=None if version.deleted else version, still=still
            )
        if following is not None:
            found = (following, version.last_updated)
    return None if found is None else Merged(survivor_id=found[0], since=found[1], before=None, still=still)


def merged_into(tx: Tx, patient: Stored) -> dict[str, Stored]:
    """Return *patient* and the records of its owner that were merged into it, by their ids."""
    found = {patient.id: patient}
    waiting = [patient.id]
    while waiting and len(found) < _RECORDS_MAX:
        id_ = waiting.pop()
        for one in tx.records.referring("Patient", "link", f"Patient/{id_}", UNRESTRICTED, limit=_RECORDS_MAX):
            if one.owner == patient.owner and one.id not in found and replaced_by(loads(one.body)) == id_:
                found[one.id] = one
                waiting.append(one.id)
    return found


def survivors_of(tx: Tx, owner: str, survivor_id: str) -> list[Stored]:
    """Return *survivor_id* and the records of *owner* that it was merged into in turn, the nearest first."""
    found: list[Stored] = []
    following: str | None = survivor_id
    while following is not None and following not in {one.id for one in found}:
        stored = tx.records.get("Patient", following, UNRESTRICTED)
        if stored is None or stored.deleted or stored.owner != owner:
            break
        found.append(stored)
        following = replaced_by(loads(stored.body))
    return found


def separated(tx: Tx, dead: Stored, merge: Merged) -> list[NewVersion]:
    """Return the new versions of *dead* and of its survivors once *merge* is taken back."""
    survivors = survivors_of(tx, dead.owner, merge.survivor_id)
    group = merged_into(tx, dead)
    gone = {number_of(item) for one in group.values() for item in loads(one.body).get("identifier", ())}
    versions = [_alone(dead, merge)]
    cleaned: dict[str, Json] = {}
    since = merge.since
    for survivor in survivors:
        above = merge_of(tx, survivor)
        body: Json = row_of(survivor).resource or {}
        kept = _before(tx, survivor, since) | {
            number_of(item)
            for one in merged_into(tx, survivor).values()
            if one.id not in group and one.id != survivor.id
            for item in cleaned.get(one.id, loads(one.body)).get("identifier", ())
        }
        body["identifier"] = [
            item
            for item in body.get("identifier", ())
            if item.get("use") != "old" or number_of(item) not in gone or number_of(item) in kept
        ]
        body["link"] = [
            one
            for one in body.get("link", ())
            if one.get("type") != "replaces" or one.get("other", {}).get("reference") != f"Patient/{dead.id}"
        ]
        cleaned[survivor.id] = {name: value for name, value in body.items() if value != []}
        versions.append(
            NewVersion(resource=cleaned[survivor.id], owner=survivor.owner, asserted_at=survivor.asserted_at)
        )
        if above is not None and above.still:
            since = max(since, above.since)
    return versions


def _alone(dead: Stored, merge: Merged) -> NewVersion:
    """Return *dead* as it stands by itself; a record that only the merge made is in use from now on."""
    body: Json = row_of(dead).resource or {}
    body["link"] = [one for one in body.get("link", ()) if one.get("type") != "replaced-by"]
    before = None if merge.before is None else loads(merge.before.body)
    if before is None:
        body["active"] = True
        for name in ("identifier", "name"):
            body[name] = [{key: value for key, value in one.items() if key != "use"} for one in body.get(name, ())]
    elif "active" in before:
        body["active"] = before["active"]
    else:
        body.pop("active", None)
    return NewVersion(
        resource={name: value for name, value in body.items() if value != []},
        owner=dead.owner,
        # What its sender says of it counts again from where it stood, not from the moment of the merge.
        asserted_at=None if merge.before is None else merge.before.asserted_at,
    )


def _before(tx: Tx, survivor: Stored, since: datetime) -> set[tuple[Any, Any]]:
    """Return the numbers that *survivor* had before the moment of the merge."""
    for version in tx.records.history("Patient", survivor.id, UNRESTRICTED, count=_VERSIONS_MAX):
        if version.last_updated < since and not version.deleted:
            return {number_of(item) for item in loads(version.body).get("identifier", ())}
    return set()


# --- what came meanwhile -----------------------------------------------------------------------------------------


class Meanwhile:
    """Finds what came for the survivors of a merge since then, and under whose number each of it was sent."""

    def __init__(self, services: Services, tx: Tx, owner: str, group: Collection[str]) -> None:
        self._services, self._tx, self._owner, self._group = services, tx, owner, group
        self._scope = Scope(institution=owner)
        self._said: dict[int, Said | None] = {}

    def of(self, survivors: Sequence[Stored], since: datetime) -> list[Came]:
        """Return up to :data:`LISTED_MAX` resources, oldest first, of what the owner may see."""
        ids = {one.id for one in survivors}
        found: list[Came] = []
        for survivor in survivors:
            for stored in self._compartment(survivor.id):
                if stored.patient_id not in ids or stored.last_updated < since or stored.type in _NEVER_MOVED:
                    continue
                if stored.type == "Patient" and stored.id not in ids:
                    continue
                if stored.type == "Task" and merge_items.code_of(loads(stored.body)):
                    continue
                came = self._came(stored, since)
                # Of the survivors themselves only what came under the other number is of interest.
                if came is not None and (stored.type != "Patient" or came.said == "former") and came not in found:
                    found.append(came)
        return sorted(found, key=lambda one: (one.last_updated, one.reference))[:LISTED_MAX]

    def _compartment(self, patient_id: str) -> Iterable[Stored]:
        after: str | None = None
        while True:
            page = self._tx.records.compartment(patient_id, self._scope, types=None, count=_PAGE, after=after)
            yield from page.matches
            after = page.next_cursor
            if after is None:
                return

    def _came(self, stored: Stored, since: datetime) -> Came | None:
        reference = f"{stored.type}/{stored.id}"
        told = self._tx.records.referring("Provenance", "target", reference, self._scope, limit=_PAGE)
        numbers = sorted(
            {seq for one in told if one.last_updated >= since and (seq := message_of(loads(one.body)))}, reverse=True
        )
        said = [(seq, self.said(seq)) for seq in numbers]
        # Of a Patient any message under the other number counts, for it may have changed who the survivor is said to be.
        last = next((one for one in said if one[1] == "former"), None) if stored.type == "Patient" else None
        last = last or next((one for one in said if one[1] is not None), None)
        if last is None and said:
            return None
        seq, by = last if last is not None else (0, "unknown")
        return Came(reference=reference, last_updated=stored.last_updated, message=seq, said=by or "unknown")

    def said(self, seq: int) -> Said | None:
        """Return under whose number message *seq* came; ``None`` for a merge, which speaks of both."""
        if seq not in self._said:
            entry = self._tx.journal.get(seq)
            mine = entry is not None and entry.institution == self._owner
            translation = translated(self._services, entry) if entry is not None and mine else None
            if translation is None:
                self._said[seq] = "unknown"
            elif any(isinstance(change, Merge) for change in translation.changes):
                self._said[seq] = None
            else:
                self._said[seq] = "former" if translation.patient_id in self._group else "survivor"
        return self._said[seq]


def translated(services: Services, entry: Entry) -> Translation | None:
    """Return what message *entry* says by itself; ``None`` where that can no longer be told."""
    try:
        arrival = read_arrival(
            body_of(services, entry),
            services.directory,
            peer=entry.peer,
            door=entry.door,
            received_at=entry.received_at,
            institution_hint=entry.institution,
        )
        if arrival.message is None or arrival.endpoint is None:
            return None
        context = replace(services.directory.context(arrival.endpoint), received_at=entry.received_at)
        return translate(arrival.message, context)
    except (HubError, MappingError):
        return None


def message_of(provenance: Mapping[str, Any]) -> int:
    """Return the number in the journal of the message that a Provenance is about, 0 where it is about none."""
    for entity in provenance.get("entity", ()):
        identifier = entity.get("what", {}).get("identifier", {})
        value = str(identifier.get("value", ""))
        if str(identifier.get("system", "")).endswith("/NamingSystem/journal") and value.isdigit():
            return int(value)
    return 0
