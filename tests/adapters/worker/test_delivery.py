"""The delivery loop over a real outbox: order, retries, dead letters, crashes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from adapters.worker.delivery import LEASE_S, DeliveryLoop
from hub.acknowledge import UNANSWERED
from hub.boot import Services
from hub.delivery import circuit
from hub.ports import Delivery, MemberEndpoint, NewDelivery, Sender, SendResult
from tests.support.hub import SetClock, register

KN = MemberEndpoint(id="KN/mllp", member="KN", kind="mllp", address="127.0.0.1:1")
#: Left in peace after its first failure.
AT_ONCE = replace(KN, settings={"breaker": "failures=1"})
QH = MemberEndpoint(id="QH/mllp", member="QH", kind="mllp", address="127.0.0.1:2")

Answer = Callable[[Delivery], SendResult]


class Partner:
    """A sender whose partner answers as the test says, and that remembers what it was sent."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.sent: list[bytes] = []

    def send(self, delivery: Delivery, endpoint: MemberEndpoint) -> SendResult:
        self.sent.append(delivery.payload)
        return self.answer(delivery)

    def close(self) -> None:
        pass


def accepts(delivery: Delivery) -> SendResult:
    return SendResult(ack=b"AA " + delivery.payload)


def away(_: Delivery) -> SendResult:
    return SendResult(error="connection refused", reached=False)


def loop(services: Services, partner: Partner) -> DeliveryLoop:
    def opened(kind: str, _: Services) -> Sender:
        return partner

    return DeliveryLoop(services, senders=opened, rng=lambda: 1.0)


def enqueue(services: Services, payload: bytes, *, patient: str = "p1", destination: str = "KN/mllp") -> int:
    return services.database.write(
        lambda tx: tx.outbox.enqueue(
            NewDelivery(
                destination=destination,
                lane=f"{destination}|{patient}",
                kind="mllp",
                payload=payload,
                owner="KN",
                patient_id=patient,
                correlation_id="c1",
            )
        )
    )


def state(services: Services, delivery_id: int) -> Delivery:
    found = services.database.read(lambda tx: tx.outbox.get(delivery_id))
    assert found is not None
    return found


def test_a_lane_is_delivered_in_order_and_the_acknowledgement_kept(hub_services: Services) -> None:
    register(hub_services, KN)
    ids = [enqueue(hub_services, f"m{n}".encode()) for n in range(3)]
    partner = Partner(accepts)
    worker = loop(hub_services, partner)
    while worker.turn():
        pass
    assert partner.sent == [b"m0", b"m1", b"m2"]
    assert [state(hub_services, one).ack for one in ids] == [b"AA m0", b"AA m1", b"AA m2"]
    assert {state(hub_services, one).state for one in ids} == {"sent"}


def test_every_delivery_leaves_an_audit_line_about_the_patient(sqlite_services: Services) -> None:
    register(sqlite_services, KN)
    enqueue(sqlite_services, b"m")
    loop(sqlite_services, Partner(accepts)).turn()
    [event] = sqlite_services.database.read(
        lambda tx: tx.audit.search({"patient": "p1"}, institution="KN", limit=10, before=None)
    )
    assert event["resourceType"] == "AuditEvent"


def test_a_partner_that_is_away_for_days_loses_nothing(sqlite_services: Services, set_clock: SetClock) -> None:
    register(sqlite_services, KN)
    first, second = enqueue(sqlite_services, b"m0"), enqueue(sqlite_services, b"m1")
    partner = Partner(away)
    worker = loop(sqlite_services, partner)
    for _ in range(40):
        worker.turn()
        set_clock.forward(sqlite_services.settings.retry_longest_s + 1)
    assert state(sqlite_services, first).state == "pending"
    assert state(sqlite_services, first).attempts == 0
    partner.answer = accepts
    partner.sent.clear()
    while worker.turn():
        pass
    assert partner.sent == [b"m0", b"m1"]
    assert state(sqlite_services, second).state == "sent"


