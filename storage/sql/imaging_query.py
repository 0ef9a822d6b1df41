"""Queries over the imaging index: what :mod:`storage.sql.imaging_match` says of matches and access, as one statement.

The order of every answer is total, so that pages by limit and offset neither repeat nor miss a row of a still database.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hub.access import Scope
from hub.attribute_matching import Level, Match
from hub.clock import from_us
from hub.ports import InstanceRow
from storage.sql.imaging_match import matching
from storage.sql.schema import imaging_instance, imaging_series, imaging_study

_study, _series, _instance = imaging_study, imaging_series, imaging_instance

_SERIES_JOIN = sa.and_(_series.c.owner == _study.c.owner, _series.c.StudyInstanceUID == _study.c.StudyInstanceUID)
_INSTANCE_JOIN = sa.and_(
    _instance.c.owner == _series.c.owner,
    _instance.c.StudyInstanceUID == _series.c.StudyInstanceUID,
    _instance.c.SeriesInstanceUID == _series.c.SeriesInstanceUID,
)
_INSTANCE_COLUMNS = tuple(name for name in InstanceRow.__dataclass_fields__ if name != "attributes")


#: Keys in the order of the answers, and whether they descend. The last ones are unique in what stands before.
_Order = tuple[tuple[sa.ColumnElement[Any], bool], ...]
_STUDY_ORDER: _Order = (
    (_study.c.StudyDate, True),
    (_study.c.StudyTime, True),
    (_study.c.owner, False),
    (_study.c.StudyInstanceUID, False),
)
_SERIES_ORDER: _Order = (
    *_STUDY_ORDER,
    (sa.func.length(_series.c.SeriesNumber), False),
    (_series.c.SeriesNumber, False),
    (_series.c.SeriesInstanceUID, False),
)
_INSTANCE_ORDER: _Order = (
    (_instance.c.owner, False),
    (_instance.c.StudyInstanceUID, False),
    (_instance.c.SeriesInstanceUID, False),
    (sa.func.length(_instance.c.InstanceNumber), False),
    (_instance.c.InstanceNumber, False),
    (_instance.c.SOPInstanceUID, False),
)


def _study_place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["StudyDate"], row["StudyTime"], row["owner"], row["StudyInstanceUID"]


def _beyond(order: _Order, place: Sequence[Any]) -> sa.ColumnElement[bool]:
    """Return the predicate of the rows that stand after *place* in *order*."""
    found: sa.ColumnElement[bool] = sa.false()
    for (key, descending), value in reversed(list(zip(order, place, strict=True))):
        found = sa.or_(key < value if descending else key > value, sa.and_(key == value, found))
    # Said of the first key alone too, so that an index on it is entered at the right place.
    (first, descending), value = order[0], place[0]
    return sa.and_(first <= value if descending else first >= value, found)


def instance_columns(table: sa.Table, *, attributes: bool) -> list[sa.ColumnElement[Any]]:
    """Return the columns that :func:`instance` reads."""
    columns: list[sa.ColumnElement[Any]] = [table.c[name] for name in _INSTANCE_COLUMNS]
    columns.append(table.c.attributes if attributes else sa.null().label("attributes"))
    return columns


def instance(row: Any) -> InstanceRow:
    """Return a table row as an :class:`InstanceRow`."""
    values = {name: getattr(row, name) for name in _INSTANCE_COLUMNS}
    values["received_at"] = from_us(row.received_at)
    values["current"] = bool(row.current)
    attributes = b"" if row.attributes is None else zlib.decompress(bytes(row.attributes))
    return InstanceRow(**values, attributes=attributes)


def studies(
    connection: Connection,
    scope: Scope,
    filters: Sequence[Match],
    now_us: int,
    limit: int,
    offset: int,
    owner: str | None,
    after: Mapping[str, Any] | None = None,
) -> list[Mapping[str, Any]]:
    """Return study rows, newest study first; counts of studies still being received are made for the page alone."""
    statement = (
        sa.select(_study)
        .where(*matching(connection, scope, filters, now_us, owner, "study"))
        .order_by(*(key.desc() if descending else key for key, descending in _STUDY_ORDER))
    )
    if after is not None:
        statement = statement.where(_beyond(_STUDY_ORDER, _study_place(after)))
    rows = [dict(row) for row in connection.execute(statement.limit(limit).offset(offset)).mappings()]
    _count_live(connection, [row for row in rows if row["state"] != "complete"])
    return list(rows)


def series(
    connection: Connection,
    scope: Scope,
    filters: Sequence[Match],
    now_us: int,
    limit: int,
    offset: int,
    owner: str | None,
    after: Mapping[str, Any] | None = None,
) -> list[Mapping[str, Any]]:
    """Return series rows with their study's row under ``study``."""
    study_columns = [column.label(f"study_{column.name}") for column in _study.c]
    statement = (
        sa.select(*_series.c, *study_columns)
        .select_from(_series.join(_study, _SERIES_JOIN))
        .where(*matching(connection, scope, filters, now_us, owner, "series"))
        .order_by(*(key.desc() if descending else key for key, descending in _SERIES_ORDER))
    )
    if after is not None:
        number = after["SeriesNumber"]
        place = (*_study_place(after["study"]), len(number), number, after["SeriesInstanceUID"])
        statement = statement.where(_beyond(_SERIES_ORDER, place))
    rows: list[dict[str, Any]] = []
    for found in connection.execute(statement.limit(limit).offset(offset)).mappings():
        values = dict(found)
        study = {column.name: values.pop(f"study_{column.name}") for column in _study.c}
        rows.append({**values, "study": study})
    live = [row["study"] for row in rows if row["study"]["state"] != "complete"]
    counts = _count_live(connection, live)
    for row in rows:
        if row["study"]["state"] != "complete":
            key = (row["owner"], row["StudyInstanceUID"], row["SeriesInstanceUID"])
            row["NumberOfSeriesRelatedInstances"] = counts.get(key, 0)
    return list(rows)


