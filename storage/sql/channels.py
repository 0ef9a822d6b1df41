"""Events of workitems in the table ``workitem_event``."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import sqlalchemy as sa

from hub.clock import from_us, to_us
from hub.ports.channels import ChannelEvent, NewChannelEvent
from storage.sql.schema import workitem_event as table

if TYPE_CHECKING:
    from storage.sql.transaction import SqlTx


class SqlChannels:
    """The :class:`hub.ports.channels.Channels` of one transaction."""

    def __init__(self, tx: SqlTx) -> None:
        self._connection = tx.connection

    def tell(self, event: NewChannelEvent, *, keep: int) -> int:
        """Let *event* wait; return how many of the oldest went for it."""
        values = {**asdict(event), "created_at": to_us(event.created_at)}
        self._connection.execute(sa.insert(table).values(**values))
        mine = (table.c.institution == event.institution, table.c.ae_title == event.ae_title)
        newest = sa.select(table.c.id).where(*mine).order_by(table.c.id.desc()).offset(keep).limit(1)
        last = self._connection.execute(newest).scalar()
        if last is None:
            return 0
        return self._connection.execute(sa.delete(table).where(*mine, table.c.id <= last)).rowcount

    def waiting(self, institution: str, ae_title: str, *, limit: int) -> Sequence[ChannelEvent]:
        """Return up to *limit* events of the AE, the oldest first."""
        rows = self._connection.execute(
            sa.select(table)
            .where(table.c.institution == institution, table.c.ae_title == ae_title)
            .order_by(table.c.id)
            .limit(limit)
        ).mappings()
        return [ChannelEvent(**{**row, "created_at": from_us(row["created_at"])}) for row in rows]

    def remove(self, ids: Collection[int]) -> None:
        """Forget the events of these ids; those that are gone already do no harm."""
        if ids:
            self._connection.execute(sa.delete(table).where(table.c.id.in_(sorted(ids))))
