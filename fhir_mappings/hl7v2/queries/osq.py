"""OSQ^Q06, which asks where orders stand, and OSR^Q06, which says it (HL7 v2.3 to v2.6 chapter 4.4; QRD 5.10.5.3).

Who is meant stands in QRD-8 as the asker's own patient number, which orders in QRD-10 as their placer or filler numbers; one of
them is needed. What would narrow the answer and is not searched by is refused and never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from fhir_mappings.errors import MalformedError, UnsupportedError
from fhir_mappings.hl7v2.ack import AckError, copied
from fhir_mappings.hl7v2.assembly import where
from fhir_mappings.hl7v2.builder import FieldValue, MessageBuilder
from fhir_mappings.hl7v2.outbound import fields
from fhir_mappings.hl7v2.outbound.target import OutboundTarget
from fhir_mappings.hl7v2.queries.head import begin
from fhir_mappings.hl7v2.tokenizer import Message, Repetition

Json = Mapping[str, Any]

#: The versions that have the query; v2.7 withdrew it.
VERSIONS = frozenset({"2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6"})
#: QRD-9 (table 0048) of a question for orders.
_SUBJECTS = frozenset({"ORD", "STA"})
#: Fields of QRF that narrow what is meant: from and until when, other filters, quantity and timing.
_NARROWING = (2, 3, 5, 9)
MAX_NUMBERS = 20
MAX_ORDERS = 100
#: ServiceRequest.status -> ORC-5 (table 0038).
STATUS: Mapping[str, str] = {
    "draft": "",
    "active": "IP",
    "on-hold": "HD",
    "revoked": "CA",
    "completed": "CM",
    "entered-in-error": "CA",
    "unknown": "",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderQuestion:
    """What is asked; *patient* and *numbers* may not both be empty."""

    patient: str
    numbers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderResponse:
    """What is answered: the orders of one patient, the newest first."""

    status: Literal["AA", "AE", "AR"]
    patient: Json | None = None
    orders: tuple[Json, ...] = ()
    errors: tuple[AckError, ...] = ()


def read(message: Message) -> OrderQuestion:
    """Return what *message*, an OSQ^Q06, asks.

    Raises:
        UnsupportedError: another event (201), or a filter that the hub does not search by (103).
        MalformedError: QRD is missing (100), or names neither a patient nor an order (101).
    """
    event = message.get("MSH-9.2").strip().upper()
    if event not in {"Q06", ""}:
        raise UnsupportedError(
            f"Event {event[:8]} of message type OSQ is not supported.",
            where="MSH-9 of segment 1",
            remedy="Send OSQ^Q06.",
            code=201,
        )
    qrd = message.first("QRD")
    if qrd is None:
        raise MalformedError("OSQ^Q06 needs QRD.", where="after segment 1", remedy="Send QRD behind MSH.", code=100)
    subject = qrd.get(9).strip().upper()
    if subject not in _SUBJECTS:
        raise UnsupportedError(
            "QRD-9 asks for something else than orders.", where=where(qrd, 9), remedy="Send ORD in QRD-9.", code=103
        )
    for number, segment in ((one, message.first("QRF")) for one in _NARROWING):
        if segment is not None and segment.get(number).strip():
            raise UnsupportedError(
                f"The hub does not search orders by QRF-{number}.",
                where=where(segment, number),
                remedy="Name the patient in QRD-8 and the orders in QRD-10, and leave the filter out.",
                code=103,
            )
    if message.first("DSC") is not None:
        raise UnsupportedError(
            "An answer about orders is in one part.", where="DSC", remedy="Ask anew without DSC.", code=103
        )
    numbers = tuple(dict.fromkeys(found for one in qrd.field(10).repetitions if (found := _number(one))))
    patient = qrd.get(8).strip()
    if not patient and not numbers:
        raise MalformedError(
            "QRD names neither a patient nor an order.",
            where=where(qrd, 8),
            remedy="Send your patient number in QRD-8, or order numbers in QRD-10.",
            code=101,
        )
    if len(numbers) > MAX_NUMBERS:
        raise MalformedError(
            f"QRD-10 names more than {MAX_NUMBERS} orders.",
            where=where(qrd, 10),
            remedy="Ask for fewer at a time.",
            code=102,
        )
    return OrderQuestion(patient=patient, numbers=numbers)


def _number(repetition: Repetition) -> str:
    """An order number is a code (QRD-10.1); Chinese systems write it as the text beside an empty code."""
    return repetition.component(1).strip() or repetition.component(2).strip()


def build(original: Message, response: OrderResponse, *, target: OutboundTarget, control_id: str, now: datetime) -> str:
    """Return OSR^Q06 to *original*; *now* is shown as given, so hand it over in the asker's time zone."""
    # MSH-9.3 came with v2.3.1.
    kind = ["OSR", "Q06"] if original.get("MSH-12").strip() == "2.3" else ["OSR", "Q06", "OSR_Q06"]
    builder = begin(
        original,
        kind,
        code=response.status,
        errors=response.errors,
        application=target.sending_application,
        facility=target.sending_facility,
        control_id=control_id,
        now=now,
    )
    for name in ("QRD", "QRF"):
        asked = original.first(name)
        if asked is not None:
            builder.segment(name, {number: copied(asked.field(number)) for number in range(1, asked.field_count + 1)})
    if response.patient is not None and response.orders:
        builder.segment("PID", fields.pid(response.patient, target))
        for ordinal, order in enumerate(response.orders, start=1):
            _order(builder, order, ordinal, target)
    return builder.to_text()


def _order(builder: MessageBuilder, order: Json, ordinal: int, target: OutboundTarget) -> None:
    placer = fields.placer_number(order, target) or str(order["id"])
    filler = fields.typed_number(order.get("identifier", []), "FILL")
    updated = fields.time(order.get("meta", {}).get("lastUpdated"), target)
    cells: dict[int, FieldValue] = {
        1: "SR",
        2: placer,
        3: filler,
        5: STATUS.get(str(order.get("status", "")), ""),
        9: updated,
    }
    if not target.modern:
        # Required in v2.3; how urgent it is stands in its sixth component.
        cells[7] = ["", "", "", "", "", "S" if order.get("priority") == "stat" else "R"]
    builder.segment("ORC", cells)
    builder.segment(
        "OBR",
        {
            1: str(ordinal),
            2: placer,
            3: filler,
            4: fields.concept(order.get("code"), target),
            6: fields.time(order.get("occurrenceDateTime"), target),
        },
    )


def is_order_query(message: Message) -> bool:
    """Return whether *message* asks where orders stand."""
    return message.get("MSH-9.1").strip().upper() == "OSQ"


def response_of(status: Literal["AE", "AR"], errors: Sequence[AckError]) -> OrderResponse:
    """Return the response that refuses a question."""
    return OrderResponse(status=status, errors=tuple(errors))
