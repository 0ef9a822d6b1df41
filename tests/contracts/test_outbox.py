"""What every outbox must do (DESIGN rule 8), on both databases."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hub.acknowledge import UNANSWERED
from hub.acknowledged import ACKNOWLEDGED, AWAITING
from hub.delivery import lane_name, slot_of
from hub.errors import Category, HubError
from hub.ports import Delivery, NewDelivery
from storage.sql.database import SqlDatabase
from tests.support.databases import opened

#: Far enough ahead that what the real clock enqueues is due.
NOW = datetime(2030, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(minutes=10)

Leased = list[tuple[str, int, Delivery]]


def enqueue(database: SqlDatabase, lane: str = "KN/mllp|p1", *, text: str = "MSH", **more: Any) -> int:
    delivery = NewDelivery(
        destination=lane.partition("|")[0], lane=lane, kind="mllp", payload=text.encode(), owner="KN", **more
    )
    return database.write(lambda tx: tx.outbox.enqueue(delivery))


def lease(database: SqlDatabase, *, now: datetime = NOW, limit: int = 10, worker: str = "w", **more: Any) -> Leased:
    return list(database.write(lambda tx: tx.outbox.lease(worker, now=now, lease_s=60, limit=limit, **more)))


def succeed(database: SqlDatabase, leased: tuple[str, int, Delivery], *, now: datetime = NOW) -> bool:
    lane, epoch, delivery = leased
    return database.write(lambda tx: tx.outbox.succeeded(lane, epoch, delivery.id, ack=b"AA", now=now))


def fail(
    database: SqlDatabase,
    leased: tuple[str, int, Delivery],
    *,
    next_at: datetime | None,
    reached: bool = True,
    opens: bool = True,
) -> bool:
    lane, epoch, delivery = leased
    return database.write(
        lambda tx: tx.outbox.failed(
            lane, epoch, delivery.id, error="AE", next_at=next_at, now=NOW, reached=reached, ack=b"MSA|AE", opens=opens
        )
    )


def state(database: SqlDatabase, delivery_id: int) -> str:
    one = database.read(lambda tx: tx.outbox.get(delivery_id))
    assert one is not None
    return str(one.state)


def test_a_delivery_reads_back_as_it_was_enqueued(database: SqlDatabase) -> None:
    number = enqueue(
        database,
        text="郑伟",
        control_id="YX1",
        content_type="x",
        headers={"a": "b"},
        correlation_id="c",
        task_id="t",
        patient_id="p",
        on_ack="deliver",
    )

    one = database.read(lambda tx: tx.outbox.get(number))
    same = database.read(lambda tx: tx.outbox.by_correlation("c"))

    assert (one.state, one.attempts, one.payload.decode(), one.headers) == ("pending", 0, "郑伟", {"a": "b"})
    assert (one.control_id, one.content_type, one.task_id, one.patient_id, one.on_ack) == (
        "YX1", "x", "t", "p", "deliver",
    )  # fmt: skip
    assert same == [one]


def test_a_lane_goes_in_order_with_one_in_flight(database: SqlDatabase) -> None:
    numbers = [enqueue(database) for _ in range(3)]
    sent = []
    for _ in numbers:
        leased = lease(database)
        assert len(leased) == 1
        assert lease(database) == []
        sent.append(leased[0][2].id)
        assert succeed(database, leased[0])

    assert sent == numbers
    assert lease(database) == []
    assert database.read(lambda tx: tx.outbox.lanes()) == []


def test_the_acknowledgement_is_kept(database: SqlDatabase) -> None:
    number = enqueue(database)
    succeed(database, lease(database)[0])

    one = database.read(lambda tx: tx.outbox.get(number))

    assert (one.state, one.ack, one.acked_at, one.attempts) == ("sent", b"AA", NOW, 1)


def test_a_lost_lease_cannot_report(database: SqlDatabase) -> None:
    number = enqueue(database)
    slow = lease(database, worker="slow")[0]
    quick = lease(database, worker="quick", now=LATER)[0]

    assert not succeed(database, slow)
    assert not fail(database, slow, next_at=None)
    assert state(database, number) == "pending"
    assert succeed(database, quick, now=LATER)


def test_a_renewed_lease_is_not_given_to_another(database: SqlDatabase) -> None:
    enqueue(database)
    lease(database, worker="slow")
    database.write(lambda tx: tx.outbox.renew("slow", until=LATER + timedelta(minutes=1)))

    assert lease(database, worker="quick", now=LATER) == []


def test_a_lease_given_back_is_free_at_once(database: SqlDatabase) -> None:
    enqueue(database)
    enqueue(database, "KN/mllp|p2")
    lease(database, worker="one")

    database.write(lambda tx: tx.outbox.give_back("one", lanes=["KN/mllp|p2"]))
    first = lease(database, worker="two")
    database.write(lambda tx: tx.outbox.give_back("one"))
    second = lease(database, worker="two")

    assert [lane for lane, _, _ in first] == ["KN/mllp|p2"]
    assert [lane for lane, _, _ in second] == ["KN/mllp|p1"]


def test_a_failed_attempt_waits_its_time_and_keeps_its_place(database: SqlDatabase) -> None:
    numbers = [enqueue(database), enqueue(database)]
    fail(database, lease(database)[0], next_at=LATER)

    early = lease(database)
    late = lease(database, now=LATER)

    assert early == []
    assert [one.id for _, _, one in late] == numbers[:1]
    assert (late[0][2].attempts, late[0][2].last_error, late[0][2].ack) == (1, "AE", b"MSA|AE")


def test_a_dead_letter_parks_its_own_lane_only(database: SqlDatabase) -> None:
    dead, behind, other = enqueue(database), enqueue(database), enqueue(database, "KN/mllp|p2")
    first, second = sorted(lease(database), key=lambda one: one[0])
    fail(database, first, next_at=None)
    succeed(database, second)

    assert lease(database, now=LATER) == []
    assert [state(database, one) for one in (dead, behind, other)] == ["dead", "pending", "sent"]
    lane = database.read(lambda tx: tx.outbox.lanes())[0]
    assert (lane["state"], lane["depth"], lane["last_error"], lane["head"]) == ("parked", 2, "AE", dead)


def test_what_is_enqueued_behind_a_dead_letter_waits(database: SqlDatabase) -> None:
    enqueue(database)
    fail(database, lease(database)[0], next_at=None)
    enqueue(database)

    assert lease(database, now=LATER) == []


def test_a_replayed_dead_letter_goes_first(database: SqlDatabase) -> None:
    dead, behind = enqueue(database), enqueue(database)
    fail(database, lease(database)[0], next_at=None)

    database.write(lambda tx: tx.outbox.replay(dead, now=NOW))
    again = lease(database)
    succeed(database, again[0])

    assert (again[0][2].id, again[0][2].attempts) == (dead, 0)
    assert lease(database)[0][2].id == behind


def test_a_skipped_dead_letter_lets_the_next_go(database: SqlDatabase) -> None:
    dead, behind = enqueue(database), enqueue(database)
    fail(database, lease(database)[0], next_at=None)

    database.write(lambda tx: tx.outbox.skip(dead, now=NOW, reason="double"))

    assert lease(database)[0][2].id == behind
    assert database.read(lambda tx: tx.outbox.get(dead)).last_error == "skipped: double"


def test_skipping_what_waits_behind_does_not_disturb_what_is_in_flight(database: SqlDatabase) -> None:
    _, behind, last = enqueue(database), enqueue(database), enqueue(database)
    leased = lease(database)[0]

    database.write(lambda tx: tx.outbox.skip(behind, now=NOW, reason="double"))

    assert lease(database) == []
    assert succeed(database, leased)
    assert lease(database)[0][2].id == last


def test_skipping_what_is_in_flight_frees_the_lane_at_its_report(database: SqlDatabase) -> None:
    head, behind = enqueue(database), enqueue(database)
    leased = lease(database)[0]

    database.write(lambda tx: tx.outbox.skip(head, now=NOW, reason="double"))
    during = lease(database)
    fail(database, leased, next_at=LATER)

    assert during == []
    assert state(database, head) == "skipped"
    assert lease(database)[0][2].id == behind


def test_a_skip_keeps_the_wait_of_the_head(database: SqlDatabase) -> None:
    _, behind = enqueue(database), enqueue(database)
    fail(database, lease(database)[0], next_at=LATER)

    database.write(lambda tx: tx.outbox.skip(behind, now=NOW, reason="double"))

    assert lease(database) == []


def test_a_sent_delivery_is_replayed_at_the_end_of_its_lane(database: SqlDatabase) -> None:
    sent = enqueue(database, control_id="YX1")
    succeed(database, lease(database)[0])
    waiting = enqueue(database)

    database.write(lambda tx: tx.outbox.replay(sent, now=NOW))
    first = lease(database)[0]
    succeed(database, first)
    second = lease(database)[0]

    assert first[2].id == waiting
    assert (second[2].control_id, second[2].id > waiting) == ("YX1", True)


@pytest.mark.parametrize("act", ["replay", "skip"])
def test_what_does_not_exist_is_not_found(database: SqlDatabase, act: str) -> None:
    def work(tx: Any) -> None:
        if act == "replay":
            tx.outbox.replay(999, now=NOW)
        else:
            tx.outbox.skip(999, now=NOW, reason="")

    with pytest.raises(HubError) as caught:
        database.write(work)

    assert caught.value.category is Category.NOT_FOUND


def test_a_waiting_delivery_cannot_be_replayed_nor_a_sent_one_skipped(database: SqlDatabase) -> None:
    number = enqueue(database)
    with pytest.raises(HubError) as waiting:
        database.write(lambda tx: tx.outbox.replay(number, now=NOW))
    succeed(database, lease(database)[0])
    with pytest.raises(HubError) as sent:
        database.write(lambda tx: tx.outbox.skip(number, now=NOW, reason=""))

    assert {waiting.value.category, sent.value.category} == {Category.CONFLICT}


def test_a_paused_destination_rests_until_it_is_resumed(database: SqlDatabase) -> None:
    enqueue(database)
    enqueue(database, "QH/mllp|p1")
    database.write(lambda tx: tx.outbox.set_paused("KN/mllp", True))

    paused = [one.destination for _, _, one in lease(database)]
    database.write(lambda tx: tx.outbox.set_paused("KN/mllp", False))
    resumed = [one.destination for _, _, one in lease(database)]

    assert (paused, resumed) == (["QH/mllp"], ["KN/mllp"])


def test_a_destination_that_cannot_be_reached_rests_as_a_whole(database: SqlDatabase) -> None:
    for lane in ("KN/mllp|p1", "KN/mllp|p2", "QH/mllp|p1"):
        enqueue(database, lane)
    fail(database, lease(database, limit=1)[0], next_at=LATER, reached=False)

    others = [lane for lane, _, _ in lease(database)]
    facts = {one["destination"]: one for one in database.read(lambda tx: tx.outbox.destinations())}

    assert others == ["QH/mllp|p1"]
    assert (facts["KN/mllp"]["failures"], facts["KN/mllp"]["depth"]) == (1, 2)
    # Then one of its lanes finds out whether it is there, before the others go.
    [probe, other] = lease(database, now=LATER)
    assert (probe[2].destination, other[0]) == ("KN/mllp", "QH/mllp|p1")
    assert lease(database, now=LATER) == []
    assert database.write(lambda tx: tx.outbox.succeeded(*probe[:2], probe[2].id, ack=b"AA", now=LATER))
    assert [one[2].destination for one in lease(database, now=LATER)] == ["KN/mllp"]


def test_a_destination_that_is_still_away_rests_again_after_one_try(database: SqlDatabase) -> None:
    for patient in ("p1", "p2", "p3"):
        enqueue(database, f"KN/mllp|{patient}")
    fail(database, lease(database, limit=1)[0], next_at=LATER, reached=False)
    [probe] = lease(database, now=LATER)
    fail(database, probe, next_at=LATER + timedelta(minutes=5), reached=False)
    assert lease(database, now=LATER + timedelta(minutes=4)) == []


def test_a_destination_that_was_not_reached_rests_though_its_delivery_is_given_up(database: SqlDatabase) -> None:
    first = enqueue(database, "KN/mllp|p1")
    enqueue(database, "KN/mllp|p2")
    leased = lease(database, limit=1)[0]
    database.write(
        lambda tx: tx.outbox.failed(
            *leased[:2], first, error="away", next_at=None, now=NOW, reached=False, rest_until=LATER
        )
    )
    assert lease(database) == []
    assert [one[0] for one in lease(database, now=LATER)] == ["KN/mllp|p2"]


def test_an_attempt_that_did_not_reach_the_partner_does_not_count(database: SqlDatabase) -> None:
    number = enqueue(database)
    for turn in range(3):
        fail(database, lease(database, now=NOW + timedelta(hours=turn))[0], next_at=NOW, reached=False)

    assert database.read(lambda tx: tx.outbox.get(number)).attempts == 0


def test_a_failure_that_opens_nothing_lets_its_lane_wait_and_no_other(database: SqlDatabase) -> None:
    for patient in ("p1", "p2", "p3"):
        enqueue(database, f"KN/mllp|{patient}")
    fail(database, lease(database, limit=1)[0], next_at=LATER, reached=False, opens=False)

    one = database.read(lambda tx: tx.outbox.destinations())[0]
    assert (one["failures"], one["open_until"], one["last_error"]) == (0, None, "AE")
    assert [lane for lane, _, _ in lease(database)] == ["KN/mllp|p2", "KN/mllp|p3"]


def test_where_the_circuit_is_open_every_failure_to_reach_it_keeps_it_so(database: SqlDatabase) -> None:
    for patient in ("p1", "p2"):
        enqueue(database, f"KN/mllp|{patient}")
    fail(database, lease(database, limit=1)[0], next_at=LATER, reached=False)
    [probe] = lease(database, now=LATER)
    fail(database, probe, next_at=LATER + timedelta(minutes=5), reached=False, opens=False)

    one = database.read(lambda tx: tx.outbox.destinations())[0]
    assert (one["failures"], one["open_until"]) == (2, LATER + timedelta(minutes=5))
    assert lease(database, now=LATER + timedelta(minutes=4)) == []


def test_an_answer_ends_the_row_of_failures_and_the_rest(database: SqlDatabase) -> None:
    enqueue(database)
    fail(database, lease(database)[0], next_at=NOW, reached=False)
    fail(database, lease(database)[0], next_at=LATER, reached=True)

    one = database.read(lambda tx: tx.outbox.destinations())[0]

    assert (one["failures"], one["open_until"]) == (0, None)


def test_a_thousand_lanes_of_one_partner_hide_no_other(database: SqlDatabase) -> None:
    def fill(tx: Any) -> None:
        for number in range(1_000):
            tx.outbox.enqueue(
                NewDelivery(destination="KN/mllp", lane=f"KN/mllp|{number}", kind="mllp", payload=b"", owner="KN")
            )

    database.write(fill)
    enqueue(database, "QH/mllp|p1")

    leased = [one.destination for _, _, one in lease(database, limit=4)]

    assert leased.count("QH/mllp") == 1


def test_a_slow_partner_holds_no_more_than_its_share_of_leases(database: SqlDatabase) -> None:
    for number in range(30):
        enqueue(database, f"KN/mllp|{number}")

    taken = [len(lease(database, worker=f"w{turn}", limit=6)) for turn in range(3)]

    assert taken == [6, 2, 0]


def test_busy_destinations_are_left_alone(database: SqlDatabase) -> None:
    enqueue(database)
    enqueue(database, "QH/mllp|p1")

    assert [one.destination for _, _, one in lease(database, busy={("KN/mllp", "")})] == ["QH/mllp"]


def test_each_slot_of_a_partner_is_busy_for_itself(database: SqlDatabase) -> None:
    report, images = lane_name("KN/mllp", "1.2", slot="commitment"), lane_name("KN/mllp", "p1")
    enqueue(database, report)
    enqueue(database, images)

    assert [lane for lane, _, _ in lease(database, busy={("KN/mllp", "commitment")})] == [images]
    assert [lane for lane, _, _ in lease(database, busy={("KN/mllp", "")})] == [report]


def test_one_slot_takes_no_other_slots_share_of_leases(database: SqlDatabase) -> None:
    for number in range(30):
        enqueue(database, lane_name("KN/mllp", str(number), slot="commitment"))
    # A patient's lane whose name begins like a slot's is a patient's lane.
    images = [lane_name("KN/mllp", "commitment"), lane_name("KN/mllp", "commitments"), lane_name("KN/mllp", "p1")]
    for lane in images:
        enqueue(database, lane)

    held = [slot_of(one) for _, _, one in lease(database, worker="w1", busy={("KN/mllp", "")}, limit=30)]
    taken = [lane for lane, _, _ in lease(database, worker="w2", limit=30)]

    assert held == ["commitment"] * 8
    assert sorted(taken) == images


def test_what_is_due_in_a_slot_is_held_back_with_its_partner(database: SqlDatabase) -> None:
    enqueue(database, lane_name("KN/mllp", "1.2", slot="commitment"))
    database.write(lambda tx: tx.outbox.set_paused("KN/mllp", paused=True))

    assert lease(database) == []


def test_lanes_of_one_partner_take_turns(database: SqlDatabase) -> None:
    for _ in range(3):
        for lane in range(12):
            enqueue(database, f"KN/mllp|{lane:02}")
    served: list[str] = []
    moment = NOW
    while leased := lease(database, now=moment):
        moment += timedelta(seconds=1)
        for one in leased:
            served.append(one[0])
            succeed(database, one, now=moment)

    assert len(served) == 36
    assert set(served[:12]) == {f"KN/mllp|{lane:02}" for lane in range(12)}


def test_two_workers_never_send_the_same_delivery(database: SqlDatabase, database_url: str) -> None:
    numbers = [enqueue(database, f"KN/mllp|{number % 7}") for number in range(60)]
    sent: list[int] = []
    lock = threading.Lock()

    def work(one: SqlDatabase, name: str) -> None:
        idle = 0
        while idle < 20:
            leased = lease(one, worker=name, limit=3)
            idle = 0 if leased else idle + 1
            for item in leased:
                with lock:
                    sent.append(item[2].id)
                assert succeed(one, item)

    with opened(database_url, node="second") as second:
        threads = [threading.Thread(target=work, args=(one, name)) for one, name in ((database, "a"), (second, "b"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert sorted(sent) == numbers
    assert database.read(lambda tx: tx.outbox.lanes()) == []


def test_two_nodes_enqueueing_and_emptying_one_lane_lose_nothing(database: SqlDatabase, database_url: str) -> None:
    made: list[int] = []

    def make(one: SqlDatabase) -> None:
        for _ in range(20):
            made.append(enqueue(one))

    with opened(database_url, node="second") as second:
        threads = [threading.Thread(target=make, args=(one,)) for one in (database, second)]
        for thread in threads:
            thread.start()
        sent: list[int] = []
        while any(thread.is_alive() for thread in threads) or len(sent) < 40:
            for item in lease(database):
                sent.append(item[2].id)
                succeed(database, item)

    assert sorted(sent) == sorted(made)


def test_deliveries_are_found_by_column_newest_first(database: SqlDatabase) -> None:
    first, second = enqueue(database, control_id="A"), enqueue(database, control_id="B")
    fail(database, lease(database)[0], next_at=None)

    def found(**criteria: str) -> list[int]:
        return [one.id for one in database.read(lambda tx: tx.outbox.deliveries(criteria, limit=10))]

    assert found() == [second, first]
    assert found(state="dead") == [first]
    assert found(control_id="B", destination="KN/mllp") == [second]
    with pytest.raises(HubError):
        found(payload="x")


def test_an_outbox_row_goes_with_its_transaction(database: SqlDatabase) -> None:
    def work(tx: Any) -> None:
        tx.outbox.enqueue(NewDelivery(destination="d", lane="l", kind="mllp", payload=b"", owner="KN"))
        raise HubError(Category.INCORRECT, "no")

    with pytest.raises(HubError):
        database.write(work)

    assert database.read(lambda tx: tx.outbox.deliveries({}, limit=9)) == []


def test_deliveries_are_found_by_each_value_that_can_be_asked_for(database: SqlDatabase) -> None:
    keys = {"control_id": "YX1", "correlation_id": "c1", "task_id": "t1", "patient_id": "p1"}
    wanted = enqueue(database, **keys)
    enqueue(database, "YL/fhir|p2")
    criteria = {**keys, "lane": "KN/mllp|p1", "destination": "KN/mllp"}

    def found(asked: dict[str, str]) -> list[int]:
        return [one.id for one in database.read(lambda tx: tx.outbox.deliveries(asked, limit=9))]

    for name, value in criteria.items():
        assert found({name: value, "owner": "KN"}) == [wanted], name
    assert found({**criteria, "kind": "mllp", "state": "pending"}) == [wanted]
    assert found({"task_id": "t1", "owner": "YL"}) == []
    assert found({"state": "sent"}) == found({"state": "no such"}) == []


def test_deliveries_of_one_state_come_newest_first(database: SqlDatabase) -> None:
    numbers = [enqueue(database, f"KN/mllp|p{number}") for number in range(4)]
    succeed(database, lease(database, limit=1)[0])
    fail(database, lease(database, limit=1)[0], next_at=None)
    database.write(lambda tx: tx.outbox.skip(numbers[2], now=NOW, reason="x"))

    def found(state: str, limit: int = 9) -> list[int]:
        return [one.id for one in database.read(lambda tx: tx.outbox.deliveries({"state": state}, limit=limit))]

    states = {one: found(one) for one in ("sent", "dead", "skipped", "pending")}
    assert states == {one: [id_] for one, id_ in zip(states, numbers, strict=True)}
    database.write(lambda tx: tx.outbox.replay(numbers[1], now=NOW))
    assert found("pending") == [numbers[3], numbers[1]]
    assert found("pending", limit=1) == [numbers[3]]


def test_the_state_of_a_destination_counts_what_is_open_in_all_its_lanes(database: SqlDatabase) -> None:
    for lane in ("KN/mllp|p1", "KN/mllp|p1", "KN/mllp|p2", "KN/mllp|p3"):
        enqueue(database, lane)
    enqueue(database, "YL/mllp|p1")
    leased = {lane: (lane, epoch, one) for lane, epoch, one in lease(database)}
    succeed(database, leased["KN/mllp|p3"])
    succeed(database, leased["YL/mllp|p1"])
    fail(database, leased["KN/mllp|p1"], next_at=None)

    found = {one["destination"]: one for one in database.read(lambda tx: tx.outbox.destinations())}

    assert {name: (one["depth"], one["dead"]) for name, one in found.items()} == {"KN/mllp": (3, 1), "YL/mllp": (0, 0)}
    assert found["KN/mllp"]["oldest_at"] is not None
    assert found["YL/mllp"]["oldest_at"] is None


def test_an_acknowledgement_can_be_told_more_of_once_it_is_there(database: SqlDatabase) -> None:
    first, second = enqueue(database, text="1"), enqueue(database, text="2")
    [leased] = lease(database)
    succeed(database, leased)
    for one in (first, second):
        database.write(lambda tx, one=one: tx.outbox.annotate(one, ack=b"AA and more"))
    stored = [database.read(lambda tx, one=one: tx.outbox.get(one)) for one in (first, second)]
    assert [one.ack for one in stored if one is not None] == [b"AA and more", None]


# --- acknowledgements that come by another way -------------------------------------------------------------------


def hand_over(database: SqlDatabase, leased: tuple[str, int, Delivery], *, until: datetime = LATER) -> bool:
    lane, epoch, delivery = leased
    return database.write(lambda tx: tx.outbox.handed_over(lane, epoch, delivery.id, until=until, now=NOW))


def answer(database: SqlDatabase, control_id: str, destination: str = "KN/mllp") -> bool:
    return database.write(lambda tx: tx.outbox.answered(destination, control_id, ack=b"MSA|AA", now=NOW))


def test_what_was_handed_over_waits_without_an_attempt_and_is_due_when_it_is_answered(database: SqlDatabase) -> None:
    number = enqueue(database, control_id="C1")
    enqueue(database, "KN/mllp|p2", control_id="C2")
    first, _ = lease(database)
    assert hand_over(database, first)
    assert [one.id for _, _, one in lease(database)] == []
    assert not answer(database, "C1", "QH/mllp")
    assert not answer(database, "C9")
    assert answer(database, "C1")
    ((_, _, due),) = lease(database)
    assert (due.id, due.attempts, due.ack, due.last_error) == (number, 0, b"MSA|AA", ACKNOWLEDGED)


def test_what_nobody_answers_is_due_when_its_time_has_passed(database: SqlDatabase) -> None:
    enqueue(database, control_id="C1")
    hand_over(database, lease(database)[0])
    assert lease(database, now=LATER - timedelta(seconds=1)) == []
    ((_, _, due),) = lease(database, now=LATER)
    assert due.last_error == AWAITING


def test_what_was_not_handed_over_yet_is_not_answered(database: SqlDatabase) -> None:
    enqueue(database, control_id="C1")
    assert not answer(database, "C1")
    leased = lease(database)[0]
    # On its way it may be: the partner is quicker than the report.
    assert answer(database, "C1")
    assert hand_over(database, leased)
    assert lease(database)[0][2].last_error == ACKNOWLEDGED
    assert not hand_over(database, leased), "that lease is over"


def refuse(database: SqlDatabase, control_id: str, destination: str = "KN/mllp") -> bool:
    return database.write(
        lambda tx: tx.outbox.answered(destination, control_id, ack=b"MSH|^~\\&\rMSA|AR", now=NOW, refuses=True)
    )


def accept(database: SqlDatabase, leased: tuple[str, int, Delivery], *, code: str = "CA") -> bool:
    lane, epoch, delivery = leased
    ack = f"MSH|^~\\&|HIS|KN|YIXIE|HUB|2025||ACK|1|P|2.4\rMSA|{code}|{delivery.control_id}\r".encode()
    return database.write(lambda tx: tx.outbox.succeeded(lane, epoch, delivery.id, ack=ack, now=NOW))


def test_what_was_only_accepted_is_due_again_when_it_is_refused(database: SqlDatabase) -> None:
    number = enqueue(database, control_id="C1")
    accept(database, lease(database)[0])
    assert not answer(database, "C1"), "nothing awaits that it was taken"
    assert not refuse(database, "C1", "QH/mllp")
    assert refuse(database, "C1")
    ((_, _, due),) = lease(database)
    assert (due.id, due.attempts, due.ack, due.last_error) == (number, 1, b"MSH|^~\\&\rMSA|AR", ACKNOWLEDGED)


def test_what_was_taken_for_good_is_not_refused_any_more(database: SqlDatabase) -> None:
    number = enqueue(database, control_id="C1")
    accept(database, lease(database)[0], code="AA")
    assert not refuse(database, "C1")
    assert state(database, number) == "sent"


def test_an_acknowledgement_that_was_sent_is_not_refused(database: SqlDatabase) -> None:
    number = enqueue(database, control_id="C1", headers={UNANSWERED: "1"})
    lane, epoch, delivery = lease(database)[0]
    assert database.write(lambda tx: tx.outbox.succeeded(lane, epoch, delivery.id, ack=b"", now=NOW))
    assert not refuse(database, "C1")
    assert state(database, number) == "sent"


def test_a_refusal_may_be_quicker_than_the_report_that_it_was_accepted(database: SqlDatabase) -> None:
    number = enqueue(database, control_id="C1")
    leased = lease(database)[0]
    assert refuse(database, "C1")
    assert accept(database, leased)
    ((_, _, due),) = lease(database)
    assert (due.id, due.attempts, due.ack, due.last_error) == (number, 1, b"MSH|^~\\&\rMSA|AR", ACKNOWLEDGED)


def test_what_an_application_says_of_an_accepted_delivery_is_kept_behind_the_receipt(database: SqlDatabase) -> None:
    def tell(control_id: str, destination: str = "KN/mllp") -> bool:
        said = f"MSH|^~\\&|HIS|KN|YIXIE|HUB|2025||ACK|2|P|2.4\rMSA|AA|{control_id}\r".encode()
        return database.write(lambda tx: tx.outbox.told(destination, control_id, ack=said))

    number = enqueue(database, control_id="C1")
    leased = lease(database)[0]
    assert not tell("C1"), "nobody has it yet"
    accept(database, leased)
    assert not tell("C1", "QH/mllp")
    assert tell("C1")
    one = database.read(lambda tx: tx.outbox.get(number))
    assert one is not None
    assert one.state == "sent"
    assert [line[:6] for line in (one.ack or b"").split(b"\r") if line[:3] == b"MSA"] == [b"MSA|CA", b"MSA|AA"]
    assert not tell("C1"), "its application has spoken"
    assert not refuse(database, "C1")
    assert state(database, number) == "sent"


def test_a_refusal_that_waits_to_be_judged_is_not_overwritten(database: SqlDatabase) -> None:
    refusal = b"MSH|^~\\&|HIS|KN|YIXIE|HUB|2025||ACK|1|P|2.4\rMSA|AE|C1\r"
    enqueue(database, control_id="C1")
    hand_over(database, lease(database)[0])
    assert database.write(lambda tx: tx.outbox.answered("KN/mllp", "C1", ack=refusal, now=NOW))
    # A worker has the delivery in hand, to read the first answer, when the second comes.
    ((lane, epoch, due),) = lease(database)
    assert due.ack == refusal
    assert answer(database, "C1")
    assert database.write(
        lambda tx: tx.outbox.failed(lane, epoch, due.id, error="The partner answered AE.", next_at=None, now=NOW)
    )
    one = database.read(lambda tx: tx.outbox.get(due.id))
    assert one is not None
    assert (one.state, one.ack) == ("dead", refusal)


def test_handing_over_closes_the_circuit(database: SqlDatabase) -> None:
    enqueue(database)
    fail(database, lease(database)[0], next_at=NOW, reached=False)
    hand_over(database, lease(database)[0])
    one = database.read(lambda tx: tx.outbox.destinations())[0]
    assert (one["failures"], one["open_until"]) == (0, None)