def test_a_partner_that_is_away_is_left_in_peace_until_its_time(sqlite_services: Services, set_clock: SetClock) -> None:
    register(sqlite_services, AT_ONCE)
    enqueue(sqlite_services, b"m0", patient="p1")
    enqueue(sqlite_services, b"m1", patient="p2")
    partner = Partner(away)
    worker = loop(sqlite_services, partner)
    worker.turn()
    worker.turn()
    assert len(partner.sent) == 1
    set_clock.forward(sqlite_services.settings.retry_first_s)
    worker.turn()
    assert len(partner.sent) == 2


def test_a_partner_that_is_away_does_not_hold_up_another(sqlite_services: Services) -> None:
    register(sqlite_services, KN, QH)
    enqueue(sqlite_services, b"to KN")
    other = enqueue(sqlite_services, b"to QH", destination="QH/mllp")
    partner = Partner(lambda one: away(one) if one.destination == "KN/mllp" else accepts(one))
    loop(sqlite_services, partner).turn()
    assert state(sqlite_services, other).state == "sent"


def test_a_refused_message_parks_its_own_lane_only(hub_services: Services) -> None:
    register(hub_services, KN)
    bad, behind = enqueue(hub_services, b"bad"), enqueue(hub_services, b"behind")
    other = enqueue(hub_services, b"other", patient="p2")
    partner = Partner(
        lambda one: (
            SendResult(ack=b"AR", error="The partner answered AR.", permanent=True)
            if one.payload == b"bad"
            else accepts(one)
        )
    )
    worker = loop(hub_services, partner)
    while worker.turn():
        pass
    assert state(hub_services, bad).state == "dead"
    assert state(hub_services, bad).ack == b"AR"
    assert state(hub_services, behind).state == "pending"
    assert state(hub_services, other).state == "sent"
    hub_services.database.write(lambda tx: tx.outbox.skip(bad, now=hub_services.clock(), reason="test"))
    while worker.turn():
        pass
    assert state(hub_services, behind).state == "sent"


def test_application_errors_are_tried_a_few_times_then_parked(sqlite_services: Services, set_clock: SetClock) -> None:
    register(sqlite_services, KN)
    one = enqueue(sqlite_services, b"m")
    partner = Partner(lambda _: SendResult(ack=b"AE", error="The partner answered AE."))
    worker = loop(sqlite_services, partner)
    for _ in range(10):
        worker.turn()
        set_clock.forward(sqlite_services.settings.retry_longest_s + 1)
    assert state(sqlite_services, one).state == "dead"
    assert len(partner.sent) == sqlite_services.settings.retry_attempts


def test_a_sender_that_breaks_ends_as_a_dead_letter_and_not_as_a_loop(
    sqlite_services: Services, set_clock: SetClock
) -> None:
    register(sqlite_services, KN)
    one = enqueue(sqlite_services, b"m")

    def broken(_: Delivery) -> SendResult:
        raise KeyError("patient name that must not be logged")

    worker = loop(sqlite_services, Partner(broken))
    for _ in range(10):
        worker.turn()
        set_clock.forward(sqlite_services.settings.retry_longest_s + 1)
    assert state(sqlite_services, one).state == "dead"
    assert state(sqlite_services, one).last_error == "The hub met an internal error (KeyError)."


def test_a_destination_without_an_address_waits_for_one(sqlite_services: Services, set_clock: SetClock) -> None:
    register(sqlite_services, replace(KN, address=""))
    one = enqueue(sqlite_services, b"m")
    partner = Partner(accepts)
    worker = loop(sqlite_services, partner)
    worker.turn()
    assert partner.sent == []
    register(sqlite_services, KN)
    set_clock.forward(sqlite_services.settings.retry_longest_s)
    worker.turn()
    assert state(sqlite_services, one).state == "sent"


