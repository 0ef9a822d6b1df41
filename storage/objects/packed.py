"""The object store as the hub uses it: what is packed is read as if it were not.

Theory of operation. Behind it is any of the other stores, which knows nothing of packing: originals and packed forms are
both objects under the digests of their own bytes, and the table ``object_packing`` says which stands for which. A read
that does not find an original asks the table, and then gives the original's bytes out of the packed form
(:mod:`storage.objects.packed_form`). Nothing changes for an object that is there, so nothing is slower where nothing
is packed.

The order of steps is: packed form durable, proved by reading it back, row committed, and only then, after the time that
backups need, proved once more and the original removed. Whichever of these steps is the last before a power cut, the
bytes can be read, and the next run goes on from there.

:meth:`PackedStore.digests`, :meth:`PackedStore.discard` and what else housekeeping needs speak of the objects that lie in
the store, packed forms among them.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterator, Mapping
from typing import BinaryIO, TypeVar

from hub.errors import Category, HubError
from hub.ports import Database, ObjectRef, Spool, Uploaded, UploadingStore, Waiting
from hub.ports.packing import FrameCodec, NotPackableError, Packing
from storage.objects import packed_form
from storage.objects.checksum import Check
from storage.objects.reading import HashedStream, RangeReader
from storage.objects.spooled import SpooledStore
from storage.objects.sweep import SweepableStore
from storage.objects.trouble import damaged

S = TypeVar("S")

#: A packed form that saves less is not worth its decoding.
LEAST_GAIN = 0.05
_CHUNK_BYTES = 1 << 20
_BUFFER_BYTES = 1 << 16


class PackedStore:
    """The store *inner*, with packed objects read as what they were."""

    def __init__(self, inner: SweepableStore, database: Database, codec: FrameCodec) -> None:
        self.inner = inner
        self._database = database
        self._codec = codec

    # --- as the inner store does --------------------------------------------------------------------------------

    def spool(self, *, max_bytes: int) -> Spool:
        """Return an empty spool of the store behind."""
        return self.inner.spool(max_bytes=max_bytes)

    def put(self, spool: Spool) -> ObjectRef:
        """Keep the spooled bytes as they are; durable and failing as the store behind."""
        return self.inner.put(spool)

    def put_bytes(self, data: bytes) -> ObjectRef:
        """Keep *data* as it is; durable and failing as :meth:`put`."""
        return self.inner.put_bytes(data)

    def delete(self, digest: str) -> None:
        """Remove what lies under *digest*; only for the sweeper."""
        self.inner.delete(digest)

    def discard(self, digest: str, *, idle_s: float) -> bool:
        """Remove what lies under *digest* unless it was put within *idle_s*; returns whether it was removed."""
        return self.inner.discard(digest, idle_s=idle_s)

    def digests(self) -> Iterator[ObjectRef]:
        """Yield every object that lies in the store, packed forms among them, in the order of the digests."""
        return self.inner.digests()

    def guarantees(self) -> Mapping[str, str]:
        """Return what the store behind promises."""
        return self.inner.guarantees()

    def healthy(self) -> None:
        """Raise HubError(unavailable) when the store behind cannot take data."""
        self.inner.healthy()

    def close(self) -> None:
        """End the processes that decode, and release the store behind."""
        self._codec.close()
        self.inner.close()

    # --- reading --------------------------------------------------------------------------------------------------

    def open(self, digest: str, *, verify: bool = False) -> BinaryIO:
        """Return a seekable handle over the original bytes; with *verify* all of them are hashed first.

        Raises HubError(not-found), or HubError(fault) when the bytes do not match their name.
        """
        try:
            return self._lasting(digest, self.inner.open(digest, verify=verify))
        except HubError as error:
            packing = self._packing(digest, error)
        handle = self._rebuilt(packing)
        if verify:
            try:
                if _hash(handle) != digest:
                    raise damaged(digest)
                handle.seek(0)
            except BaseException:
                handle.close()
                raise
        return handle

    def read(self, digest: str, start: int = 0, length: int | None = None) -> bytes:
        """Return *length* bytes from *start*; a whole object is checked against its name, a part is not."""
        try:
            return self.inner.read(digest, start, length)
        except HubError as error:
            packing = self._packing(digest, error)
        with self._rebuilt(packing) as handle:
            handle.seek(start)
            data = handle.read() if length is None else handle.read(length)
        if not start and length is None and hashlib.sha256(data).hexdigest() != digest:
            raise damaged(digest)
        return data

    def stream(self, digest: str, *, chunk_bytes: int = 1 << 20, verify: bool = True) -> Iterator[bytes]:
        """Return the object in chunks; HubError(fault) after the last one when they do not match the digest."""
        try:
            return self.inner.stream(digest, chunk_bytes=chunk_bytes, verify=verify)
        except HubError as error:
            packing = self._packing(digest, error)
        handle = self._rebuilt(packing)
        return HashedStream(
            handle.read, handle.close, digest=digest, chunk_bytes=chunk_bytes, check=Check(digest) if verify else None
        )

    def stat(self, digest: str) -> ObjectRef | None:
        """Return the object's name and original size, or None."""
        found = self.inner.stat(digest)
        if found is not None:
            return found
        packing = self._find(digest)
        if packing is None or packing.packed is None or self.inner.stat(packing.packed.digest) is None:
            return None
        return ObjectRef(digest=digest, size=packing.size)

    def verify(self, digest: str) -> bool:
        """Re-read the object; False when it is missing or neither its bytes nor those of its packed form give it."""
        if self.inner.verify(digest):
            return True
        packing = self._find(digest)
        return packing is not None and self._gives_back(packing)

    # --- packing --------------------------------------------------------------------------------------------------

    def pack(self, digest: str, syntax: str, stop: threading.Event) -> tuple[ObjectRef, ObjectRef]:
        """Make and prove a packed form; see :class:`hub.ports.packing.PackingStore`."""
        with self.inner.open(digest) as source:
            size = source.seek(0, 2)
            limit = int(size * (1 - LEAST_GAIN))
            with self.inner.spool(max_bytes=limit) as spool:
                try:
                    packed_form.write(source, digest, self._codec, syntax, spool, stop)
                except HubError as error:
                    if error.status == 413:
                        raise NotPackableError("no-gain") from None
                    raise
                ref = self.inner.put(spool)
        made = ObjectRef(digest=digest, size=size)
        try:
            with self._handle(ref, digest) as handle:
                proved = _hash(handle, stop) == digest
        except HubError as error:
            if error.transient:
                raise
            proved = False
        if not proved:
            # Nothing names the packed form, so the sweeper takes it.
            raise NotPackableError("not-the-same")
        return made, ref

    def settle(self, packing: Packing, *, idle_s: float) -> bool:
        """Remove an original for good; see :class:`hub.ports.packing.PackingStore`."""
        assert packing.packed is not None
        if isinstance(self.inner, SpooledStore) and not self.inner.uploaded(packing.packed.digest):
            # Until S3 has it, only this node could give the object out.
            return False
        if not self._gives_back(packing):
            if self.inner.stat(packing.digest) is None:
                raise damaged(packing.digest)
            raise NotPackableError("not-the-same")
        self.inner.discard(packing.digest, idle_s=idle_s)
        return self.inner.stat(packing.digest) is None

    # --- within ---------------------------------------------------------------------------------------------------

    def _find(self, digest: str) -> Packing | None:
        return self._database.read(lambda tx: tx.packings.find(digest))

    def _packing(self, digest: str, error: HubError) -> Packing:
        """Return what stands for an object that the store behind does not give; raises *error* when nothing does."""
        # A store that is away may still have the packed form near.
        if error.category not in {Category.NOT_FOUND, Category.UNAVAILABLE}:
            raise error
        packing = self._find(digest)
        if packing is None:
            raise error
        return packing

    def _lasting(self, digest: str, handle: BinaryIO) -> BinaryIO:
        """Return *handle*, or one that reads on in the packed form when the original goes between two ranges."""
        if not isinstance(handle, io.BufferedReader) or not isinstance(handle.raw, RangeReader):
            # A file or memory stays readable for who has it open.
            return handle
        reading: list[BinaryIO] = [handle]

        def fetch(offset: int, buffer: memoryview) -> int:
            try:
                return _fill(reading[-1], offset, buffer)
            except HubError as error:
                if len(reading) > 1:
                    raise
                reading.append(self._rebuilt(self._packing(digest, error)))
            return _fill(reading[-1], offset, buffer)

        def close() -> None:
            for one in reading:
                one.close()

        # The end of such a handle is known without asking the server.
        size = handle.seek(0, io.SEEK_END)
        return io.BufferedReader(RangeReader(fetch, size=size, on_close=close), _BUFFER_BYTES)

    def _rebuilt(self, packing: Packing) -> BinaryIO:
        assert packing.packed is not None
        return self._handle(packing.packed, packing.digest)

    def _handle(self, packed: ObjectRef, digest: str) -> BinaryIO:
        return packed_form.original(self.inner.open(packed.digest), digest, self._codec)

    def _gives_back(self, packing: Packing) -> bool:
        try:
            with self._rebuilt(packing) as handle:
                return _hash(handle) == packing.digest
        except HubError as error:
            if error.transient:
                raise
            return False


