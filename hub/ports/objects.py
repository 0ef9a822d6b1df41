"""Content-addressed bytes and the temporary files they arrive in (DESIGN rule 1)."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Protocol, Self, runtime_checkable


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRef:
    """A stored object: hex SHA-256 of its bytes, and their number."""

    digest: str
    size: int


class Spool(Protocol):
    """A temporary file that counts, hashes and caps while it receives; gone on exit unless it was put."""

    @property
    def size(self) -> int: ...
    @property
    def digest(self) -> str:
        """Hex SHA-256 of all bytes written so far."""
        ...

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append *data*; raises HubError(incorrect) beyond the cap, HubError(unavailable) on a full disk."""
        ...

    def open(self) -> BinaryIO:
        """Return a new read handle over what was written."""
        ...

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...


class ObjectStore(Protocol):
    """Content-addressed bytes."""

    def spool(self, *, max_bytes: int) -> Spool: ...
    def put(self, spool: Spool) -> ObjectRef:
        """Keep the spooled bytes under their digest; on return they would survive a power cut."""
        ...

    def put_bytes(self, data: bytes) -> ObjectRef: ...
    def open(self, digest: str, *, verify: bool = False) -> BinaryIO: ...
    def read(self, digest: str, start: int = 0, length: int | None = None) -> bytes: ...
    def stream(self, digest: str, *, chunk_bytes: int = 1 << 20, verify: bool = True) -> Iterator[bytes]: ...
    def stat(self, digest: str) -> ObjectRef | None: ...
    def verify(self, digest: str) -> bool: ...
    def delete(self, digest: str) -> None: ...
    def digests(self) -> Iterator[ObjectRef]: ...
    def guarantees(self) -> Mapping[str, str]: ...
    def healthy(self) -> None:
        """Raise HubError(unavailable) when the store cannot take data."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Objects that are durable on this node and not yet in the store behind it.

    Attributes:
        size: their bytes.
        oldest_s: how long the oldest has waited; 0 when none waits.
    """

    count: int
    size: int
    oldest_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploaded:
    """How a run of uploads went; ``error`` is what was last wrong."""

    sent: int = 0
    failed: int = 0
    error: str = ""


@runtime_checkable
class UploadingStore(Protocol):
    """An object store that answers before the store behind it has the bytes."""

    def upload(self, stop: threading.Event) -> Uploaded:
        """Upload what waits now, until *stop*; an object that fails goes on waiting."""
        ...

    def waiting(self, *, max_age_s: float = 0.0) -> Waiting:
        """Return what waits, as counted at most *max_age_s* ago, or longer where counting takes long."""
        ...

    def reachable(self) -> None:
        """Raise HubError(unavailable) when the store behind cannot take data."""
        ...
