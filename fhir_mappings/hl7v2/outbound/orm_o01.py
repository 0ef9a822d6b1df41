"""ServiceRequest as ORM^O01 (HL7 v2 chapter 4.4.1): an order placed with, changed at or taken back from a partner.

OML^O21, OML^O33, OMG^O19 and OMI^O23 say the same; :mod:`fhir_mappings.hl7v2.outbound.order_forms` has what they have of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from fhir_mappings.hl7v2.builder import FieldValue
from fhir_mappings.hl7v2.outbound import fields, spm
from fhir_mappings.hl7v2.outbound.order_forms import (
    Form,
    OrderedStudy,
    add_ipc,
    add_zds,
    form_for,
    target_for,
    tq1,
)
from fhir_mappings.hl7v2.outbound.target import OutboundTarget, start

Json = Mapping[str, Any]

_PRIORITY = {"stat": "S", "asap": "A", "urgent": "A", "routine": "R"}


def orm_o01(
    request: Json,
    *,
    patient: Json,
    target: OutboundTarget,
    control_id: str,
    now: datetime,
    control: str = "NW",
    conditions: Sequence[Json] = (),
    practitioners: Mapping[str, Json] | None = None,
    reason: str = "",
    form: Form = "ORM^O01",
    studies: Sequence[OrderedStudy] = (),
    with_zds: bool = False,
    specimens: Sequence[Json] = (),
) -> str:
    """Return the order as text. *control* is ORC-1: ``NW``, ``CA``, ``XO``, or an answer such as ``OK`` and ``UA``.

    *conditions* become DG1; *reason* is ORC-16, why an order is cancelled or refused.
    *form* is the message that the receiver takes orders in, *studies* are what an imaging order is about: IPC of OMI^O23,
    and ZDS of any other form where the receiver reads that (*with_zds*). *specimens* are what laboratory work is done on: SPM
    and SAC of OML, and OBR-15 of any other form.
    """
    form = form_for(form, request, studies, spm.described(specimens))
    target = target_for(form, target)
    has_tq1 = form != "ORM^O01" and target.modern
    people = practitioners or {}
    placer = fields.placer_number(request, target) or str(request["id"])
    filler = fields.typed_number(request.get("identifier", []), "FILL")
    accession = fields.typed_number(request.get("identifier", []), "ACSN")
    priority = _PRIORITY.get(str(request.get("priority", "")), "R")
    requester = fields.xcn(request.get("requester"), people)
    builder = start(target, f"{form}^{form.replace('^', '_')}", control_id=control_id, now=now)
    builder.segment("PID", fields.pid(patient, target))
    if form == "OML^O33":
        spm.add_specimens(builder, specimens, target)
    has_spm = form == "OML^O33" or (form == "OML^O21" and target.modern)
    builder.segment(
        "ORC",
        {
            1: control,
            2: placer,
            3: filler,
            7: None if has_tq1 else ["", "", "", "", "", priority],
            9: fields.time(request.get("authoredOn"), target) or fields.time(now.isoformat(), target),
            12: requester,
            16: ["", reason] if reason else None,
        },
    )
    if has_tq1:
        builder.segment("TQ1", tq1(request, priority, target))
    # An order that is only taken back or answered may be known by its number alone, and OBR-4 is required.
    if request.get("code"):
        described = {} if has_spm else spm.obr_fields(specimens, target)
        builder.segment("OBR", {**_obr(request, placer, filler, accession, priority, requester, target), **described})
    for ordinal, note in enumerate(request.get("note", []), start=1):
        builder.segment("NTE", {1: str(ordinal), 3: str(note.get("text", ""))})
    for ordinal, condition in enumerate(conditions, start=1):
        builder.segment("DG1", dg1(condition, ordinal, target))
    if form == "OML^O21" and has_spm:
        spm.add_specimens(builder, specimens, target)
    if form == "OMI^O23":
        add_ipc(builder, request, studies, placer, accession, target)
    elif with_zds:
        add_zds(builder, studies, target)
    return builder.to_text()


def _obr(
    request: Json,
    placer: str,
    filler: str,
    accession: str,
    priority: str,
    requester: FieldValue,
    target: OutboundTarget,
) -> dict[int, FieldValue]:
    reasons = [str(item["text"]) for item in request.get("reasonCode", []) if item.get("text")]
    sections = [
        str(coding.get("code", ""))
        for item in request.get("category", [])
        for coding in item.get("coding", [])
        if str(coding.get("system", "")).endswith("/v2-0074")
    ]
    return {
        1: "1",
        2: placer,
        3: filler,
        4: fields.concept(request.get("code"), target),
        5: priority,
        6: fields.time(request.get("occurrenceDateTime"), target),
        13: "；".join(reasons),
        16: requester,
        18: accession,
        24: sections[0] if sections else "",
    }


def dg1(condition: Json, ordinal: int, target: OutboundTarget) -> dict[int, FieldValue]:
    """Return DG1 of a Condition; DG1-6 is W, because a diagnosis on an order is what the orderer works with."""
    code = condition.get("code", {})
    return {
        1: str(ordinal),
        3: fields.concept(code, target),
        # DG1-4 was withdrawn in v2.6, whose DG1-3 has room for the words.
        4: "" if target.has_cwe else str(code.get("text", "")),
        5: fields.time(condition.get("onsetDateTime"), target),
        6: "W",
    }
