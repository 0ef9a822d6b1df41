"""The order of a FHIR search's answer, and the cursors that cut it into pages.

https://hl7.org/fhir/R4/search.html#sort. Pages are cut by key, not by offset: the cursor holds the sort values and the
rid of the last row, so that rows which arrive between two pages neither repeat nor vanish.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from fhir_mappings.errors import MalformedError
from fhir_mappings.json import dumps, loads
from hub.errors import Category, HubError
from hub.search import ast
from storage.sql.filters import HIGH
from storage.sql.schema import idx_date, idx_quantity, idx_reference, idx_string, idx_token, idx_uri, record

#: What is sorted by, for each kind of parameter.
_SORT_COLUMN = {
    "token": idx_token.c.code,
    "string": idx_string.c.value,
    "reference": idx_reference.c.target_id,
    "date": idx_date.c.low,
    "number": idx_quantity.c.low,
    "quantity": idx_quantity.c.low,
    "uri": idx_uri.c.value,
}


def keys_of(query: ast.Query) -> list[tuple[Any, bool]]:
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


def after(keys: Sequence[tuple[Any, bool]], values: Sequence[Any]) -> sa.ColumnElement[bool]:
    """Return the condition that a row comes after the one with *values*, in the order of *keys*."""
    options = []
    for depth, (expression, descending) in enumerate(keys):
        same = [earlier[0] == value for earlier, value in zip(keys[:depth], values, strict=False)]
        beyond = expression < values[depth] if descending else expression > values[depth]
        options.append(sa.and_(*same, beyond))
    return sa.or_(*options)


def encode(values: Sequence[Any]) -> str:
    """Return the cursor that says where the page with *values* in its last row ends."""
    # Floats travel as text: JSON has no infinity, which the open end of a range is.
    plain = [[repr(value)] if isinstance(value, float) else value for value in values]
    return base64.urlsafe_b64encode(dumps(plain)).decode().rstrip("=")


def decode(cursor: str, keys: Sequence[tuple[Any, bool]]) -> list[Any]:
    """Return the values that *cursor* holds.

    Raises:
        HubError: incorrect, where it is none that this hub made for such *keys*.
    """
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
