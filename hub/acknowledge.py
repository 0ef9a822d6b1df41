"""Acknowledgements in the sender's words and character set: which of them go out, and on which way.

HL7 v2 chapter 2.9. :mod:`fhir_mappings.hl7v2.ack` decides the codes; this module knows what has happened to the message.
In enhanced mode the accept acknowledgement (CA, CE, CR) answers on the connection, and the application acknowledgement
(AA, AE, AR) follows as a message of its own to the sender's address, after the commit. A sender without an address, or
one that asked for no accept acknowledgement, gets the application acknowledgement on the connection; of a feed that is
answered when its messages are stored, it can only follow to an address.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from fhir_mappings.errors import MappingError, UnsupportedError
from fhir_mappings.hl7v2 import mfk
from fhir_mappings.hl7v2.ack import (
    AckCode,
    AckError,
    Outcome,
    application_code,
    build_ack,
    immediate_code,
)
from fhir_mappings.hl7v2.charset import encode_for
from fhir_mappings.hl7v2.queries.osq import is_order_query
from fhir_mappings.hl7v2.queries.qbp import is_query
from fhir_mappings.hl7v2.queries.ref_i15 import is_referral_query
from hub.arrival import Arrival
from hub.config import Settings
from hub.directory import Directory
from hub.envelope import new_correlation_id
from hub.errors import Category, HubError
from hub.ports import Delivery, MemberEndpoint, NewDelivery

log = structlog.get_logger("hub.acknowledge")

#: Key of ``NewDelivery.headers`` that says that no answer will come (an acknowledgement is never acknowledged).
UNANSWERED = "unanswered"

#: Word of the endpoint setting ``ack`` by which what cannot be applied is answered AA; see :func:`keeps_failures`.
KEPT = "kept"

#: ERR-3 for what the hub's own rules refuse (HL7 table 0357).
_CODES = {
    Category.INCORRECT: 102,
    Category.UNSUPPORTED: 200,
    Category.FORBIDDEN: 204,
    Category.NOT_FOUND: 204,
    Category.CONFLICT: 206,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What has become of a message.

    Attributes:
        outcome: decides the codes.
        errors: one ERR segment each.
    """

    outcome: Outcome
    errors: tuple[AckError, ...] = ()

    @property
    def reason(self) -> str:
        """The errors in words, for the journal; empty on success."""
        return "; ".join(f"{error.code} {error.location}: {error.text}" for error in self.errors)


STORED = Verdict(outcome="stored")


def refused(error: MappingError | HubError) -> Verdict:
    """Return the verdict on a message that *error* keeps out."""
    if isinstance(error, MappingError):
        unsupported = isinstance(error, UnsupportedError) and (error.code or 200) in {200, 201, 202, 203}
        code = error.code or (200 if unsupported else 102)
        text = f"{error.message} {error.remedy}".strip()
        return Verdict(
            outcome="refused" if unsupported else "invalid",
            errors=(AckError(location=error.where, code=code, text=text),),
        )
    code = error.code or _CODES.get(error.category, 207)
    text = f"{error.message} {error.remedy}".strip()
    return Verdict(
        outcome="refused" if code in {200, 201, 202, 203} else "invalid",
        errors=(AckError(location=error.where, code=code, text=text),),
    )


