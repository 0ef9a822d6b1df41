"""The beginning that every answer to a query has: MSH, MSA and ERR of an acknowledgement under a name of its own (chapter 5.4)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from fhir_mappings.hl7v2.ack import AckCode, AckError, build_ack, copied
from fhir_mappings.hl7v2.builder import FieldValue, MessageBuilder
from fhir_mappings.hl7v2.outbound.target import OutboundTarget
from fhir_mappings.hl7v2.tokenizer import Message, parse


def begin(
    original: Message,
    kind: FieldValue,
    *,
    code: AckCode,
    errors: Sequence[AckError],
    target: OutboundTarget,
    control_id: str,
    now: datetime,
) -> MessageBuilder:
    """Return the answer to *original* so far, in its delimiters; *now* is written as given.

    Args:
        kind: MSH-9 of the answer.
        code: MSA-1.
        errors: one ERR each.
    """
    head = parse(
        build_ack(
            original,
            code=code,
            control_id=control_id,
            now=now,
            errors=errors,
            application=target.sending_application,
            facility=target.sending_facility,
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
