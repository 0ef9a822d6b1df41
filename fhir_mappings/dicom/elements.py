"""Data elements as they lie in the bytes: tags, value representations and what a scan hands on (PS3.5 sections 6.2, 7)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from pydicom.datadict import dictionary_VR

Value: TypeAlias = "bytes | list[Elements] | None"


class Element(NamedTuple):
    """One data element.

    Attributes:
        vr: as written; for Implicit VR from the dictionary, where it may be a choice such as ``US or SS``.
        value: the raw bytes; the items of a sequence; ``None`` for bulk that stays where it is.
        offset: where the value begins, counted from the start of the scanned stream (of the inflated data set when
            the transfer syntax is deflated).
        length: of the value in bytes; ``UNDEFINED`` for a sequence that a delimiter ends, all fragments for pixel data.
        fragments: the value is encapsulated pixel data (PS3.5 annex A.4).
    """

    tag: int
    vr: str
    value: Value
    offset: int
    length: int
    fragments: bool = False


Elements: TypeAlias = list[Element]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """A whole SOP Instance, proved complete.

    Attributes:
        meta: the File Meta Information; empty when a bare data set was scanned.
        top: the elements of the outermost level by their tag.
        deflated: offsets then count inflated bytes and mean nothing in the object itself.
    """

    TransferSyntaxUID: str
    meta: Elements
    dataset: Elements
    top: dict[int, Element]
    little_endian: bool
    implicit: bool
    deflated: bool
    size: int
    element_count: int


ITEM = 0xFFFEE000
ITEM_END = 0xFFFEE00D
SEQUENCE_END = 0xFFFEE0DD
PIXEL_DATA = 0x7FE00010
UNDEFINED = 0xFFFFFFFF

#: VRs with a 16-bit length in Explicit VR (PS3.5 table 7.1-2).
SHORT_VRS = frozenset(
    [
        "AE",
        "AS",
        "AT",
        "CS",
        "DA",
        "DS",
        "DT",
        "FD",
        "FL",
        "IS",
        "LO",
        "LT",
        "PN",
        "SH",
        "SL",
        "SS",
        "ST",
        "TM",
        "UI",
        "UL",
        "US",
    ]
)
#: VRs with two reserved bytes and a 32-bit length (PS3.5 table 7.1-1).
LONG_VRS = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"])
#: VRs whose value is opaque bytes in the DICOM JSON Model (PS3.18 table F.2.3-1), with the width of their words.
BINARY_VRS = {
    "OB": 1, "OD": 8, "OF": 4, "OL": 4, "OV": 8, "OW": 2, "UN": 1,
    "OB or OW": 2, "US or OW": 2, "US or SS or OW": 2,
}  # fmt: skip
#: VRs affected by Specific Character Set (PS3.5 section 6.1.2.3).
TEXT_VRS = frozenset(["LO", "LT", "PN", "SH", "ST", "UC", "UT"])


@lru_cache(maxsize=8192)
def implicit_vr(tag: int) -> str:
    """Return the VR that the data dictionary gives *tag*; private tags other than creators stay opaque (UN)."""
    if tag >> 16 & 1:
        return "LO" if 0x10 <= tag & 0xFFFF <= 0xFF else "UN"
    if not tag & 0xFFFF:
        return "UL"
    try:
        return str(dictionary_VR(tag))
    except KeyError:
        return "UN"


def name_of(tag: int) -> str:
    """Return *tag* as ``(gggg,eeee)``."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
