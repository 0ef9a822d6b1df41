"""Whatever order outages and messages come in: an open circuit is left in peace, a half-open one is tried once, others go on."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from adapters.worker.delivery import DeliveryLoop
from hub.boot import Services
from hub.delivery import circuit
from hub.ports import Delivery, MemberEndpoint, NewDelivery, SendResult
from tests.support.hub import SetClock, register
from tests.support.services import running

KN = MemberEndpoint(id="KN/mllp", member="KN", kind="mllp", address="127.0.0.1:1")
QH = MemberEndpoint(id="QH/mllp", member="QH", kind="mllp", address="127.0.0.1:2")
FAILURES = 3


class Outages(RuleBasedStateMachine):
    """KN is away and comes back; QH is always there."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = SetClock()
        self.context = running(self.folder, clock=self.clock)
        self.services: Services = self.context.__enter__()
        rule_of_kn = {"breaker": f"failures={FAILURES} window-s=86400"}
        register(self.services, replace(KN, settings=rule_of_kn), QH)
        self.away = False
        self.in_a_row = 0
        self.sent: list[Delivery] = []
        self.delivered: dict[str, list[int]] = {}
        self.queued: dict[str, list[int]] = {}
        self.loop = DeliveryLoop(self.services, senders=lambda *_: self, rng=lambda: 1.0)

    def send(self, delivery: Delivery, endpoint: MemberEndpoint) -> SendResult:
        self.sent.append(delivery)
        if endpoint.id == KN.id and self.away:
            self.in_a_row += 1
            return SendResult(error="connection refused", reached=False)
        if endpoint.id == KN.id:
            self.in_a_row = 0
        self.delivered.setdefault(delivery.lane, []).append(delivery.id)
        return SendResult(ack=b"AA")

    def close(self) -> None:
        """Nothing is held."""

    def enqueue(self, destination: str, patient: int) -> None:
        lane = f"{destination}|p{patient}"
        new = NewDelivery(destination=destination, lane=lane, kind="mllp", payload=b"m", owner="KN")
        number = self.services.database.write(lambda tx: tx.outbox.enqueue(new))
        self.queued.setdefault(lane, []).append(number)

    def of_kn(self) -> dict[str, Any]:
        found = self.services.database.read(lambda tx: tx.outbox.destinations())
        return next((dict(one) for one in found if one["destination"] == KN.id), {"failures": 0, "open_until": None})

    @rule(patient=st.integers(0, 5))
    def something_for_kn(self, patient: int) -> None:
        self.enqueue(KN.id, patient)

    @rule(away=st.booleans())
    def kn_goes_or_comes(self, away: bool) -> None:
        self.away = away

    @rule(seconds=st.sampled_from([0.5, 2.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.forward(seconds)

    @rule()
    def the_worker_turns(self) -> None:
        self.enqueue(QH.id, 0)
        before = circuit(self.of_kn(), self.clock.now)
        row = self.in_a_row
        self.sent.clear()
        self.loop.turn()
        to_kn = [one for one in self.sent if one.destination == KN.id]
        # QH got what was for it in this very turn, whatever became of KN.
        assert self.delivered[f"{QH.id}|p0"] == self.queued[f"{QH.id}|p0"]
        if before == "open":
            assert to_kn == []
        elif before == "half-open":
            assert len(to_kn) <= 1
        elif self.away:
            assert len(to_kn) <= FAILURES - row

    @invariant()
    def the_circuit_is_open_after_so_many_failures_and_not_before(self) -> None:
        expected = {"open", "half-open"} if self.in_a_row >= FAILURES else {"closed"}
        assert circuit(self.of_kn(), self.clock.now) in expected

    @invariant()
    def every_lane_is_in_order_and_nothing_is_sent_twice(self) -> None:
        for lane, delivered in self.delivered.items():
            assert delivered == self.queued[lane][: len(delivered)]

    def teardown(self) -> None:
        self.away = False
        for _ in range(40):
            self.clock.forward(400.0)
            while self.loop.turn():
                pass
        assert self.delivered == self.queued
        self.context.__exit__(None, None, None)
        shutil.rmtree(self.folder)


def test_whatever_order_outages_and_messages_come_in() -> None:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        Outages,
        settings=settings(max_examples=12, stateful_step_count=25, deadline=None, suppress_health_check=checks),
    )
