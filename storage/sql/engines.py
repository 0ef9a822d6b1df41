"""The engines of a database, writer and readers, set so that nothing that was answered for is lost.

SQLite runs in WAL mode with ``synchronous=FULL``: https://www.sqlite.org/pragma.html#pragma_synchronous. PostgreSQL
must run with ``synchronous_commit``, ``fsync`` and ``full_page_writes`` on. A weaker database is refused at start.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import QueuePool

from hub.errors import Category, HubError
from storage.sql.prepared import execute
from storage.sql.trouble import translated

#: How long others' locks may keep one write waiting, all in all, before its caller is told to come back.
BUSY_TIMEOUT_S = 10.0


def _sqlite_engine(path: str, *, readonly: bool, pool_size: int, busy_timeout_s: float) -> Engine:
    engine = sa.create_engine(
        f"sqlite:///{path}",
        poolclass=QueuePool,
        pool_size=pool_size,
        # The writer thread keeps its connection; integrity checks and migrations open theirs beside it.
        max_overflow=8,
        connect_args={"check_same_thread": False, "timeout": busy_timeout_s, "cached_statements": 512},
    )

    @sa.event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, _record: object) -> None:
        # The driver must not open transactions by itself: they begin IMMEDIATE below, so that the write lock is taken
        # (and waited for) at the start and never half-way.
        connection.isolation_level = None
        cursor = connection.cursor()
        if not readonly:
            # Of effect for a new file only, and before anything is written to it: removed rows can then leave the file
            # page by page, while the hub works (https://www.sqlite.org/pragma.html#pragma_auto_vacuum).
            cursor.execute("PRAGMA auto_vacuum=INCREMENTAL")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute(f"PRAGMA busy_timeout={int(busy_timeout_s * 1000)}")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA cache_size=-65536" if not readonly else "PRAGMA cache_size=-32768")
        cursor.execute("PRAGMA temp_store=MEMORY")
        cursor.execute("PRAGMA mmap_size=268435456")
        if readonly:
            cursor.execute("PRAGMA query_only=ON")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        execute(connection, "BEGIN" if readonly else "BEGIN IMMEDIATE")

    return engine


def _postgres_engine(url: str, *, readonly: bool, pool_size: int, busy_timeout_s: float) -> Engine:
    options = f"-c lock_timeout={int(busy_timeout_s * 1000)}"
    if readonly:
        options += " -c default_transaction_read_only=on -c statement_timeout=15000"
    return sa.create_engine(
        url.replace("postgresql://", "postgresql+psycopg://", 1),
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        # A reader sees one moment throughout; a writer sees what others have committed meanwhile, and locks.
        isolation_level="REPEATABLE READ" if readonly else "READ COMMITTED",
        # A server that fell silent is given up, else the writer would wait for ever.
        connect_args={"options": options, "connect_timeout": 10, "tcp_user_timeout": 30_000, "keepalives_idle": 30},
    )


def engines(url: str, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> tuple[Engine, Engine]:
    """Return (writer, readers) for *url*; both are checked for the durability the rules demand.

    Args:
        url: ``sqlite:///PATH`` or ``postgresql://USER:PASSWORD@HOST/NAME``.
        busy_timeout_s: how long a lock of another process is waited for.

    Raises:
        HubError: incorrect for an unknown URL; fault when the database is set weaker than DESIGN rule 1, naming the
            setting and how to mend it; unavailable when it does not answer.
    """
    if url.startswith("sqlite:///"):
        path = url.removeprefix("sqlite:///")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        writer = _sqlite_engine(path, readonly=False, pool_size=1, busy_timeout_s=busy_timeout_s)
        readers = _sqlite_engine(path, readonly=True, pool_size=8, busy_timeout_s=busy_timeout_s)
    elif url.startswith(("postgresql://", "postgresql+psycopg://")):
        writer = _postgres_engine(url, readonly=False, pool_size=2, busy_timeout_s=busy_timeout_s)
        readers = _postgres_engine(url, readonly=True, pool_size=8, busy_timeout_s=busy_timeout_s)
    else:
        raise HubError(
            Category.INCORRECT,
            "The database URL is of no known kind.",
            where="database_url",
            remedy="Use sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME.",
        )
    try:
        check_durability(writer)
    except sa.exc.SQLAlchemyError as error:
        writer.dispose()
        raise translated(error) from error
    except HubError:
        writer.dispose()
        raise
    return writer, readers


def check_durability(engine: Engine) -> None:
    """Raise HubError(fault) when *engine*'s settings could lose what was answered for, saying which and how to mend it."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            wanted = {"journal_mode": "wal", "synchronous": "2"}
            found = {name: str(connection.exec_driver_sql(f"PRAGMA {name}").scalar()) for name in wanted}
            remedy = "Put the database on a local file system that supports WAL and shared memory."
        else:
            wanted = {
                "synchronous_commit": "on",
                "fsync": "on",
                "full_page_writes": "on",
                # After a failed fsync the server must not go on as if the retry had helped.
                "data_sync_retry": "off",
                "server_encoding": "UTF8",
            }
            found = {name: str(connection.exec_driver_sql(f"SHOW {name}").scalar()) for name in wanted}
            remedy = (
                "Set them in postgresql.conf or by ALTER SYSTEM, remove what ALTER ROLE or ALTER DATABASE set, reload, and "
                "start the hub again; the encoding is chosen when the database is created."
            )
    weak = [name for name, value in wanted.items() if found[name].lower() not in _accepted(name, value)]
    if weak:
        listing = ", ".join(f"{name} is {found[name]}, must be {wanted[name]}" for name in weak)
        raise HubError(
            Category.FAULT, f"The database could lose acknowledged data: {listing}.", where="database", remedy=remedy
        )


def _accepted(name: str, value: str) -> set[str]:
    if name == "synchronous_commit":
        # remote_apply waits for a replica as well as for the local flush, so it is stronger.
        return {"on", "remote_apply"}
    if name == "synchronous":
        return {"2", "3"}
    return {value.lower()}
