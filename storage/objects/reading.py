"""Reading shared by the drivers: a stream that checks the hash at its end, and a seekable reader over ranges."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Self

from storage.objects.checksum import Check
from storage.objects.trouble import damaged

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class HashedStream(Iterator[bytes]):
    """Chunks of an object; the last step raises HubError(fault) when the bytes do not match the digest.

    The source is opened before the first chunk is asked for, so that a missing object is known before a door has
    sent its headers. Exhausting, closing or dropping the stream closes the source; *check* is asked before that.
    """

    def __init__(
        self,
        read: Callable[[int], bytes],
        close: Callable[[], None],
        *,
        digest: str,
        chunk_bytes: int,
        check: Check | None,
    ) -> None:
        self._read = read
        self._close: Callable[[], None] | None = close
        self._digest = digest
        self._chunk_bytes = chunk_bytes
        self._check = check

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        if self._close is None:
            raise StopIteration
        try:
            chunk = self._read(self._chunk_bytes)
        except BaseException:
            self.close()
            raise
        if chunk:
            if self._check is not None:
                self._check.update(chunk)
            return chunk
        matched = self._check is None or self._check.matches()
        self.close()
        if not matched:
            raise damaged(self._digest)
        raise StopIteration

    def close(self) -> None:
        """Close the source; safe to repeat."""
        close, self._close = self._close, None
        if close is not None:
            close()

    def __del__(self) -> None:
        if getattr(self, "_close", None) is not None:
            self.close()


class RangeReader(io.RawIOBase):
    """A seekable raw file over ``fetch(offset, buffer) -> count``, for sources that only know ranges."""

    def __init__(
        self, fetch: Callable[[int, memoryview], int], *, size: int, on_close: Callable[[], None] | None = None
    ) -> None:
        super().__init__()
        self._fetch = fetch
        self._size = size
        self._offset = 0
        self._on_close = on_close

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._offset

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._offset, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("negative seek position")
        self._offset = base + offset
        return self._offset

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), max(0, self._size - self._offset))
        if not wanted:
            return 0
        count = self._fetch(self._offset, view[:wanted])
        self._offset += count
        return count

    def close(self) -> None:
        if not self.closed:
            super().close()
            if self._on_close is not None:
                self._on_close()
