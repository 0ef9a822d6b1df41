"""Objects in S3 behind a durable spool on this node's disk (DESIGN rule 1: durable before answered).

Theory of operation. :meth:`SpooledStore.put` is that of the file store, in ``{data_dir}/uploads``: fsync, link, fsync of
the directory, answer. What lies there is what waits; there is no other list of it, so a crash at any point forgets
nothing, and at worst an object is uploaded twice. :meth:`SpooledStore.upload` hashes each waiting file once more, sends
it, and gives the local copy up only after S3 has confirmed it; the file then moves into the cache. Reads ask the spool,
the cache and S3, in this order, which is the order in which an object moves, so that none is missed on its way.

S3 is connected to when it is first needed: a hub whose S3 server is away starts, takes data until the reserve of its disk
is reached, and then says so. The cache gives way to the spool before that.

Another node sees an object only when it has been uploaded.
"""

from __future__ import annotations

import contextlib
import copy
import fcntl
import hashlib
import io
import os
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from heapq import merge
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import structlog

from hub import metrics
from hub.errors import Category, HubError
from hub.ports import ObjectRef, Spool, Uploaded, Waiting
from storage.objects.cache import Cache, Filling
from storage.objects.checksum import Check
from storage.objects.copies import Told, damaged_if, read_from, sound
from storage.objects.file import FileStore
from storage.objects.reading import HashedStream
from storage.objects.settings import SpoolSettings
from storage.objects.spool import FileSpool, locked
from storage.objects.trouble import checked, from_os, missing
from storage.objects.upload_run import Remote, UploadRun

if TYPE_CHECKING:
    from storage.objects.s3 import S3Store

#: What the cache gives up at once when the disk is nearly full, at least.
_YIELD_BYTES = 64 << 20
#: A count of what waits is used again for this many times as long as it took, so that asking often costs little.
_COUNT_REST = 20

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mending:
    """What :meth:`SpooledStore.examine` found: ``damage`` that nothing can mend, or what was (to be) mended."""

    damage: str = ""
    mended: str = ""


