"""Group commit and faults of the two databases."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from hub.access import UNRESTRICTED, Scope
from hub.errors import Category, HubError
from hub.ports import NewEntry, NewVersion
from storage.sql.database import BATCH, SqlDatabase
from storage.sql.engines import engines
from tests.support.databases import PostgresServer, opened

KN = Scope(institution="KN")


def patient(id: str, name: str = "郑伟") -> dict[str, Any]:
    return {"resourceType": "Patient", "id": id, "name": [{"text": name}]}


def put(database: SqlDatabase, id: str, name: str = "郑伟") -> Any:
    return database.write(lambda tx: tx.records.put_many([NewVersion(resource=patient(id, name), owner="KN")]))[0]


def exists(database: SqlDatabase, id: str) -> bool:
    return database.read(lambda tx: tx.records.get("Patient", id, KN)) is not None


def together(database: SqlDatabase, works: list[Callable[[Any], Any]]) -> list[Any]:
    """Run *works* in one batch, by holding the writer until all are queued; returns values or exceptions."""
    results: list[Any] = [None] * len(works)
    holding, go = threading.Event(), threading.Event()

    def hold(tx: Any) -> None:
        holding.set()
        go.wait(30)

    def run(number: int) -> None:
        try:
            results[number] = database.write(works[number])
        except BaseException as error:
            results[number] = error

    holder = threading.Thread(target=database.write, args=(hold,))
    holder.start()
    assert holding.wait(30)
    threads = []
    for number in range(len(works)):
        threads.append(threading.Thread(target=run, args=(number,)))
        threads[-1].start()
        waited = 0
        while database._queue.qsize() <= number:
            threading.Event().wait(0.005)
            waited += 1
            assert waited < 2_000
    go.set()
    for thread in (holder, *threads):
        thread.join(60)
        assert not thread.is_alive()
    return results


def writing(id: str) -> Callable[[Any], Any]:
    return lambda tx: tx.records.put_many([NewVersion(resource=patient(id), owner="KN")])[0].id


def failing(error: BaseException, id: str = "bad") -> Callable[[Any], Any]:
    def work(tx: Any) -> None:
        writing(id)(tx)
        raise error

    return work


def misspelt(tx: Any) -> None:
    # SQLite reports it as an OperationalError, PostgreSQL as a ProgrammingError.
    tx.connection.exec_driver_sql("SELECT nothing FROM nowhere")


def test_what_waits_shares_one_commit(database: SqlDatabase) -> None:
    commits: list[int] = []
    sa.event.listen(database.engine, "commit", lambda _connection: commits.append(1))

    results = together(database, [writing(f"p{number}") for number in range(BATCH)])

    assert results == [f"p{number}" for number in range(BATCH)]
    assert len(commits) == 2


@pytest.mark.parametrize(
    "bad",
    [
        failing(HubError(Category.INCORRECT, "no")),
        failing(KeyError("x")),
        failing(KeyboardInterrupt()),
        failing(SystemExit(3)),
        misspelt,
    ],
    ids=["HubError", "KeyError", "KeyboardInterrupt", "SystemExit", "wrong SQL"],
)
def test_one_failing_function_costs_the_others_nothing(database: SqlDatabase, bad: Callable[[Any], Any]) -> None:
    results = together(database, [writing("a"), bad, writing("b")])

    assert results[0::2] == ["a", "b"]
    assert isinstance(results[1], BaseException)
    assert [exists(database, one) for one in ("a", "bad", "b")] == [True, False, True]
    assert put(database, "after").version == 1


def test_a_wrong_statement_is_a_fault_without_the_drivers_text(database: SqlDatabase) -> None:
    with pytest.raises(HubError) as caught:
        database.write(misspelt)
    with pytest.raises(HubError) as read:
        database.read(misspelt)

    assert {caught.value.category, read.value.category} == {Category.FAULT}
    assert "nowhere" not in str(caught.value)
    assert not caught.value.fatal


@pytest.mark.parametrize("error", [HubError(Category.INCORRECT, "no"), KeyError("x"), SystemExit(3)], ids=repr)
def test_a_lone_failing_function_leaves_nothing_and_is_told_why(database: SqlDatabase, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        database.write(failing(error))

    assert caught.value is error
    assert not exists(database, "bad")
    assert put(database, "after").version == 1


def test_a_read_cannot_write(database: SqlDatabase) -> None:
    with pytest.raises(HubError) as caught:
        database.read(writing("a"))

    assert not caught.value.fatal
    assert not exists(database, "a")


def test_a_read_sees_one_moment_throughout(database: SqlDatabase) -> None:
    put(database, "a")

    def look(tx: Any) -> list[int]:
        seen = [tx.records.get("Patient", "a", KN).version]
        put(database, "a", "更名")
        return [*seen, tx.records.get("Patient", "a", KN).version]

    assert database.read(look) == [1, 1]


def test_a_write_inside_a_write_is_refused_instead_of_waiting_for_itself(database: SqlDatabase) -> None:
    with pytest.raises(HubError) as caught:
        database.write(lambda tx: database.write(writing("a")))

    assert caught.value.category is Category.FAULT


def test_a_value_the_database_cannot_hold_is_the_senders_fault(database: SqlDatabase) -> None:
    resource = {**patient("nul"), "identifier": [{"system": "urn:x", "value": "a\x00b"}]}

    def work(tx: Any) -> None:
        tx.records.put_many([NewVersion(resource=resource, owner="KN")])

    results = together(database, [writing("a"), work, writing("b")])

    # SQLite keeps U+0000; PostgreSQL cannot.
    assert results[1] is None or results[1].category is Category.INCORRECT
    assert results[0::2] == ["a", "b"]


# --- stopping ----------------------------------------------------------------------------------------------------


def test_closing_finishes_what_is_queued_and_refuses_the_rest(database: SqlDatabase) -> None:
    outcomes: list[str] = []
    lock = threading.Lock()

    def hammer(number: int) -> None:
        for turn in range(200):
            try:
                put(database, f"p{number}-{turn}")
                outcome = "kept"
            except HubError as error:
                outcome = error.category.value
            with lock:
                outcomes.append(outcome)
            if outcome != "kept":
                return

    threads = [threading.Thread(target=hammer, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    while len(outcomes) < 20:
        threading.Event().wait(0.005)
    database.close()
    for thread in threads:
        thread.join(30)

    assert not any(thread.is_alive() for thread in threads)
    assert set(outcomes) <= {"kept", "interrupted"}
    with pytest.raises(HubError) as caught:
        database.read(lambda tx: tx.members.version())
    assert caught.value.category is Category.INTERRUPTED


def test_closing_twice_is_harmless_and_a_closed_database_is_not_healthy(database: SqlDatabase) -> None:
    database.healthy()
    database.close()
    database.close()

    with pytest.raises(HubError):
        database.healthy()


# --- faults ------------------------------------------------------------------------------------------------------


LOCKER = """
import sqlite3, sys

