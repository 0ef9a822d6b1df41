"""From the DICOM JSON Model to a Part 10 file (PS3.18 annex F, PS3.10 section 7): what STOW-RS with metadata brings.

The data set is written in Explicit VR Little Endian as PS3.5 section 7.1.2 has it, sequences with undefined length, text
in UTF-8. Bulk data is not held: its pieces are asked for while the file is being written.
"""

from __future__ import annotations

import binascii
import math
import struct
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from fhir_mappings.dicom.elements import BINARY_VRS, LONG_VRS, PIXEL_DATA, SHORT_VRS, UNDEFINED, name_of
from fhir_mappings.dicom.implementation import IMPLEMENTATION_CLASS_UID
from fhir_mappings.dicom.scanner import DEFLATED, encapsulated, valid_uid
from fhir_mappings.errors import MalformedError, UnsupportedError

EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
_SPECIFIC_CHARACTER_SET = 0x00080005
_TRANSFER_SYNTAX = "00020010"
_UTF8 = ["ISO_IR 192"]
_NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}
_SINGLE_TEXT = frozenset(["LT", "ST", "UT", "UR"])
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_FLOATS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_MAX_DEPTH = 32
_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
_ITEM_END = struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
_SEQUENCE_END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bulk:
    """One piece of bulk data: its length, and how to get its bytes."""

    length: int
    content: Callable[[], Iterable[bytes]]


def part10(
    dataset: Mapping[str, Any],
    bulk: Mapping[str, Sequence[Bulk]],
    transfer_syntax: str = EXPLICIT_LITTLE_ENDIAN,
) -> Iterator[bytes]:
    """Yield the bytes of a Part 10 file of *dataset*, an object of the DICOM JSON Model.

    Args:
        bulk: the pieces of each BulkDataURI. Several pieces are the frames of compressed pixel data, in their order;
            elsewhere they are one value.
        transfer_syntax: of the pixel data; everything else is Explicit VR Little Endian in any of those taken.

    Raises:
        MalformedError: the model is broken, or names bulk data that *bulk* does not have.
        UnsupportedError: a transfer syntax that is not written.
    """
    compressed = encapsulated(transfer_syntax)
    if (
        compressed is None
        or transfer_syntax in DEFLATED
        or (not compressed and transfer_syntax != EXPLICIT_LITTLE_ENDIAN)
    ):
        raise UnsupportedError(
            "Bulk data in this transfer syntax is not taken.",
            where=_TRANSFER_SYNTAX,
            remedy="Send it in Explicit VR Little Endian, or compressed.",
        )
    uids = [_uid(dataset, tag) for tag in ("00080016", "00080018", "0020000D", "0020000E")]
    yield _file_meta(uids[0], uids[1], transfer_syntax)
    yield from _Writer(bulk, compressed=compressed).dataset(dataset, depth=0)


def declared_transfer_syntax(dataset: Mapping[str, Any]) -> str:
    """Return the transfer syntax that the File Meta Information in *dataset* names, ``""`` where there is none.

    The standard keeps it out of metadata, but senders that turn files into JSON leave it in.
    """
    values = _element(dataset, _TRANSFER_SYNTAX).get("Value")
    return str(values[0]).strip() if isinstance(values, list) and values else ""


def bulk_uris(dataset: Mapping[str, Any], depth: int = 0) -> Iterator[str]:
    """Yield every BulkDataURI of *dataset*, in its sequences too."""
    if depth > _MAX_DEPTH:
        raise _malformed(f"Sequences are nested more than {_MAX_DEPTH} deep.")
    for element in dataset.values():
        if not isinstance(element, dict):
            continue
        if isinstance(element.get("BulkDataURI"), str):
            yield element["BulkDataURI"]
        if element.get("vr") == "SQ":
            for item in element.get("Value") or ():
                if isinstance(item, dict):
                    yield from bulk_uris(item, depth + 1)


