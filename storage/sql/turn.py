"""Whose turn it is to write to an SQLite database that several processes share.

SQLite lets a process that finds the database locked sleep up to 100 ms and look again
(https://www.sqlite.org/c3ref/busy_timeout.html), while the one that has just committed may begin again at once: under
load one process writes and the others starve. Here each waits in the kernel for a lock file, and a second lock is the
place at the head of the queue: who has just written must pass it too, so that somebody who waits there comes next.
Waiting must not be a loop that looks again and again: whoever looks at the right moment, which is who has just let go,
would win each time, and a third process would never write.

The locks only order the writers. SQLite's own lock still decides, so a process that knows nothing of turns (a backup, a
shell) does no harm, and the kernel frees the locks of a process that dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


class Turn:
    """The right to write to the database at *path*, among all processes that ask for it here."""

    def __init__(self, path: Path) -> None:
        self._next = _opened(path.with_name(f"{path.name}-next"))
        self._now = _opened(path.with_name(f"{path.name}-now"))

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Wait for the turn and hold it for the block."""
        fcntl.flock(self._next, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._now, fcntl.LOCK_EX)
        finally:
            fcntl.flock(self._next, fcntl.LOCK_UN)
        try:
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
