"""The object store in memory, for tests and for conversions that store nothing."""

from __future__ import annotations

import hashlib
import io
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO, Self

from hub.ports import ObjectRef, Spool
from storage.objects.checksum import Check
from storage.objects.reading import HashedStream
from storage.objects.trouble import checked, damaged, foreign_spool, missing, too_large


class MemorySpool:
    """What one sender has sent so far."""

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._data = bytearray()
        self._hash = hashlib.sha256()
        self.whole = True

    @property
    def size(self) -> int:
        """Number of bytes written so far."""
        return len(self._data)

    @property
    def digest(self) -> str:
        """Hex SHA-256 of all bytes written so far."""
        return self._hash.hexdigest()

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append *data* and return its length; HubError(incorrect, 413) beyond the cap breaks the spool."""
        view = memoryview(data).cast("B")
        if len(self._data) + len(view) > self._max_bytes:
            self.whole = False
            raise too_large(self._max_bytes)
        self._data += view
        self._hash.update(view)
        return len(view)

    def open(self) -> BinaryIO:
        """Return a new seekable read handle over what was written."""
        return io.BytesIO(self._data)

    def content(self) -> bytes:
        """Return all bytes written so far."""
        return bytes(self._data)

    def close(self) -> None:
        """Drop the bytes; safe to repeat."""
        self.whole = False
        self._data = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class MemoryStore:
    """Objects in a dictionary; everything is gone with the process."""

    def __init__(self, *, now_s: Callable[[], float] = time.time) -> None:
        self._now_s = now_s
        self._lock = threading.Lock()
        self._objects: dict[str, tuple[bytes, float]] = {}

    def spool(self, *, max_bytes: int) -> MemorySpool:
        """Return an empty spool."""
        return MemorySpool(max_bytes=max_bytes)

    def put(self, spool: Spool) -> ObjectRef:
        """Keep the spooled bytes under their digest, in memory only."""
        if not isinstance(spool, MemorySpool) or not spool.whole:
            raise foreign_spool()
        ref = ObjectRef(digest=spool.digest, size=spool.size)
        with self._lock:
            self._objects[ref.digest] = (spool.content(), self._now_s())
        spool.whole = False
        return ref

    def put_bytes(self, data: bytes) -> ObjectRef:
        """Keep *data*, in memory only."""
        with self.spool(max_bytes=len(data)) as spool:
            spool.write(data)
            return self.put(spool)

    def open(self, digest: str, *, verify: bool = False) -> BinaryIO:
        """Return a seekable handle; HubError(not-found), or HubError(fault) when *verify* finds other bytes."""
        data = self._get(digest)
        if verify and hashlib.sha256(data).hexdigest() != digest:
            raise damaged(digest)
        return io.BytesIO(data)

    def read(self, digest: str, start: int = 0, length: int | None = None) -> bytes:
        """Return *length* bytes from *start*; a whole object is checked against its name, a part is not."""
        data = self._get(digest)
        if not start and length is None and hashlib.sha256(data).hexdigest() != digest:
            raise damaged(digest)
        return data[start:] if length is None else data[start : start + length]

    def stream(self, digest: str, *, chunk_bytes: int = 1 << 20, verify: bool = True) -> Iterator[bytes]:
        """Return the object in chunks; HubError(fault) after the last one when they do not match the digest."""
        handle = self.open(digest)
        return HashedStream(
            handle.read, handle.close, digest=digest, chunk_bytes=chunk_bytes, check=Check(digest) if verify else None
        )

    def stat(self, digest: str) -> ObjectRef | None:
        """Return the object's name and size, or None."""
        with self._lock:
            found = self._objects.get(checked(digest))
        return None if found is None else ObjectRef(digest=digest, size=len(found[0]))

    def verify(self, digest: str) -> bool:
        """Recompute the hash; False when the object is missing or its bytes do not match its name."""
        with self._lock:
            found = self._objects.get(checked(digest))
        return found is not None and hashlib.sha256(found[0]).hexdigest() == digest

    def delete(self, digest: str) -> None:
        """Remove the object if it is there."""
        self.discard(digest, idle_s=0)

    def discard(self, digest: str, *, idle_s: float) -> bool:
        """Remove the object unless it was put or put again within *idle_s*; returns whether it was removed."""
        with self._lock:
            found = self._objects.get(checked(digest))
            if found is None or self._now_s() - found[1] < idle_s:
                return False
            del self._objects[digest]
            return True

    def digests(self) -> Iterator[ObjectRef]:
        """Yield every object in the order of the digests."""
        with self._lock:
            found = sorted((digest, len(data)) for digest, (data, _) in self._objects.items())
        for digest, size in found:
            yield ObjectRef(digest=digest, size=size)

    def guarantees(self) -> Mapping[str, str]:
        """Return what this store keeps: nothing beyond the process."""
        return {"driver": "memory", "durable": "no: everything is gone with the process"}

    def healthy(self) -> None:
        """Return: memory is always ready."""

    def close(self) -> None:
        """Return: there is nothing to release."""

    def _get(self, digest: str) -> bytes:
        with self._lock:
            found = self._objects.get(checked(digest))
        if found is None:
            raise missing(digest)
        return found[0]
