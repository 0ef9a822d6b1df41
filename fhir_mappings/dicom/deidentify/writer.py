"""Writes the copy: an encoded data set, piece by piece, with long values taken from where they are (PS3.5 section 7, PS3.10)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, Final, NamedTuple

from fhir_mappings.dicom.elements import ITEM, ITEM_END, SEQUENCE_END, SHORT_VRS, UNDEFINED, Scan
from fhir_mappings.dicom.implementation import IMPLEMENTATION_CLASS_UID
from fhir_mappings.dicom.scanner import LIMITS
from fhir_mappings.dicom.window import FileSource, InflatingSource, Source
from fhir_mappings.errors import MalformedError

_CHUNK_BYTES: Final = 1 << 20


class Range(NamedTuple):
    """Bytes that are copied from the object."""

    offset: int
    length: int
    fragments: bool = False


class Out(NamedTuple):
    """An element of the copy; a list is the items of a sequence."""

    tag: int
    vr: str
    value: bytes | Range | list[list[Out]]


def padded(text: str, padding: bytes = b" ") -> bytes:
    """Return *text* in UTF-8, with an even length (PS3.5 section 6.2)."""
    data = text.encode("utf-8", "replace")
    return data + padding if len(data) % 2 else data


def ascending(elements: list[Out]) -> bool:
    """Return whether the long values stand in the object in the order in which they are written."""
    last = -1
    waiting = list(reversed(elements))
    while waiting:
        value = waiting.pop().value
        if isinstance(value, Range):
            if value.offset < last:
                return False
            last = value.offset
        elif isinstance(value, list):
            waiting.extend(one for item in reversed(value) for one in reversed(item))
    return True


def source_of(stream: BinaryIO, scanned: Scan) -> Source:
    """Return where the offsets of *scanned* count; of a deflated object they only go forward."""
    if not scanned.deflated:
        return FileSource(stream)
    last = scanned.meta[-1]
    return InflatingSource(
        stream, last.offset + last.length, max_bytes=LIMITS.inflated_bytes, max_ratio=LIMITS.inflated_ratio
    )


def pieces(source: Source, offset: int, length: int) -> Iterator[bytes]:
    """Yield *length* bytes from *offset*; raises MalformedError where the source ends first."""
    while length > 0:
        wanted = min(length, _CHUNK_BYTES)
        data = source.read_at(offset, wanted)[:wanted]
        if not data:
            raise MalformedError("The object became shorter while it was copied.", remedy="Check the object store.")
        yield data
        offset += len(data)
        length -= len(data)


class Writer:
    """Writes data sets in the encoding of the object; sequences and items have an undefined length."""

    def __init__(self, scanned: Scan, source: Source) -> None:
        self._source = source
        self._implicit = scanned.implicit
        mark = "<" if scanned.little_endian else ">"
        self._tag = struct.Struct(f"{mark}HH").pack
        self._u16 = struct.Struct(f"{mark}H").pack
        self._u32 = struct.Struct(f"{mark}I").pack

    def dataset(self, elements: list[Out]) -> Iterator[bytes]:
        """Yield the bytes of *elements*, short ones together."""
        held = bytearray()
        for piece in self._elements(elements):
            held += piece
            if len(held) >= _CHUNK_BYTES:
                yield bytes(held)
                held.clear()
        yield bytes(held)

    def _elements(self, elements: list[Out]) -> Iterator[bytes]:
        for tag, vr, value in elements:
            if isinstance(value, list):
                yield self._head(tag, "SQ", UNDEFINED)
                for item in value:
                    yield self._mark(ITEM, UNDEFINED)
                    yield from self._elements(item)
                    yield self._mark(ITEM_END, 0)
                yield self._mark(SEQUENCE_END, 0)
            elif isinstance(value, Range):
                yield self._head(tag, vr, UNDEFINED if value.fragments else value.length)
                yield from pieces(self._source, value.offset, value.length)
            else:
                yield self._head(tag, vr, len(value)) + value

    def _mark(self, tag: int, length: int) -> bytes:
        return self._tag(tag >> 16, tag & 0xFFFF) + self._u32(length)

    def _head(self, tag: int, vr: str, length: int) -> bytes:
        start = self._tag(tag >> 16, tag & 0xFFFF)
        if self._implicit:
            return start + self._u32(length)
        if vr in SHORT_VRS:
            return start + vr.encode() + self._u16(length)
        return start + vr.encode() + b"\0\0" + self._u32(length)


def file_meta(SOPClassUID: str, SOPInstanceUID: str, syntax: str) -> bytes:
    """Return preamble, prefix and File Meta Information (PS3.10 section 7.1)."""
    body = struct.pack("<HH2sHI", 2, 1, b"OB", 0, 2) + b"\0\1"
    for element, uid in ((2, SOPClassUID), (3, SOPInstanceUID), (0x10, syntax), (0x12, IMPLEMENTATION_CLASS_UID)):
        value = padded(uid, b"\0")
        body += struct.pack("<HH2sH", 2, element, b"UI", len(value)) + value
    return bytes(128) + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(body)) + body
