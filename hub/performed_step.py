"""Performed procedure steps: what a modality says it does, and what it says that it has made (PS3.4 annex F).

A step is a Procedure of the institution whose modality sent it. Once completed or discontinued it no longer changes. What
a step says about its study is held against what has arrived: a study is complete at once when all that was made is here,
and waits a bounded while when it is not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fhir_mappings.dicom import order as orders
from fhir_mappings.dicom import performed_step as mapping
from fhir_mappings.dicom.imaging_study import patient_stub
from fhir_mappings.dicom.instance import InstanceHeader
from fhir_mappings.dicom.scanner import valid_uid
from fhir_mappings.identifiers import naming_system, resource_id
from fhir_mappings.json import dumps, loads
from hub.access import UNRESTRICTED
from hub.envelope import Envelope
from hub.errors import Category, HubError
from hub.imaging_ids import patient_id, quiet_timer
from hub.ports import AuditLine, NewEntry, NewVersion, Stored, StudyKey, Tx

if TYPE_CHECKING:
    from hub.boot import Services

Json = dict[str, Any]


class FinalStepError(Exception):
    """The step is completed or discontinued and may not be changed any more (PS3.4 F.7.2.2.2, Error ID A710)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the steps of one study say about it.

    Attributes:
        open_since: when the first step that is still in progress was last heard of, or ``None``.
        instances: every SOP Instance UID that a finished step has made.
        procedures: ids of the Procedures that the steps are, oldest first.
    """

    open_since: datetime | None = None
    instances: frozenset[str] = frozenset()
    procedures: tuple[str, ...] = ()


class PerformedSteps:
    """What the DIMSE door and the completion of studies call."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def create(self, envelope: Envelope, SOPInstanceUID: str, attributes: Mapping[str, Any]) -> None:
        """Keep a new step; durable on return.

        Raises:
            HubError: conflict when there is such a step; incorrect when what annex F demands is missing.
        """
        _check_new(SOPInstanceUID, attributes)
        owner = envelope.actor.institution

        def work(tx: Tx) -> None:
            if self._stored(tx, owner, SOPInstanceUID) is not None:
                raise HubError(
                    Category.CONFLICT,
                    "There is a performed procedure step with this UID.",
                    where="(0000,1000)",
                    remedy="Give each step a UID of its own, and change it by N-SET.",
                )
            self._keep(tx, envelope, SOPInstanceUID, attributes, "N-CREATE", expected_version=0)

        self._services.database.write(work)

    def change(self, envelope: Envelope, SOPInstanceUID: str, changes: Mapping[str, Any]) -> None:
        """Set attributes of a step that is in progress; durable on return.

        Raises:
            HubError: not-found when the institution has no such step; incorrect for a state that is none.
            FinalStepError: the step is over.
        """
        state = mapping.first(changes, mapping.STATUS)
        if mapping.STATUS in changes and state not in mapping.STATES:
            raise HubError(
                Category.INCORRECT,
                "Performed Procedure Step Status is not one of the defined terms.",
                where="(0040,0252)",
                remedy=f"Send one of {', '.join(sorted(mapping.STATES))}.",
            )
        owner = envelope.actor.institution

        def work(tx: Tx) -> None:
            stored = self._stored(tx, owner, SOPInstanceUID)
            if stored is None:
                raise _absent()
            before = mapping.attributes_of(loads(stored.body))
            if mapping.first(before, mapping.STATUS) != mapping.IN_PROGRESS:
                raise FinalStepError
            after = {**before, **changes}
            self._keep(tx, envelope, SOPInstanceUID, after, "N-SET", expected_version=stored.version)
            if mapping.first(after, mapping.STATUS) != mapping.IN_PROGRESS:
                for study in mapping.studies(after):
                    self._over(tx, StudyKey(owner=owner, StudyInstanceUID=study))

        self._services.database.write(work)

    def read(self, envelope: Envelope, SOPInstanceUID: str) -> Json:
        """Return the attributes of a step of the asker's institution; audited. Raises HubError(not-found)."""
        owner = envelope.actor.institution

        def work(tx: Tx) -> Json:
            stored = self._stored(tx, owner, SOPInstanceUID)
            if stored is None:
                raise _absent()
            tx.audit.write(self._line(envelope, "R", "N-GET", SOPInstanceUID, stored.patient_id))
            return mapping.attributes_of(loads(stored.body))

        return self._services.database.write(work)

    def expected(self, tx: Tx, key: StudyKey) -> Expected:
        """Return what the steps of the study say of it."""
        open_since: datetime | None = None
        instances: set[str] = set()
        procedures: list[str] = []
        for stored in tx.records.by_identifier(
            "Procedure", self._study_system(key.owner), key.StudyInstanceUID, UNRESTRICTED, owner=key.owner
        ):
            if stored.deleted:
                continue
            procedures.append(stored.id)
            attributes = mapping.attributes_of(loads(stored.body))
            if mapping.first(attributes, mapping.STATUS) == mapping.IN_PROGRESS:
                open_since = min(open_since or stored.last_updated, stored.last_updated)
            else:
                instances |= mapping.produced(attributes)
        return Expected(open_since=open_since, instances=frozenset(instances), procedures=tuple(procedures))

    # --- parts -----------------------------------------------------------------------------------------------

    def _over(self, tx: Tx, key: StudyKey) -> None:
        """Let the study be complete at once when everything that its steps made has arrived."""
        expected = self.expected(tx, key)
        if expected.open_since is None and expected.instances and not missing(tx, key, expected):
            tx.timers.set(quiet_timer(key, self._services.clock()), earliest_wins=True)

    def _stored(self, tx: Tx, owner: str, SOPInstanceUID: str) -> Stored | None:
        stored = tx.records.get("Procedure", step_id(owner, SOPInstanceUID), UNRESTRICTED)
        return None if stored is None or stored.deleted or stored.owner != owner else stored

    def _keep(
        self,
        tx: Tx,
        envelope: Envelope,
        SOPInstanceUID: str,
        attributes: Mapping[str, Any],
        operation: str,
        *,
        expected_version: int,
    ) -> None:
        owner = envelope.actor.institution
        patient = self._patient(tx, owner, attributes)
        order = self._order(tx, owner, attributes, patient)
        resource = mapping.procedure(
            attributes,
            id=step_id(owner, SOPInstanceUID),
            SOPInstanceUID=SOPInstanceUID,
            patient=f"Patient/{patient}",
            institution=owner,
            time_zone=self._services.settings.time_zone,
            order=f"ServiceRequest/{order.id}" if order is not None else None,
            base=self._services.settings.base_url,
        )
        tx.records.put_many([NewVersion(resource=resource, owner=owner, expected_version=expected_version)])
        body = dumps(dict(attributes))
        tx.journal.append(
            NewEntry(
                door=envelope.door,
                institution=owner,
                peer=envelope.peer,
                correlation_id=envelope.correlation_id,
                message_type=operation,
                digest=hashlib.sha256(body).hexdigest(),
                size=len(body),
                # Inline whatever its length: the door's other entries name objects, and this is none.
                body=body,
                received_at=self._services.clock(),
                sending_application=envelope.actor.client,
                control_id=SOPInstanceUID,
                outcome=mapping.first(attributes, mapping.STATUS),
                patient_id=patient,
                accession=next(iter(mapping.accessions(attributes)), ""),
            )
        )
        tx.audit.write(
            self._line(envelope, "C" if operation == "N-CREATE" else "U", operation, SOPInstanceUID, patient)
        )

    def _patient(self, tx: Tx, owner: str, attributes: Mapping[str, Any]) -> str:
        """Return the id of the sender's Patient, made as a stub when neither ADT nor an image has told of it."""
        header = InstanceHeader(
            StudyInstanceUID=next(iter(mapping.studies(attributes)), ""),
            SeriesInstanceUID="",
            SOPInstanceUID="",
            SOPClassUID="",
            TransferSyntaxUID="",
            PatientID=mapping.first(attributes, "00100020"),
            IssuerOfPatientID=mapping.first(attributes, "00100021"),
        )
        id_ = patient_id(owner, header)
        if tx.records.get("Patient", id_, UNRESTRICTED) is None:
            tx.records.lock_condition(f"Patient/{id_}")
            name = attributes.get("00100010", {}).get("Value") or [{}]
            row = {
                "PatientID": header.PatientID,
                "PatientName": mapping.first(attributes, "00100010"),
                "PatientNamePinyin": str((name[0] or {}).get("Alphabetic", "")),
                "PatientSex": mapping.first(attributes, "00100040"),
                "PatientBirthDate": mapping.first(attributes, "00100030"),
            }
            stub = patient_stub(row, id=id_, institution=owner, base=self._services.settings.base_url)
            tx.records.put_many([NewVersion(resource=stub, owner=owner)])
        return id_

    def _order(self, tx: Tx, owner: str, attributes: Mapping[str, Any], patient: str) -> Stored | None:
        """Return the one order of *owner* that the step fulfils by the numbers that the worklist gave for it."""
        found = {
            stored.id: stored
            for step in mapping.scheduled(attributes)
            for stored in self._scheduled(tx, owner, step, patient)
        }
        return next(iter(found.values())) if len(found) == 1 else None

    def _scheduled(self, tx: Tx, owner: str, step: mapping.Scheduled, patient: str) -> list[Stored]:
        """Return the orders that *step* can mean.

        One accession number may stand for several orders, which the numbers of procedure and step tell apart. Where it is
        absent these name the order alone, but only one of the same patient: they need be unique within an order only
        (PS3.3 section C.4.11).
        """
        own = ((orders.SCHEDULED_STEP, step.step), (orders.REQUESTED_PROCEDURE, step.procedure))
        found: dict[str, tuple[Stored, Json]] = {}
        for number in dict.fromkeys([step.accession] if step.accession else [value for _, value in own if value]):
            for stored in tx.records.by_identifier("ServiceRequest", None, number, UNRESTRICTED, owner=owner):
                body = {} if stored.deleted else loads(stored.body)
                if step.accession:
                    meant = number in orders.numbers(body)
                else:
                    meant = (body.get("subject") or {}).get("reference") == f"Patient/{patient}" and any(
                        orders.is_numbered(body, value, kind) for kind, value in own if value
                    )
                if meant:
                    found[stored.id] = stored, body
        left = list(found.values())
        for kind, value in own:
            left = [one for one in left if value and orders.is_numbered(one[1], value, kind)] or left
        return [stored for stored, _ in left]

    def _study_system(self, owner: str) -> str:
        return naming_system(owner, "study-uid", base=self._services.settings.base_url)

    def _line(self, envelope: Envelope, action: str, subtype: str, SOPInstanceUID: str, patient: str) -> AuditLine:
        return AuditLine(
            type="dicom",
            action=action,
            subtype=subtype,
            actor=envelope.actor,
            recorded_at=self._services.clock(),
            patients=((envelope.actor.institution, patient),) if patient else (),
            entities=(SOPInstanceUID,),
            correlation_id=envelope.correlation_id,
        )


