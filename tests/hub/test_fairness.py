"""Turns by weight and quotas by the minute, without a clock of their own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.fairness import Allowance, FairQueue, interleaved, shares


def test_one_request_waits_for_at_most_one_of_a_sender_that_has_thousands() -> None:
    fair: FairQueue[str] = FairQueue()
    for number in range(5000):
        fair.add("QH", f"QH {number}")
    for _ in range(100):
        fair.take()
    fair.add("KN", "KN")
    taken = [fair.take() for _ in range(2)]
    assert "KN" in taken


def test_a_sender_of_twice_the_weight_is_served_twice_as_often() -> None:
    fair: FairQueue[str] = FairQueue()
    for _ in range(100):
        fair.add("KN", "KN", weight=2)
        fair.add("QH", "QH", weight=1)
    assert [fair.take() for _ in range(90)].count("KN") == 60


def test_what_costs_more_counts_for_more_of_its_senders_share() -> None:
    fair: FairQueue[str] = FairQueue()
    for _ in range(100):
        fair.add("KN", "KN", cost=4)
        fair.add("QH", "QH", cost=1)
    assert [fair.take() for _ in range(50)].count("KN") == 10


def test_silence_gains_no_credit() -> None:
    fair: FairQueue[str] = FairQueue()
    for _ in range(100):
        fair.add("QH", "QH")
    for _ in range(50):
        fair.take()
    for _ in range(100):
        fair.add("KN", "KN")
    # KN has not been served while QH was, and is owed nothing for it: they take turns from here on.
    assert [fair.take() for _ in range(40)].count("QH") == 20


@given(
    st.lists(
        st.tuples(st.sampled_from("ABC"), st.integers(1, 5), st.booleans()),
        max_size=200,
    )
)
def test_everything_is_taken_once_and_each_senders_in_its_order(steps: list[tuple[str, int, bool]]) -> None:
    fair: FairQueue[tuple[str, int]] = FairQueue()
    taken: list[tuple[str, int]] = []
    for number, (key, weight, take) in enumerate(steps):
        fair.add(key, (key, number), weight=weight)
        if take:
            taken.append(fair.take())
    while len(fair):
        taken.append(fair.take())
    assert sorted(taken, key=lambda one: one[1]) == [(key, number) for number, (key, _, _) in enumerate(steps)]
    for name in "ABC":
        of_it = [number for key, number in taken if key == name]
        assert of_it == sorted(of_it)


def test_queues_are_interleaved_by_weight_up_to_the_limit() -> None:
    queues = {"KN": ["k1", "k2", "k3", "k4"], "QH": ["q1", "q2", "q3", "q4"]}
    assert interleaved(queues, {"KN": 1, "QH": 1}, 4) == ["k1", "q1", "k2", "q2"]
    assert interleaved(queues, {"KN": 3, "QH": 1}, 5) == ["k1", "q1", "k2", "k3", "k4"]
    assert interleaved({}, {}, 4) == []


def test_every_sender_has_a_share_however_small_its_weight() -> None:
    assert shares({"KN": 99.0, "QH": 1.0}, 10) == {"KN": 10, "QH": 1}
    assert shares({}, 10) == {}


def used(allowance: Allowance, amount: float, now_s: float) -> float:
    wait_s = allowance.wait_s(amount, now_s)
    allowance.take(amount)
    return wait_s


def test_a_quota_lets_a_minutes_worth_through_and_then_its_rate() -> None:
    allowance = Allowance(60, now_s=0.0)
    assert [used(allowance, 1, 0.0) for _ in range(60)] == [0.0] * 60
    # What is beyond it waits for its place in the order of asking.
    assert [used(allowance, 1, 0.0) for _ in range(3)] == pytest.approx([1.0, 2.0, 3.0])
    # Three seconds pay what is owed, a minute more fills it.
    assert used(allowance, 1, 3.0) == pytest.approx(1.0)
    assert [used(allowance, 1, 64.0) for _ in range(60)] == [0.0] * 60


def test_more_than_a_minutes_worth_goes_when_half_of_it_is_there_and_is_paid_afterwards() -> None:
    allowance = Allowance(60, now_s=0.0)
    assert used(allowance, 300, 0.0) == 0.0
    assert allowance.wait_s(1, 0.0) == pytest.approx(241.0)


def test_what_was_taken_in_vain_is_given_back() -> None:
    allowance = Allowance(60, now_s=0.0)
    allowance.take(90)
    allowance.give_back(90)
    assert allowance.wait_s(30, 0.0) == 0.0
