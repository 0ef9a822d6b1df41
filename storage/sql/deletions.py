"""Instances marked deleted, studies on legal hold, and the removal of what retention no longer asks for.

A mark sets the instance's current version aside, which every query, count and cache of the imaging index goes by; the
row and its bytes stay. Only :meth:`SqlDeletions.purge` removes rows, for a command of the operator.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from hub.clock import from_us, to_us
from hub.ports import InstanceRow, ObjectRef, StudyKey
from hub.ports.imaging import Hold, Kept, Mark
from storage.sql._dialect import insert
from storage.sql.access import MERGED_RECORD, WHOLE_RECORD
from storage.sql.changes import SqlChanges
from storage.sql.schema import access_grant, imaging_instance, imaging_series, imaging_study
from storage.sql.schema.imaging import imaging_deletion, imaging_hold

if TYPE_CHECKING:
    from storage.sql.transaction import SqlTx

_instance, _series, _study = imaging_instance, imaging_series, imaging_study
#: Columns of a study that say something of its patient or its content; a purged study keeps none of them.
_SAID = (
    "PatientID", "IssuerOfPatientID", "PatientName", "name_search", "PatientNamePinyin", "PatientBirthDate",
    "PatientSex", "StudyDate", "StudyTime", "StudyID", "StudyDescription", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip


class SqlDeletions:
    """The :class:`hub.ports.imaging.Deletions` of one transaction."""

    def __init__(self, tx: SqlTx) -> None:
        self._tx = tx
        self._connection = tx.connection

    # --- marks -----------------------------------------------------------------------------------------------

    def mark(self, rows: Sequence[InstanceRow], *, reason: str, by: str, at: datetime) -> None:
        """Let nobody be shown the current instances *rows* any more; their bytes and rows stay."""
        changes = SqlChanges(self._tx)
        for row in rows:
            done = self._connection.execute(
                sa.update(_instance)
                .where(
                    _instance.c.owner == row.owner,
                    _instance.c.SOPInstanceUID == row.SOPInstanceUID,
                    _instance.c.digest == row.digest,
                    _instance.c.current == sa.true(),
                )
                .values(current=False)
            )
            if not done.rowcount:
                continue
            self._write(row, reason=reason, by=by, at=at, purged_at=None)
            changes.announce(row.owner, row.SOPInstanceUID, "delete")

    def _write(self, row: InstanceRow, *, reason: str, by: str, at: datetime, purged_at: datetime | None) -> None:
        values: dict[str, Any] = {
            "StudyInstanceUID": row.StudyInstanceUID,
            "SeriesInstanceUID": row.SeriesInstanceUID,
            "digest": row.digest,
            "reason": reason,
            "marked_by": by,
            "marked_at": to_us(at),
            "purged_at": None if purged_at is None else to_us(purged_at),
        }
        key = {"owner": row.owner, "SOPInstanceUID": row.SOPInstanceUID}
        self._connection.execute(
            insert(imaging_deletion, on_sqlite=self._tx.sqlite)
            .values(**key, **values)
            .on_conflict_do_update(index_elements=list(key), set_=values)
        )

    def unmark(self, key: StudyKey, SOPInstanceUID: str) -> None:
        """Forget the mark of an instance."""
        t = imaging_deletion
        self._connection.execute(sa.delete(t).where(t.c.owner == key.owner, t.c.SOPInstanceUID == SOPInstanceUID))

    def marked(self, owner: str, SOPInstanceUID: str) -> Mark | None:
        """Return the mark of an instance whose bytes are still here."""
        t = imaging_deletion
        found = self._marks(sa.select(t).where(t.c.owner == owner, t.c.SOPInstanceUID == SOPInstanceUID, _here(t)))
        return found[0] if found else None

    def of_study(self, key: StudyKey) -> Sequence[Mark]:
        """Return the marks of a study whose bytes are still here, in the order of their UIDs."""
        t = imaging_deletion
        return self._marks(sa.select(t).where(*_of(t, key), _here(t)).order_by(t.c.SOPInstanceUID))

    def newest(self, *, owner: str | None, limit: int) -> Sequence[Mark]:
        """Return marks, the newest first."""
        t = imaging_deletion
        statement = sa.select(t).order_by(t.c.marked_at.desc(), t.c.owner, t.c.SOPInstanceUID).limit(limit)
        return self._marks(statement if owner is None else statement.where(t.c.owner == owner))

    def _marks(self, statement: sa.Select[Any]) -> list[Mark]:
        found = []
        for row in self._connection.execute(statement).mappings():
            values = dict(row)
            values["marked_at"] = from_us(values["marked_at"])
            values["purged_at"] = None if values["purged_at"] is None else from_us(values["purged_at"])
            found.append(Mark(**values))
        return found

    def enforce(self, key: StudyKey) -> int:
        """Set marked instances aside that a sender brought back in the very moment of the mark; returns how many."""
        t = imaging_deletion
        marks = sa.select(t.c.SOPInstanceUID).where(*_of(t, key), _here(t))
        done = self._connection.execute(
            sa.update(_instance)
            .where(*_of(_instance, key), _instance.c.current == sa.true(), _instance.c.SOPInstanceUID.in_(marks))
            .values(current=False)
        )
        return int(done.rowcount)

    # --- holds -----------------------------------------------------------------------------------------------

    def hold(self, hold: Hold) -> None:
        """Put a study on hold, or give its hold another reason."""
        values = {"reason": hold.reason, "held_by": hold.held_by, "held_at": to_us(hold.held_at)}
        key = {"owner": hold.key.owner, "StudyInstanceUID": hold.key.StudyInstanceUID}
        self._connection.execute(
            insert(imaging_hold, on_sqlite=self._tx.sqlite)
            .values(**key, **values)
            .on_conflict_do_update(index_elements=list(key), set_=values)
        )

    def release(self, key: StudyKey) -> bool:
        """End a hold; returns whether there was one."""
        return bool(self._connection.execute(sa.delete(imaging_hold).where(*_of(imaging_hold, key))).rowcount)

    def held(self, key: StudyKey) -> Hold | None:
        """Return the hold of a study."""
        row = self._connection.execute(sa.select(imaging_hold).where(*_of(imaging_hold, key))).first()
        return None if row is None else _hold(row)

    def holds(self, *, owner: str | None = None) -> Sequence[Hold]:
        """Return the studies on hold, the oldest hold first."""
        t = imaging_hold
        statement = sa.select(t).order_by(t.c.held_at, t.c.owner, t.c.StudyInstanceUID)
        if owner is not None:
            statement = statement.where(t.c.owner == owner)
        return [_hold(row) for row in self._connection.execute(statement)]

    # --- retention -------------------------------------------------------------------------------------------

    def older(self, owner: str, *, day: str, before: datetime, only: StudyKey | None = None) -> Sequence[Kept]:
        """Return the owner's studies with bytes that were made before *day* and all received before *before*."""
        conditions = [_study.c.StudyDate < day]
        if only is not None:
            conditions.append(_study.c.StudyInstanceUID == only.StudyInstanceUID)
        return self._kept(owner, conditions, before=before)

    def of_patients(self, owner: str, patients: Sequence[str]) -> Sequence[Kept]:
        """Return the owner's studies of *patients* that have bytes."""
        return self._kept(owner, [_study.c.patient_id.in_(list(patients))])

    def _kept(
        self, owner: str, conditions: Sequence[sa.ColumnElement[bool]], *, before: datetime | None = None
    ) -> list[Kept]:
        i = _instance
        statement = (
            sa.select(
                *(_study.c[name] for name in ("StudyInstanceUID", "resource_id", "patient_id", "StudyDate")),
                sa.func.count().label("instances"),
                sa.func.sum(i.c.size).label("size"),
                sa.func.max(i.c.received_at).label("received_at"),
            )
            .join(i, sa.and_(i.c.owner == _study.c.owner, i.c.StudyInstanceUID == _study.c.StudyInstanceUID))
            .where(_study.c.owner == owner, *conditions)
            .group_by(*(_study.c[name] for name in ("StudyInstanceUID", "resource_id", "patient_id", "StudyDate")))
            .order_by(_study.c.StudyDate, _study.c.StudyInstanceUID)
        )
        if before is not None:
            statement = statement.having(sa.func.max(i.c.received_at) < to_us(before))
        found = []
        for row in self._connection.execute(statement).all():
            key = StudyKey(owner=owner, StudyInstanceUID=row.StudyInstanceUID)
            # Of all series: one that is marked deleted is kept for its modality too.
            modalities = self._connection.execute(sa.select(_series.c.Modality).where(*_of(_series, key)).distinct())
            found.append(
                Kept(
                    key=key,
                    resource_id=row.resource_id,
                    patient_id=row.patient_id,
                    StudyDate=row.StudyDate,
                    modalities=tuple(sorted(filter(None, modalities.scalars()))),
                    received_at=from_us(row.received_at),
                    instances=int(row.instances),
                    size=int(row.size),
                )
            )
        return found

    def granted(self, kept: Kept, patients: Sequence[str], *, now: datetime) -> bool:
        """Return whether an open grant lets somebody see the study, or the whole record of one of *patients*."""
        t = access_grant
        study = sa.and_(t.c.target_type == "ImagingStudy", t.c.target_id == kept.resource_id)
        record = sa.and_(t.c.target_type.in_((WHOLE_RECORD, MERGED_RECORD)), t.c.target_id.in_(list(patients)))
        statement = sa.select(t.c.grantee).where(sa.or_(study, record), t.c.until > to_us(now)).limit(1)
        return self._connection.execute(statement).first() is not None

    def purge(self, key: StudyKey, *, reason: str, by: str, at: datetime) -> Sequence[ObjectRef]:
        """Forget a study for good: its instances, series and its patient's data; returns the objects that were its own."""
        from storage.sql.imaging import SqlImaging

        changes = SqlChanges(self._tx)
        objects: dict[str, int] = {}
        for row in SqlImaging(self._tx).versions_of(key):
            objects[row.digest] = row.size
            self._write(row, reason=reason, by=by, at=at, purged_at=at)
            if row.current:
                changes.announce(key.owner, row.SOPInstanceUID, "delete")
        self._connection.execute(sa.delete(_instance).where(*_of(_instance, key)))
        self._connection.execute(sa.delete(_series).where(*_of(_series, key)))
        # The row stays, for the feed tells by it who may know that there was a study.
        blank: dict[str, Any] = dict.fromkeys(_SAID, "")
        self._connection.execute(
            sa.update(_study)
            .where(*_of(_study, key))
            .values(
                **blank,
                state="purged",
                match="",
                ModalitiesInStudy="",
                SOPClassesInStudy="",
                NumberOfStudyRelatedSeries=0,
                NumberOfStudyRelatedInstances=0,
            )
        )
        return [ObjectRef(digest=digest, size=size) for digest, size in objects.items()]


def _of(table: sa.Table, key: StudyKey) -> tuple[sa.ColumnElement[bool], ...]:
    return table.c.owner == key.owner, table.c.StudyInstanceUID == key.StudyInstanceUID


def _here(table: sa.Table) -> sa.ColumnElement[bool]:
    return table.c.purged_at.is_(None)


def _hold(row: Any) -> Hold:
    return Hold(
        key=StudyKey(owner=row.owner, StudyInstanceUID=row.StudyInstanceUID),
        reason=row.reason,
        held_by=row.held_by,
        held_at=from_us(row.held_at),
    )
