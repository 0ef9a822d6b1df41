"""Whose turn it is to write to an SQLite database that several processes share.

SQLite lets a process that finds the database locked sleep up to 100 ms and look again
(https://www.sqlite.org/c3ref/busy_timeout.html), while the one that has just committed may begin again at once: under
load one process writes and the others starve. Here each waits in the kernel for a lock file, and a second lock is the
place at the head of the queue: who has just written must pass it too, so that somebody who waits there comes next.
Waiting must not be a loop that looks again and again: whoever looks at the right moment, which is who has just let go,
would win each time, and a third process would never write.

The locks only order the writers. SQLite's own lock still decides, so a process that knows nothing of turns (a backup, a
shell) does no harm, and the kernel frees the locks of a process that dies.

The kernel's wait for a lock has no deadline, so where there is somebody to wait for, a thread of its own waits, and the
writer waits for that thread as long as it may. A writer that gives up leaves its place in the queue to its next write;
when the turn comes before that, it is passed on.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import queue
import threading
from collections.abc import Iterator
from pathlib import Path


class _Place:
    """A place in the queue that the waiting thread has taken."""

    def __init__(self) -> None:
        self.come = threading.Event()
        self.wanted = True


class Turn:
    """The right to write to the database at *path*, among all processes that ask for it here; for one thread."""

    def __init__(self, path: Path) -> None:
        self._next = _opened(path.with_name(f"{path.name}-next"))
        self._now = _opened(path.with_name(f"{path.name}-now"))
        # Guards the three below, which the waiting thread shares.
        self._gate = threading.Lock()
        self._place: _Place | None = None
        self._closed = False
        self._waiting: threading.Thread | None = None
        self._asked: queue.SimpleQueue[_Place | None] = queue.SimpleQueue()

    @contextlib.contextmanager
    def taken(self, wait_s: float = math.inf) -> Iterator[None]:
        """Wait for the turn and hold it for the block.

        Raises:
            TimeoutError: the turn did not come within *wait_s*; the block was not entered.
        """
        if not self._at_once():
            self._wait(wait_s)
        try:
            yield
        finally:
            fcntl.flock(self._now, fcntl.LOCK_UN)

    def _at_once(self) -> bool:
        """Take the turn if nobody has it and nobody waits for it."""
        with self._gate:
            if self._place is not None:
                # The locks belong to the open files, which the waiting thread uses too.
                return False
        try:
            fcntl.flock(self._next, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        try:
            fcntl.flock(self._now, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            fcntl.flock(self._next, fcntl.LOCK_UN)
        return True

    def _wait(self, wait_s: float) -> None:
        with self._gate:
            place = self._place
            if place is None:
                place = self._place = _Place()
                self._asked.put(place)
            place.wanted = True
            if self._waiting is None:
                self._waiting = threading.Thread(target=self._run, name="writer-turn", daemon=True)
                self._waiting.start()
        come = place.come.wait(None if wait_s == math.inf else max(0.0, wait_s))
        with self._gate:
            if not come and not place.come.is_set():
                place.wanted = False
                raise TimeoutError
            self._place = None

    def _run(self) -> None:
        while (place := self._asked.get()) is not None:
            fcntl.flock(self._next, fcntl.LOCK_EX)
            try:
                fcntl.flock(self._now, fcntl.LOCK_EX)
            finally:
                fcntl.flock(self._next, fcntl.LOCK_UN)
            with self._gate:
                if place.wanted:
                    place.come.set()
                else:
                    fcntl.flock(self._now, fcntl.LOCK_UN)
                    self._place = None
        self._shut()

    def close(self) -> None:
        """Let go of the lock files; safe to repeat. A place in the queue that nobody wants is given back when it comes."""
        with self._gate:
            if self._closed:
                return
            self._closed = True
            waiting = self._waiting
        if waiting is None:
            self._shut()
        else:
            # The files are closed by who may still wait for one: their numbers could be another file's by then.
            self._asked.put(None)

    def _shut(self) -> None:
        os.close(self._next)
        os.close(self._now)


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
