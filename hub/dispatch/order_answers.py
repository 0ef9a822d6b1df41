"""Answers to the orders that came by HL7 v2: taken on, refused, changed, cancelled or not (ORR^O02, ORL^O22, ORG^O20, ORI^O24).

The acknowledgement of an order says that the hub has it. What the other side does with it is known later, when the
workflow moves; a member whose Endpoint has the setting ``order-answers`` is then told so, as the answer to that very
message (HL7 v2 chapter 4.2.1). Each order of a message has its own work, and so its own answer. Who asked for nothing by
message is told nothing by message.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from fhir_mappings.errors import MalformedError
from fhir_mappings.hl7v2.ack import copied
from fhir_mappings.hl7v2.builder import FieldValue
from fhir_mappings.hl7v2.charset import decode_message
from fhir_mappings.hl7v2.messages.order_groups import Order, read_orders
from fhir_mappings.hl7v2.outbound import fields
from fhir_mappings.hl7v2.outbound.orr_o02 import ANSWERS
from fhir_mappings.hl7v2.outbound.target import OutboundTarget
from fhir_mappings.hl7v2.segments import orc
from fhir_mappings.hl7v2.tokenizer import Message, Segment, parse
from hub.ports import Entry, MemberEndpoint, ObjectStore, Tx
from hub.workflows.task import plain, reference_in

log = structlog.get_logger("hub.dispatch")

Json = dict[str, Any]

#: Setting of an Endpoint that asks for the answers.
SETTING = "order-answers"
#: What a workflow says -> ORC-1 of what it can be the answer to -> ORC-1 of the answer (table 0119).
_ANSWERS: Mapping[str, Mapping[str, str]] = {
    "OK": {"NW": "OK"},
    "UA": {"NW": "UA"},
    "CR": {"CA": "CR", "DC": "DR"},
    "UC": {"CA": "UC", "DC": "UD"},
    "HR": {"HD": "HR"},
    "UH": {"HD": "UH"},
    "OR": {"RL": "OR"},
    "UR": {"RL": "UR"},
    "XR": {"XO": "XR", "RP": "RQ"},
    "UX": {"XO": "UX", "RP": "UM"},
}
#: So many messages are looked at, the newest first; those about one order are few.
_LOOKED_AT = 50
_BY_SPECIMEN = frozenset({"OML^O33", "OML^O35"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A received message that an answer is about.

    Attributes:
        seq: its number in the journal.
        event: MSH-9, as ``OMG^O19``.
        answer: ORC-1 of the answer to what it asked for.
        procedures: IPC-1 to IPC-4 of each IPC, as they came.
        specimens: SPM and SAC that the order stands behind (OML^O33 and O35), as they came.
    """

    seq: int
    event: str
    control_id: str
    version: str
    answer: str
    procedures: Sequence[Mapping[int, FieldValue]]
    specimens: Sequence[tuple[str, Mapping[int, FieldValue]]] = ()


def wants_answers(endpoint: MemberEndpoint) -> bool:
    """Return whether *endpoint* asks for the answers to its orders."""
    return endpoint.settings.get(SETTING) is True


def answered(
    tx: Tx,
    objects: ObjectStore,
    request: Json,
    answer: str,
    endpoint: MemberEndpoint,
    target: OutboundTarget,
    correlations: Sequence[str] = (),
) -> Asked | None:
    """Return the newest message by which *endpoint*'s member asked for what *answer* answers; ``None`` for none.

    *correlations* are those under which that message may have come.
    """
    placer = fields.placer_number(request, target)
    if not placer:
        return None
    for entry in _messages(tx, endpoint.member, placer, request, correlations):
        message = _message(objects, entry)
        found = None if message is None else _order(message, entry.message_type, placer)
        if message is None or found is None:
            continue
        said = _ANSWERS[answer].get(found.orc.get(1).strip().upper())
        if said is not None:
            return Asked(
                seq=entry.seq,
                event=entry.message_type,
                control_id=entry.control_id,
                version=entry.version,
                answer=said,
                procedures=[
                    {number: [one.get(number, part) for part in (1, 2, 3, 4)] for number in (1, 2, 3, 4)}
                    for one in found.procedures
                ],
                specimens=_specimens(found, entry.message_type) if entry.message_type in _BY_SPECIMEN else (),
            )
    return None


def control_id_of(task: Json, asked: Asked, answer: str) -> str:
    """Return MSH-10 of the answer: the same for the same answer to the same message, so that it is given once."""
    said = f"{task['id']}|{asked.seq}|{answer}"
    return f"YX{hashlib.sha256(said.encode()).hexdigest()[:16].upper()}"


def _messages(tx: Tx, member: str, placer: str, request: Json, correlations: Sequence[str]) -> list[Entry]:
    """Return the messages of *member* that may hold the order, newest first.

    The journal knows a message by the number of its first order; the others of the same message are found by how the
    work began, and by the patient, whom all orders of a message are for.
    """
    found: dict[int, Entry] = {}
    patient = (plain(reference_in(request.get("subject"))) or "").removeprefix("Patient/")
    for event in ANSWERS:
        for name, value in (("placer", placer), ("patient_id", patient)):
            if value:
                criteria = {"institution": member, name: value, "message_type": event}
                found.update({one.seq: one for one in tx.journal.search(criteria, limit=_LOOKED_AT)})
    for correlation in correlations:
        if correlation:
            found.update({one.seq: one for one in tx.journal.by_correlation(correlation)})
    fit = [
        one
        for one in found.values()
        if one.institution == member and one.message_type in ANSWERS and one.state not in {"refused", "failed"}
    ]
    return sorted(fit, key=lambda one: one.seq, reverse=True)[:_LOOKED_AT]


def _message(objects: ObjectStore, entry: Entry) -> Message | None:
    raw = entry.body if entry.body is not None else objects.read(entry.digest)
    try:
        return parse(decode_message(raw, override=entry.charset or None).text)
    except MalformedError:
        log.warning("order_message_unreadable", seq=entry.seq)
        return None


def _order(message: Message, event: str, placer: str) -> Order | None:
    """Return the order *placer* of *message*; ``None`` when it has no such order."""
    trigger = event.partition("^")[2]
    return next((one for one in read_orders(message, trigger) if orc.numbers(one.orc, one.obr).placer == placer), None)


def _specimens(order: Order, event: str) -> list[tuple[str, Mapping[int, FieldValue]]]:
    made: list[tuple[str, Mapping[int, FieldValue]]] = []
    for sample in order.samples:
        made.append(("SPM", _fields(sample.spm)))
        # The order of OML^O35 stands behind its own container, that of OML^O33 behind all of the specimen.
        containers = [order.container] if event == "OML^O35" and order.container else sample.containers
        made += [("SAC", _fields(one)) for one in containers if one in sample.containers]
    return made


def _fields(segment: Segment) -> dict[int, FieldValue]:
    return {number: copied(segment.field(number)) for number in range(1, segment.field_count + 1)}
