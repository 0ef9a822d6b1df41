"""The retry policy is a pure decision."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.delivery import Outcome, RetryPolicy, asks_for
from hub.ports import MemberEndpoint, SendResult

POLICY = RetryPolicy(first_s=1.0, longest_s=300.0, attempts=5)


def half() -> float:
    return 0.5


def test_an_acknowledged_delivery_is_sent() -> None:
    assert POLICY.judge(SendResult(ack=b"AA"), attempts=3, failures=9, rng=half).outcome is Outcome.SENT


@given(failures=st.integers(0, 10_000), attempts=st.integers(0, 10_000))
def test_a_partner_out_of_reach_never_makes_a_dead_letter(failures: int, attempts: int) -> None:
    verdict = POLICY.judge(SendResult(error="refused", reached=False), attempts=attempts, failures=failures, rng=half)
    assert verdict.outcome is Outcome.RETRY
    assert 0 < verdict.wait_s <= 300.0


def test_a_refusal_of_the_content_is_a_dead_letter_at_once() -> None:
    result = SendResult(error="The partner answered AR.", permanent=True)
    assert POLICY.judge(result, attempts=0, failures=0, rng=half).outcome is Outcome.DEAD


@pytest.mark.parametrize(("attempts", "outcome"), [(0, Outcome.RETRY), (3, Outcome.RETRY), (4, Outcome.DEAD)])
def test_the_fifth_answered_failure_is_the_last(attempts: int, outcome: Outcome) -> None:
    assert POLICY.judge(SendResult(error="AE"), attempts=attempts, failures=0, rng=half).outcome is outcome


@given(failures=st.integers(0, 200), draw=st.floats(0, 1, exclude_max=True))
def test_waits_stay_between_a_tenth_of_the_first_and_the_longest(failures: int, draw: float) -> None:
    assert 0.1 <= POLICY.wait_s(failures, lambda: draw) <= 300.0


def test_waits_double_until_the_longest() -> None:
    assert [round(POLICY.wait_s(n, lambda: 1.0)) for n in (0, 1, 2, 8, 9, 60)] == [1, 2, 4, 256, 300, 300]


@pytest.mark.parametrize(
    ("value", "asked"), [(True, True), ("true", True), ("TRUE", True), (False, False), ("false", False), ("", False)]
)
def test_an_endpoint_asks_for_something_by_a_truth_value_or_its_name(value: object, asked: bool) -> None:
    endpoint = MemberEndpoint(id="YL/fhir", member="YL", kind="fhir", settings={"message": value})

    assert asks_for(endpoint, "message") is asked
    assert not asks_for(endpoint, "push")
