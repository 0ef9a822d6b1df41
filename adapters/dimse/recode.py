"""Stored data sets on their way out: in the bytes they have, or without loss in a native encoding (PS3.5 annex A).

From one native encoding to the other, values are copied and never decoded: text stays in the sender's character set,
numbers keep their bytes. Only heads of elements are written anew. Group lengths, which no longer hold then, are left out,
and sequences end with delimiters. Compressed pixels, and big endian ones, are turned into Explicit VR Little Endian by
:mod:`adapters.pixels`, whose codecs run in bounded child processes.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, BinaryIO

from adapters.dimse.negotiation import Context
from adapters.pixels.syntaxes import decodes
from fhir_mappings.dicom.elements import LONG_VRS, UNDEFINED, Element, Elements, Scan
from fhir_mappings.dicom.scanner import ScanLimits, dataset_offset, scan
from hub.config import Settings
from hub.errors import Category, HubError
from hub.ports import ObjectStore

if TYPE_CHECKING:
    from adapters.pixels.pool import Pool

IMPLICIT, EXPLICIT, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"
_NATIVE = {EXPLICIT: (IMPLICIT,), IMPLICIT: (EXPLICIT,), DEFLATED: (EXPLICIT,)}

#: File Meta Information is far shorter.
_META_BYTES = 64 << 10
_CHUNK_BYTES = 1 << 20
_LIMITS = ScanLimits(held_bytes=64, held_binary_bytes=64, held_total_bytes=1 << 20)
_PIXEL_REPRESENTATION = 0x00280103
_ITEM_START = struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
_ITEM_END = struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
_SEQUENCE_END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)

#: Given the longest fragment, yields the data set in such pieces.
Fragments = Callable[[int], Iterator[bytes]]


def targets(stored: str) -> tuple[str, ...]:
    """Return what an object in *stored* can be turned into, for a receiver that does not take it as it is."""
    return _NATIVE.get(stored) or ((EXPLICIT,) if decodes(stored) else ())


def contexts(sop_class: str, stored: str) -> tuple[Context, ...]:
    """Return the contexts in which an instance can go out, best first."""
    return tuple(Context(sop_class, syntax) for syntax in (stored, *targets(stored)))


def fragments(settings: Settings, objects: ObjectStore, digest: str, stored: str, wanted: str) -> Fragments:
    """Return the data set of the object *digest*, whose transfer syntax is *stored*, in *wanted*.

    The last piece comes only after the whole object proved undamaged; else HubError(fault) is raised before it.

    Raises:
        HubError: unsupported where :func:`targets` does not lead from one to the other.
    """
    if wanted == stored:
        return lambda size: _pieces(_as_stored(objects, digest), size)
    if wanted not in targets(stored):
        raise HubError(
            Category.UNSUPPORTED, "The object cannot be turned into a transfer syntax that the receiver takes."
        )
    if stored == DEFLATED:
        return lambda size: _pieces(_inflated(_as_stored(objects, digest)), size)
    if stored in _NATIVE:
        return lambda size: _pieces(_recoded(objects, digest, explicit=wanted == EXPLICIT), size)
    return lambda size: _pieces(_decoded(settings, objects, digest), size)


class Pieces:
    """The fragments of one instance; knows whether any has left, after which its message cannot be given up."""

    def __init__(self, fragments: Fragments, each: Callable[[], None] | None = None) -> None:
        self._fragments = fragments
        self._each = each
        self.begun = False

    def __call__(self, size: int) -> Iterator[bytes]:
        """Yield the data set in pieces of *size*."""
        for piece in self._fragments(size):
            yield piece
            self.begun = True
            if self._each is not None:
                self._each()


@lru_cache(maxsize=1)
def _pool(settings: Settings) -> Pool:
    """Return the children that decode for this process; they start with the first image and end when idle."""
    # Loaded with the first image, because most associations never need it.
    from adapters.pixels.pool import Pool

    return Pool.of(settings)


def _decoded(settings: Settings, objects: ObjectStore, digest: str) -> Iterator[bytes]:
    from adapters.pixels.stored import StoredPixels

    stream = objects.open(digest, verify=True)
    with StoredPixels(stream, max_frame_bytes=settings.max_frame_bytes) as pixels:
        made = pixels.transcode(_pool(settings), EXPLICIT)
        # The File Meta Information is in the first piece, whole.
        head = next(made)
        yield head[dataset_offset(io.BytesIO(head)) :]
        yield from made


def _as_stored(objects: ObjectStore, digest: str) -> Iterator[bytes]:
    skip = dataset_offset(io.BytesIO(objects.read(digest, 0, _META_BYTES)))
    for chunk in objects.stream(digest):
        if skip:
            chunk, skip = chunk[skip:], max(skip - len(chunk), 0)
        yield chunk


def _inflated(chunks: Iterable[bytes]) -> Iterator[bytes]:
    # What it inflates to was bounded when the object was taken.
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    for chunk in chunks:
        data = inflater.decompress(chunk, _CHUNK_BYTES)
        while data:
            yield data
            data = inflater.decompress(inflater.unconsumed_tail, _CHUNK_BYTES)
    yield inflater.flush()


def _recoded(objects: ObjectStore, digest: str, *, explicit: bool) -> Iterator[bytes]:
    with objects.open(digest, verify=True) as stream:
        scanned = scan(stream, limits=_LIMITS)
        yield from _Writer(scanned, stream, explicit=explicit).elements(scanned.dataset)


def _pieces(chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Yield *chunks* as pieces of *size*; one always stays behind, as only the end of the stream proves the object."""
    held = b""
    for chunk in chunks:
        held += chunk
        start = 0
        while len(held) - start > size:
            yield held[start : start + size]
            start += size
        held = held[start:]
    yield held


