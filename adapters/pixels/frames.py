"""Single frames out of stored pixel data without decoding it (PS3.5 section 8 and annex A.4).

A native frame is a range of bytes; an encapsulated one is a run of fragments, found by count, by the Basic or Extended
Offset Table, or by the marker each compressed image starts with. Only headers and the frame itself are read.
"""

from __future__ import annotations

import struct
from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

from adapters.pixels.part10 import swapped
from adapters.pixels.syntaxes import EXPLICIT_BIG, EXPLICIT_LITTLE
from hub.errors import Category, HubError

__all__ = [
    "EXPLICIT_BIG",
    "EXPLICIT_LITTLE",
    "Pieces",
    "encapsulated_frames",
    "fragments",
    "is_encapsulated",
    "native_frame",
    "read",
    "within",
]

_ITEM = b"\xfe\xff\x00\xe0"
_SEQUENCE_END = b"\xfe\xff\xdd\xe0"
#: Start of image of JPEG and JPEG-LS, start of codestream of JPEG 2000.
_IMAGE_STARTS = (b"\xff\xd8", b"\xff\x4f")
#: Fragments of one object; the scanner that stood at the door has the same limit on items.
_MAX_FRAGMENTS = 50_000

#: Byte ranges (start, length) that make up one frame, in order.
Pieces = Sequence[tuple[int, int]]


def is_encapsulated(stream: BinaryIO, pixel_offset: int) -> bool:
    """Return whether the pixel data at *pixel_offset* is a sequence of fragments."""
    stream.seek(pixel_offset - 4)
    length, head = stream.read(4), stream.read(4)
    return length == b"\xff\xff\xff\xff" and head == _ITEM


def _held(stream: BinaryIO, pixel_offset: int, syntax: str) -> int:
    """Return the length of native pixel data, which stands before it in every transfer syntax."""
    stream.seek(pixel_offset - 4)
    return int.from_bytes(stream.read(4), "big" if syntax == EXPLICIT_BIG else "little")


def native_frame(stream: BinaryIO, attributes: Mapping[str, Any], pixel_offset: int, syntax: str, number: int) -> bytes:
    """Return native frame *number* (from 1) as little endian bytes."""
    rows, columns = _number(attributes, "00280010"), _number(attributes, "00280011")
    samples, bits = _number(attributes, "00280002", 1), _number(attributes, "00280100")
    # Native YBR_FULL_422 shares each pair of chroma samples between two pixels (PS3.3 C.7.6.3.1.2).
    if _text(attributes, "00280004") == "YBR_FULL_422" and samples == 3:
        samples = 2
    frame_bits = rows * columns * samples * bits
    start_bit = frame_bits * (number - 1)
    first, last = start_bit // 8, (start_bit + frame_bits + 7) // 8
    width = 1
    if syntax == EXPLICIT_BIG and not _by_bytes(stream, pixel_offset):
        # Pixels of up to 16 bits lie in words of 16 (PS3.5 section 8.1.1 and annex A.3), which a frame may begin within.
        width = 2 if bits <= 16 else bits // 8
    start, end = first - first % width, last + -last % width
    if not _held(stream, pixel_offset, syntax):
        raise HubError(Category.NOT_FOUND, "The pixel data of the instance is empty.", where="(7FE0,0010)")
    stream.seek(pixel_offset + start)
    data = stream.read(end - start)
    if len(data) < last - start:
        raise HubError(Category.FAULT, "The object ends before the frame does.", where="(7FE0,0010)")
    if width > 1:
        data = swapped(data, width)
    data = data[first - start : last - start]
    if bits == 1 and (start_bit % 8 or frame_bits % 8):
        return _shifted(data, start_bit % 8, frame_bits)
    return data


def _by_bytes(stream: BinaryIO, pixel_offset: int) -> bool:
    """Return whether the element's VR is OB, whose bytes have no order."""
    if pixel_offset < 12:
        return False
    stream.seek(pixel_offset - 8)
    return stream.read(2) == b"OB"


