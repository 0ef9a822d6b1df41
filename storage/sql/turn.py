"""Whose turn it is to write to an SQLite database that several processes share.

SQLite lets a process that finds the database locked sleep up to 100 ms and look again
(https://www.sqlite.org/c3ref/busy_timeout.html), while the one that has just committed may begin again at once: under
load one process writes and the others starve. Here each waits in short steps for a lock file, and a second lock is the
place at the head of the queue: who has just written must pass it too, so that somebody who waits there comes next.

The locks only order the writers. SQLite's own lock still decides, so a process that knows nothing of turns (a backup, a
shell) does no harm, and the kernel frees the locks of a process that dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

#: A commit takes some milliseconds; a wait is looked at this often at first, and less often as it lasts.
_FIRST_STEP_S = 0.0002
_LONGEST_STEP_S = 0.001


class Turn:
    """The right to write to the database at *path*, among all processes that ask for it here."""

    def __init__(self, path: Path, *, patience_s: float) -> None:
        self._patience_s = patience_s
        self._next = _opened(path.with_name(f"{path.name}-next"))
        self._now = _opened(path.with_name(f"{path.name}-now"))

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Wait for the turn and hold it for the block; after *patience_s* the block runs without, and SQLite decides."""
        deadline = time.monotonic() + self._patience_s
        try:
            if _lock(self._next, deadline):
                _lock(self._now, deadline)
                fcntl.flock(self._next, fcntl.LOCK_UN)
            yield
        finally:
            fcntl.flock(self._now, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the lock files; safe to repeat."""
        for name in ("_next", "_now"):
            fd = getattr(self, name)
            if fd >= 0:
                setattr(self, name, -1)
                os.close(fd)


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _lock(fd: int, deadline: float) -> bool:
    step_s = _FIRST_STEP_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(step_s)
            step_s = min(_LONGEST_STEP_S, step_s * 1.5)
