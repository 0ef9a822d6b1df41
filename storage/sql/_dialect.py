"""The few statements that the two databases spell differently."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite


def holds(column: sa.Column[Any], needle: bytes, *, on_sqlite: bool) -> sa.ColumnElement[bool]:
    """Return the condition that the bytes of *column* hold *needle*; null for a null column."""
    sought = sa.bindparam(None, needle, type_=sa.LargeBinary())
    if on_sqlite:
        return sa.func.instr(column, sought) > 0
    return sa.func.position(sought.op("IN")(column)) > 0


def insert(table: sa.Table, *, on_sqlite: bool) -> Any:
    """Return an INSERT that knows ``on_conflict_do_nothing`` and ``on_conflict_do_update``."""
    return sqlite.insert(table) if on_sqlite else postgresql.insert(table)
