"""A translated HL7 v2 message meets what is stored: its changes become new versions, or are kept out as too late.

HL7 v2 chapter 2.10 (a segment speaks only of what it carries) and 3.3.40 (ADT^A40). The rules for one resource are
:mod:`fhir_mappings.hl7v2.status`; here they are applied to all changes of a message against one consistent view, and
everything that results is written with one call. Applying a message twice writes nothing the second time.

Merged patients: a dead record carries a ``replaced-by`` link. Whatever later speaks of it lands on the survivor at the
end of the chain of links. Nothing stored before is rewritten, so that a merge can be taken back; a search for the
survivor follows the links. A link to a record of another owner leads nowhere. What no rule can settle (a dead number
that comes back, two merges that contradict each other) becomes a Task of the work list, for a person; an ADT under a
dead number that is newer than the merge is held until then, for the number may have been given to somebody else.
:mod:`hub.merging` has the rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fhir_mappings.hl7v2 import status
from fhir_mappings.hl7v2.base import Attachment, Issue, Merge, Move, Replace, Snapshot, Translation, Unlink, Upsert
from hub.access import DIRECTORY_TYPES, UNRESTRICTED
from hub.merging import Merging
from hub.ports import NewVersion, ObjectRef, ObjectStore, Tx
from hub.provenance import Context, provenance
from hub.rows import is_listed, redirected, row_of, visit_of

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
        held: nothing of it was applied, because a person must decide first who is meant.
    """

    changed: tuple[str, ...] = ()
    superseded: tuple[str, ...] = ()
    issues: tuple[Issue, ...] = ()
    patient_id: str | None = None
    redirects: Mapping[str, str] = field(default_factory=dict)
    held: bool = False


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
    work.follow_replacements()
    if work.hold():
        return work.write(held=True)
    for change in (*translation.endings, *translation.changes):
        match change:
            case Upsert():
                work.upsert(change)
            case Snapshot():
                work.snapshot(change)
            case Merge():
                work.merge(change)
            case Replace():
                work.replace(change)
            case Move():
                work.move(change)
            case Attachment():
                work.attach(change, attachments[change.binary_id])
    return work.write()


def _references(translation: Translation) -> list[str]:
    wanted: dict[str, None] = {}
    if translation.patient_id:
        wanted[f"Patient/{translation.patient_id}"] = None
    for change in (*translation.endings, *translation.changes):
        match change:
            case Upsert():
                wanted[change.reference] = None
            case Merge():
                wanted[f"Patient/{change.survivor_id}"] = None
                wanted[f"Patient/{change.dead_id}"] = None
            case Unlink():
                wanted[f"Patient/{change.one_id}"] = None
                wanted[f"Patient/{change.other_id}"] = None
            case Replace():
                wanted[f"{change.resource_type}/{change.survivor_id}"] = None
                wanted[f"{change.resource_type}/{change.dead_id}"] = None
            case Move():
                wanted[f"Patient/{change.source_id}"] = None
                wanted[f"Patient/{change.target_id}"] = None
                wanted.update(dict.fromkeys(change.references))
            case Attachment():
                wanted[f"Binary/{change.binary_id}"] = None
    return list(wanted)


class _Work(Merging):
    """The resources that one message touches, read once and written once."""

    # --- changes -----------------------------------------------------------------------------------------------

    def upsert(self, change: Upsert) -> None:
        """Merge the elements of *change* into what is stored, unless it came too late."""
        id_ = str(change.resource["id"])
        is_patient = change.resource["resourceType"] == "Patient"
        if is_patient and id_ in self._contradicting:
            # Until a person has decided who is who, the statement stays in the journal.
            return
        if self._stand_ins:
            change = self._replaced(change)
        change = self._of_moved_visit(change)
        if is_patient and id_ in self._redirects and id_ not in self._merging and not change.literal:
            change = self._for_survivor(change, id_)
        elif self._redirects and not change.literal:
            resource = redirected(change.resource, self._redirects)
            if resource is not change.resource:
                change = replace(change, resource=resource)
        row = self._rows[change.reference] if change.reference in self._rows else self._fresh(change.reference)
        if row.resource is None and change.update_only:
            return
        result = status.apply(row.resource, change, asserted_at=self._asserted_at, stored_asserted_at=row.asserted_at)
        if result.changed:
            self._set(change.reference, row, result.resource)
        if result.superseded:
            self._superseded[change.reference] = None
        elif not change.create_only:
            # A stand-in asserts nothing about a time, so that what it stands for may be told later of an earlier one.
            # Saying the same again at a later moment is news too: what was said in between must not win when it comes.
            row.confirmed = row.confirmed or (change.guard != "none" and self._asserted_at != row.asserted_at)
            row.asserted_at = self._asserted_at

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
            if row is None or row.resource is None:
                continue
            if newer and row.asserted_at is not None and row.asserted_at > self._asserted_at:
                # A newer list has spoken of this one; of the others this message spoke last, and the newer left them out.
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

    # --- writing -----------------------------------------------------------------------------------------------

    def write(self, *, held: bool = False) -> Applied:
        """Write every new version and the Provenance; return what became of the message.

        Args:
            held: whether the message waits for a person, and what is written is only the work item that says so.
        """
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
            held=held,
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
