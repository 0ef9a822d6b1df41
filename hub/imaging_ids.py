"""Names that images lead to: the Patient of a header, the ImagingStudy of a study, and the timer that waits for it."""

from __future__ import annotations

from datetime import datetime

from fhir_mappings.dicom.instance import InstanceHeader
from fhir_mappings.identifiers import patient_key, resource_id
from hub.ports import StudyKey, Timer

#: Kind of the timer that fires when a study has been quiet; its key is ``owner|StudyInstanceUID``.
STUDY_QUIET = "study-quiet"


def patient_id(owner: str, header: InstanceHeader) -> str:
    """Return the id of the sender's Patient, the one that its v2 messages name by the same number.

    A number with another issuer is another number (PS3.3 C.7.1.1, Issuer of Patient ID), and a header without a number
    says nothing about who it is, so each such study stands alone.
    """
    if not header.PatientID.strip():
        return resource_id(owner, "study-uid", "Patient", header.StudyInstanceUID)
    return number_record_id(owner, header.PatientID, header.IssuerOfPatientID.strip())


def number_record_id(owner: str, number: str, issuer: str = "") -> str:
    """Return the id of the owner's Patient whom *number* names."""
    authority = "patient-id" if issuer in {"", owner} else f"patient-id:{issuer}"
    return resource_id(owner, authority, "Patient", patient_key(number))


def study_resource_id(owner: str, StudyInstanceUID: str) -> str:
    """Return the id of the ImagingStudy that the owner's study becomes."""
    return resource_id(owner, "study-uid", "ImagingStudy", StudyInstanceUID)


def quiet_timer(key: StudyKey, due_at: datetime) -> Timer:
    """Return the timer that asks at *due_at* whether the study is complete."""
    return Timer(
        kind=STUDY_QUIET,
        key=f"{key.owner}|{key.StudyInstanceUID}",
        due_at=due_at,
        payload={"owner": key.owner, "study": key.StudyInstanceUID},
    )
