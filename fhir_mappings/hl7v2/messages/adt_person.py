"""ADT events about a person alone: deletion (A29) and allergies with action codes (A60). HL7 v2 chapter 3.3.29, 3.3.60."""

from __future__ import annotations

from typing import Any

from fhir_mappings.hl7v2.assembly import Assembly
from fhir_mappings.hl7v2.segments import convert, iam, pid, pv1


def delete(assembly: Assembly, _trigger: str) -> None:
    """Add what ADT^A29 says: the record under this number is no longer in use.

    It is the sender's record that becomes inactive, and nothing else: not what was said about the person, not the record
    that it was merged into, and nobody shared with other hospitals.

    Raises:
        MalformedError: PID is missing (100) or names no patient (101).
    """
    segment = assembly.require_one("PID")
    assembly.patient_id = pid.patient_id(segment, assembly)
    filled = pid.patient(segment, assembly)
    known: dict[str, Any] = {
        name: filled.elements[name] for name in ("name", "gender", "birthDate") if name in filled.elements
    }
    assembly.upsert(
        {
            "resourceType": "Patient",
            "id": assembly.patient_id,
            "active": False,
            "managingOrganization": convert.institution(assembly.ctx.institution, assembly.ctx),
        },
        guard="demographics",
        defaults={**known, "identifier": filled.elements.get("identifier", [])},
        literal=True,
    )


def allergies(assembly: Assembly, _trigger: str) -> None:
    """Add what ADT^A60 says of allergies, one by one; of the patient and the visit only that there are such.

    Raises:
        MalformedError: PID is missing (100) or names no patient (101).
    """
    filled = pid.patient(assembly.require_one("PID"), assembly)
    assembly.intern({"active": True, **filled.elements})
    pv1.mention_encounter(assembly)
    iam.add_allergies(assembly.message.all("IAM"), assembly)
    for segment in assembly.message.segments:
        if segment.name not in {"MSH", "EVN", "SFT", "PID", "PD1", "PV1", "PV2", "IAM", "NTE"}:
            assembly.skip(segment)
