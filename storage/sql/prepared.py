"""Statements that are built once and then given to the driver as text and values.

SQLAlchemy still says what the text is, for either database; what is left out is its way from a statement to the driver
and back, which costs several times what SQLite takes for a row found by its key. This is for the few statements that
every message, image and read runs; all others go through the Core.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.sql.compiler import SQLCompiler

#: Column types whose values the drivers take and give the same way on every route.
_TYPES = (sa.Integer, sa.String, sa.Boolean, sa.LargeBinary)

_Processor = Callable[[Any], Any] | None


@dataclass(frozen=True, slots=True)
class _Text:
    """A statement as one dialect says it."""

    sql: str
    #: Bind names in the order of the text, and what each value passes through.
    names: tuple[str, ...]
    constants: Mapping[str, Any]
    into: tuple[tuple[str, Callable[[Any], Any]], ...]
    positional: bool
    #: Makes a row with the columns as attributes; ``None`` where nothing comes back.
    row: Callable[[Iterable[Any]], Any] | None
    out: tuple[tuple[int, Callable[[Any], Any]], ...]


class Prepared:
    """One statement for both databases.

    Args:
        statement: made of the Core; its values are bind parameters or constants, and no list is among them.
        keys: for an INSERT or UPDATE, the columns whose values are given each time.
        on_sqlite: another spelling of the same for SQLite.
    """

    def __init__(
        self, statement: sa.Executable, *, keys: Sequence[str] | None = None, on_sqlite: sa.Executable | None = None
    ) -> None:
        self._statement = statement
        self._on_sqlite = on_sqlite
        self._keys = None if keys is None else list(keys)
        self._texts: dict[str, _Text] = {}

    def all(self, connection: Connection, values: Mapping[str, Any]) -> list[Any]:
        """Return all rows, with the columns as attributes.

        Raises:
            sqlalchemy.exc.DBAPIError: as the Core would.
        """
        text = self._text(connection)
        assert text.row is not None
        return [_made(text, row) for row in execute(connection, text.sql, _given(text, values)).fetchall()]

    def first(self, connection: Connection, values: Mapping[str, Any]) -> Any:
        """Return the first row or ``None``; raises as :meth:`all`."""
        text = self._text(connection)
        assert text.row is not None
        # All are fetched: a cursor that is left half read would keep a statement of the transaction open.
        rows = execute(connection, text.sql, _given(text, values)).fetchall()
        return _made(text, rows[0]) if rows else None

    def run(self, connection: Connection, values: Mapping[str, Any]) -> int:
        """Run a statement that returns nothing; returns how many rows it touched. Raises as :meth:`all`."""
        text = self._text(connection)
        return int(execute(connection, text.sql, _given(text, values)).rowcount)

    def run_many(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run a statement that returns nothing once for each of *rows*; raises as :meth:`all`."""
        text = self._text(connection)
        execute_many(connection, text.sql, [_given(text, values) for values in rows])

    def _text(self, connection: Connection) -> _Text:
        if not connection.in_transaction():
            connection.begin()
        dialect = connection.dialect
        found = self._texts.get(dialect.name)
        if found is None:
            statement = self._statement
            if self._on_sqlite is not None and dialect.name == "sqlite":
                statement = self._on_sqlite
            found = self._texts[dialect.name] = _compiled(statement, dialect, self._keys)
        return found


def _compiled(statement: Any, dialect: Dialect, keys: list[str] | None) -> _Text:
    compiled: SQLCompiler = statement.compile(dialect=dialect, column_keys=keys)
    if compiled.post_compile_params or compiled.literal_execute_params or compiled.insert_prefetch:
        raise TypeError(f"The text of this statement changes with its values: {compiled}")
    binds = {name: bind for bind, name in compiled.bind_names.items()}
    into: list[tuple[str, Callable[[Any], Any]]] = []
    constants: dict[str, Any] = {}
    for name, bind in binds.items():
        process: _Processor = bind.type.dialect_impl(dialect).bind_processor(dialect)
        if not bind.required:
            value = bind.effective_value
            constants[name] = value if process is None or value is None else process(value)
        elif process is not None:
            into.append((name, process))
    row: Callable[[Iterable[Any]], Any] | None = None
    out: list[tuple[int, Callable[[Any], Any]]] = []
    columns = list(getattr(statement, "exported_columns", ()))
    if columns:
        for number, column in enumerate(columns):
            if not isinstance(column.type, _TYPES):
                raise TypeError(f"{column} is of a type whose values are not known to pass unchanged.")
            process = column.type.dialect_impl(dialect).result_processor(dialect, None)
            if process is not None:
                out.append((number, process))
        row = _row([column.key for column in columns])
    return _Text(
        sql=compiled.string,
        names=tuple(compiled.positiontup or ()) if compiled.positional else tuple(binds),
        constants=constants,
        into=tuple(into),
        positional=compiled.positional,
        row=row,
        out=tuple(out),
    )


def _row(names: Sequence[str]) -> Callable[[Iterable[Any]], Any]:
    made: Any = namedtuple("Row", names)  # type: ignore[misc]  # noqa: PYI024 - the names are the statement's
    return made._make


def _given(text: _Text, values: Mapping[str, Any]) -> Any:
    if text.constants or text.into:
        values = {**text.constants, **values}
        for name, process in text.into:
            value = values[name]
            if value is not None:
                values[name] = process(value)
    if text.positional:
        return tuple([values[name] for name in text.names])
    return {name: values[name] for name in text.names}


def _made(text: _Text, row: Sequence[Any]) -> Any:
    assert text.row is not None
    if text.out:
        row = list(row)
        for number, process in text.out:
            if row[number] is not None:
                row[number] = process(row[number])
    return text.row(row)


def execute(connection: Connection, sql: str, values: Any = ()) -> Any:
    """Run *sql* on the driver's connection, inside the transaction that is open there; returns the driver's cursor.

    Raises:
        sqlalchemy.exc.DBAPIError: as the Core would, the driver's error as ``orig``.
    """
    driver: Any = connection.connection.dbapi_connection
    try:
        return driver.execute(sql, values)
    except connection.dialect.loaded_dbapi.Error as error:
        raise _wrapped(connection, sql, error) from error


def execute_many(connection: Connection, sql: str, rows: Sequence[Any]) -> None:
    """Run *sql* once for each of *rows*; otherwise as :func:`execute`."""
    driver: Any = connection.connection.dbapi_connection
    try:
        driver.cursor().executemany(sql, rows)
    except connection.dialect.loaded_dbapi.Error as error:
        raise _wrapped(connection, sql, error) from error


def _wrapped(connection: Connection, sql: str, error: Exception) -> BaseException:
    dialect = connection.dialect
    lost = dialect.is_disconnect(error, connection.connection.dbapi_connection, None)  # type: ignore[arg-type]
    if lost:
        connection.invalidate(error)
    return sa.exc.DBAPIError.instance(
        sql,
        None,
        error,
        dialect.loaded_dbapi.Error,
        hide_parameters=True,
        connection_invalidated=lost,
        dialect=dialect,
    )
