"""Timers fire once, whatever happens around them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from adapters.worker.timers import AGAIN_S, TimerLoop
from fhir_mappings.json import loads
from hub.access import UNRESTRICTED
from hub.boot import Services
from hub.errors import Category, HubError
from hub.ports import Timer, Tx
from tests.flows.test_referral_and_lab import REFERRAL
from tests.support.hub import SetClock
from tests.support.services import running


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


# --- the timers of a workflow, on two nodes -----------------------------------------------------------------------


@pytest.fixture
def nodes(tmp_path: Path, database_url: str, set_clock: SetClock) -> Iterator[list[Services]]:
    """Two nodes of one database with one clock."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    with (
        running(folders[0], url=database_url, clock=set_clock) as one,
        running(folders[1], url=database_url, clock=set_clock) as other,
    ):
        yield [one, other]


def all_of(services: Services, kind: str) -> list[dict[str, Any]]:
    found = services.database.read(lambda tx: tx.records.history(kind, None, UNRESTRICTED, count=200))
    return [loads(one.body) for one in found]


def turn_together(nodes: list[Services]) -> None:
    """Let several workers of each node look for due timers at one moment."""
    together = threading.Barrier(2 * len(nodes))
    trouble: list[BaseException] = []

    def work(services: Services) -> None:
        together.wait(20)
        try:
            TimerLoop(services).turn()
        except BaseException as error:  # handed to the test
            trouble.append(error)

    threads = [threading.Thread(target=work, args=(one,)) for one in nodes for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert trouble == []


def test_an_unanswered_referral_is_escalated_once_by_two_nodes(nodes: list[Services], set_clock: SetClock) -> None:
    assert nodes[0].messages.receive(REFERRAL, "127.0.0.1:5000") is not None
    before = len(all_of(nodes[0], "Task"))
    turn_together(nodes)
    assert len(all_of(nodes[0], "Task")) == before, "nothing is due yet"

    set_clock.forward(timedelta(days=1).total_seconds())
    turn_together(nodes)
    turn_together(nodes)

    tasks = [[code["code"] for code in one["code"]["coding"]] for one in all_of(nodes[1], "Task")]
    assert tasks.count(["escalation"]) == 1
    # One further version of the referral says that it is overdue.
    assert tasks.count(["referral"]) == 2


def test_a_timer_set_before_a_restart_fires_after_it(tmp_path: Path, database_url: str, set_clock: SetClock) -> None:
    with running(tmp_path, url=database_url, clock=set_clock) as first:
        assert first.messages.receive(REFERRAL, "127.0.0.1:5000") is not None
    set_clock.forward(timedelta(days=1).total_seconds())

    with running(tmp_path, url=database_url, clock=set_clock) as again:
        TimerLoop(again).turn()
        assert ["escalation"] in [[code["code"] for code in one["code"]["coding"]] for one in all_of(again, "Task")]
