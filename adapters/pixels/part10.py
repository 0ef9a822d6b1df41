"""Data sets written again in Explicit VR Little Endian, from what the scanner found (PS3.5 section 7.1, PS3.10 section 7).

Values keep their bytes: text is not decoded, numbers change their byte order where they must, so nothing that the sender
wrote is lost on the way to another transfer syntax. What cannot outlive the change is left out: group lengths, offset
tables, and signatures over pixels that now have other bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO

from fhir_mappings.dicom.elements import LONG_VRS, PIXEL_DATA, UNDEFINED, Element, Elements, Scan
from fhir_mappings.dicom.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from hub.errors import Category, HubError

#: Values other than pixels are held while they are written.
MAX_HELD_BYTES = 256 << 20
#: Width of the words of a VR, where it is more than a byte (PS3.5 section 7.3).
_WIDTHS = {
    "AT": 2, "OW": 2, "SS": 2, "US": 2, "FL": 4, "OF": 4, "OL": 4, "SL": 4, "UL": 4,
    "FD": 8, "OD": 8, "OV": 8, "SV": 8, "UV": 8,
}  # fmt: skip
_PIXEL_REPRESENTATION = 0x00280103
_SOP_INSTANCE, _MEDIA_STORAGE_SOP_INSTANCE = 0x00080018, 0x00020003
_OFFSET_TABLES = frozenset({0x7FE00001, 0x7FE00002})
_DIGITAL_SIGNATURES = 0xFFFAFFFA
_TRANSFER_SYNTAX = 0x00020010
#: (0002,0012) and (0002,0013) say who wrote the file: by then, this hub (PS3.10 table 7.1-1).
_WRITER: Mapping[int, tuple[str, bytes]] = {
    0x00020012: ("UI", IMPLEMENTATION_CLASS_UID.encode() + b"\0" * (len(IMPLEMENTATION_CLASS_UID) % 2)),
    0x00020013: ("SH", IMPLEMENTATION_VERSION_NAME.encode() + b" " * (len(IMPLEMENTATION_VERSION_NAME) % 2)),
}

#: New values by tag; ``None`` leaves the element out.
Changes = Mapping[int, tuple[str, bytes] | None]


def file_head(scanned: Scan, source: BinaryIO, syntax: str, changes: Changes) -> bytes:
    """Return preamble, File Meta Information for *syntax*, and the data set up to where its pixel data begins."""
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    meta: dict[int, tuple[str, bytes]] = {
        one.tag: (one.vr, one.value) for one in scanned.meta if isinstance(one.value, bytes) and one.tag != 0x00020000
    }
    meta |= {_TRANSFER_SYNTAX: ("UI", uid), **_WRITER}
    renamed = changes.get(_SOP_INSTANCE)
    if renamed is not None:
        meta[_MEDIA_STORAGE_SOP_INSTANCE] = renamed
    body = b"".join(element(tag, vr, value) for tag, (vr, value) in sorted(meta.items()))
    group = element(0x00020000, "UL", len(body).to_bytes(4, "little"))
    return b"\0" * 128 + b"DICM" + group + body + elements(scanned, source, changes=changes)


def elements(
    scanned: Scan, source: BinaryIO, *, keep: Callable[[int], bool] = lambda _: True, changes: Changes | None = None
) -> bytes:
    """Return the elements before the pixel data that *keep* takes, with *changes*, in Explicit VR Little Endian.

    Args:
        source: where the offsets of *scanned* point to; the inflated data set for a deflated one.

    Raises:
        HubError: unsupported where values are too large to hold.
    """
    return _Writer(scanned, source).write(scanned.dataset, keep, changes or {})


def element(tag: int, vr: str, value: bytes) -> bytes:
    """Return one element with its head."""
    if vr not in LONG_VRS and len(value) > 0xFFFE:
        # PS3.5 section 6.2.2 note 3: a value too long for its VR goes out as UN.
        vr = "UN"
    return head(tag, vr, len(value)) + value


def head(tag: int, vr: str, length: int) -> bytes:
    """Return tag, VR and length."""
    start = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode("ascii")
    return start + (struct.pack("<HI", 0, length) if vr in LONG_VRS else struct.pack("<H", length))


def item(body: bytes) -> bytes:
    """Return one item of a sequence."""
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(body)) + body


class _Writer:
    def __init__(self, scanned: Scan, source: BinaryIO) -> None:
        self._swap = not scanned.little_endian
        self._source = source
        self._left = MAX_HELD_BYTES
        representation = scanned.top.get(_PIXEL_REPRESENTATION)
        value = representation.value if representation is not None else None
        self._signed = isinstance(value, bytes) and b"\x01" in value

    def write(self, found: Elements, keep: Callable[[int], bool], changes: Changes) -> bytes:
        """Return the outermost level; those below it go out as they are."""
        made: dict[int, bytes] = {}
        for one in found:
            outlives = one.tag & 0xFFFF and one.tag < PIXEL_DATA and one.tag not in _OFFSET_TABLES
            if outlives and one.tag not in changes and keep(one.tag):
                made[one.tag] = self._one(one)
        for tag, change in changes.items():
            if change is not None:
                made[tag] = element(tag, *change)
        return b"".join(made[tag] for tag in sorted(made))

    def _one(self, one: Element) -> bytes:
        if isinstance(one.value, list):
            items = b"".join(self._item(item) for item in one.value)
            return element(one.tag, "SQ", items)
        value = one.value if one.value is not None else self._read(one)
        if one.fragments:
            # A compressed icon; its fragments end with their own delimiter.
            return head(one.tag, "OB", UNDEFINED) + value
        vr = self._vr(one.vr)
        width = _WIDTHS.get(vr, 1)
        if self._swap and width > 1:
            value = swapped(value, width)
        return element(one.tag, vr, value + b"\0" * (len(value) % 2))

    def _item(self, item: Sequence[Element]) -> bytes:
        body = b"".join(self._one(one) for one in item if one.tag & 0xFFFF and one.tag != _DIGITAL_SIGNATURES)
        return struct.pack("<HHI", 0xFFFE, 0xE000, len(body)) + body

    def _vr(self, vr: str) -> str:
        if vr == "US or SS":
            return "SS" if self._signed else "US"
        return "OW" if " or " in vr else vr

    def _read(self, one: Element) -> bytes:
        self._left -= one.length
        if self._left < 0:
            raise HubError(
                Category.UNSUPPORTED,
                "The object holds too much besides its pixels.",
                remedy="Retrieve it as stored, with transfer-syntax=*.",
                status=406,
            )
        self._source.seek(one.offset)
        data = self._source.read(one.length)
        if len(data) != one.length:
            raise HubError(Category.FAULT, "The object ends before its element does.")
        return data


def swapped(data: bytes, width: int) -> bytes:
    """Return words of *width* bytes in the other byte order."""
    if len(data) % width:
        return data
    out = bytearray(len(data))
    for place in range(width):
        out[place::width] = data[width - 1 - place :: width]
    return bytes(out)
