"""A read-through cache on the local disk: copies of what S3 has, least recently read first to go.

Theory of operation. Nothing here is the only copy, so nothing is synced. A file gets its name by a hard link once all its
bytes are there and have the right hash. What a power cut may have done to unsynced files is not asked: each boot of the
machine (``/proc/sys/kernel/random/boot_id``, random(4)) has a folder of its own, and those of earlier boots are removed.

Several processes share the folder. One lock file guards names and the count of bytes; readers take no lock, since a file
that is removed under them stays readable. The order of use is the access time, which a read sets at most once a minute.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Self

import structlog

from hub.errors import Category, HubError
from storage.objects.checksum import seal
from storage.objects.spool import FileSpool, SpoolArea, locked
from storage.objects.trouble import checked, from_os, is_digest

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
#: Access times nearer than this are not told apart, so that a read rarely writes.
_TOUCH_NS = 60 * 1_000_000_000

_log = structlog.get_logger(__name__)


class Cache:
    """At most *max_bytes* of objects under *root*; trouble with its disk is logged and never fails a read."""

    def __init__(
        self, root: Path, *, max_bytes: int, min_free_bytes: int = 0, now_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._max_bytes = max_bytes
        self._min_free_bytes = min_free_bytes
        self._now_ns = now_ns
        self._lock = root / ".lock"
        self._root = root / boot_id()
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with locked(self._lock):
                for other in root.iterdir():
                    if other.is_dir() and other != self._root:
                        shutil.rmtree(other, ignore_errors=True)
                for number in range(256):
                    (self._root / f"{number:02x}").mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise from_os(error, "opening the cache") from error
        self._area = SpoolArea(self._root / "tmp")

    def open(self, digest: str) -> BinaryIO | None:
        """Return a handle over the copy, or None."""
        try:
            fd = os.open(self._path(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        with contextlib.suppress(OSError):
            found, now_ns = os.fstat(fd), self._now_ns()
            if now_ns - found.st_atime_ns > _TOUCH_NS:
                os.utime(fd, ns=(now_ns, found.st_mtime_ns))
        return os.fdopen(fd, "rb")

    def insert(self, digest: str, data: bytes) -> None:
        """Keep *data*, whose hash the caller has checked."""
        with contextlib.ExitStack() as stack:
            spool = self.spool(len(data))
            if spool is None:
                return
            stack.enter_context(spool)
            with _forgiven("write"):
                spool.write(data)
                self.keep(digest, spool)

    def spool(self, size: int) -> FileSpool | None:
        """Return a file to write an object of *size* bytes to, or None when it is not to be kept.

        A single object of more than a quarter of the cache would push out what others read.
        """
        if size > self._max_bytes // 4 or not self._has_room(size):
            return None
        with _forgiven("open"):
            return self._area.spool(max_bytes=size)
        return None

    def keep(self, digest: str, spool: FileSpool) -> None:
        """Keep what *spool* holds, if that is the object *digest*."""
        if spool.digest == digest and spool.path is not None:
            seal(spool.fileno(), digest, spool.checksum)
            self.adopt(digest, spool.path)

    def adopt(self, digest: str, path: Path) -> None:
        """Keep the file *path*, whose bytes are known to be *digest*, by a link to it."""
        with _forgiven("link"), locked(self._lock):
            size = path.lstat().st_size
            if size > self._max_bytes:
                return
            target = self._path(digest)
            if target.exists():
                return
            total = self._total()
            if total + size > self._max_bytes:
                # A tenth more than needed goes, so that not every copy costs a look at all of them.
                total = self._evict(total + size - self._max_bytes + self._max_bytes // 10)
            os.link(path, target, follow_symlinks=False)
            os.utime(target, ns=(self._now_ns(), target.lstat().st_mtime_ns), follow_symlinks=False)
            self._set_total(total + size)

    def drop(self, digest: str) -> None:
        """Remove the copy if there is one."""
        with _forgiven("remove"), locked(self._lock), contextlib.suppress(FileNotFoundError):
            path = self._path(digest)
            size = path.lstat().st_size
            path.unlink()
            self._set_total(max(0, self._total() - size))

    def make_room(self, size: int) -> bool:
        """Remove the copies that were not read for longest until *size* bytes are gone; whether any was there."""
        with _forgiven("make room"), locked(self._lock):
            before = self._scan_total()
            after = self._evict(size)
            self._set_total(after)
            return after < before
        return False

    def total(self) -> int:
        """Return how many bytes are kept."""
        with locked(self._lock):
            return self._total()

    def close(self) -> None:
        """Remove this process's temporary files; the copies stay."""
        self._area.close()

    # --- under the lock ---

    def _evict(self, size: int) -> int:
        """Remove at least *size* bytes, or everything; returns what is left."""
        kept = sorted(self._entries())
        left = sum(entry[1] for entry in kept)
        goal = left - size
        for _, length, path in kept:
            if left <= max(goal, 0):
                break
            path.unlink(missing_ok=True)
            left -= length
        return left

    def _entries(self) -> Iterator[tuple[int, int, Path]]:
        """Yield access time, size and path of every copy."""
        for number in range(256):
            with os.scandir(self._root / f"{number:02x}") as entries:
                for entry in entries:
                    if is_digest(entry.name):
                        found = entry.stat(follow_symlinks=False)
                        yield found.st_atime_ns, found.st_size, Path(entry.path)

    def _scan_total(self) -> int:
        return sum(size for _, size, _ in self._entries())

    def _total(self) -> int:
        """Return the count that is kept beside the copies; a missing or odd one is made again by looking at all."""
        try:
            return int((self._root / "total").read_text("ascii"))
        except (OSError, ValueError):
            return self._scan_total()

    def _set_total(self, total: int) -> None:
        (self._root / "total").write_text(str(total), "ascii")

    def _has_room(self, size: int) -> bool:
        """Whether the volume stays well above the reserve that the spool needs to take data."""
        if not self._min_free_bytes:
            return True
        try:
            volume = os.statvfs(self._root)
        except OSError:
            return False
        return volume.f_bavail * volume.f_frsize - size > 2 * self._min_free_bytes

    def _path(self, digest: str) -> Path:
        return self._root / checked(digest)[:2] / digest


