"""The index of studies, series and instances (PS3.3 A.1.2): writing, counting and the rows of one study.

Instances arrive by the thousand, so :mod:`storage.sql.arrivals` writes one row for each and touches the rows of its study
and series only when asked to. Counts and lists of a study are written when it is complete; while it is being received they
are counted for those who ask. Queries over many studies are in :mod:`storage.sql.imaging_query`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

import sqlalchemy as sa

from hub.access import Scope
from hub.attribute_matching import Level, Match
from hub.clock import from_us, to_us
from hub.errors import Category, HubError
from hub.ports import InstanceRow, StudyKey
from storage.sql import imaging_query, merges
from storage.sql.arrivals import Arrivals
from storage.sql.changes import SqlChanges
from storage.sql.deletions import SqlDeletions
from storage.sql.schema import imaging_instance, imaging_series, imaging_study

#: Columns of a study that :meth:`SqlImaging.set_study_state` may set beside the state.
_SETTABLE = frozenset({"match", "counted_at", "correlation_id"})

#: Columns of a study that describe its patient.
_OF_PATIENT = frozenset(
    {
        "PatientID", "IssuerOfPatientID", "PatientName", "PatientNamePinyin", "PatientBirthDate", "PatientSex",
        "name_search",
    }
)  # fmt: skip


class SqlImaging(Arrivals):
    """The :class:`hub.ports.Imaging` of one transaction."""

    @cached_property
    def deletions(self) -> SqlDeletions:
        """What is marked deleted, and what is on hold."""
        return SqlDeletions(self._tx)

    @cached_property
    def changes(self) -> SqlChanges:
        """What became of the instances, in order."""
        return SqlChanges(self._tx)

    # --- one instance ----------------------------------------------------------------------------------------

    def versions_of(self, key: StudyKey) -> Sequence[InstanceRow]:
        """Return every instance of the study with its attributes, current and not, in the order of arrival."""
        t = imaging_instance
        statement = sa.select(*imaging_query.instance_columns(t, attributes=True)).where(*_of(t, key)).order_by(t.c.iid)
        return [imaging_query.instance(row) for row in self._connection.execute(statement)]

    def newest_headers(self, key: StudyKey, series: str, *, but: str) -> Iterator[bytes]:
        """Yield the attributes of the study's current instances but one; see :class:`hub.ports.Imaging`."""
        t = imaging_instance
        shown = (*_of(t, key), t.c.current == sa.true(), t.c.SOPInstanceUID != but)
        # Who asks finds what it looks for in the series, as a rule, and an index has that in order; where not, few
        # statements read the rest, the first of which sorts the whole study.
        count = 16
        newest = sa.select(t.c.iid, t.c.attributes).where(*shown, t.c.SeriesInstanceUID == series)
        told: set[int] = set()
        for row in self._connection.execute(newest.order_by(t.c.received_at.desc()).limit(count)).all():
            told.add(row.iid)
            yield zlib.decompress(row.attributes)
        before: list[sa.ColumnElement[bool]] = []
        while True:
            statement = sa.select(t.c.iid, t.c.attributes).where(*shown, *before).order_by(t.c.iid.desc()).limit(count)
            rows = self._connection.execute(statement).all()
            for row in rows:
                if row.iid not in told:
                    yield zlib.decompress(row.attributes)
            if len(rows) < count:
                return
            before, count = [t.c.iid < rows[-1].iid], min(count * 4, 1024)

    def set_aside(self, key: StudyKey, SOPInstanceUID: str, digest: str, *, shown: bool = True) -> None:
        """Let the version *digest* of an instance no longer be current; nothing takes its place.

        The change feed tells of it, unless nobody was ever *shown* it.
        """
        t = imaging_instance
        done = self._connection.execute(
            sa.update(t)
            .where(*_of(t, key), t.c.SOPInstanceUID == SOPInstanceUID, t.c.digest == digest, t.c.current == sa.true())
            .values(current=False)
        )
        if shown and done.rowcount:
            self.changes.announce(key.owner, SOPInstanceUID, "delete")

    def make_current(self, key: StudyKey, SOPInstanceUID: str, digest: str) -> None:
        """Let the version *digest* of an instance be the current one, as if it had arrived now.

        Raises:
            HubError: not-found when there is no such version.
        """
        t = imaging_instance
        one = (*_of(t, key), t.c.SOPInstanceUID == SOPInstanceUID)
        row = self._connection.execute(sa.select(t).where(*one, t.c.digest == digest)).mappings().first()
        if row is None:
            raise HubError(Category.NOT_FOUND, "There is no such version of the instance.", where=SOPInstanceUID)
        replaced = self._connection.execute(
            sa.update(t)
            .where(t.c.owner == key.owner, t.c.SOPInstanceUID == SOPInstanceUID, t.c.current == sa.true())
            .values(current=False)
        )
        self._connection.execute(sa.delete(t).where(t.c.iid == row["iid"]))
        # A new row number tells whoever has read the series that it is another one now.
        values = {name: value for name, value in row.items() if name != "iid"}
        self._connection.execute(sa.insert(t).values({**values, "current": True}))
        # Whoever makes a version current has decided that the instance is to be shown.
        self.deletions.unmark(key, SOPInstanceUID)
        self.changes.announce(key.owner, SOPInstanceUID, "update" if replaced.rowcount else "create")

    def assign(self, key: StudyKey, *, patient_id: str, **columns: str) -> None:
        """Make the study another patient's; *columns* are those of the study row that describe the patient."""
        assert columns.keys() <= _OF_PATIENT
        self._connection.execute(
            sa.update(imaging_study).where(*_of(imaging_study, key)).values(patient_id=patient_id, **columns)
        )

    def current_digest(self, owner: str, SOPInstanceUID: str) -> str | None:
        """Return the digest of the current version of a SOP Instance."""
        t = imaging_instance
        return self._connection.execute(
            sa.select(t.c.digest).where(
                t.c.owner == owner, t.c.SOPInstanceUID == SOPInstanceUID, t.c.current == sa.true()
            )
        ).scalar()

    # --- one study -------------------------------------------------------------------------------------------

    def study(self, key: StudyKey) -> Mapping[str, Any] | None:
        """Return the row of one study, without regard to who asks."""
        row = self._connection.execute(sa.select(imaging_study).where(*_of(imaging_study, key))).mappings().first()
        return None if row is None else dict(row)

    def study_by_resource(self, owner: str, resource_id: str) -> Mapping[str, Any] | None:
        """Return the row of the study that is the ImagingStudy *resource_id* of *owner*."""
        t = imaging_study
        statement = sa.select(t).where(t.c.owner == owner, t.c.resource_id == resource_id)
        row = self._connection.execute(statement).mappings().first()
        return None if row is None else dict(row)

    def series_of(self, key: StudyKey) -> Sequence[Mapping[str, Any]]:
        """Return the series rows of a study that have instances, in the order of their numbers."""
        t = imaging_series
        statement = sa.select(t).where(*_of(t, key), t.c.NumberOfSeriesRelatedInstances > 0)
        rows = self._connection.execute(
            statement.order_by(sa.func.length(t.c.SeriesNumber), t.c.SeriesNumber, t.c.SeriesInstanceUID)
        )
        return [dict(row) for row in rows.mappings()]

    def series_uids(self, key: StudyKey) -> Sequence[str]:
        """Return the UIDs of all series of a study that may have something to show, in the order of their numbers."""
        t = imaging_series
        statement = sa.select(t.c.SeriesInstanceUID).where(*_of(t, key), t.c.emptied == sa.false())
        return list(
            self._connection.execute(
                statement.order_by(sa.func.length(t.c.SeriesNumber), t.c.SeriesNumber, t.c.SeriesInstanceUID)
            ).scalars()
        )

    def instances_of(
        self,
        key: StudyKey,
        SeriesInstanceUID: str | None = None,
        SOPInstanceUID: str | None = None,
        *,
        attributes: bool = False,
    ) -> Sequence[InstanceRow]:
        """Return the current instances of a study, a series or one, in the order of their numbers.

        ``attributes`` of a row is empty unless asked for.
        """
        t = imaging_instance
        statement = sa.select(*imaging_query.instance_columns(t, attributes=attributes)).where(
            *_of(t, key), t.c.current == sa.true()
        )
        if SeriesInstanceUID is not None:
            statement = statement.where(t.c.SeriesInstanceUID == SeriesInstanceUID)
        if SOPInstanceUID is not None:
            statement = statement.where(t.c.SOPInstanceUID == SOPInstanceUID)
        statement = statement.order_by(
            t.c.SeriesInstanceUID, sa.func.length(t.c.InstanceNumber), t.c.InstanceNumber, t.c.iid
        )
        return [imaging_query.instance(row) for row in self._connection.execute(statement)]

    def latest_arrival(self, key: StudyKey) -> datetime | None:
        """Return when the last instance of the study arrived."""
        t = imaging_instance
        found = self._connection.execute(sa.select(sa.func.max(t.c.received_at)).where(*_of(t, key))).scalar()
        return None if found is None else from_us(found)

    def refresh_study(self, key: StudyKey) -> Mapping[str, Any]:
        """Recount the study's series and instances from its instance rows, and return the study row.

        Raises:
            HubError: not-found when there is no such study.
        """
        t = imaging_instance
        counted = {
            row.SeriesInstanceUID: row.n
            for row in self._connection.execute(
                sa.select(t.c.SeriesInstanceUID, sa.func.count().label("n"))
                .where(*_of(t, key), t.c.current == sa.true())
                .group_by(t.c.SeriesInstanceUID)
            )
        }
        series = self._connection.execute(
            sa.select(
                imaging_series.c.SeriesInstanceUID,
                imaging_series.c.Modality,
                imaging_series.c.NumberOfSeriesRelatedInstances,
                imaging_series.c.emptied,
            ).where(*_of(imaging_series, key))
        ).all()
        for row in series:
            number = counted.get(row.SeriesInstanceUID, 0)
            if number != row.NumberOfSeriesRelatedInstances or bool(row.emptied) != (number == 0):
                self._connection.execute(
                    sa.update(imaging_series)
                    .where(*_of(imaging_series, key), imaging_series.c.SeriesInstanceUID == row.SeriesInstanceUID)
                    .values(NumberOfSeriesRelatedInstances=number, emptied=number == 0)
                )
        modalities = sorted({row.Modality for row in series if row.Modality and row.SeriesInstanceUID in counted})
        classes = self._connection.execute(
            sa.select(t.c.SOPClassUID).where(*_of(t, key), t.c.current == sa.true()).distinct()
        ).scalars()
        self._connection.execute(
            sa.update(imaging_study)
            .where(*_of(imaging_study, key))
            .values(
                ModalitiesInStudy="\\".join(modalities),
                SOPClassesInStudy="\\".join(sorted(classes)),
                NumberOfStudyRelatedSeries=len(counted),
                NumberOfStudyRelatedInstances=sum(counted.values()),
            )
        )
        study = self.study(key)
        if study is None:
            raise HubError(Category.NOT_FOUND, "There is no such study.", where=key.StudyInstanceUID)
        return study

    def set_study_state(self, key: StudyKey, state: str, **columns: Any) -> None:
        """Set the state (``receiving``, ``complete``, ``empty``) and any of ``match``, ``counted_at`` and ``correlation_id``."""
        assert columns.keys() <= _SETTABLE
        if isinstance(columns.get("counted_at"), datetime):
            columns["counted_at"] = to_us(columns["counted_at"])
        self._connection.execute(
            sa.update(imaging_study).where(*_of(imaging_study, key)).values(state=state, **columns)
        )

    def reopen(self, key: StudyKey) -> None:
        """Let a study that was complete, or of which nothing is shown, receive again, because an instance came late."""
        self._connection.execute(
            sa.update(imaging_study)
            .where(*_of(imaging_study, key), imaging_study.c.state != "receiving")
            .values(state="receiving")
        )
        # A series of which nothing was shown may be the one that it came to.
        i, t = imaging_instance, imaging_series
        arrived: sa.Select[Any] = sa.select(sa.literal_column("1")).where(
            *_of(i, key), i.c.SeriesInstanceUID == t.c.SeriesInstanceUID, i.c.current == sa.true()
        )
        self._connection.execute(
            sa.update(t).where(*_of(t, key), t.c.emptied == sa.true(), sa.exists(arrived)).values(emptied=False)
        )

    def unmatched(self, owner: str, *, patient_id: str, accessions: Sequence[str]) -> Sequence[Mapping[str, Any]]:
        """Return the complete studies of *owner* without an order that are the person's or have an accession number."""
        t = imaging_study
        wanted: list[sa.ColumnElement[bool]] = [t.c.AccessionNumber.in_(list(accessions))] if accessions else []
        if patient_id:
            wanted.append(t.c.patient_id.in_(merges.one_person(self._connection, patient_id)))
        if not wanted:
            return []
        statement = sa.select(t).where(t.c.owner == owner, t.c.match == "unmatched", sa.or_(*wanted))
        rows = self._connection.execute(statement.order_by(t.c.StudyInstanceUID))
        return [dict(row) for row in rows.mappings()]

    # --- series metadata -------------------------------------------------------------------------------------

    def series_version(self, key: StudyKey, SeriesInstanceUID: str) -> tuple[int, int]:
        """Return the number and the newest row id of the series' current instances; any arrival changes them."""
        t = imaging_instance
        row = self._connection.execute(
            sa.select(sa.func.count(), sa.func.coalesce(sa.func.max(t.c.iid), 0)).where(
                *_of(t, key), t.c.SeriesInstanceUID == SeriesInstanceUID, t.c.current == sa.true()
            )
        ).one()
        return int(row[0]), int(row[1])

    def series_metadata(self, key: StudyKey, SeriesInstanceUID: str) -> tuple[str, str] | None:
        """Return (etag, object digest) of the cached gzip metadata of the series, or ``None``."""
        t = imaging_series
        row = self._connection.execute(
            sa.select(t.c.metadata_etag, t.c.metadata_digest).where(
                *_of(t, key), t.c.SeriesInstanceUID == SeriesInstanceUID, t.c.metadata_etag != ""
            )
        ).first()
        return None if row is None else (row.metadata_etag, row.metadata_digest)

    def set_series_metadata(self, key: StudyKey, SeriesInstanceUID: str, etag: str, digest: str) -> None:
        """Name the object that holds the series' metadata."""
        t = imaging_series
        self._connection.execute(
            sa.update(t)
            .where(*_of(t, key), t.c.SeriesInstanceUID == SeriesInstanceUID)
            .values(metadata_etag=etag, metadata_digest=digest)
        )

    # --- queries ---------------------------------------------------------------------------------------------

    def _now(self) -> int:
        return to_us(self._tx.clock())

    def studies(
        self,
        scope: Scope,
        filters: Sequence[Match],
        *,
        limit: int,
        offset: int = 0,
        owner: str | None = None,
        after: Mapping[str, Any] | None = None,
    ) -> Sequence[Mapping[str, Any]]:
        """Return study rows in *scope* that fulfil all *filters*, newest study first, with counts."""
        return imaging_query.studies(self._connection, scope, filters, self._now(), limit, offset, owner, after)

    def series(
        self,
        scope: Scope,
        filters: Sequence[Match],
        *,
        limit: int,
        offset: int = 0,
        owner: str | None = None,
        after: Mapping[str, Any] | None = None,
    ) -> Sequence[Mapping[str, Any]]:
        """Return series rows, joined with their study's columns under ``study``."""
        return imaging_query.series(self._connection, scope, filters, self._now(), limit, offset, owner, after)

    def instances(
        self,
        scope: Scope,
        filters: Sequence[Match],
        *,
        limit: int,
        offset: int = 0,
        owner: str | None = None,
        after: InstanceRow | None = None,
        attributes: bool = False,
    ) -> Sequence[InstanceRow]:
        """Return the current instances in *scope* that fulfil all *filters*."""
        return imaging_query.instances(
            self._connection, scope, filters, self._now(), limit, offset, owner, after, attributes=attributes
        )

    def patients(
        self, scope: Scope, filters: Sequence[Match], *, limit: int, after: str | None = None
    ) -> Sequence[Mapping[str, Any]]:
        """Return each patient's newest study that matches, with counts over all that match."""
        return imaging_query.patients(self._connection, scope, filters, self._now(), limit, after)

    def count(self, level: Level, scope: Scope, filters: Sequence[Match], *, owner: str | None = None) -> int:
        """Return how many rows the query on *level* has in all."""
        return imaging_query.count(self._connection, level, scope, filters, self._now(), owner)

    def first_attributes(self, keys: Sequence[tuple[str, str, str]]) -> Mapping[tuple[str, str, str], bytes]:
        """Return the header of the first instance of each (owner, study, series) as DICOM JSON."""
        return imaging_query.first_attributes(self._connection, keys)

    def study_attributes(self, keys: Sequence[tuple[str, str]]) -> Mapping[tuple[str, str], bytes]:
        """Return the header of the first instance of each (owner, study) as DICOM JSON."""
        return imaging_query.study_attributes(self._connection, keys)


def _of(table: sa.Table, key: StudyKey) -> tuple[sa.ColumnElement[bool], ...]:
    return table.c.owner == key.owner, table.c.StudyInstanceUID == key.StudyInstanceUID
