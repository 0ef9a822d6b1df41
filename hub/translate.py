"""A translated HL7 v2 message meets what is stored: its changes become new versions, or are kept out as too late.

HL7 v2 chapter 2.10 (a segment speaks only of what it carries) and 3.3.40 (ADT^A40). The rules for one resource are
:mod:`fhir_mappings.hl7v2.status`; here they are applied to all changes of a message against one consistent view, and
everything that results is written with one call. Applying a message twice writes nothing the second time.

Merged patients: a dead record carries a ``replaced-by`` link. Whatever later speaks of it lands on the survivor at the
end of the chain of links. Nothing stored before is rewritten, so that a merge can be taken back; a search for the
survivor follows the links. A link to a record of another owner leads nowhere. What no rule can settle (a dead number
that comes back, two merges that contradict each other) becomes a Task of the work list, for a person.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fhir_mappings.hl7v2 import status
from fhir_mappings.hl7v2.base import Attachment, Issue, Merge, Snapshot, Translation, Upsert
from fhir_mappings.identifiers import naming_system, resource_id
from hub.access import DIRECTORY_TYPES, UNRESTRICTED
from hub.clock import instant
from hub.members import MEMBER_SYSTEM
from hub.ports import NewVersion, ObjectRef, ObjectStore, Tx
from hub.provenance import Context, provenance
from hub.rows import Row, is_listed, number_of, redirected, replaced_by, row_of, visit_of

Json = dict[str, Any]

#: Extensions of ``Binary.data`` that say where the bytes are: the SHA-256 of the stored object, and its size.
OBJECT_DIGEST = "object-digest"
OBJECT_SIZE = "object-size"
#: Longest list that one snapshot is compared with.
_SNAPSHOT_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What became of a message.

    Attributes:
        changed: references of the resources that have a new version.
        superseded: references of resources that already knew better.
        patient_id: the Patient the message is about, after merges.
        redirects: Patient id in the message -> Patient id it stands for now.
    """

    changed: tuple[str, ...] = ()
    superseded: tuple[str, ...] = ()
    issues: tuple[Issue, ...] = ()
    patient_id: str | None = None
    redirects: Mapping[str, str] = field(default_factory=dict)


def store_attachments(objects: ObjectStore, translation: Translation) -> dict[str, ObjectRef]:
    """Make the bytes of all attachments durable and return where they are, by Binary id; done before the transaction.

    Raises:
        HubError: unavailable, when the store cannot take them now.
    """
    return {
        change.binary_id: objects.put_bytes(change.data)
        for change in translation.changes
        if isinstance(change, Attachment)
    }


def apply(tx: Tx, translation: Translation, context: Context, attachments: Mapping[str, ObjectRef]) -> Applied:
    """Apply *translation* inside *tx* and return what changed; durable when the transaction is.

    Raises:
        HubError: conflict or forbidden, when a resource of that id belongs to somebody else.
    """
    work = _Work(tx, translation, context)
    work.load(_references(translation))
    work.follow_merges()
    for change in translation.changes:
        match change:
            case Upsert():
                work.upsert(change)
            case Snapshot():
                work.snapshot(change)
            case Merge():
                work.merge(change)
            case Attachment():
                work.attach(change, attachments[change.binary_id])
    return work.write()


def _references(translation: Translation) -> list[str]:
    wanted: dict[str, None] = {}
    if translation.patient_id:
        wanted[f"Patient/{translation.patient_id}"] = None
    for change in translation.changes:
        match change:
            case Upsert():
                wanted[change.reference] = None
            case Merge():
                wanted[f"Patient/{change.survivor_id}"] = None
                wanted[f"Patient/{change.dead_id}"] = None
            case Attachment():
                wanted[f"Binary/{change.binary_id}"] = None
    return list(wanted)


