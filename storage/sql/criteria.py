"""Searches by equal columns: which criterion leads to the rows, and which ones only choose among them.

Theory of operation. A *key* (a control id, a patient) is shared by few rows, so the database goes by its index; every
other column (an institution, a door) is shared by many, and its index, which ends in the row's number, gives the newest
ones first. When both are asked for, SQLite would often go by the latter, because that spares it the sorting of a few
rows, and would then read all that the institution ever sent. So such a column is named in a way that no index serves.

A partial index is used by SQLite only where its condition stands in the statement word for word
(https://www.sqlite.org/partialindex.html), and so it is added here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa

Condition = sa.ColumnElement[bool]


def named(column: sa.Column[Any]) -> Condition:
    """Return the condition of an index that holds the rows in which *column* is not empty."""
    return column != sa.literal_column("''")


def equal(
    table: sa.Table, criteria: Mapping[str, str], *, keys: Collection[str], led: bool, partial: Mapping[str, Condition]
) -> list[Condition]:
    """Return the conditions that columns of *table* equal *criteria*.

    Args:
        keys: columns whose value, unless it is empty, is shared by few rows.
        led: whether there is a key in the search, so that no other column may lead it.
        partial: conditions of the partial indexes, by the column they begin with; an empty value is in none of them.
    """
    found: list[Condition] = []
    for name, value in criteria.items():
        column = table.c[name]
        aside = led and name not in keys
        found.append((column.concat(sa.literal_column("''")) if aside else column) == value)
        if name in partial and value and not aside:
            found.append(partial[name])
    return found


def has_key(criteria: Mapping[str, str], keys: Collection[str]) -> bool:
    """Return whether few rows can fulfil *criteria*."""
    return any(value and name in keys for name, value in criteria.items())
