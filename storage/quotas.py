"""What is left of the members' quotas by the minute, in one small file that all processes of a node share.

It is read, changed and written under a lock (flock(2)), some tens of microseconds in all, and only for members that have a
quota. It is never synced: what it holds is worth a minute, and after a crash or in a file that cannot be read quotas begin
full. Several nodes have a file each.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from hub.errors import Category, HubError
from hub.fairness import Allowance
from hub.quotas import Buckets, Permit, Wanted, give_back, settle

#: By member and quota: the quota as it was, what is left of it, and when that was looked at.
_Kept = dict[str, dict[str, tuple[int, float, float]]]


class SharedMinutes:
    """The :class:`hub.quotas.Minutes` of a node, kept in the file at *path*.

    Args:
        seconds: a clock that all processes agree on.
    """

    def __init__(self, path: Path, *, seconds: Callable[[], float] = time.time) -> None:
        self._path = path
        self._seconds = seconds
        self._lock = threading.Lock()
        self._handle: int | None = None
        self._opened_by = 0

    def ask(self, member: str, wanted: Sequence[Wanted], *, patience_s: float) -> Permit:
        """See :class:`hub.quotas.Minutes`.

        Raises:
            HubError: unavailable, because the data folder is full or not writable.
        """
        with self._member(member) as buckets:
            return settle(buckets, wanted, now_s=self._seconds(), patience_s=patience_s)

    def give_back(self, member: str, wanted: Sequence[Wanted]) -> None:
        """See :class:`hub.quotas.Minutes`."""
        with self._member(member) as buckets:
            give_back(buckets, wanted)

    @contextmanager
    def _member(self, member: str) -> Iterator[Buckets]:
        try:
            with self._lock:
                handle = self._open()
                # The lock belongs to the open file, so threads of this process are kept apart by the other one.
                fcntl.flock(handle, fcntl.LOCK_EX)
                try:
                    kept = self._read(handle)
                    now_s = self._seconds()
                    buckets: Buckets = {
                        # A clock that was set back must not stop a bucket from filling.
                        quota: (per_minute, Allowance(per_minute, min(at, now_s), left=left))
                        for quota, (per_minute, left, at) in kept.get(member, {}).items()
                    }
                    yield buckets
                    kept[member] = {quota: (per_minute, *one.state) for quota, (per_minute, one) in buckets.items()}
                    written = msgspec.json.encode(kept)
                    os.pwrite(handle, written, 0)
                    os.ftruncate(handle, len(written))
                finally:
                    fcntl.flock(handle, fcntl.LOCK_UN)
        except OSError as error:
            # A full or read-only disk is no fault of the sender's, who is to come again.
            raise HubError(
                Category.UNAVAILABLE,
                f"The file of the members' quotas cannot be kept: {error.strerror}.",
                where="data folder",
                remedy="Free space on that volume, or make it writable.",
            ) from error

    def _open(self) -> int:
        if self._handle is None or self._opened_by != os.getpid():
            # A file that was opened before a fork shares its lock with the other side, and keeps nobody out.
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            self._opened_by = os.getpid()
        return self._handle

    def _read(self, handle: int) -> _Kept:
        raw = os.pread(handle, os.fstat(handle).st_size, 0)
        try:
            return msgspec.json.decode(raw, type=_Kept)
        except msgspec.DecodeError:
            return {}