class _Writer:
    """Writes data sets whose bulk data it is told where to find."""

    def __init__(self, bulk: Mapping[str, Sequence[Bulk]], *, compressed: bool) -> None:
        self._bulk = bulk
        self._compressed = compressed

    def dataset(self, dataset: Mapping[str, Any], *, depth: int) -> Iterator[bytes]:
        """Yield the elements of one data set in the order of their tags."""
        if depth > _MAX_DEPTH:
            raise _malformed(f"Sequences are nested more than {_MAX_DEPTH} deep.")
        tags = sorted(_tag(name) for name in dataset)
        for tag in tags:
            # Group lengths are no part of a data set any more (PS3.5 section 7.2), File Meta Information never was.
            if not tag & 0xFFFF or tag >> 16 == 0x0002:
                continue
            if tag == _SPECIFIC_CHARACTER_SET:
                # JSON and XML bodies are UTF-8 whatever the sender's file was; the label covers the items too.
                if not depth:
                    yield _head(tag, "CS", _text(tag, "CS", _UTF8))
                continue
            yield from self._element(tag, _element(dataset, f"{tag:08X}"), depth)

    def _element(self, tag: int, element: Mapping[str, Any], depth: int) -> Iterator[bytes]:
        vr = element.get("vr")
        if not isinstance(vr, str) or (vr not in SHORT_VRS and vr not in LONG_VRS):
            raise _malformed("An attribute has no value representation of the standard.", tag)
        if sum(name in element for name in ("Value", "BulkDataURI", "InlineBinary")) > 1:
            raise _malformed("An attribute has two values.", tag)
        if "BulkDataURI" in element:
            yield from self._bulk_data(tag, vr, element["BulkDataURI"])
        elif "InlineBinary" in element:
            yield _head(tag, vr, _inline(tag, vr, element["InlineBinary"]))
        elif vr == "SQ":
            yield from self._sequence(tag, _values(tag, element), depth)
        else:
            yield _head(tag, vr, _value(tag, vr, _values(tag, element)))

    def _sequence(self, tag: int, items: list[Any], depth: int) -> Iterator[bytes]:
        yield struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, b"SQ", 0, UNDEFINED)
        for item in items:
            if not isinstance(item, dict | None):
                raise _malformed("An item is not an object.", tag)
            yield _ITEM
            yield from self.dataset(item or {}, depth=depth + 1)
            yield _ITEM_END
        yield _SEQUENCE_END

    def _bulk_data(self, tag: int, vr: str, uri: Any) -> Iterator[bytes]:
        pieces = self._bulk.get(uri) if isinstance(uri, str) else None
        if not pieces:
            raise MalformedError(
                "The request has no part with the bulk data that the metadata names.",
                where=name_of(tag),
                remedy="Send a part whose Content-Location is the BulkDataURI.",
            )
        if tag == PIXEL_DATA and self._compressed:
            yield from _fragments(pieces)
            return
        length = sum(piece.length for piece in pieces)
        if length + 1 >= UNDEFINED:
            raise _malformed("The value is longer than an element can be.", tag)
        yield _start(tag, vr, length + length % 2)
        for piece in pieces:
            yield from piece.content()
        if length % 2:
            yield _padding(vr)


def _fragments(pieces: Sequence[Bulk]) -> Iterator[bytes]:
    """Yield pixel data with an empty offset table and one fragment for each frame (PS3.5 annex A.4)."""
    yield struct.pack("<HH2sHI", PIXEL_DATA >> 16, PIXEL_DATA & 0xFFFF, b"OB", 0, UNDEFINED)
    yield struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    for piece in pieces:
        yield struct.pack("<HHI", 0xFFFE, 0xE000, piece.length + piece.length % 2)
        yield from piece.content()
        if piece.length % 2:
            yield b"\0"
    yield _SEQUENCE_END


# --- elements ----------------------------------------------------------------------------------------------------


def _file_meta(sop_class: str, sop_instance: str, transfer_syntax: str) -> bytes:
    """Return preamble and File Meta Information; nothing in it differs between two sendings of the same object."""
    meta = b"".join(
        (
            _head(0x00020001, "OB", b"\0\1"),
            *(
                _head(tag, "UI", _text(tag, "UI", [value]))
                for tag, value in (
                    (0x00020002, sop_class),
                    (0x00020003, sop_instance),
                    (0x00020010, transfer_syntax),
                    (0x00020012, IMPLEMENTATION_CLASS_UID),
                )
            ),
        )
    )
    return b"\0" * 128 + b"DICM" + _head(0x00020000, "UL", struct.pack("<I", len(meta))) + meta


def _start(tag: int, vr: str, length: int) -> bytes:
    if vr in SHORT_VRS and length <= 0xFFFF:
        return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), length)
    # What is too long for its VR's length field is written as UN (PS3.5 section 6.2.2, note 6).
    name = b"UN" if vr in SHORT_VRS else vr.encode()
    return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, name, 0, length)


def _head(tag: int, vr: str, value: bytes) -> bytes:
    """Return a whole element; *value* is padded to even length."""
    padded = value + _padding(vr) if len(value) % 2 else value
    return _start(tag, vr, len(padded)) + padded