class _Writer:
    """Writes what a scan found with heads of the other kind."""

    def __init__(self, scanned: Scan, stream: BinaryIO, *, explicit: bool) -> None:
        self._stream = stream
        self._explicit = explicit
        sign = scanned.top.get(_PIXEL_REPRESENTATION)
        self._signed = sign is not None and isinstance(sign.value, bytes) and sign.value[:1] == b"\x01"

    def elements(self, found: Elements) -> Iterator[bytes]:
        """Yield *found*, small elements together."""
        held: list[bytes] = []
        size = 0
        for part in self._parts(found):
            held.append(part)
            size += len(part)
            if size >= _CHUNK_BYTES:
                yield b"".join(held)
                held, size = [], 0
        yield b"".join(held)

    def _parts(self, found: Elements) -> Iterator[bytes]:
        for one in found:
            if not one.tag & 0xFFFF:
                continue
            if isinstance(one.value, list):
                yield self._head(one.tag, "SQ", UNDEFINED)
                for item in one.value:
                    yield _ITEM_START
                    yield from self._parts(item)
                    yield _ITEM_END
                yield _SEQUENCE_END
                continue
            if one.fragments:
                raise HubError(Category.UNSUPPORTED, "Compressed pixels cannot be turned into this transfer syntax.")
            yield self._head(one.tag, self._vr(one), one.length)
            yield from (one.value,) if one.value is not None else self._value(one)

    def _vr(self, one: Element) -> str:
        if one.vr == "US or SS":
            return "SS" if self._signed else "US"
        # In Implicit VR pixels and tables are words (PS3.5 annex A.1).
        return "OW" if " or " in one.vr else one.vr

    def _head(self, tag: int, vr: str, length: int) -> bytes:
        start = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
        if not self._explicit:
            return start + struct.pack("<I", length)
        if vr not in LONG_VRS and length > 0xFFFE:
            # A value that is too long for the 16-bit length of its VR goes as UN (PS3.5 section 6.2.2, note 3).
            vr = "UN"
        start += vr.encode("ascii")
        return start + (struct.pack("<HI", 0, length) if vr in LONG_VRS else struct.pack("<H", length))

    def _value(self, one: Element) -> Iterator[bytes]:
        self._stream.seek(one.offset)
        left = one.length
        while left:
            data = self._stream.read(min(left, _CHUNK_BYTES))
            if not data:
                raise HubError(Category.FAULT, "A stored object ends before its element does.")
            left -= len(data)
            yield data
