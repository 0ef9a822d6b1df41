"""Patient records that were merged away, followed inside their institution.

A dead record has a ``replaced-by`` link to the one that "must be used in lieu" of it
(https://hl7.org/fhir/R4/valueset-link-type.html; HL7 v2 3.3.40). What was stored about it keeps pointing at it, so that a
merge can be taken back; a search for the survivor finds it, because the search follows the links. Only a link between
two records of one owner counts: what one institution says of its own numbers never reaches the data of another. The way
is one way: a search for a dead record finds what was said of that record.

Links are followed to any depth, each record once, so that a circle ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hub.errors import Category, HubError
from hub.search import ast
from storage.sql.index import MERGED_INTO
from storage.sql.prepared import Prepared
from storage.sql.schema import idx_reference, record

#: Most records that the patients of one filter may stand for, the patients included.
MAX_FOLLOWED = 1000

#: Parameters that speak of a record and not of the person: they find what names that very record.
_LITERAL = frozenset({"Patient.link", "Provenance.target", "Linkage.item", "Linkage.source"})


def linked(patient_id: Any) -> sa.Exists:
    """Return whether a record was merged into *patient_id*: one look at an index, and almost always no."""
    link = idx_reference.alias()
    return sa.exists(
        sa.select(sa.literal(1)).where(
            link.c.param == MERGED_INTO, link.c.target_id == patient_id, link.c.target_type == "Patient"
        )
    )


_PROBE = Prepared(sa.select(linked(sa.bindparam("id")).label("linked")))


def is_survivor(connection: Connection, patient_id: str) -> bool:
    """Return whether any record says that *patient_id* replaces it."""
    return bool(_PROBE.first(connection, {"id": patient_id}).linked)


# --- which filters -----------------------------------------------------------------------------------------------


def follows(resource_type: str, param: str) -> bool:
    """Return whether the reference parameter speaks of the person, so that it follows links."""
    return f"{resource_type}.{param}" not in _LITERAL


def may_name_patients(resource_type: str, one: ast.Reference) -> bool:
    """Return whether a value of *one* without a type of its own may be a Patient whose links are followed."""
    return follows(resource_type, one.param) and (not one.target_types or "Patient" in one.target_types)


def flag(ids: Iterable[Any]) -> sa.ColumnElement[bool]:
    """Return "one of *ids* is a survivor" as a column, for a statement that asks on its way."""
    return sa.or_(*(linked(one) for one in ids))


def named(resource_type: str, one: ast.Reference) -> list[str]:
    """Return the ids of *one* that are Patients, or may be."""
    if not follows(resource_type, one.param):
        return []
    open_too = not one.target_types or "Patient" in one.target_types
    return [
        value.target_id
        for value in one.values
        if value.target_id is not None and (value.target_type == "Patient" or (value.target_type is None and open_too))
    ]


def followed(connection: Connection, query: ast.Query, seen: Any) -> ast.Query:
    """Return *query* with each reference to a Patient widened by the records merged into it; itself where none was.

    Raises:
        HubError: incorrect, where a filter would stand for more than :data:`MAX_FOLLOWED` records.
    """
    filters = tuple(_followed(connection, query.resource_type, one, seen) for one in query.filters)
    same = all(new is old for new, old in zip(filters, query.filters, strict=True))
    return query if same else replace(query, filters=filters)


def _followed(connection: Connection, resource_type: str, one: ast.Filter, seen: Any) -> Any:
    match one:
        case ast.Reference():
            ids = named(resource_type, one)
            more = standing_for(connection, ids, seen)[len(ids) :] if ids else []
            values = tuple(ast.ReferenceValue(target_type="Patient", target_id=id_) for id_ in more)
            return replace(one, values=(*one.values, *values)) if values else one
        case ast.Has():
            inner = _followed(connection, one.resource_type, one.filter, seen)
            return one if inner is one.filter else replace(one, filter=inner)
        case ast.Chain():
            inner_filters = [_followed(connection, each.resource_type, each.filter, seen) for each in one.targets]
            if all(new is each.filter for new, each in zip(inner_filters, one.targets, strict=True)):
                return one
            targets = zip(one.targets, inner_filters, strict=True)
            return replace(one, targets=tuple(replace(each, filter=new) for each, new in targets))
        case _:
            return one


# --- from a survivor to the dead ---------------------------------------------------------------------------------


def standing_for(connection: Connection, ids: Sequence[str], seen: Any) -> list[str]:
    """Return *ids* and behind them the ids of the records merged into them, of those whose link the asker may read.

    Raises:
        HubError: incorrect, where they are more than :data:`MAX_FOLLOWED`.
    """
    given = list(ids)
    survivors = _survivors_among(connection, given)
    if not survivors:
        return given
    start = sa.select(record.c.rid, record.c.id, record.c.owner).where(
        record.c.type == "Patient", record.c.id.in_(survivors)
    )
    group = _down(start, seen)
    wanted = sa.select(group.c.id).where(group.c.rid.is_not(None)).limit(MAX_FOLLOWED + 1)
    found = connection.execute(wanted).scalars()
    have = set(given)
    more = sorted(id_ for id_ in found if id_ not in have)
    if len(more) + len(survivors) > MAX_FOLLOWED:
        raise HubError(
            Category.INCORRECT,
            f"The patients asked for stand for more than {MAX_FOLLOWED} merged records.",
            where="query",
            remedy="Ask for fewer patients.",
            issue_code="too-costly",
        )
    return [*given, *more]


def _survivors_among(connection: Connection, ids: Sequence[str]) -> list[str]:
    if len(ids) <= 2:
        return [one for one in ids if is_survivor(connection, one)]
    column = idx_reference.c
    survivors = sa.select(column.target_id).where(
        column.param == MERGED_INTO, column.target_id.in_(ids), column.target_type == "Patient"
    )
    return list(connection.execute(survivors.distinct()).scalars())


def _down(start: sa.Select[Any], seen: Any) -> sa.CTE:
    """Return rid, id and owner of the records of *start* and of all that were merged into them, step by step."""
    group = start.cte(recursive=True, nesting=True)
    dead, link = record.alias(), idx_reference.alias()
    merged = sa.and_(link.c.param == MERGED_INTO, link.c.target_id == group.c.id, link.c.target_type == "Patient")
    same = sa.and_(dead.c.rid == link.c.rid, dead.c.owner == group.c.owner, *([] if seen is None else [seen(dead)]))
    # Outer joins, because they are made in the order in which they stand: free to choose, SQLite would begin each step
    # with all links there are. The one empty row that comes of it leads nowhere and is left out in the end.
    step = sa.outerjoin(sa.outerjoin(group, link, merged), dead, same)
    return group.union(sa.select(dead.c.rid, dead.c.id, dead.c.owner).select_from(step))


def own_records(patient_id: str) -> sa.Select[Any]:
    """Return the ids of the Patient and of the records merged into it: the reach of a patient's own access.

    Nothing where there is no such Patient; of one that came before its Patient did there may be data all the same.
    """
    # An alias, because the statement around it is over the records too.
    mine = record.alias()
    start = sa.select(mine.c.rid, mine.c.id, mine.c.owner).where(mine.c.type == "Patient", mine.c.id == patient_id)
    group = _down(start, None)
    return sa.select(group.c.id).where(group.c.rid.is_not(None))


def merged_into(patient: Any, seen: Any) -> sa.CTE:
    """Return rid, id and owner of the row *patient* (record or an alias) and of all merged into it, correlated to it."""
    mine = record.alias()
    start = sa.select(mine.c.rid, mine.c.id, mine.c.owner).where(mine.c.rid == patient.c.rid).correlate(patient)
    return _down(start, seen)


# --- from the dead to a survivor ---------------------------------------------------------------------------------


def survivors_of(connection: Connection, ids: Sequence[str], seen: Any) -> list[str]:
    """Return *ids* and behind them the ids of the records they were merged into."""
    start = sa.select(record.c.rid, record.c.id, record.c.owner).where(record.c.type == "Patient", record.c.id.in_(ids))
    have = set(ids)
    group = _up(start, seen)
    found = connection.execute(sa.select(group.c.id).where(group.c.rid.is_not(None))).scalars()
    return [*ids, *sorted(id_ for id_ in found if id_ not in have)]


def survivors(dead_id: Any, outer: Any, seen: Any) -> sa.CTE:
    """Return rid, id and owner of the Patient *dead_id*, a column of *outer*, and of all that it was merged into."""
    mine = record.alias()
    start = sa.select(mine.c.rid, mine.c.id, mine.c.owner).where(mine.c.type == "Patient", mine.c.id == dead_id)
    return _up(start.correlate(outer), seen)


def one_person(connection: Connection, patient_id: str) -> list[str]:
    """Return *patient_id* and behind it the records that its owner's merges make the same person's.

    They are what it was merged into and all that was merged into those, at most :data:`MAX_FOLLOWED`.
    """
    start = sa.select(record.c.rid, record.c.id, record.c.owner).where(
        record.c.type == "Patient", record.c.id == patient_id
    )
    up = _up(start, None)
    top = sa.select(up.c.rid, up.c.id, up.c.owner).where(up.c.rid.is_not(None))
    group = _down(top, None)
    wanted = sa.select(group.c.id).where(group.c.rid.is_not(None), group.c.id != patient_id).limit(MAX_FOLLOWED)
    return [patient_id, *sorted(connection.execute(wanted).scalars())]


def _up(start: sa.Select[Any], seen: Any) -> sa.CTE:
    """Return rid, id and owner of the records of *start* and of all that they were merged into, step by step."""
    group = start.cte(recursive=True, nesting=True)
    dead, link, survivor = record.alias(), idx_reference.alias(), record.alias()
    shown = sa.and_(dead.c.rid == group.c.rid, *([] if seen is None else [seen(dead)]))
    merged = sa.and_(link.c.rid == dead.c.rid, link.c.param == MERGED_INTO)
    same = sa.and_(survivor.c.type == "Patient", survivor.c.id == link.c.target_id, survivor.c.owner == group.c.owner)
    # Outer joins for the reason that :func:`_down` gives.
    step = sa.outerjoin(sa.outerjoin(sa.outerjoin(group, dead, shown), link, merged), survivor, same)
    return group.union(sa.select(survivor.c.rid, survivor.c.id, survivor.c.owner).select_from(step))