def _padding(vr: str) -> bytes:
    return b"\0" if vr == "UI" or vr in BINARY_VRS or vr in _NUMBERS else b" "


def _inline(tag: int, vr: str, content: Any) -> bytes:
    if vr not in BINARY_VRS or not isinstance(content, str):
        raise _malformed("Only an opaque value can be InlineBinary.", tag)
    try:
        return b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _malformed("InlineBinary is not base64.", tag) from error


def _value(tag: int, vr: str, values: list[Any]) -> bytes:
    if not values:
        return b""
    if vr in BINARY_VRS:
        raise _malformed("An opaque value is InlineBinary or BulkDataURI, not Value.", tag)
    if vr in _NUMBERS:
        return b"".join(_number(tag, vr, value) for value in values)
    if vr == "AT":
        tags = [_tag(value) if isinstance(value, str) else -1 for value in values]
        if min(tags) < 0:
            raise _malformed("A value is not a tag.", tag)
        return b"".join(struct.pack("<HH", value >> 16, value & 0xFFFF) for value in tags)
    return _text(tag, vr, values)


def _number(tag: int, vr: str, value: Any) -> bytes:
    if vr in {"FL", "FD"}:
        value = _FLOATS.get(value, value) if isinstance(value, str) else value
        value = float(value) if isinstance(value, Decimal | int) and not isinstance(value, bool) else value
    elif isinstance(value, Decimal) and value == value.to_integral_value():
        value = int(value)
    elif isinstance(value, str) and vr in {"SV", "UV"} and len(value) <= 20:
        # PS3.18 table F.2.3-1 lets 64-bit numbers be strings, because JavaScript cannot hold them all.
        value = int(value) if value.lstrip("+-").isascii() and value.lstrip("+-").isdigit() else value
    try:
        return struct.pack(f"<{_NUMBERS[vr]}", value)
    except (struct.error, OverflowError, TypeError) as error:
        raise _malformed(f"A value is no number that {vr} can hold.", tag) from error


def _text(tag: int, vr: str, values: Sequence[Any]) -> bytes:
    if vr in _SINGLE_TEXT and len(values) > 1:
        raise _malformed(f"{vr} has one value.", tag)
    parts = [_person(tag, value) if vr == "PN" else _plain(tag, value) for value in values]
    if vr not in _SINGLE_TEXT and any("\\" in part for part in parts):
        raise _malformed("A value holds a backslash, which separates values.", tag)
    try:
        return "\\".join(parts).encode()
    except UnicodeEncodeError as error:
        raise _malformed("A value is not Unicode text.", tag) from error


def _plain(tag: int, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise _malformed("A value is neither text nor a number.", tag)
    return str(value)


def _person(tag: int, value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, dict) or not all(isinstance(value.get(group, ""), str) for group in _GROUPS):
        raise _malformed("A person name is not an object of groups.", tag)
    groups = [value.get(group, "") for group in _GROUPS]
    if any("=" in group for group in groups):
        raise _malformed("A group of a person name holds an equals sign, which separates groups.", tag)
    return "=".join(groups).rstrip("=")


# --- the model ---------------------------------------------------------------------------------------------------


def _tag(name: str) -> int:
    if len(name) != 8 or not all(char in "0123456789abcdefABCDEF" for char in name):
        raise MalformedError(
            "The metadata has a member that is no tag.", where=name[:16], remedy="Write eight hex digits."
        )
    return int(name, 16)


def _element(dataset: Mapping[str, Any], tag: str) -> Mapping[str, Any]:
    element = dataset.get(tag, dataset.get(tag.lower(), {}))
    if not isinstance(element, dict):
        raise _malformed("An attribute is not an object.", int(tag, 16))
    return element


def _values(tag: int, element: Mapping[str, Any]) -> list[Any]:
    values = element.get("Value")
    if not isinstance(values, list | None):
        raise _malformed("Value is not an array.", tag)
    return values or []


def _uid(dataset: Mapping[str, Any], tag: str) -> str:
    values = _element(dataset, tag).get("Value")
    uid = values[0] if isinstance(values, list) and len(values) == 1 else None
    if not isinstance(uid, str) or not valid_uid(uid):
        raise _malformed("The metadata does not say which object it is of.", int(tag, 16))
    return uid


def _malformed(message: str, tag: int | None = None) -> MalformedError:
    return MalformedError(
        message,
        where="metadata" if tag is None else name_of(tag),
        remedy="Send the DICOM JSON Model as PS3.18 annex F defines it.",
    )
