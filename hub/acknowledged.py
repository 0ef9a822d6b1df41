"""What a partner's acknowledgement says about a delivery: HL7 v2 chapter 2.9, MSA-1 and MSA-2.

On MLLP it comes back on the connection. A partner that takes files may answer by files: with its endpoint's setting
``ack-file-s`` a message that was dropped into its folder is not delivered before an ACK whose MSA-2 is its MSH-10 was picked
up there (:meth:`hub.ports.Outbox.answered`), and one that brings none in that time counts like a silent partner on MLLP.
"""

from __future__ import annotations

from fhir_mappings.errors import MappingError
from fhir_mappings.hl7v2.ack import ParsedAck, parse_ack
from fhir_mappings.hl7v2.charset import decode_message
from fhir_mappings.hl7v2.tokenizer import parse
from hub.ports import MemberEndpoint, SendResult

#: Name of the endpoint setting, and the most that it may say: thirty days.
SETTING = "ack-file-s"
_LONGEST_S = 2_592_000

#: What stands as the last error of a delivery that was dropped, of one whose time has passed, and of one whose ACK has come.
AWAITING = "The file is there; its acknowledgement is awaited."
UNACKNOWLEDGED = "No acknowledgement file came in time."
ACKNOWLEDGED = "An acknowledgement file has come."


def is_wait(value: str) -> bool:
    """Return whether *value* is a number of seconds that an acknowledgement file may be awaited."""
    return value.isascii() and value.isdigit() and 1 <= int(value) <= _LONGEST_S


def awaited_s(endpoint: MemberEndpoint) -> float:
    """Return how long *endpoint*'s acknowledgement files are awaited; 0 where it sends none."""
    return float(endpoint.settings.get(SETTING, 0))


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