class PackedSpooledStore(PackedStore):
    """A store with a spool before it, which the worker and the probes ask what waits."""

    inner: SpooledStore

    def upload(self, stop: threading.Event) -> Uploaded:
        """Upload what waits; see :class:`hub.ports.UploadingStore`."""
        return self.inner.upload(stop)

    def waiting(self, *, max_age_s: float = 0.0) -> Waiting:
        """Return what waits for its upload."""
        return self.inner.waiting(max_age_s=max_age_s)

    def reachable(self) -> None:
        """Raise HubError(unavailable) when the store behind the spool cannot take data."""
        self.inner.reachable()


def packed_store(inner: SweepableStore, database: Database, codec: FrameCodec) -> PackedStore:
    """Return *inner* with packed objects read as what they were."""
    kind = PackedSpooledStore if isinstance(inner, UploadingStore) else PackedStore
    return kind(inner, database, codec)


def behind(store: S) -> S | SweepableStore:
    """Return the store in which objects lie as they are, for what looks after them one by one."""
    return store.inner if isinstance(store, PackedStore) else store


def _fill(handle: BinaryIO, offset: int, buffer: memoryview) -> int:
    handle.seek(offset)
    data = handle.read(len(buffer))
    buffer[: len(data)] = data
    return len(data)


def _hash(handle: BinaryIO, stop: threading.Event | None = None) -> str:
    found = hashlib.sha256()
    while data := handle.read(_CHUNK_BYTES):
        if stop is not None and stop.is_set():
            raise HubError(Category.INTERRUPTED, "The hub is stopping.", where="object store")
        found.update(data)
    return found.hexdigest()
