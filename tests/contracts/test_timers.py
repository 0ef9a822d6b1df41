"""What timers must do, on both databases and with two nodes."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from hub.errors import HubError
from hub.ports import Timer
from storage.sql.database import SqlDatabase
from tests.support.databases import opened

NOW = datetime(2026, 5, 4, tzinfo=UTC)


def timer(key: str = "t1", minutes: int = 0, **payload: str) -> Timer:
    return Timer(kind="sla", key=key, due_at=NOW + timedelta(minutes=minutes), payload=payload)


def put(database: SqlDatabase, one: Timer, *, earliest_wins: bool = False) -> None:
    database.write(lambda tx: tx.timers.set(one, earliest_wins=earliest_wins))


def due(database: SqlDatabase, minutes: int = 0) -> list[Timer]:
    return list(database.read(lambda tx: tx.timers.due(NOW + timedelta(minutes=minutes), limit=100)))


def test_a_timer_is_due_from_its_moment_on_and_keeps_its_payload(database: SqlDatabase) -> None:
    put(database, timer(minutes=5, task="a"))

    assert due(database, 4) == []
    assert due(database, 5) == [timer(minutes=5, task="a")]


def test_due_timers_come_soonest_first(database: SqlDatabase) -> None:
    for minutes in (3, 1, 2):
        put(database, timer(str(minutes), minutes))

    assert [one.key for one in due(database, 9)] == ["1", "2", "3"]


def test_setting_again_moves_the_timer(database: SqlDatabase) -> None:
    put(database, timer(minutes=1, a="old"))
    put(database, timer(minutes=7, a="new"))

    assert due(database, 6) == []
    assert due(database, 7) == [timer(minutes=7, a="new")]


def test_the_earliest_wins_when_asked_for(database: SqlDatabase) -> None:
    put(database, timer(minutes=5, a="first"))
    put(database, timer(minutes=9, a="later"), earliest_wins=True)
    kept = due(database, 9)
    put(database, timer(minutes=2, a="sooner"), earliest_wins=True)

    assert (kept, due(database, 9)) == ([timer(minutes=5, a="first")], [timer(minutes=2, a="sooner")])


def test_a_cancelled_timer_is_gone(database: SqlDatabase) -> None:
    put(database, timer())
    database.write(lambda tx: tx.timers.cancel("sla", "t1"))
    database.write(lambda tx: tx.timers.cancel("sla", "absent"))

    assert due(database) == []


def test_a_timer_is_taken_once(database: SqlDatabase) -> None:
    put(database, timer())
    one = due(database)[0]

    assert [database.write(lambda tx: tx.timers.take(one)) for _ in range(2)] == [True, False]


def test_a_timer_that_was_moved_meanwhile_is_not_taken(database: SqlDatabase) -> None:
    put(database, timer())
    one = due(database)[0]
    put(database, timer(minutes=9))

    assert not database.write(lambda tx: tx.timers.take(one))
    assert len(due(database, 9)) == 1


def test_a_timer_whose_work_failed_is_still_there(database: SqlDatabase) -> None:
    put(database, timer())
    one = due(database)[0]

    def work(tx: object) -> None:
        assert tx.timers.take(one)  # type: ignore[attr-defined]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        database.write(work)

    assert due(database) == [one]


def test_a_timer_survives_a_restart(database: SqlDatabase, database_url: str) -> None:
    put(database, timer(a="b"))
    database.close()

    with opened(database_url) as again:
        assert due(again) == [timer(a="b")]


def test_two_nodes_fire_each_timer_once(database: SqlDatabase, database_url: str) -> None:
    for number in range(30):
        put(database, timer(str(number)))
    fired: list[str] = []
    trouble: list[HubError] = []

    def fire(one: SqlDatabase) -> None:
        for waiting in due(one):
            try:
                if one.write(lambda tx, waiting=waiting: tx.timers.take(waiting)):
                    fired.append(waiting.key)
            except HubError as error:
                trouble.append(error)

    with opened(database_url, node="second") as second:
        threads = [threading.Thread(target=fire, args=(one,)) for one in (database, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert trouble == []
    assert sorted(fired) == sorted(str(number) for number in range(30))
