"""HL7 v2 messages in: written down, translated, applied, answered. HL7 v2 chapter 2.9, DESIGN rules 1, 2, 6 and 9.

One message is one transaction: journal entry with its answer, resources, Provenance, workflow steps, the application
acknowledgement if one travels on its own, and the audit line. Only once that is durable does the answer go back.
The same bytes under the same control id get the stored answer again and change nothing.

A feed with the endpoint setting ``ack = stored`` is answered as soon as its messages are in the journal;
:mod:`hub.pending` translates them later, in order for each sender and patient.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from fhir_mappings.errors import MappingError
from fhir_mappings.hl7v2 import row
from fhir_mappings.hl7v2.ack import AckError, is_ack
from fhir_mappings.hl7v2.batch import is_batch
from fhir_mappings.hl7v2.queries.osq import is_order_query
from fhir_mappings.hl7v2.queries.qbp import is_query
from fhir_mappings.hl7v2.queries.ref_i15 import is_referral_query
from fhir_mappings.hl7v2.translate import check_header
from fhir_mappings.hl7v2.wrapping import why_not_unwrapped, wrapped_batch
from hub import feed_figures, feed_validation
from hub.acknowledge import FAULT, STORED, UNANSWERED, Acknowledger, Answer, Verdict, keeps_failures, refused
from hub.acknowledged import awaited_s, refuses
from hub.actor import Actor
from hub.applying import Applying, log_fault, outcome_of
from hub.arrival import Arrival, read_arrival
from hub.batches import receive_batch
from hub.business_answers import ANSWER_PEER, answers, has_business, states_nothing
from hub.certificates import Line
from hub.errors import HubError
from hub.order_queries import OrderQueries
from hub.patient_queries import PatientQueries
from hub.pending import STORED_FLAG, PendingMessages
from hub.ports import Entry, MemberEndpoint, NewDelivery, Tx
from hub.referral_queries import ReferralQueries
from hub.translate import Applied

if TYPE_CHECKING:
    from hub.boot import Services

log = structlog.get_logger("hub.messages")

_LOCKS = 1024


class MessageService:
    """The intake of HL7 v2, one for each process; safe for many threads."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._acknowledger = Acknowledger(services.settings, services.directory)
        self._applying = Applying(services)
        self._queries = PatientQueries(services)
        self._order_queries = OrderQueries(services)
        self._referral_queries = ReferralQueries(services)
        self._pending = PendingMessages(services, self._acknowledger, self._applying)

    # --- the door's side ---------------------------------------------------------------------------------------

    def receive(
        self,
        raw: bytes,
        peer: str,
        *,
        door: str = "mllp",
        institution_hint: str | None = None,
        line: Line | None = None,
    ) -> bytes | None:
        """Take one message and return its acknowledgement, in the sender's character set, once everything is durable.

        A batch or file of messages (BHS, FHS), bare or in XML, is answered by a batch of acknowledgements (:mod:`hub.batches`).
        ``None`` means that no answer is due: the message is an acknowledgement itself, or its sender wants none.

        Raises:
            HubError: transient, when nothing could be kept; the door closes without an answer and the sender tries
                again. Fatal, when the disk failed.
        """
        if is_batch(raw) or wrapped_batch(raw) is not None:
            return receive_batch(
                self._services, self, raw, peer, door=door, institution_hint=institution_hint, line=line
            )
        arrival = read_arrival(
            raw,
            self._services.directory,
            peer=peer,
            door=door,
            received_at=self._services.clock(),
            institution_hint=institution_hint,
            line=line,
        )
        if arrival.endpoint is None:
            answer = self.turn_away(arrival)
            # Whoever it is from, an acknowledgement is never acknowledged, or two systems would never end.
            return None if arrival.message is not None and is_ack(arrival.message) else answer
        if line is not None:
            self._services.presented_certificates.note(arrival.endpoint.id, line)
        if arrival.message is not None and is_ack(arrival.message):
            self._keep_acknowledgement(arrival)
            return None
        told = self._answer(arrival)
        return None if self._ends_a_wait(arrival) else told

    def _answer(self, arrival: Arrival) -> bytes | None:
        """Do what a known sender's message asks for, and return what it is told."""
        assert arrival.endpoint is not None
        try:
            if arrival.error is not None:
                raise arrival.error
            if arrival.message is not None and is_query(arrival.message):
                return self._queries.answer(arrival)
            if arrival.message is not None and is_order_query(arrival.message):
                return self._order_queries.answer(arrival)
            if arrival.message is not None and is_referral_query(arrival.message):
                return self._referral_queries.answer(arrival)
            if unfit := feed_validation.errors(arrival):
                return self.refuse_arrival(arrival, Verdict(outcome="invalid", errors=unfit))
            if arrival.endpoint.settings.get("ack", "processed") == "stored":
                return self._store(arrival)
            return self._process(arrival)
        except MappingError as error:
            return self._failed(arrival, refused(error))
        except HubError as error:
            if error.transient or error.fatal:
                raise
            return self._failed(arrival, refused(error))
        except Exception as error:  # noqa: BLE001 - whatever a message makes the hub do wrong, its sender is told so
            log_fault(arrival, error)
            return self._failed(arrival, FAULT)

    def _failed(self, arrival: Arrival, verdict: Verdict) -> bytes | None:
        return self.refuse_arrival(arrival, verdict, accepted=keeps_failures(arrival, verdict))

    def receive_answer(self, raw: bytes, *, control_id: str, endpoint: MemberEndpoint) -> None:
        """Take what *endpoint* said to the message *control_id*, if it is more than an acknowledgement; durable on return.

        Like any message of that member it is kept, applied or refused, and known when it comes again. Nobody is answered.

        Raises:
            HubError: transient, when nothing could be kept, or fatal, as :meth:`receive` does.
        """
        if answers(raw, control_id=control_id, endpoint=endpoint):
            self.receive(raw, f"{ANSWER_PEER}{endpoint.id}", institution_hint=endpoint.member)

    def receive_later(self, raw: bytes, endpoint: MemberEndpoint) -> None:
        """Take what *endpoint* said on the hub's connection to a message that it had answered before; durable on return.

        Raises:
            HubError: transient, when nothing could be kept, or fatal, as :meth:`receive` does.
        """
        peer = f"{ANSWER_PEER}{endpoint.id}"
        arrival = read_arrival(
            raw,
            self._services.directory,
            peer=peer,
            door="mllp",
            received_at=self._services.clock(),
            institution_hint=endpoint.member,
        )
        if arrival.message is not None and not has_business(arrival.message):
            # As of an answer that comes at once, the connection says whose it is, whatever names it bears.
            self._keep_acknowledgement(replace(arrival, endpoint=arrival.endpoint or endpoint))
            return
        self.receive(raw, peer, institution_hint=endpoint.member)
        self._services.database.write(lambda tx: self._settle(tx, arrival))

    def refuse(self, head: bytes, peer: str, reason: str, *, door: str = "mllp") -> bytes | None:
        """Return the refusal (AR or CR) of a message of which only *head* arrived, ``None`` if its MSH is unreadable."""
        first = head.lstrip(b"\r\n").replace(b"\n", b"\r").split(b"\r", 1)[0]
        arrival = read_arrival(
            first, self._services.directory, peer=peer, door=door, received_at=self._services.clock()
        )
        if arrival.message is None:
            log.warning("message_broken", peer=peer, reason=reason)
            return None
        error = AckError(location="MSH", code=100, text=f"The message did not arrive whole: {reason}.")
        return self.refuse_arrival(arrival, Verdict(outcome="refused", errors=(error,)))

    def refuse_unkept(self, raw: bytes, peer: str, reason: str, *, line: Line | None = None) -> bytes | None:
        """Return AE 207, or CE in enhanced mode, for a message that the hub does not take now; nothing of it is kept.

        The same message is taken when it is sent again later. ``None`` means that its sender wants no such answer, and
        must be left without one in a way that it cannot take for success.
        """
        arrival = read_arrival(
            raw, self._services.directory, peer=peer, door="mllp", received_at=self._services.clock(), line=line
        )
        error = AckError(location="", code=207, text=reason)
        verdict = Verdict(outcome="unstorable", errors=(error,))
        # The application acknowledgement that could follow is left out: the message was never accepted.
        return self._acknowledger.answer(arrival, verdict, self._services.clock(), processed=False).immediate

    def refuse_arrival(self, arrival: Arrival, verdict: Verdict, *, accepted: bool = False) -> bytes | None:
        """Keep a message that cannot be applied, and return what its sender is told, once that is durable.

        With *accepted* its sender is told that it was taken, and it stands as failed until an operator replays it.
        """
        said = STORED if accepted else verdict
        answer: Answer = self._acknowledger.answer(arrival, said, self._services.clock())
        self._keep_body(arrival)
        state = "failed" if accepted or verdict is FAULT else "refused"
        if states_nothing(arrival.message) and arrival.is_answer and arrival.endpoint is not None:
            # MSA has settled the delivery that it answers, and nobody could mend anything: nothing is refused.
            state = "done"
        kept: list[str] = []

        def work(tx: Tx) -> bytes | None:
            earlier, flags = self._earlier(tx, arrival)
            if earlier is not None:
                return self._again(tx, earlier, arrival, answer)
            tx.journal.append(arrival.entry(state=state, outcome=verdict.reason, ack=answer.immediate, flags=flags))
            kept.append(state)
            if answer.later is not None:
                tx.outbox.enqueue(answer.later)
            failure = "8" if verdict is FAULT else "4"
            self._applying.audit(tx, arrival, Applied(), outcome="0" if state == "done" else failure)
            return answer.immediate

        told = self._services.database.write(work)
        feed_figures.committed(arrival, kept, self._services)
        (log.info if state == "done" else log.warning)(
            "response_kept" if state == "done" else "message_refused",
            institution=arrival.institution,
            message_type=arrival.event,
            peer=arrival.peer,
            correlation_id=arrival.correlation_id,
            codes=[error.code for error in verdict.errors],
        )
        return told

    def turn_away(self, arrival: Arrival) -> bytes | None:
        """Refuse a stranger: journal, audit and log name who it said to be, and nothing is translated."""
        if arrival.message is None:
            # Who writes rows or envelopes has never seen an MSH; what is wrong with those is said.
            if (wrong := why_not_unwrapped(arrival.raw)) is not None:
                return self.refuse_arrival(arrival, refused(wrong))
            error = AckError(location="MSH", code=100, text="The message does not start with a readable MSH segment.")
        else:
            text = "MSH-3 and MSH-4 name no member that may send from this address. Ask the operator to register it."
            if arrival.message.get("MSH-3").strip() == row.APPLICATION:
                # Who pushes rows has never seen an MSH; what the operator has to register is said as well.
                text = row.UNKNOWN_FEED
            error = AckError(location="MSH-4 of segment 1", code=204, text=text)
        return self.refuse_arrival(arrival, Verdict(outcome="refused", errors=(error,)))

    # --- later processing --------------------------------------------------------------------------------------

    def process_pending(self, limit: int) -> int:
        """Process up to *limit* stored messages; see :meth:`hub.pending.PendingMessages.process_pending`."""
        return self._pending.process_pending(limit)

    def leave_pending(self) -> None:
        """Let another node process stored messages; see :meth:`hub.pending.PendingMessages.leave_pending`."""
        self._pending.leave_pending()

    def replay(self, seq: int, actor: Actor) -> str:
        """Process journal entry *seq* again; see :meth:`hub.pending.PendingMessages.replay`."""
        return self._pending.replay(seq, actor)

    # --- the ways through --------------------------------------------------------------------------------------

    def _process(self, arrival: Arrival) -> bytes | None:
        ready = self._applying.ready(arrival)
        answer = self._acknowledger.answer(arrival, STORED, self._services.clock())
        self._keep_body(arrival)
        kept: list[str] = []

        def work(tx: Tx) -> bytes | None:
            earlier, flags = self._earlier(tx, arrival)
            if earlier is not None:
                return self._again(tx, earlier, arrival, answer)
            entry = replace(
                arrival.entry(state="done", ack=answer.immediate, flags=flags),
                patient_id=ready.translation.patient_id or "",
            )
            seq = tx.journal.append(entry)
            kept.append(entry.state)
            feed_validation.afterwards(tx, arrival, seq, self._services.clock())
            applied = self._applying.apply(tx, ready, seq, answer.later)
            outcome = outcome_of(applied)
            if outcome or (applied.patient_id or "") != entry.patient_id:
                tx.journal.finish(seq, state="done", outcome=outcome, patient_id=applied.patient_id or "")
            return answer.immediate

        told = self._applying.write(work)
        feed_figures.committed(arrival, kept, self._services)
        return told

    def _store(self, arrival: Arrival) -> bytes | None:
        assert arrival.message is not None
        check_header(arrival.message)
        arrival.check_processing_id()
        answer = self._acknowledger.answer(arrival, STORED, self._services.clock(), processed=False)
        self._keep_body(arrival)
        kept: list[str] = []

        def work(tx: Tx) -> bytes | None:
            earlier, flags = self._earlier(tx, arrival)
            if earlier is not None:
                return self._again(tx, earlier, arrival, answer)
            flags = (*flags, STORED_FLAG, f"key:{arrival.order_key}")
            seq = tx.journal.append(arrival.entry(state="received", ack=answer.immediate, flags=flags))
            kept.append("received")
            feed_validation.afterwards(tx, arrival, seq, self._services.clock())
            return answer.immediate

        told = self._services.database.write(work)
        feed_figures.committed(arrival, kept, self._services)
        return told

    def _keep_acknowledgement(self, arrival: Arrival) -> None:
        """Write down an acknowledgement that came as a message of its own, for what awaits it; it is never acknowledged."""
        entry = arrival.entry(state="done", outcome="acknowledgement")
        self._keep_body(arrival)

        def work(tx: Tx) -> None:
            tx.journal.append(entry)
            self._settle(tx, arrival)

        self._services.database.write(work)

    def _settle(self, tx: Tx, arrival: Arrival) -> None:
        """Write what an acknowledgement says to the delivery that it answers."""
        endpoint, number, now = arrival.endpoint, arrival.field("MSA-2"), self._services.clock()
        if arrival.is_answer:
            # It came on the connection of the endpoint that was asked, whichever names it bears.
            endpoint = self._services.directory.endpoint(arrival.peer.removeprefix(ANSWER_PEER)) or endpoint
        if endpoint is None or not number or arrival.message is None:
            return
        refused = refuses(arrival.message)
        awaited = refused or awaited_s(endpoint) > 0
        if awaited and tx.outbox.answered(endpoint.id, number, ack=arrival.raw, now=now, refuses=refused):
            return
        if arrival.field("MSA-1").upper() == "AA":
            tx.outbox.told(endpoint.id, number, ack=arrival.raw)

    def _ends_a_wait(self, arrival: Arrival) -> bool:
        """Return whether a delivery waited for *arrival* as for its acknowledgement file; that one is then due to be judged."""
        endpoint, number, now = arrival.endpoint, arrival.field("MSA-2"), self._services.clock()
        if endpoint is None or not number or not awaited_s(endpoint) or arrival.is_answer:
            return False
        if arrival.message is None or not has_business(arrival.message):
            return False
        return self._services.database.write(
            lambda tx: tx.outbox.answered(endpoint.id, number, ack=arrival.raw, now=now)
        )

    def _earlier(self, tx: Tx, arrival: Arrival) -> tuple[Entry | None, tuple[str, ...]]:
        """Return the entry that this message repeats, if any, and the flags for its own entry."""
        control_id = arrival.field("MSH-10")
        if not control_id or arrival.endpoint is None:
            return None, ()
        entry = arrival.entry(state="")
        names = (entry.institution, entry.sending_application, entry.sending_facility, entry.control_id)
        # One lock for many messages keeps the table of locks small; who shares a lock by chance only waits.
        tx.records.lock_condition(f"v2|{zlib.crc32('|'.join(names).encode()) % _LOCKS}")
        known = tx.journal.find_message(
            institution=entry.institution,
            sending_application=entry.sending_application,
            sending_facility=entry.sending_facility,
            control_id=entry.control_id,
        )
        for one in known:
            # What the hub failed at is tried again; every other answer stands.
            settled = one.state != "failed" or STORED_FLAG in one.flags.split()
            if one.state == "refused" and one.peer.startswith(ANSWER_PEER) and not arrival.is_answer:
                # Nobody was told why, and who sends it on a connection of its own is to be.
                settled = False
            if one.digest == arrival.digest and settled:
                return one, ()
        reused = any(one.digest != arrival.digest for one in known)
        return None, ("control-id-reuse",) if reused else ()

    def _again(self, tx: Tx, earlier: Entry, arrival: Arrival, answer: Answer) -> bytes | None:
        """Answer a repeated message as before; an application acknowledgement that travelled on its own goes again."""
        if arrival.is_answer:
            return None
        if earlier.peer.startswith(ANSWER_PEER):
            # It came as an answer first, to which nobody awaited one; on a connection of its own its sender does.
            if answer.later is not None:
                tx.outbox.enqueue(answer.later)
            return answer.immediate
        for delivery in tx.outbox.by_correlation(earlier.correlation_id):
            if UNANSWERED in delivery.headers:
                tx.outbox.enqueue(
                    NewDelivery(**{name: getattr(delivery, name) for name in NewDelivery.__dataclass_fields__})
                )
                break
        log.info("message_repeated", seq=earlier.seq, institution=earlier.institution)
        return earlier.ack

    def _keep_body(self, arrival: Arrival) -> None:
        if arrival.is_large and arrival.endpoint is not None:
            self._services.objects.put_bytes(arrival.raw)
