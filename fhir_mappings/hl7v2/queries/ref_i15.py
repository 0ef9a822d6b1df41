"""REF^I15, which asks where a referral stands, and RRI^I15, which says it (HL7 v2 chapter 11.5.5).

The question has the structure of every REF: RF1-6 has the number under which the referral was sent, RF1-11 the number of
the side that took it, PID the patient. The answer is an RRI whose RF1-1 (table 0283) is where the referral stands; table
0283 knows four answers and a referral more steps, so that NTE says which step it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from fhir_mappings.errors import MalformedError
from fhir_mappings.hl7v2.ack import AckError, build_ack, copied
from fhir_mappings.hl7v2.assembly import where
from fhir_mappings.hl7v2.builder import FieldValue, MessageBuilder
from fhir_mappings.hl7v2.outbound.referral import Answer, rri_i12
from fhir_mappings.hl7v2.outbound.target import OutboundTarget
from fhir_mappings.hl7v2.tokenizer import Message, parse

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferralQuestion:
    """What is asked: a referral by its numbers, one of which may be empty, and the numbers of its patient."""

    placer: str
    filler: str
    patients: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferralResponse:
    """What is answered.

    Attributes:
        answer: RF1-1, table 0283.
        sender: code of the institution that referred.
        reason: why it stands there, in the words of who moved it.
        step: the step in words.
    """

    status: Literal["AA", "AE", "AR"]
    request: Json | None = None
    patient: Json | None = None
    answer: Answer = "P"
    sender: str = ""
    reason: str = ""
    step: str = ""
    practitioners: Mapping[str, Json] | None = None
    errors: tuple[AckError, ...] = ()


def is_referral_query(message: Message) -> bool:
    """Return whether *message* asks where a referral stands."""
    code, event = message.get("MSH-9.1").strip().upper(), message.get("MSH-9.2").strip().upper()
    return (code, event) == ("REF", "I15")


def read(message: Message) -> ReferralQuestion:
    """Return what *message*, a REF^I15, asks.

    Raises:
        MalformedError: RF1 or PID is missing (100), or neither RF1-6 nor RF1-11, or no PID-3, is valued (101).
    """
    found = {name: message.first(name) for name in ("RF1", "PID")}
    rf1, pid = found["RF1"], found["PID"]
    if rf1 is None or pid is None:
        name = "RF1" if rf1 is None else "PID"
        raise MalformedError(
            f"REF^I15 needs {name}.", where="after segment 1", remedy=f"Send {name} behind MSH.", code=100
        )
    placer, filler = rf1.get(6).strip(), rf1.get(11).strip()
    if not placer and not filler:
        raise MalformedError(
            "RF1 names no referral.",
            where=where(rf1, 6),
            remedy="Send the number under which the referral was sent in RF1-6, or your own in RF1-11.",
            code=101,
        )
    patients = tuple(dict.fromkeys(one for part in pid.field(3).repetitions if (one := part.component(1).strip())))
    if not patients:
        raise MalformedError(
            "PID-3 names no patient.",
            where=where(pid, 3),
            remedy="Send your number of the referral's patient in PID-3.",
            code=101,
        )
    return ReferralQuestion(placer=placer, filler=filler, patients=patients)


def build(
    original: Message, response: ReferralResponse, *, target: OutboundTarget, control_id: str, now: datetime
) -> str:
    """Return RRI^I15 to *original*, or ACK^I15 where there is nothing to tell: RRI needs a referral and its patient."""
    head = build_ack(
        original,
        code=response.status,
        control_id=control_id,
        now=now,
        errors=response.errors,
        application=target.sending_application,
        facility=target.sending_facility,
    )
    if response.request is None or response.patient is None:
        return head
    said = rri_i12(
        response.request,
        answer=response.answer,
        original_control_id=original.get("MSH-10").strip(),
        patient=response.patient,
        # An answer is written in the version of its question.
        target=replace(target, dialect=replace(target.dialect, version_out=original.get("MSH-12").strip())),
        control_id=control_id,
        now=now,
        sender=response.sender,
        event="I15",
        reason=response.reason,
        note=response.step,
        practitioners=response.practitioners,
    )
    # The header is that of an acknowledgement, with the asker's names and delimiters: what answers on the connection of its
    # question is not acknowledged itself.
    builder = MessageBuilder(original.delimiters)
    body = parse(said)
    for segment in (*parse(head).segments[:1], *body.segments[1:]):
        first = 3 if segment.name == "MSH" else 1
        cells: dict[int, FieldValue] = {
            number: copied(segment.field(number)) for number in range(first, segment.field_count + 1)
        }
        if segment.name == "MSH":
            cells[9] = copied(body.segments[0].field(9))
        builder.segment(segment.name, cells)
    return builder.to_text()


def response_of(status: Literal["AE", "AR"], errors: Sequence[AckError]) -> ReferralResponse:
    """Return the response that refuses a question."""
    return ReferralResponse(status=status, errors=tuple(errors))