#: The hub itself is at fault: AE with 207 or CE, so that the sender keeps the message.
FAULT = Verdict(
    outcome="unstorable",
    errors=(AckError(location="", code=207, text="The hub met an internal error; the operator has been told."),),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What goes back.

    Attributes:
        immediate: the acknowledgement on the connection, or ``None`` when the sender wants none.
        later: the application acknowledgement as a delivery, or ``None``.
    """

    immediate: bytes | None
    later: NewDelivery | None = None


def keeps_failures(arrival: Arrival, verdict: Verdict) -> bool:
    """Return whether *arrival*, which cannot be applied, is answered AA all the same, and stands in the journal as failed.

    So says the feed's setting ``ack = kept``, for senders that repeat a message for ever that is answered AE: the operator
    has it, and replays it when what was wrong is mended. Never where the message was refused for what it is (AR), has not
    come whole, or could not be written down. A question is not among them, since AA would be taken for its answer.
    """
    if arrival.endpoint is None or arrival.message is None or arrival.error is not None or arrival.is_answer:
        return False
    if is_query(arrival.message) or is_order_query(arrival.message) or is_referral_query(arrival.message):
        return False
    return arrival.endpoint.settings.get("ack") == KEPT and (verdict is FAULT or verdict.outcome == "invalid")


def nowhere(delivery: Delivery, endpoint: MemberEndpoint | None) -> str:
    """Return what is said of *delivery* if it is an acknowledgement whose receiver has no address, else an empty text."""
    if UNANSWERED not in delivery.headers or (endpoint is not None and endpoint.address):
        return ""
    return (
        "拒收通知无处可送：发送方以为消息已被接收；请告知对方，或登记其地址后重发"
        " / The sender believes that its message was taken, and its endpoint has no address for this refusal: tell it,"
        " or give the endpoint an address and replay."
    )


class Acknowledger:
    """Writes acknowledgements."""

    def __init__(self, settings: Settings, directory: Directory) -> None:
        self._settings = settings
        self._directory = directory

    def answer(self, arrival: Arrival, verdict: Verdict, now: datetime, *, processed: bool = True) -> Answer:
        """Return the answers to *arrival*; ``processed=False`` says that the application has not spoken yet."""
        message = arrival.message
        if arrival.is_answer:
            return Answer(immediate=None)
        immediate = immediate_code(message, verdict.outcome)
        application = application_code(message, verdict.outcome) if processed and message is not None else None
        if application is None:
            said = STORED if immediate in {"AA", "CA"} else verdict
            return Answer(immediate=self._write(arrival, immediate, said, now) if immediate else None)
        endpoint = self._address(arrival)
        if immediate is None or endpoint is None:
            return Answer(immediate=self._write(arrival, application, verdict, now))
        return Answer(
            immediate=self._write(arrival, immediate, STORED, now),
            later=self._delivery(arrival, endpoint, self._write(arrival, application, verdict, now)),
        )

    def later(self, arrival: Arrival, verdict: Verdict, now: datetime) -> NewDelivery | None:
        """Return the application acknowledgement of a message that was accepted when it was stored.

        ``None`` where MSH-16 wants none. A sender whose connection has been answered and who has no address holds its
        message for taken; that it is not must not stay between the lines of a log, so the refusal is queued for its
        endpoint all the same, where it becomes a dead letter until the endpoint has an address (:func:`nowhere`).
        """
        if arrival.message is None or arrival.is_answer:
            return None
        application = application_code(arrival.message, verdict.outcome, accepted=True)
        if application is None:
            return None
        endpoint = self._address(arrival)
        if endpoint is None:
            log.warning(
                "acknowledgement_without_address",
                institution=arrival.institution,
                correlation_id=arrival.correlation_id,
                code=application,
            )
            endpoint = arrival.endpoint if application != "AA" else None
        if endpoint is None:
            return None
        return self._delivery(arrival, endpoint, self._write(arrival, application, verdict, now))

    def _address(self, arrival: Arrival) -> MemberEndpoint | None:
        if arrival.endpoint is None:
            return None
        if arrival.endpoint.address:
            return arrival.endpoint
        return self._directory.reach(arrival.endpoint.member, "mllp")

    def _delivery(self, arrival: Arrival, endpoint: MemberEndpoint, payload: bytes) -> NewDelivery:
        return NewDelivery(
            destination=endpoint.id,
            lane=f"{endpoint.id}|acknowledgements",
            kind="mllp",
            payload=payload,
            owner=arrival.institution,
            control_id=arrival.correlation_id,
            content_type="x-application/hl7-v2+er7",
            headers={UNANSWERED: "acknowledgement"},
            correlation_id=arrival.correlation_id,
        )

    def _write(self, arrival: Arrival, code: AckCode, verdict: Verdict, now: datetime) -> bytes:
        dialect = self._directory.dialect(arrival.endpoint)
        text = self._text(arrival, code, verdict, now.astimezone(dialect.zone))
        charset = arrival.decoded.charset
        if codecs.lookup(charset).name == "ascii":
            charset = dialect.charset_out
        try:
            return encode_for(text, charset)
        except UnsupportedError:
            # Characters that could not be read on the way in cannot be written on the way out; MSA-2 is what counts.
            return text.encode(charset, "replace")

    def _text(self, arrival: Arrival, code: AckCode, verdict: Verdict, local: datetime) -> str:
        """Return the answer as text; a master file message is answered record by record once it has been applied."""
        settings, message = self._settings, arrival.message
        control_id = new_correlation_id()[:20]
        if message is not None and arrival.endpoint is not None and code[0] == "A" and mfk.is_master_file(message):
            return mfk.build(
                message,
                replace(self._directory.context(arrival.endpoint), received_at=arrival.received_at),
                code=code,
                control_id=control_id,
                now=local,
                errors=verdict.errors,
                application=settings.sending_application,
                facility=settings.sending_facility,
            )
        return build_ack(
            message,
            code=code,
            control_id=control_id,
            now=local,
            errors=verdict.errors,
            application=settings.sending_application,
            facility=settings.sending_facility,
        )
