"""Queries over the imaging index: attribute matches (PS3.4 C.2.2.2) and the access predicate as one statement.

The order of every answer is total, so that pages by limit and offset neither repeat nor miss a row of a still database.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fhir_mappings.text import fold
from hub.access import Scope
from hub.attribute_matching import INSTANCE_KEYS, STUDY_KEYS, Level, Match
from hub.clock import from_us
from hub.ports import InstanceRow
from storage.sql.access import study_visible, visible
from storage.sql.patient_numbers import merged_records
from storage.sql.schema import imaging_instance, imaging_series, imaging_study

_study, _series, _instance = imaging_study, imaging_series, imaging_instance

_SERIES_JOIN = sa.and_(_series.c.owner == _study.c.owner, _series.c.StudyInstanceUID == _study.c.StudyInstanceUID)
_INSTANCE_JOIN = sa.and_(
    _instance.c.owner == _series.c.owner,
    _instance.c.StudyInstanceUID == _series.c.StudyInstanceUID,
    _instance.c.SeriesInstanceUID == _series.c.SeriesInstanceUID,
)
_INSTANCE_COLUMNS = tuple(name for name in InstanceRow.__dataclass_fields__ if name != "attributes")


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
) -> list[Mapping[str, Any]]:
    """Return study rows, newest study first; counts of studies still being received are made for the page alone."""
    statement = (
        sa.select(_study)
        .where(*_where(connection, scope, filters, now_us, owner, "study"))
        .order_by(_study.c.StudyDate.desc(), _study.c.StudyTime.desc(), _study.c.owner, _study.c.StudyInstanceUID)
    )
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
) -> list[Mapping[str, Any]]:
    """Return series rows with their study's row under ``study``."""
    study_columns = [column.label(f"study_{column.name}") for column in _study.c]
    statement = (
        sa.select(*_series.c, *study_columns)
        .select_from(_series.join(_study, _SERIES_JOIN))
        .where(*_where(connection, scope, filters, now_us, owner, "series"))
        .order_by(
            _study.c.StudyDate.desc(),
            _study.c.StudyTime.desc(),
            _study.c.owner,
            _study.c.StudyInstanceUID,
            sa.func.length(_series.c.SeriesNumber),
            _series.c.SeriesNumber,
            _series.c.SeriesInstanceUID,
        )
    )
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
    *,
    attributes: bool,
) -> list[InstanceRow]:
    """Return current instances in the order of series and number."""
    statement = (
        sa.select(*instance_columns(_instance, attributes=attributes))
        .select_from(_instance.join(_series, _INSTANCE_JOIN).join(_study, _SERIES_JOIN))
        .where(*_where(connection, scope, filters, now_us, owner, "instance"))
        .order_by(
            _instance.c.owner,
            _instance.c.StudyInstanceUID,
            _instance.c.SeriesInstanceUID,
            sa.func.length(_instance.c.InstanceNumber),
            _instance.c.InstanceNumber,
            _instance.c.iid,
        )
    )
    return [instance(row) for row in connection.execute(statement.limit(limit).offset(offset))]


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
        sa.select(sa.func.count()).select_from(source).where(*_where(connection, scope, filters, now_us, owner, level))
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
    for start in range(0, len(keys), 200):
        wanted = keys[start : start + 200]
        for row in connection.execute(
            sa.select(_instance.c.owner, _instance.c.StudyInstanceUID, _instance.c.SeriesInstanceUID, sa.func.count())
            .where(_among((_instance.c.owner, _instance.c.StudyInstanceUID), wanted), _instance.c.current == sa.true())
            .group_by(_instance.c.owner, _instance.c.StudyInstanceUID, _instance.c.SeriesInstanceUID)
        ):
            counts[(row[0], row[1], row[2])] = row[3]
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
    return counts


# --- matches -----------------------------------------------------------------------------------------------------


def _where(
    connection: Connection, scope: Scope, filters: Sequence[Match], now_us: int, owner: str | None, level: Level
) -> list[sa.ColumnElement[bool]]:
    conditions = [study_visible(scope, now_us)]
    if owner is not None:
        conditions.append(_study.c.owner == owner)
    if level == "instance":
        conditions.append(_instance.c.current == sa.true())
    for match in filters:
        condition = _condition(match)
        if match.keyword == "PatientID" and match.kind == "any" and not scope.directory_only:
            merged = merged_records(connection, match.values, lambda table: visible(table, scope, now_us))
            if merged:
                condition = _either(condition, _study.c.patient_id.in_(merged))
        conditions.append(condition)
    return conditions


