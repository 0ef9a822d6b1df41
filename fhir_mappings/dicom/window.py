"""Bounded looks at a byte stream: only the part under the scanner is in memory (PS3.5 annex A.5 for the deflated form)."""

from __future__ import annotations

import io
import struct
import zlib
from typing import BinaryIO, Protocol

from fhir_mappings.errors import MalformedError

_CHUNK_BYTES = 1 << 16
#: What is read ahead at first: most headers fit.
_AHEAD_BYTES = 1 << 13
#: Bytes that a deflated data set may always inflate to, before the ratio counts; small headers compress far.
_RATIO_SLACK_BYTES = 1 << 20
_WHOLE = "Send the object again, whole."


class Source(Protocol):
    """Where bytes come from; offsets never go back before the last one read."""

    def read_at(self, offset: int, count: int) -> bytes:
        """Return *count* bytes from *offset*, or as many more as the source likes; fewer only at the end."""
        ...


class FileSource:
    """A seekable stream.

    It reads ahead, further each time, while it is read in order. After a jump, over pixels, one look is all that is wanted.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._next = 0
        self._ahead = 0

    def size(self) -> int:
        """Return the length of the stream."""
        return self._stream.seek(0, io.SEEK_END)

    def read_at(self, offset: int, count: int) -> bytes:
        self._ahead = min(self._ahead * 2 or _AHEAD_BYTES, _CHUNK_BYTES) if offset == self._next else 0
        self._stream.seek(offset)
        data = self._stream.read(max(count, self._ahead))
        self._next = offset + len(data)
        return data


class InflatingSource:
    """The inflated data set behind raw deflate bytes that begin at *start* of a stream.

    Args:
        max_bytes: most that may come out.
        max_ratio: most bytes out per byte in.
    """

    def __init__(self, stream: BinaryIO, start: int, *, max_bytes: int, max_ratio: int) -> None:
        self._stream = stream
        self._stream.seek(start)
        self._start = start
        self._max_bytes = max_bytes
        self._max_ratio = max_ratio
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._held = b""
        self._base = 0
        self._taken = 0
        self._sum = 0
        self._ended = False

    def read_at(self, offset: int, count: int) -> bytes:
        """As :class:`Source`; raises MalformedError for a broken or cut stream and for one that inflates too far."""
        count = max(count, _CHUNK_BYTES)
        while not self._ended and self._base + len(self._held) < offset + count:
            if offset > self._base:
                dropped = min(offset - self._base, len(self._held))
                self._held = self._held[dropped:]
                self._base += dropped
            self._held += self._more()
        index = offset - self._base
        return self._held[index : index + count] if index >= 0 else b""

    def _more(self) -> bytes:
        data = self._inflater.unconsumed_tail
        if not data:
            data = self._stream.read(_CHUNK_BYTES)
            self._taken += len(data)
        if not data:
            raise MalformedError(
                "The deflated data set is cut off.", where=f"byte {self._start + self._taken}", remedy=_WHOLE
            )
        try:
            out = self._inflater.decompress(data, _CHUNK_BYTES * 4)
        except zlib.error as error:
            raise MalformedError(
                "The deflated data set cannot be inflated.",
                where=f"near byte {self._start + self._taken}",
                remedy=_WHOLE,
            ) from error
        self._sum = zlib.crc32(out, self._sum)
        total = self._base + len(self._held) + len(out)
        if total > self._max_bytes or total > self._taken * self._max_ratio + _RATIO_SLACK_BYTES:
            raise MalformedError(
                f"The deflated data set grows beyond {self._max_bytes} bytes or {self._max_ratio} to 1.",
                where=f"near byte {self._start + self._taken}",
                remedy="Send it in another transfer syntax.",
            )
        if self._inflater.eof:
            self._ended = True
            # A deflated stream of odd length is followed by one NUL (PS3.5 annex A.5). Some writers leave gzip's trailer there
            # (RFC 1952 section 2.3.1), which is taken where it is true; so nothing can hide in it.
            trailer = struct.pack("<II", self._sum, total & 0xFFFFFFFF)
            rest = self._inflater.unused_data + self._stream.read(len(trailer) + 2)
            if rest not in {b"", b"\0", trailer, trailer + b"\0"}:
                raise MalformedError(
                    "Bytes follow the deflated data set.", where=f"near byte {self._start + self._taken}", remedy=_WHOLE
                )
        return out


class Window:
    """The bytes around the scanner's position."""

    __slots__ = ("_source", "base", "data")

    def __init__(self, source: Source) -> None:
        self._source = source
        self.base = 0
        self.data = b""

    def index(self, offset: int, count: int) -> int:
        """Return where *offset* lies in :attr:`data`, which then holds *count* bytes from there; -1 where the stream ends first."""
        index = offset - self.base
        held = len(self.data)
        if index >= 0 and index + count <= held:
            return index
        kept = self.data[index:] if 0 <= index < held else b""
        self.data = kept + self._source.read_at(offset + len(kept), count - len(kept))
        self.base = offset
        return 0 if len(self.data) >= count else -1
