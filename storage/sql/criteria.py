"""Searches by equal columns: which criterion leads to the rows, and which ones only choose among them.

Theory of operation. A *key* (a control id, a patient) is shared by few rows, so the database goes by its index; every
other column (an institution, a door) is shared by many, and its index, which ends in the row's number, gives the newest
ones first. When both are asked for, SQLite would often go by the latter, because that spares it the sorting of a few
rows, and would then read all that the institution ever sent. So such a column is named in a way that no index serves.

Where two or more shared values are asked for at once, SQLite goes by one index and reads each row that it names, only to
find that another value is missing. So the value that fewer rows have leads, and the others are looked up in their own
indexes, which hold the row's number and cost no look at the row; PostgreSQL joins its indexes by itself.

A partial index is used by SQLite only where its condition stands in the statement word for word
(https://www.sqlite.org/partialindex.html), and so it is added here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

Condition = sa.ColumnElement[bool]

#: So many rows are counted to tell which of two values is the rarer; a count of an index that ends there costs little.
_COUNTED = 1000


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


def beside(
    connection: Connection, table: sa.Table, number: str, criteria: Mapping[str, str], shared: Collection[str]
) -> tuple[dict[str, str], list[Condition]]:
    """Return the criteria that may lead a search by *criteria*, and conditions for the others.

    Args:
        number: the column that every index of a shared column ends in.
        shared: columns with an index whose value many rows have.
    """
    names = [name for name in criteria if name in shared and criteria[name]]
    if connection.dialect.name != "sqlite" or len(names) < 2:
        return dict(criteria), []
    lead = min(names, key=lambda name: _count(connection, table.c[name], criteria[name]))
    conditions: list[Condition] = []
    for name in names:
        if name != lead:
            other = table.alias()
            # As a range, because by an equal number SQLite would go to the row itself and not to the index.
            same = other.c[number].between(table.c[number], table.c[number])
            has = sa.and_(other.c[name] == criteria[name], named(other.c[name]), same)
            conditions.append(sa.exists(sa.select(sa.literal(1)).where(has)))
    return {name: value for name, value in criteria.items() if name == lead or name not in names}, conditions


def _count(connection: Connection, column: sa.Column[Any], value: str) -> int:
    some = sa.select(sa.literal(1)).where(column == value, named(column)).limit(_COUNTED).subquery()
    return int(connection.execute(sa.select(sa.func.count()).select_from(some)).scalar_one())
