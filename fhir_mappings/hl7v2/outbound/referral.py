"""Referrals as REF^I12 to I14 and their answers as RRI (HL7 v2 chapter 11.5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from fhir_mappings.hl7v2.builder import FieldValue, MessageBuilder
from fhir_mappings.hl7v2.outbound import fields
from fhir_mappings.hl7v2.outbound.orm_o01 import dg1
from fhir_mappings.hl7v2.outbound.target import OutboundTarget, start

Json = Mapping[str, Any]

#: RF1-1, table 0283: accepted, rejected, pending, expired.
Answer = Literal["A", "R", "P", "E"]

_PRIORITY = {"stat": "S", "asap": "A", "urgent": "A", "routine": "R"}
_SPECIALITY_SYSTEM = "http://snomed.info/sct"


def ref_i12(
    request: Json,
    *,
    patient: Json,
    target: OutboundTarget,
    control_id: str,
    now: datetime,
    sender: str,
    event: Literal["I12", "I13", "I14"] = "I12",
    conditions: Sequence[Json] = (),
    practitioners: Mapping[str, Json] | None = None,
) -> str:
    """Return the referral as text. *sender* is the code of the referring institution (PRD-7.2 of the RP)."""
    builder = start(target, f"REF^{event}^REF_I12", control_id=control_id, now=now)
    builder.segment("RF1", _rf1(request, "R" if event == "I14" else "P", target))
    _parties(builder, request, sender, practitioners or {}, target)
    builder.segment("PID", fields.pid(patient, target))
    for ordinal, condition in enumerate(conditions, start=1):
        builder.segment("DG1", dg1(condition, ordinal, target))
    for ordinal, note in enumerate(request.get("note", []), start=1):
        builder.segment("NTE", {1: str(ordinal), 3: str(note.get("text", ""))})
    return builder.to_text()


def rri_i12(
    request: Json,
    *,
    answer: Answer,
    original_control_id: str,
    patient: Json,
    target: OutboundTarget,
    control_id: str,
    now: datetime,
    sender: str,
    event: Literal["I12", "I13", "I14", "I15"] = "I12",
    reason: str = "",
    note: str = "",
    filler_number: str = "",
    practitioners: Mapping[str, Json] | None = None,
) -> str:
    """Return the answer to a referral as text.

    MSA-1 is AA also for a refusal: the message was taken, and RF1-1 says what the hospital decided. *sender* is the
    code of the institution that referred (the receiver of this answer is usually the same).
    """
    builder = start(target, f"RRI^{event}^RRI_I12", control_id=control_id, now=now)
    builder.segment("MSA", {1: "AA", 2: original_control_id})
    rf1 = _rf1(request, answer, target)
    if filler_number:
        rf1[11] = filler_number
    rf1[9] = fields.time(now.isoformat(), target)
    # In an answer RF1-10 is why it was given; the reason for the referral is the asker's own and known to it.
    rf1[10] = ["", reason] if reason else None
    builder.segment("RF1", rf1)
    _parties(builder, request, sender, practitioners or {}, target)
    builder.segment("PID", fields.pid(patient, target))
    if note:
        builder.segment("NTE", {1: "1", 3: note})
    return builder.to_text()


def _rf1(request: Json, status: str, target: OutboundTarget) -> dict[int, FieldValue]:
    local = [
        item
        for item in request.get("category", [])
        if not any(coding.get("system") == _SPECIALITY_SYSTEM for coding in item.get("coding", []))
    ]
    period = request.get("occurrencePeriod", {})
    reasons = request.get("reasonCode", [])
    return {
        1: status,
        2: _PRIORITY.get(str(request.get("priority", "")), "R"),
        3: fields.concept(local[0], target) if local else None,
        5: fields.concept(local[1], target) if len(local) > 1 else None,
        6: fields.placer_number(request, target, "referral") or str(request["id"]),
        7: fields.time(period.get("start"), target),
        8: fields.time(period.get("end"), target),
        9: fields.time(request.get("authoredOn"), target),
        10: fields.concept(reasons[0], target) if reasons else None,
        11: fields.typed_number(request.get("identifier", []), "FILL"),
    }


def _parties(
    builder: MessageBuilder, request: Json, sender: str, people: Mapping[str, Json], target: OutboundTarget
) -> None:
    performers: list[Json] = list(request.get("performer", []))
    organizations = [item for item in performers if _is(item, "Organization")]
    persons = [item for item in performers if not _is(item, "Organization")]
    facility = str(organizations[0].get("identifier", {}).get("value", "")) if organizations else ""
    facility_name = str(organizations[0].get("display", "")) if organizations else ""
    department = str(request.get("performerType", {}).get("text", ""))
    builder.segment("PRD", _prd("RP", request.get("requester"), sender, "", "", people))
    builder.segment(
        "PRD",
        _prd("RT", persons[0] if persons else None, facility or target.institution, facility_name, department, people),
    )


def _is(reference: Json, kind: str) -> bool:
    return reference.get("type") == kind or str(reference.get("reference", "")).startswith(f"{kind}/")


def _prd(
    role: str, reference: Json | None, institution: str, facility: str, department: str, people: Mapping[str, Json]
) -> dict[int, FieldValue]:
    code, text = fields.person(reference, people)
    return {
        1: role,
        2: text,
        4: [department, "", "", facility] if department or facility else None,
        7: [code, institution] if code or institution else None,
    }
