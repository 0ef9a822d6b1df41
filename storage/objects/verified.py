"""What this process has found sound a short while ago, so that a study read twice is not hashed twice.

An entry holds the inode, the size and the time of the last change (ctime) that the file had when its bytes were hashed.
Only the kernel sets that time, with every write, so a file that was touched since is hashed again. What no time shows is
a disk that loses bits by itself; therefore an entry ends after :data:`KEEP_S`, and storage commitment, fsck and the
sweeper, who ask whether an object is sound now, do not look here at all.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

#: For how long a hash that was right stands for the bytes.
KEEP_S = 3600.0
#: The last change must lie this far back when the hashing starts: times are as coarse as the kernel's tick, or as the
#: clock of a file server, so a change right after it could bear the same time.
SETTLED_S = 2.0
_ENTRIES = 50_000


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a file was like when its handle was opened."""

    device: int
    inode: int
    size: int
    changed_ns: int


def _stamp(fd: int) -> Stamp:
    found = os.fstat(fd)
    return Stamp(found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns)


class Verified:
    """The sound objects that one store remembers; safe for many threads."""

    def __init__(
        self, *, now_s: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._now_s = now_s
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[Stamp, float]] = OrderedDict()

    def look(self, digest: str, fd: int) -> Look | None:
        """Return None if the bytes of *fd* are known to have the hash *digest*, else what to tell when they have been read.

        Raises:
            OSError: the file cannot be looked at.
        """
        seen = _stamp(fd)
        with self._lock:
            entry = self._known.get(digest)
            if entry is not None:
                known, until = entry
                if known == seen and self._monotonic() <= until:
                    self._known.move_to_end(digest)
                    return None
                del self._known[digest]
        settled = seen.changed_ns <= (self._now_s() - SETTLED_S) * 1e9
        return Look(self, digest, fd, seen if settled else None)

    def note(self, digest: str, fd: int, seen: Stamp) -> None:
        """Remember *digest* for the file that *seen* was taken from, if *fd* is still as it was then."""
        try:
            if _stamp(fd) != seen:
                return
        except OSError:
            return
        with self._lock:
            self._known[digest] = (seen, self._monotonic() + KEEP_S)
            self._known.move_to_end(digest)
            while len(self._known) > _ENTRIES:
                self._known.popitem(last=False)


class Look:
    """An object that must be hashed as it is read."""

    def __init__(self, verified: Verified, digest: str, fd: int, seen: Stamp | None) -> None:
        self._verified = verified
        self._digest = digest
        self._fd = fd
        self._seen = seen

    def sound(self) -> None:
        """Remember that the bytes had the right hash, unless the file was changed while they were read.

        The file must still be open.
        """
        if self._seen is not None:
            self._verified.note(self._digest, self._fd, self._seen)
