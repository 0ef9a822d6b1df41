"""multipart/related bodies (RFC 2387, PS3.18 section 8.6.1): written piece by piece, never whole in memory."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part: its media type, its length, and how to get its bytes."""

    content_type: str
    size: int
    content: Callable[[], Iterable[bytes]]


class MultipartBody:
    """A multipart/related body over *parts*, with its headers known before the first byte."""

    def __init__(self, parts: Sequence[Part], media_type: str) -> None:
        self._parts = parts
        self._boundary = uuid.uuid4().hex
        self.content_type = f'multipart/related; type="{media_type}"; boundary={self._boundary}'
        self._end = f"\r\n--{self._boundary}--\r\n".encode()

    def _head(self, index: int) -> bytes:
        start = "--" if index == 0 else "\r\n--"
        part = self._parts[index]
        return f"{start}{self._boundary}\r\nContent-Type: {part.content_type}\r\nContent-Length: {part.size}\r\n\r\n".encode()

    @property
    def size(self) -> int:
        """Length of the whole body in bytes."""
        return sum(len(self._head(i)) + part.size for i, part in enumerate(self._parts)) + len(self._end)

    def __iter__(self) -> Iterator[bytes]:
        for index, part in enumerate(self._parts):
            yield self._head(index)
            yield from part.content()
        yield self._end
