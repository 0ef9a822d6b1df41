"""One look into a foreign database: read only, on one connection, within a time limit; rows as they stand, in JSON."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from decimal import Decimal
from itertools import islice
from typing import Any

import sqlalchemy as sa

from adapters.dbview.settings import Key, View
from fhir_mappings.json import dumps
from hub.errors import Category, HubError

#: Said on each connection before the query, by SQLAlchemy's name of the database; {ms} and {s} are the time limit,
#: {rows} how many rows are wanted: a client of MySQL that stops early is sent all others first.
_READ_ONLY: Mapping[str, tuple[str, ...]] = {
    "postgresql": ("SET default_transaction_read_only = on", "SET statement_timeout = {ms}"),
    "sqlite": ("PRAGMA query_only = ON",),
    "mysql": (
        "SET SESSION TRANSACTION READ ONLY",
        "SET SESSION MAX_EXECUTION_TIME = {ms}",
        "SET SESSION sql_select_limit = {rows}",
    ),
    "mariadb": (
        "SET SESSION TRANSACTION READ ONLY",
        "SET SESSION max_statement_time = {s}",
        "SET SESSION sql_select_limit = {rows}",
    ),
    "mssql": ("SET LOCK_TIMEOUT {ms}",),
    "oracle": ("SET TRANSACTION READ ONLY",),
}
#: Virtual machine steps between two looks at the clock (SQLite has no time limit of its own).
_STEPS = 10_000
_FETCHED = 200
_ALL = sys.maxsize


class Reader:
    """Opens the database of one view for each look, and closes it again: hospitals count connections."""

    def __init__(self, view: View) -> None:
        self._view = view
        try:
            url = sa.make_url(view.url)
            # pymssql takes its time limit when it connects, and its connections take nothing later.
            limits = {"timeout": int(view.timeout_s)} if url.drivername == "mssql+pymssql" else {}
            self._engine = sa.create_engine(url, poolclass=sa.NullPool, hide_parameters=True, connect_args=limits)
        except (sa.exc.ArgumentError, ImportError) as error:
            raise HubError(
                Category.INCORRECT,
                f"视图 {view.name} 的数据库驱动不可用 / The database driver of view {view.name} cannot be used.",
                where=f"view {view.name}",
                remedy="Write the URL as SQLAlchemy does, and install the driver that it names.",
            ) from error
        if self._engine.dialect.name not in _READ_ONLY:
            raise HubError(
                Category.UNSUPPORTED,
                f"The database of view {view.name} is none that the hub can keep from being written.",
                where=f"view {view.name}",
                remedy=f"Use one of {', '.join(_READ_ONLY)}.",
            )

    def rows(self, after: Key, most: int = _ALL) -> Iterator[tuple[Key, bytes]]:
        """Yield (key, row as JSON) in the order of the query, which is asked once; at most the first *most*.

        Raises:
            HubError: unavailable, when the database cannot be asked or takes too long; incorrect, when the result has no
                such key or a column that is no text, number or time. Neither quotes the database's words, which may hold data.
        """
        try:
            with self._engine.connect() as connection:
                self._limit(connection, most)
                statement = sa.text(self._view.query.rstrip("; \r\n\t"))
                begin: Any = after
                if isinstance(after, datetime) and connection.dialect.name == "sqlite":
                    # SQLite has no type for times; views write them as text.
                    begin = after.isoformat(" ")
                asked = connection.execution_options(yield_per=_FETCHED).execute(statement, {"after": begin})
                with asked as result:
                    for row in islice(result.mappings(), most):
                        yield self._row(row)
        except sa.exc.SQLAlchemyError as error:
            raise HubError(
                Category.UNAVAILABLE,
                f"The view {self._view.name} cannot be read ({type(error).__name__}).",
                where=f"view {self._view.name}",
                remedy="Look at the database, its rights and the query.",
            ) from error

    def _limit(self, connection: sa.Connection, most: int) -> None:
        seconds = self._view.timeout_s
        for statement in _READ_ONLY[connection.dialect.name]:
            connection.exec_driver_sql(statement.format(ms=int(seconds * 1000), s=seconds, rows=most))
        if connection.dialect.name == "postgresql":
            # What is set holds from the next transaction on, and is undone if this one is not kept.
            connection.commit()
        driver: Any = connection.connection.driver_connection
        if connection.dialect.name == "sqlite":
            deadline = time.monotonic() + seconds
            driver.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
        elif connection.dialect.name == "mssql" and connection.dialect.driver == "pyodbc":
            driver.timeout = int(seconds)
        elif connection.dialect.name == "oracle":
            driver.call_timeout = int(seconds * 1000)

    def _row(self, row: Mapping[Any, Any]) -> tuple[Key, bytes]:
        view = self._view
        if view.key not in row:
            raise self._odd(f"has no column {view.key}")
        made = {str(name): self._value(value) for name, value in row.items()}
        try:
            return view.key_of(row[view.key]), dumps(made)
        except (ValueError, TypeError) as error:
            raise self._odd(f"has keys that are not of the type of start ({type(view.start).__name__})") from error

    def _value(self, value: Any) -> Any:
        if isinstance(value, datetime | date):
            return value.isoformat()
        if value is None or isinstance(value, str | int | float | Decimal):
            # Numbers keep their digits as text: a number of a patient is no quantity.
            return value if value is None or isinstance(value, bool | str) else str(value)
        raise self._odd(f"has a column of the type {type(value).__name__}")

    def _odd(self, why: str) -> HubError:
        return HubError(
            Category.INCORRECT,
            f"The result of view {self._view.name} {why}.",
            where=f"view {self._view.name}",
            remedy="Mend the query.",
        )
