"""The breaker opens after enough failures in its window, rests, and lets one caller try."""

from __future__ import annotations

import pytest

from hub.errors import Category, HubError
from storage.objects.breaker import Breaker


class Clock:
    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("the server", failures=3, window_s=30, rest_s=10, now_s=clock)


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        breaker.check()
        breaker.failed()


def refused(breaker: Breaker) -> bool:
    try:
        breaker.check()
    except HubError as error:
        return error.category is Category.UNAVAILABLE
    return False


def test_it_stays_closed_below_its_limit(breaker: Breaker) -> None:
    fail(breaker, 2)
    assert not refused(breaker)


def test_it_opens_at_its_limit(breaker: Breaker) -> None:
    fail(breaker, 3)
    assert refused(breaker)


def test_old_failures_do_not_count(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 2)
    clock.s += 31
    fail(breaker, 2)
    assert not refused(breaker)


def test_a_success_forgets_the_failures(breaker: Breaker) -> None:
    fail(breaker, 2)
    breaker.succeeded()
    fail(breaker, 2)
    assert not refused(breaker)


def test_after_its_rest_one_caller_tries_and_success_closes_it(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.s += 10
    assert not refused(breaker)
    assert refused(breaker)
    breaker.succeeded()
    assert not refused(breaker)


def test_a_failed_trial_starts_the_rest_again(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.s += 10
    breaker.check()
    breaker.failed()
    clock.s += 9
    assert refused(breaker)
    clock.s += 1
    assert not refused(breaker)