def instances(
    connection: Connection,
    scope: Scope,
    filters: Sequence[Match],
    now_us: int,
    limit: int,
    offset: int,
    owner: str | None,
    after: InstanceRow | None = None,
    *,
    attributes: bool,
) -> list[InstanceRow]:
    """Return current instances in the order of series and number."""
    statement = (
        sa.select(*instance_columns(_instance, attributes=attributes))
        .select_from(_instance.join(_series, _INSTANCE_JOIN).join(_study, _SERIES_JOIN))
        .where(*matching(connection, scope, filters, now_us, owner, "instance"))
        .order_by(*(key for key, _ in _INSTANCE_ORDER))
    )
    if after is not None:
        number = after.InstanceNumber
        place = (
            after.owner,
            after.StudyInstanceUID,
            after.SeriesInstanceUID,
            len(number),
            number,
            after.SOPInstanceUID,
        )
        statement = statement.where(_beyond(_INSTANCE_ORDER, place))
    return [instance(row) for row in connection.execute(statement.limit(limit).offset(offset))]


def patients(
    connection: Connection, scope: Scope, filters: Sequence[Match], now_us: int, limit: int, after: str | None
) -> list[Mapping[str, Any]]:
    """Return each patient's newest study that matches, in the order of ``patient_id``, with counts over those studies.

    A patient is a number of one issuer at one institution (``patient_id``); the counts stand under ``related_studies``,
    ``related_series`` and ``related_instances``.
    """
    where = matching(connection, scope, filters, now_us, None, "study")
    page = sa.select(_study.c.patient_id).where(*where).group_by(_study.c.patient_id)
    if after is not None:
        page = page.where(_study.c.patient_id > after)
    chosen = page.order_by(_study.c.patient_id).limit(limit).subquery()
    counted = [
        # What the row of a study that is still being received says is not counted yet.
        sa.case((_study.c.state == "complete", column), else_=_live(what))
        for column, what in (
            (_study.c.NumberOfStudyRelatedSeries, sa.func.count(sa.distinct(_instance.c.SeriesInstanceUID))),
            (_study.c.NumberOfStudyRelatedInstances, sa.func.count()),
        )
    ]
    ranked = (
        sa.select(
            *_study.c,
            sa.func.row_number()
            .over(
                partition_by=_study.c.patient_id,
                order_by=[key.desc() if descending else key.asc() for key, descending in _STUDY_ORDER],
            )
            .label("rank"),
            sa.func.count().over(partition_by=_study.c.patient_id).label("related_studies"),
            sa.func.sum(counted[0]).over(partition_by=_study.c.patient_id).label("related_series"),
            sa.func.sum(counted[1]).over(partition_by=_study.c.patient_id).label("related_instances"),
        )
        .where(_study.c.patient_id.in_(sa.select(chosen.c.patient_id)), *where)
        .subquery()
    )
    statement = sa.select(ranked).where(ranked.c.rank == 1).order_by(ranked.c.patient_id)
    # PostgreSQL adds integers to a decimal.
    names = ("related_series", "related_instances")
    return [{**row, **{name: int(row[name]) for name in names}} for row in connection.execute(statement).mappings()]


def _live(what: sa.ColumnElement[Any]) -> sa.ScalarSelect[Any]:
    return (
        sa.select(what)
        .select_from(_instance)
        .where(
            _instance.c.owner == _study.c.owner,
            _instance.c.StudyInstanceUID == _study.c.StudyInstanceUID,
            _instance.c.current == sa.true(),
        )
        .correlate(_study)
        .scalar_subquery()
    )


def count(
    connection: Connection, level: Level, scope: Scope, filters: Sequence[Match], now_us: int, owner: str | None
) -> int:
    """Return how many rows match on *level*."""
    source: sa.FromClause = _study
    if level != "study":
        source = _series.join(_study, _SERIES_JOIN)
    if level == "instance":
        source = _instance.join(_series, _INSTANCE_JOIN).join(_study, _SERIES_JOIN)
    statement = (
        sa.select(sa.func.count())
        .select_from(source)
        .where(*matching(connection, scope, filters, now_us, owner, level))
    )
    return int(connection.execute(statement).scalar_one())


