"""The object store on a local file system: ``<root>/ab/<digest>``, durable when :meth:`FileStore.put` returns.

Write order: temporary file on the same file system, fsync of the file, hard link under its digest, fsync of the
directory. A link either is there or is not, so nothing is ever half visible; a crash leaves at most a temporary file
that the next start removes. The 256 directories are made and synced at start, so an object costs two fsyncs.

After a failed fsync Linux may drop the dirty pages and report the next fsync as good. Such a failure is therefore
final: the store takes no more data in this process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import structlog

from hub.errors import Category, HubError
from hub.ports import ObjectRef, Spool
from storage.objects.checksum import Check, seal
from storage.objects.reading import HashedStream
from storage.objects.spool import FileSpool, SpoolArea
from storage.objects.trouble import checked, damaged, foreign_spool, from_os, is_digest, missing, read_only, sync_failed

_READ_BYTES = 1 << 20
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
#: File systems whose content ends with the machine's memory.
_VOLATILE = frozenset({"tmpfs", "ramfs"})

_log = structlog.get_logger(__name__)


class FileStore:
    """Objects as files named by their SHA-256 under *root*."""

    def __init__(
        self,
        root: Path,
        *,
        min_free_bytes: int = 0,
        open_when_full: bool = False,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        """Open the store, making *root* when it is missing.

        A store that empties itself (:mod:`storage.objects.spooled`) must start on a full disk too, and then has
        *open_when_full* use some bytes of the reserve.
        """
        self._root = root
        self._now_s = now_s
        self._failed = False
        self._make_directories()
        self._area = SpoolArea(root / "tmp", min_free_bytes=min_free_bytes)
        self._guarantees = self._self_test(reserve=not open_when_full)

    def spool(self, *, max_bytes: int) -> FileSpool:
        """Return an empty spool; raises HubError(unavailable) when the store is read-only or the disk nearly full."""
        self._refuse_after_failure()
        return self._area.spool(max_bytes=max_bytes)

    def put(self, spool: Spool) -> ObjectRef:
        """Keep the spooled bytes under their digest; on return they would survive a power cut.

        Raises HubError(unavailable) on a full disk and HubError(fault, fatal) when an fsync fails. An object that is
        there already is compared by its hash; a damaged copy is replaced.
        """
        self._refuse_after_failure()
        if not isinstance(spool, FileSpool) or spool.area is not self._area or not spool.whole or spool.path is None:
            raise foreign_spool()
        digest, size = spool.digest, spool.size
        target = self._path(digest)
        seal(spool.fileno(), digest, spool.checksum)
        self._sync(spool.fileno(), "writing an object")
        try:
            directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise from_os(error, "opening an object directory") from error
        try:
            try:
                os.link(spool.path, target, follow_symlinks=False)
            except FileExistsError:
                self._keep_existing(directory, spool.path, target, ObjectRef(digest=digest, size=size))
            # The link may be another writer's who has not synced the directory yet, so every put syncs it.
            self._sync(directory, "linking an object")
        except OSError as error:
            raise from_os(error, "linking an object") from error
        finally:
            os.close(directory)
        spool.drop()
        return ObjectRef(digest=digest, size=size)

    def put_bytes(self, data: bytes) -> ObjectRef:
        """Keep *data*; durable and failing as :meth:`put`."""
        with self.spool(max_bytes=len(data)) as spool:
            spool.write(data)
            return self.put(spool)

    def open(self, digest: str, *, verify: bool = False) -> BinaryIO:
        """Return a seekable handle; with *verify* the whole object is hashed first.

        Raises HubError(not-found), or HubError(fault) when the bytes do not match their name.
        """
        path = self._path(digest)
        try:
            handle = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")
        except FileNotFoundError:
            raise missing(digest) from None
        except OSError as error:
            raise from_os(error, "opening an object") from error
        if verify:
            try:
                if _hash(handle) != digest:
                    raise damaged(digest)
                handle.seek(0)
            except OSError as error:
                handle.close()
                raise from_os(error, "reading an object") from error
            except HubError:
                handle.close()
                raise
        return handle

    def read(self, digest: str, start: int = 0, length: int | None = None) -> bytes:
        """Return *length* bytes from *start*; a whole object is checked against its name, a part is not."""
        with self.open(digest) as handle:
            check = Check(digest, handle.fileno()) if not start and length is None else None
            try:
                if start:
                    handle.seek(start)
                data = handle.read() if length is None else handle.read(length)
            except OSError as error:
                raise from_os(error, "reading an object") from error
            if check is not None:
                check.update(data)
                if not check.matches():
                    raise damaged(digest)
        return data

    def stream(self, digest: str, *, chunk_bytes: int = 1 << 20, verify: bool = True) -> Iterator[bytes]:
        """Return the object in chunks; HubError(fault) after the last one when they do not match the digest.

        They are compared by the checksum that goes with the file, if it has one (:mod:`storage.objects.checksum`).
        """
        handle = self.open(digest)

        def chunk(size: int) -> bytes:
            try:
                return handle.read(size)
            except OSError as error:
                raise from_os(error, "reading an object") from error

        return HashedStream(
            chunk,
            handle.close,
            digest=digest,
            chunk_bytes=chunk_bytes,
            check=Check(digest, handle.fileno()) if verify else None,
        )

    def stat(self, digest: str) -> ObjectRef | None:
        """Return the object's name and size, or None."""
        try:
            return ObjectRef(digest=digest, size=self._path(digest).lstat().st_size)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise from_os(error, "looking for an object") from error

    def verify(self, digest: str) -> bool:
        """Re-read the object; False when it is missing, unreadable or does not match its name."""
        try:
            self.open(digest, verify=True).close()
        except HubError as error:
            if error.category in {Category.NOT_FOUND, Category.FAULT}:
                return False
            raise
        return True

    def delete(self, digest: str) -> None:
        """Remove the object if it is there; only for the sweeper, and only when no row names it any more."""
        self.discard(digest, idle_s=0)

    def discard(self, digest: str, *, idle_s: float) -> bool:
        """Remove the object unless it was put or put again within *idle_s*; returns whether it was removed."""
        path = self._path(digest)
        try:
            directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(directory, fcntl.LOCK_EX)
                if self._now_s() - path.lstat().st_ctime < idle_s:
                    return False
                path.unlink()
                self._sync(directory, "removing an object")
            finally:
                os.close(directory)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise from_os(error, "removing an object") from error
        return True

    def release(self, digest: str, handle: BinaryIO, *, keep: Callable[[str, Path], None]) -> bool:
        """Give up the copy that *handle* reads, which another store has taken over; *keep* may link it elsewhere first.

        Returns False when a put has meanwhile replaced the file, whose bytes nobody else has. The directory is not
        synced: a name that a power cut brings back is taken over once more.
        """
        path = self._path(digest)
        mine = os.fstat(handle.fileno())
        try:
            directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(directory, fcntl.LOCK_EX)
                found = path.lstat()
                if (found.st_dev, found.st_ino) != (mine.st_dev, mine.st_ino):
                    return False
                keep(digest, path)
                path.unlink()
            finally:
                os.close(directory)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise from_os(error, "giving up an uploaded object") from error
        return True

    def ages(self) -> Iterator[tuple[int, float]]:
        """Yield size and time of arrival (seconds since the epoch) of every object, in no order."""
        for number in range(256):
            try:
                with os.scandir(self._root / f"{number:02x}") as entries:
                    for entry in entries:
                        if is_digest(entry.name):
                            # What is uploaded meanwhile is not there any more.
                            with contextlib.suppress(FileNotFoundError):
                                found = entry.stat(follow_symlinks=False)
                                yield found.st_size, found.st_mtime
            except OSError as error:
                raise from_os(error, "listing objects") from error

    def digests(self, *, first: int = 0) -> Iterator[ObjectRef]:
        """Yield every object in the order of the digests, from those that begin with the byte *first* round to it.

        Foreign files are passed over.
        """
        for number in (*range(first, 256), *range(first)):
            try:
                with os.scandir(self._root / f"{number:02x}") as entries:
                    found = []
                    for entry in entries:
                        if is_digest(entry.name):
                            # What is removed meanwhile is not there any more.
                            with contextlib.suppress(FileNotFoundError):
                                found.append((entry.name, entry.stat(follow_symlinks=False).st_size))
            except OSError as error:
                raise from_os(error, "listing objects") from error
            for name, size in sorted(found):
                yield ObjectRef(digest=name, size=size)

    def guarantees(self) -> Mapping[str, str]:
        """Return what the start-up self-test found about this volume."""
        return self._guarantees

    def healthy(self) -> None:
        """Raise HubError(unavailable) after a failed fsync, on a lost volume or a nearly full disk."""
        self._refuse_after_failure()
        self._area.check_space()

    def close(self) -> None:
        """Remove this process's temporary files; the objects stay."""
        self._area.close()

    def _path(self, digest: str) -> Path:
        return self._root / checked(digest)[:2] / digest

    def _refuse_after_failure(self) -> None:
        if self._failed:
            raise read_only()

    def _sync(self, fd: int, doing: str) -> None:
        try:
            os.fsync(fd)
        except OSError as error:
            if error.errno in _FULL:
                raise from_os(error, doing) from error
            self._failed = True
            _log.critical("object_store_sync_failed", errno=error.errno, doing=doing)
            raise sync_failed(error, doing) from error

    def _keep_existing(self, directory: int, spooled: Path, target: Path, ref: ObjectRef) -> None:
        """Refresh the copy that is there, or replace it when it is damaged.

        The lock keeps the sweeper from removing an old orphan between our look at it and the row that will name it:
        it looks at the time of the last change, under the same lock.
        """
        fcntl.flock(directory, fcntl.LOCK_SH)
        with contextlib.suppress(FileNotFoundError):
            existing = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(existing, "rb") as handle:
                known = os.fstat(existing)
                if known.st_size == ref.size and _hash(handle) == ref.digest:
                    # This moves the time of the last change (ctime); that of the bytes (mtime) stays what it was.
                    os.utime(existing, ns=(known.st_atime_ns, known.st_mtime_ns))
                    return
        # Gone meanwhile, or damaged: our bytes are synced and have the right hash, and rename is atomic.
        _log.warning("object_replaced", digest=ref.digest)
        spare = spooled.with_name(uuid.uuid4().hex)
        os.link(spooled, spare, follow_symlinks=False)
        spare.replace(target)

    def _make_directories(self) -> None:
        try:
            created = [path for path in (self._root, *self._root.parents) if not path.exists()]
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for number in range(256):
                (self._root / f"{number:02x}").mkdir(mode=0o700, exist_ok=True)
            for path in (self._root, *(made.parent for made in created)):
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    self._sync(fd, "making the object directories")
                finally:
                    os.close(fd)
        except OSError as error:
            raise from_os(error, "making the object directories") from error

    def _self_test(self, *, reserve: bool) -> Mapping[str, str]:
        """Write, link and sync a probe; raises HubError when the volume cannot keep what :meth:`put` promises."""
        probe = self._area.room / f"probe-{uuid.uuid4().hex}"
        try:
            with self._area.spool(max_bytes=16, reserve=reserve) as spool:
                spool.write(b"probe")
                sealed = seal(spool.fileno(), spool.digest, spool.checksum)
                self._sync(spool.fileno(), "testing the volume")
                assert spool.path is not None
                os.link(spool.path, probe, follow_symlinks=False)
                with contextlib.suppress(FileExistsError):
                    os.link(spool.path, probe, follow_symlinks=False)
                    raise HubError(Category.FAULT, "The volume links over an existing file.", where="object store")
            probe.unlink()
        except OSError as error:
            raise HubError(
                Category.UNAVAILABLE,
                f"The volume of the object store cannot make hard links: {errno.errorcode.get(error.errno or 0)}.",
                where="object store",
                remedy="Use a POSIX file system such as ext4, XFS or ZFS, or an S3 bucket.",
            ) from error
        filesystem = _filesystem_of(self._root)
        return {
            "driver": "file",
            "filesystem": filesystem,
            "durable": "no: the volume lives in memory" if filesystem in _VOLATILE else "fsync of file and directory",
            "atomic": "hard link under the digest",
            "checked": (
                "SHA-256 while receiving, XXH3 when a whole object is read"
                if sealed
                else "SHA-256 while receiving and when a whole object is read; this file system keeps no XXH3 beside it"
            ),
        }


def _hash(handle: io.BufferedReader) -> str:
    return hashlib.file_digest(handle, "sha256").hexdigest()


def _filesystem_of(path: Path) -> str:
    """Return the type of the file system that holds *path* (proc(5), mountinfo), or ``unknown``."""
    try:
        device = path.stat().st_dev
        wanted = f"{os.major(device)}:{os.minor(device)}"
        for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            left, _, right = line.partition(" - ")
            if left.split(" ")[2] == wanted:
                return right.split(" ")[0]
    except OSError:
        pass
    return "unknown"
