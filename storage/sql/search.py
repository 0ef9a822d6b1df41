"""One page of a FHIR search, with the access predicate in every statement.

https://hl7.org/fhir/R4/search.html. Theory of operation. The filters are tried in turn for one that few records fulfil
(at most 1,000): its records are looked at one by one. Where there is none, the records in reach are walked in the order
of the answer until the page is full, which is soon, as many fulfil every filter. The plans therefore do not hang on the
statistics of the database.

Pages are cut by key, not by offset: the cursor holds the sort values and the rid of the last row, so that rows which
arrive between two pages neither repeat nor vanish.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fhir_mappings.definitions.search_parameters import search_parameters
from fhir_mappings.errors import MalformedError
from fhir_mappings.json import dumps, loads
from hub.access import Scope
from hub.errors import Category, HubError
from hub.ports import Page, Stored
from hub.search import ast
from storage.sql import merges
from storage.sql.access import visible, ways
from storage.sql.filters import HIGH, Seen, holds, kept, listed
from storage.sql.prepared import Prepared
from storage.sql.record_rows import stored
from storage.sql.schema import idx_date, idx_quantity, idx_reference, idx_string, idx_token, idx_uri, record

#: Most resources that one page may include besides its matches.
MAX_INCLUDED = 1000
#: A filter with at most this many records is listed.
FEW = 1000
#: A filter with so few records is listed without a look at the others.
_VERY_FEW = 64

_SORT_COLUMN = {
    "token": idx_token.c.code,
    "string": idx_string.c.value,
    "reference": idx_reference.c.target_id,
    "date": idx_date.c.low,
    "number": idx_quantity.c.low,
    "quantity": idx_quantity.c.low,
    "uri": idx_uri.c.value,
}


# --- which records ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
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


def _plan(connection: Connection, query: ast.Query, scope: Scope, now_us: int) -> _Search:
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
        return _Search(conditions=(record.c.rid.in_(few[1]), *conditions), ways=(seen(record),))
    return _Search(conditions=tuple(conditions), ways=ways(record, scope, now_us, kind))


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


# --- order and pages ---------------------------------------------------------------------------------------------


def _keys(query: ast.Query) -> list[tuple[Any, bool]]:
    """Return the sort expressions and whether each descends; the rid makes the order total."""
    keys = [(_key(query.resource_type, one), one.descending) for one in query.sort]
    # Without a sort key the newest resource comes first; a new one then lands before the page, never inside it.
    return [*keys, (record.c.rid, not query.sort)]


def _key(resource_type: str, one: ast.Sort) -> Any:
    if one.param == "_lastUpdated":
        return record.c.last_updated
    if one.param == "_id":
        return record.c.id
    column = _SORT_COLUMN[one.kind]
    if one.kind in {"number", "quantity"} and one.descending:
        column = idx_quantity.c.high
    table = column.table
    pick = sa.func.max if one.descending else sa.func.min

    def value(*more: sa.ColumnElement[bool]) -> Any:
        mine = (table.c.rid == record.c.rid, table.c.param == f"{resource_type}.{one.param}", *more)
        return sa.select(pick(column)).where(*mine).correlate(record).scalar_subquery()

    # Resources without the element come last in either direction.
    match one.kind:
        case "string":
            # Han names stand in the order of their pinyin, as in any Chinese list of names.
            last = "" if one.descending else HIGH
            return sa.func.coalesce(value(idx_string.c.kind == "pinyin"), value(idx_string.c.kind == "text"), last)
        case "token" | "reference" | "uri":
            # A concept without a code and a reference without an id have nothing to sort by.
            return sa.func.coalesce(value(column != ""), "" if one.descending else HIGH)
        case "date":
            return sa.func.coalesce(value(), -(1 << 62) if one.descending else 1 << 62)
        case _:
            return sa.func.coalesce(value(), -math.inf if one.descending else math.inf)


def _after(keys: Sequence[tuple[Any, bool]], values: Sequence[Any]) -> sa.ColumnElement[bool]:
    options = []
    for depth, (expression, descending) in enumerate(keys):
        same = [earlier[0] == value for earlier, value in zip(keys[:depth], values, strict=False)]
        beyond = expression < values[depth] if descending else expression > values[depth]
        options.append(sa.and_(*same, beyond))
    return sa.or_(*options)


def _encode(values: Sequence[Any]) -> str:
    # Floats travel as text: JSON has no infinity, which the open end of a range is.
    plain = [[repr(value)] if isinstance(value, float) else value for value in values]
    return base64.urlsafe_b64encode(dumps(plain)).decode().rstrip("=")


def _decode(cursor: str, keys: Sequence[tuple[Any, bool]]) -> list[Any]:
    try:
        values = loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        values = [float(value[0]) if isinstance(value, list) else value for value in values]
    except (binascii.Error, ValueError, TypeError, IndexError, MalformedError):
        values = []
    fits = len(values) == len(keys) and all(isinstance(value, str | int | float) for value in values)
    if not fits or isinstance(values[-1], str) or any(isinstance(v, int) and abs(v) >= 1 << 63 for v in values):
        raise HubError(
            Category.INCORRECT,
            "The page link is not one of this hub.",
            where="_cursor",
            remedy="Start again from the first page.",
        )
    return values


# --- statements built once ---------------------------------------------------------------------------------------

#: Filter of a prepared search: parameter, kind of filter, and which parts of its one value are given.
_Shape = tuple[str, str, bool, bool, tuple[str, ...]]


def _shape(query: ast.Query, scope: Scope) -> tuple[_Shape, ...] | None:
    """Return the shape of a search whose statement can be built once: plain tokens and references, one value each.

    Such searches (a patient by number, results by patient) are most of the traffic, and building a statement costs
    more than running it. One filter must be an identifier or a reference, which few records share.
    """
    special = scope.everything or scope.directory_only or scope.patient is not None
    if special or query.sort or query.cursor is not None or query.offset or query.total != "none" or not query.count:
        return None
    shapes: list[_Shape] = []
    for one in query.filters:
        match one:
            case ast.Token(param=param, modifier="", values=(value,)):
                shapes.append((param, "token", value.code is not None, value.system is not None, ()))
            case ast.Reference(
                param=param, target_types=types, values=(ast.ReferenceValue(url=None, identifier=None) as value,)
            ):
                shapes.append((param, "reference", True, value.target_type is not None, types))
            case _:
                return None
    if query.summary == "count" or not any(map(_is_exact, shapes)):
        return None
    return tuple(shapes)


def _is_exact(shape: _Shape) -> bool:
    param, kind, first, _, _ = shape
    return kind == "reference" or (param == "identifier" and first)


@lru_cache(maxsize=1024)
def _prepared(resource_type: str, shapes: tuple[_Shape, ...], limit: int) -> tuple[Prepared, tuple[str, ...]]:
    """Return the statement of all searches of one shape, and the names of those binds that may be a Patient's id.

    Its values are bind parameters. Each row tells as ``merged`` whether such a Patient survived a merge: asked on the
    way, that costs a fraction of a statement of its own.
    """
    filters: list[ast.PlainFilter] = []
    patients: list[str] = []
    for number, (param, kind, first, second, types) in enumerate(shapes):
        # A bind parameter stands where the value would; the AST's types know only the value.
        one: Any = sa.bindparam(f"a{number}") if first else None
        two: Any = sa.bindparam(f"b{number}") if second else None
        if kind == "token":
            filters.append(ast.Token(param=param, values=(ast.TokenValue(code=one, system=two),)))
        else:
            value = ast.ReferenceValue(target_id=one, target_type=two)
            reference = ast.Reference(param=param, target_types=types, values=(value,))
            filters.append(reference)
            if merges.may_name_patients(resource_type, reference):
                patients.append(f"a{number}")

    def seen(table: Any) -> sa.ColumnElement[bool]:
        return visible(table, Scope(institution=""), sa.bindparam("now"), institution=sa.bindparam("institution"))

    exact = next(number for number, shape in enumerate(shapes) if _is_exact(shape))
    listing = listed(resource_type, filters[exact])
    assert listing is not None
    # What is listed is of the type; saying so again would invite SQLite to walk the type and not the list.
    merged = [merges.flag(sa.bindparam(name) for name in patients).label("merged")] if patients else []
    statement = (
        sa.select(record, record.c.rid.label("k0"), *merged)
        .where(record.c.rid.in_(listing), record.c.deleted == sa.false(), seen(record))
        .where(*(holds(record, resource_type, one, seen) for n, one in enumerate(filters) if n != exact))
        .order_by(record.c.rid.desc())
        .limit(limit)
    )
    return Prepared(statement), tuple(patients)


def _binds(query: ast.Query, scope: Scope, now_us: int) -> dict[str, Any]:
    binds: dict[str, Any] = {"now": now_us, "institution": scope.institution}
    for number, one in enumerate(query.filters):
        match one:
            case ast.Token(values=(token,)):
                given = (token.code, token.system)
            case ast.Reference(values=(reference,)):
                given = (reference.target_id, reference.target_type)
        for name, value in zip("ab", given, strict=True):
            if value is not None:
                binds[f"{name}{number}"] = kept(value)
    return binds


# --- answers -----------------------------------------------------------------------------------------------------


def run(connection: Connection, query: ast.Query, scope: Scope, now_us: int) -> Page:
    """Return one page of *query*.

    Raises:
        HubError: incorrect for a cursor that is none, or when the page would include too much.
    """
    shape = _shape(query, scope)
    if shape is not None:
        prepared, patients = _prepared(query.resource_type, shape, query.count + 1)
        binds = _binds(query, scope, now_us)
        rows = prepared.all(connection, binds)
        if not patients:
            merged = False
        elif rows:
            merged = rows[0].merged
        else:
            merged = any(merges.is_survivor(connection, binds[name]) for name in patients)
        if not merged:
            return _page(connection, query, scope, now_us, rows, ["k0"], None)
    query = merges.followed(connection, query, lambda table: visible(table, scope, now_us))
    search = _plan(connection, query, scope, now_us)
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
    keys = _keys(query)
    names = [f"k{number}" for number in range(len(keys))]
    statement = (
        sa.select(record, *(key.label(name) for (key, _), name in zip(keys, names, strict=True)))
        .where(*search.conditions)
        .order_by(*(key.desc() if descending else key.asc() for key, descending in keys))
        .limit(query.offset + query.count + 1)
    )
    if query.cursor is not None:
        statement = statement.where(_after(keys, _decode(query.cursor, keys)))
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
        following = _encode([getattr(page[-1], name) for name in names])
    included = _included(connection, query, scope, now_us, page) if query.includes and page else ()
    return Page(matches=tuple(stored(row) for row in page), included=included, total=total, next_cursor=following)


def ids(connection: Connection, query: ast.Query, scope: Scope, now_us: int, *, limit: int) -> list[str]:
    """Return logical ids of at most *limit* matches, the oldest first."""
    query = merges.followed(connection, query, lambda table: visible(table, scope, now_us))
    search = _plan(connection, query, scope, now_us)
    statement = sa.select(record.c.rid, record.c.id).where(*search.conditions).order_by(record.c.rid).limit(limit)
    rows = sorted((row.rid, row.id) for way in search.ways for row in connection.execute(statement.where(way)))
    return [id_ for _, id_ in rows[:limit]]


# --- what comes along --------------------------------------------------------------------------------------------


def _params(one: ast.Include) -> list[str]:
    """Return the ``param`` of the rows that *one* follows."""
    if one.param != "*":
        return [f"{one.source_type}.{one.param}"]
    parameters = search_parameters(one.source_type).values()
    return sorted({f"{one.source_type}.{each.rows}" for each in parameters if each.type == "reference"})


def _included(
    connection: Connection, query: ast.Query, scope: Scope, now_us: int, page: Sequence[Any]
) -> tuple[Stored, ...]:
    """Return what ``_include`` and ``_revinclude`` add, once each, without the matches themselves."""
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
        idx_reference.c.param.in_(_params(one)),
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
        idx_reference.c.rid.in_([row.rid for row in page]), idx_reference.c.param.in_(_params(one))
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
