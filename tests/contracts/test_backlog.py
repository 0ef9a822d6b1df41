"""A start meets a long backlog in memory that does not grow with it: what waits stays in the database until its turn."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime

import sqlalchemy as sa

from hub.ports import NewDelivery
from storage.sql.database import SqlDatabase
from storage.sql.schema import journal, outbox, outbox_lane
from tests.support.v2 import V2Hub, adt

WAITING = 20_000
PAYLOAD = b"MSH|" + b"x" * 2000
#: All of what waits has nearly ten times that.
MOST_BYTES = 4 << 20
NOW = datetime(2030, 1, 1, tzinfo=UTC)


def multiplied(
    database: SqlDatabase, table: sa.Table, own: str, by: Callable[[sa.ColumnElement[str]], dict[str, object]]
) -> None:
    """Let the only row of *table* that waits stand there :data:`WAITING` times; *by* says what differs, *own* is made by the database."""
    number = sa.select(sa.literal(1).label("n")).cte("numbers", recursive=True)
    number = number.union_all(sa.select(number.c.n + 1).where(number.c.n < WAITING - 1))
    names = [one.name for one in table.c if one.name != own]
    changed = by(sa.cast(number.c.n, sa.Text))
    row = sa.select(*(changed.get(name, table.c[name]) for name in names)).select_from(
        table.join(number, table.c.state.in_(["pending", "ready", "received"]))
    )  # type: ignore[call-overload]
    database.write(lambda tx: tx.connection.execute(sa.insert(table).from_select(names, row)))  # type: ignore[attr-defined]


def counted(database: SqlDatabase, table: sa.Table, state: str) -> int:
    """Return how many rows of *table* are in *state*."""
    statement = sa.select(sa.func.count()).select_from(table).where(table.c.state == state)
    return int(database.read(lambda tx: tx.connection.execute(statement).scalar_one()))  # type: ignore[attr-defined]


def highest(work: Callable[[], object]) -> int:
    """Return the bytes that *work* had at most."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_deliveries_that_wait_are_read_as_they_are_leased(database: SqlDatabase) -> None:
    delivery = NewDelivery(destination="KN/mllp", lane="KN/mllp|p", kind="mllp", payload=PAYLOAD, owner="KN")
    database.write(lambda tx: tx.outbox.enqueue(delivery))
    multiplied(database, outbox, "id", lambda n: {"lane": sa.literal("KN/mllp|p").concat(n)})
    multiplied(database, outbox_lane, "", lambda n: {"lane": sa.literal("KN/mllp|p").concat(n)})
    found: list[object] = []

    def start() -> None:
        database.write(lambda tx: tx.outbox.give_back("w"))
        found.extend(database.write(lambda tx: tx.outbox.lease("w", now=NOW, lease_s=60, limit=64)))

    assert highest(start) < MOST_BYTES
    assert len(found) == 8
    assert counted(database, outbox, "pending") == WAITING


def test_messages_that_wait_are_read_as_they_are_applied(database: SqlDatabase) -> None:
    hub = V2Hub(database, ack="stored")
    # What is imported for the first message is not of the backlog.
    hub.raw(adt("A01", "0").encode("gb18030"))
    assert hub.messages.process_pending(16) == 1
    hub.raw((adt("A01", "1") + f"ZZZ|{'x' * 2000}\r").encode("gb18030"))
    multiplied(database, journal, "seq", lambda n: {"control_id": n, "digest": n})
    assert counted(database, journal, "received") == WAITING
    done: list[int] = []
    assert highest(lambda: done.append(hub.messages.process_pending(16))) < MOST_BYTES
    assert done == [16]
    assert counted(database, journal, "received") == WAITING - 16
