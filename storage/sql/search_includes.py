"""What comes along with a page of a FHIR search: ``_include`` and ``_revinclude``, inside the asker's reach.

https://hl7.org/fhir/R4/search.html#include
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fhir_mappings.definitions.search_parameters import search_parameters
from hub.access import Scope
from hub.errors import Category, HubError
from hub.ports import Stored
from hub.search import ast
from storage.sql import merges
from storage.sql.access import visible
from storage.sql.filters import Seen
from storage.sql.record_rows import stored
from storage.sql.schema import idx_reference, record

#: Most resources that one page may include besides its matches.
MAX_INCLUDED = 1000


def params(one: ast.Include) -> list[str]:
    """Return the ``param`` of the rows that *one* follows."""
    if one.param != "*":
        return [f"{one.source_type}.{one.param}"]
    parameters = search_parameters(one.source_type).values()
    return sorted({f"{one.source_type}.{each.rows}" for each in parameters if each.type == "reference"})


def included(
    connection: Connection, query: ast.Query, scope: Scope, now_us: int, page: Sequence[Any]
) -> tuple[Stored, ...]:
    """Return what ``_include`` and ``_revinclude`` add, once each, without the matches themselves.

    Raises:
        HubError: incorrect, where they are more than a page may include.
    """
    have = {(row.type, row.id) for row in page}
    found: dict[tuple[str, str], Stored] = {}

    def seen(table: Any) -> sa.ColumnElement[bool]:
        return visible(table, scope, now_us)

    for one in query.includes:
        wanted = (
            _pointing(connection, query, one, page, seen) if one.reverse else _pointed_at(connection, query, one, page)
        )
        if wanted is None:
            continue
        statement = wanted.where(record.c.deleted == sa.false(), visible(record, scope, now_us)).order_by(record.c.rid)
        for row in connection.execute(statement.limit(MAX_INCLUDED + len(have) + 1)):
            key = (row.type, row.id)
            if key not in have:
                found[key] = stored(row)
        if len(found) > MAX_INCLUDED:
            raise HubError(
                Category.INCORRECT,
                f"The page would include more than {MAX_INCLUDED} resources.",
                where="_include",
                remedy="Ask for a smaller _count, or fewer includes.",
                issue_code="too-costly",
            )
    return tuple(found.values())


def _pointing(
    connection: Connection, query: ast.Query, one: ast.Include, page: Sequence[Any], seen: Seen
) -> sa.Select[Any] | None:
    """Return records of ``one.source_type`` that refer to the page."""
    if one.target_type not in {None, query.resource_type}:
        return None
    names = [row.id for row in page]
    if query.resource_type == "Patient" and merges.follows(one.source_type, one.param):
        names = merges.standing_for(connection, names, seen)
    rows = sa.select(idx_reference.c.rid).where(
        idx_reference.c.param.in_(params(one)),
        idx_reference.c.target_id.in_(names),
        idx_reference.c.target_type == query.resource_type,
    )
    return sa.select(record).where(record.c.rid.in_(rows), record.c.type == one.source_type)


def _pointed_at(
    connection: Connection, query: ast.Query, one: ast.Include, page: Sequence[Any]
) -> sa.Select[Any] | None:
    """Return records that the page refers to."""
    if one.source_type != query.resource_type:
        return None
    pairs = sa.select(idx_reference.c.target_type, idx_reference.c.target_id).where(
        idx_reference.c.rid.in_([row.rid for row in page]), idx_reference.c.param.in_(params(one))
    )
    if one.target_type is not None:
        pairs = pairs.where(idx_reference.c.target_type == one.target_type)
    by_type: dict[str, list[str]] = {}
    for row in connection.execute(pairs.distinct()):
        if row.target_id:
            by_type.setdefault(row.target_type, []).append(row.target_id)
    if not by_type:
        return None
    return sa.select(record).where(
        sa.or_(*(sa.and_(record.c.type == type_, record.c.id.in_(ids_)) for type_, ids_ in by_type.items()))
    )
