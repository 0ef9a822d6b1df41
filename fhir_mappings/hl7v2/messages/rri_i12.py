"""RRI^I12 to I15: what the other side says to a referral (HL7 v2 chapter 11.5). No public map exists for it.

The request belongs to the side that referred, so an answer changes no resource here: it is an event for the referral's
Task, found by RF1-6. MSH-9.2 says what is answered: the referral (I12), a change of it (I13), its cancellation (I14) or a
question where it stands (I15). RF1-1 has the same codes in all four, so that only both together say what is meant: who
takes a change or a cancellation has not accepted the referral.
"""

from __future__ import annotations

from fhir_mappings.errors import MalformedError
from fhir_mappings.hl7v2.assembly import Assembly, where
from fhir_mappings.hl7v2.base import WorkflowEvent

#: MSH-9.2, then RF1-1 (table 0283), to the event.
_ANSWERS = {
    "I12": {
        "A": "referral.accepted",
        "R": "referral.rejected",
        "P": "referral.received",
        "E": "referral.expired",
    },
    "I13": {
        "A": "referral.change-accepted",
        "R": "referral.change-refused",
        "P": "referral.change-received",
        # What has expired can no longer be changed.
        "E": "referral.change-refused",
    },
    "I14": {
        "A": "referral.cancellation-accepted",
        "R": "referral.cancellation-refused",
        "P": "referral.cancellation-received",
        # An end by time is no consent to this one.
        "E": "referral.cancellation-received",
    },
    "I15": {
        "A": "referral.status-accepted",
        "R": "referral.status-rejected",
        "P": "referral.status-received",
        "E": "referral.status-expired",
    },
}


def translate(assembly: Assembly, trigger: str) -> None:
    """Add the answer as a workflow event.

    Raises:
        MalformedError: MSA or RF1 is missing (100), RF1-6 is not valued (101), or RF1-1 is no code of table 0283 (103).
    """
    acknowledgement = assembly.require("MSA")
    segment = assembly.require("RF1")
    number = segment.get(6).strip()
    if not number:
        raise assembly.missing(segment, 6, "Return the referral's number in RF1-6.")
    reason = "; ".join(
        part for part in (segment.get(10, 2).strip() or segment.get(10).strip(), segment.get(24).strip()) if part
    )
    if acknowledgement.get(1).strip().upper() in {"AE", "AR", "CE", "CR"}:
        # The partner's system could not take the referral; that is a failure of the way and not a doctor's refusal.
        kind, reason = "referral.failed", acknowledgement.get(3).strip() or reason
    else:
        code = segment.get(1).strip().upper()
        if code not in _ANSWERS[trigger]:
            raise MalformedError(
                "RF1-1 says neither accepted, rejected, pending nor expired.",
                where=where(segment, 1),
                remedy="Send A, R, P or E (table 0283).",
                code=103,
            )
        kind = _ANSWERS[trigger][code]
    notes = [item.text().strip() for note in assembly.message.all("NTE") for item in note.field(3).repetitions]
    assembly.workflow_events.append(
        WorkflowEvent(
            kind=kind,
            placer_number=number,
            filler_number=segment.get(11).strip(),
            receiver=assembly.message.get("MSH-6").strip(),
            performer=_performer(assembly),
            reason="; ".join(part for part in (reason, *notes) if part),
        )
    )


def _performer(assembly: Assembly) -> str:
    for segment in assembly.message.all("PRD"):
        if segment.get(1).strip().upper() == "RT":
            return segment.get(7).strip()
    return ""
