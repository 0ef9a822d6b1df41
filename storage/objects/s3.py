"""The object store in an S3 bucket, by the minio client: key ``[prefix/]objects/ab/<digest>``.

Bytes are spooled to a local file first and uploaded from a memory map, so memory use does not grow with the object.
Each upload carries its SHA-256 and "only if absent"; what the server really does with these is probed at start and
recorded in :meth:`S3Store.guarantees`. What the server does not check, the hub checks by reading back.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import mmap
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import structlog
import urllib3
from minio.error import MinioException, S3Error

from hub.errors import Category, HubError
from hub.ports import ObjectRef, Spool
from storage.objects.breaker import Breaker
from storage.objects.checksum import Check
from storage.objects.reading import HashedStream, RangeReader
from storage.objects.s3_client import ABSENT, REFUSED_KEYS, connect, no_bucket, translated
from storage.objects.settings import S3Settings
from storage.objects.spool import FileSpool, SpoolArea
from storage.objects.trouble import checked, damaged, foreign_spool, from_os, is_digest, missing

#: 412 of If-None-Match, and the 409 that AWS gives while another conditional write of the key is under way.
_TAKEN = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})
#: A copy that is older than this is written anew, so that the sweeper sees that somebody wants it.
_REFRESH_AFTER = timedelta(hours=12)
_STALE_UPLOAD = timedelta(days=1)
_PARALLEL_PARTS = 3
_READ_AHEAD_BYTES = 1 << 20
_LIST_PAGE = 1000

_log = structlog.get_logger(__name__)


class S3Store:
    """Objects in one bucket of one S3-compatible server."""

    def __init__(
        self,
        bucket: str,
        *,
        prefix: str = "",
        settings: S3Settings,
        spool_dir: Path,
        min_free_bytes: int = 0,
        breaker: Breaker | None = None,
    ) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/objects/" if prefix else "objects/"
        self._settings = settings
        self._breaker = breaker or Breaker("S3 server")
        self._thread = threading.local()
        self._client = connect(settings)
        self._make_bucket()
        self._area = SpoolArea(spool_dir, min_free_bytes=min_free_bytes)
        self._conditional = self._checksums = self._part_checksums = False
        self._self_test()

    def spool(self, *, max_bytes: int) -> FileSpool:
        """Return an empty spool on the local disk; raises HubError(unavailable) when that is nearly full."""
        return self._area.spool(max_bytes=max_bytes)

    def put(self, spool: Spool) -> ObjectRef:
        """Upload the spooled bytes under their digest; on return the server has confirmed them.

        Raises HubError(unavailable) when the server cannot be reached, refuses or confirms something else. An object
        that is there already is compared with its digest; a damaged copy is replaced.
        """
        if not isinstance(spool, FileSpool) or spool.area is not self._area or not spool.whole or spool.path is None:
            raise foreign_spool()
        ref = ObjectRef(digest=spool.digest, size=spool.size)
        self.put_file(ref, spool.fileno())
        spool.drop()
        return ref

    def put_file(self, ref: ObjectRef, fd: int) -> None:
        """Upload the open file *fd*, whose bytes are known to be *ref*; confirmed and failing as :meth:`put`."""
        with self._calls("storing an object"):
            if ref.size >= self._settings.multipart_bytes:
                self._put_parts(ref, fd)
            else:
                self._put_whole(ref, _mapped(fd, 0, ref.size))

    def put_bytes(self, data: bytes) -> ObjectRef:
        """Upload *data*; confirmed and failing as :meth:`put`."""
        with self.spool(max_bytes=len(data)) as spool:
            spool.write(data)
            return self.put(spool)

    def open(self, digest: str, *, verify: bool = False) -> BinaryIO:
        """Return a seekable handle that fetches ranges; with *verify* the whole object is read and hashed first.

        Raises HubError(not-found), or HubError(fault) when the bytes do not match their name.
        """
        found = self.stat(digest)
        if found is None:
            raise missing(digest)
        if verify and not self.verify(digest):
            raise damaged(digest)

        def fetch(offset: int, buffer: memoryview) -> int:
            data = self._range(digest, offset, len(buffer))
            buffer[: len(data)] = data
            return len(data)

        return io.BufferedReader(RangeReader(fetch, size=found.size), _READ_AHEAD_BYTES)

    def read(self, digest: str, start: int = 0, length: int | None = None) -> bytes:
        """Return *length* bytes from *start*; a whole object is checked against its name, a part is not."""
        key = self._key(digest)
        if length is not None or start:
            return self._range(digest, start, length)
        with self._calls("reading an object"):
            data = self._client.fetch(self._bucket, key)
        if hashlib.sha256(data).hexdigest() != digest:
            raise damaged(digest)
        return data

    def stream(self, digest: str, *, chunk_bytes: int = 1 << 20, verify: bool = True) -> Iterator[bytes]:
        """Return the object in chunks; HubError(fault) after the last one when they do not match the digest."""
        key = self._key(digest)
        with self._calls("reading an object"):
            response = self._client.get_object(self._bucket, key)

        def chunk(size: int) -> bytes:
            with self._calls("reading an object"):
                return response.read(size)

        def close() -> None:
            # An unread rest would have to be drained before the socket can serve again; closing it is cheaper.
            response.close()
            response.release_conn()

        return HashedStream(
            chunk, close, digest=digest, chunk_bytes=chunk_bytes, check=Check(digest) if verify else None
        )

    def stat(self, digest: str) -> ObjectRef | None:
        """Return the object's name and size, or None."""
        key = self._key(digest)
        with self._calls("looking for an object"):
            try:
                found = self._client.stat_object(self._bucket, key)
            except S3Error as error:
                if error.code in ABSENT:
                    return None
                raise
        return ObjectRef(digest=digest, size=found.size or 0)

    def verify(self, digest: str) -> bool:
        """Read the object back; False when it is missing or its bytes do not match its name."""
        try:
            for _ in self.stream(digest):
                pass
        except HubError as error:
            if error.category in {Category.NOT_FOUND, Category.FAULT}:
                return False
            raise
        return True

    def delete(self, digest: str) -> None:
        """Remove the object if it is there; only for the sweeper, and only when no row names it any more."""
        self.discard(digest, idle_s=0)

    def discard(self, digest: str, *, idle_s: float) -> bool:
        """Remove the object unless it was written within *idle_s*; returns whether it was removed."""
        key = self._key(digest)
        with self._calls("removing an object"):
            try:
                written_at = self._client.stat_object(self._bucket, key).last_modified
            except S3Error as error:
                if error.code in ABSENT:
                    return False
                raise
            if idle_s and (written_at is None or datetime.now(UTC) - written_at < timedelta(seconds=idle_s)):
                return False
            self._client.remove_object(self._bucket, key)
        return True

    def digests(self) -> Iterator[ObjectRef]:
        """Yield every object in the order of the digests; foreign keys are passed over."""
        listing = self._client.list_objects(self._bucket, prefix=self._prefix, recursive=True)
        while True:
            with self._calls("listing objects"):
                page = list(islice(listing, _LIST_PAGE))
            if not page:
                return
            for found in page:
                name = (found.object_name or "").rpartition("/")[2]
                if is_digest(name):
                    yield ObjectRef(digest=name, size=found.size or 0)

    def guarantees(self) -> Mapping[str, str]:
        """Return what the start-up self-test found about this server."""
        read_back = "read back and hashed by the hub after each put"
        return {
            "driver": "s3",
            "durable": "as the S3 server promises for a confirmed put",
            "only-if-absent": "honoured" if self._conditional else "ignored by the server; the hub looks first",
            "checksum": "verified by the server" if self._checksums else read_back,
            "part-checksum": "verified by the server" if self._part_checksums else read_back,
            "checked": "SHA-256 while receiving and when a whole object is read",
        }

    def healthy(self) -> None:
        """Raise HubError(unavailable) when the bucket cannot be reached or the spool disk is nearly full."""
        self._area.check_space()
        with self._calls("asking for the bucket"):
            if not self._client.bucket_exists(self._bucket):
                raise no_bucket()

    def abort_stale_uploads(self) -> int:
        """Abort multipart uploads that a crash left behind more than a day ago; returns how many."""
        with self._calls("aborting stale uploads"):
            return self._client.abort_uploads(self._bucket, self._prefix, before=datetime.now(UTC) - _STALE_UPLOAD)

    def close(self) -> None:
        """Remove this process's temporary files and close its connections; the objects stay."""
        self._area.close()
        self._client.close()

    # --- writing ---

    def _put_whole(self, ref: ObjectRef, data: memoryview) -> None:
        key = self._key(ref.digest)
        if not self._conditional and self._have(ref):
            return
        try:
            self._client.put_bytes(
                self._bucket, key, data, sha256=bytes.fromhex(ref.digest), only_if_absent=self._conditional
            )
        except S3Error as error:
            if error.code not in _TAKEN:
                raise
            if self._have(ref):
                return
            self._client.put_bytes(self._bucket, key, data, sha256=bytes.fromhex(ref.digest))
        self._confirm(ref, read_back=not self._checksums)

    def _put_parts(self, ref: ObjectRef, fd: int) -> None:
        if self._have(ref):
            return
        key = self._key(ref.digest)
        step = self._settings.part_bytes - self._settings.part_bytes % mmap.ALLOCATIONGRANULARITY

        def send(start: int) -> str:
            part = _mapped(fd, start, min(step, ref.size - start))
            return self._client.put_part(self._bucket, key, upload, start // step + 1, part)

        upload = self._client.start_parts(self._bucket, key)
        try:
            with ThreadPoolExecutor(_PARALLEL_PARTS, thread_name_prefix="s3-part") as pool:
                etags = list(pool.map(send, range(0, ref.size, step)))
            self._client.finish_parts(self._bucket, key, upload, etags)
        except (MinioException, urllib3.exceptions.HTTPError, OSError):
            # The answer of a finished upload may have been lost on the way: then the object is simply there.
            with contextlib.suppress(HubError, MinioException, urllib3.exceptions.HTTPError, OSError):
                if self._have(ref):
                    return
            with contextlib.suppress(MinioException, urllib3.exceptions.HTTPError, OSError):
                self._client.abort_parts(self._bucket, key, upload)
            raise
        self._confirm(ref, read_back=not self._part_checksums)

    def _have(self, ref: ObjectRef) -> bool:
        """Whether a sound and recent copy is there, so that nothing needs to be written."""
        try:
            found = self._client.stat_object(
                self._bucket, self._key(ref.digest), extra_headers={"x-amz-checksum-mode": "ENABLED"}
            )
        except S3Error as error:
            if error.code in ABSENT:
                return False
            raise
        if found.size != ref.size:
            return False
        if found.last_modified is None or datetime.now(UTC) - found.last_modified > _REFRESH_AFTER:
            return False
        stored = (found.metadata or {}).get("x-amz-checksum-sha256")
        if self._checksums and stored == base64.b64encode(bytes.fromhex(ref.digest)).decode():
            return True
        return self.verify(ref.digest)

    def _confirm(self, ref: ObjectRef, *, read_back: bool) -> None:
        """Raise unless the server now has what was sent."""
        found = self.stat(ref.digest) if not read_back else None
        if read_back:
            sound = self.verify(ref.digest)
        else:
            sound = found is not None and found.size == ref.size
        if not sound:
            raise HubError(
                Category.UNAVAILABLE,
                "The S3 server confirmed an object that it does not have in full.",
                where="S3 server",
                remedy="Check the server and its disks; the sender may repeat the request.",
            )

    # --- reading ---

    def _key(self, digest: str) -> str:
        return f"{self._prefix}{checked(digest)[:2]}/{digest}"

    def _range(self, digest: str, start: int, length: int | None) -> bytes:
        key = self._key(digest)
        if length == 0:
            return b""
        with self._calls("reading an object"):
            try:
                return self._client.fetch(self._bucket, key, offset=start, length=length or 0)
            except S3Error as error:
                if error.code == "InvalidRange":
                    return b""
                raise

    # --- the server ---

    @contextlib.contextmanager
    def _calls(self, doing: str) -> Iterator[None]:
        """Turn the client's errors into the hub's and keep the breaker's count.

        A put makes several calls and may be the breaker's one trial, so only the outermost call of a thread asks it.
        """
        depth = getattr(self._thread, "depth", 0)
        if not depth:
            self._breaker.check()
        self._thread.depth = depth + 1
        try:
            yield
        except S3Error as error:
            if error.response.status >= 500:
                self._breaker.failed()
            else:
                self._breaker.succeeded()
            raise translated(error, doing) from error
        except (MinioException, urllib3.exceptions.HTTPError) as error:
            self._breaker.failed()
            raise HubError(
                Category.UNAVAILABLE,
                f"The S3 server does not answer as it should: {type(error).__name__} ({doing}).",
                where="S3 server",
                remedy="Check that the server is up and reachable from the hub.",
            ) from error
        except OSError as error:
            raise from_os(error, doing) from error
        else:
            self._breaker.succeeded()
        finally:
            self._thread.depth = depth

    def _make_bucket(self) -> None:
        with self._calls("asking for the bucket"):
            if self._client.bucket_exists(self._bucket):
                return
            if not self._settings.create_bucket:
                raise no_bucket()
            try:
                self._client.make_bucket(self._bucket)
            except S3Error as error:
                # Several processes of the hub start at once; one of them makes the bucket.
                if error.code not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                    raise

    def _self_test(self) -> None:
        """Find out by trying which of the asked-for guarantees this server really gives."""
        client, bucket = self._client, self._bucket
        key = f"{self._prefix}probe-{uuid.uuid4().hex}"
        data = memoryview(os.urandom(64))
        right, wrong = hashlib.sha256(data).digest(), hashlib.sha256(b"").digest()
        keys = [key, f"{key}-sum", f"{key}-md5"]
        with self._calls("testing the server"):
            try:
                client.put_bytes(bucket, keys[0], data, sha256=right, only_if_absent=True)
                if (
                    client.fetch(bucket, keys[0]) != data
                    or client.fetch(bucket, keys[0], offset=8, length=8) != data[8:16]
                ):
                    raise HubError(
                        Category.FAULT, "The S3 server does not return what was just stored.", where="S3 server"
                    )
                self._conditional = _refuses(
                    lambda: client.put_bytes(bucket, keys[0], data, sha256=right, only_if_absent=True)
                )
                self._checksums = _refuses(lambda: client.put_bytes(bucket, keys[1], data, sha256=wrong))
                self._part_checksums = _refuses(lambda: client.put_bytes(bucket, keys[2], data, md5=wrong[:16]))
            finally:
                for name in keys:
                    with contextlib.suppress(MinioException, urllib3.exceptions.HTTPError):
                        client.remove_object(bucket, name)
        if not (self._conditional and self._checksums and self._part_checksums):
            _log.warning(
                "s3_guarantees_missing", **{name.replace("-", "_"): v for name, v in self.guarantees().items()}
            )


def _mapped(fd: int, start: int, size: int) -> memoryview:
    """Return a part of the spool file without copying it; the mapping lives as long as the view."""
    return memoryview(mmap.mmap(fd, size, access=mmap.ACCESS_READ, offset=start)) if size else memoryview(b"")


def _refuses(call: Callable[[], None]) -> bool:
    try:
        call()
    except S3Error as error:
        if error.response.status >= 500 or error.code in REFUSED_KEYS:
            raise
        return True
    return False