def _either(one: sa.ColumnElement[bool], other: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Return *one* or *other* of a study as a list of studies, each half of which an index of its own finds."""
    halves = [sa.select(_study.c.owner, _study.c.StudyInstanceUID).where(half) for half in (one, other)]
    # SQLite goes by the list only where that is no compound itself.
    both = sa.union(*halves).subquery()
    return sa.tuple_(_study.c.owner, _study.c.StudyInstanceUID).in_(sa.select(both.c.owner, both.c.StudyInstanceUID))


def _condition(match: Match) -> sa.ColumnElement[bool]:
    if match.keyword == "ModalitiesInStudy":
        beside = _series.alias()
        return sa.exists(
            sa.select(sa.literal(1)).where(
                beside.c.owner == _study.c.owner,
                beside.c.StudyInstanceUID == _study.c.StudyInstanceUID,
                _compare(beside.c.Modality, match),
            )
        )
    if match.keyword == "SOPClassesInStudy":
        inside = _instance.alias()
        return sa.exists(
            sa.select(sa.literal(1)).where(
                inside.c.owner == _study.c.owner,
                inside.c.StudyInstanceUID == _study.c.StudyInstanceUID,
                inside.c.current == sa.true(),
                _compare(inside.c.SOPClassUID, match),
            )
        )
    if match.keyword == "PatientName":
        return _patient_name(match)
    if match.keyword in STUDY_KEYS:
        return _compare(_study.c[match.keyword], match)
    if match.keyword in INSTANCE_KEYS:
        return _compare(_instance.c[match.keyword], match)
    return _compare(_series.c[match.keyword], match)


def _compare(column: sa.ColumnElement[Any], match: Match) -> sa.ColumnElement[bool]:
    if match.kind == "range":
        return _range(column, match)
    if match.kind == "wildcard":
        return column.ilike(_like(match.values[0]), escape="\\")
    if match.kind == "fuzzy":
        return sa.and_(*(column.ilike(f"%{_escaped(value)}%", escape="\\") for value in match.values))
    if match.vr == "PN":
        # Matching of names need not look at case (PS3.4 C.2.2.2.1).
        return sa.func.lower(column).in_([value.lower() for value in match.values])
    return column.in_(match.values) if len(match.values) > 1 else column == match.values[0]


def _range(column: sa.ColumnElement[Any], match: Match) -> sa.ColumnElement[bool]:
    low, high = match.values
    if match.vr == "DA" and low == high:
        return column == low
    conditions = [column != ""]
    # Times are written with any precision, so both ends are compared with as many digits as the key has; a stored value
    # that is shorter stands for its beginning.
    if match.vr == "TM":
        column, low, high = sa.func.substr(column.concat("000000"), 1, 6), low[:6], high[:6]
    if low:
        conditions.append(column >= low)
    if high:
        conditions.append(sa.func.substr(column, 1, len(high)) <= high if match.vr == "TM" else column <= high)
    return sa.and_(*conditions)


def _patient_name(match: Match) -> sa.ColumnElement[bool]:
    ways = _study.c.name_search
    if match.kind == "fuzzy":
        return sa.and_(
            *(
                sa.or_(
                    ways.like(f"% {_escaped(value)}%", escape="\\"), ways.like(f"% ~{_escaped(value)}%", escape="\\")
                )
                for value in match.values
            )
        )
    patterns = [_folded(value) for value in match.values]
    return sa.or_(*(ways.like(f"% {pattern} %", escape="\\") for pattern in patterns))


def _folded(value: str) -> str:
    """Return *value*, which may hold ``*`` and ``?``, folded as the stored names are, as a LIKE pattern."""
    pattern = ""
    text = value.replace("^", "").replace("=", "")
    part = ""
    for char in text:
        if char in "*?":
            pattern += _escaped(fold(part)) + ("%" if char == "*" else "_")
            part = ""
        else:
            part += char
    return pattern + _escaped(fold(part))


def _like(pattern: str) -> str:
    return _escaped(pattern).replace("*", "%").replace("?", "_")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
