"""Notices of a member's own systems that a study can be fetched from them (PS3.4 annex R, as SCP).

A notice is in the journal as it came, and a ``Basic`` of the institution that sent it says how many instances are where, and
how many of them the hub has. It moves nothing: what an archive says of itself is no reason to change a study.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from fhir_mappings.dicom.availability import Notice, basic
from fhir_mappings.dicom.scanner import valid_uid
from fhir_mappings.identifiers import resource_id
from fhir_mappings.json import dumps
from hub.access import UNRESTRICTED
from hub.clock import instant
from hub.envelope import Envelope
from hub.errors import Category, HubError
from hub.ports import AuditLine, NewEntry, NewVersion, StudyKey, Tx

if TYPE_CHECKING:
    from hub.boot import Services


class AvailabilityNotices:
    """What the DIMSE door calls."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def take(self, envelope: Envelope, SOPInstanceUID: str, notice: Notice) -> None:
        """Keep a notice; durable and audited on return. The same notice again changes nothing.

        Raises:
            HubError: incorrect without a UID; conflict when the UID was used for another notice.
        """
        if not valid_uid(SOPInstanceUID):
            raise HubError(
                Category.INCORRECT, "The notice has no SOP Instance UID.", where="(0000,1000)", remedy="Give it one."
            )
        self._services.database.write(lambda tx: self._keep(tx, envelope, SOPInstanceUID, notice))

    def _keep(self, tx: Tx, envelope: Envelope, SOPInstanceUID: str, notice: Notice) -> None:
        owner, now = envelope.actor.institution, self._services.clock()
        body = dumps({"study": notice.StudyInstanceUID, "instances": dict(sorted(notice.instances.items()))})
        digest = hashlib.sha256(body).hexdigest()
        id_ = resource_id(owner, "availability-notice", "Basic", SOPInstanceUID)
        tx.records.lock_condition(f"Basic/{id_}")
        if tx.records.get("Basic", id_, UNRESTRICTED) is not None:
            came = tx.journal.search({"control_id": SOPInstanceUID, "institution": owner}, limit=100)
            if any(one.digest == digest for one in came):
                return
            raise HubError(
                Category.CONFLICT,
                "There is another notice with this UID.",
                where="(0000,1000)",
                remedy="Give each notice a UID of its own.",
            )
        key = StudyKey(owner=owner, StudyInstanceUID=notice.StudyInstanceUID)
        study = tx.imaging.study(key)
        held = {row.SOPInstanceUID for row in tx.imaging.instances_of(key)} if study is not None else set()
        patient = str(study["patient_id"]) if study is not None else ""
        resource = basic(
            notice,
            id=id_,
            SOPInstanceUID=SOPInstanceUID,
            institution=owner,
            study=f"ImagingStudy/{study['resource_id']}" if study is not None else "",
            here=len(held & notice.instances.keys()),
            now=instant(now),
        )
        tx.records.put_many([NewVersion(resource=resource, owner=owner, expected_version=0)])
        tx.journal.append(
            NewEntry(
                door=envelope.door,
                institution=owner,
                peer=envelope.peer,
                correlation_id=envelope.correlation_id,
                message_type=envelope.kind,
                digest=digest,
                size=len(body),
                # Inline whatever its length, which is bounded: there is no object behind it.
                body=body,
                received_at=now,
                sending_application=envelope.actor.client,
                control_id=SOPInstanceUID,
                patient_id=patient,
            )
        )
        tx.audit.write(
            AuditLine(
                type="dicom",
                action="C",
                subtype=envelope.kind,
                actor=envelope.actor,
                recorded_at=now,
                patients=((owner, patient),) if patient else (),
                entities=(notice.StudyInstanceUID,),
                correlation_id=envelope.correlation_id,
            )
        )
