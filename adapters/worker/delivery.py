"""Hands deliveries to partners: leases lanes, sends their heads, writes down what came of it (DESIGN rule 8).

Theory of operation. One thread leases lanes that are due and gives all lanes of one slot of a destination to one job, so
that a slot (:func:`hub.delivery.slot_of`) has one message in flight and a slow partner costs one thread for each. Where an
endpoint takes several ``connections``, the lanes of its main slot are spread over as many jobs while threads are to spare;
one thread is always left to others. A lane is in one job only, so the order of a patient's messages stays. The result is written with the lease's epoch; a worker that lost its lease cannot disturb the next one. Leases of what is in hand are renewed while the partner
takes its time. A worker that was killed finds its leases again at the next start and ends them, so nothing waits.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

import structlog

from hub import boot, metrics, prior_requests
from hub.acknowledge import UNANSWERED, nowhere
from hub.acknowledged import parts
from hub.actor import HUB
from hub.breaker import BreakerRule, FailuresInARow
from hub.commitment_requests import CommitmentRequests
from hub.delivery import MAIN, Outcome, RetryPolicy, connections_of, slot_of
from hub.errors import HubError
from hub.file_doors import is_file_door
from hub.ports import AuditLine, Delivery, Interruptible, MemberEndpoint, Sender, SendResult, Tx

if TYPE_CHECKING:
    from hub.boot import Services

log = structlog.get_logger("adapters.worker.delivery")

T = TypeVar("T")
Leased = tuple[str, int, Delivery]
#: A destination, and what of it one message at a time goes through.
Slot = tuple[str, str]

#: How long a lane stays with a worker that says nothing more.
LEASE_S = 60.0
#: Lanes taken in one turn.
LANES = 32
_TROUBLE_S = 1.0
#: Slots whose work may take an hour. They have threads of their own, so that no number of them stops the others.
LONG = frozenset({prior_requests.KIND})
FETCH_THREADS = 2
#: Deliveries of which is kept how often they alone were not answered.
_ALONE_KEPT = 10_000


class DeliveryLoop:
    """Delivers until told to stop."""

    def __init__(
        self,
        services: Services,
        *,
        senders: Callable[[str, Services], Sender] = boot.sender,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self._services = services
        self._open_sender = senders
        self._rng = rng
        self._commitment = CommitmentRequests(services)
        self._senders: dict[str, Sender] = {}
        self._ending = False
        self._lock = threading.Lock()
        #: Jobs of each slot that run.
        self._busy: Counter[Slot] = Counter()
        self._unreached: Counter[str] = Counter()
        self._failures = FailuresInARow()
        #: How often each destination answered, and of each delivery that was not answered, how often it was the only
        #: one: the destination's count then, and that number. A restart forgets it, which costs some more attempts.
        self._answered: Counter[str] = Counter()
        self._alone: dict[int, tuple[int, int]] = {}
        self._wake = threading.Event()
        self._renewed = 0.0

    def run(self, stop: threading.Event) -> None:
        """Deliver until *stop* is set, then let the messages in flight finish."""
        threads = self._services.settings.worker_threads
        self._try("end old leases", self._end_old_leases)
        with (
            ThreadPoolExecutor(threads, thread_name_prefix="send") as pool,
            ThreadPoolExecutor(FETCH_THREADS, thread_name_prefix="fetch") as fetch,
        ):
            while not stop.is_set():
                started = self._turn(pool, fetch, threads, stop)
                if not started:
                    self._wake.wait(self._services.settings.worker_poll_s)
                    self._wake.clear()
            self._interrupt()
        for sender in self._senders.values():
            sender.close()

    def turn(self) -> int:
        """Lease what is due, deliver it in this thread, and return how many attempts were made."""
        groups = self._lease(LANES)
        return sum(self._deliver(lanes, threading.Event()) for lanes in groups.values())

    def _turn(self, pool: ThreadPoolExecutor, fetch: ThreadPoolExecutor, threads: int, stop: threading.Event) -> int:
        with self._lock:
            free = threads - sum(jobs for (_, slot), jobs in self._busy.items() if slot not in LONG)
        if free <= 0:
            self._try("renew leases", self._renew)
            return 0
        groups = self._try("lease lanes", lambda: self._lease(LANES)) or {}
        if self._busy:
            self._try("renew leases", self._renew)
        for slot, lanes in groups.items():
            parts = self._parts(slot, lanes, spare=free - len(groups))
            free -= len(parts) - 1
            with self._lock:
                self._busy[slot] += len(parts)
            for part in parts:
                (fetch if slot[1] in LONG else pool).submit(self._job, slot, part, stop)
        return len(groups)

    def _parts(self, slot: Slot, lanes: Sequence[Leased], *, spare: int) -> list[Sequence[Leased]]:
        """Return *lanes* as one list for each connection that may be used; *spare* threads have nothing else to do."""
        # One is left to whatever destination gets something to deliver meanwhile.
        more = min(self._room(slot) - 1, max(0, spare - 1), len(lanes) - 1)
        return [lanes[start :: more + 1] for start in range(more + 1)]

    def _room(self, slot: Slot) -> int:
        """Return how many jobs more may work on *slot*."""
        endpoint = self._services.directory.endpoint(slot[0]) if slot[1] == MAIN else None
        with self._lock:
            return connections_of(endpoint) - self._busy[slot]

    def _lease(self, limit: int) -> dict[Slot, list[Leased]]:
        with self._lock:
            running = [slot for slot, jobs in self._busy.items() if jobs]
        busy = frozenset(slot for slot in running if self._room(slot) <= 0)
        services = self._services
        leased = services.database.write(
            lambda tx: tx.outbox.lease(services.node, now=services.clock(), lease_s=LEASE_S, limit=limit, busy=busy)
        )
        groups: dict[Slot, list[Leased]] = {}
        for one in leased:
            groups.setdefault((one[2].destination, slot_of(one[2])), []).append(one)
        return groups

    def _end_old_leases(self) -> None:
        self._services.database.write(lambda tx: tx.outbox.give_back(self._services.node))

    def _renew(self) -> None:
        if time.monotonic() - self._renewed < LEASE_S / 3:
            return
        self._renewed = time.monotonic()
        until = self._services.clock() + timedelta(seconds=LEASE_S)
        self._services.database.write(lambda tx: tx.outbox.renew(self._services.node, until=until))

    def _job(self, slot: Slot, lanes: Sequence[Leased], stop: threading.Event) -> None:
        destination = slot[0]
        try:
            self._deliver(lanes, stop)
        except HubError as error:
            log.warning("delivery_trouble", destination=destination, category=error.category.value, error=error.message)
            time.sleep(0 if stop.is_set() else _TROUBLE_S)
        except Exception:  # the loop must outlive whatever one delivery meets
            log.exception("delivery_fault", destination=destination)
            time.sleep(0 if stop.is_set() else _TROUBLE_S)
        finally:
            with self._lock:
                self._busy[slot] -= 1
                if not self._busy[slot]:
                    del self._busy[slot]
            self._wake.set()

    def _deliver(self, lanes: Sequence[Leased], stop: threading.Event) -> int:
        left = list(lanes)
        goes_on = True
        while left and goes_on and not stop.is_set():
            lane, epoch, delivery = left.pop(0)
            result, took_s = self._send(delivery)
            goes_on = self._keep(lane, epoch, delivery, result, took_s)
        if left:
            # The destination rests as a whole (or the hub stops), so lanes that were not tried go back as they are.
            names = [lane for lane, _, _ in left]
            self._services.database.write(lambda tx: tx.outbox.give_back(self._services.node, lanes=names))
        return len(lanes) - len(left)

    def _send(self, delivery: Delivery) -> tuple[SendResult, float]:
        endpoint = self._services.directory.endpoint(delivery.destination)
        if lost := nowhere(delivery, endpoint):
            return SendResult(error=lost, permanent=True), 0.0
        if endpoint is None or not endpoint.active or not endpoint.address:
            return SendResult(error="The destination is not an active endpoint with an address.", reached=False), 0.0
        started = time.monotonic()
        try:
            # A v2 endpoint whose address is a folder takes its messages as files.
            by_file = delivery.kind == "mllp" and is_file_door(endpoint.address)
            result = self._sender("folder" if by_file else delivery.kind).send(delivery, endpoint)
        except HubError as error:
            result = SendResult(error=error.message, reached=not error.transient)
        except Exception as error:  # a fault of ours counts as an attempt, so that it ends as a dead letter
            log.exception("sender_fault", kind=delivery.kind, delivery=delivery.id)
            result = SendResult(error=f"The hub met an internal error ({type(error).__name__}).")
        return result, time.monotonic() - started

    def _sender(self, kind: str) -> Sender:
        with self._lock:
            if kind not in self._senders:
                self._senders[kind] = self._open_sender(kind, self._services)
            sender = self._senders[kind]
            if self._ending and isinstance(sender, Interruptible):
                sender.interrupt()
            return sender

    def _interrupt(self) -> None:
        """Let work that may take long end, now and where it is about to begin."""
        with self._lock:
            self._ending = True
            for sender in self._senders.values():
                if isinstance(sender, Interruptible):
                    sender.interrupt()

    def _keep(self, lane: str, epoch: int, delivery: Delivery, result: SendResult, took_s: float) -> bool:
        """Write down what came of an attempt; returns whether its destination may be tried with another one now."""
        services = self._services
        now = services.clock()
        endpoint = services.directory.endpoint(delivery.destination)
        policy = RetryPolicy.of(services.settings, endpoint)
        verdict = policy.judge(
            result,
            attempts=delivery.attempts,
            failures=self._unreached[delivery.destination],
            rng=self._rng,
            age_s=(now - delivery.created_at).total_seconds(),
            alone=self._was_alone(delivery, result),
        )
        if verdict.outcome is not Outcome.RETRY:
            self._hear(delivery, endpoint, result)
        opens = False
        with self._lock:
            if result.reached:
                self._unreached.pop(delivery.destination, None)
                self._failures.answered(delivery.destination)
            else:
                self._unreached[delivery.destination] += 1
                opens = self._failures.failed(delivery.destination, BreakerRule.of(endpoint), now.timestamp())
        later = now + timedelta(seconds=verdict.wait_s)
        rested = now + timedelta(seconds=verdict.rest_s)

        def work(tx: Tx) -> bool:
            kept = written(tx)
            if kept and delivery.kind == prior_requests.KIND and result.ack:
                # Those that came are shown, whatever is said of the others.
                services.tasks.on_priors(tx, delivery, result.ack)
            return kept

        def written(tx: Tx) -> bool:
            if verdict.outcome is Outcome.SENT:
                if not tx.outbox.succeeded(lane, epoch, delivery.id, ack=result.ack, now=now):
                    return False
                tx.audit.write(_line(delivery, recorded_at=now))
                if delivery.on_ack:
                    services.tasks.on_delivered(tx, delivery)
                self._commitment.delivered(tx, delivery)
                return True
            if result.awaits_s:
                return tx.outbox.handed_over(lane, epoch, delivery.id, until=later, now=now)
            return tx.outbox.failed(
                lane,
                epoch,
                delivery.id,
                error=result.error,
                next_at=None if verdict.outcome is Outcome.DEAD else later,
                rest_until=None if result.reached else rested,
                now=now,
                reached=result.reached,
                ack=result.ack,
                opens=opens,
            )

        kept = services.database.write(work)
        self._tell(delivery, result, verdict.outcome, kept, took_s)
        return not opens

    def _hear(self, delivery: Delivery, endpoint: MemberEndpoint | None, result: SendResult) -> None:
        """Receive what a partner answered in place of an acknowledgement; durable on return, before the delivery is settled."""
        if delivery.kind == "mllp" and endpoint is not None and result.ack and UNANSWERED not in delivery.headers:
            for answer in parts(result.ack):
                self._services.messages.receive_answer(answer, control_id=delivery.control_id, endpoint=endpoint)

    def _was_alone(self, delivery: Delivery, result: SendResult) -> int:
        """Return how often *delivery* had found nobody before while others were answered, and count this attempt."""
        destination = delivery.destination
        with self._lock:
            if result.reached:
                self._answered[destination] += 1
                self._alone.pop(delivery.id, None)
                return 0
            if len(self._alone) >= _ALONE_KEPT:
                self._alone.clear()
            answered = self._answered[destination]
            before, alone = self._alone.get(delivery.id, (answered, 0))
            alone += answered > before
            self._alone[delivery.id] = (answered, alone)
            return alone

    def _tell(self, delivery: Delivery, result: SendResult, outcome: Outcome, kept: bool, took_s: float) -> None:
        metrics.count("deliveries", destination=delivery.destination, outcome=outcome.value if kept else "lease-lost")
        if result.reached:
            metrics.observe("delivery", took_s, kind=delivery.kind)
        if kept and outcome is Outcome.SENT:
            waited = (self._services.clock() - delivery.created_at).total_seconds()
            metrics.observe("queue_to_ack", max(0.0, waited), destination=delivery.destination)
        facts = {
            "delivery": delivery.id,
            "destination": delivery.destination,
            "correlation_id": delivery.correlation_id,
            "control_id": delivery.control_id,
        }
        if not kept:
            log.warning("lease_lost", **facts)
        elif outcome is Outcome.SENT:
            log.info("delivered", took_ms=round(took_s * 1000), **facts)
        elif outcome is Outcome.DEAD:
            log.error("dead_letter", error=result.error, attempts=delivery.attempts + 1, **facts)
        elif result.awaits_s:
            log.info("handed_over", awaits_s=result.awaits_s, **facts)
        elif result.reached or self._unreached[delivery.destination] == 1:
            # A partner that stays away is told of once; after that the queue's age speaks.
            log.warning("delivery_failed", error=result.error, reached=result.reached, **facts)

    def _try(self, what: str, work: Callable[[], T]) -> T | None:
        try:
            return work()
        except HubError as error:
            log.warning("delivery_trouble", doing=what, category=error.category.value, error=error.message)
        except Exception:  # as above
            log.exception("delivery_fault", doing=what)
        self._wake.wait(_TROUBLE_S)
        return None


def _line(delivery: Delivery, *, recorded_at: datetime) -> AuditLine:
    """Return the audit line of patient data that left."""
    return AuditLine(
        type="delivery",
        action="R",
        subtype=delivery.kind,
        actor=HUB,
        recorded_at=recorded_at,
        patients=((delivery.owner, delivery.patient_id),) if delivery.patient_id else (),
        entities=(f"Task/{delivery.task_id}",) if delivery.task_id else (),
        correlation_id=delivery.correlation_id,
        detail=f"delivery {delivery.id} to {delivery.destination}",
    )
