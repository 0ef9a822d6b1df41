"""Which records a FHIR search looks at: a few that are listed, or all in reach.

https://hl7.org/fhir/R4/search.html. The filters are tried in turn for one that few records fulfil (at most 1,000): its
records are looked at one by one. Where there is none, the records in reach are walked in the order of the answer until
the page is full, which is soon, as many fulfil every filter. The plans therefore do not hang on the statistics of the
database.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hub.access import Scope
from hub.search import ast
from storage.sql import merges
from storage.sql.access import visible, ways
from storage.sql.filters import Seen, holds, listed
from storage.sql.schema import idx_reference, record

#: A filter with at most this many records is listed.
FEW = 1000
#: A filter with so few records is listed without a look at the others.
_VERY_FEW = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Statements-to-be: all of ``conditions`` and one of ``ways``, which exclude one another."""

    conditions: tuple[sa.ColumnElement[bool], ...]
    ways: tuple[sa.ColumnElement[bool], ...]


def _cost(one: ast.Filter) -> int:
    """Return how soon to try whether few records fulfil *one*: by how exact it is and how cheap to ask."""
    match one:
        case ast.Ids():
            return 0
        case ast.Reference() | ast.Token(param="identifier", modifier="") | ast.Token(modifier="of-type"):
            return 1
        case ast.Token(modifier="text") | ast.String(modifier="contains"):
            return 6
        case ast.Token() | ast.String() | ast.Uri():
            return 2
        case ast.Date():
            return 3
        case ast.Chain() | ast.Has():
            return 4
        case _:
            return 5


def plan(connection: Connection, query: ast.Query, scope: Scope, now_us: int) -> Search:
    """Return what the statements of *query* ask for, after a look at how few records fulfil each filter."""

    def seen(table: Any) -> sa.ColumnElement[bool]:
        return visible(table, scope, now_us)

    kind = query.resource_type
    few: tuple[ast.Filter, list[int]] | None = None
    for one in sorted(query.filters, key=_cost):
        rids = _few(connection, kind, one, seen)
        if rids is not None and (few is None or len(rids) < len(few[1])):
            few = one, rids
        if few is not None and len(few[1]) <= _VERY_FEW:
            break
    conditions = [record.c.deleted == sa.false()]
    conditions += [holds(record, kind, one, seen) for one in query.filters if few is None or one is not few[0]]
    if few is not None:
        # What is listed is of the type; saying so again would invite SQLite to walk the type and not the list.
        return Search(conditions=(record.c.rid.in_(few[1]), *conditions), ways=(seen(record),))
    return Search(conditions=tuple(conditions), ways=ways(record, scope, now_us, kind))


def _few(connection: Connection, resource_type: str, one: ast.Filter, seen: Seen) -> list[int] | None:
    """Return the rids of the records of the type that fulfil *one*, or ``None`` where they are more than a few.

    Deleted and hidden ones may be among them, but none that fulfils it by way of a deleted or hidden record.
    """
    match one:
        case ast.Chain():
            return _few_by_chain(connection, resource_type, one, seen)
        case ast.Has():
            return _few_by_has(connection, resource_type, one, seen)
        case _:
            listing = listed(resource_type, one)
            return None if listing is None else _at_most(connection, listing)


def _at_most(connection: Connection, listing: sa.Select[Any]) -> list[int] | None:
    rids = list(connection.execute(listing.distinct().limit(FEW + 1)).scalars())
    return rids if len(rids) <= FEW else None


def _few_by_chain(connection: Connection, resource_type: str, one: ast.Chain, seen: Seen) -> list[int] | None:
    found: set[int] = set()
    for target in one.targets:
        others = _few(connection, target.resource_type, target.filter, seen)
        if others is None:
            return None
        shown = sa.select(record.c.id).where(record.c.rid.in_(others), record.c.deleted == sa.false(), seen(record))
        names = list(connection.execute(shown).scalars()) if others else []
        if names and target.resource_type == "Patient" and merges.follows(resource_type, one.param):
            names = merges.standing_for(connection, names, seen)
        rows = sa.select(idx_reference.c.rid).where(
            idx_reference.c.param == f"{resource_type}.{one.param}",
            idx_reference.c.target_id.in_(names),
            idx_reference.c.target_type == target.resource_type,
        )
        rids = _at_most(connection, rows) if names else []
        if rids is None:
            return None
        found.update(rids)
    return sorted(found) if len(found) <= FEW else None


def _few_by_has(connection: Connection, resource_type: str, one: ast.Has, seen: Seen) -> list[int] | None:
    sources = _few(connection, one.resource_type, one.filter, seen)
    if sources is None:
        return None
    shown = sa.select(record.c.rid).where(record.c.rid.in_(sources), record.c.deleted == sa.false(), seen(record))
    rids = list(connection.execute(shown).scalars()) if sources else []
    targets = sa.select(idx_reference.c.target_id).where(
        idx_reference.c.rid.in_(rids),
        idx_reference.c.param == f"{one.resource_type}.{one.param}",
        idx_reference.c.target_type == resource_type,
    )
    names = list(connection.execute(targets.distinct()).scalars()) if rids else []
    if not names:
        return []
    if resource_type == "Patient" and merges.follows(one.resource_type, one.param):
        names = merges.survivors_of(connection, names, seen)
    return _at_most(connection, sa.select(record.c.rid).where(record.c.type == resource_type, record.c.id.in_(names)))