other = sqlite3.connect(sys.argv[1], isolation_level=None)
other.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
other.execute("ROLLBACK")
"""


@contextlib.contextmanager
def foreign_lock(database: SqlDatabase) -> Iterator[None]:
    """Lock the file from a process that knows nothing of the hub's turns."""
    path = str(database.engine.url.database)
    command = [sys.executable, "-c", LOCKER, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        try:
            yield
        finally:
            other.stdin.write("go on\n")
            other.stdin.flush()
            assert other.wait(30) == 0


def test_a_database_locked_by_another_process_is_unavailable_and_then_goes_on(sqlite_database: SqlDatabase) -> None:
    with opened(str(sqlite_database.engine.url), busy_timeout_s=0.2) as database:
        with foreign_lock(database):
            results = together_locked(database)

        assert [one.category for one in results] == [Category.UNAVAILABLE] * 5
        assert put(database, "after").version == 1


def test_a_wait_for_the_turn_ends_though_the_process_whose_turn_it_is_waits_longer(
    sqlite_database: SqlDatabase,
) -> None:
    url = str(sqlite_database.engine.url)
    with opened(url, node="patient", busy_timeout_s=600) as patient_one, opened(url, busy_timeout_s=0.2) as database:
        with foreign_lock(database):
            begins = threading.Event()
            sa.event.listen(patient_one.engine, "checkout", lambda *_: begins.set())
            first = threading.Thread(target=put, args=(patient_one, "first"))
            first.start()
            # From here on it has the turn, and waits inside SQLite until the foreign program ends.
            assert begins.wait(30)
            results = together_locked(database)
            assert first.is_alive()
        first.join(30)

        assert [one.category for one in results] == [Category.UNAVAILABLE] * 5
        assert exists(database, "first")
        # Its place in the queue was given back.
        assert put(database, "after").version == 1
        assert put(patient_one, "later").version == 1


def test_what_is_left_of_the_wait_after_the_turn_is_all_that_sqlite_may_wait(sqlite_database: SqlDatabase) -> None:
    waits: list[str] = []
    now = [0.0]

    def slow_turn() -> float:
        # Each look at the clock finds three seconds gone.
        now[0] += 3.0
        return now[0]

    writer, readers = engines(str(sqlite_database.engine.url), busy_timeout_s=10)
    database = SqlDatabase(writer, node="slow", readers=readers, busy_timeout_s=10, monotonic=slow_turn)

    def watch(connection: Any) -> None:
        waits.append(str(connection.connection.dbapi_connection.execute("PRAGMA busy_timeout").fetchone()[0]))

    sa.event.listen(writer, "begin", watch)
    try:
        put(database, "a")
        put(database, "b")
    finally:
        database.close()

    assert all(0 < int(one) <= 7000 for one in waits), waits
    assert len(waits) == 2


def test_a_locked_postgresql_table_keeps_each_of_many_waiting_writes_for_one_wait_only(
    postgres: PostgresServer,
) -> None:
    url = postgres.migrated_database()
    # The clock stands, so that all writes come at one moment however long the machine takes to start their threads.
    with (
        opened(url, node="other") as other,
        opened(url, busy_timeout_s=0.3, monotonic=lambda: 0.0) as database,
    ):
        with other.engine.begin() as connection:
            connection.exec_driver_sql("LOCK TABLE record IN ACCESS EXCLUSIVE MODE")
            attempts: list[str] = []
            sa.event.listen(database.engine, "begin", lambda _: attempts.append("begin"))
            results = together(database, [writing(f"p{number}") for number in range(20)])

        assert [one.category for one in results] == [Category.UNAVAILABLE] * 20
        # One for the batch, one for the function that held the writer, and none for each of those that came too late.
        assert len(attempts) <= 4
        assert put(database, "after").version == 1


def together_locked(database: SqlDatabase) -> list[Any]:
    results: list[Any] = []

    def run(number: int) -> None:
        try:
            results.append(put(database, f"p{number}"))
        except HubError as error:
            results.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


def test_a_full_disk_is_unavailable_and_recovers(sqlite_database: SqlDatabase) -> None:
    def limit(pages: int) -> None:
        def work(tx: Any) -> None:
            tx.connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")

        sqlite_database.write(work)

    def big(tx: Any) -> None:
        tx.records.put_many([NewVersion(resource=patient("big", "x" * 4_000_000), owner="KN")])

    put(sqlite_database, "before")
    pages = sqlite_database.read(lambda tx: tx.connection.exec_driver_sql("PRAGMA page_count").scalar())
    limit(pages + 20)
    results = together(sqlite_database, [writing("a"), big, writing("b")])
    limit(1 << 30)

    assert results[0::2] == ["a", "b"]
    assert results[1].category is Category.UNAVAILABLE
    assert not results[1].fatal
    assert sqlite_database.write(big) is None
    assert exists(sqlite_database, "before")


def test_a_damaged_file_stops_the_node(sqlite_database: SqlDatabase) -> None:
    put(sqlite_database, "before")
    path = Path(str(sqlite_database.engine.url.database))
    sqlite_database.close()
    reading = sqlite3.connect(path)
    pages = [page for (page,) in reading.execute("SELECT rootpage FROM sqlite_master WHERE tbl_name = 'record'")]
    reading.close()
    with path.open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * 4096)
            file.write(b"\xff" * 4096)
    writer, readers = engines(f"sqlite:///{path}")
    database = SqlDatabase(writer, node="test", readers=readers)

    with pytest.raises(HubError) as first:
        put(database, "after")
    with pytest.raises(HubError) as second:
        put(database, "later")
    with pytest.raises(HubError):
        database.healthy()
    database.close()

    assert (first.value.category, first.value.fatal) == (Category.FAULT, True)
    assert (second.value.category, second.value.fatal) == (Category.UNAVAILABLE, False)