def first_attributes(connection: Connection, keys: Sequence[tuple[str, str, str]]) -> dict[tuple[str, str, str], bytes]:
    """Return the header of the first instance of each (owner, study, series)."""
    found: dict[tuple[str, str, str], bytes] = {}
    for start in range(0, len(keys), 200):
        wanted = keys[start : start + 200]
        first = (
            sa.select(sa.func.min(_instance.c.iid))
            .where(_current(wanted))
            .group_by(_instance.c.owner, _instance.c.StudyInstanceUID, _instance.c.SeriesInstanceUID)
        )
        for row in connection.execute(
            sa.select(
                _instance.c.owner, _instance.c.StudyInstanceUID, _instance.c.SeriesInstanceUID, _instance.c.attributes
            ).where(_instance.c.iid.in_(first))
        ):
            found[(row[0], row[1], row[2])] = zlib.decompress(bytes(row[3]))
    return found


def study_attributes(connection: Connection, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
    """Return the header of the first instance of each (owner, study)."""
    found: dict[tuple[str, str], bytes] = {}
    for start in range(0, len(keys), 200):
        first = (
            sa.select(sa.func.min(_instance.c.iid))
            .where(
                _among((_instance.c.owner, _instance.c.StudyInstanceUID), keys[start : start + 200]),
                _instance.c.current == sa.true(),
            )
            .group_by(_instance.c.owner, _instance.c.StudyInstanceUID)
        )
        columns = (_instance.c.owner, _instance.c.StudyInstanceUID, _instance.c.attributes)
        for row in connection.execute(sa.select(*columns).where(_instance.c.iid.in_(first))):
            found[(row[0], row[1])] = zlib.decompress(bytes(row[2]))
    return found


def _current(keys: Iterable[tuple[str, str, str]]) -> sa.ColumnElement[bool]:
    return sa.and_(
        _among((_instance.c.owner, _instance.c.StudyInstanceUID, _instance.c.SeriesInstanceUID), keys),
        _instance.c.current == sa.true(),
    )


def _among(columns: Sequence[sa.ColumnElement[str]], keys: Iterable[Sequence[str]]) -> sa.ColumnElement[bool]:
    """Return whether *columns* are one of *keys*.

    Not as a row value in a list: SQLite walks the whole table for a list of two or more
    (https://www.sqlite.org/rowvalue.html).
    """
    pairs = [sa.and_(*(column == part for column, part in zip(columns, key, strict=True))) for key in keys]
    return sa.or_(sa.false(), *pairs)


def _count_live(connection: Connection, rows: list[dict[str, Any]]) -> dict[tuple[str, str, str], int]:
    """Fill in the counts of study *rows* that are still being received; returns the counts of their series."""
    counts: dict[tuple[str, str, str], int] = {}
    keys = sorted({(row["owner"], row["StudyInstanceUID"]) for row in rows})
    modalities: dict[tuple[str, str, str], str] = {}
    classes: dict[tuple[str, str], list[str]] = {}
    for start in range(0, len(keys), 200):
        wanted = keys[start : start + 200]
        for row in connection.execute(
            sa.select(_instance.c.owner, _instance.c.StudyInstanceUID, _instance.c.SeriesInstanceUID, sa.func.count())
            .where(_among((_instance.c.owner, _instance.c.StudyInstanceUID), wanted), _instance.c.current == sa.true())
            .group_by(_instance.c.owner, _instance.c.StudyInstanceUID, _instance.c.SeriesInstanceUID)
        ):
            counts[(row[0], row[1], row[2])] = row[3]
        for row in connection.execute(
            sa.select(_instance.c.owner, _instance.c.StudyInstanceUID, _instance.c.SOPClassUID)
            .where(_among((_instance.c.owner, _instance.c.StudyInstanceUID), wanted), _instance.c.current == sa.true())
            .distinct()
        ):
            classes.setdefault((row[0], row[1]), []).append(row[2])
        for row in connection.execute(
            sa.select(
                _series.c.owner, _series.c.StudyInstanceUID, _series.c.SeriesInstanceUID, _series.c.Modality
            ).where(_among((_series.c.owner, _series.c.StudyInstanceUID), wanted))
        ):
            modalities[(row[0], row[1], row[2])] = row[3]
    for study in rows:
        own = {key: n for key, n in counts.items() if key[:2] == (study["owner"], study["StudyInstanceUID"])}
        study["NumberOfStudyRelatedSeries"] = len(own)
        study["NumberOfStudyRelatedInstances"] = sum(own.values())
        study["ModalitiesInStudy"] = "\\".join(sorted({modalities.get(key, "") for key in own} - {""}))
        study["SOPClassesInStudy"] = "\\".join(sorted(classes.get((study["owner"], study["StudyInstanceUID"]), ())))
    return counts
