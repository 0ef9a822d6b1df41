"""What became of an order, to who placed it: ORR^O02, ORL^O22, O34 and O36, ORG^O20 and ORI^O24 (HL7 v2 chapter 4, table 0119).

The form of the answer is that of the message that it answers (chapters 4.4.2 to 4.4.11). Each order of a message is answered
when somebody has decided about it, so an answer is about one order and says so by its numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal

from fhir_mappings.hl7v2.ack import AckError, err
from fhir_mappings.hl7v2.builder import FieldValue
from fhir_mappings.hl7v2.outbound import fields
from fhir_mappings.hl7v2.outbound.target import OutboundTarget, start

Json = Mapping[str, Any]

#: MSH-9 of an order -> that of the answer to it.
ANSWERS: Mapping[str, str] = {
    "ORM^O01": "ORR^O02",
    "OML^O21": "ORL^O22",
    "OML^O33": "ORL^O34",
    "OML^O35": "ORL^O36",
    "OMG^O19": "ORG^O20",
    "OMI^O23": "ORI^O24",
}

#: ORC-1: taken on, or unable to; then cancelled, discontinued, held, released, changed and replaced as asked, or unable to.
Answer = Literal["OK", "UA", "CR", "UC", "DR", "UD", "HR", "UH", "OR", "UR", "XR", "UX", "RQ", "UM"]


def orr_o02(
    request: Json,
    *,
    answer: Answer,
    asked_by: str,
    original_control_id: str,
    original_version: str,
    patient: Json,
    target: OutboundTarget,
    control_id: str,
    now: datetime,
    reason: str = "",
    procedures: Sequence[Mapping[int, FieldValue]] = (),
    specimens: Sequence[tuple[str, Mapping[int, FieldValue]]] = (),
    errors: Sequence[AckError] = (),
) -> str:
    """Return the answer to a message about the order *request* as text.

    Args:
        answer: ORC-1. MSA-1 is AA in any case: the message was understood, whatever became of the order.
        asked_by: MSH-9 of the message that is answered, a key of :data:`ANSWERS`.
        original_control_id: MSH-10 of that message, which becomes MSA-2.
        original_version: MSH-12 of that message; the answer is in the same version.
        reason: ORC-16, why an order is refused.
        procedures: IPC-1 to IPC-4 of that message, which ORI^O24 gives back.
        specimens: SPM and SAC before the order in that message, which ORL^O34 and O36 give back in front of it.
        errors: one ERR each, for the person who mends it.
    """
    if re.fullmatch(r"2\.[1-9](\.[0-9])?", original_version):
        target = replace(target, dialect=replace(target.dialect, version_out=original_version))
    event = ANSWERS[asked_by]
    placer = fields.placer_number(request, target) or str(request["id"])
    filler = fields.typed_number(request.get("identifier", []), "FILL")
    builder = start(target, f"{event}^{event.replace('^', '_')}", control_id=control_id, now=now)
    builder.segment("MSA", {1: "AA", 2: original_control_id})
    for error in errors:
        builder.segment("ERR", err(error, target.dialect.version_out))
    builder.segment("PID", fields.pid(patient, target))
    for name, cells in specimens:
        builder.segment(name, cells)
    builder.segment(
        "ORC",
        {
            1: answer,
            2: placer,
            3: filler,
            9: fields.time(now.isoformat(), target),
            16: ["", reason] if reason else None,
        },
    )
    if request.get("code"):
        builder.segment("OBR", {1: "1", 2: placer, 3: filler, 4: fields.concept(request.get("code"), target)})
    if event == "ORI^O24":
        for procedure in procedures:
            builder.segment("IPC", procedure)
    return builder.to_text()
