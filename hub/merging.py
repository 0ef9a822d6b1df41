"""Who is who, while an HL7 v2 message is applied: merged patients, visits and accounts, and what was moved between them.

HL7 v2 chapter 3.6 and 3.3.43 to 3.3.45. Nothing stored before a merge is rewritten: a dead record ends with a link to its
survivor, whatever comes later for it lands there, and a search for the survivor follows the links. A move does rewrite,
because the visit never was the former patient's: what was said of the visit goes with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from fhir_mappings.hl7v2 import status
from fhir_mappings.hl7v2.base import Change, Issue, Merge, Move, Replace, Translation, Unlink, Upsert
from fhir_mappings.identifiers import CANONICAL_BASE
from hub import merge_items
from hub.access import UNRESTRICTED
from hub.ports import Tx
from hub.provenance import Context
from hub.rows import Row, number_of, readdressed, redirected, replaced_by, row_of

Json = dict[str, Any]

#: Extension of a visit or an account whose number gave way to another.
REPLACED_BY = f"{CANONICAL_BASE}/StructureDefinition/replaced-by"

#: What is said of a visit and goes with it when it moves: type, the search parameter that leads to the visit.
_OF_VISIT = (
    ("Condition", "encounter"),
    ("Procedure", "encounter"),
    ("Observation", "encounter"),
    ("DiagnosticReport", "encounter"),
    ("ServiceRequest", "encounter"),
    ("DocumentReference", "encounter"),
    ("MedicationRequest", "encounter"),
)
#: Most resources of one kind that a message moves; a visit with more is a fault of its sender's.
MOVED_MAX = 1000


class Merging:
    """The resources that one message touches, and whom they are about."""

    def __init__(self, tx: Tx, translation: Translation, context: Context) -> None:
        self._tx = tx
        self._translation = translation
        self._context = context
        self._asserted_at = translation.asserted_at
        self._rows: dict[str, Row] = {}
        self._order: dict[str, None] = {}
        self._redirects: dict[str, str] = {}
        self._merges = [change for change in translation.changes if isinstance(change, Merge)]
        self._merging = {change.dead_id for change in self._merges}
        self._contradicting: set[str] = set()
        self._superseded: dict[str, None] = {}
        #: Reference of a visit or account in the message -> the one that stands for it now, or whose patient it has.
        self._stand_ins: dict[str, str] = {}
        self._issues: list[Issue] = []

    # --- reading -----------------------------------------------------------------------------------------------

    def load(self, references: Iterable[str]) -> None:
        """Read the current versions of *references* that are not at hand yet."""
        missing = [reference for reference in references if reference not in self._rows]
        keys = [(kind, id_) for kind, _, id_ in (reference.partition("/") for reference in missing)]
        found = self._tx.records.get_many(keys, UNRESTRICTED) if keys else {}
        for kind, id_ in keys:
            self._rows[f"{kind}/{id_}"] = row_of(found.get((kind, id_)))

    def follow_merges(self) -> None:
        """Find out which patients of the message are dead records, and who survives them."""
        patients = [name for name in self._rows if name.startswith("Patient/")]
        if self._merges or any(_is_linked(self._rows[reference].resource) for reference in patients):
            # Whoever undoes a merge meanwhile is waited for; what its records say is read behind the lock.
            self._tx.records.lock_condition(merge_items.lock_of(self._context.owner))
            for reference in patients:
                del self._rows[reference]
            self.load(patients)
        for reference in patients:
            id_ = reference.partition("/")[2]
            survivor = self._survivor(id_)
            if survivor != id_:
                self._redirects[id_] = survivor
        for change in self._merges:
            if self._contradicts(change):
                self._contradicting.add(change.survivor_id)

    def _contradicts(self, change: Merge) -> bool:
        """Whether an earlier merge says that the survivor is the dead one, or that a third record survives."""
        survivor_id = self._survivor(change.survivor_id)
        already = replaced_by(self._rows[f"Patient/{change.dead_id}"].resource)
        return survivor_id == change.dead_id or (already is not None and self._survivor(change.dead_id) != survivor_id)

    def _survivor(self, id_: str) -> str:
        seen = {id_}
        while True:
            self.load([f"Patient/{id_}"])
            dead = self._rows[f"Patient/{id_}"]
            following = replaced_by(dead.resource)
            if following is None or following in seen:
                return id_
            self.load([f"Patient/{following}"])
            survivor = self._rows[f"Patient/{following}"]
            if None not in {dead.owner, survivor.owner} and dead.owner != survivor.owner:
                # Whoever wrote that link cannot move its patient into another institution's record.
                return id_
            seen.add(following)
            id_ = following

    def _for_survivor(self, change: Upsert, dead_id: str) -> Upsert:
        """Return *change* of a dead record as one of its survivor; its numbers stay marked as old ones."""
        survivor_id = self._redirects[dead_id]
        dead = self._rows[f"Patient/{dead_id}"]
        old = {number_of(item) for item in (dead.resource or {}).get("identifier", [])}
        own = {
            number_of(item)
            for item in (self._rows[f"Patient/{survivor_id}"].resource or {}).get("identifier", [])
            if item.get("use") != "old"
        }
        resource = {**redirected(change.resource, self._redirects), "id": survivor_id}
        if "identifier" in resource:
            resource["identifier"] = [
                {**item, "use": "old"} if number_of(item) in old and number_of(item) not in own else item
                for item in resource["identifier"]
            ]
        if not change.create_only and self._is_after_merge(dead_id) and not self._let_through(dead_id):
            self._unmerge_candidate(dead_id)
        return replace(change, resource=resource)

    def merge(self, change: Merge) -> None:
        """Link the dead record to the survivor, both ways; settled merges are left as they are."""
        dead_id = change.dead_id
        survivor_id = self._survivor(change.survivor_id)
        if self._contradicts(change):
            other_id = dead_id if survivor_id != dead_id else change.survivor_id
            self._work_item(merge_items.CONFLICT, survivor_id, other_id)
            return
        dead_key, survivor_key = f"Patient/{dead_id}", f"Patient/{survivor_id}"
        if replaced_by(self._rows[dead_key].resource) is not None:
            return
        dead_row, survivor_row = self._rows[dead_key], self._rows[survivor_key]
        dead: Json = dict(dead_row.resource or {"resourceType": "Patient", "id": dead_id})
        dead["active"] = False
        dead["link"] = [*dead.get("link", []), {"other": {"reference": survivor_key}, "type": "replaced-by"}]
        survivor: Json = dict(survivor_row.resource or {"resourceType": "Patient", "id": survivor_id, "active": True})
        survivor["link"] = [*survivor.get("link", []), {"other": {"reference": dead_key}, "type": "replaces"}]
        known = {number_of(item) for item in survivor.get("identifier", [])}
        numbers = [{**item, "use": "old"} for item in dead.get("identifier", []) if number_of(item) not in known]
        if numbers:
            survivor["identifier"] = [*survivor.get("identifier", []), *numbers]
        self._set(dead_key, dead_row, dead)
        self._set(survivor_key, survivor_row, survivor)
        # From now on the dead record speaks of the moment of the merge: what is told later of its number is news.
        dead_row.asserted_at = max(dead_row.asserted_at or self._asserted_at, self._asserted_at)
        self._redirects[dead_id] = survivor_id
        for former, target in list(self._redirects.items()):
            if target == dead_id:
                self._redirects[former] = survivor_id

    def _work_item(self, code: str, patient_id: str, other_id: str) -> None:
        where = "MRG-1" if code == merge_items.CONFLICT else "PID-3"
        text = f"{merge_items.text_of(code)}."
        self._issues.append(Issue(severity="warning", code="conflict", message=text, where=where))
        reference = f"Task/{merge_items.item_id(self._context.owner, code, patient_id, other_id)}"
        row = self._fresh(reference)
        item = merge_items.raised(row.resource, code, patient_id, other_id, self._context)
        if item != row.resource:
            self._set(reference, row, item)

    def _set(self, reference: str, row: Row, resource: Json) -> None:
        row.resource = resource
        row.dirty = True
        self._order[reference] = None

    def _fresh(self, reference: str) -> Row:
        self.load([reference])
        return self._rows[reference]

    def hold(self) -> bool:
        """Return whether the message waits for a person: it speaks anew of a number that was merged away (un-merge).

        A hospital that takes a merge back, or gives the number to somebody else, says so by using it again. Taken as news
        of the survivor, that could file one person's visit with another. Results and orders are no such sign, for their
        systems learn late of a merge; a message from before the merge is none either.
        """
        if self._merges or not self._translation.event.startswith("ADT^"):
            return False
        held = False
        for change in self._translation.changes:
            dead_id = self._spoken_of_anew(change)
            if dead_id is not None and not self._let_through(dead_id):
                self._unmerge_candidate(dead_id)
                held = True
        return held

    def _spoken_of_anew(self, change: Change) -> str | None:
        """Return the record merged away that *change* speaks of as one in use, later than the merge."""
        if isinstance(change, Unlink):
            id_ = self._joined(change)
            if id_ is None:
                text = "The two records are not merged; nothing was changed."
                self._issues.append(Issue(severity="information", code="business-rule", message=text, where="PID-3"))
                return None
        elif isinstance(change, Upsert) and not change.create_only and not change.literal:
            id_ = str(change.resource["id"])
            if change.resource["resourceType"] != "Patient" or id_ not in self._redirects:
                return None
        else:
            return None
        return id_ if self._is_after_merge(id_) else None

    def _joined(self, change: Unlink) -> str | None:
        """Return which of two records was merged away, so that both are one person's; ``None`` where they are two's."""
        one, other = change.one_id, change.other_id
        if one == other or self._survivor(one) != self._survivor(other):
            return None
        return one if one in self._redirects else other

    def _let_through(self, dead_id: str) -> bool:
        survivor_id = self._redirects[dead_id]
        id_ = merge_items.item_id(self._context.owner, merge_items.CANDIDATE, survivor_id, dead_id)
        return merge_items.let_through(self._fresh(f"Task/{id_}").resource, self._context.journal_seq)

    def _is_after_merge(self, dead_id: str) -> bool:
        known = self._rows[f"Patient/{dead_id}"].asserted_at
        return known is None or self._asserted_at > known

    def _unmerge_candidate(self, dead_id: str) -> None:
        self._work_item(merge_items.CANDIDATE, self._redirects[dead_id], dead_id)

    # --- visits and accounts -----------------------------------------------------------------------------------

    def follow_replacements(self) -> None:
        """Find out which visits and accounts of the message go by another number now."""
        for reference in [name for name in self._rows if name.startswith(("Encounter/", "Account/"))]:
            survivor = self._standing_for(reference)
            if survivor != reference:
                self._stand_ins[reference] = survivor

    def _standing_for(self, reference: str) -> str:
        seen = {reference}
        while True:
            row = self._fresh(reference)
            following = _replaced_by(row.resource)
            if following is None or following in seen:
                return reference
            if self._fresh(following).owner not in {None, row.owner}:
                return reference
            seen.add(following)
            reference = following

    def replace(self, change: Replace) -> None:
        """Let the dead visit or account lead to the survivor; settled ones are left as they are."""
        dead_key = f"{change.resource_type}/{change.dead_id}"
        survivor_key = self._standing_for(f"{change.resource_type}/{change.survivor_id}")
        dead, survivor = self._fresh(dead_key), self._fresh(survivor_key)
        if dead.resource is None or survivor.resource is None or _replaced_by(dead.resource) is not None:
            return
        if survivor_key == dead_key:
            self._issues.append(
                Issue(
                    severity="warning",
                    code="conflict",
                    message="The number that is to stay was itself replaced by the other one; nothing was merged.",
                    where="MRG",
                )
            )
            return
        gone = dict(dead.resource)
        # Encounter has a status for what never was; an account that was closed is inactive.
        gone["status"] = "entered-in-error" if change.resource_type == "Encounter" else "inactive"
        link = {"url": REPLACED_BY, "valueReference": {"reference": survivor_key}}
        gone["extension"] = [*gone.get("extension", []), link]
        stays = dict(survivor.resource)
        known = {number_of(item) for item in stays.get("identifier", [])}
        old = [{**item, "use": "old"} for item in gone.get("identifier", []) if number_of(item) not in known]
        if old:
            stays["identifier"] = [*stays.get("identifier", []), *old]
            self._set(survivor_key, survivor, stays)
        self._set(dead_key, dead, gone)
        self._stand_ins[dead_key] = survivor_key

    def _replaced(self, change: Upsert) -> Upsert:
        """Return *change* as one of the visit or account that goes for the one it names."""
        resource = readdressed(change.resource, self._stand_ins)
        target = self._stand_ins.get(change.reference)
        if target is None:
            return change if resource is change.resource else replace(change, resource=resource)
        resource = {**resource, "id": target.partition("/")[2]}
        if "identifier" in resource:
            old = {number_of(item) for item in (self._fresh(change.reference).resource or {}).get("identifier", [])}
            resource["identifier"] = [
                {**item, "use": "old"} if number_of(item) in old else item for item in resource["identifier"]
            ]
        return replace(change, resource=resource)

    # --- moves -------------------------------------------------------------------------------------------------

    def move(self, change: Move) -> None:
        """Give the visits and accounts, and what was said of the visits, to the patient they belong to."""
        source = f"Patient/{change.source_id}"
        target = self._redirects.get(change.target_id, change.target_id)
        references = [self._stand_ins.get(one, one) for one in change.references]
        if not references:
            references = [*self._owned("Encounter", "patient", source), *self._owned("Account", "patient", source)]
        for reference in references:
            row = self._fresh(reference)
            if row.resource is None:
                continue
            if status.is_older(row.asserted_at, self._asserted_at) and row.stored:
                self._superseded[reference] = None
                continue
            # Whose it was is not asked: an earlier move may still be on its way.
            former = dict.fromkeys(_patients_of(row.resource), target)
            self._give(reference, former)
            row.confirmed = row.confirmed or row.asserted_at != self._asserted_at
            row.asserted_at = self._asserted_at
            if reference.startswith("Encounter/"):
                for kind, parameter in _OF_VISIT:
                    for one in self._owned(kind, parameter, reference):
                        self._give(one, former)

    def _owned(self, kind: str, parameter: str, target: str) -> list[str]:
        found = self._tx.records.referring(kind, parameter, target, UNRESTRICTED, limit=MOVED_MAX)
        made = []
        for one in found:
            if one.owner == self._context.owner and not one.deleted:
                reference = f"{kind}/{one.id}"
                self._rows.setdefault(reference, row_of(one))
                made.append(reference)
        return made

    def _give(self, reference: str, renamed: dict[str, str]) -> None:
        row = self._rows[reference]
        moved = redirected(row.resource, renamed)
        if moved is not row.resource:
            self._set(reference, row, moved)

    def _of_moved_visit(self, change: Upsert) -> Upsert:
        """Return *change*, where its visit was moved to another patient later, as one about that patient."""
        named = change.reference
        if not named.startswith("Encounter/"):
            named = str(change.resource.get("encounter", {}).get("reference", ""))
        row = self._rows.get(named)
        if row is None or row.resource is None or not row.stored or row.owner != self._context.owner:
            return change
        if not status.is_older(row.asserted_at, self._asserted_at):
            return change
        subject = str(row.resource.get("subject", {}).get("reference", "")).removeprefix("Patient/")
        said = str(change.resource.get("subject", {}).get("reference", "")).removeprefix("Patient/")
        if not subject or not said or subject == said:
            return change
        return replace(change, resource=redirected(change.resource, {said: subject}))


def _is_linked(resource: Json | None) -> bool:
    return any(one.get("type") in {"replaced-by", "replaces"} for one in (resource or {}).get("link", ()))


def _patients_of(resource: Json) -> list[str]:
    subject = resource.get("subject", [])
    found = subject if isinstance(subject, list) else [subject]
    references = [str(one.get("reference", "")) for one in found]
    return [one.removeprefix("Patient/") for one in references if one.startswith("Patient/")]


def _replaced_by(resource: Json | None) -> str | None:
    for extension in (resource or {}).get("extension", ()):
        if extension.get("url") == REPLACED_BY:
            return str(extension.get("valueReference", {}).get("reference", "")) or None
    return None
