"""How SQLite would find the rows of what a function asks (https://www.sqlite.org/eqp.html)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from storage.sql.database import SqlDatabase


def plan(database: SqlDatabase, work: Callable[[Any], Any]) -> list[str]:
    """Return the steps of every SELECT, UPDATE and DELETE of *work*, which runs as a write."""
    steps: list[str] = []

    def explain(_c: Any, cursor: Any, statement: str, parameters: Any, _x: Any, many: bool) -> None:
        if statement.lstrip().upper().startswith(("SELECT", "UPDATE", "DELETE", "WITH")):
            values = parameters[0] if many else parameters
            steps.extend(row[3] for row in cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", values))

    sa.event.listen(database.engine, "before_cursor_execute", explain)
    try:
        database.write(work)
    finally:
        sa.event.remove(database.engine, "before_cursor_execute", explain)
    assert steps
    return steps


def full_scans(steps: list[str], *tables: str) -> list[str]:
    """Return the steps that read all of a table or index of *tables*, aliases (``record_1``) included."""
    return [
        step
        for step in steps
        if step.startswith("SCAN ")
        and any(step.split()[1].rsplit("_", 1)[0] == one or step.split()[1] == one for one in tables)
    ]
