"""HL7 v2 messages in: written down, translated, applied, answered. HL7 v2 chapter 2.9, DESIGN rules 1, 2, 6 and 9.

One message is one transaction: journal entry with its answer, resources, Provenance, workflow steps, the application
acknowledgement if one travels on its own, and the audit line. Only once that is durable does the answer go back.
The same bytes under the same control id get the stored answer again and change nothing.

A feed with the endpoint setting ``ack = stored`` is answered as soon as its messages are in the journal;
:meth:`MessageService.process_pending` translates them later, in order for each sender and patient. A message that the
hub itself cannot process parks its own key, and the feed goes on.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import structlog

from fhir_mappings.errors import MappingError
from fhir_mappings.hl7v2.ack import AckError, is_ack
from fhir_mappings.hl7v2.base import Translation
from fhir_mappings.hl7v2.batch import is_batch
from fhir_mappings.hl7v2.context import MappingContext
from fhir_mappings.hl7v2.translate import check_header, translate
from hub.acknowledge import FAULT, STORED, UNANSWERED, Acknowledger, Answer, Verdict, refused
from hub.actor import Actor
from hub.arrival import Arrival, read_arrival
from hub.batches import BATCHES, receive_batch
from hub.errors import Category, HubError
from hub.ports import AuditLine, Entry, NewDelivery, ObjectRef, Tx
from hub.translate import Applied, Context, apply, store_attachments

if TYPE_CHECKING:
    from hub.boot import Services

T = TypeVar("T")

log = structlog.get_logger("hub.messages")

#: Doors whose messages may wait for :meth:`MessageService.process_pending`.
DOORS = ("mllp", "hl7-http")
#: Mark of journal entries that were answered before they were processed; the order key follows it.
_STORED_FLAG = "stored"
#: Lanes of stored messages that are worked on at a time. More gain nothing, as the interpreter runs one of them, but
#: share one commit, which then keeps the doors waiting for their turn to write.
_WORKERS = 2
#: States in which a stored message has not got its application acknowledgement yet.
_UNTOLD = frozenset({"received", "failed"})
_PARKED_MAX = 10_000
_LOCKS = 1024
#: Name of the right to process stored messages, which one node at a time has.
_LEASE = "pending-messages"
#: How long that right stays with a node that says nothing more.
_LEASE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ready:
    """A message whose translation is at hand, before the transaction."""

    arrival: Arrival
    translation: Translation
    mapping: MappingContext
    attachments: dict[str, ObjectRef]


#: Begins a transaction; raises where it must not go on.
_Guard = Callable[[Tx], None]


def _free(_: Tx) -> None:
    """Let every transaction go on."""


class MessageService:
    """The intake of HL7 v2, one for each process; safe for many threads."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._acknowledger = Acknowledger(services.settings, services.directory)
        self._pending = threading.Lock()
        #: Epoch of this node's lease on stored messages, ``None`` without one.
        self._epoch: int | None = None

    # --- the door's side ---------------------------------------------------------------------------------------

    def receive(
        self, raw: bytes, peer: str, *, door: str = "mllp", institution_hint: str | None = None
    ) -> bytes | None:
        """Take one message and return its acknowledgement, in the sender's character set, once everything is durable.

        A batch or file of messages (BHS, FHS) is answered by a batch of acknowledgements (:mod:`hub.batches`).
        ``None`` means that no answer is due: the message is an acknowledgement itself, or its sender wants none.

        Raises:
            HubError: transient, when nothing could be kept; the door closes without an answer and the sender tries
                again. Fatal, when the disk failed.
        """
        if is_batch(raw):
            return receive_batch(self._services, self, raw, peer, door=door, institution_hint=institution_hint)
        arrival = read_arrival(
            raw,
            self._services.directory,
            peer=peer,
            door=door,
            received_at=self._services.clock(),
            institution_hint=institution_hint,
        )
        if arrival.endpoint is None:
            return self.turn_away(arrival)
        if arrival.message is not None and is_ack(arrival.message):
            self._keep_acknowledgement(arrival)
            return None
        try:
            if arrival.error is not None:
                raise arrival.error
            if arrival.endpoint.settings.get("ack", "processed") == "stored":
                return self._store(arrival)
            return self._process(arrival)
        except MappingError as error:
            return self.refuse_arrival(arrival, refused(error))
        except HubError as error:
            if error.transient or error.fatal:
                raise
            return self.refuse_arrival(arrival, refused(error))
        except Exception as error:  # noqa: BLE001 - whatever a message makes the hub do wrong, its sender is told so
            _log_fault(arrival, error)
            return self.refuse_arrival(arrival, FAULT)

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

    # --- later processing --------------------------------------------------------------------------------------

    def process_pending(self, limit: int) -> int:
        """Process up to *limit* messages that are stored and answered; return how many were finished.

        One sender's messages about one patient are taken in the order they came, on whichever node: one at a time
        does this, and a second caller, here or elsewhere, returns at once. The right to do it is a lease in the
        database, which each message's transaction makes sure of and renews; a node that says nothing for a minute
        loses it to the next that asks.

        Raises:
            HubError: transient, when a message could not be put aside, because the database cannot work now or another
                node has taken over; nothing of that message is kept.
        """
        if not self._pending.acquire(blocking=False):
            return 0
        try:
            if not self._may_process():
                return 0
            lanes: dict[str, list[Entry]] = {}
            for entry in self._waiting(limit):
                lanes.setdefault(_order_key(entry), []).append(entry)
            if not lanes:
                return 0
            parked = self._parked()
            guard = self._guard(self._epoch)
            with ThreadPoolExecutor(min(_WORKERS, len(lanes)), thread_name_prefix="v2-pending") as pool:
                done = pool.map(lambda item: self._run_lane(item[1], item[0] in parked, guard), lanes.items())
                return sum(done)
        finally:
            self._pending.release()

    def leave_pending(self) -> None:
        """Let another node process stored messages at once; for a node that stops.

        Raises:
            HubError: transient, when the database cannot be told; the lease then ends by itself.
        """
        with self._pending:
            epoch, self._epoch = self._epoch, None
            if epoch is not None:
                self._services.database.write(lambda tx: tx.timers.release(_LEASE, epoch))

    def _may_process(self) -> bool:
        """Return whether something waits that this node may process, having taken the lease if that was free."""
        services = self._services
        if self._epoch is None:
            # Looked at first, so that nodes with nothing to do leave the database's writer alone.
            now = services.clock()
            holder = services.database.read(lambda tx: tx.timers.leased(_LEASE, now=now))
            if holder not in {"", services.node} or not self._waiting(1):
                return False
            try:
                self._epoch = services.database.write(
                    lambda tx: tx.timers.lease(_LEASE, services.node, now=now, lease_s=_LEASE_S)
                )
            except HubError as error:
                if not error.transient:
                    raise
                log.warning("pending_messages_wait", category=error.category.value)
        return self._epoch is not None

    def _guard(self, epoch: int | None) -> _Guard:
        def check(tx: Tx) -> None:
            held = epoch is not None and tx.timers.hold(_LEASE, epoch, now=self._services.clock(), lease_s=_LEASE_S)
            if not held:
                self._epoch = None
                raise HubError(Category.INTERRUPTED, "Another node processes stored messages now.")

        return check

    def replay(self, seq: int, actor: Actor) -> str:
        """Process journal entry *seq* again, whatever its state, and return its new outcome.

        Success also releases the messages that wait behind it. Durable on return; applying a message again changes
        nothing that already stands.

        Raises:
            HubError: not-found; or why it still cannot be processed, after that has been written to the journal.
        """
        entry = self._services.database.read(lambda tx: tx.journal.get(seq))
        if entry is None or entry.door not in DOORS:
            raise HubError(Category.NOT_FOUND, f"There is no HL7 v2 message {seq}.", where=f"message {seq}")
        if entry.message_type in BATCHES:
            raise HubError(
                Category.INCORRECT,
                "批文件不完整，须由发送方重发 / This is a batch that did not come whole; only its sender can mend it.",
                where=f"message {seq}",
                remedy="Let the sender send it again.",
            )
        now = self._services.clock()

        def audit(tx: Tx) -> None:
            tx.audit.write(
                AuditLine(
                    type="admin",
                    action="E",
                    subtype="message-replay",
                    actor=actor,
                    recorded_at=now,
                    correlation_id=entry.correlation_id,
                    detail=f"message {seq}",
                )
            )

        self._services.database.write(audit)
        failure = self._run_one(entry, states=None)
        if failure is not None:
            raise failure
        key = _order_key(entry)

        def release(tx: Tx) -> str:
            behind = [
                one for one in tx.journal.search({"state": "failed"}, limit=_PARKED_MAX) if _order_key(one) == key
            ]
            for one in behind if key.startswith(_STORED_FLAG) else ():
                tx.journal.finish(one.seq, state="received", outcome="")
            again = tx.journal.get(seq)
            return again.outcome if again is not None else ""

        return self._services.database.write(release)

    def _waiting(self, limit: int) -> list[Entry]:
        def read(tx: Tx) -> list[Entry]:
            found = [entry for door in DOORS for entry in tx.journal.pending(door=door, limit=limit)]
            return sorted(found, key=lambda entry: entry.seq)[:limit]

        return self._services.database.read(read)

    def _parked(self) -> set[str]:
        failed = self._services.database.read(lambda tx: tx.journal.search({"state": "failed"}, limit=_PARKED_MAX))
        return {key for entry in failed if (key := _order_key(entry)).startswith(_STORED_FLAG)}

    def _run_lane(self, entries: Sequence[Entry], parked: bool, guard: _Guard) -> int:
        done = 0
        for entry in entries:
            if parked:
                self._park(entry, "waits behind an earlier message that failed", guard)
                continue
            failure = self._run_one(entry, states=frozenset({"received"}), guard=guard)
            if failure is None or not (failure.transient or failure.fatal):
                done += 1
                parked = failure is not None and failure.category is Category.FAULT
                continue
            log.warning("pending_message_waits", seq=entry.seq, category=failure.category.value)
            break
        return done

    def _park(self, entry: Entry, outcome: str, guard: _Guard) -> None:
        def work(tx: Tx) -> None:
            guard(tx)
            tx.journal.finish(entry.seq, state="failed", outcome=outcome)

        self._services.database.write(work)

    def _run_one(self, entry: Entry, *, states: frozenset[str] | None, guard: _Guard = _free) -> HubError | None:
        """Process *entry* and write what came of it; return why it was not applied, ``None`` when it was."""
        try:
            arrival = self._arrival_of(entry)
            try:
                self._apply_later(entry, arrival, states, guard)
            except MappingError as error:
                self._finish_refused(entry, arrival, refused(error), guard)
                return HubError(
                    Category.INCORRECT, error.message, where=error.where, remedy=error.remedy, code=error.code
                )
            except HubError as error:
                if error.transient or error.fatal or error.category is Category.FAULT:
                    raise
                self._finish_refused(entry, arrival, refused(error), guard)
                return error
        except HubError as error:
            if not (error.transient or error.fatal):
                self._park(entry, error.message, guard)
            return error
        except Exception as error:  # noqa: BLE001 - a message that breaks the hub must not stop the feed behind it
            _log_fault(entry, error)
            self._park(entry, f"internal error ({type(error).__name__})", guard)
            return HubError(Category.FAULT, "The hub met an internal error.", where=f"message {entry.seq}")
        return None

    def _arrival_of(self, entry: Entry) -> Arrival:
        """Return *entry* as it came; raises HubError(fault) when its bytes or its sender are gone."""
        services = self._services
        body = entry.body if entry.body is not None else services.objects.read(entry.digest)
        arrival = read_arrival(
            body,
            services.directory,
            peer=entry.peer,
            door=entry.door,
            received_at=entry.received_at,
            institution_hint=entry.institution,
            correlation_id=entry.correlation_id,
        )
        if arrival.endpoint is None:
            raise HubError(
                Category.FAULT,
                "The sender of this message is no member now.",
                where="MSH-4",
                remedy="Register the member, then replay the message.",
            )
        return arrival

    def _finish_refused(self, entry: Entry, arrival: Arrival, verdict: Verdict, guard: _Guard) -> None:
        later = self._later(entry, arrival, verdict)

        def work(tx: Tx) -> None:
            guard(tx)
            current = tx.journal.get(entry.seq)
            tx.journal.finish(entry.seq, state="refused", outcome=verdict.reason)
            if later is not None and current is not None and current.state in _UNTOLD:
                tx.outbox.enqueue(later)
            self._audit(tx, arrival, Applied(), outcome="4")

        self._services.database.write(work)
        log.warning("message_refused", seq=entry.seq, institution=entry.institution, message_type=entry.message_type)

    def _later(self, entry: Entry, arrival: Arrival, verdict: Verdict) -> NewDelivery | None:
        """Return the application acknowledgement that *entry* still waits for if it was answered when it was stored."""
        if _STORED_FLAG not in entry.flags.split():
            return None
        return self._acknowledger.later(arrival, verdict, self._services.clock())

    def _apply_later(self, entry: Entry, arrival: Arrival, states: frozenset[str] | None, guard: _Guard) -> None:
        if arrival.error is not None:
            raise arrival.error
        ready = self._ready(arrival)
        later = self._later(entry, arrival, STORED)

        def work(tx: Tx) -> None:
            guard(tx)
            current = tx.journal.get(entry.seq)
            if current is None or (states is not None and current.state not in states):
                return
            applied = self._apply(tx, ready, entry.seq, later if current.state in _UNTOLD else None)
            tx.journal.finish(entry.seq, state="done", outcome=_outcome(applied), patient_id=applied.patient_id or "")

        self._write_anew_on_conflict(work)

    # --- the ways through --------------------------------------------------------------------------------------

    def _ready(self, arrival: Arrival) -> _Ready:
        assert arrival.message is not None
        assert arrival.endpoint is not None
        arrival.check_processing_id()
        directory = self._services.directory
        mapping = replace(directory.context(arrival.endpoint), received_at=arrival.received_at)
        translation = translate(arrival.message, mapping)
        return _Ready(
            arrival=arrival,
            translation=translation,
            mapping=mapping,
            attachments=store_attachments(self._services.objects, translation),
        )

    def _process(self, arrival: Arrival) -> bytes | None:
        ready = self._ready(arrival)
        answer = self._acknowledger.answer(arrival, STORED, self._services.clock())
        self._keep_body(arrival)

        def work(tx: Tx) -> bytes | None:
            earlier, flags = self._earlier(tx, arrival)
            if earlier is not None:
                return self._again(tx, earlier)
            entry = replace(
                arrival.entry(state="done", ack=answer.immediate, flags=flags),
                patient_id=ready.translation.patient_id or "",
            )
            seq = tx.journal.append(entry)
            applied = self._apply(tx, ready, seq, answer.later)
            outcome = _outcome(applied)
            if outcome or (applied.patient_id or "") != entry.patient_id:
                tx.journal.finish(seq, state="done", outcome=outcome, patient_id=applied.patient_id or "")
            return answer.immediate

        return self._write_anew_on_conflict(work)

    def _write_anew_on_conflict(self, work: Callable[[Tx], T]) -> T:
        try:
            return self._services.database.write(work)
        except HubError as error:
            if error.category is not Category.CONFLICT:
                raise
            # Another node wrote one of the same resources first; on its result the message is judged anew.
            return self._services.database.write(work)

    def _store(self, arrival: Arrival) -> bytes | None:
        assert arrival.message is not None
        check_header(arrival.message)
        arrival.check_processing_id()
        answer = self._acknowledger.answer(arrival, STORED, self._services.clock(), processed=False)
        self._keep_body(arrival)

        def work(tx: Tx) -> bytes | None:
            earlier, flags = self._earlier(tx, arrival)
            if earlier is not None:
                return self._again(tx, earlier)
            flags = (*flags, _STORED_FLAG, f"key:{arrival.order_key}")
            tx.journal.append(arrival.entry(state="received", ack=answer.immediate, flags=flags))
            return answer.immediate

        return self._services.database.write(work)

    def refuse_arrival(self, arrival: Arrival, verdict: Verdict) -> bytes | None:
        """Keep a message that cannot be applied, and return what its sender is told, once that is durable."""
        answer: Answer = self._acknowledger.answer(arrival, verdict, self._services.clock())
        self._keep_body(arrival)
        state = "failed" if verdict is FAULT else "refused"

        def work(tx: Tx) -> bytes | None:
            earlier, flags = self._earlier(tx, arrival)
            if earlier is not None:
                return self._again(tx, earlier)
            tx.journal.append(arrival.entry(state=state, outcome=verdict.reason, ack=answer.immediate, flags=flags))
            if answer.later is not None:
                tx.outbox.enqueue(answer.later)
            self._audit(tx, arrival, Applied(), outcome="8" if verdict is FAULT else "4")
            return answer.immediate

        told = self._services.database.write(work)
        log.warning(
            "message_refused",
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
            error = AckError(location="MSH", code=100, text="The message does not start with a readable MSH segment.")
        else:
            text = "MSH-3 and MSH-4 name no member that may send from this address. Ask the operator to register it."
            error = AckError(location="MSH-4 of segment 1", code=204, text=text)
        return self.refuse_arrival(arrival, Verdict(outcome="refused", errors=(error,)))

    def _keep_acknowledgement(self, arrival: Arrival) -> None:
        """Write down an acknowledgement that came as a message of its own; it is never acknowledged."""
        entry = arrival.entry(state="done", outcome="acknowledgement")
        self._keep_body(arrival)
        self._services.database.write(lambda tx: tx.journal.append(entry))

    # --- inside the transaction --------------------------------------------------------------------------------

    def _apply(self, tx: Tx, ready: _Ready, seq: int, later: NewDelivery | None) -> Applied:
        arrival = ready.arrival
        # A partner's answer belongs to the request it answers, which another institution owns.
        translation = self._services.tasks.relinked(tx, ready.translation, arrival.institution)
        applied = apply(
            tx,
            translation,
            Context(
                owner=arrival.institution,
                base=ready.mapping.base,
                journal_seq=seq,
                correlation_id=arrival.correlation_id,
                now=self._services.clock(),
                repairs=_repairs(arrival),
            ),
            ready.attachments,
        )
        self._services.imaging.match_orders(tx, applied.changed, owner=arrival.institution)
        if translation.workflow_events:
            self._services.tasks.on_message_events(
                tx, translation, actor=arrival.actor, correlation_id=arrival.correlation_id
            )
        if later is not None:
            tx.outbox.enqueue(later)
        self._audit(tx, arrival, applied)
        return applied

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
            settled = one.state != "failed" or _STORED_FLAG in one.flags.split()
            if one.digest == arrival.digest and settled:
                return one, ()
        reused = any(one.digest != arrival.digest for one in known)
        return None, ("control-id-reuse",) if reused else ()

    def _again(self, tx: Tx, earlier: Entry) -> bytes | None:
        """Answer a repeated message as before; an application acknowledgement that travelled on its own goes again."""
        for delivery in tx.outbox.by_correlation(earlier.correlation_id):
            if UNANSWERED in delivery.headers:
                tx.outbox.enqueue(
                    NewDelivery(**{name: getattr(delivery, name) for name in NewDelivery.__dataclass_fields__})
                )
                break
        log.info("message_repeated", seq=earlier.seq, institution=earlier.institution)
        return earlier.ack

    def _audit(self, tx: Tx, arrival: Arrival, applied: Applied, outcome: str = "0") -> None:
        tx.audit.write(
            AuditLine(
                type="hl7v2",
                action="C" if outcome == "0" else "E",
                subtype=arrival.event,
                actor=arrival.actor,
                recorded_at=self._services.clock(),
                outcome=outcome,
                patients=((arrival.institution, applied.patient_id),) if applied.patient_id else (),
                entities=applied.changed[:100],
                correlation_id=arrival.correlation_id,
            )
        )

    def _keep_body(self, arrival: Arrival) -> None:
        if arrival.is_large and arrival.endpoint is not None:
            self._services.objects.put_bytes(arrival.raw)


def _order_key(entry: Entry) -> str:
    flags = entry.flags.split()
    key = next((flag for flag in flags if flag.startswith("key:")), "")
    return f"{_STORED_FLAG} {key}" if _STORED_FLAG in flags else f"seq:{entry.seq}"


def _outcome(applied: Applied) -> str:
    notes = []
    if applied.superseded:
        notes.append(f"superseded-on-arrival: {', '.join(applied.superseded[:20])}")
    warnings = [issue for issue in applied.issues if issue.severity == "warning"]
    notes += [f"{issue.where}: {issue.message}" for issue in warnings[:20]]
    return "; ".join(notes)


def _repairs(arrival: Arrival) -> tuple[str, ...]:
    decoded = arrival.decoded
    if decoded.flagged or decoded.disagrees:
        declared = decoded.declared or "not valued"
        return (f"Text read as {decoded.charset} on the evidence '{decoded.evidence}'; MSH-18 was {declared}.",)
    return ()


def _log_fault(subject: Arrival | Entry, error: Exception) -> None:
    # The text of an unforeseen error may quote the message, so only its kind and place are logged.
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace else ""
    log.error(
        "message_fault",
        institution=subject.institution,
        correlation_id=subject.correlation_id,
        error=type(error).__name__,
        place=place,
    )