def test_a_server_that_dropped_its_connections_is_reached_again(postgres: PostgresServer) -> None:
    url = postgres.migrated_database()
    with opened(url) as database:
        put(database, "before")
        name = sa.engine.make_url(url).database
        postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")

        assert put(database, "after").version == 1
        assert exists(database, "before")


def test_a_connection_lost_in_the_work_is_unavailable_and_the_next_write_goes_on(postgres: PostgresServer) -> None:
    with opened(postgres.migrated_database()) as database:

        def cut(tx: Any) -> None:
            writing("cut")(tx)
            pid = tx.connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
            postgres.execute(f"SELECT pg_terminate_backend({pid})")
            writing("more")(tx)

        results = together(database, [writing("a"), cut, writing("b")])

        assert {one.category for one in results} == {Category.UNAVAILABLE}
        assert not any(exists(database, one) for one in ("a", "b", "cut"))
        assert put(database, "after").version == 1


_CHILD = """
import sys
from datetime import datetime, UTC
from hub.ports import NewEntry
from storage.sql.database import SqlDatabase
from storage.sql.engines import engines
import threading
writer, readers = engines(sys.argv[1])
database = SqlDatabase(writer, node="child", readers=readers)
lock = threading.Lock()
def run(worker):
    for number in range(100_000):
        name = f"{worker}-{number}"
        database.write(lambda tx: tx.journal.append(NewEntry(door="mllp", institution="KN", peer="", correlation_id=name,
            message_type="ADT", digest=name, size=1, received_at=datetime.now(UTC), body=b"x" * 500)))
        with lock:
            print(name, flush=True)
for worker in range(4):
    threading.Thread(target=run, args=(worker,)).start()
"""


