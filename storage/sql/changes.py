"""The change feed of the imaging index: what arrived, what took its place, what is no longer shown.

Theory of operation. The journal writes one row for each arrival anyway, so an arrival costs nothing more; what becomes
of an instance later gets a row of its own there (door ``imaging``). Both are numbered by the journal, and a row never
changes. On PostgreSQL a number is taken before its transaction commits, so a higher one may be seen first. A reader
therefore asks two things in this order: how far numbers were given out, and which transactions hold the lock that an
INSERT into the journal takes before its number and keeps until its end (PostgreSQL 13.3.1, ROW EXCLUSIVE). Once those
are over, every number up to there is committed or will never be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from hub.access import Scope
from hub.clock import from_us, to_us
from hub.ports.imaging import Change, Writers
from storage.sql.access import study_visible
from storage.sql.schema import imaging_instance, imaging_study, journal
from storage.sql.schema.imaging import imaging_deletion

if TYPE_CHECKING:
    from storage.sql.transaction import SqlTx

#: The door of journal rows that tell what became of an instance.
DOOR = "imaging"
_ARRIVALS = ("dimse", "stow")
_ACTIONS = ("create", "update", "delete")
_LAST = "SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence('journal', 'seq')::regclass), 0)"
_WRITERS = """
SELECT DISTINCT virtualtransaction FROM pg_locks
 WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted AND relation = 'journal'::regclass
   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class SqlChanges:
    """The :class:`hub.ports.imaging.Changes` of one transaction."""

    def __init__(self, tx: SqlTx) -> None:
        self._tx = tx
        self._connection = tx.connection

    def announce(self, owner: str, SOPInstanceUID: str, action: str) -> None:
        """Write one change to the feed; durable with the transaction."""
        assert action in _ACTIONS
        now = to_us(self._tx.clock())
        # Without a digest: such a row needs no object, and the object may go before it.
        self._connection.execute(
            sa.insert(journal).values(
                correlation_id="",
                door=DOOR,
                institution=owner,
                control_id=SOPInstanceUID,
                message_type="CHANGE",
                digest="",
                size=0,
                received_at=now,
                finished_at=now,
                state="done",
                outcome=action,
            )
        )

    def writers(self) -> Writers:
        """Return how far the journal has numbered, and who may still commit a number up to there."""
        if self._tx.sqlite:
            # One writer at a time commits its numbers in their order.
            last = self._connection.execute(sa.select(sa.func.max(journal.c.seq))).scalar()
            return Writers(last=int(last or 0), open=frozenset())
        last = self._connection.exec_driver_sql(_LAST).scalar()
        open_ = self._connection.exec_driver_sql(_WRITERS).scalars()
        return Writers(last=int(last or 0), open=frozenset(map(str, open_)))

    def between(self, scope: Scope, *, since: int, until: int, limit: int, newest: bool = False) -> Sequence[Change]:
        """Return what *scope* shows of the changes with ``since < sequence <= until``, in order, or the newest first."""
        j = journal
        now_us = to_us(self._tx.clock())
        arrival = sa.and_(j.c.door.in_(_ARRIVALS), j.c.outcome == "new")
        change = sa.and_(j.c.door == DOOR, j.c.outcome.in_(_ACTIONS))
        seen = sa.or_(*(_seen(table, scope, now_us) for table in (imaging_instance, imaging_deletion)))
        statement = (
            sa.select(j.c.seq, j.c.institution, j.c.control_id, j.c.door, j.c.outcome, j.c.digest, j.c.received_at)
            .where(j.c.seq > since, j.c.seq <= until, sa.or_(arrival, change), seen)
            .order_by(j.c.seq.desc() if newest else j.c.seq)
            .limit(limit)
        )
        rows = self._connection.execute(statement).all()
        places = self._places({(row.institution, row.control_id) for row in rows})
        return [_change(row, places[row.institution, row.control_id]) for row in rows]

    def _places(self, wanted: set[tuple[str, str]]) -> dict[tuple[str, str], dict[str, Any]]:
        """Return where each (owner, SOP Instance UID) belongs, and the digest that is current of it."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        s = imaging_study
        by_owner: dict[str, list[str]] = {}
        for owner, uid in sorted(wanted):
            by_owner.setdefault(owner, []).append(uid)
        for owner, uids in by_owner.items():
            for start in range(0, len(uids), 500):
                for t in (imaging_deletion, imaging_instance):
                    current = t.c.current if t is imaging_instance else sa.false()
                    statement = (
                        sa.select(
                            t.c.SOPInstanceUID,
                            t.c.SeriesInstanceUID,
                            t.c.StudyInstanceUID,
                            t.c.digest,
                            current.label("current"),
                            s.c.patient_id,
                        )
                        .join(s, sa.and_(s.c.owner == t.c.owner, s.c.StudyInstanceUID == t.c.StudyInstanceUID))
                        .where(t.c.owner == owner, t.c.SOPInstanceUID.in_(uids[start : start + 500]))
                    )
                    for row in self._connection.execute(statement).mappings():
                        key = (owner, row["SOPInstanceUID"])
                        known = found.get(key)
                        # The current version tells best where the instance belongs.
                        if known is None or row["current"] or not known["current"]:
                            found[key] = dict(row)
        return found


def _seen(table: sa.Table, scope: Scope, now_us: int) -> sa.ColumnElement[bool]:
    """Return whether the instance of a journal row stands in *table*, in a study that *scope* shows."""
    t, s = table.alias(), imaging_study.alias()
    return sa.exists(
        sa.select(sa.literal_column("1"))
        .select_from(t.join(s, sa.and_(s.c.owner == t.c.owner, s.c.StudyInstanceUID == t.c.StudyInstanceUID)))
        .where(
            t.c.owner == journal.c.institution,
            t.c.SOPInstanceUID == journal.c.control_id,
            study_visible(scope, now_us, s),
        )
        .correlate(journal)
    )


def _change(row: Any, place: dict[str, Any]) -> Change:
    state = "current" if place["current"] else "deleted"
    if row.door != DOOR and place["current"] and place["digest"] != row.digest:
        state = "replaced"
    return Change(
        sequence=row.seq,
        owner=row.institution,
        StudyInstanceUID=place["StudyInstanceUID"],
        SeriesInstanceUID=place["SeriesInstanceUID"],
        SOPInstanceUID=row.control_id,
        patient_id=place["patient_id"],
        action="create" if row.door != DOOR else row.outcome,
        at=from_us(row.received_at),
        state=state,
    )
