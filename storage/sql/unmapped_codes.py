"""The queue of codes that wait for a map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import sqlalchemy as sa

from hub.clock import from_us, to_us
from hub.ports.codes import Sighting, UnmappedItem
from storage.sql._dialect import insert
from storage.sql.schema import unmapped_code as table

if TYPE_CHECKING:
    from storage.sql.transaction import SqlTx


class SqlUnmappedCodes:
    """The :class:`hub.ports.codes.UnmappedCodes` of one transaction."""

    def __init__(self, tx: SqlTx) -> None:
        self._tx = tx
        self._connection = tx.connection

    def seen(self, sightings: Sequence[Sighting]) -> None:
        """Add *sightings* to their items, making those that are new."""
        if not sightings:
            return
        statement = insert(table, on_sqlite=self._tx.sqlite)
        new = statement.excluded
        statement = statement.on_conflict_do_update(
            index_elements=["institution", "system", "code"],
            set_={
                "messages": table.c.messages + new.messages,
                # Two processes write in turn, and the later to write may have seen the earlier message.
                "last_seen": sa.case((new.last_seen > table.c.last_seen, new.last_seen), else_=table.c.last_seen),
                "sample_seq": sa.case((new.sample_seq > table.c.sample_seq, new.sample_seq), else_=table.c.sample_seq),
                "first_seq": sa.case((new.first_seq < table.c.first_seq, new.first_seq), else_=table.c.first_seq),
            },
        )
        self._connection.execute(
            statement,
            # In one order for all, so that two processes wait for each other instead of deadlocking.
            [
                {
                    "institution": one.institution,
                    "system": one.system,
                    "code": one.code,
                    "first_seen": to_us(one.at),
                    "last_seen": to_us(one.at),
                    "messages": one.count,
                    "first_seq": one.seq,
                    "sample_seq": one.seq,
                }
                for one in sorted(sightings, key=lambda one: (one.institution, one.system, one.code))
            ],
        )

    def items(self, institution: str | None, *, limit: int) -> Sequence[UnmappedItem]:
        """Return the items of *institution*, or of all, those met most often first."""
        statement = sa.select(table).order_by(
            table.c.messages.desc(), table.c.institution, table.c.system, table.c.code
        )
        if institution is not None:
            statement = statement.where(table.c.institution == institution)
        return [
            UnmappedItem(
                institution=row.institution,
                system=row.system,
                code=row.code,
                first_seen=from_us(row.first_seen),
                last_seen=from_us(row.last_seen),
                count=row.messages,
                first_seq=row.first_seq,
                sample_seq=row.sample_seq,
            )
            for row in self._connection.execute(statement.limit(limit))
        ]

    def number(self, institution: str) -> int:
        """Return how many items *institution* has."""
        statement = sa.select(sa.func.count()).select_from(table).where(table.c.institution == institution)
        return int(self._connection.execute(statement).scalar_one())

    def settle(self, items: Sequence[UnmappedItem]) -> None:
        """Take *items* off the queue."""
        for one in items:
            self._connection.execute(
                sa.delete(table).where(
                    table.c.institution == one.institution, table.c.system == one.system, table.c.code == one.code
                )
            )
