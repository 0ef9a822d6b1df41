"""One database, one writer thread with group commit, a pool of readers.

Theory of operation. Callers hand a function to :meth:`SqlDatabase.write` and wait. The writer takes everything that is
waiting (at most 64 functions), runs each inside a savepoint of one transaction and commits once, so that under load
durability costs one flush a batch; a lone caller never waits for company. A function that raises rolls back its own
savepoint only. When the batch as a whole fails (deadlock, lost connection), each function is tried again on its own.

SQLite runs in WAL mode with ``synchronous=FULL``: https://www.sqlite.org/pragma.html#pragma_synchronous. PostgreSQL
must run with ``synchronous_commit``, ``fsync`` and ``full_page_writes`` on. A weaker database is refused at start.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import sqlalchemy as sa
import structlog
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import QueuePool

from hub.clock import Clock, utc_now
from hub.errors import Category, HubError
from hub.ports import Tx
from storage.sql.transaction import SqlTx

T = TypeVar("T")

#: At most this many waiting functions share one commit (DESIGN rule 1).
BATCH = 64
#: How long a second process may hold the write lock before a caller is told to come back.
BUSY_TIMEOUT_S = 10.0
#: A batch that fails as a whole is retried singly this often.
RETRIES = 3

log = structlog.get_logger("storage.sql")


@dataclass(slots=True)
class _Job:
    work: Callable[[Tx], Any]
    future: Future[Any]


class SqlDatabase:
    """The :class:`hub.ports.Database` on SQLite or PostgreSQL."""

    def __init__(self, engine: Engine, *, node: str, clock: Clock = utc_now, readers: Engine | None = None) -> None:
        self._engine = engine
        self._readers = readers or engine
        self._node = node
        self._clock = clock
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = False
        self._dead: HubError | None = None
        self._audit_tail: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._run, name=f"writer-{node}", daemon=True)
        self._thread.start()

    @property
    def engine(self) -> Engine:
        """The writing engine, for migrations and integrity checks."""
        return self._engine

    def write(self, work: Callable[[Tx], T]) -> T:
        """Run *work* and return its value once the commit is durable; see :class:`hub.ports.Database`."""
        if self._dead is not None:
            raise HubError(
                Category.UNAVAILABLE,
                "This node has stopped taking data after a disk failure.",
                remedy="Check the disk, run `hub fsck`, then restart the hub.",
            )
        if self._closed:
            raise HubError(Category.INTERRUPTED, "The hub is stopping.", remedy="Send again in a moment.")
        future: Future[T] = Future()
        self._queue.put(_Job(work, future))
        return future.result()

    def read(self, work: Callable[[Tx], T]) -> T:
        """Run *work* on a consistent read-only view."""
        try:
            with self._readers.connect() as connection:
                return work(cast("Tx", SqlTx(connection, node=self._node, clock=self._clock)))
        except sa.exc.OperationalError as error:
            raise _translated(error) from error

    def healthy(self) -> None:
        """Raise HubError(unavailable) unless the database answers and takes data."""
        if self._dead is not None:
            raise self._dead
        self.read(lambda tx: tx.members.version())

    def close(self) -> None:
        """Finish what is queued, then let go of all connections."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        self._thread.join(timeout=30)
        self._readers.dispose()
        self._engine.dispose()

    # --- writer thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            first = self._queue.get()
            if first is None:
                return
            batch = [first]
            stop = False
            while len(batch) < BATCH:
                try:
                    job = self._queue.get_nowait()
                except queue.Empty:
                    break
                if job is None:
                    stop = True
                    break
                batch.append(job)
            self._commit(batch)
            if stop:
                return

    def _commit(self, batch: list[_Job], attempt: int = 0) -> None:
        results: list[tuple[_Job, Any, BaseException | None]] = []
        tails = dict(self._audit_tail)
        try:
            with self._engine.begin() as connection:
                tx = SqlTx(connection, node=self._node, clock=self._clock, audit_tail=tails)
                for job in batch:
                    results.append(self._one(connection, tx, job, alone=len(batch) == 1))
        except _AloneError as alone:
            _fail(batch[0].future, alone.error)
            return
        except Exception as error:  # noqa: BLE001 - the writer must outlive whatever one batch meets
            self._batch_failed(batch, error, attempt)
            return
        self._audit_tail = tails
        for job, value, failure in results:
            if failure is not None:
                _fail(job.future, failure)
            else:
                job.future.set_result(value)

    def _one(
        self, connection: Connection, tx: SqlTx, job: _Job, *, alone: bool
    ) -> tuple[_Job, Any, BaseException | None]:
        if alone:
            # One function needs no savepoint: its failure rolls the whole transaction back.
            try:
                return job, job.work(cast("Tx", tx)), None
            except sa.exc.OperationalError:
                raise
            except Exception as error:
                raise _AloneError(error) from error
        mark = dict(tx.audit_tail)
        savepoint = connection.begin_nested()
        try:
            value = job.work(cast("Tx", tx))
        except sa.exc.OperationalError:
            raise
        except Exception as error:  # noqa: BLE001 - handed to the caller who waits for this function
            savepoint.rollback()
            tx.audit_tail.clear()
            tx.audit_tail.update(mark)
            return job, None, error
        savepoint.commit()
        return job, value, None

    def _batch_failed(self, batch: list[_Job], error: Exception, attempt: int) -> None:
        translated = _translated(error)
        if translated.fatal:
            self._dead = translated
            log.critical("disk_failed", error=type(error).__name__)
        elif attempt < RETRIES and translated.category in {Category.BUSY, Category.INTERRUPTED, Category.CONFLICT}:
            if len(batch) == 1:
                time.sleep(0.01 * (attempt + 1))
            for job in batch:
                self._commit([job], attempt + 1)
            return
        for job in batch:
            _fail(job.future, translated)


