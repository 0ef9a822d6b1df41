"""Clinical documents in (HL7 CDA R2, WS/T 500): written down, translated, applied, answered. DESIGN rules 1, 2, 4 and 6.

One document is one transaction, as a message is (:mod:`hub.messages`): journal entry, resources, Provenance, news to partners
and the audit line; its bytes are an object before that. The same bytes under the same document id change nothing and get the
same answer. The document belongs to the member that sends it, whoever wrote it.

*Whose record it is.* The translation names the patient by the best number the document states. Where the hospital's own feed
has made the record under another of these numbers, the document joins that record, if it is the only one. A number that
belongs to somebody with another valid resident identity number is refused: a record filed with the wrong person is worse
than one that has to be sent again.

*Order.* A replacement that came before what it replaces still wins: the late original is filed as superseded.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from fhir_mappings.cda.translate import Clinical, translate
from fhir_mappings.errors import MappingError
from fhir_mappings.hl7v2.base import Change, Issue, Translation, Upsert
from fhir_mappings.hl7v2.context import MappingContext
from fhir_mappings.identifiers import RESIDENT_ID, check_resident_id, patient_key
from fhir_mappings.json import loads
from hub.access import UNRESTRICTED, scope_of
from hub.actor import Actor
from hub.arrival import INLINE_MAX_BYTES
from hub.directory import dialect_of
from hub.envelope import new_correlation_id
from hub.errors import Category, HubError
from hub.outcome import as_hub_error
from hub.ports import AuditLine, MemberEndpoint, NewEntry, Stored, Tx
from hub.provenance import Context
from hub.rows import readdressed, replaced_by
from hub.translate import apply, store_attachments
from hub.writable import refuse_role

if TYPE_CHECKING:
    from hub.boot import Services

log = structlog.get_logger("hub.documents")

#: What the journal calls the sender's application: documents have no MSH-3.
_APPLICATION = "CDA"
_LOCKS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A document that is durable.

    Attributes:
        document: its DocumentReference as stored.
        created: whether this arrival brought it; a repeated one brings nothing.
        issues: what could not be carried over from it; it stands in the original.
    """

    document: Stored
    created: bool
    issues: tuple[Issue, ...] = ()


