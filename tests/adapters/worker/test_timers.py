"""Timers fire once, whatever happens around them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from adapters.worker.timers import AGAIN_S, TimerLoop
from hub.boot import Services
from hub.errors import Category, HubError
from hub.ports import Timer, Tx
from tests.support.hub import SetClock


def due(services: Services, kind: str = "k", key: str = "a") -> Timer:
    timer = Timer(kind=kind, key=key, due_at=services.clock(), payload={"n": 1})
    services.database.write(lambda tx: tx.timers.set(timer))
    return timer


def test_a_due_timer_fires_once(hub_services: Services) -> None:
    fired: list[str] = []
    loop = TimerLoop(hub_services, {"k": lambda tx, timer: fired.append(timer.key)})
    due(hub_services)
    assert loop.turn() == 1
    assert loop.turn() == 0
    assert fired == ["a"]


def test_a_timer_that_another_node_took_does_nothing(sqlite_services: Services) -> None:
    fired: list[str] = []
    timer = due(sqlite_services)
    loop = TimerLoop(sqlite_services, {"k": lambda tx, one: fired.append(one.key)})
    sqlite_services.database.write(lambda tx: tx.timers.take(timer))
    loop._fire(timer)
    assert fired == []


def test_what_a_failing_timer_wrote_is_undone_and_it_fires_again_later(
    sqlite_services: Services, set_clock: SetClock
) -> None:
    tries: list[int] = []

    def work(tx: Tx, timer: Timer) -> None:
        tx.timers.set(Timer(kind="written", key="x", due_at=timer.due_at + timedelta(days=1), payload={}))
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("broken")

    loop = TimerLoop(sqlite_services, {"k": work, "written": lambda tx, timer: None})
    due(sqlite_services)
    due(sqlite_services, kind="written", key="y")
    loop.turn()
    far = sqlite_services.clock() + timedelta(days=2)
    kinds = [(one.kind, one.key) for one in sqlite_services.database.read(lambda tx: tx.timers.due(far, limit=9))]
    assert kinds == [("k", "a")]
    set_clock.forward(AGAIN_S)
    loop.turn()
    assert len(tries) == 2


def test_a_store_out_of_order_leaves_the_timer(sqlite_services: Services) -> None:
    def work(tx: Tx, timer: Timer) -> None:
        raise HubError(Category.UNAVAILABLE, "away")

    due(sqlite_services)
    with pytest.raises(HubError):
        TimerLoop(sqlite_services, {"k": work}).turn()
    assert len(sqlite_services.database.read(lambda tx: tx.timers.due(sqlite_services.clock(), limit=9))) == 1
