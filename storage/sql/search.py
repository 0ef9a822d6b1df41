"""One page of a FHIR search, with the access predicate in every statement.

https://hl7.org/fhir/R4/search.html. Which records are looked at is :mod:`storage.sql.search_plan`, their order and pages
:mod:`storage.sql.search_order`, what comes along :mod:`storage.sql.search_includes`; searches that all look alike have
their statement ready (:mod:`storage.sql.search_shape`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hub.access import Scope
from hub.ports import Page
from hub.search import ast
from storage.sql import merges
from storage.sql.access import visible
from storage.sql.record_rows import stored
from storage.sql.schema import record
from storage.sql.search_includes import included
from storage.sql.search_order import after, decode, encode, keys_of
from storage.sql.search_plan import plan
from storage.sql.search_shape import binds, prepared, shape_of


def run(connection: Connection, query: ast.Query, scope: Scope, now_us: int) -> Page:
    """Return one page of *query*.

    Raises:
        HubError: incorrect for a cursor that is none, or when the page would include too much.
    """
    shape = shape_of(query, scope)
    if shape is not None:
        ready, patients = prepared(query.resource_type, shape, query.count + 1)
        values = binds(query, scope, now_us)
        rows = ready.all(connection, values)
        if not patients:
            merged = False
        elif rows:
            merged = rows[0].merged
        else:
            merged = any(merges.is_survivor(connection, values[name]) for name in patients)
        if not merged:
            return _page(connection, query, scope, now_us, rows, ["k0"], None)
    query = merges.followed(connection, query, lambda table: visible(table, scope, now_us))
    search = plan(connection, query, scope, now_us)
    only_count = query.count == 0 or query.summary == "count"
    total = None
    if only_count or query.total != "none":
        total = sum(
            connection.execute(
                sa.select(sa.func.count()).select_from(record).where(way, *search.conditions)
            ).scalar_one()
            for way in search.ways
        )
    if only_count:
        return Page(matches=(), total=total)
    keys = keys_of(query)
    names = [f"k{number}" for number in range(len(keys))]
    statement = (
        sa.select(record, *(key.label(name) for (key, _), name in zip(keys, names, strict=True)))
        .where(*search.conditions)
        .order_by(*(key.desc() if descending else key.asc() for key, descending in keys))
        .limit(query.offset + query.count + 1)
    )
    if query.cursor is not None:
        statement = statement.where(after(keys, decode(query.cursor, keys)))
    rows = [row for way in search.ways for row in connection.execute(statement.where(way))]
    if len(search.ways) > 1:
        # The last key decides least, so it is sorted by first.
        for name, (_, descending) in reversed(list(zip(names, keys, strict=True))):
            rows.sort(key=lambda row, name=name: getattr(row, name), reverse=descending)  # type: ignore[misc]
    rows = rows[query.offset : query.offset + query.count + 1]
    return _page(connection, query, scope, now_us, rows, names, total)


def _page(
    connection: Connection,
    query: ast.Query,
    scope: Scope,
    now_us: int,
    rows: Sequence[Any],
    names: Sequence[str],
    total: int | None,
) -> Page:
    page = rows[: query.count]
    following = None
    if len(rows) > query.count:
        following = encode([getattr(page[-1], name) for name in names])
    extra = included(connection, query, scope, now_us, page) if query.includes and page else ()
    return Page(matches=tuple(stored(row) for row in page), included=extra, total=total, next_cursor=following)


def ids(connection: Connection, query: ast.Query, scope: Scope, now_us: int, *, limit: int) -> list[str]:
    """Return logical ids of at most *limit* matches, the oldest first."""
    query = merges.followed(connection, query, lambda table: visible(table, scope, now_us))
    search = plan(connection, query, scope, now_us)
    statement = sa.select(record.c.rid, record.c.id).where(*search.conditions).order_by(record.c.rid).limit(limit)
    rows = sorted((row.rid, row.id) for way in search.ways for row in connection.execute(statement.where(way)))
    return [id_ for _, id_ in rows[:limit]]