def _shifted(data: bytes, shift: int, bits: int) -> bytes:
    # One-bit frames follow each other without padding, lowest bit first (PS3.5 section 8.1.1).
    value = int.from_bytes(data, "little") >> shift & ((1 << bits) - 1)
    return value.to_bytes((bits + 7) // 8, "little")


def encapsulated_frames(
    stream: BinaryIO, attributes: Mapping[str, Any], pixel_offset: int, frames: int
) -> Sequence[Pieces]:
    """Return the pieces of every frame of encapsulated pixel data.

    Raises:
        HubError: unsupported when the fragments cannot be told apart by frame (video, or no table and no markers).
    """
    table, found = _walk(stream, pixel_offset)
    if frames == 1:
        return [found]
    if len(found) == frames:
        return [[one] for one in found]
    extended = _extended_table(attributes)
    for offsets in (extended, table):
        if len(offsets) == frames:
            grouped = _group(found, offsets)
            if grouped is not None:
                return grouped
    starts = [index for index, one in enumerate(found) if _starts_image(stream, one)]
    if len(starts) == frames and starts[0] == 0:
        return [found[a:b] for a, b in zip(starts, [*starts[1:], len(found)], strict=True)]
    raise HubError(
        Category.UNSUPPORTED,
        "The frames of this object cannot be told apart.",
        where="(7FE0,0010)",
        remedy="Retrieve the whole instance.",
        status=406,
    )


def fragments(stream: BinaryIO, pixel_offset: int) -> Pieces:
    """Return where the fragments of encapsulated pixel data lie."""
    return _walk(stream, pixel_offset)[1]


def _walk(stream: BinaryIO, pixel_offset: int) -> tuple[Sequence[int], list[tuple[int, int]]]:
    """Return the Basic Offset Table and the (start, length) of every fragment."""
    table: Sequence[int] = ()
    fragments: list[tuple[int, int]] = []
    position = pixel_offset
    first = True
    while len(fragments) < _MAX_FRAGMENTS:
        stream.seek(position)
        head = stream.read(8)
        if len(head) < 8 or head[:4] == _SEQUENCE_END:
            return table, fragments
        if head[:4] != _ITEM:
            break
        length = int.from_bytes(head[4:], "little")
        if first:
            raw = stream.read(length)
            table = struct.unpack(f"<{len(raw) // 4}I", raw[: len(raw) // 4 * 4])
            first = False
        else:
            fragments.append((position + 8, length))
        position += 8 + length
    raise HubError(Category.FAULT, "The fragments of the pixel data are not readable.", where="(7FE0,0010)")


def _group(fragments: list[tuple[int, int]], offsets: Sequence[int]) -> list[Pieces] | None:
    """Return fragments grouped by frame, or ``None`` when an offset is not the start of a fragment."""
    base = fragments[0][0] - 8
    index = {start - 8 - base: place for place, (start, _) in enumerate(fragments)}
    try:
        places = [index[offset] for offset in offsets]
    except KeyError:
        return None
    ends = [*places[1:], len(fragments)]
    return [fragments[a:b] for a, b in zip(places, ends, strict=True)] if places == sorted(set(places)) else None


def _extended_table(attributes: Mapping[str, Any]) -> Sequence[int]:
    raw = b64decode(attributes.get("7FE00001", {}).get("InlineBinary", ""))
    return struct.unpack(f"<{len(raw) // 8}Q", raw[: len(raw) // 8 * 8])


def _starts_image(stream: BinaryIO, fragment: tuple[int, int]) -> bool:
    stream.seek(fragment[0])
    head = stream.read(2)
    return head in _IMAGE_STARTS


def within(pieces: Pieces, start: int, length: int) -> Pieces:
    """Return the byte ranges of *length* bytes from *start* on, counted over *pieces*."""
    found = []
    for place, size in pieces:
        skipped = min(start, size)
        taken = min(size - skipped, length)
        if taken > 0:
            found.append((place + skipped, taken))
        start -= skipped
        length -= taken
    return found


def read(stream: BinaryIO, pieces: Pieces) -> bytes:
    """Return the bytes of *pieces*, joined."""
    parts = []
    for start, length in pieces:
        stream.seek(start)
        parts.append(stream.read(length))
    return b"".join(parts)


def _number(attributes: Mapping[str, Any], tag: str, default: int | None = None) -> int:
    values = attributes.get(tag, {}).get("Value") or [default]
    if not isinstance(values[0], int):
        raise HubError(Category.NOT_FOUND, "The instance does not describe its pixels.", where=f"({tag[:4]},{tag[4:]})")
    return values[0]


def _text(attributes: Mapping[str, Any], tag: str) -> str:
    values = attributes.get(tag, {}).get("Value") or [""]
    return str(values[0])