def test_a_refusal_that_has_nowhere_to_go_is_a_dead_letter_until_there_is_an_address(sqlite_services: Services) -> None:
    register(sqlite_services, replace(KN, address=""))
    refusal = NewDelivery(
        destination="KN/mllp", lane="KN/mllp|acknowledgements", kind="mllp", payload=b"MSA|AE|1", owner="KN",
        headers={UNANSWERED: "acknowledgement"},
    )  # fmt: skip
    one = sqlite_services.database.write(lambda tx: tx.outbox.enqueue(refusal))
    waiting = enqueue(sqlite_services, b"m")
    partner = Partner(accepts)
    worker = loop(sqlite_services, partner)
    worker.turn()
    found = state(sqlite_services, one)
    assert (found.state, partner.sent) == ("dead", [])
    assert "no address" in found.last_error
    # What else is for that endpoint waits as before.
    worker.turn()
    assert state(sqlite_services, waiting).state == "pending"
    register(sqlite_services, KN)
    sqlite_services.database.write(lambda tx: tx.outbox.set_paused("KN/mllp", False))
    sqlite_services.database.write(lambda tx: tx.outbox.replay(one, now=sqlite_services.clock()))
    worker.turn()
    assert state(sqlite_services, one).state == "sent"


def test_a_paused_destination_is_not_sent_to_until_it_is_resumed(sqlite_services: Services) -> None:
    register(sqlite_services, KN)
    enqueue(sqlite_services, b"m")
    partner = Partner(accepts)
    worker = loop(sqlite_services, partner)
    sqlite_services.database.write(lambda tx: tx.outbox.set_paused("KN/mllp", True))
    assert worker.turn() == 0
    sqlite_services.database.write(lambda tx: tx.outbox.set_paused("KN/mllp", False))
    assert worker.turn() == 1


def test_a_worker_that_died_while_sending_sends_again_after_its_start(hub_services: Services) -> None:
    register(hub_services, KN)
    one = enqueue(hub_services, b"m")
    now = hub_services.clock()
    # The process that leased this lane is gone; another one would wait for the lease to end.
    hub_services.database.write(lambda tx: tx.outbox.lease("test", now=now, lease_s=LEASE_S, limit=1))
    partner = Partner(accepts)
    worker = loop(hub_services, partner)
    assert worker.turn() == 0
    stop = threading.Event()
    delivered = threading.Event()

    def answer(delivery: Delivery) -> SendResult:
        delivered.set()
        return accepts(delivery)

    partner.answer = answer
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    try:
        assert delivered.wait(20)
    finally:
        stop.set()
        thread.join(20)
    assert state(hub_services, one).state == "sent"


def test_a_worker_that_lost_its_lease_does_not_disturb_the_next(sqlite_services: Services, set_clock: SetClock) -> None:
    register(sqlite_services, KN)
    one = enqueue(sqlite_services, b"m")

    def slow(delivery: Delivery) -> SendResult:
        # While this sender dawdles, its lease ends and another worker takes the lane.
        set_clock.forward(LEASE_S + 1)
        now = sqlite_services.clock()
        assert sqlite_services.database.write(lambda tx: tx.outbox.lease("other", now=now, lease_s=LEASE_S, limit=1))
        return accepts(delivery)

    loop(sqlite_services, Partner(slow)).turn()
    assert state(sqlite_services, one).state == "pending"


@pytest.mark.parametrize("threads", [1, 4])
def test_the_loop_delivers_all_lanes_and_stops(sqlite_services: Services, threads: int) -> None:
    register(sqlite_services, KN, QH)
    wanted = 24
    for n in range(wanted):
        enqueue(sqlite_services, f"m{n}".encode(), patient=f"p{n % 5}", destination=("KN/mllp", "QH/mllp")[n % 2])
    seen: list[bytes] = []
    done = threading.Event()

    def answer(delivery: Delivery) -> SendResult:
        seen.append(delivery.payload)
        if len(seen) == wanted:
            done.set()
        return accepts(delivery)

    services = replace(
        sqlite_services, settings=sqlite_services.settings.model_copy(update={"worker_threads": threads})
    )
    stop = threading.Event()
    thread = threading.Thread(target=loop(services, Partner(answer)).run, args=(stop,))
    thread.start()
    try:
        assert done.wait(30)
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()
    assert sorted(seen) == sorted(f"m{n}".encode() for n in range(wanted))


