"""What a partner's acknowledgement says about a delivery: HL7 v2 chapter 2.9, MSA-1 and MSA-2.

On MLLP it comes back on the connection. A partner that takes files may answer by files: with its endpoint's setting
``ack-file-s`` a message that was dropped into its folder is not delivered before an ACK whose MSA-2 is its MSH-10 was picked
up there (:meth:`hub.ports.Outbox.answered`), and one that brings none in that time counts like a silent partner on MLLP.

In enhanced mode a partner may first say that it has the message (CA), and send what came of it on a connection of its own
(chapter 2.9.3). A refusal that comes so opens the delivery again, and its sender reads it as if it had come at once.
"""

from __future__ import annotations

import re

from fhir_mappings.errors import MappingError
from fhir_mappings.hl7v2.ack import ParsedAck, parse_ack
from fhir_mappings.hl7v2.charset import decode_message
from fhir_mappings.hl7v2.tokenizer import Message, parse
from hub.ports import Delivery, MemberEndpoint, SendResult

#: Name of the endpoint setting, and the most that it may say: thirty days.
SETTING = "ack-file-s"
_LONGEST_S = 2_592_000

#: Name of the setting of how long an application's answer may take on the connection that has brought CA, the most that it
#: may say, and what is waited without it. The lane stands still meanwhile, so it is short.
WAIT_SETTING = "answer-wait-s"
_LONGEST_WAIT_S = 300
_WAIT_S = 5.0

#: What stands as the last error of a delivery that was dropped, of one whose time has passed, and of one whose ACK has come.
AWAITING = "The file is there; its acknowledgement is awaited."
UNACKNOWLEDGED = "No acknowledgement file came in time."
ACKNOWLEDGED = "An acknowledgement file has come."

#: MSA-1 of an acknowledgement that takes nothing.
_REFUSALS = frozenset({"AE", "AR", "CE", "CR"})


def is_wait(value: str) -> bool:
    """Return whether *value* is a number of seconds that an acknowledgement file may be awaited."""
    return value.isascii() and value.isdigit() and 1 <= int(value) <= _LONGEST_S


def awaited_s(endpoint: MemberEndpoint) -> float:
    """Return how long *endpoint*'s acknowledgement files are awaited; 0 where it sends none."""
    return float(endpoint.settings.get(SETTING, 0))


def is_short_wait(value: str) -> bool:
    """Return whether *value* is a number of seconds that an application's answer may be awaited on the connection."""
    return value.isascii() and value.isdigit() and int(value) <= _LONGEST_WAIT_S


def wait_s(endpoint: MemberEndpoint) -> float:
    """Return for how many seconds *endpoint*'s application may take to answer on the connection that has brought CA."""
    return float(endpoint.settings.get(WAIT_SETTING, _WAIT_S))


def answers_wanted(payload: bytes) -> bool:
    """Return whether the message *payload* asks for its application's answer whatever that is (MSH-16 AL)."""
    head = payload.lstrip(b"\r\n").split(b"\r", 1)[0]
    fields = head.split(head[3:4]) if len(head) > 3 else []
    return len(fields) > 15 and fields[15].strip().upper() == b"AL"


def both(receipt: bytes, answer: bytes) -> bytes:
    """Return two acknowledgements of one delivery as they are stored with it, one behind the other."""
    return receipt.rstrip(b"\r\n") + b"\r" + answer


def parts(ack: bytes) -> list[bytes]:
    """Return the acknowledgements that are stored with a delivery, the last of which is what counts."""
    return re.split(rb"(?<=[\r\n])(?=MSH[^A-Za-z0-9])", ack)


def is_receipt(ack: bytes) -> bool:
    """Return whether the partner only said that it has the message (CA)."""
    return _code(ack) == "CA"


def is_refusal(ack: bytes) -> bool:
    """Return whether the last acknowledgement of *ack* takes nothing."""
    return _code(ack) in _REFUSALS


def _code(ack: bytes) -> str:
    try:
        return parse_ack(parse(decode_message(parts(ack)[-1]).text)).code
    except MappingError:
        return ""


def answered_number(raw: bytes, endpoint: MemberEndpoint) -> str:
    """Return MSA-2 of *raw*, which *endpoint* said; empty where it answers nothing."""
    try:
        return parse(decode_message(raw, override=endpoint.settings.get("charset-in")).text).get("MSA-2").strip()
    except MappingError:
        return ""


def refuses(message: Message) -> bool:
    """Return whether the acknowledgement *message* refuses what it answers."""
    return message.get("MSA-1").strip().upper() in _REFUSALS


def is_open_to_refusal(delivery: Delivery) -> bool:
    """Return whether *delivery*, which counts as sent, may still be refused: its partner only said that it has it (CA), or its
    file was dropped.
    """
    if _needs_none(delivery):
        return False
    return not delivery.ack or is_receipt(delivery.ack)


def came(delivery: Delivery, endpoint: MemberEndpoint) -> SendResult | None:
    """Return what the acknowledgement says that came for *delivery* by another way, ``None`` when there is none to read."""
    if delivery.last_error != ACKNOWLEDGED or delivery.ack is None or _needs_none(delivery):
        return None
    told = judge(delivery.ack, control_id=delivery.control_id, endpoint=endpoint)
    # One that says nothing that can be read ends the attempt all the same, or it would be found again for ever.
    return told or SendResult(ack=delivery.ack, error="The acknowledgement that came cannot be read.")


def _needs_none(delivery: Delivery) -> bool:
    # The directory checks endpoint settings by this module, and stands itself below the one that makes acknowledgements.
    from hub.acknowledge import UNANSWERED

    return UNANSWERED in delivery.headers


def judge(answer: bytes, *, control_id: str, endpoint: MemberEndpoint) -> SendResult | None:
    """Return what *answer* says about the message *control_id*, or ``None`` when it is no answer to it."""
    override = endpoint.settings.get("charset-in")
    try:
        ack: ParsedAck = parse_ack(parse(decode_message(answer, override=override).text))
    except MappingError:
        return None
    if ack.control_id != control_id:
        return None
    if ack.accepted:
        return SendResult(ack=answer)
    permanent = ack.refused or not endpoint.settings.get("retry-ae", True)
    # The partner's words may quote patient data; they stay in the stored answer and out of the error.
    return SendResult(ack=answer, error=f"The partner answered {ack.code}.", permanent=permanent)
