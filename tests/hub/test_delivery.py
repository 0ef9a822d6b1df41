"""The retry policy is a pure decision."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.config import Settings
from hub.delivery import Outcome, RetryPolicy, asks_for, circuit, is_retry_rule
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


@pytest.mark.parametrize(
    "text", ["", "attempts=0", "attempts=x", "tries=3", "max-age-s=5 max-age-s=6", "first-s=9 longest-s=8"]
)
def test_a_retry_rule_that_says_nothing_or_nonsense_is_none(text: str) -> None:
    assert not is_retry_rule(text)


def test_an_endpoint_lays_its_rule_over_the_settings() -> None:
    endpoint = MemberEndpoint(
        id="KN/mllp", member="KN", kind="mllp", settings={"retry": "first-s=2 longest-s=9 attempts=3 max-age-s=60"}
    )
    policy = RetryPolicy.of(Settings(), endpoint)
    assert (policy.first_s, policy.longest_s, policy.attempts, policy.max_age_s) == (2, 9, 3, 60)
    assert RetryPolicy.of(Settings()).max_age_s is None


@pytest.mark.parametrize(
    ("result", "age_s", "outcome"),
    [
        (SendResult(error="away", reached=False), 59.0, Outcome.RETRY),
        (SendResult(error="away", reached=False), 60.0, Outcome.DEAD),
        (SendResult(error="AE"), 59.0, Outcome.RETRY),
        (SendResult(error="AE"), 60.0, Outcome.DEAD),
        (SendResult(), 60.0, Outcome.SENT),
    ],
)
def test_what_is_too_old_is_given_up_when_it_fails_once_more(
    result: SendResult, age_s: float, outcome: Outcome
) -> None:
    policy = RetryPolicy(first_s=1.0, longest_s=10.0, attempts=5, max_age_s=60.0)
    verdict = policy.judge(result, attempts=0, failures=3, rng=lambda: 1.0, age_s=age_s)
    assert verdict.outcome is outcome


def test_the_circuit_is_told_from_failures_and_rest() -> None:
    now = datetime(2025, 6, 11, tzinfo=UTC)
    assert circuit({"failures": 0, "open_until": None}, now) == "closed"
    assert circuit({"failures": 1, "open_until": now + timedelta(seconds=1)}, now) == "open"
    assert circuit({"failures": 1, "open_until": now}, now) == "half-open"
    assert circuit({"failures": 1, "open_until": None}, now) == "half-open"


def test_a_message_that_alone_is_never_answered_is_given_up_and_waits_longer_than_its_destination() -> None:
    nobody = SendResult(error="no answer", reached=False)
    first = POLICY.judge(nobody, attempts=0, failures=0, alone=3, rng=lambda: 1.0)
    assert (first.outcome, first.wait_s, first.rest_s) == (Outcome.RETRY, 8.0, 1.0)
    assert POLICY.judge(nobody, attempts=0, failures=0, alone=4, rng=half).outcome is Outcome.DEAD
    assert POLICY.judge(nobody, attempts=0, failures=99, alone=0, rng=half).outcome is Outcome.RETRY
