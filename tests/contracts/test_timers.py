"""What timers must do, on both databases and with two nodes."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

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


# --- leases ------------------------------------------------------------------------------------------------------


def take(database: SqlDatabase, holder: str, *, seconds: float = 0, name: str = "work") -> int | None:
    now = NOW + timedelta(seconds=seconds)
    return database.write(lambda tx: tx.timers.lease(name, holder, now=now, lease_s=60))


def hold(database: SqlDatabase, epoch: int, *, seconds: float = 0) -> bool:
    now = NOW + timedelta(seconds=seconds)
    return database.write(lambda tx: tx.timers.hold("work", epoch, now=now, lease_s=60))


def leased(database: SqlDatabase, *, seconds: float = 0) -> str:
    return database.read(lambda tx: tx.timers.leased("work", now=NOW + timedelta(seconds=seconds)))


def test_a_lease_has_one_holder_until_it_ends(database: SqlDatabase) -> None:
    assert leased(database) == ""

    assert take(database, "a") == 1
    assert (take(database, "b"), take(database, "b", seconds=59.9)) == (None, None)
    assert (leased(database, seconds=59.9), leased(database, seconds=60)) == ("a", "")
    assert take(database, "b", seconds=60) == 2
    assert leased(database, seconds=60) == "b"


def test_leases_of_other_names_are_other_leases(database: SqlDatabase) -> None:
    assert (take(database, "a"), take(database, "b", name="other")) == (1, 1)


def test_a_lease_is_kept_by_what_is_done_under_it(database: SqlDatabase) -> None:
    epoch = take(database, "a")
    assert epoch is not None

    assert hold(database, epoch, seconds=50)
    assert take(database, "b", seconds=100) is None
    assert take(database, "b", seconds=110) is not None


def test_a_holder_that_comes_late_may_go_on_only_while_nobody_has_taken_over(database: SqlDatabase) -> None:
    epoch = take(database, "a")
    assert epoch is not None

    assert hold(database, epoch, seconds=600)
    assert take(database, "b", seconds=700) is not None
    assert not hold(database, epoch, seconds=700)
    assert leased(database, seconds=700) == "b"


def test_a_holder_that_was_started_anew_has_its_lease_at_once_and_its_former_self_has_not(
    database: SqlDatabase,
) -> None:
    before = take(database, "a")
    after = take(database, "a", seconds=1)

    assert (before, after) == (1, 2)
    assert not hold(database, 1)
    assert hold(database, 2)


def test_a_lease_given_back_is_free_at_once_for_others_and_only_its_holder_can_give_it(database: SqlDatabase) -> None:
    epoch = take(database, "a")
    assert epoch is not None

    database.write(lambda tx: tx.timers.release("work", epoch))
    second = take(database, "b")
    database.write(lambda tx: tx.timers.release("work", epoch))

    assert second == epoch + 1
    assert leased(database) == "b"
    assert not hold(database, epoch)


def test_of_two_nodes_that_ask_at_once_one_gets_the_lease(database: SqlDatabase, database_url: str) -> None:
    taken: list[int | None] = []

    def ask(one: SqlDatabase, holder: str) -> None:
        taken.extend(take(one, holder, seconds=100 * turn) for turn in range(20))

    with opened(database_url, node="second") as second:
        threads = [threading.Thread(target=ask, args=one) for one in ((database, "a"), (second, "b"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    epochs = [epoch for epoch in taken if epoch is not None]
    assert len(epochs) == len(set(epochs))


def test_work_that_began_under_a_lease_is_committed_before_another_node_may_begin(
    database: SqlDatabase, database_url: str
) -> None:
    """The next holder sees all that the last one did, however late that was."""
    epoch = take(database, "a")
    assert epoch is not None
    began, told = threading.Event(), threading.Event()
    seen: list[int] = []

    def work(tx: Any) -> None:
        assert tx.timers.hold("work", epoch, now=NOW, lease_s=0)
        began.set()
        assert told.wait(10)
        tx.timers.set(timer())

    def follow(second: SqlDatabase) -> None:
        assert take(second, "b", seconds=120) is not None
        seen.append(len(due(second)))

    with opened(database_url, node="second") as second:
        first = threading.Thread(target=lambda: database.write(work))
        first.start()
        assert began.wait(10)
        then = threading.Thread(target=follow, args=(second,))
        then.start()
        told.set()
        first.join()
        then.join()

    assert seen == [1]


def test_work_beside_a_lease_waits_for_its_holder_and_takes_nothing_from_it(
    database: SqlDatabase, database_url: str
) -> None:
    """Who does one piece of such work out of turn does it between two transactions of the holder, never during one."""
    epoch = take(database, "a")
    assert epoch is not None
    began, told = threading.Event(), threading.Event()
    seen: list[int] = []

    def work(tx: Any) -> None:
        assert tx.timers.hold("work", epoch, now=NOW, lease_s=60)
        began.set()
        assert told.wait(10)
        tx.timers.set(timer())

    def beside(tx: Any) -> None:
        tx.timers.beside("work")
        seen.append(len(tx.timers.due(NOW + timedelta(days=1), limit=10)))

    with opened(database_url, node="second") as second:
        first = threading.Thread(target=lambda: database.write(work))
        first.start()
        assert began.wait(10)
        then = threading.Thread(target=lambda: second.write(beside))
        then.start()
        told.set()
        first.join()
        then.join()

    assert seen == [1]
    assert leased(database) == "a"
    assert hold(database, epoch)


def test_work_beside_a_lease_that_nobody_ever_took_keeps_a_holder_out_until_it_is_done(
    database: SqlDatabase, database_url: str
) -> None:
    began, told = threading.Event(), threading.Event()
    taken: list[int | None] = []

    def beside(tx: Any) -> None:
        tx.timers.beside("work")
        began.set()
        assert told.wait(10)
        tx.timers.set(timer())

    def follow(second: SqlDatabase) -> None:
        taken.append(take(second, "b"))
        taken.append(len(due(second)))

    with opened(database_url, node="second") as second:
        first = threading.Thread(target=lambda: database.write(beside))
        first.start()
        assert began.wait(10)
        assert leased(database) == ""
        then = threading.Thread(target=follow, args=(second,))
        then.start()
        told.set()
        first.join()
        then.join()

    assert taken[0] is not None
    assert taken[1] == 1


def test_what_is_done_beside_a_lease_keeps_its_holder_out_until_it_is_committed(
    database: SqlDatabase, database_url: str
) -> None:
    epoch = take(database, "a")
    assert epoch is not None
    before = leased(database)

    def work(tx: Any) -> bool:
        tx.timers.beside("work")
        return row_is_free(database_url)

    assert not database.write(work)
    assert row_is_free(database_url)
    # Nobody has lost it, and a name that nobody ever held is no trouble.
    assert leased(database) == before == "a"
    assert hold(database, epoch)
    database.write(lambda tx: tx.timers.beside("nobody's"))
    assert take(database, "b", name="nobody's") is not None


def row_is_free(url: str) -> bool:
    """Return whether another connection could change the lease ``work`` now."""
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=sa.NullPool)
    try:
        with engine.connect() as other:
            if url.startswith("sqlite"):
                other.exec_driver_sql("PRAGMA busy_timeout=0")
                other.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                other.execute(sa.text("SELECT 1 FROM lease WHERE name = 'work' FOR UPDATE NOWAIT"))
            other.rollback()
            return True
    except sa.exc.OperationalError:
        return False
    finally:
        engine.dispose()


def test_timers_of_one_kind_are_asked_for_beside_all_others(database: SqlDatabase) -> None:
    put(database, timer("a"))
    put(database, Timer(kind="other", key="b", due_at=NOW, payload={}))

    def keys(**asked: str) -> list[str]:
        return [one.key for one in database.read(lambda tx: tx.timers.due(NOW, limit=100, **asked))]

    assert (keys(kind="other"), keys(beside="other"), keys()) == (["b"], ["a"], ["b", "a"])
