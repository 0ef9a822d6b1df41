"""Answers to the orders that came by HL7 v2: taken on, refused, cancelled or not (ORR^O02, ORL^O22, ORG^O20, ORI^O24).

The acknowledgement of an order says that the hub has it. What the other side does with it is known later, when the
workflow moves; a member whose Endpoint has the setting ``order-answers`` is then told so, as the answer to that very
message (HL7 v2 chapter 4.2.1). Who asked for nothing by message is told nothing by message.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from fhir_mappings.errors import MalformedError
from fhir_mappings.hl7v2.builder import FieldValue
from fhir_mappings.hl7v2.charset import decode_message
from fhir_mappings.hl7v2.outbound import fields
from fhir_mappings.hl7v2.outbound.orr_o02 import ANSWERS
from fhir_mappings.hl7v2.outbound.target import OutboundTarget
from fhir_mappings.hl7v2.tokenizer import Message, parse
from hub.ports import Entry, MemberEndpoint, ObjectStore, Tx

log = structlog.get_logger("hub.dispatch")

Json = dict[str, Any]

#: Setting of an Endpoint that asks for the answers.
SETTING = "order-answers"
#: ORC-1 of the answer -> ORC-1 of what it can be the answer to (table 0119).
_COMMANDS = {
    "OK": frozenset({"NW"}),
    "UA": frozenset({"NW"}),
    "CR": frozenset({"CA", "DC"}),
    "UC": frozenset({"CA", "DC"}),
}
#: So many messages about one order are looked at, the newest first; changes of an order are few.
_LOOKED_AT = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A received message that an answer is about.

    Attributes:
        seq: its number in the journal.
        event: MSH-9, as ``OMG^O19``.
        procedures: IPC-1 to IPC-4 of each IPC, as they came.
    """

    seq: int
    event: str
    control_id: str
    version: str
    procedures: Sequence[Mapping[int, FieldValue]]


def wants_answers(endpoint: MemberEndpoint) -> bool:
    """Return whether *endpoint* asks for the answers to its orders."""
    return endpoint.settings.get(SETTING) is True


def answered(
    tx: Tx, objects: ObjectStore, request: Json, answer: str, endpoint: MemberEndpoint, target: OutboundTarget
) -> Asked | None:
    """Return the newest message by which *endpoint*'s member asked for what *answer* answers; ``None`` for none."""
    placer = fields.placer_number(request, target)
    if not placer:
        return None
    for entry in tx.journal.search({"institution": endpoint.member, "placer": placer}, limit=_LOOKED_AT):
        if entry.state in {"refused", "failed"} or entry.message_type not in ANSWERS:
            continue
        message = _message(objects, entry)
        if message is not None and _command(message, placer) in _COMMANDS[answer]:
            return Asked(
                seq=entry.seq,
                event=entry.message_type,
                control_id=entry.control_id,
                version=entry.version,
                procedures=[
                    {number: [one.get(number, part) for part in (1, 2, 3, 4)] for number in (1, 2, 3, 4)}
                    for one in message.all("IPC")
                ],
            )
    return None


def control_id_of(task: Json, asked: Asked, answer: str) -> str:
    """Return MSH-10 of the answer: the same for the same answer to the same message, so that it is given once."""
    said = f"{task['id']}|{asked.seq}|{answer}"
    return f"YX{hashlib.sha256(said.encode()).hexdigest()[:16].upper()}"


def _message(objects: ObjectStore, entry: Entry) -> Message | None:
    raw = entry.body if entry.body is not None else objects.read(entry.digest)
    try:
        return parse(decode_message(raw, override=entry.charset or None).text)
    except MalformedError:
        log.warning("order_message_unreadable", seq=entry.seq)
        return None


def _command(message: Message, placer: str) -> str:
    """Return ORC-1 of the order *placer*; empty when the message has no such order."""
    return next(
        (one.get(1).strip().upper() for one in message.all("ORC") if one.get(2, 1).strip() == placer),
        "",
    )
