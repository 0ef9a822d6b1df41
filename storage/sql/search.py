"""A search AST as SQL: each filter is a set of rids read from one covering index, and the access predicate is in all.

https://hl7.org/fhir/R4/search.html. How values compare is fixed in :mod:`fhir_mappings.definitions.index_rows`. Pages
are cut by key, not by offset: the cursor holds the sort values and the rid of the last row, so that rows which arrive
between two pages neither repeat nor vanish.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fhir_mappings.errors import MalformedError
from fhir_mappings.json import dumps, loads
from hub.access import Scope
from hub.errors import Category, HubError
from hub.ports import Page, Stored
from hub.search import ast
from storage.sql.access import visible
from storage.sql.schema import idx_date, idx_quantity, idx_reference, idx_string, idx_token, idx_uri, record

#: Most resources that one page may include besides its matches.
MAX_INCLUDED = 1000
#: Sorts after every folded text, so that ``value >= x and value < x + HIGH`` is "starts with x" on an index.
_HIGH = "\U0010ffff"

_TABLES = {
    "token": idx_token,
    "string": idx_string,
    "reference": idx_reference,
    "date": idx_date,
    "number": idx_quantity,
    "quantity": idx_quantity,
    "uri": idx_uri,
}
_SORT_COLUMN = {
    "token": idx_token.c.code,
    "string": idx_string.c.value,
    "reference": idx_reference.c.target_id,
    "date": idx_date.c.low,
    "number": idx_quantity.c.low,
    "quantity": idx_quantity.c.low,
    "uri": idx_uri.c.value,
}


def _stored(row: Any) -> Stored:
    # Imported here because records builds on this module.
    from storage.sql.records import stored

    return stored(row)


# --- filters -----------------------------------------------------------------------------------------------------


def _starts(column: Any, value: str) -> sa.ColumnElement[bool]:
    return sa.and_(column >= value, column < value + _HIGH)


def _token_value(value: ast.TokenValue) -> sa.ColumnElement[bool]:
    parts = []
    if value.code is not None:
        parts.append(idx_token.c.code == value.code)
    if value.system is not None:
        parts.append(idx_token.c.system == value.system)
    return sa.and_(*parts) if parts else sa.true()


def _string_value(kind: str, value: ast.StringValue) -> sa.ColumnElement[bool]:
    column = idx_string.c
    if kind == "exact":
        return sa.and_(column.kind == "text", column.value == value.folded[:200], column.exact == value.exact[:200])
    if kind == "contains":
        # A Han infix is the start of a stored tail; for other scripts the rows of the parameter are scanned.
        han = sa.and_(column.kind.in_(("text", "tail")), _starts(column.value, value.folded))
        if value.folded[:1] >= "㐀":
            return han
        return sa.and_(column.kind.in_(("text", "pinyin")), column.value.contains(value.folded, autoescape=True))
    return sa.and_(column.kind.in_(("text", "pinyin", "initials")), _starts(column.value, value.folded))


def _reference_value(target_types: Sequence[str], value: ast.ReferenceValue) -> sa.ColumnElement[bool]:
    column = idx_reference.c
    if value.identifier is not None:
        parts = []
        if value.identifier.code is not None:
            parts.append(column.identifier_value == value.identifier.code)
        if value.identifier.system is not None:
            parts.append(column.identifier_system == value.identifier.system)
        parts.append(column.identifier_value != "")
        return sa.and_(*parts)
    if value.url is not None:
        return column.url == value.url
    types = [value.target_type] if value.target_type else list(target_types)
    condition = column.target_id == value.target_id
    return sa.and_(condition, column.target_type.in_(types)) if types else condition


def _date_value(low: Any, high: Any, value: ast.DateValue) -> sa.ColumnElement[bool]:
    equal = sa.and_(low >= value.low_us, high <= value.high_us)
    table: dict[str, sa.ColumnElement[bool]] = {
        "eq": equal,
        "ne": sa.not_(equal),
        "gt": high > value.high_us,
        "lt": low < value.low_us,
        "ge": sa.or_(high > value.high_us, equal),
        "le": sa.or_(low < value.low_us, equal),
        "sa": low >= value.high_us,
        "eb": high <= value.low_us,
        "ap": sa.and_(low < value.high_us, high > value.low_us),
    }
    return table[value.prefix]


def _number_value(value: ast.NumberValue | ast.QuantityValue) -> sa.ColumnElement[bool]:
    low, high = idx_quantity.c.low, idx_quantity.c.high
    equal = sa.and_(low >= value.low, high < value.high)
    table: dict[str, sa.ColumnElement[bool]] = {
        "eq": equal,
        "ne": sa.not_(equal),
        "gt": high > value.value,
        "lt": low < value.value,
        "ge": high >= value.value,
        "le": low <= value.value,
        "sa": low > value.value,
        "eb": high < value.value,
        "ap": sa.and_(low < value.high, high >= value.low),
    }
    return table[value.prefix]


def _quantity_value(value: ast.QuantityValue) -> sa.ColumnElement[bool]:
    parts = [_number_value(value)]
    if value.system is not None:
        parts.append(idx_quantity.c.system == value.system)
    if value.code is not None:
        same = idx_quantity.c.code == value.code
        parts.append(sa.or_(same, idx_quantity.c.unit == value.code) if value.system is None else same)
    return sa.and_(*parts)


def _uri_value(modifier: str, value: str) -> sa.ColumnElement[bool]:
    column = idx_uri.c.value
    if modifier == "below":
        return _starts(column, value)
    if modifier == "above":
        # A stored URI is above the value when the value starts with it; the prefixes of the value are a short list.
        parts = value.split("/")
        return column.in_(["/".join(parts[:end]) for end in range(1, len(parts) + 1)])
    return column == value


def _rids(table: sa.Table, resource_type: str, param: str, condition: sa.ColumnElement[bool]) -> sa.Select[Any]:
    return sa.select(table.c.rid).where(table.c.param == f"{resource_type}.{param}", condition)


def _plain(rec: sa.FromClause, resource_type: str, one: ast.PlainFilter) -> sa.ColumnElement[bool]:
    match one:
        case ast.Ids(values=ids_):
            return rec.c.id.in_(ids_)
        case ast.Token(param=param, modifier="not", values=values):
            return rec.c.rid.not_in(_rids(idx_token, resource_type, param, sa.or_(*map(_token_value, values))))
        case ast.Token(param=param, modifier="text", values=values):
            return rec.c.rid.in_(
                _rids(
                    idx_token, resource_type, param, sa.or_(*(_starts(idx_token.c.text, v.code or "") for v in values))
                )
            )
        case ast.Token(param=param, modifier="of-type", values=values):
            return rec.c.rid.in_(
                _rids(idx_token, resource_type, f"{param}:of-type", sa.or_(*map(_token_value, values)))
            )
        case ast.Token(param=param, values=values):
            return rec.c.rid.in_(_rids(idx_token, resource_type, param, sa.or_(*map(_token_value, values))))
        case ast.String(param=param, modifier=modifier, values=values):
            return rec.c.rid.in_(
                _rids(idx_string, resource_type, param, sa.or_(*(_string_value(modifier, v) for v in values)))
            )
        case ast.Reference(param=param, target_types=types, values=values):
            return rec.c.rid.in_(
                _rids(idx_reference, resource_type, param, sa.or_(*(_reference_value(types, v) for v in values)))
            )
        case ast.Date(param="_lastUpdated", values=values):
            column = rec.c.last_updated
            return sa.or_(*(_date_value(column, column + 1, v) for v in values))
        case ast.Date(param=param, values=values):
            return rec.c.rid.in_(
                _rids(
                    idx_date,
                    resource_type,
                    param,
                    sa.or_(*(_date_value(idx_date.c.low, idx_date.c.high, v) for v in values)),
                )
            )
        case ast.Number(param=param, values=values):
            return rec.c.rid.in_(_rids(idx_quantity, resource_type, param, sa.or_(*map(_number_value, values))))
        case ast.Quantity(param=param, values=values):
            return rec.c.rid.in_(_rids(idx_quantity, resource_type, param, sa.or_(*map(_quantity_value, values))))
        case ast.Uri(param=param, modifier=modifier, values=values):
            return rec.c.rid.in_(
                _rids(idx_uri, resource_type, param, sa.or_(*(_uri_value(modifier, v) for v in values)))
            )
        case ast.Missing(param=param, kind=kind, missing=missing):
            present = _rids(_TABLES[kind], resource_type, param, sa.true())
            return rec.c.rid.not_in(present) if missing else rec.c.rid.in_(present)


def _condition(
    rec: sa.FromClause, resource_type: str, one: ast.Filter, scope: Scope, now_us: int
) -> sa.ColumnElement[bool]:
    match one:
        case ast.Chain(param=param, targets=targets):
            options = []
            for target in targets:
                other = record.alias()
                options.append(
                    rec.c.rid.in_(
                        sa.select(idx_reference.c.rid)
                        .join(
                            other,
                            sa.and_(
                                other.c.type == idx_reference.c.target_type, other.c.id == idx_reference.c.target_id
                            ),
                        )
                        .where(
                            idx_reference.c.param == f"{resource_type}.{param}",
                            idx_reference.c.target_type == target.resource_type,
                            other.c.type == target.resource_type,
                            other.c.deleted == sa.false(),
                            # A chain over what the asker may not see would be an oracle, so the predicate holds here too.
                            visible(other, scope, now_us),
                            _plain(other, target.resource_type, target.filter),
                        )
                    )
                )
            return sa.or_(*options)
        case ast.Has(resource_type=source_type, param=param, filter=inner):
            source = record.alias()
            return rec.c.id.in_(
                sa.select(idx_reference.c.target_id)
                .join(source, source.c.rid == idx_reference.c.rid)
                .where(
                    idx_reference.c.param == f"{source_type}.{param}",
                    idx_reference.c.target_type == resource_type,
                    source.c.type == source_type,
                    source.c.deleted == sa.false(),
                    visible(source, scope, now_us),
                    _plain(source, source_type, inner),
                )
            )
        case _:
            return _plain(rec, resource_type, one)


def _where(query: ast.Query, scope: Scope, now_us: int) -> list[sa.ColumnElement[bool]]:
    conditions = [record.c.type == query.resource_type, record.c.deleted == sa.false(), visible(record, scope, now_us)]
    conditions += [_condition(record, query.resource_type, one, scope, now_us) for one in query.filters]
    return conditions


# --- order and pages ---------------------------------------------------------------------------------------------


def _keys(query: ast.Query) -> list[tuple[Any, bool]]:
    """Return the sort expressions and whether each descends; the rid makes the order total."""
    keys: list[tuple[Any, bool]] = []
    for one in query.sort:
        if one.param == "_lastUpdated":
            keys.append((record.c.last_updated, one.descending))
        elif one.param == "_id":
            keys.append((record.c.id, one.descending))
        else:
            column = _SORT_COLUMN[one.kind]
            table = column.table
            pick = sa.func.max if one.descending else sa.func.min
            value = (
                sa.select(pick(column))
                .where(table.c.rid == record.c.rid, table.c.param == f"{query.resource_type}.{one.param}")
                .correlate(record)
                .scalar_subquery()
            )
            # Resources without the element come last in either direction.
            empty: Any = "" if one.kind in {"token", "string", "reference", "uri"} else -(1 << 62)
            last: Any = _HIGH if isinstance(empty, str) else 1 << 62
            keys.append((sa.func.coalesce(value, empty if one.descending else last), one.descending))
    # Without a sort key the newest resource comes first; a new one then lands before the page, never inside it.
    keys.append((record.c.rid, not query.sort))
    return keys


def _after(keys: Sequence[tuple[Any, bool]], values: Sequence[Any]) -> sa.ColumnElement[bool]:
    options = []
    for depth, (expression, descending) in enumerate(keys):
        same = [earlier[0] == value for earlier, value in zip(keys[:depth], values, strict=False)]
        beyond = expression < values[depth] if descending else expression > values[depth]
        options.append(sa.and_(*same, beyond))
    return sa.or_(*options)


def _encode(values: Sequence[Any]) -> str:
    return base64.urlsafe_b64encode(dumps(list(values))).decode().rstrip("=")


def _decode(cursor: str, size: int) -> list[Any]:
    try:
        values = loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError, MalformedError):
        values = None
    if not isinstance(values, list) or len(values) != size or not all(isinstance(v, str | int) for v in values):
        raise HubError(
            Category.INCORRECT,
            "The page link is not one of this hub.",
            where="_cursor",
            remedy="Start again from the first page.",
        )
    return values


def run(connection: Connection, query: ast.Query, scope: Scope, now_us: int) -> Page:
    """Return one page of *query*."""
    conditions = _where(query, scope, now_us)
    total = None
    if query.total != "none" or query.count == 0 or query.summary == "count":
        total = connection.execute(sa.select(sa.func.count()).select_from(record).where(*conditions)).scalar_one()
    if query.count == 0 or query.summary == "count":
        return Page(matches=(), total=total)
    keys = _keys(query)
    names = [f"k{number}" for number in range(len(keys))]
    statement = sa.select(record, *(key.label(name) for (key, _), name in zip(keys, names, strict=True))).where(
        *conditions
    )
    if query.cursor is not None:
        statement = statement.where(_after(keys, _decode(query.cursor, len(keys))))
    statement = statement.order_by(*(key.desc() if descending else key.asc() for key, descending in keys)).limit(
        query.count + 1
    )
    if query.offset:
        statement = statement.offset(query.offset)
    rows = list(connection.execute(statement))
    page = rows[: query.count]
    following = None
    if len(rows) > query.count:
        following = _encode([getattr(page[-1], name) for name in names])
    included = _included(connection, query, scope, now_us, page) if query.includes and page else ()
    return Page(matches=tuple(_stored(row) for row in page), included=included, total=total, next_cursor=following)


def ids(connection: Connection, query: ast.Query, scope: Scope, now_us: int, *, limit: int) -> list[str]:
    """Return logical ids of at most *limit* matches."""
    statement = sa.select(record.c.id).where(*_where(query, scope, now_us)).order_by(record.c.rid).limit(limit)
    return list(connection.execute(statement).scalars())


def _included(
    connection: Connection, query: ast.Query, scope: Scope, now_us: int, page: Sequence[Any]
) -> tuple[Stored, ...]:
    """Return what ``_include`` and ``_revinclude`` add, once each, without the matches themselves."""
    have = {(row.type, row.id) for row in page}
    found: dict[tuple[str, str], Stored] = {}
    rids = [row.rid for row in page]
    logical = [row.id for row in page]
    for one in query.includes:
        param = (
            idx_reference.c.param.like(f"{one.source_type}.%")
            if one.param == "*"
            else idx_reference.c.param == f"{one.source_type}.{one.param}"
        )
        if one.reverse:
            wanted = sa.select(record).where(
                record.c.rid.in_(
                    sa.select(idx_reference.c.rid).where(
                        param,
                        idx_reference.c.target_id.in_(logical),
                        idx_reference.c.target_type == query.resource_type,
                    )
                ),
                record.c.type == one.source_type,
            )
        else:
            if one.source_type != query.resource_type:
                continue
            pairs = sa.select(idx_reference.c.target_type, idx_reference.c.target_id).where(
                idx_reference.c.rid.in_(rids), param
            )
            if one.target_type is not None:
                pairs = pairs.where(idx_reference.c.target_type == one.target_type)
            targets = [
                (row.target_type, row.target_id) for row in connection.execute(pairs.distinct()) if row.target_id
            ]
            if not targets:
                continue
            by_type: dict[str, list[str]] = {}
            for type_, id_ in targets:
                by_type.setdefault(type_, []).append(id_)
            wanted = sa.select(record).where(
                sa.or_(*(sa.and_(record.c.type == t, record.c.id.in_(i)) for t, i in by_type.items()))
            )
        wanted = wanted.where(record.c.deleted == sa.false(), visible(record, scope, now_us)).order_by(record.c.rid)
        for row in connection.execute(wanted.limit(MAX_INCLUDED + 1)):
            key = (row.type, row.id)
            if key not in have:
                found[key] = _stored(row)
        if len(found) > MAX_INCLUDED:
            raise HubError(
                Category.INCORRECT,
                f"The page would include more than {MAX_INCLUDED} resources.",
                where="_include",
                remedy="Ask for a smaller _count, or fewer includes.",
                issue_code="too-costly",
            )
    return tuple(found.values())