class Filling(Iterator[bytes]):
    """Chunks of an object on their way from S3, kept in the cache when all of them have passed."""

    def __init__(self, chunks: Iterator[bytes], cache: Cache, digest: str, spool: FileSpool) -> None:
        self._chunks = chunks
        self._cache = cache
        self._digest = digest
        self._spool: FileSpool | None = spool

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        try:
            chunk = next(self._chunks)
        except StopIteration:
            if self._spool is not None:
                self._cache.keep(self._digest, self._spool)
            self.close()
            raise
        except BaseException:
            self.close()
            raise
        if self._spool is not None:
            try:
                self._spool.write(chunk)
            except HubError:
                # A full disk is no reason to cut the reader off.
                self._forget()
        return chunk

    def close(self) -> None:
        """Close the source and drop what is not whole; safe to repeat."""
        self._forget()
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()

    def _forget(self) -> None:
        spool, self._spool = self._spool, None
        if spool is not None:
            spool.close()

    def __del__(self) -> None:
        if getattr(self, "_spool", None) is not None:
            self.close()


def boot_id() -> str:
    """Return the name of this boot of the machine; HubError(unsupported) where the kernel does not tell it."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError as error:
        raise HubError(
            Category.UNSUPPORTED,
            "The kernel does not tell its boot id, so what a power cut has spoilt could not be told from the rest.",
            where=str(_BOOT_ID),
            remedy="Set HUB_OBJECTS_CACHE_BYTES=0.",
        ) from error


@contextlib.contextmanager
def _forgiven(doing: str) -> Iterator[None]:
    """Log trouble with the cache's disk and go on: every byte in it is elsewhere too."""
    try:
        yield
    except (OSError, HubError) as error:
        _log.warning("object_cache_trouble", doing=doing, error=type(error).__name__)
