"""Journal entries whose time is over, their removal in small steps, and the room that they leave.

The entries of a member and a time are found by their numbers (index ``ix_journal_institution``), from the lowest on, so a
step costs what it removes and not what is kept. On SQLite the free pages then leave the file by incremental vacuum
(https://www.sqlite.org/pragma.html#pragma_incremental_vacuum); PostgreSQL's autovacuum makes their room free for new rows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hub.clock import to_us
from hub.ports import Old
from storage.sql.schema import journal, outbox

#: Pages of one step of vacuum: 4 MiB, so that nobody waits long for the lock.
_PAGES = 1024
#: SQLite takes 32,766 values in a statement.
_MOST = 10_000
#: The door whose last entry says how far a view was read (``adapters/worker/views.py``).
_VIEW = "hl7-view"


def old(
    connection: Connection, institution: str, *, doors: Collection[str], before: datetime, above: int, limit: int
) -> Sequence[Old]:
    """Return entries whose time may be over; see :class:`hub.ports.Journal`."""
    later = journal.alias()
    is_last = ~sa.exists(sa.select(sa.literal(1)).where(later.c.seq > journal.c.seq))
    is_mark = sa.and_(
        journal.c.door == _VIEW,
        ~sa.exists(
            sa.select(sa.literal(1)).where(
                later.c.door == _VIEW,
                later.c.institution == journal.c.institution,
                later.c.peer == journal.c.peer,
                later.c.seq > journal.c.seq,
            )
        ),
    )
    undelivered = sa.exists(
        sa.select(sa.literal(1)).where(
            journal.c.correlation_id != "",
            outbox.c.correlation_id == journal.c.correlation_id,
            outbox.c.state.in_(("pending", "dead")),
        )
    )
    why: Any = sa.case(
        (journal.c.state.not_in(("done", "refused")), "open"),
        (undelivered, "delivery"),
        # The highest number must not be given again, because resources are named after numbers.
        (sa.or_(is_last, is_mark), "mark"),
        else_="",
    )
    statement = (
        sa.select(journal.c.seq, journal.c.patient_id, journal.c.size, why.label("why"))
        .where(
            journal.c.institution == institution,
            journal.c.seq > above,
            journal.c.door.in_(list(doors)),
            journal.c.received_at < to_us(before),
        )
        .order_by(journal.c.seq)
        .limit(limit)
    )
    return [
        Old(seq=row.seq, patient_id=row.patient_id, size=row.size, why_kept=row.why)
        for row in connection.execute(statement)
    ]


def remove(connection: Connection, numbers: Collection[int]) -> int:
    """Remove the entries with *numbers*; returns how many there were."""
    going = sorted(numbers)
    removed = 0
    for start in range(0, len(going), _MOST):
        part = going[start : start + _MOST]
        removed += connection.execute(sa.delete(journal).where(journal.c.seq.in_(part))).rowcount
    return removed


def reclaim(connection: Connection) -> bool:
    """Let free pages leave a SQLite file; returns whether more can."""
    if connection.dialect.name != "sqlite":
        return False
    if connection.exec_driver_sql("PRAGMA auto_vacuum").scalar() != 2:
        # Made by an earlier version: its free pages are used again, and `VACUUM` alone could shrink it.
        return False
    free = int(connection.exec_driver_sql("PRAGMA freelist_count").scalar_one())
    cursor = connection.connection.cursor()
    # The driver runs this statement to its first page only, whatever number stands in it, because it has no columns.
    for _ in range(min(free, _PAGES)):
        cursor.execute("PRAGMA incremental_vacuum(1)")
    cursor.close()
    return free > _PAGES
