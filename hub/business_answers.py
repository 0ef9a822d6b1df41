"""What partners answer in place of an acknowledgement: application responses with segments of their own (HL7 v2 chapter 2.9.2).

In original mode the answer on the connection is the application's: REF^I12 is answered by RRI^I12, whose RF1-1 takes or
refuses the patient, ORM^O01 by ORR^O02, and MSA-1 ``AA`` says only that the message was read. So such an answer is
received like any message of that partner, before the delivery that it answers counts as done; a crash between the two has
the delivery sent again, and the intake knows the answer. It is never acknowledged: that would be an acknowledgement of an
acknowledgement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fhir_mappings.errors import MappingError
from fhir_mappings.hl7v2.charset import decode_message
from fhir_mappings.hl7v2.tokenizer import Message, parse
from fhir_mappings.hl7v2.translate import MESSAGES

if TYPE_CHECKING:
    from hub.directory import Directory
    from hub.ports import MemberEndpoint

#: Begins the peer of an answer that came on a connection of the hub's own; the id of the endpoint it leads to follows.
ANSWER_PEER = "endpoint/"

#: HL7 table 0076, the types that answer another one and are no general acknowledgement. A message of any other type that
#: comes in place of an acknowledgement is an echo of what was sent, and states nothing of its sender's own.
RESPONSES = frozenset(
    {
        *("RRI", "ORR", "ORL", "ORG", "ORI", "ORP", "ORN", "ORS", "ORD", "ORA", "ORB", "RRE", "RRD", "RRG", "RRA"),
        *("SRR", "SQR", "RSP", "RTB", "RDY", "ADR", "ORF", "OSR", "DSR", "RCI", "RCL", "RPI", "RPL", "RPR", "RPA"),
        *("RAR", "RDR", "RER", "RGR", "ROR", "VXR", "VXX", "PRR", "PTR", "PPV", "BRT", "BRP"),
    }
)
#: Segments that every answer may carry and that say nothing but whether the message was taken.
_FRAME = frozenset({"MSH", "MSA", "ERR", "SFT", "UAC", "NTE"})


def has_business(message: Message) -> bool:
    """Return whether *message* is a response that says more than MSA-1 does."""
    return message.get("MSH-9.1").strip().upper().partition("_")[0] in RESPONSES and any(
        one.name not in _FRAME for one in message.segments
    )


def states_nothing(message: Message | None) -> bool:
    """Return whether *message* is a response of a type that the hub does not read, such as SRR to a booking or RSP."""
    if message is None:
        return False
    kind = message.get("MSH-9.1").strip().upper().partition("_")[0]
    return kind in RESPONSES and kind not in MESSAGES


def answers(raw: bytes, *, control_id: str, endpoint: MemberEndpoint) -> bool:
    """Return whether *raw*, which *endpoint* said to the message *control_id*, is to be received as a message of its own."""
    try:
        message = parse(decode_message(raw, override=endpoint.settings.get("charset-in")).text)
    except MappingError:
        return False
    return bool(control_id) and message.get("MSA-2").strip() == control_id and has_business(message)


def sender_of(directory: Directory, peer: str, application: str, facility: str) -> MemberEndpoint | None:
    """Return the endpoint that wrote MSH-3 *application* and MSH-4 *facility* in an answer from *peer*, ``None`` for a stranger.

    The connection says which member it is, so no network has to; names must be those of an endpoint of that member. An
    answer without names, and one of a member that is recognised by none, is the endpoint's that was asked.
    """
    asked = directory.endpoint(peer.removeprefix(ANSWER_PEER))
    if asked is None or not asked.active or directory.member(asked.member) is None:
        return None
    if not (application or facility):
        return asked
    others = [one for one in directory.endpoints(asked.member, "mllp") if one.active and one.id != asked.id]
    named = [one for one in (asked, *others) if one.sending_facility or one.sending_application]
    for one in named:
        if one.sending_facility == facility and one.sending_application in {"", application}:
            return one
    return asked if not named and directory.facility_member(facility) in {None, asked.member} else None