# --- what an endpoint says of itself ---------------------------------------------------------------------------------


def test_a_delivery_older_than_its_destination_wants_becomes_a_dead_letter(
    sqlite_services: Services, set_clock: SetClock
) -> None:
    register(sqlite_services, replace(KN, settings={"retry": "max-age-s=3600 longest-s=60", "breaker": "failures=1"}))
    old, young = enqueue(sqlite_services, b"old"), None
    partner = Partner(away)
    worker = loop(sqlite_services, partner)
    worker.turn()
    assert state(sqlite_services, old).state == "pending"
    set_clock.forward(3600)
    young = enqueue(sqlite_services, b"young", patient="p2")
    partner.sent.clear()
    worker.turn()
    # One try is made in any case; then nobody tries the others of a destination that is away.
    assert (partner.sent, state(sqlite_services, old).state) == ([b"old"], "dead")
    worker.turn()
    assert partner.sent == [b"old"]
    partner.answer = accepts
    set_clock.forward(61)
    worker.turn()
    assert (state(sqlite_services, young).state, state(sqlite_services, old).state) == ("sent", "dead")
    # Nothing was dropped: it goes when an operator says so.
    now = sqlite_services.clock()
    sqlite_services.database.write(lambda tx: tx.outbox.replay(old, now=now))
    worker.turn()
    assert state(sqlite_services, old).state == "sent"


def test_an_endpoint_says_how_often_it_is_tried(sqlite_services: Services, set_clock: SetClock) -> None:
    register(sqlite_services, replace(KN, settings={"retry": "attempts=2"}))
    one = enqueue(sqlite_services, b"m")
    partner = Partner(lambda _: SendResult(ack=b"AE", error="The partner answered AE."))
    worker = loop(sqlite_services, partner)
    for _ in range(5):
        worker.turn()
        set_clock.forward(sqlite_services.settings.retry_longest_s + 1)
    assert (len(partner.sent), state(sqlite_services, one).state) == (2, "dead")


def test_after_an_outage_one_message_is_tried_and_every_patients_order_is_kept(
    hub_services: Services, set_clock: SetClock
) -> None:
    register(hub_services, AT_ONCE, QH)
    partner = Partner(lambda one: away(one) if one.destination == "KN/mllp" else accepts(one))
    worker = loop(hub_services, partner)
    for number in range(6):
        enqueue(hub_services, f"p{number % 3} {number}".encode(), patient=f"p{number % 3}")
    for _ in range(4):
        partner.sent.clear()
        other = enqueue(hub_services, b"to QH", destination="QH/mllp")
        worker.turn()
        # Its probe costs the others nothing.
        assert state(hub_services, other).state == "sent"
        assert len([one for one in partner.sent if one != b"to QH"]) == 1
        set_clock.forward(hub_services.settings.retry_longest_s + 1)
    partner.answer = accepts
    partner.sent.clear()
    assert worker.turn() == 1
    while worker.turn():
        pass
    assert len(partner.sent) == 6
    for patient in (b"p0", b"p1", b"p2"):
        of_it = [one for one in partner.sent if one.startswith(patient)]
        assert of_it == sorted(of_it)


def test_a_message_at_which_its_partner_falls_silent_parks_its_own_lane_and_the_others_go_on(
    sqlite_services: Services, set_clock: SetClock
) -> None:
    register(sqlite_services, KN)
    poison, behind = enqueue(sqlite_services, b"poison"), enqueue(sqlite_services, b"behind")
    partner = Partner(lambda one: away(one) if one.payload == b"poison" else accepts(one))
    worker = loop(sqlite_services, partner)
    others = []
    for number in range(12):
        others.append(enqueue(sqlite_services, b"other", patient=f"p{number + 2}"))
        worker.turn()
        worker.turn()
        set_clock.forward(sqlite_services.settings.retry_longest_s + 1)
    worker.turn()
    assert {state(sqlite_services, one).state for one in others} == {"sent"}
    assert (state(sqlite_services, poison).state, state(sqlite_services, behind).state) == ("dead", "pending")
    assert partner.sent.count(b"poison") <= 2 * sqlite_services.settings.retry_attempts