class DocumentService:
    """The intake of clinical documents, one for each process; safe for many threads."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def receive(
        self, raw: bytes, actor: Actor, peer: str, *, door: str = "cda", correlation_id: str | None = None
    ) -> Taken:
        """Take one document of *actor*'s institution; durable and audited on return.

        Raises:
            HubError: forbidden for who may write no documents; incorrect or unsupported, naming the place, for one that cannot
                be taken (kept in the journal all the same); conflict where its patient number is somebody else's;
                transient, when nothing could be kept.
        """
        refuse_role(actor, "DocumentReference")
        if scope_of(actor).directory_only:
            raise HubError(Category.FORBIDDEN, "This role reaches no patient data.", where="Authorization")
        entry = self._entry(raw, actor, peer, door, correlation_id or new_correlation_id())
        if entry.body is None:
            self._services.objects.put_bytes(raw)
        try:
            ctx = self._context(actor.institution)
            clinical = translate(raw, ctx)
            entry = replace(
                entry, message_type=clinical.translation.event, control_id=clinical.reference.partition("/")[2]
            )
            return self._apply(clinical, ctx, entry, actor)
        except (MappingError, HubError) as error:
            known = as_hub_error(error)
            if not (known.transient or known.fatal):
                self._refuse(entry, actor, known)
            raise known from error

    def receive_file(self, raw: bytes, endpoint: MemberEndpoint, *, door: str = "cda-folder") -> Taken:
        """Take one document that lay in the folder of the member's *endpoint*.

        Raises:
            HubError: as :meth:`receive`.
        """
        place = f"folder/{endpoint.id}"
        return self.receive(
            raw, Actor(institution=endpoint.member, client=endpoint.id, address=place), place, door=door
        )

    # --- inside ------------------------------------------------------------------------------------------------

    def _context(self, institution: str) -> MappingContext:
        directory = self._services.directory
        # A member's time zone and its own roots of numbers are said once, for its v2 feed.
        endpoint = next((one for one in directory.endpoints(institution, "mllp") if one.active), None)
        members = [one.code for one in directory.members()]
        return MappingContext(
            institution=institution,
            dialect=dialect_of(endpoint, directory.all_endpoints(), members),
            received_at=self._services.clock(),
        )

    def _entry(self, raw: bytes, actor: Actor, peer: str, door: str, correlation_id: str) -> NewEntry:
        return NewEntry(
            door=door,
            institution=actor.institution,
            peer=peer,
            correlation_id=correlation_id,
            message_type="CDA",
            digest=hashlib.sha256(raw).hexdigest(),
            size=len(raw),
            received_at=self._services.clock(),
            body=raw if len(raw) <= INLINE_MAX_BYTES else None,
            sending_application=_APPLICATION,
        )

    def _refuse(self, entry: NewEntry, actor: Actor, error: HubError) -> None:
        kept = replace(entry, state="refused", outcome=str(error))

        def work(tx: Tx) -> None:
            tx.journal.append(kept)
            self._audit(tx, entry, actor, outcome="4")

        self._services.database.write(work)
        log.warning(
            "document_refused",
            institution=entry.institution,
            where=error.where,
            correlation_id=entry.correlation_id,
        )

    def _apply(self, clinical: Clinical, ctx: MappingContext, entry: NewEntry, actor: Actor) -> Taken:
        attachments = store_attachments(self._services.objects, clinical.translation)
        owner = actor.institution
        id_ = clinical.reference.partition("/")[2]

        def work(tx: Tx) -> Taken:
            tx.records.lock_condition(f"cda|{zlib.crc32(f'{owner}|{id_}'.encode()) % _LOCKS}")
            known = tx.journal.find_message(
                institution=owner, sending_application=_APPLICATION, sending_facility="", control_id=id_
            )
            taken = [one for one in known if one.state == "done"]
            stored = tx.records.get("DocumentReference", id_, UNRESTRICTED)
            if stored is not None and not stored.deleted and any(one.digest == entry.digest for one in taken):
                self._audit(tx, entry, actor, patients=((owner, stored.patient_id),), entities=(clinical.reference,))
                return Taken(document=stored, created=False, issues=clinical.translation.issues)
            translation = _in_order(tx, _joined(tx, clinical, owner), clinical.reference, owner)
            flags = "control-id-reuse" if taken else ""
            seq = tx.journal.append(replace(entry, flags=flags, patient_id=translation.patient_id or ""))
            applied = apply(
                tx,
                translation,
                Context(
                    owner=owner,
                    base=ctx.base,
                    journal_seq=seq,
                    correlation_id=entry.correlation_id,
                    now=self._services.clock(),
                ),
                attachments,
            )
            services = self._services
            services.identity.suggest(tx, applied.changed, owner=owner)
            services.news.changed(tx, applied.changed, origin=owner, correlation_id=entry.correlation_id)
            services.tasks.on_message_events(tx, translation, actor=actor, correlation_id=entry.correlation_id)
            patients = ((owner, applied.patient_id),) if applied.patient_id else ()
            self._audit(tx, entry, actor, patients=patients, entities=applied.changed[:100])
            made = tx.records.get("DocumentReference", id_, UNRESTRICTED)
            assert made is not None
            return Taken(document=made, created=clinical.reference in applied.changed, issues=applied.issues)

        try:
            return self._services.database.write(work)
        except HubError as error:
            if error.category is not Category.CONFLICT or error.status != 412:
                raise
            # Another node wrote one of the same resources first; on its result the document is judged anew.
            return self._services.database.write(work)

    def _audit(
        self,
        tx: Tx,
        entry: NewEntry,
        actor: Actor,
        *,
        outcome: str = "0",
        patients: tuple[tuple[str, str], ...] = (),
        entities: tuple[str, ...] = (),
    ) -> None:
        tx.audit.write(
            AuditLine(
                type="hl7v2",
                action="C" if outcome == "0" else "E",
                subtype="CDA",
                actor=actor,
                recorded_at=self._services.clock(),
                outcome=outcome,
                patients=patients,
                entities=entities,
                correlation_id=entry.correlation_id,
            )
        )


def _joined(tx: Tx, clinical: Clinical, owner: str) -> Translation:
    """Return the translation with the patient record that the hospital has under one of the document's own numbers.

    Raises:
        HubError: conflict, where that record is of another resident identity number.
    """
    translation, target = clinical.translation, clinical.target
    named = str(target.resource["id"])
    found: dict[str, Stored] = {}
    for system, value in target.own_numbers:
        for spelt in {value, patient_key(value)}:
            for one in tx.records.by_identifier("Patient", system, spelt, UNRESTRICTED, owner=owner):
                if not one.deleted and replaced_by(loads(one.body)) is None:
                    found[one.id] = one
    itself = tx.records.get("Patient", named, UNRESTRICTED)
    if itself is not None and not itself.deleted and not found:
        found[named] = itself
    for one in found.values():
        others = _resident_ids(loads(one.body))
        if target.resident_ids and others and not target.resident_ids & others:
            raise HubError(
                Category.CONFLICT,
                "患者号码属于身份证号不同的另一患者 / The patient number is that of a patient with another resident id.",
                where="/ClinicalDocument/recordTarget/patientRole/id",
                remedy="Correct the number or the resident id, or send an ADT that corrects the record, then send again.",
            )
    if named in found or len(found) != 1:
        return translation
    (known,) = found
    renames = {f"Patient/{named}": f"Patient/{known}"}
    changes: list[Change] = []
    for change in translation.changes:
        if isinstance(change, Upsert):
            if change.reference not in renames:
                changes.append(replace(change, resource=readdressed(change.resource, renames)))
        else:
            changes.append(change)
    return replace(translation, changes=tuple(changes), patient_id=known)


def _resident_ids(patient: Mapping[str, object]) -> frozenset[str]:
    given = patient.get("identifier")
    checked = [
        check_resident_id(str(one.get("value", "")))
        for one in (given if isinstance(given, list) else [])
        if one.get("system") == RESIDENT_ID
    ]
    return frozenset(one.value for one in checked if one.status == "ok")


def _in_order(tx: Tx, translation: Translation, reference: str, owner: str) -> Translation:
    """Return the translation with the document superseded where its replacement is here already."""
    replaced = any(
        relation.get("code") == "replaces" and relation.get("target", {}).get("reference") == reference
        for one in tx.records.referring("DocumentReference", "relatesto", reference, UNRESTRICTED)
        if one.owner == owner and not one.deleted
        for relation in loads(one.body).get("relatesTo", [])
    )
    if not replaced:
        return translation
    return replace(
        translation,
        changes=tuple(
            replace(one, resource={**one.resource, "status": "superseded"})
            if isinstance(one, Upsert) and one.reference == reference
            else one
            for one in translation.changes
        ),
    )
