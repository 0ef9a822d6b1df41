"""Deadlines in the database: they survive restarts and fire once, whichever node takes them.

A lease is the deadline of somebody's right to do what one node at a time may do. As with the lanes of the outbox, its
epoch and not its time keeps two holders apart: each transaction of the work begins with :meth:`SqlTimers.hold`, which
locks the lease until the commit and fails once another has taken it. So a clock that is wrong costs a change of hands
at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from fhir_mappings.json import dumps, loads
from hub.clock import from_us, to_us
from hub.ports import Timer
from storage.sql._dialect import insert
from storage.sql.prepared import Prepared
from storage.sql.schema import lease
from storage.sql.schema import timer as table

if TYPE_CHECKING:
    from storage.sql.transaction import SqlTx

#: Each message that is processed later runs it.
_HOLD = Prepared(
    sa.update(lease).where(lease.c.name == sa.bindparam("of_name"), lease.c.epoch == sa.bindparam("of_epoch")),
    keys=("until",),
)


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

    def due(self, now: datetime, *, limit: int, kind: str = "", beside: str = "") -> Sequence[Timer]:
        """Return timers that are due, soonest first; see :class:`hub.ports.Timers`."""
        of_kind = [table.c.kind == kind] if kind else [table.c.kind != beside] if beside else []
        rows = self._connection.execute(
            sa.select(table)
            .where(table.c.due_at <= to_us(now), *of_kind)
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

    # --- leases ----------------------------------------------------------------------------------------------

    def lease(self, name: str, holder: str, *, now: datetime, lease_s: float) -> int | None:
        """Take the lease *name*; see :class:`hub.ports.Timers`."""
        moment = to_us(now)
        values = {"holder": holder, "until": to_us(now + timedelta(seconds=lease_s))}
        free = (lease.c.holder == holder) | (lease.c.until <= moment)
        # An upsert would wait for the holder's transactions even where it has nothing to change.
        take = (
            sa.update(lease)
            .where(lease.c.name == name, free)
            .values(**values, epoch=lease.c.epoch + 1)
            .returning(lease.c.epoch)
        )
        make = (
            insert(lease, on_sqlite=self._tx.sqlite)
            .values(name=name, epoch=1, **values)
            .on_conflict_do_nothing()
            .returning(lease.c.epoch)
        )
        # The third finds the row that another transaction made, free, while the second waited for it.
        for statement in (take, make, take):
            epoch = self._connection.execute(statement).scalar()
            if epoch is not None:
                return int(epoch)
        return None

    def leased(self, name: str, *, now: datetime) -> str:
        """Return who holds the lease *name* now, or an empty text."""
        held = sa.select(lease.c.holder).where(lease.c.name == name, lease.c.until > to_us(now))
        return self._connection.execute(held).scalar() or ""

    def hold(self, name: str, epoch: int, *, now: datetime, lease_s: float) -> bool:
        """Keep the lease for this transaction and *lease_s* more; ``False`` when it has passed on."""
        until = to_us(now + timedelta(seconds=lease_s))
        return _HOLD.run(self._connection, {"of_name": name, "of_epoch": epoch, "until": until}) == 1

    def beside(self, name: str) -> None:
        """Keep the holder of *name* out of its next transaction until this one ends; nobody loses the lease."""
        if self._tx.sqlite:
            # A write transaction holds the whole database from its start.
            return
        # The row is made where there is none, because only a row can be locked; updated to itself it is.
        statement = insert(lease, on_sqlite=False).values(name=name, holder="", until=0, epoch=0)
        self._connection.execute(
            statement.on_conflict_do_update(index_elements=["name"], set_={"holder": lease.c.holder})
        )

    def release(self, name: str, epoch: int) -> None:
        """Let go of the lease, if it has not passed on."""
        self._connection.execute(
            sa.update(lease).where(lease.c.name == name, lease.c.epoch == epoch).values(holder="", until=0)
        )