def running(services: Services, partner: Partner) -> tuple[threading.Thread, threading.Event]:
    stop = threading.Event()
    thread = threading.Thread(target=loop(services, partner).run, args=(stop,))
    thread.start()
    return thread, stop


def test_an_endpoint_of_several_connections_gets_several_patients_messages_at_once_each_in_order(
    sqlite_services: Services,
) -> None:
    register(sqlite_services, replace(KN, settings={"connections": 3}), QH)
    for number in range(60):
        enqueue(sqlite_services, f"{number % 6} {number:02}".encode(), patient=f"p{number % 6}")
    met = threading.Barrier(3)
    all_there = threading.Event()
    flying: set[str] = set()
    twice: list[str] = []
    lock = threading.Lock()
    arrived: list[bytes] = []

    def answer(delivery: Delivery) -> SendResult:
        with lock:
            if delivery.lane in flying:
                twice.append(delivery.lane)
            flying.add(delivery.lane)
            arrived.append(delivery.payload)
            first = len(arrived) <= 3
        if first:
            # Passed only when three messages are in flight at the same time.
            met.wait(20)
        with lock:
            flying.discard(delivery.lane)
            if len(arrived) == 60:
                all_there.set()
        return accepts(delivery)

    services = replace(sqlite_services, settings=sqlite_services.settings.model_copy(update={"worker_threads": 5}))
    thread, stop = running(services, Partner(answer))
    try:
        assert all_there.wait(30)
    finally:
        stop.set()
        thread.join(20)
    assert (twice, met.broken) == ([], False)
    for patient in range(6):
        of_it = [one for one in arrived if one.startswith(b"%d " % patient)]
        assert of_it == sorted(of_it)


def test_many_connections_to_one_destination_leave_a_thread_to_the_others(sqlite_services: Services) -> None:
    register(sqlite_services, replace(KN, settings={"connections": 8}), QH)
    for number in range(16):
        enqueue(sqlite_services, b"to KN", patient=f"p{number}")
    stuck, delivered = threading.Event(), threading.Event()
    begun = threading.Event()

    def answer(delivery: Delivery) -> SendResult:
        if delivery.destination == "QH/mllp":
            delivered.set()
        else:
            begun.set()
            assert stuck.wait(30)
        return accepts(delivery)

    thread, stop = running(sqlite_services, Partner(answer))
    try:
        assert begun.wait(20)
        enqueue(sqlite_services, b"to QH", destination="QH/mllp")
        assert delivered.wait(20)
    finally:
        stuck.set()
        stop.set()
        thread.join(20)


def test_one_failure_delays_nobody_and_the_third_in_a_row_opens_the_circuit(
    hub_services: Services, set_clock: SetClock
) -> None:
    register(hub_services, KN)
    for number in range(5):
        enqueue(hub_services, f"m{number}".encode(), patient=f"p{number}")
    failures = [b"m0"]
    partner = Partner(lambda one: away(one) if one.payload in failures else accepts(one))
    worker = loop(hub_services, partner)
    worker.turn()
    assert partner.sent == [b"m0", b"m1", b"m2", b"m3", b"m4"]

    failures += [f"n{number}".encode() for number in range(5)]
    for number in range(5):
        enqueue(hub_services, f"n{number}".encode(), patient=f"p{number + 1}")
    partner.sent.clear()
    worker.turn()
    worker.turn()
    assert partner.sent == [b"n0", b"n1", b"n2"]
    (told,) = hub_services.database.read(lambda tx: tx.outbox.destinations())
    assert circuit(told, set_clock.now) == "open"
    # After its rest one is tried, whoever tries it: another worker has counted nothing.
    set_clock.forward(hub_services.settings.retry_longest_s)
    partner.sent.clear()
    loop(hub_services, partner).turn()
    assert len(partner.sent) == 1
    (told,) = hub_services.database.read(lambda tx: tx.outbox.destinations())
    assert circuit(told, set_clock.now) == "open"