class _AloneError(Exception):
    """Carries a lone function's own failure out of the transaction block, so that it rolls back."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


def _fail(future: Future[Any], error: BaseException) -> None:
    if isinstance(error, sa.exc.SQLAlchemyError):
        error = _translated(error)
    future.set_exception(error)


def _translated(error: Exception) -> HubError:
    """Return *error* of the driver in the hub's words."""
    if isinstance(error, HubError):
        return error
    original = getattr(error, "orig", None)
    text = str(original or error)
    if isinstance(error, sa.exc.IntegrityError):
        found = HubError(
            Category.CONFLICT,
            "Two writes met on the same key.",
            remedy="Read the present state and send again.",
        )
    elif isinstance(original, sqlite3.OperationalError) and "disk I/O error" in text:
        found = HubError(
            Category.FAULT, "The disk failed while writing.", remedy="Check the disk, then run `hub fsck`.", fatal=True
        )
    elif "database or disk is full" in text or "No space left" in text:
        found = HubError(Category.UNAVAILABLE, "The disk is full.", remedy="Free space; the hub goes on by itself.")
    elif "locked" in text or "busy" in text:
        found = HubError(Category.BUSY, "The database is locked by another process.", remedy="Send again in a moment.")
    elif "deadlock" in text or "could not serialize" in text:
        found = HubError(Category.BUSY, "Two transactions met; one must repeat.", remedy="Send again.")
    elif isinstance(error, sa.exc.DBAPIError | sa.exc.TimeoutError):
        found = HubError(
            Category.UNAVAILABLE, "The database does not answer.", remedy="Check that it runs; send again."
        )
    else:
        found = HubError(Category.FAULT, f"Unexpected {type(error).__name__} while writing.")
    found.__cause__ = error
    return found


# --- opening ---------------------------------------------------------------------------------------------------


def _sqlite_engine(path: str, *, readonly: bool, pool_size: int) -> Engine:
    engine = sa.create_engine(
        f"sqlite:///{path}",
        poolclass=QueuePool,
        pool_size=pool_size,
        max_overflow=0 if not readonly else 8,
        connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_S, "cached_statements": 512},
    )

    @sa.event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, _record: object) -> None:
        # The driver must not open transactions by itself: they begin IMMEDIATE below, so that the write lock is taken
        # (and waited for) at the start and never half-way.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA cache_size=-65536" if not readonly else "PRAGMA cache_size=-32768")
        cursor.execute("PRAGMA temp_store=MEMORY")
        cursor.execute("PRAGMA mmap_size=268435456")
        if readonly:
            cursor.execute("PRAGMA query_only=ON")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if readonly else "BEGIN IMMEDIATE")

    return engine


def engines(url: str) -> tuple[Engine, Engine]:
    """Return (writer, readers) for *url*; both are checked for the durability the rules demand.

    Raises:
        HubError: incorrect for an unknown URL; fault when the database is set weaker than DESIGN rule 1, naming the
            setting and how to mend it; unavailable when it does not answer.
    """
    if url.startswith("sqlite:///"):
        path = url.removeprefix("sqlite:///")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        writer = _sqlite_engine(path, readonly=False, pool_size=1)
        readers = _sqlite_engine(path, readonly=True, pool_size=8)
    elif url.startswith(("postgresql://", "postgresql+psycopg://")):
        writer = sa.create_engine(
            url.replace("postgresql://", "postgresql+psycopg://", 1), pool_size=2, max_overflow=2, pool_pre_ping=True
        )
        readers = sa.create_engine(
            url.replace("postgresql://", "postgresql+psycopg://", 1),
            pool_size=8,
            max_overflow=8,
            pool_pre_ping=True,
            connect_args={"options": "-c default_transaction_read_only=on -c statement_timeout=15000"},
        )
    else:
        raise HubError(
            Category.INCORRECT,
            "The database URL is of no known kind.",
            where="database_url",
            remedy="Use sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME.",
        )
    try:
        check_durability(writer)
    except sa.exc.OperationalError as error:
        raise _translated(error) from error
    return writer, readers


def check_durability(engine: Engine) -> None:
    """Raise HubError(fault) when *engine*'s settings could lose what was answered for, saying which and how to mend it."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            wanted = {"journal_mode": "wal", "synchronous": "2"}
            found = {name: str(connection.exec_driver_sql(f"PRAGMA {name}").scalar()) for name in wanted}
            remedy = "Put the database on a local file system that supports WAL and shared memory."
        else:
            wanted = {"synchronous_commit": "on", "fsync": "on", "full_page_writes": "on"}
            found = {name: str(connection.exec_driver_sql(f"SHOW {name}").scalar()) for name in wanted}
            remedy = "Set them to on in postgresql.conf (or ALTER SYSTEM), reload, and start the hub again."
    weak = [name for name, value in wanted.items() if found[name].lower() not in _accepted(name, value)]
    if weak:
        listing = ", ".join(f"{name} is {found[name]}, must be {wanted[name]}" for name in weak)
        raise HubError(
            Category.FAULT, f"The database could lose acknowledged data: {listing}.", where="database", remedy=remedy
        )


def _accepted(name: str, value: str) -> set[str]:
    # remote_apply and remote_write wait for a replica as well as the local flush, so they are stronger or equal.
    if name == "synchronous_commit":
        return {"on", "remote_apply"}
    if name == "synchronous":
        return {"2", "3"}
    return {value}