class SpooledStore:
    """Objects under *data_dir* first and in the store that *connect* returns afterwards."""

    def __init__(
        self,
        data_dir: Path,
        connect: Callable[[], S3Store],
        *,
        settings: SpoolSettings,
        min_free_bytes: int = 0,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._min_free_bytes = min_free_bytes
        self._now_s = now_s
        self._root = waiting_dir(data_dir)
        self._local = FileStore(self._root, min_free_bytes=min_free_bytes, open_when_full=True, now_s=now_s)
        self._make_locks()
        self._remote = Remote(connect)
        self._cache: Cache | None = None
        if settings.cache_bytes:
            self._cache = Cache(data_dir / "cache", max_bytes=settings.cache_bytes, min_free_bytes=min_free_bytes)
        self._first = 0
        self._counted: tuple[float, float, Waiting] | None = None

    # --- writing ---

    def spool(self, *, max_bytes: int) -> FileSpool:
        """Return an empty spool; raises HubError(unavailable) when the disk is nearly full and the cache empty."""
        self._yield_room()
        return self._local.spool(max_bytes=max_bytes)

    def put(self, spool: Spool) -> ObjectRef:
        """Keep the spooled bytes on this node's disk; durable and failing as :meth:`FileStore.put`."""
        return self._local.put(spool)

    def put_bytes(self, data: bytes) -> ObjectRef:
        """Keep *data*; durable and failing as :meth:`put`."""
        with self.spool(max_bytes=len(data)) as spool:
            spool.write(data)
            return self.put(spool)

    # --- reading ---

    def open(self, digest: str, *, verify: bool = False) -> BinaryIO:
        """Return a seekable handle, from the nearest copy; with *verify*, from the nearest that is sound.

        Of a large object that only S3 has, the handle fetches ranges. Raises HubError(not-found), HubError(fault) when no
        copy matches its name, HubError(unavailable) when only S3 can have it and does not answer.
        """
        broken = False
        for tier, source in self._near(digest):
            if not verify or sound(source, Check(digest)):
                metrics.count("object_reads", tier=tier)
                return source
            source.close()
            broken = True
            self._not_sound(tier, digest)
        with damaged_if(broken, digest):
            remote = self._remote.get()
            found = remote.stat(digest)
            if found is None:
                raise missing(digest)
            metrics.count("object_reads", tier="s3")
            if found.size <= self._settings.fetch_bytes:
                return io.BytesIO(self._fetch(remote, digest))
            return remote.open(digest, verify=verify)

    def read(self, digest: str, start: int = 0, length: int | None = None) -> bytes:
        """Return *length* bytes from *start*; a whole object is checked against its name, a part is not."""
        if start or length is not None:
            with self.open(digest) as source:
                source.seek(start)
                return read_from(source, length)
        broken = False
        for tier, source in self._near(digest):
            with source:
                check = Check(digest, source.fileno())
                data = read_from(source, None)
                check.update(data)
                whole = check.matches()
            if whole:
                metrics.count("object_reads", tier=tier)
                return data
            broken = True
            self._not_sound(tier, digest)
        with damaged_if(broken, digest):
            data = self._fetch(self._remote.get(), digest)
            metrics.count("object_reads", tier="s3")
            return data

    def stream(self, digest: str, *, chunk_bytes: int = 1 << 20, verify: bool = True) -> Iterator[bytes]:
        """Return the object in chunks; HubError(fault) after the last one when they do not match the digest.

        A small damaged copy on this disk is passed over for a sound one; a large one is hashed on its way only, and the
        next attempt passes over a copy in the cache that was found damaged so.
        """
        broken = False
        for tier, source in self._near(digest):
            small = os.fstat(source.fileno()).st_size <= self._settings.fetch_bytes
            if not verify or not small or sound(source, Check(digest, source.fileno())):
                metrics.count("object_reads", tier=tier)
                check = Check(digest, source.fileno()) if verify and not small else None
                return self._watched(tier, source, digest, chunk_bytes=chunk_bytes, check=check)
            source.close()
            broken = True
            self._not_sound(tier, digest)
        with damaged_if(broken, digest):
            remote = self._remote.get()
            chunks = remote.stream(digest, chunk_bytes=chunk_bytes, verify=verify)
        metrics.count("object_reads", tier="s3")
        found = remote.stat(digest) if self._cache is not None else None
        if self._cache is None or found is None:
            return chunks
        spool = self._cache.spool(found.size)
        return chunks if spool is None else Filling(chunks, self._cache, digest, spool)

    def stat(self, digest: str) -> ObjectRef | None:
        """Return the object's name and size, or None; a copy in the cache is no object."""
        return self._local.stat(digest) or self._remote.get().stat(digest)

    def uploaded(self, digest: str) -> bool:
        """Return whether S3 has the object, so that other nodes see it and it no longer waits here."""
        return self._local.stat(digest) is None and self._remote.get().stat(digest) is not None

    def verify(self, digest: str) -> bool:
        """Re-read the object where it is kept; False when neither the spool nor S3 has a sound copy."""
        return self._local.verify(digest) or self._remote.get().verify(digest)

    def digests(self) -> Iterator[ObjectRef]:
        """Yield every object, waiting or uploaded, in the order of the digests."""
        # First all that wait: an object that is uploaded while S3 is listed is in one of the two lists at least.
        names: list[bytes] = []
        sizes = array("Q")
        for ref in self._local.digests():
            names.append(bytes.fromhex(ref.digest))
            sizes.append(ref.size)
        waiting = (ObjectRef(digest=name.hex(), size=size) for name, size in zip(names, sizes, strict=True))
        last = ""
        for ref in merge(waiting, self._remote.get().digests(), key=lambda one: one.digest):
            if ref.digest != last:
                last = ref.digest
                yield ref

    def uncached(self) -> SpooledStore:
        """Return this store for a caller that reads everything once, which must not push out what others read."""
        same = copy.copy(self)
        same._cache = None  # noqa: SLF001 - a store of the same class, made just above
        return same

    # --- removing ---

    def delete(self, digest: str) -> None:
        """Remove the object if it is there; only for the sweeper, and only when no row names it any more."""
        self.discard(digest, idle_s=0)

    def discard(self, digest: str, *, idle_s: float) -> bool:
        """Remove the object everywhere unless it was put within *idle_s*; returns whether it was removed."""
        with self._moving(digest, shared=False):
            here = self._local.stat(digest) is not None
            if here and not self._local.discard(digest, idle_s=idle_s):
                return False
            remote = self._remote.get()
            gone = remote.discard(digest, idle_s=idle_s) or (here and remote.stat(digest) is None)
            if gone and self._cache is not None:
                self._cache.drop(digest)
            return gone

    # --- state ---

    def guarantees(self) -> Mapping[str, str]:
        """Return what was found about this node's volume, and about the S3 server if it answers."""
        found = dict(self._local.guarantees())
        try:
            far = {f"s3-{name}": value for name, value in self._remote.get().guarantees().items() if name != "driver"}
        except HubError:
            far = {"s3-durable": "not known: the server does not answer"}
        confirmed = {"head": "confirmed by S3", "read": "confirmed by S3, read back and hashed"}[self._settings.check]
        return {**found, "driver": "s3", "spool": f"answered when on this disk, which is left when {confirmed}", **far}

    def healthy(self) -> None:
        """Raise HubError when this node's disk cannot take data; S3 may be away for as long as there is room."""
        self._yield_room()
        self._local.healthy()

    def reachable(self) -> None:
        """Raise HubError(unavailable) when the S3 server does not take data."""
        self._remote.get().healthy()

    def waiting(self, *, max_age_s: float = 0.0) -> Waiting:
        """Return what waits for its upload, counted at most *max_age_s* ago, or longer if counting takes long."""
        began_s = time.monotonic()
        if self._counted is not None:
            counted_s, took_s, known = self._counted
            if max_age_s and began_s - counted_s < max(max_age_s, _COUNT_REST * took_s):
                return known
        count = size = 0
        oldest_at = None
        for length, since in self._local.ages():
            count, size = count + 1, size + length
            oldest_at = since if oldest_at is None else min(oldest_at, since)
        age_s = 0.0 if oldest_at is None else max(0.0, self._now_s() - oldest_at)
        found = Waiting(count=count, size=size, oldest_s=age_s)
        self._counted = (time.monotonic(), time.monotonic() - began_s, found)
        return found

    def close(self) -> None:
        """Remove this process's temporary files and close its connections; the objects stay."""
        self._local.close()
        if self._cache is not None:
            self._cache.close()
        self._remote.close()

    # --- uploading ---

    def upload(self, stop: threading.Event) -> Uploaded:
        """Upload what waits now, several at once, until *stop*; returns how it went.

        One process of a node uploads at a time; another that asks meanwhile does nothing. A server that is away ends the
        run early, one object that fails does not.
        """
        try:
            fd = os.open(self._root / "upload.lock", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise from_os(error, "opening the spool") from error
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return Uploaded()
            run = UploadRun(self._local.digests(first=self._first), stop)
            first = run.next()
            if first is None:
                return Uploaded()
            with ThreadPoolExecutor(self._settings.threads, thread_name_prefix="upload") as pool:
                others = [pool.submit(self._upload_many, run, None) for _ in range(self._settings.threads - 1)]
                self._upload_many(run, first)
                for other in others:
                    other.result()
            # A run that gave up must not begin with the same objects the next time: others wait behind them.
            self._first = (int(run.last[:2], 16) + 1) % 256
            return Uploaded(sent=run.sent, failed=run.failed, error=run.error)
        finally:
            os.close(fd)

    def _upload_many(self, run: UploadRun, first: ObjectRef | None) -> None:
        ref = first or run.next()
        while ref is not None:
            try:
                self._upload_one(ref.digest)
            except HubError as error:
                metrics.count("uploads", outcome=error.category.value)
                run.failure(error)
            else:
                metrics.count("uploads", outcome="sent")
                run.success()
            ref = run.next()

    def _upload_one(self, digest: str) -> None:
        with self._moving(digest, shared=True):
            try:
                source = self._local.open(digest, verify=True)
            except HubError as error:
                if error.category is Category.NOT_FOUND:
                    return
                if error.category is Category.FAULT:
                    _log.error("waiting_object_damaged", digest=digest)
                raise
            with source:
                ref = ObjectRef(digest=digest, size=os.fstat(source.fileno()).st_size)
                remote = self._remote.get()
                remote.put_file(ref, source.fileno())
                if self._settings.check == "read" and not remote.verify(digest):
                    # Its name must not stand there, or the next attempt would take it for done.
                    remote.delete(digest)
                    raise HubError(
                        Category.UNAVAILABLE,
                        "The S3 server confirmed an object and reads it back damaged.",
                        where="S3 server",
                        remedy="Check the server and its disks; the copy on this node stays until it is sound there.",
                    )
                self._local.release(digest, source, keep=self._keep)

    def _keep(self, digest: str, path: Path) -> None:
        if self._cache is not None:
            self._cache.adopt(digest, path)

    # --- mending (hub fsck) ---

    def examine(self, ref: ObjectRef, *, deep: bool, repair: bool) -> Mending:
        """Compare the copies of *ref* with its name; with *repair* let a sound one take the place of a damaged one.

        Args:
            deep: hash the copies; else compare their sizes only.
        """
        with self._moving(ref.digest, shared=False) if repair else contextlib.nullcontext():
            remote = self._remote.get()
            near = self._state(self._local, ref, deep=deep)
            far = self._state(remote, ref, deep=deep)
            if "wrong" not in (near, far) and "sound" in (near, far):
                return Mending()
            if near == "wrong" and far == "sound":
                if repair:
                    self._local.delete(ref.digest)
                return Mending(mended="damaged in the spool; the copy in S3 stays")
            if near == "sound":
                if repair:
                    remote.delete(ref.digest)
                return Mending(mended="damaged in S3; the copy in the spool is uploaded in its place")
            copied = self._cached(ref.digest)
            if copied is not None:
                with copied:
                    if repair:
                        self._take_back(ref, copied)
                        remote.delete(ref.digest)
                was = "missing" if "wrong" not in (near, far) else "damaged"
                return Mending(mended=f"{was}; the copy in the cache is uploaded in its place")
            if far == near == "missing":
                return Mending(damage="missing")
            found = self._local.stat(ref.digest) or remote.stat(ref.digest)
            return Mending(damage="size" if found is not None and found.size != ref.size else "hash")

    @staticmethod
    def _state(store: FileStore | S3Store, ref: ObjectRef, *, deep: bool) -> str:
        found = store.stat(ref.digest)
        if found is None:
            return "missing"
        return "sound" if found.size == ref.size and (not deep or store.verify(ref.digest)) else "wrong"

    def _cached(self, digest: str) -> BinaryIO | None:
        source = self._cache.open(digest) if self._cache is not None else None
        if source is None or sound(source, Check(digest)):
            return source
        source.close()
        self._not_sound("cache", digest)
        return None

    def _take_back(self, ref: ObjectRef, source: BinaryIO) -> None:
        """Make a sound copy the one that waits; a put replaces a damaged file that has its name."""
        with self._local.spool(max_bytes=ref.size) as spool:
            while chunk := source.read(1 << 20):
                spool.write(chunk)
            self._local.put(spool)

    # --- within ---

    def _near(self, digest: str) -> Iterator[tuple[str, BinaryIO]]:
        """Yield the copies on this node's disk."""
        try:
            yield "spool", self._local.open(digest)
        except HubError as error:
            if error.category is not Category.NOT_FOUND:
                raise
        cached = self._cache.open(digest) if self._cache is not None else None
        if cached is not None:
            yield "cache", cached

    def _watched(
        self, tier: str, source: BinaryIO, digest: str, *, chunk_bytes: int, check: Check | None
    ) -> Iterator[bytes]:
        """Return the chunks of a copy, which pass *check* on their way."""

        def chunk(size: int) -> bytes:
            return read_from(source, size)

        chunks = HashedStream(chunk, source.close, digest=digest, chunk_bytes=chunk_bytes, check=check)
        return chunks if tier != "cache" else Told(chunks, lambda: self._not_sound(tier, digest))

    def _not_sound(self, tier: str, digest: str) -> None:
        _log.error("object_copy_damaged", tier=tier, digest=digest)
        if tier == "cache" and self._cache is not None:
            self._cache.drop(digest)

    def _fetch(self, remote: S3Store, digest: str) -> bytes:
        data = remote.read(digest)
        if self._cache is not None:
            self._cache.insert(digest, data)
        return data

    def _yield_room(self) -> None:
        """Let the cache go before data is refused."""
        if self._cache is None or not self._min_free_bytes:
            return
        with contextlib.suppress(OSError):
            volume = os.statvfs(self._root)
            short = self._min_free_bytes - volume.f_bavail * volume.f_frsize
            if short > 0:
                self._cache.make_room(short + max(_YIELD_BYTES, self._min_free_bytes // 4))

    def _make_locks(self) -> None:
        """Make the lock files now: on a full disk there is no room for them, and uploading is what empties it."""
        folder = self._root / "moving"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            for path in (self._root / "upload.lock", *(folder / f"{number:02x}" for number in range(256))):
                if not path.exists():
                    path.touch(mode=0o600)
        except OSError as error:
            raise from_os(error, "opening the spool") from error

    @contextlib.contextmanager
    def _moving(self, digest: str, *, shared: bool) -> Iterator[None]:
        """Keep the sweeper and fsck away from an object that is being uploaded, and the other way round."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(self._root / "moving" / checked(digest)[:2], shared=shared))
            except OSError as error:
                raise from_os(error, "locking an object") from error
            yield


def waiting_dir(data_dir: Path) -> Path:
    """Return where objects wait for their upload."""
    return data_dir / "uploads"


def any_waiting(data_dir: Path) -> bool:
    """Whether objects wait under *data_dir*, without opening the store."""
    shelves = waiting_dir(data_dir).glob("[0-9a-f][0-9a-f]/*")
    return any(len(path.name) == hashlib.sha256().digest_size * 2 for path in shelves)
