"""multipart/related bodies (RFC 2387, PS3.18 section 8.6.1): written piece by piece, never whole in memory."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part: its media type, its length (``None`` while nobody knows), how to get its bytes, and where it is alone."""

    content_type: str
    size: int | None
    content: Callable[[], Iterable[bytes]]
    location: str = ""


class MultipartBody:
    """A multipart/related body over *parts*, which may be made one by one as they are sent."""

    def __init__(self, parts: Iterable[Part], media_type: str) -> None:
        self._parts = parts
        self._boundary = uuid.uuid4().hex
        self.content_type = f'multipart/related; type="{media_type}"; boundary={self._boundary}'
        self._end = f"\r\n--{self._boundary}--\r\n".encode()

    def _head(self, index: int, part: Part) -> bytes:
        start = "--" if index == 0 else "\r\n--"
        length = "" if part.size is None else f"Content-Length: {part.size}\r\n"
        location = f"Content-Location: {part.location}\r\n" if part.location else ""
        return f"{start}{self._boundary}\r\nContent-Type: {part.content_type}\r\n{location}{length}\r\n".encode()

    @property
    def size(self) -> int | None:
        """Length of the whole body in bytes; ``None`` when it is not known before the end."""
        if not isinstance(self._parts, Sequence):
            return None
        size = len(self._end)
        for index, part in enumerate(self._parts):
            if part.size is None:
                return None
            size += len(self._head(index, part)) + part.size
        return size

    def __iter__(self) -> Iterator[bytes]:
        for index, part in enumerate(self._parts):
            # The first bytes are there before the head goes out, so that what cannot be had is known in time.
            content = iter(part.content())
            first = next(content, b"")
            yield self._head(index, part)
            yield first
            yield from content
        yield self._end
