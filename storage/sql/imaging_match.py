"""Which studies, series and instances a query means: matches (PS3.4 C.2.2.2) and the access predicate as SQL conditions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fhir_mappings.text import fold
from hub.access import Scope
from hub.attribute_matching import INSTANCE_KEYS, STUDY_KEYS, Level, Match, starred
from hub.identity_numbers import issuer_fits, plain
from storage.sql.access import study_visible, visible
from storage.sql.identity import linked_records
from storage.sql.patient_numbers import merged_records
from storage.sql.schema import imaging_instance, imaging_series, imaging_study

_study, _series, _instance = imaging_study, imaging_series, imaging_instance


def matching(
    connection: Connection, scope: Scope, filters: Sequence[Match], now_us: int, owner: str | None, level: Level
) -> list[sa.ColumnElement[bool]]:
    """Return the conditions of rows of *level* that *scope* reaches and *filters* mean; of *owner* alone where it is given.

    The statement must have the tables of the levels above in it, joined.
    """
    # A study of which nothing is shown, because all of it is marked deleted or removed, is not there; nor is such a series.
    conditions = [study_visible(scope, now_us), _study.c.state != "empty", _study.c.state != "purged"]
    if level == "series":
        conditions.append(_has_images(_series))
    if owner is not None:
        conditions.append(_study.c.owner == owner)
    if level == "instance":
        conditions.append(_instance.c.current == sa.true())
    linked = _linked(connection, scope, filters)
    for match in filters:
        condition = _condition(match)
        if match.keyword == "PatientID" and (numbers := _unstarred(match)) and not scope.directory_only:
            merged = merged_records(connection, numbers, lambda table: visible(table, scope, now_us))
            if merged or linked:
                condition = _either(condition, _study.c.patient_id.in_([*merged, *linked]))
        elif match.keyword == "IssuerOfPatientID" and linked:
            # What a link finds is asked for by the asker's own number, and that is whose issuer was named.
            condition = sa.or_(condition, _study.c.patient_id.in_(linked))
        conditions.append(condition)
    return conditions


def _has_images(series: Any) -> sa.ColumnElement[bool]:
    """Return whether a series has a current instance: by its count, or by a look where nobody has counted it yet.

    A series that only came with what was set aside is not there (:mod:`hub.conflicts`).
    """
    inside = _instance.alias()
    arrived = sa.select(sa.literal(1)).where(
        inside.c.owner == series.c.owner,
        inside.c.StudyInstanceUID == series.c.StudyInstanceUID,
        inside.c.SeriesInstanceUID == series.c.SeriesInstanceUID,
        inside.c.current == sa.true(),
    )
    return sa.and_(
        series.c.emptied == sa.false(), sa.or_(series.c.NumberOfSeriesRelatedInstances > 0, sa.exists(arrived))
    )


def _linked(connection: Connection, scope: Scope, filters: Sequence[Match]) -> list[str]:
    """Return the Patients of other institutions that *filters* mean by a number of the asker's own."""
    numbers = [value for one in filters if one.keyword == "PatientID" for value in _unstarred(one)]
    if not numbers or not plain(scope) or not issuer_fits(filters, scope.institution):
        return []
    return linked_records(connection, scope.institution, numbers)


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
                _has_images(beside),
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
    if match.keyword == "IssuerOfPatientID":
        # A number without an issuer is one of the institution that sent it.
        issuer = sa.case((_study.c.IssuerOfPatientID == "", _study.c.owner), else_=_study.c.IssuerOfPatientID)
        return _compare(issuer, match)
    if match.keyword in STUDY_KEYS:
        return _compare(_study.c[match.keyword], match)
    if match.keyword in INSTANCE_KEYS:
        return _compare(_instance.c[match.keyword], match)
    return _compare(_series.c[match.keyword], match)


def _compare(column: sa.ColumnElement[Any], match: Match) -> sa.ColumnElement[bool]:
    if match.kind == "range":
        return _range(column, match)
    if match.kind == "wildcard":
        likes = [column.ilike(_like(one), escape="\\") for one in match.values if starred(one)]
        rest = _unstarred(match)
        return sa.or_(*likes, _equal(column, match.vr, rest)) if rest else sa.or_(*likes)
    if match.kind == "fuzzy":
        return sa.and_(*(column.ilike(f"%{_escaped(value)}%", escape="\\") for value in match.values))
    return _equal(column, match.vr, match.values)


def _equal(column: sa.ColumnElement[Any], vr: str, values: Sequence[str]) -> sa.ColumnElement[bool]:
    if vr == "PN":
        # Matching of names need not look at case (PS3.4 C.2.2.2.1).
        return sa.func.lower(column).in_([value.lower() for value in values])
    return column.in_(values) if len(values) > 1 else column == values[0]


def _unstarred(match: Match) -> tuple[str, ...]:
    """Return the values of *match* that are meant letter by letter."""
    return tuple(one for one in match.values if match.kind == "any" or (match.kind == "wildcard" and not starred(one)))


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
