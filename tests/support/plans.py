"""How SQLite would find the rows of what a function asks (https://www.sqlite.org/eqp.html)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from storage.sql.database import SqlDatabase


def plan(database: SqlDatabase, work: Callable[[Any], Any]) -> list[str]:
    """Return the steps of every SELECT, UPDATE and DELETE of *work*, which runs as a write."""
    statements: list[str] = []

    def watch(connection: sa.Connection) -> None:
        # The driver itself tells what it runs, because not every statement goes through the Core.
        driver: Any = connection.connection.dbapi_connection
        driver.set_trace_callback(statements.append)

    sa.event.listen(database.engine, "begin", watch)
    try:
        database.write(work)
    finally:
        sa.event.remove(database.engine, "begin", watch)
    steps: list[str] = []

    def explain(tx: Any) -> None:
        driver: Any = tx.connection.connection.dbapi_connection
        driver.set_trace_callback(None)
        for statement in statements:
            if statement.lstrip().upper().startswith(("SELECT", "UPDATE", "DELETE", "WITH")):
                steps.extend(row[3] for row in driver.execute(f"EXPLAIN QUERY PLAN {statement}"))

    database.write(explain)
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