class _Work:
    """The resources that one message touches, read once and written once."""

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
        for reference in [name for name in self._rows if name.startswith("Patient/")]:
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

    # --- changes -----------------------------------------------------------------------------------------------

    def upsert(self, change: Upsert) -> None:
        """Merge the elements of *change* into what is stored, unless it came too late."""
        id_ = str(change.resource["id"])
        is_patient = change.resource["resourceType"] == "Patient"
        if is_patient and id_ in self._contradicting:
            # Until a person has decided who is who, the statement stays in the journal.
            return
        if is_patient and id_ in self._redirects and id_ not in self._merging:
            change = self._for_survivor(change, id_)
        elif self._redirects:
            resource = redirected(change.resource, self._redirects)
            if resource is not change.resource:
                change = replace(change, resource=resource)
        row = self._rows[change.reference] if change.reference in self._rows else self._fresh(change.reference)
        if row.resource is None and change.update_only:
            return
        existed = row.resource is not None
        result = status.apply(row.resource, change, asserted_at=self._asserted_at, stored_asserted_at=row.asserted_at)
        if result.changed:
            self._set(change.reference, row, result.resource)
        if result.superseded:
            self._superseded[change.reference] = None
        elif not (existed and change.create_only):
            # Saying the same again at a later moment is news too: what was said in between must not win when it comes.
            row.confirmed = row.confirmed or (change.guard != "none" and self._asserted_at != row.asserted_at)
            row.asserted_at = self._asserted_at

    def _fresh(self, reference: str) -> Row:
        self.load([reference])
        return self._rows[reference]

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
        if not change.create_only and (dead.asserted_at is None or self._asserted_at > dead.asserted_at):
            self._work_item(
                "unmerge-candidate",
                survivor_id,
                dead_id,
                "已并入他人的患者号再次出现 / A patient number that was merged away is in use again",
            )
        return replace(change, resource=resource)

    def snapshot(self, change: Snapshot) -> None:
        """Retire what the message's list leaves out; an old list retires nothing, and adds only retired entries."""
        subject = self._redirects.get(change.subject_id, change.subject_id)
        scope = [
            reference
            for reference in self._listed(change.resource_type, subject, change.source_key)
            if reference in self._rows
        ]
        kept = {f"{change.resource_type}/{id_}" for id_ in change.keep_ids}
        visits = {visit_of(self._rows[reference].resource) for reference in kept if reference in self._rows}
        # Diagnoses are listed visit by visit; another visit's list says nothing about this one's.
        scope = [reference for reference in scope if visit_of(self._rows[reference].resource) in visits]
        newer = any(
            (row.asserted_at or self._asserted_at) > self._asserted_at for row in map(self._rows.get, scope) if row
        )
        for reference in kept if newer else (name for name in scope if name not in kept):
            row = self._rows.get(reference)
            if row is None or row.resource is None or (newer and row.stored):
                continue
            retired = status.retire(row.resource)
            if retired != row.resource:
                self._set(reference, row, retired)
                row.asserted_at = self._asserted_at
            if newer:
                self._superseded[reference] = None

    def _listed(self, kind: str, subject: str, source_key: str) -> list[str]:
        found = self._tx.records.referring(kind, "patient", f"Patient/{subject}", UNRESTRICTED, limit=_SNAPSHOT_MAX)
        references = []
        for one in found:
            reference = f"{kind}/{one.id}"
            if one.owner != self._context.owner:
                continue
            if reference not in self._rows:
                self._rows[reference] = row_of(one)
            if is_listed(self._rows[reference].resource, source_key):
                references.append(reference)
        return references

    def merge(self, change: Merge) -> None:
        """Link the dead record to the survivor, both ways; settled merges are left as they are."""
        dead_id = change.dead_id
        survivor_id = self._survivor(change.survivor_id)
        if self._contradicts(change):
            other_id = dead_id if survivor_id != dead_id else change.survivor_id
            text = "患者合并与先前的合并相矛盾 / A merge contradicts an earlier one"
            self._work_item("merge-conflict", survivor_id, other_id, text)
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

    def attach(self, change: Attachment, ref: ObjectRef) -> None:
        """Make the Binary that stands for the stored bytes."""
        reference = f"Binary/{change.binary_id}"
        base = self._context.base
        binary: Json = {
            "resourceType": "Binary",
            "id": change.binary_id,
            "contentType": change.content_type,
            "securityContext": {"reference": change.context},
            "_data": {
                "extension": [
                    {"url": f"{base}/StructureDefinition/{OBJECT_DIGEST}", "valueString": ref.digest},
                    {"url": f"{base}/StructureDefinition/{OBJECT_SIZE}", "valueDecimal": ref.size},
                ]
            },
        }
        row = self._rows[reference]
        if status.is_older(row.asserted_at, self._asserted_at) and row.resource is not None:
            self._superseded[reference] = None
        elif row.resource != binary:
            self._set(reference, row, binary)
            row.asserted_at = self._asserted_at

    def _work_item(self, code: str, patient_id: str, other_id: str, text: str) -> None:
        base = self._context.base
        id_ = resource_id(self._context.owner, "work-item", "Task", f"{code}|{patient_id}|{other_id}")
        row = self._fresh(f"Task/{id_}")
        self._issues.append(
            Issue(
                severity="warning",
                code="conflict",
                message=f"{text}.",
                where="PID-3" if code != "merge-conflict" else "MRG-1",
            )
        )
        if row.resource is not None:
            return
        institution = {"system": MEMBER_SYSTEM, "value": self._context.owner}
        self._set(
            f"Task/{id_}",
            row,
            {
                "resourceType": "Task",
                "id": id_,
                "identifier": [
                    {"system": naming_system(self._context.owner, "work-item", base=base), "value": id_},
                ],
                "status": "requested",
                "intent": "order",
                "priority": "urgent",
                "code": {"coding": [{"system": f"{base}/CodeSystem/work-item", "code": code}], "text": text},
                "focus": {"reference": f"Patient/{other_id}"},
                "for": {"reference": f"Patient/{patient_id}"},
                "authoredOn": instant(self._context.now),
                "owner": {"type": "Organization", "identifier": institution},
            },
        )

    # --- writing -----------------------------------------------------------------------------------------------

    def _set(self, reference: str, row: Row, resource: Json) -> None:
        row.resource = resource
        row.dirty = True
        self._order[reference] = None

    def write(self) -> Applied:
        """Write every new version and the Provenance; return what became of the message."""
        changed = list(self._order)
        versions = [self._version(reference) for reference in changed]
        versions += [
            self._version(reference)
            for reference, row in self._rows.items()
            if row.confirmed and not row.dirty and row.resource is not None and reference not in self._order
        ]
        if changed:
            made = provenance(changed, self._context, self._translation.event)
            versions.append(NewVersion(resource=made, owner=self._context.owner))
        if versions:
            self._tx.records.put_many(versions)
        patient_id = self._translation.patient_id
        issues = [*self._translation.issues, *self._issues]
        issues += [
            Issue(
                severity="information",
                code="business-rule",
                message="superseded-on-arrival: what is stored speaks of a later moment or a later status.",
                where=reference.partition("/")[0],
            )
            for reference in self._superseded
        ]
        return Applied(
            changed=tuple(changed),
            superseded=tuple(self._superseded),
            issues=tuple(issues),
            patient_id=self._redirects.get(patient_id, patient_id) if patient_id else None,
            redirects=dict(self._redirects),
        )

    def _version(self, reference: str) -> NewVersion:
        row = self._rows[reference]
        assert row.resource is not None
        shared = row.resource["resourceType"] in DIRECTORY_TYPES
        return NewVersion(
            resource=row.resource,
            owner=self._context.owner,
            visibility="consortium" if shared else "institution",
            asserted_at=row.asserted_at,
        )
