"""The spool: a temporary file that counts, hashes and caps what a door receives, before anything believes in it.

A spool area is a directory with one room per live process. Each room's lock file is held with ``flock`` for as long as
the process lives, so that the next start can tell rooms of the dead (removed) from rooms of the living (untouched) at
no cost on the receive path.

Where files come and go, making one gets dear on ext4 (:mod:`storage.objects.block_groups`), so a room is a row of
folders, each of which takes a limited number of files.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Self

import xxhash

from hub.errors import Category, HubError
from storage.objects.block_groups import spread
from storage.objects.reading import RangeReader
from storage.objects.trouble import from_os, too_large
from storage.objects.writeback import begin_writing

#: Files that one folder of a room takes before the next folder is begun. Making a folder costs as much as some files.
FILES_PER_FOLDER = 1024


class FileSpool:
    """What one sender has sent so far; removed when its ``with`` block ends, unless it was put."""

    __slots__ = ("_broken", "_checksum", "_fd", "_hash", "_max_bytes", "_size", "area", "path")

    def __init__(self, area: SpoolArea, path: Path, *, max_bytes: int) -> None:
        self.area = area
        self.path: Path | None = path
        self._max_bytes = max_bytes
        self._size = 0
        self._hash = hashlib.sha256()
        self._checksum = xxhash.xxh3_128()
        self._broken = False
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    @property
    def size(self) -> int:
        """Number of bytes written so far."""
        return self._size

    @property
    def digest(self) -> str:
        """Hex SHA-256 of all bytes written so far."""
        return self._hash.hexdigest()

    @property
    def checksum(self) -> bytes:
        """XXH3 of 128 bits of all bytes written so far (:mod:`storage.objects.checksum`)."""
        return self._checksum.digest()

    @property
    def whole(self) -> bool:
        """Whether every write so far reached the file in full and the file is still open."""
        return not self._broken and self._fd >= 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append *data* and return its length.

        Raises HubError(incorrect, 413) beyond the cap and HubError(unavailable) on a full disk; the spool is broken
        after either and cannot be put.
        """
        view = memoryview(data).cast("B")
        length = len(view)
        if self._size + length > self._max_bytes:
            self._broken = True
            raise too_large(self._max_bytes)
        done = 0
        try:
            while done < length:
                done += os.write(self._fd, view[done:] if done else view)
        except OSError as error:
            self._broken = True
            raise from_os(error, "receiving") from error
        self._hash.update(view)
        self._checksum.update(view)
        self._size += length
        return length

    def open(self) -> BinaryIO:
        """Return a new seekable read handle over what was written; it outlives the spool.

        Who looks into it has written all of it, so the disk begins with it meanwhile, and less is left for the fsync.
        """
        begin_writing(self._fd)
        fd = os.dup(self._fd)

        def fetch(offset: int, buffer: memoryview) -> int:
            return os.preadv(fd, [buffer], offset)

        return io.BufferedReader(RangeReader(fetch, size=self._size, on_close=lambda: os.close(fd)), 1 << 16)

    def fileno(self) -> int:
        """Return the descriptor, for the driver that makes the bytes durable."""
        return self._fd

    def drop(self) -> None:
        """Take the temporary name away; the bytes stay readable until :meth:`close`."""
        path, self.path = self.path, None
        if path is not None:
            # What cannot be removed now is removed by the next start; the bytes that matter are linked elsewhere.
            with contextlib.suppress(OSError):
                path.unlink()

    def close(self) -> None:
        """Remove the temporary file and close it; safe to repeat."""
        self.drop()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            self.close()


class SpoolArea:
    """One process's room for temporary files under *root*; rooms of dead processes are removed on opening."""

    def __init__(self, root: Path, *, min_free_bytes: int = 0) -> None:
        self._root = root
        self._min_free_bytes = min_free_bytes
        # Guards the three below: no folder is taken away between its choice and the making of a file in it.
        self._gate = threading.Lock()
        self._folder: Path | None = None
        self._used = 0
        self._full: list[Path] = []
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            spread(root)
            with locked(root / ".lock"):
                self._sweep()
                name = uuid.uuid4().hex
                self._lock_path = root / f"{name}.lock"
                self._lock_fd = os.open(
                    self._lock_path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
                )
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.room = root / name
                self.room.mkdir(mode=0o700)
                spread(self.room)
        except OSError as error:
            raise from_os(error, "opening the spool") from error

    def spool(self, *, max_bytes: int, reserve: bool = True) -> FileSpool:
        """Return an empty spool; raises HubError(unavailable) when the disk is nearly full.

        Without *reserve* the room that is kept free may be used too: by what a hub on a full disk needs to start.
        """
        if reserve:
            self.check_space()
        try:
            with self._gate:
                return FileSpool(self, self._with_room() / uuid.uuid4().hex, max_bytes=max_bytes)
        except OSError as error:
            raise from_os(error, "opening a spool file") from error

    def _with_room(self) -> Path:
        """Return the folder for one more file; the caller holds the gate."""
        if self._folder is None or self._used >= FILES_PER_FOLDER:
            fresh = self.room / uuid.uuid4().hex
            fresh.mkdir(mode=0o700)
            self._full = [path for path in (*self._full, self._folder) if path is not None and not _removed(path)]
            self._folder, self._used = fresh, 0
        self._used += 1
        return self._folder

    def check_space(self) -> None:
        """Raise HubError(unavailable) when less than the reserve is free on the volume."""
        if not self._min_free_bytes:
            return
        try:
            volume = os.statvfs(self.room)
        except OSError as error:
            raise from_os(error, "asking for free space") from error
        if volume.f_bavail * volume.f_frsize < self._min_free_bytes:
            raise HubError(
                Category.UNAVAILABLE,
                f"Less than {self._min_free_bytes >> 20} MiB are free on the volume of the object store.",
                where="object store",
                remedy="Free space on that volume; reading and sending go on meanwhile.",
            )

    def close(self) -> None:
        """Remove this process's room; spools still open in it keep their bytes until they are closed."""
        fd, self._lock_fd = self._lock_fd, -1
        if fd < 0:
            return
        shutil.rmtree(self.room, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._lock_path.unlink()
        os.close(fd)

    def __del__(self) -> None:
        # An area that was forgotten and not closed lets go of its lock, and the next start removes its room.
        fd, self._lock_fd = getattr(self, "_lock_fd", -1), -1
        if fd >= 0:
            os.close(fd)

    def _sweep(self) -> None:
        """Remove the rooms whose owners are gone; the caller holds the area's lock."""
        for lock in self._root.glob("*.lock"):
            if lock.name == ".lock":
                continue
            fd = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            else:
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink(missing_ok=True)
            finally:
                os.close(fd)
        # A crash between the two steps of a sweep, or between lock and room, leaves a room without a lock.
        for room in self._root.iterdir():
            if room.is_dir() and not room.with_suffix(".lock").exists():
                shutil.rmtree(room, ignore_errors=True)


def _removed(folder: Path) -> bool:
    """Take *folder* away if nothing is left in it; returns whether it is gone."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        # A file is still in it; asked again when the next folder is full.
        return False
    return True


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock file *path* (made when it is missing) against other threads and processes."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
