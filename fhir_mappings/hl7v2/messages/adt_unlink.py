"""ADT^A37: two records that were taken for one person's are two persons' (HL7 v2 chapter 3.3.37).

The message names both by a PID each. It says neither which of the two what came meanwhile belongs to nor what becomes of
their demographics, so that nothing changes by itself; the v2-to-FHIR maps have no such message.
"""

from __future__ import annotations

from fhir_mappings.hl7v2.assembly import Assembly
from fhir_mappings.hl7v2.base import Unlink
from fhir_mappings.hl7v2.segments import pid


def unlink(assembly: Assembly, _trigger: str) -> None:
    """Add that the patients of the first two PID are two persons.

    Raises:
        MalformedError: a PID is missing (100) or names no patient (101).
    """
    first = assembly.require("PID")
    segments = assembly.message.all("PID")
    if len(segments) < 2:
        raise assembly.missing(first, 3, "Send a PID for each of the two records that are unlinked.")
    one_id, other_id = (pid.patient_id(segment, assembly) for segment in segments[:2])
    assembly.patient_id = one_id
    assembly.changes.append(Unlink(one_id=one_id, other_id=other_id))
    taken = 0
    for segment in assembly.message.segments:
        taken += segment.name == "PID"
        if segment.name not in {"MSH", "EVN", "SFT", "PID", "PD1", "PV1", "DB1"} or taken > 2:
            assembly.skip(segment)
