"""Search filters as SQL, each in two forms: which records fulfil it, and whether one record does.

https://hl7.org/fhir/R4/search.html. How values compare is fixed in :mod:`fhir_mappings.definitions.index_rows`. A filter
that few records fulfil is best listed and each record found by its number; one that many fulfil is best checked for each
record that something else has found. :mod:`storage.sql.search_plan` chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

from hub.search import ast
from storage.sql import merges
from storage.sql.index import MAX_URI, TAILED, start, starts_with_han, whole
from storage.sql.schema import idx_date, idx_quantity, idx_reference, idx_string, idx_token, idx_uri, record

#: The access predicate over a record table or an alias of it.
Seen = Callable[[Any], sa.ColumnElement[bool]]

#: Sorts after every folded text, so that ``value >= x and value < x + HIGH`` is "starts with x" on an index.
HIGH = "\U0010ffff"

_TABLES = {
    "token": idx_token,
    "string": idx_string,
    "reference": idx_reference,
    "date": idx_date,
    "number": idx_quantity,
    "quantity": idx_quantity,
    "uri": idx_uri,
}
_EMPTY: sa.ColumnElement[str] = sa.literal_column("''")


def kept(value: Any) -> Any:
    """Return *value* as index rows keep it; a bind parameter that stands for one passes."""
    return whole(value) if isinstance(value, str) else value


def listed(resource_type: str, one: ast.Filter) -> sa.Select[Any] | None:
    """Return the rids of records of the type that fulfil *one* as a SELECT, or ``None`` where no index lists them.

    Records that the asker may not see, or that are deleted, may be among them.
    """
    if isinstance(one, ast.Ids):
        return sa.select(record.c.rid).where(record.c.type == resource_type, record.c.id.in_(one.values))
    found = _rows(resource_type, one)
    if found is None or found[2]:
        return None
    table, condition, _ = found
    return sa.select(table.c.rid).where(condition)


def holds(rec: Any, resource_type: str, one: ast.Filter, seen: Seen) -> sa.ColumnElement[bool]:
    """Return whether the record *rec* (the table or an alias) fulfils *one*."""
    match one:
        case ast.Ids(values=ids):
            return rec.c.id.in_(ids)  # type: ignore[no-any-return]
        case ast.Date(param="_lastUpdated", values=values):
            return sa.or_(*(_moment(rec.c.last_updated, value) for value in values))
        case ast.Chain():
            return _chain_holds(rec, resource_type, one, seen)
        case ast.Has():
            return _has_holds(rec, resource_type, one, seen)
        case _:
            found = _rows(resource_type, one)
            assert found is not None
            table, condition, negative = found
            any_row = sa.exists(sa.select(sa.literal(1)).where(table.c.rid == rec.c.rid, condition).correlate(rec))
            return sa.not_(any_row) if negative else any_row


# --- filters on the rows of one record ---------------------------------------------------------------------------


def _rows(resource_type: str, one: ast.Filter) -> tuple[sa.Table, sa.ColumnElement[bool], bool] | None:
    """Return table, condition, and whether *no* row may fulfil it; ``None`` for what has no rows."""
    negative = False
    param = getattr(one, "param", "")
    table: sa.Table
    options: list[sa.ColumnElement[bool]]
    match one:
        case ast.Token(modifier="text", values=values):
            table, options = idx_token, [_starts(idx_token.c.text, start(value.code or "")) for value in values]
        case ast.Token(modifier=modifier, values=values):
            param = f"{param}:of-type" if modifier == "of-type" else param
            negative = modifier == "not"
            table, options = idx_token, [_token(value) for value in values]
        case ast.String(modifier=modifier, values=values):
            table, options = idx_string, [_string(param, modifier, value) for value in values]
        case ast.Reference(target_types=types, values=values):
            table, options = idx_reference, _references(types, values)
        case ast.Date(param="_lastUpdated") | ast.Ids() | ast.Chain() | ast.Has():
            return None
        case ast.Date(values=values):
            table, options = idx_date, [_date(value) for value in values]
        case ast.Number(values=values):
            table, options = idx_quantity, [_number(value) for value in values]
        case ast.Quantity(values=values):
            table, options = idx_quantity, [_quantity(value) for value in values]
        case ast.Uri(modifier=modifier, values=values):
            table, options = idx_uri, [_uri(modifier, value) for value in values]
        case ast.Missing(kind=kind, missing=missing):
            table, options, negative = _TABLES[kind], [], missing
    condition = table.c.param == f"{resource_type}.{param}"
    return table, sa.and_(condition, sa.or_(*options)) if options else condition, negative


def _starts(column: Any, value: str) -> sa.ColumnElement[bool]:
    return sa.and_(column >= value, column < value + HIGH)


def _token(value: ast.TokenValue) -> sa.ColumnElement[bool]:
    parts = []
    if value.code is not None:
        parts.append(idx_token.c.code == kept(value.code))
    if value.system is not None:
        parts.append(idx_token.c.system == kept(value.system))
    return sa.and_(*parts) if parts else sa.true()


def _string(param: str, modifier: str, value: ast.StringValue) -> sa.ColumnElement[bool]:
    column = idx_string.c
    folded = start(value.folded)
    if modifier == "exact":
        return sa.and_(column.kind == "text", column.value == folded, column.exact == whole(value.exact))
    if modifier == "contains":
        if param in TAILED and starts_with_han(folded):
            return sa.and_(column.kind.in_(("text", "tail")), _starts(column.value, folded))
        # Other scripts and longer texts have no tails; the rows of the parameter are scanned.
        return sa.and_(column.kind.in_(("text", "pinyin")), column.value.contains(folded, autoescape=True))
    return sa.and_(column.kind.in_(("text", "pinyin", "initials")), _starts(column.value, folded))


def _references(target_types: Sequence[str], values: Sequence[ast.ReferenceValue]) -> list[sa.ColumnElement[bool]]:
    if len(values) == 1:
        return [_reference(target_types, values[0])]
    options: list[sa.ColumnElement[bool]] = []
    by_type: dict[str, list[str]] = {}
    for value in values:
        if value.target_type is not None and value.target_id is not None:
            by_type.setdefault(value.target_type, []).append(value.target_id)
        else:
            options.append(_reference(target_types, value))
    # As lists, because a patient may stand for many merged records, and SQLite bounds how deep an expression goes.
    column = idx_reference.c
    options += [sa.and_(column.target_id.in_(ids), column.target_type == type_) for type_, ids in by_type.items()]
    return options


def _reference(target_types: Sequence[str], value: ast.ReferenceValue) -> sa.ColumnElement[bool]:
    column = idx_reference.c
    if value.identifier is not None:
        # The literal lets SQLite use the partial index.
        parts = [column.identifier_value != _EMPTY]
        if value.identifier.code is not None:
            parts.append(column.identifier_value == kept(value.identifier.code))
        if value.identifier.system is not None:
            parts.append(column.identifier_system == kept(value.identifier.system))
        return sa.and_(*parts)
    if value.url is not None:
        return sa.and_(column.url != _EMPTY, column.url == kept(value.url))
    types = [value.target_type] if value.target_type is not None else list(target_types)
    condition = column.target_id == value.target_id
    # Written out, and no list, so that the text of a prepared statement does not hang on its values.
    return sa.and_(condition, sa.or_(*(column.target_type == one for one in types))) if types else condition


def _date(value: ast.DateValue) -> sa.ColumnElement[bool]:
    low, high = idx_date.c.low, idx_date.c.high
    # No row is empty, so ``low < value.high`` follows; written out, it bounds the part of the index that is read.
    equal = sa.and_(low >= value.low_us, low < value.high_us, high <= value.high_us)
    table: dict[str, sa.ColumnElement[bool]] = {
        "eq": equal,
        "ne": sa.or_(low < value.low_us, high > value.high_us),
        "gt": high > value.high_us,
        "lt": low < value.low_us,
        "ge": sa.or_(high > value.high_us, equal),
        "le": sa.or_(low < value.low_us, equal),
        "sa": low >= value.high_us,
        "eb": high <= value.low_us,
        "ap": sa.and_(low < value.high_us, high > value.low_us),
    }
    return table[value.prefix]


def _moment(column: Any, value: ast.DateValue) -> sa.ColumnElement[bool]:
    """Compare a column that holds one moment, the row ``[column, column + 1)``."""
    table: dict[str, sa.ColumnElement[bool]] = {
        "eq": sa.and_(column >= value.low_us, column < value.high_us),
        "ne": sa.or_(column < value.low_us, column >= value.high_us),
        "gt": column >= value.high_us,
        "lt": column < value.low_us,
        "ge": column >= value.low_us,
        "le": column < value.high_us,
        "sa": column >= value.high_us,
        "eb": column < value.low_us,
        "ap": sa.and_(column >= value.low_us, column < value.high_us),
    }
    return table[value.prefix]


def _number(value: ast.NumberValue | ast.QuantityValue) -> sa.ColumnElement[bool]:
    low, high = idx_quantity.c.low, idx_quantity.c.high
    table: dict[str, sa.ColumnElement[bool]] = {
        "eq": sa.and_(low >= value.low, low < value.high, high < value.high),
        "ne": sa.or_(low < value.low, high >= value.high),
        "gt": high > value.value,
        "lt": low < value.value,
        "ge": high >= value.value,
        "le": low <= value.value,
        "sa": low > value.value,
        "eb": high < value.value,
        "ap": sa.and_(low < value.high, high >= value.low),
    }
    return table[value.prefix]


def _quantity(value: ast.QuantityValue) -> sa.ColumnElement[bool]:
    parts = [_number(value)]
    if value.system is not None:
        parts.append(idx_quantity.c.system == whole(value.system))
    if value.code is not None:
        same = idx_quantity.c.code == whole(value.code)
        parts.append(sa.or_(same, idx_quantity.c.unit == whole(value.code)) if value.system is None else same)
    return sa.and_(*parts)


def _uri(modifier: str, value: str) -> sa.ColumnElement[bool]:
    column = idx_uri.c.value
    value = value[:MAX_URI]
    if modifier == "below":
        return _starts(column, value)
    if modifier == "above":
        # A stored URI is above the value when the value starts with it; the prefixes of the value are a short list.
        parts = value.split("/")
        return column.in_(["/".join(parts[:end]) for end in range(1, len(parts) + 1)])
    return column == value


# --- filters on other records ------------------------------------------------------------------------------------


def _fulfilled(other: Any, here: Any, resource_type: str, one: ast.PlainFilter, seen: Seen) -> sa.ColumnElement[bool]:
    """Return whether the record *other*, found by *here*, fulfils *one*.

    It must be visible itself: a search over what the asker may not see would be an oracle.
    """
    # An EXISTS of its own, and no join, because a join leaves SQLite free to begin with all records of the type.
    return sa.exists(
        sa.select(sa.literal(1))
        .where(here, other.c.deleted == sa.false(), seen(other), holds(other, resource_type, one, seen))
        .correlate(idx_reference)
    )


def _chain_holds(rec: Any, resource_type: str, one: ast.Chain, seen: Seen) -> sa.ColumnElement[bool]:
    options: list[sa.ColumnElement[bool]] = []
    for target in one.targets:
        other = record.alias()
        here = sa.and_(other.c.type == idx_reference.c.target_type, other.c.id == idx_reference.c.target_id)
        options.append(
            sa.exists(
                sa.select(sa.literal(1))
                .where(
                    idx_reference.c.rid == rec.c.rid,
                    idx_reference.c.param == f"{resource_type}.{one.param}",
                    idx_reference.c.target_type == target.resource_type,
                    _fulfilled(other, here, target.resource_type, target.filter, seen),
                )
                .correlate(rec)
            )
        )
        if target.resource_type == "Patient" and merges.follows(resource_type, one.param):
            options.append(_chain_holds_merged(rec, resource_type, one, target, seen))
    return sa.or_(*options)


def _chain_holds_merged(
    rec: Any, resource_type: str, one: ast.Chain, target: ast.ChainTarget, seen: Seen
) -> sa.ColumnElement[bool]:
    """Return whether *rec* points at a dead Patient whose survivor fulfils the filter."""
    other = record.alias()
    group = merges.survivors(idx_reference.c.target_id, idx_reference, seen)
    fulfilled = sa.and_(other.c.deleted == sa.false(), seen(other), holds(other, "Patient", target.filter, seen))
    return sa.exists(
        sa.select(sa.literal(1))
        .where(
            idx_reference.c.rid == rec.c.rid,
            idx_reference.c.param == f"{resource_type}.{one.param}",
            idx_reference.c.target_type == "Patient",
            sa.exists(
                sa.select(sa.literal(1))
                # An outer join is made in this order on either database, from the few survivors to their records.
                .select_from(sa.outerjoin(group, other, sa.and_(other.c.rid == group.c.rid, fulfilled)))
                .where(group.c.id != idx_reference.c.target_id, other.c.rid.is_not(None))
                .correlate(idx_reference)
            ),
        )
        .correlate(rec)
    )


def _has_holds(rec: Any, resource_type: str, one: ast.Has, seen: Seen) -> sa.ColumnElement[bool]:
    source = record.alias()
    direct = sa.exists(
        sa.select(sa.literal(1))
        .where(
            idx_reference.c.param == f"{one.resource_type}.{one.param}",
            idx_reference.c.target_id == rec.c.id,
            idx_reference.c.target_type == resource_type,
            _fulfilled(source, source.c.rid == idx_reference.c.rid, one.resource_type, one.filter, seen),
        )
        .correlate(rec)
    )
    if resource_type != "Patient" or not merges.follows(one.resource_type, one.param):
        return direct
    return sa.or_(direct, _has_holds_merged(rec, one, seen))


def _has_holds_merged(rec: Any, one: ast.Has, seen: Seen) -> sa.ColumnElement[bool]:
    """Return whether a resource that fulfils the filter points at a record that was merged into the Patient *rec*."""
    source = record.alias()
    group = merges.merged_into(rec, seen)
    pointing = sa.and_(
        idx_reference.c.param == f"{one.resource_type}.{one.param}",
        idx_reference.c.target_id == group.c.id,
        idx_reference.c.target_type == "Patient",
    )
    fulfilled = _fulfilled(source, source.c.rid == idx_reference.c.rid, one.resource_type, one.filter, seen)
    return sa.exists(
        sa.select(sa.literal(1))
        # An outer join is made in this order on either database, from the few merged records to what points at them.
        .select_from(sa.outerjoin(group, idx_reference, pointing))
        .where(group.c.rid != rec.c.rid, idx_reference.c.rid.is_not(None), fulfilled)
        .correlate(rec)
    )
