"""Messages that were answered when they were stored: translated later, in the order they came, and replayed on demand.

DESIGN rules 1 and 8: one sender's messages about one patient keep their order on whichever node; a message that the hub
itself cannot process parks its own key, and the feed goes on. Members take turns by their weights
(:mod:`hub.intake_policy`), so that what one of them has sent in bulk does not keep the others waiting.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import structlog

from fhir_mappings.errors import MappingError
from hub import feed_figures
from hub.acknowledge import STORED, Acknowledger, Verdict, refused
from hub.actor import Actor
from hub.applying import Applying, log_fault, outcome_of
from hub.arrival import Arrival, read_arrival
from hub.batches import BATCHES
from hub.errors import Category, HubError
from hub.fairness import interleaved, shares
from hub.intake_policy import policy_of
from hub.ports import AuditLine, Entry, NewDelivery, Tx
from hub.translate import Applied

if TYPE_CHECKING:
    from hub.boot import Services

log = structlog.get_logger("hub.pending")

#: Doors whose messages may wait to be processed.
DOORS = ("mllp", "hl7-http", "hl7-folder", "hl7-view")
#: Message types, and events, that ask and state nothing (:mod:`hub.query_answers`).
QUERIES = ("QBP", "QCN", "OSQ", "REF^I15")
#: Mark of journal entries that were answered before they were processed; the order key follows it.
STORED_FLAG = "stored"
#: Lanes of stored messages that are worked on at a time. More gain nothing, as the interpreter runs one of them, but
#: share one commit, which then keeps the doors waiting for their turn to write.
_WORKERS = 2
#: States in which a stored message has not got its application acknowledgement yet.
_UNTOLD = frozenset({"received", "failed"})
#: Name of the right to process stored messages, which one node at a time has.
_LEASE = "pending-messages"
#: How long that right stays with a node that says nothing more.
_LEASE_S = 60.0

#: Begins a transaction; raises where it must not go on.
_Guard = Callable[[Tx], None]


def _free(_: Tx) -> None:
    """Let every transaction go on."""


class PendingMessages:
    """The worker's side of the intake, one for each process; safe for many threads."""

    def __init__(self, services: Services, acknowledger: Acknowledger, applying: Applying) -> None:
        self._services = services
        self._acknowledger = acknowledger
        self._applying = applying
        self._pending = threading.Lock()
        #: Epoch of this node's lease on stored messages, ``None`` without one.
        self._epoch: int | None = None

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
                lanes.setdefault(_order_key(entry.flags, entry.seq), []).append(entry)
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
        if entry.message_type.startswith(QUERIES):
            raise HubError(
                Category.INCORRECT,
                "查询只在提问的连接上应答 / A query is answered on the connection that asks, and nowhere else.",
                where=f"message {seq}",
                remedy="Let the sender ask again.",
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
        # No node takes the stored messages of the same patient while this one is applied.
        failure = self._run_one(entry, states=None, guard=lambda tx: tx.timers.beside(_LEASE))
        if failure is not None:
            raise failure
        key = _order_key(entry.flags, entry.seq)

        def release(tx: Tx) -> str:
            if key.startswith(STORED_FLAG):
                behind = [flags for flags in tx.journal.failed_flags() if _order_key(flags) == key]
                for one in tx.journal.failed_with(behind):
                    tx.journal.finish(one, state="received", outcome="")
            again = tx.journal.get(seq)
            return again.outcome if again is not None else ""

        return self._services.database.write(release)

    def _waiting(self, limit: int) -> list[Entry]:
        """Return up to *limit* messages, each sender's in order, the senders in turn by their weights."""
        members = {one.code: one for one in self._services.directory.members()}

        def read(tx: Tx) -> list[Entry]:
            weights = {
                one: float(policy_of(members[one].settings).weight) if one in members else 1.0
                for one in tx.journal.senders_waiting()
            }
            queues = {
                one: tx.journal.pending_from(one, doors=DOORS, limit=share)
                for one, share in shares(weights, limit).items()
            }
            return interleaved(queues, weights, limit)

        return self._services.database.read(read)

    def _parked(self) -> set[str]:
        # However many are parked, only their flags are read: what they say is of no use here.
        failed = self._services.database.read(lambda tx: tx.journal.failed_flags())
        return {key for flags in failed if (key := _order_key(flags)).startswith(STORED_FLAG)}

    def _run_lane(self, entries: Sequence[Entry], parked: bool, guard: _Guard) -> int:
        done = 0
        for entry in entries:
            if parked:
                self._park(entry, "waits behind an earlier message that failed", guard)
                feed_figures.processed(entry, "failed", self._services)
                continue
            failure = self._run_one(entry, states=frozenset({"received"}), guard=guard)
            if failure is None or not (failure.transient or failure.fatal):
                faulty = failure is not None and failure.category is Category.FAULT
                state = "done" if failure is None else "failed" if faulty else "refused"
                feed_figures.processed(entry, state, self._services)
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
            log_fault(entry, error)
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
            self._applying.audit(tx, arrival, Applied(), outcome="4")

        self._services.database.write(work)
        log.warning("message_refused", seq=entry.seq, institution=entry.institution, message_type=entry.message_type)

    def _later(self, entry: Entry, arrival: Arrival, verdict: Verdict) -> NewDelivery | None:
        """Return the application acknowledgement that *entry* still waits for if it was answered when it was stored."""
        if STORED_FLAG not in entry.flags.split():
            return None
        return self._acknowledger.later(arrival, verdict, self._services.clock())

    def _apply_later(self, entry: Entry, arrival: Arrival, states: frozenset[str] | None, guard: _Guard) -> None:
        if arrival.error is not None:
            raise arrival.error
        ready = self._applying.ready(arrival)
        later = self._later(entry, arrival, STORED)

        def work(tx: Tx) -> None:
            guard(tx)
            current = tx.journal.get(entry.seq)
            if current is None or (states is not None and current.state not in states):
                return
            applied = self._applying.apply(
                tx,
                ready,
                entry.seq,
                later if current.state in _UNTOLD else None,
                again=current.state == "done",
            )
            tx.journal.finish(entry.seq, state="done", outcome=outcome_of(applied), patient_id=applied.patient_id or "")

        self._applying.write(work)


def _order_key(flags: str, seq: int = 0) -> str:
    """Return what keeps its order, by the *flags* of an entry; one that was not answered when stored is numbered *seq*."""
    marks = flags.split()
    key = next((mark for mark in marks if mark.startswith("key:")), "")
    return f"{STORED_FLAG} {key}" if STORED_FLAG in marks else f"seq:{seq}"
