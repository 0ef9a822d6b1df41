"""One database, one writer thread with group commit, a pool of readers.

Theory of operation. Callers hand a function to :meth:`SqlDatabase.write` and wait. The writer takes everything that is
waiting (at most 64 functions), runs each inside a savepoint of one transaction and commits once, so that under load
durability costs one flush a batch; a lone caller never waits for company. A function that raises rolls back its own
savepoint only. What another node's commit may cure (a key that it has just written, a deadlock) is tried again, each
function by itself. A commit whose outcome is unknown is never tried again: the caller hears that it failed, and
sending twice is harmless.

A write waits for others' locks until one deadline that is its own, counted from the moment it was asked for: the wait for
the turn among the hub's processes and the wait inside the database are parts of it. Whoever is late is told so; whoever
shared its batch and came later waits on.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import sqlalchemy as sa
import structlog
from sqlalchemy.engine import Connection, Engine

from hub.clock import Clock, utc_now
from hub.errors import Category, HubError
from hub.ports import Tx
from storage.sql.engines import BUSY_TIMEOUT_S
from storage.sql.prepared import execute
from storage.sql.transaction import SqlTx
from storage.sql.trouble import connection_lost, late, locked, repeatable, translated
from storage.sql.turn import Turn

T = TypeVar("T")

#: At most this many waiting functions share one commit (DESIGN rule 1).
BATCH = 64
#: A function that met another node's write is repeated this often.
RETRIES = 3

log = structlog.get_logger("storage.sql")


@dataclass(slots=True)
class _Job:
    work: Callable[[Tx], Any]
    #: Until when it may wait for others' locks, by the monotonic clock.
    due: float
    future: Future[Any] = field(default_factory=Future)


class SqlDatabase:
    """The :class:`hub.ports.Database` on SQLite or PostgreSQL."""

    def __init__(
        self,
        engine: Engine,
        *,
        node: str,
        clock: Clock = utc_now,
        readers: Engine | None = None,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._readers = readers or engine
        self._node = node
        self._clock = clock
        self._patience_s = busy_timeout_s
        self._monotonic = monotonic
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        # Held while a job is queued, so that none can slip in behind the stop mark and wait for ever.
        self._gate = threading.Lock()
        self._closed = False
        self._dead: HubError | None = None
        self._audit_tail: dict[str, Any] = {}
        #: The writer's connection to SQLite, kept from one transaction to the next.
        self._kept: Connection | None = None
        #: Whether that connection waits for a lock less long than usual.
        self._shorter = False
        self._turn = _turn_of(engine)
        self._thread = threading.Thread(target=self._run, name=f"writer-{node}", daemon=True)
        self._thread.start()

    @property
    def engine(self) -> Engine:
        """The writing engine, for migrations and integrity checks."""
        return self._engine

    def write(self, work: Callable[[Tx], T]) -> T:
        """Run *work* and return its value once the commit is durable; see :class:`hub.ports.Database`."""
        if threading.current_thread() is self._thread:
            raise HubError(Category.FAULT, "A write was started inside another; it would wait for itself.")
        job = _Job(work, due=self._monotonic() + self._patience_s)
        with self._gate:
            if self._dead is not None:
                raise _stopped()
            if self._closed:
                raise _stopping()
            self._queue.put(job)
        return cast("T", job.future.result())

    def read(self, work: Callable[[Tx], T]) -> T:
        """Run *work* on a consistent read-only view.

        Raises:
            HubError: whatever *work* raised; busy or unavailable when the database cannot answer now.
        """
        if self._closed:
            raise _stopping()
        try:
            with self._readers.connect() as connection, connection.begin():
                return work(cast("Tx", SqlTx(connection, node=self._node, clock=self._clock)))
        except sa.exc.SQLAlchemyError as error:
            raise translated(error) from error

    def healthy(self) -> None:
        """Raise HubError(unavailable) unless the database answers and takes data."""
        if self._dead is not None:
            raise self._dead
        if not self._thread.is_alive():
            raise _stopping()
        self.read(lambda tx: tx.members.version())

    def close(self) -> None:
        """Finish what is queued, then let go of all connections."""
        with self._gate:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        self._thread.join(timeout=30)
        if self._kept is not None and not self._thread.is_alive():
            self._kept.close()
        self._readers.dispose()
        self._engine.dispose()
        if self._turn is not None and not self._thread.is_alive():
            self._turn.close()

    # --- writer thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        stop = False
        while not stop:
            batch, stop = self._next()
            try:
                while batch:
                    wait = self._left(batch)
                    try:
                        with self._turn.taken(wait) if self._turn is not None else contextlib.nullcontext():
                            # Whoever came while another process had its turn shares this one.
                            stop = stop or self._fill(batch)
                            batch = self._commit(batch)
                    except TimeoutError:
                        batch = self._without_late(batch)
            except BaseException as error:  # noqa: BLE001 - a bug here must not leave callers waiting
                log.critical("writer_failed", error=type(error).__name__)
                self._audit_tail = {}
                for job in batch:
                    if not job.future.done():
                        job.future.set_exception(error)

    def _next(self) -> tuple[list[_Job], bool]:
        """Wait for a job; return what is waiting then, and whether the stop mark came with it."""
        job = self._queue.get()
        if job is None:
            return [], True
        batch = [job]
        return batch, self._fill(batch)

    def _fill(self, batch: list[_Job]) -> bool:
        """Add what is waiting to *batch* while it has room; returns whether the stop mark was met."""
        while len(batch) < BATCH:
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                return False
            if job is None:
                return True
            batch.append(job)
        return False

    def _left(self, batch: Sequence[_Job]) -> float:
        """Return how long locks may still be waited for until the first of *batch* is late."""
        return max(0.0, min(job.due for job in batch) - self._monotonic())

    def _without_late(self, batch: Sequence[_Job]) -> list[_Job]:
        """Answer those of *batch* whose wait is over, the first one at any rate; returns the others."""
        limit = max(self._monotonic(), min(job.due for job in batch))
        for job in batch:
            if job.due <= limit:
                job.future.set_exception(late())
        return [job for job in batch if job.due > limit]

    def _commit(self, batch: list[_Job]) -> list[_Job]:
        """Commit *batch*; returns the jobs that a lock kept out and that may wait for another turn."""
        alone, waiting = self._together(batch) if len(batch) > 1 else (batch, [])
        for job in alone:
            if self._dead is not None:
                job.future.set_exception(_stopped())
            else:
                self._alone(job)
        return waiting

    def _together(self, batch: list[_Job]) -> tuple[list[_Job], list[_Job]]:
        """Commit *batch* in one transaction; returns the jobs to be tried by themselves, and those to wait on."""
        if self._dead is not None:
            return batch, []
        tail = dict(self._audit_tail)
        done: list[tuple[_Job, Any]] = []
        failed: list[tuple[_Job, BaseException]] = []
        again: list[_Job] = []
        stage = "begin"
        try:
            with self._transaction(self._left(batch)) as connection:
                stage = "work"
                tx = SqlTx(connection, node=self._node, clock=self._clock, audit_tail=tail)
                for job in batch:
                    mark = dict(tail)
                    execute(connection, "SAVEPOINT job")
                    try:
                        value = job.work(cast("Tx", tx))
                    except BaseException as error:
                        if _spoils_transaction(error):
                            raise
                        execute(connection, "ROLLBACK TO SAVEPOINT job")
                        execute(connection, "RELEASE SAVEPOINT job")
                        tail.clear()
                        if repeatable(error):
                            again.append(job)
                        else:
                            tail.update(mark)
                            failed.append((job, error))
                    else:
                        execute(connection, "RELEASE SAVEPOINT job")
                        done.append((job, value))
                stage = "commit"
        except BaseException as error:  # noqa: BLE001 - the writer must outlive whatever one batch meets
            self._audit_tail = {}
            if stage == "begin" and locked(error):
                return [], self._without_late(batch)
            if stage == "work" and locked(error):
                # Their wait was this one; each of the others is tried with what is left of its own.
                return self._without_late(batch), []
            if stage == "work" and not connection_lost(error) and not self._note(error).fatal:
                # One function met it and the transaction of all is gone with it; by itself each gets its own answer.
                return batch, []
            for job in batch:
                job.future.set_exception(self._note(error))
            return [], []
        self._audit_tail = tail
        for job, value in done:
            job.future.set_result(value)
        for job, problem in failed:
            job.future.set_exception(_words(problem))
        return again, []

    def _alone(self, job: _Job) -> None:
        """Commit *job* in a transaction of its own."""
        for attempt in range(RETRIES + 1):
            tail = dict(self._audit_tail)
            stage = "begin"
            try:
                with self._transaction(self._left([job])) as connection:
                    stage = "work"
                    value = job.work(cast("Tx", SqlTx(connection, node=self._node, clock=self._clock, audit_tail=tail)))
                    stage = "commit"
            except BaseException as error:  # noqa: BLE001 - handed to the caller who waits for this function
                # The chain may have been continued by another process of this node's name, so its end is read anew.
                self._audit_tail = {}
                if stage == "work" and repeatable(error) and attempt < RETRIES:
                    time.sleep(0.01 * (attempt + 1))
                    continue
                job.future.set_exception(
                    self._note(error) if isinstance(error, sa.exc.SQLAlchemyError) else _words(error)
                )
                return
            self._audit_tail = tail
            job.future.set_result(value)
            return

    @contextlib.contextmanager
    def _transaction(self, wait_s: float) -> Iterator[Connection]:
        """Open a transaction that commits with the block; a failed one leaves nothing, its connection included.

        Locks of others are waited for as long as *wait_s*.
        """
        # As long as nearly nothing was waited, the timeout that the connection has already will do.
        shorter = wait_s < 0.9 * self._patience_s
        if self._engine.dialect.name != "sqlite":
            with self._engine.begin() as connection:
                if shorter:
                    # Zero would mean for ever (https://www.postgresql.org/docs/current/runtime-config-client.html).
                    execute(connection, f"SET LOCAL lock_timeout = {max(1, int(wait_s * 1000))}")
                yield connection
            return
        kept, self._kept = self._kept, None
        connection = kept or self._engine.connect()
        try:
            if shorter or self._shorter:
                self._shorter = shorter
                execute(connection, f"PRAGMA busy_timeout={int((wait_s if shorter else self._patience_s) * 1000)}")
            with connection.begin():
                yield connection
        except BaseException:
            connection.close()
            raise
        self._kept = connection

    def _note(self, error: BaseException) -> HubError:
        """Return *error* in the hub's words, and stop taking data when the disk failed."""
        found = translated(error)
        if found.fatal and self._dead is None:
            self._dead = found
            log.critical("disk_failed", error=type(error).__name__)
        return found


