"""Which objects are packed, which are to be, and whether the hub has something better to do.

Nothing here shows patient data to anybody: packing changes how bytes lie on the disk, and every door goes on asking the
imaging index, with the scope of who asks, before it reads an object.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from hub.clock import from_us, to_us
from hub.ports import ObjectRef
from hub.ports.packing import Candidates, PackedTotals, Packing
from hub.recompression import NATIVE, RETRIED
from storage.sql._dialect import insert
from storage.sql.schema import audit, imaging_instance, imaging_series, journal, outbox_lane
from storage.sql.schema import object_packing as table

if TYPE_CHECKING:
    from storage.sql.transaction import SqlTx

#: Audit lines of images on their way out, and of deliveries.
_OUTGOING = ("C-MOVE", "C-GET", "dimse", "mllp", "fhir")


class SqlPackings:
    """The :class:`hub.ports.packing.Packings` of one transaction."""

    def __init__(self, tx: SqlTx) -> None:
        self._tx = tx
        self._connection = tx.connection

    def find(self, digest: str) -> Packing | None:
        """Return the packed form of an object, if it has one."""
        row = self._connection.execute(
            sa.select(table).where(table.c.digest == digest, table.c.packed_digest != "")
        ).first()
        return None if row is None else _packing(row)

    def record(self, packing: Packing) -> None:
        """Write down what became of an object; a later word takes the place of an earlier one."""
        packed = packing.packed
        values = {
            "size": packing.size,
            "packed_digest": packed.digest if packed else "",
            "packed_size": packed.size if packed else 0,
            "TransferSyntaxUID": packing.syntax,
            "reason": packing.reason,
            "settled": packing.settled,
            "at": to_us(packing.at),
        }
        statement = insert(table, on_sqlite=self._tx.sqlite).values(digest=packing.digest, **values)
        self._connection.execute(statement.on_conflict_do_update(index_elements=["digest"], set_=values))

    def unsettled(self, *, before: datetime, limit: int) -> Sequence[Packing]:
        """Return packed objects whose originals have stood beside them since *before*, the oldest first."""
        rows = self._connection.execute(
            sa.select(table)
            .where(table.c.packed_digest != "", ~table.c.settled, table.c.at <= to_us(before))
            .order_by(table.c.at, table.c.digest)
            .limit(limit)
        )
        return [_packing(row) for row in rows]

    def candidates(
        self,
        owner: str,
        *,
        syntax: str,
        modalities: Sequence[str],
        received_before: datetime,
        retry_before: datetime,
        after: int,
        span: int,
    ) -> Candidates:
        """Return what a policy wants packed among the next rows of the index, whichever member's they are."""
        t, s = imaging_instance, imaging_series
        # By row number, so that a look costs the same however many rows there are.
        upto = self._connection.execute(
            sa.select(sa.func.max(sa.text("iid"))).select_from(
                sa.select(t.c.iid).where(t.c.iid > after).order_by(t.c.iid).limit(span).subquery()
            )
        ).scalar()
        if upto is None:
            return Candidates(objects=(), upto=None)
        again = sa.and_(table.c.reason.in_(RETRIED), table.c.at <= to_us(retry_before))
        open_to = sa.or_(
            table.c.digest.is_(None),
            sa.and_(table.c.packed_digest == "", sa.or_(table.c.TransferSyntaxUID != syntax, again)),
        )
        statement = (
            sa.select(t.c.digest, t.c.size)
            .join(table, table.c.digest == t.c.digest, isouter=True)
            .where(
                t.c.iid > after,
                t.c.iid <= upto,
                t.c.owner == owner,
                t.c.received_at <= to_us(received_before),
                t.c.TransferSyntaxUID.in_(NATIVE),
                t.c.pixel_offset.is_not(None),
                open_to,
            )
            .order_by(t.c.iid)
        )
        if modalities:
            statement = statement.join(
                s,
                (s.c.owner == t.c.owner)
                & (s.c.StudyInstanceUID == t.c.StudyInstanceUID)
                & (s.c.SeriesInstanceUID == t.c.SeriesInstanceUID),
            ).where(s.c.Modality.in_(list(modalities)))
        found = {row.digest: row.size for row in self._connection.execute(statement)}
        return Candidates(objects=[ObjectRef(digest=one, size=size) for one, size in found.items()], upto=int(upto))

    def busy(self, *, now: datetime, since: datetime) -> bool:
        """Return whether the hub has had, or has, messages or images to move."""
        moment, start = to_us(now), to_us(since)
        lane = outbox_lane
        one: sa.ColumnElement[int] = sa.literal_column("1")
        asked: tuple[sa.Select[Any], ...] = (
            sa.select(one).where(journal.c.received_at > start),
            # A lane that waits for its next attempt, or for a person, is no work.
            sa.select(one).where(lane.c.lease_until > moment),
            sa.select(one).where(
                audit.c.recorded_at > start,
                sa.or_(audit.c.subtype.in_(_OUTGOING), audit.c.subtype.like("WADO%")),
            ),
        )
        return any(self._connection.execute(statement.limit(1)).first() is not None for statement in asked)

    def totals(self) -> PackedTotals:
        """Return how far packing has come."""
        count, size, packed = sa.func.count(), sa.func.sum(table.c.size), sa.func.sum(table.c.packed_size)
        rows = self._connection.execute(
            sa.select(table.c.reason, table.c.settled, count.label("n"), size.label("size"), packed.label("packed"))
            .group_by(table.c.reason, table.c.settled)
            .order_by(table.c.reason)
        ).all()
        done = [row for row in rows if not row.reason and row.settled]
        return PackedTotals(
            settled=sum(row.n for row in done),
            waiting=sum(row.n for row in rows if not row.reason and not row.settled),
            original_bytes=sum(int(row.size) for row in done),
            packed_bytes=sum(int(row.packed) for row in done),
            refused={row.reason: row.n for row in rows if row.reason},
        )


def _packing(row: sa.Row[Any]) -> Packing:
    return Packing(
        digest=row.digest,
        size=row.size,
        packed=ObjectRef(digest=row.packed_digest, size=row.packed_size) if row.packed_digest else None,
        syntax=row.TransferSyntaxUID,
        reason=row.reason,
        settled=bool(row.settled),
        at=from_us(row.at),
    )
