"""Deadlines in the database: they survive restarts and fire once, whichever node takes them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from fhir_mappings.json import dumps, loads
from hub.clock import from_us, to_us
from hub.ports import Timer
from storage.sql._dialect import insert
from storage.sql.schema import timer as table

if TYPE_CHECKING:
    from storage.sql.transaction import SqlTx


class SqlTimers:
    """The :class:`hub.ports.Timers` of one transaction."""

    def __init__(self, tx: SqlTx) -> None:
        self._tx = tx
        self._connection = tx.connection

    def set(self, timer: Timer, *, earliest_wins: bool = False) -> None:
        """Set or move the timer; with *earliest_wins* a timer that is due sooner stays."""
        values = {"due_at": to_us(timer.due_at), "payload": dumps(dict(timer.payload)).decode()}
        statement = insert(table, on_sqlite=self._tx.sqlite).values(kind=timer.kind, key=timer.key, **values)
        self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=["kind", "key"],
                set_=values,
                where=table.c.due_at > values["due_at"] if earliest_wins else None,
            )
        )

    def cancel(self, kind: str, key: str) -> None:
        """Remove the timer if it is set."""
        self._connection.execute(sa.delete(table).where(table.c.kind == kind, table.c.key == key))

    def due(self, now: datetime, *, limit: int) -> Sequence[Timer]:
        """Return timers that are due, soonest first."""
        rows = self._connection.execute(
            sa.select(table)
            .where(table.c.due_at <= to_us(now))
            .order_by(table.c.due_at, table.c.kind, table.c.key)
            .limit(limit)
        )
        return [Timer(kind=r.kind, key=r.key, due_at=from_us(r.due_at), payload=loads(r.payload)) for r in rows]

    def take(self, timer: Timer) -> bool:
        """Remove the timer inside this transaction; ``False`` when it was taken or moved meanwhile."""
        result = self._connection.execute(
            sa.delete(table).where(
                table.c.kind == timer.kind, table.c.key == timer.key, table.c.due_at == to_us(timer.due_at)
            )
        )
        return bool(result.rowcount == 1)