def _turn_of(engine: Engine) -> Turn | None:
    """Return what orders the processes that write to an SQLite file; PostgreSQL orders its writers itself."""
    path = engine.url.database
    if engine.dialect.name != "sqlite" or not path:
        return None
    try:
        return Turn(Path(path))
    except OSError as error:
        raise HubError(
            Category.UNAVAILABLE,
            f"The lock files of the database cannot be opened: {error.strerror}.",
            where="database",
            remedy="Make the folder of the database writable for the hub.",
        ) from error


def _stopping() -> HubError:
    return HubError(Category.INTERRUPTED, "The hub is stopping.", remedy="Send again in a moment.")


def _stopped() -> HubError:
    return HubError(
        Category.UNAVAILABLE,
        "This node has stopped taking data after a disk failure.",
        remedy="Check the disk, run `hub fsck`, then restart the hub.",
    )


def _spoils_transaction(error: BaseException) -> bool:
    """Return whether the database may have ended the whole transaction with *error*."""
    return isinstance(error, sa.exc.DBAPIError) and not isinstance(
        error, sa.exc.IntegrityError | sa.exc.DataError | sa.exc.ProgrammingError
    )


def _words(error: BaseException) -> BaseException:
    return translated(error) if isinstance(error, sa.exc.SQLAlchemyError) else error
