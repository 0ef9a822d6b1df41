"""A feed is told of when much of it goes wrong, or when it is silent at an hour at which it never was."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from adapters.worker.alerts.feeds import LEAST, UNMAPPED, WINDOW
from hub.boot import Services
from tests.adapters.worker.alerts.conftest import KN, Turn, receive, told
from tests.support.hub import SetClock, register

WEEK = timedelta(days=7)
#: Steps of the clock that are longer than a watcher's pace.
MINUTE = 61


def weeks(
    services: Services, now: datetime, count: int = 4, *, every: timedelta, hours: tuple[int, int] = (0, 24)
) -> None:
    """Write down *count* weeks of messages before *now*, each with one *every* so long within *hours* of the day (UTC)."""
    at = now - count * WEEK
    while at < now:
        if hours[0] <= at.hour < hours[1]:
            receive(services, at)
        at += every


def refuse(services: Services, now: datetime, good: int, bad: int) -> None:
    for number in range(good + bad):
        receive(services, now, state="done" if number < good else "refused")


def test_a_share_of_refused_messages_is_told_once_and_clears_once(
    sqlite_services: Services, set_clock: SetClock, turn: Turn
) -> None:
    register(sqlite_services, KN)
    refuse(sqlite_services, set_clock.now, 75, 25)
    assert turn() == ["errors|KN/mllp"]
    # Under the limit again, and not yet well under it.
    refuse(sqlite_services, set_clock.now, 60, 0)
    set_clock.forward(MINUTE)
    assert turn() == ["errors|KN/mllp"]
    refuse(sqlite_services, set_clock.now, WINDOW, 0)
    set_clock.forward(MINUTE)
    assert turn() == []
    assert len(told(sqlite_services)) == 2


def test_a_few_refused_messages_say_nothing_yet(sqlite_services: Services, set_clock: SetClock, turn: Turn) -> None:
    register(sqlite_services, KN)
    refuse(sqlite_services, set_clock.now, 0, LEAST - 1)
    assert turn() == []
    refuse(sqlite_services, set_clock.now, 0, 1)
    set_clock.forward(MINUTE)
    assert turn() == ["errors|KN/mllp"]


def test_old_refusals_and_messages_that_wait_are_no_errors(
    sqlite_services: Services, set_clock: SetClock, turn: Turn
) -> None:
    register(sqlite_services, KN)
    refuse(sqlite_services, set_clock.now - timedelta(days=2), 0, 50)
    for _ in range(LEAST):
        receive(sqlite_services, set_clock.now, state="received")
    assert turn() == []


def test_a_member_has_limits_of_its_own(sqlite_services: Services, set_clock: SetClock, turn: Turn) -> None:
    register(sqlite_services, replace(KN, settings={"alerts": "errors=off unmapped=10"}))
    refuse(sqlite_services, set_clock.now, 0, 30)
    for _ in range(10):
        receive(sqlite_services, set_clock.now, outcome=f"OBX-8: The code {UNMAPPED} 0078; it was not translated.")
    assert turn() == ["unmapped|KN/mllp"]


def test_a_busy_feed_that_falls_silent_is_told_and_the_next_message_clears_it(
    sqlite_services: Services, set_clock: SetClock, turn: Turn
) -> None:
    register(sqlite_services, KN)
    weeks(sqlite_services, set_clock.now, every=timedelta(minutes=5))
    assert turn() == []
    set_clock.forward(25 * 60)
    assert turn() == [], "not yet so long that it is strange"
    set_clock.forward(10 * 60)
    assert turn() == ["idle|KN/mllp"]
    set_clock.forward(60 * 60)
    assert turn() == ["idle|KN/mllp"]
    receive(sqlite_services, set_clock.now)
    set_clock.forward(MINUTE)
    assert turn() == []
    assert len(told(sqlite_services)) == 2


def test_a_feed_with_longer_gaps_is_given_more_time(sqlite_services: Services, set_clock: SetClock, turn: Turn) -> None:
    register(sqlite_services, KN)
    weeks(sqlite_services, set_clock.now, every=timedelta(minutes=40))
    quiet_s = 0
    while not turn():
        set_clock.forward(20 * 60)
        quiet_s += 20 * 60
        assert quiet_s < 24 * 3600, "it is never told"
    assert quiet_s >= 4 * 3600 - 40 * 60, "five times forty minutes, in spans that double"


def test_a_feed_that_sleeps_at_night_is_told_in_the_morning_alone(
    sqlite_services: Services, set_clock: SetClock, turn: Turn
) -> None:
    register(sqlite_services, KN)
    # 8:30 UTC; the feed works from 0 to 10 UTC, every five minutes.
    end = set_clock.now.replace(hour=10, minute=0)
    weeks(sqlite_services, end, every=timedelta(minutes=5), hours=(0, 10))
    set_clock.now = end
    assert turn() == []
    while set_clock.now < end + timedelta(hours=14):
        set_clock.forward(15 * 60)
        assert turn() == [], set_clock.now
    set_clock.forward(30 * 60)
    assert turn() == ["idle|KN/mllp"], "half an hour into a day on which nothing came"


@pytest.mark.parametrize(("quiet", "expected"), [({2}, ["idle|KN/mllp"]), ({2, 3}, [])])
def test_one_quiet_week_of_four_does_not_hide_a_silence_and_two_do(
    sqlite_services: Services, set_clock: SetClock, turn: Turn, quiet: set[int], expected: list[str]
) -> None:
    register(sqlite_services, KN)
    now, step = set_clock.now, timedelta(minutes=5)
    for week in sorted({1, 2, 3, 4} - quiet, reverse=True):
        for number in range(-12, 24):
            receive(sqlite_services, now - week * WEEK + number * step)
    receive(sqlite_services, now)
    set_clock.forward(30)
    turn()
    set_clock.forward(40 * 60)
    assert turn() == expected


@pytest.mark.parametrize("weeks_known", [0, 1])
def test_a_new_feed_is_never_told_of(
    sqlite_services: Services, set_clock: SetClock, turn: Turn, weeks_known: int
) -> None:
    register(sqlite_services, KN)
    receive(sqlite_services, set_clock.now - timedelta(hours=1))
    weeks(sqlite_services, set_clock.now, weeks_known, every=timedelta(minutes=5))
    for _ in range(20):
        assert turn() == []
        set_clock.forward(3600)


def test_the_time_in_which_the_hub_was_away_is_no_silence(
    sqlite_services: Services, set_clock: SetClock, turn: Turn
) -> None:
    register(sqlite_services, KN)
    weeks(sqlite_services, set_clock.now - timedelta(hours=5), every=timedelta(minutes=5))
    assert turn() == [], "the hub has just started"
    set_clock.forward(35 * 60)
    assert turn() == ["idle|KN/mllp"]
