"""ROL: who does what for the patient (HL7 v2 chapter 15.4.7), by its place in the message.

Behind PID it is about the person, behind PV1 about the visit. v2-to-FHIR: ROL[Encounter-PractitionerRole] and
ROL[Patient-GeneralPractitioner]; the practitioner is referred to directly, because ROL says nothing of the role that
the visit does not.
"""

from __future__ import annotations

from typing import Any

from fhir_mappings.hl7v2.assembly import Assembly, Place
from fhir_mappings.hl7v2.segments import convert
from fhir_mappings.hl7v2.tokenizer import Segment

#: ROL-3 (table 0443) of those who look after a person from one visit to the next.
_PRIMARY = frozenset({"PP", "FHCP"})
#: ROL-2 (table 0287) of a role that is no longer, or was never.
_ENDED = frozenset({"DE", "UN"})
_PATIENT_PART = frozenset({"PID", "PD1", "ARV", "ROL", "NK1"})


def participants(assembly: Assembly) -> list[dict[str, Any]]:
    """Return ``Encounter.participant`` of the ROL segments behind PV1."""
    found: list[dict[str, Any]] = []
    for segment in _of_part("PV1", assembly):
        place = Place(assembly, segment, 3)
        mapped = place.mapped("provider_role", convert.code_of(segment.field(3)))
        kind = {"coding": [mapped.coding()]} if mapped else convert.concept(segment.field(3), place)
        start = convert.moment_text(segment.get(5), Place(assembly, segment, 5))
        end = convert.moment_text(segment.get(6), Place(assembly, segment, 6))
        period = {**({"start": start} if start else {}), **({"end": end} if end else {})}
        for reference in convert.practitioners(segment.field(4), Place(assembly, segment, 4)):
            found.append(
                {
                    **({"type": [kind]} if kind else {}),
                    **({"period": period} if period else {}),
                    "individual": reference,
                }
            )
    return found


def general_practitioners(assembly: Assembly) -> list[dict[str, Any]]:
    """Return ``Patient.generalPractitioner`` of the ROL segments behind PID."""
    return [
        reference
        for segment in _of_part("PID", assembly)
        if convert.code_of(segment.field(3)).upper() in _PRIMARY
        for reference in convert.practitioners(segment.field(4), Place(assembly, segment, 4))
    ]


def _of_part(part: str, assembly: Assembly) -> list[Segment]:
    found: list[Segment] = []
    current = ""
    for segment in assembly.message.segments:
        if segment.name == "ROL":
            if current == part and convert.first(segment, 2).upper() not in _ENDED:
                found.append(segment)
        elif segment.name in {"PV1", "PV2"}:
            current = "PV1"
        elif segment.name in _PATIENT_PART:
            current = "PID"
        else:
            current = segment.name
    return found