def test_what_was_acknowledged_is_there_after_a_kill(database_url: str) -> None:
    command = [sys.executable, "-c", _CHILD, database_url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path.cwd()) as child:
        assert child.stdout is not None
        acknowledged = [child.stdout.readline().decode().strip() for _ in range(200)]
        child.send_signal(signal.SIGKILL)
        # The last line may be cut, as the kill comes anywhere.
        acknowledged += child.stdout.read().decode().split("\n")[:-1]

    with opened(database_url) as database:
        kept = {one.correlation_id for one in database.read(lambda tx: tx.journal.search({}, limit=1_000_000))}
        put(database, "after")

    assert len(acknowledged) >= 200
    assert set(acknowledged) <= kept


# --- two nodes on one database -----------------------------------------------------------------------------------


def test_two_nodes_writing_one_resource_lose_no_version(database: SqlDatabase, database_url: str) -> None:
    with opened(database_url, node="second") as second:
        run_on_both(database, second, lambda one, name, turn: put(one, "p1", f"{name}{turn}"))

    versions = database.read(lambda tx: tx.records.history("Patient", "p1", KN, count=99))
    assert [one.version for one in versions] == list(range(20, 0, -1))


def test_two_nodes_creating_the_same_ids_at_once_both_succeed(database: SqlDatabase, database_url: str) -> None:
    with opened(database_url, node="second") as second:
        run_on_both(database, second, lambda one, name, turn: put(one, f"p{turn}", name))

    found = [database.read(lambda tx, n=n: tx.records.get("Patient", f"p{n}", KN)).version for n in range(10)]
    assert found == [2] * 10


def test_a_condition_creates_one_resource_on_two_nodes(database: SqlDatabase, database_url: str) -> None:
    def create(one: SqlDatabase, name: str, turn: int) -> None:
        def work(tx: Any) -> None:
            tx.records.lock_condition(f"KN|Patient|{turn}")
            if not tx.records.by_identifier("Patient", "urn:x", str(turn), UNRESTRICTED):
                resource = {**patient(f"{name}-{turn}"), "identifier": [{"system": "urn:x", "value": str(turn)}]}
                tx.records.put_many([NewVersion(resource=resource, owner="KN")])

        one.write(work)

    with opened(database_url, node="second") as second:
        run_on_both(database, second, create)

    counts = [
        len(database.read(lambda tx, n=n: tx.records.by_identifier("Patient", "urn:x", str(n), UNRESTRICTED)))
        for n in range(10)
    ]
    assert counts == [1] * 10


def test_bundles_over_the_same_resources_in_other_orders_all_commit(database: SqlDatabase, database_url: str) -> None:
    def bundle(one: SqlDatabase, name: str, turn: int) -> None:
        ids = [f"p{number}" for number in range(6)]
        resources = [patient(id, f"{name}{turn}") for id in (ids if name == "a" else reversed(ids))]
        one.write(lambda tx: tx.records.put_many([NewVersion(resource=r, owner="KN") for r in resources]))

    with opened(database_url, node="second") as second:
        run_on_both(database, second, bundle)

    assert database.read(lambda tx: tx.records.get("Patient", "p0", KN)).version == 20


def run_on_both(first: SqlDatabase, second: SqlDatabase, work: Callable[[SqlDatabase, str, int], Any]) -> None:
    """Run *work* ten times on each of two nodes at once; any exception fails the test."""
    trouble: list[BaseException] = []
    start = threading.Barrier(2)

    def run(one: SqlDatabase, name: str) -> None:
        try:
            for turn in range(10):
                start.wait(30)
                work(one, name, turn)
        except BaseException as error:
            trouble.append(error)
            start.abort()

    threads = [threading.Thread(target=run, args=pair) for pair in ((first, "a"), (second, "b"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert trouble == []


def test_a_node_whose_name_is_used_twice_still_keeps_both_journals(database: SqlDatabase, database_url: str) -> None:
    entry = NewEntry(
        door="mllp",
        institution="KN",
        peer="",
        correlation_id="c",
        message_type="ADT",
        digest="0",
        size=1,
        received_at=database._clock(),
    )
    with opened(database_url, node="test") as twin:
        run_on_both(database, twin, lambda one, name, turn: one.write(lambda tx: tx.journal.append(entry)))

    assert len(database.read(lambda tx: tx.journal.by_correlation("c"))) == 20
