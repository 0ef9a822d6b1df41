"""The packed form of an object: everything of a Part 10 file but its frames as it is, and the frames compressed.

::

    magic | bytes before the first frame | code streams, one after the other | bytes after the last frame
          | index (deflated JSON) | length of the index (4 bytes, little endian) | magic

The index says the digest and size of the original, where its frames lay, what they are, and of each code stream its length
and what turns its samples back. Nothing of the original is written anew when it is rebuilt: header, padding and whatever
else stood around the frames are the sender's own bytes, and a frame is what its code stream decodes to.

Any byte of the original can be read without the bytes before it: a read costs the decoding of the frames that it touches,
and no more than one decoded frame is held.
"""

from __future__ import annotations

import io
import itertools
import json
import struct
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Self

from hub.errors import Category, HubError
from hub.ports import Spool
from hub.ports.packing import CodedFrame, FrameCodec, NotPackableError, Shape
from storage.objects.reading import RangeReader
from storage.objects.trouble import damaged

MAGIC = b"YIXIEPK1"
_TAIL = struct.Struct("<I8s")
_CHUNK_BYTES = 1 << 20
#: Small, so that a look at the header reads a header.
_BUFFER_BYTES = 1 << 16
#: An index has about ten bytes for each frame; more than this is none of ours.
_MAX_INDEX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """What stands at the end of a packed form.

    Attributes:
        frames: of each code stream its length, base and bits.
    """

    digest: str
    size: int
    syntax: str
    shape: Shape
    frames: tuple[tuple[int, int, int], ...]

    def as_bytes(self) -> bytes:
        """Return the index as it is written."""
        shape = self.shape
        said = {
            "digest": self.digest,
            "size": self.size,
            "syntax": self.syntax,
            "offset": shape.offset,
            "frame_bytes": shape.frame_bytes,
            "image": dict(shape.image),
            "frames": self.frames,
        }
        # The level is part of the format: the same object must always give the same packed form.
        return zlib.compress(json.dumps(said, sort_keys=True, separators=(",", ":")).encode(), 6)

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Return the index that was written as *data*; raises ValueError or KeyError for anything else."""
        inflater = zlib.decompressobj()
        try:
            said: dict[str, Any] = json.loads(inflater.decompress(data, _MAX_INDEX_BYTES))
        except zlib.error as error:
            raise ValueError("no index") from error
        frames = tuple((int(length), int(base), int(bits)) for length, base, bits in said["frames"])
        shape = Shape(
            offset=int(said["offset"]),
            frame_bytes=int(said["frame_bytes"]),
            frames=len(frames),
            image=said["image"],
        )
        return cls(digest=said["digest"], size=int(said["size"]), syntax=said["syntax"], shape=shape, frames=frames)


def write(source: BinaryIO, digest: str, codec: FrameCodec, syntax: str, spool: Spool, stop: threading.Event) -> Index:
    """Write the packed form of the object in *source* to *spool*.

    Raises:
        NotPackableError: when the object is to stay as it is.
        HubError: interrupted when *stop* is set, and whatever the spool raises.
    """
    shape = codec.shape(source)
    size = source.seek(0, io.SEEK_END)
    spool.write(MAGIC)
    _copy(source, 0, shape.offset, spool, stop)
    frames: list[tuple[int, int, int]] = []
    for number in range(shape.frames):
        _go_on(stop)
        source.seek(shape.offset + number * shape.frame_bytes)
        frame = source.read(shape.frame_bytes)
        if len(frame) != shape.frame_bytes:
            raise NotPackableError("pixels-short")
        coded = codec.encode(shape, syntax, frame)
        spool.write(coded.data)
        frames.append((len(coded.data), coded.base, coded.bits))
    _copy(source, shape.offset + shape.frames * shape.frame_bytes, size, spool, stop)
    index = Index(digest=digest, size=size, syntax=syntax, shape=shape, frames=tuple(frames))
    written = index.as_bytes()
    spool.write(written)
    spool.write(_TAIL.pack(len(written), MAGIC))
    return index


def read_index(source: BinaryIO, digest: str) -> Index:
    """Return the index of the packed form in *source*; raises HubError(fault) when it is not one of *digest*."""
    try:
        end = source.seek(0, io.SEEK_END)
        source.seek(end - _TAIL.size)
        length, magic = _TAIL.unpack(source.read(_TAIL.size))
        source.seek(end - _TAIL.size - length)
        index = Index.of(source.read(length))
        if magic != MAGIC or index.digest != digest:
            raise damaged(digest)
        return index
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise damaged(digest) from error


def original(source: BinaryIO, digest: str, codec: FrameCodec) -> BinaryIO:
    """Return a seekable handle over the original bytes of the packed form in *source*, which it closes at its end.

    Raises:
        HubError: fault when it is no packed form of *digest*.
    """
    try:
        index = read_index(source, digest)
    except BaseException:
        source.close()
        raise
    reading = _Original(source, index, codec)
    return io.BufferedReader(RangeReader(reading.fetch, size=index.size, on_close=source.close), _BUFFER_BYTES)


class _Original:
    """The bytes of an original, put together as they are asked for."""

    def __init__(self, source: BinaryIO, index: Index, codec: FrameCodec) -> None:
        self._source = source
        self._index = index
        self._codec = codec
        shape = index.shape
        self._ends = shape.offset + shape.frames * shape.frame_bytes
        #: Where each code stream begins in the packed form, and where the last one ends.
        self._starts = list(
            itertools.accumulate((length for length, _, _ in index.frames), initial=len(MAGIC) + shape.offset)
        )
        self._number = -1
        self._frame = memoryview(b"")

    def fetch(self, offset: int, buffer: memoryview) -> int:
        """Fill *buffer* from *offset* as far as one piece of the original goes; returns how far that was."""
        shape = self._index.shape
        if offset < shape.offset:
            return self._stored(len(MAGIC) + offset, buffer[: shape.offset - offset])
        if offset >= self._ends:
            return self._stored(self._starts[-1] + offset - self._ends, buffer)
        number, within = divmod(offset - shape.offset, shape.frame_bytes)
        piece = self._decoded(number)[within : within + len(buffer)]
        buffer[: len(piece)] = piece
        return len(piece)

    def _stored(self, at: int, buffer: memoryview) -> int:
        self._source.seek(at)
        data = self._source.read(len(buffer))
        buffer[: len(data)] = data
        if not data:
            raise damaged(self._index.digest)
        return len(data)

    def _decoded(self, number: int) -> memoryview:
        if number != self._number:
            length, base, bits = self._index.frames[number]
            self._source.seek(self._starts[number])
            coded = CodedFrame(base=base, bits=bits, data=self._source.read(length))
            frame = self._codec.decode(self._index.shape, self._index.syntax, coded)
            if len(frame) != self._index.shape.frame_bytes:
                raise damaged(self._index.digest)
            self._number, self._frame = number, memoryview(frame)
        return self._frame


def _copy(source: BinaryIO, start: int, end: int, spool: Spool, stop: threading.Event) -> None:
    source.seek(start)
    read: Callable[[int], bytes] = source.read
    left = end - start
    while left > 0:
        _go_on(stop)
        data = read(min(left, _CHUNK_BYTES))
        if not data:
            raise NotPackableError("pixels-short")
        spool.write(data)
        left -= len(data)


def _go_on(stop: threading.Event) -> None:
    if stop.is_set():
        raise HubError(Category.INTERRUPTED, "The hub is stopping.", where="object store")