def step_id(owner: str, SOPInstanceUID: str) -> str:
    """Return the id of the Procedure that the owner's step is."""
    return resource_id(owner, "mpps", "Procedure", SOPInstanceUID)


def missing(tx: Tx, key: StudyKey, expected: Expected) -> frozenset[str]:
    """Return the SOP Instance UIDs that the steps of a study made and that have not arrived.

    One that arrived and is marked deleted is not missing.
    """
    here = {row.SOPInstanceUID for row in tx.imaging.instances_of(key)}
    return expected.instances - here - {mark.SOPInstanceUID for mark in tx.imaging.deletions.of_study(key)}


def _check_new(SOPInstanceUID: str, attributes: Mapping[str, Any]) -> None:
    if not valid_uid(SOPInstanceUID):
        raise HubError(Category.INCORRECT, "Affected SOP Instance UID is not a UID.", where="(0000,1000)")
    if mapping.first(attributes, mapping.STATUS) != mapping.IN_PROGRESS:
        raise HubError(
            Category.INCORRECT,
            "A step begins with Performed Procedure Step Status IN PROGRESS.",
            where="(0040,0252)",
            remedy="Send IN PROGRESS with N-CREATE and the final state with N-SET (PS3.4 F.7.2.1.2).",
        )
    if not mapping.studies(attributes) or not all(map(valid_uid, mapping.studies(attributes))):
        raise HubError(
            Category.INCORRECT,
            "Scheduled Step Attributes Sequence names no Study Instance UID.",
            where="(0040,0270)>(0020,000D)",
            remedy="Send at least one item with the Study Instance UID of the images (PS3.4 table F.7.2-1).",
        )


def _absent() -> HubError:
    return HubError(Category.NOT_FOUND, "There is no such performed procedure step.", where="(0000,1001)")
