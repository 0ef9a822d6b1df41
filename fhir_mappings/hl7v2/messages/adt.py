"""ADT: admissions, visits and demographics (HL7 v2 chapter 3.3). v2-to-FHIR: ADT_A01, A02, A05, A06, A09, A11.

What an event does to the visit is :mod:`adt_visit`; merges are :mod:`adt_merge`, what takes one back :mod:`adt_unlink`, moves :mod:`adt_move`, events about a
person alone :mod:`adt_person`. How late or repeated events meet stored data is :mod:`fhir_mappings.hl7v2.status`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fhir_mappings.hl7v2.assembly import Assembly
from fhir_mappings.hl7v2.messages import adt_merge, adt_move, adt_person, adt_unlink, adt_visit
from fhir_mappings.hl7v2.segments import account, al1, iam, in1, nk1, obx, pid, pr1
from fhir_mappings.hl7v2.tokenizer import Segment

_MAPPED = frozenset(
    {
        *("MSH", "EVN", "PID", "PD1", "PV1", "PV2", "ROL", "DG1", "PR1", "GT1", "AL1", "IAM", "NK1", "IN1", "OBX"),
        *("MRG", "SFT"),
    }
)


def translate(assembly: Assembly, trigger: str) -> None:
    """Add what an ADT about one patient says.

    Raises:
        MalformedError: PID is missing (100) or names no patient (101), or a visit event does not name its visit (101).
    """
    message = assembly.message
    pid.add_patient(assembly.require_one("PID"), assembly)
    related = nk1.add_related_persons(message.all("NK1"), assembly)
    adt_visit.add_snapshot(assembly, "RelatedPerson", "NK1", related)
    account.add_account(assembly)
    visit = message.first("PV1")
    if visit is None and trigger in adt_visit.VISIT_EVENTS:
        assembly.require("PV1")
    encounter = adt_visit.add_visit(visit, trigger, assembly) if visit is not None else None
    allergies = al1.add_allergies(message.all("AL1"), assembly)
    adt_visit.add_snapshot(assembly, "AllergyIntolerance", "AL1", allergies)
    iam.add_allergies(message.all("IAM"), assembly)
    pr1.add_procedures(message.all("PR1"), assembly, encounter=encounter)
    adt_visit.add_snapshot(assembly, "Coverage", "IN1", in1.add_coverages(message.all("IN1"), assembly))
    _observations(message.all("OBX"), encounter, assembly)
    for segment in message.segments:
        if segment.name not in _MAPPED:
            assembly.skip(segment)


def _observations(segments: list[Segment], encounter: str | None, assembly: Assembly) -> None:
    """OBX in ADT: body weight, height and the like; they have no order, so the patient and the visit name them."""
    if not segments:
        return
    results = obx.Results(
        key=("ADT", f"{assembly.patient_id}|{encounter or ''}"),
        service="",
        status_default="final",
        effective=_observed(assembly),
        encounter=encounter,
    )
    for segment in segments:
        if segment.get(2).strip().upper() in {"ED", "RP"}:
            assembly.skip(segment)
            continue
        obx.add_observation(segment, [], [], results, assembly)


def _observed(assembly: Assembly) -> dict[str, Any]:
    return {"effectiveDateTime": assembly.asserted_at.isoformat(timespec="seconds")}


#: Every ADT event that the hub takes, and what translates it: the rows of :data:`fhir_mappings.hl7v2.translate.MESSAGES`.
EVENTS: Mapping[str, Callable[[Assembly, str], None]] = {
    **dict.fromkeys(
        (
            *("A01", "A02", "A03", "A04", "A05", "A06", "A07", "A08", "A09", "A10", "A11", "A12", "A13", "A14", "A15"),
            *("A16", "A25", "A26", "A27", "A28", "A31", "A38"),
        ),
        translate,
    ),
    **dict.fromkeys(adt_merge.LEVELS, adt_merge.merge),
    **dict.fromkeys(("A43", "A44", "A45"), adt_move.move),
    "A17": adt_visit.swap,
    "A29": adt_person.delete,
    "A37": adt_unlink.unlink,
    "A60": adt_person.allergies,
}
