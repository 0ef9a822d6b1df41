"""ADT moves: a visit (A45), an account (A44) or all of them (A43) were another patient's (HL7 v2 chapter 3.3.43 to 3.3.45).

PID names the patient to whom they belong, MRG-1 the one under whom they were filed by mistake. Both stay in use, which
tells a move from a merge. The v2-to-FHIR maps have none of them.
"""

from __future__ import annotations

from typing import Any

from fhir_mappings.hl7v2 import datatypes
from fhir_mappings.hl7v2.assembly import Assembly, Place
from fhir_mappings.hl7v2.base import Move
from fhir_mappings.hl7v2.segments import account, convert, pid, pv1
from fhir_mappings.hl7v2.tokenizer import Segment

Json = dict[str, Any]


def move(assembly: Assembly, trigger: str) -> None:
    """Add a move for each MRG, with the PID before it and, in A45, the PV1 behind it.

    Raises:
        MalformedError: a segment is missing (100), or one does not name what is moved, or whence (101).
    """
    assembly.require("PID")
    assembly.require("MRG")
    target: Segment | None = None
    first: str | None = None
    segments = assembly.message.segments
    for place, segment in enumerate(segments):
        if segment.name == "PID":
            target = segment
        elif segment.name == "MRG" and target is not None:
            source_id = pid.number_id(segment.field(1), assembly, segment.get(4).strip())
            if source_id is None:
                raise assembly.missing(segment, 1, "Send the patient under whom it was filed in MRG-1.")
            filled = pid.patient(target, assembly)
            target_id = str(filled.elements["id"])
            assembly.intern({"active": True, **filled.elements})
            first = first or target_id
            if source_id == target_id:
                Place(assembly, segment, 1).warn(
                    "MRG-1 and PID-3 name the same record; nothing was moved.", code="duplicate"
                )
                continue
            _mention_source(segment, source_id, assembly)
            if trigger == "A43":
                moved: tuple[str, ...] = ()
            elif trigger == "A44":
                moved = (_account(target, segment, assembly),)
            else:
                behind = next((one for one in segments[place + 1 :] if one.name in {"PV1", "PID", "MRG"}), None)
                moved = (_visit(behind, segment, assembly),)
            assembly.changes.append(Move(source_id=source_id, target_id=target_id, references=moved))
    assembly.patient_id = first


def _mention_source(segment: Segment, source_id: str, assembly: Assembly) -> None:
    stub: Json = {
        "resourceType": "Patient",
        "id": source_id,
        "identifier": convert.identifiers(segment.field(1), Place(assembly, segment, 1)),
        "active": True,
        "managingOrganization": convert.institution(assembly.ctx.institution, assembly.ctx),
    }
    names = convert.names(segment.field(7), Place(assembly, segment, 7))
    assembly.intern({**stub, **({"name": names} if names else {})})


def _account(target: Segment, source: Segment, assembly: Assembly) -> str:
    number = source.field(3) if convert.first(source, 3) else target.field(18)
    made = account.account(number, assembly)
    if made is None:
        raise assembly.missing(source, 3, "Send the account that moves in MRG-3.")
    return assembly.intern({"status": "active", **made})


def _visit(behind: Segment | None, source: Segment, assembly: Assembly) -> str:
    number = source.field(5)
    if not number.component(1).strip() and behind is not None and behind.name == "PV1":
        number = behind.field(19)
    value = number.component(1).strip()
    if not value:
        raise assembly.missing(source, 5, "Send the visit that moves in MRG-5.")
    return assembly.intern(
        {
            "resourceType": "Encounter",
            "id": assembly.ctx.id("Encounter", "visit", value),
            "identifier": [datatypes.visit_identifier(number.first, assembly.ctx)],
            "status": "unknown",
            "class": pv1.UNKNOWN_CLASS,
            "subject": pid.patient_reference(assembly),
            "serviceProvider": convert.institution(assembly.ctx.institution, assembly.ctx),
        }
    )
