"""The journal by feed: the last arrivals of one, and whether there was any in a span of time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from hub.clock import from_us, to_us
from hub.ports.feeds import Feed, Received, Waiting
from storage.sql.criteria import named
from storage.sql.schema import journal, outbox

if TYPE_CHECKING:
    from storage.sql.transaction import SqlTx


class SqlFeeds:
    """The :class:`hub.ports.feeds.Feeds` of one transaction."""

    def __init__(self, tx: SqlTx) -> None:
        self._connection = tx.connection

    def recent(self, feed: Feed, *, limit: int) -> Sequence[Received]:
        """Return when the last arrivals of *feed* came and what became of them, newest first."""
        statement = sa.select(
            journal.c.seq, journal.c.received_at, journal.c.state, journal.c.outcome, journal.c.finished_at
        )
        statement = statement.where(*_of(feed)).order_by(journal.c.seq.desc()).limit(limit)
        return [
            Received(
                seq=row.seq,
                received_at=from_us(row.received_at),
                state=row.state,
                outcome=row.outcome,
                finished_at=None if row.finished_at is None else from_us(row.finished_at),
            )
            for row in self._connection.execute(statement)
        ]

    def any_between(self, feed: Feed, since: datetime | None, until: datetime) -> bool:
        """Return whether *feed* brought anything between these times, to the moment.

        Times are turned into numbers first, so that only rows of the feed are read.
        """
        conditions = _of(feed)
        last = self._first_from(until)
        if last is not None:
            conditions.append(journal.c.seq < last)
        if since is not None:
            first = self._first_from(since)
            if first is None or (last is not None and first >= last):
                return False
            conditions.append(journal.c.seq >= first)
        return self._connection.execute(sa.select(sa.literal(1)).where(*conditions).limit(1)).first() is not None

    def waiting(self) -> Sequence[Waiting]:
        """Return what is stored and not yet processed; see :class:`hub.ports.feeds.Feeds`."""
        names = (journal.c.door, journal.c.institution, journal.c.sending_application, journal.c.sending_facility)
        statement = sa.select(
            *names, sa.func.count().label("number"), sa.func.min(journal.c.received_at).label("oldest_at")
        )
        # As a literal, so that the index of what waits serves.
        statement = statement.where(journal.c.state == sa.literal_column("'received'")).group_by(*names)
        return [
            Waiting(
                door=row.door,
                institution=row.institution,
                sending_application=row.sending_application,
                sending_facility=row.sending_facility,
                count=row.number,
                oldest_at=from_us(row.oldest_at),
            )
            for row in self._connection.execute(statement)
        ]

    def acknowledged(self, destination: str, *, limit: int) -> Sequence[float]:
        """Return how long the last deliveries took from queueing; see :class:`hub.ports.feeds.Feeds`."""
        statement = sa.select(outbox.c.acked_at, outbox.c.created_at).where(
            outbox.c.destination == destination, outbox.c.state == sa.literal_column("'sent'")
        )
        found = self._connection.execute(statement.order_by(outbox.c.id.desc()).limit(limit))
        return [max(0.0, (row.acked_at - row.created_at) / 1e6) for row in found if row.acked_at is not None]

    def _first_from(self, moment: datetime) -> int | None:
        """Return the number of the first entry that was received at *moment* or later."""
        at = journal.c.received_at
        statement = sa.select(journal.c.seq).where(at >= to_us(moment)).order_by(at, journal.c.seq).limit(1)
        found = self._connection.execute(statement).scalar()
        return None if found is None else int(found)


def _of(feed: Feed) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = [journal.c.institution == feed.institution, journal.c.door.in_(feed.doors)]
    for name in ("sending_facility", "sending_application"):
        value = getattr(feed, name)
        if value:
            found += [journal.c[name] == value, named(journal.c[name])]
    return found
