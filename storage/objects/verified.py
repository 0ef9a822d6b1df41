"""What the processes of this node have found sound a short while ago, so that nothing is hashed twice in an hour.

An entry holds the inode, the size and the time of the last change (ctime) that the file had when its bytes were hashed:
while they were received, or when they were read. Only the kernel sets that time, with every write, so a file that was
touched since is hashed again. What no time shows is a disk that loses bits by itself; therefore an entry ends after
:data:`KEEP_S`, and storage commitment, fsck and the sweeper, who ask whether an object is sound now, do not look here.

Theory of operation. The entries stand in memory that a process shares with those forked from it, so the door that sends a
study knows what the door that received it has hashed. An entry is its own end, and a digest of that and of all else that
it says: it is written without a lock, and one that was torn or overwritten fits nothing, which costs one hash.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import time
from collections.abc import Callable
from typing import NamedTuple

#: For how long a hash that was right stands for the bytes.
KEEP_S = 3600.0
#: The last change must lie this far back when a file is read to be hashed: times are as coarse as the kernel's tick, or as
#: the clock of a file server, so a change right after it could bear the same time.
SETTLED_S = 2.0
#: One place for each value of two bytes of the digest; later objects take the places of earlier ones.
_PLACES = 1 << 16
_ENTRY = struct.Struct("<24sd")


class Board:
    """The shared places."""

    def __init__(self) -> None:
        # Anonymous and shared: pages come into being when they are written, in this process or a child of it.
        self._memory = mmap.mmap(-1, _PLACES * _ENTRY.size)

    def read(self, digest: str) -> tuple[bytes, float]:
        """Return what stands at the place of *digest*."""
        return _ENTRY.unpack_from(self._memory, self._place(digest))

    def write(self, digest: str, mark: bytes, until: float) -> None:
        """Put an entry at the place of *digest*."""
        _ENTRY.pack_into(self._memory, self._place(digest), mark, until)

    @staticmethod
    def _place(digest: str) -> int:
        return int(digest[:4], 16) * _ENTRY.size


#: Made when this module is loaded, which is before the template forks the processes of the doors.
SHARED = Board()


class Stamp(NamedTuple):
    """What a file was like when it was looked at."""

    device: int
    inode: int
    size: int
    changed_ns: int

    @classmethod
    def of(cls, fd: int) -> Stamp:
        """Return the stamp of the open file *fd*; raises OSError."""
        found = os.fstat(fd)
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns)

    def mark(self, digest: str, until: float) -> bytes:
        """Return what says that the file had *digest*, and until when that stands."""
        said = f"{digest} {self.device} {self.inode} {self.size} {self.changed_ns} {until!r}"
        return hashlib.blake2b(said.encode(), digest_size=24).digest()


class Verified:
    """The sound objects of one store; safe for many threads and processes."""

    def __init__(
        self,
        *,
        board: Board | None = None,
        now_s: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._board = SHARED if board is None else board
        self._now_s = now_s
        self._monotonic = monotonic

    def look(self, digest: str, fd: int) -> Look | None:
        """Return None if the bytes of *fd* are known to have the hash *digest*, else what to tell when they have been read.

        Raises:
            OSError: the file cannot be looked at.
        """
        seen = Stamp.of(fd)
        mark, until = self._board.read(digest)
        if self._monotonic() <= until and mark == seen.mark(digest, until):
            return None
        settled = seen.changed_ns <= (self._now_s() - SETTLED_S) * 1e9
        return Look(self, digest, fd, seen if settled else None)

    def received(self, digest: str, fd: int) -> None:
        """Remember that the bytes of *fd*, which this process has just written and hashed, have the hash *digest*.

        Nobody else has had the file yet, so its time needs not to settle. Raises OSError.
        """
        self._remember(digest, Stamp.of(fd))

    def note(self, digest: str, fd: int, seen: Stamp) -> None:
        """Remember *digest* for the file that *seen* was taken from, if *fd* is still as it was then."""
        try:
            if Stamp.of(fd) != seen:
                return
        except OSError:
            return
        self._remember(digest, seen)

    def _remember(self, digest: str, seen: Stamp) -> None:
        until = self._monotonic() + KEEP_S
        self._board.write(digest, seen.mark(digest, until), until)


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
