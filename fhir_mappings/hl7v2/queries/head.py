"""The beginning of every answer that says more than an acknowledgement: its MSH, MSA and ERR under a name of its own.

HL7 v2 chapter 5.4 for queries, 8.4.1 for master files.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from fhir_mappings.hl7v2.ack import AckCode, AckError, build_ack, copied
from fhir_mappings.hl7v2.builder import FieldValue, MessageBuilder
from fhir_mappings.hl7v2.tokenizer import Message, parse


def begin(
    original: Message,
    kind: FieldValue,
    *,
    code: AckCode,
    errors: Sequence[AckError],
    application: str,
    facility: str,
    control_id: str,
    now: datetime,
) -> MessageBuilder:
    """Return the answer to *original* so far, in its delimiters; *now* is written as given.

    Args:
        kind: MSH-9 of the answer.
        code: MSA-1.
        errors: one ERR each.
        application: MSH-3 of the answer; *facility* its MSH-4.
    """
    head = parse(
        build_ack(
            original,
            code=code,
            control_id=control_id,
            now=now,
            errors=errors,
            application=application,
            facility=facility,
        )
    )
    builder = MessageBuilder(original.delimiters)
    for segment in head.segments:
        first = 3 if segment.name == "MSH" else 1
        cells: dict[int, FieldValue] = {
            number: copied(segment.field(number)) for number in range(first, segment.field_count + 1)
        }
        if segment.name == "MSH":
            cells[9] = kind
        builder.segment(segment.name, cells)
    return builder
