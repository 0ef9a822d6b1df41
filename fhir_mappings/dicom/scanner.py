"""Proof that a SOP Instance is whole and harmless, before any library parses it (PS3.5 section 7, PS3.10 section 7).

The common parser accepts truncated files and recurses into sequences, so this scanner stands in front: no recursion,
bounded memory, and every length checked against what encloses it. It reads headers only; pixel bytes are skipped by
their length, and the last element must end where the stream ends.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import BinaryIO

from pydicom.uid import UID

from fhir_mappings.dicom.elements import PIXEL_DATA, Element, Elements, Scan, name_of
from fhir_mappings.dicom.scan_limits import LIMITS, ScanLimits
from fhir_mappings.dicom.walker import WHOLE, Walker
from fhir_mappings.dicom.window import FileSource, InflatingSource, Window
from fhir_mappings.errors import MalformedError

__all__ = [
    "DEFLATED",
    "LIMITS",
    "ScanLimits",
    "dataset_offset",
    "encapsulated",
    "integer_string",
    "scan",
    "uid_text",
    "valid_uid",
]

_IMPLICIT = frozenset({"1.2.840.10008.1.2", "1.2.840.113619.5.2"})
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
#: Deflated Explicit VR, JPIP Referenced Deflate, JPIP HTJ2K Referenced Deflate (PS3.5 annex A.5, A.7, A.9).
DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})
_UID = re.compile(r"(?:0|[1-9][0-9]*+)(?:\.(?:0|[1-9][0-9]*+))*+")
#: A dual-personality file may begin as TIFF or BigTIFF (PS3.10 section 7.1).
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
#: The preamble is the implementation's to use (PS3.10 section 7.1), and some modalities keep numbers there. What a file type
#: is known by stands in its first bytes, or is text further on.
_SIGNATURE_BYTES = 16
_TEXT_IN_PREAMBLE = re.compile(rb"[ -~]{4}")
_REQUIRED_UIDS = (
    (0x00080016, "SOPClassUID"),
    (0x00080018, "SOPInstanceUID"),
    (0x0020000D, "StudyInstanceUID"),
    (0x0020000E, "SeriesInstanceUID"),
)
#: Elements of the File Meta Information and those of the data set that they repeat (PS3.10 table 7.1-1).
_SAME_UIDS = {0x00020002: 0x00080016, 0x00020003: 0x00080018}


def valid_uid(value: str) -> bool:
    """Return whether *value* is a UID (PS3.5 section 9.1)."""
    return len(value) <= 64 and _is_uid(value)


# The objects of a series share three of their four UIDs.
@lru_cache(maxsize=512)
def _is_uid(value: str) -> bool:
    return _UID.fullmatch(value) is not None


def uid_text(value: object) -> str:
    """Return a raw UI value without its padding."""
    return value.decode("ascii", "replace").rstrip("\0 ") if isinstance(value, bytes) else ""


@lru_cache(maxsize=256)
def encapsulated(TransferSyntaxUID: str) -> bool | None:
    """Return whether pixel data is encapsulated in this transfer syntax; ``None`` where it is not a known one."""
    uid = UID(TransferSyntaxUID)
    return bool(uid.is_encapsulated) if uid.is_transfer_syntax and not uid.is_private else None


def scan(
    stream: BinaryIO, transfer_syntax: str | None = None, *, limits: ScanLimits = LIMITS, instance: bool = True
) -> Scan:
    """Return the elements of the object in *stream*, having proved it complete.

    Args:
        stream: seekable; a Part 10 file, or a bare data set when *transfer_syntax* is given.
        transfer_syntax: of the bare data set; ``None`` for a Part 10 file.
        instance: it must be a SOP Instance, with its UIDs and all of its pixels; else any data set, such as a query.

    Raises:
        MalformedError: naming the tag and the byte where the object breaks the standard or a limit.
    """
    source = FileSource(stream)
    size = source.size()
    window = Window(source)
    meta: Elements = []
    start = 0
    if transfer_syntax is None:
        start, meta = _file_meta(window, size, limits)
        transfer_syntax = uid_text(next((e.value for e in meta if e.tag == 0x00020010), b""))
    if not valid_uid(transfer_syntax):
        # A guess may read one object as another (PS3.5 annex A), so there is none, as for a data set without preamble.
        raise MalformedError(
            "The transfer syntax is missing or not a UID.",
            where="(0002,0010)",
            remedy="Name it in the File Meta Information (PS3.10 section 7.1).",
        )
    walker = Walker(window, limits, little_endian=transfer_syntax != _BIG_ENDIAN)
    implicit = transfer_syntax in _IMPLICIT
    deflated = transfer_syntax in DEFLATED
    if deflated:
        walker.window = Window(
            InflatingSource(stream, start, max_bytes=limits.inflated_bytes, max_ratio=limits.inflated_ratio)
        )
        dataset = walker.walk(0, None, implicit=False)
    else:
        dataset = walker.walk(start, size, implicit=implicit)
    top = {element.tag: element for element in dataset}
    if instance:
        _check_uids(top, meta)
        _check_pixels(top, transfer_syntax, walker.little_endian)
    return Scan(
        TransferSyntaxUID=transfer_syntax,
        meta=meta,
        dataset=dataset,
        top=top,
        little_endian=walker.little_endian,
        implicit=implicit,
        deflated=deflated,
        size=size,
        element_count=walker.count,
    )


def _another_type(preamble: bytes) -> bool:
    return any(preamble[:_SIGNATURE_BYTES]) or _TEXT_IN_PREAMBLE.search(preamble) is not None


def _file_meta(window: Window, size: int, limits: ScanLimits) -> tuple[int, Elements]:
    index = window.index(0, 132)
    if index < 0 or window.data[128:132] != b"DICM":
        raise MalformedError(
            "This is not a DICOM Part 10 file.", where="byte 128", remedy="Send DICOM Part 10 (PS3.10)."
        )
    preamble = window.data[:128]
    if preamble.count(0) != 128 and not preamble.startswith(_TIFF) and _another_type(preamble):
        raise MalformedError(
            "The preamble holds bytes of another file type.",
            where="byte 0",
            remedy="Clear the 128 bytes of the preamble.",
        )
    walker = Walker(window, limits, little_endian=True)
    meta = walker.walk(132, size, implicit=False, meta=True)
    end = meta[-1].offset + meta[-1].length if meta else 132
    if meta and meta[0].tag == 0x00020000 and isinstance(meta[0].value, bytes):
        stated = int.from_bytes(meta[0].value, "little")
        if meta[0].offset + 4 + stated != end:
            raise MalformedError(
                "The length of the File Meta Information is wrong.", where="(0002,0000) at byte 132", remedy=WHOLE
            )
    if not meta:
        raise MalformedError(
            "The File Meta Information is missing.", where="byte 132", remedy="Send DICOM Part 10 (PS3.10)."
        )
    return end, meta


def _check_uids(top: dict[int, Element], meta: Elements) -> None:
    for tag, keyword in _REQUIRED_UIDS:
        element = top.get(tag)
        if element is None or not valid_uid(uid_text(element.value)):
            raise MalformedError(
                f"{keyword} is missing or not a UID.",
                where=name_of(tag),
                remedy="Give the object valid UIDs (PS3.5 section 9).",
            )
    for element in meta:
        match = _SAME_UIDS.get(element.tag)
        if match is not None and uid_text(element.value) != uid_text(top[match].value):
            raise MalformedError(
                "The File Meta Information names another object than the data set.",
                where=name_of(element.tag),
                remedy=WHOLE,
            )


def _check_pixels(top: dict[int, Element], transfer_syntax: str, little_endian: bool) -> None:
    """Native pixel data must hold every frame (PS3.5 section 8.1.1), whatever a 32-bit product would say."""
    pixels = top.get(PIXEL_DATA) or top.get(0x7FE00008) or top.get(0x7FE00009)
    if pixels is None:
        return
    kind = encapsulated(transfer_syntax)
    if pixels.fragments:
        if kind is False:
            raise MalformedError(
                "The pixel data is encapsulated but the transfer syntax is native.",
                where=name_of(pixels.tag),
                remedy=WHOLE,
            )
        return
    if kind or not pixels.length:
        return

    def number(tag: int) -> int | None:
        element = top.get(tag)
        if element is None or not element.value:
            return None
        if element.vr not in {"US", "US or SS"} or not isinstance(element.value, bytes) or len(element.value) != 2:
            raise MalformedError("The element must be one US value.", where=name_of(tag), remedy=WHOLE)
        return int.from_bytes(element.value, "little" if little_endian else "big")

    rows, columns, bits = number(0x00280010), number(0x00280011), number(0x00280100)
    if rows is None or columns is None or bits is None:
        return
    samples = number(0x00280002) or 1
    photometric = uid_text(getattr(top.get(0x00280004), "value", b""))
    frames = integer_string(getattr(top.get(0x00280008), "value", b"")) or 1
    # Native 4:2:2 and 4:2:0 share chroma samples between pixels (PS3.3 C.7.6.3.1.2).
    halves = {"YBR_FULL_422": 4, "YBR_PARTIAL_422": 4, "YBR_PARTIAL_420": 3}.get(photometric, samples * 2)
    needed = (rows * columns * halves * bits * frames + 15) // 16
    if pixels.length < needed:
        raise MalformedError(
            f"The pixel data has {pixels.length} bytes where {needed} are needed.",
            where=f"{name_of(pixels.tag)} at byte {pixels.offset}",
            remedy=WHOLE,
        )


def integer_string(value: object) -> int | None:
    """Return an IS value as a number, or ``None`` where it is not one."""
    text = value.decode("ascii", "replace").strip(" \0") if isinstance(value, bytes) else ""
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,12}", text) else None


def dataset_offset(stream: BinaryIO) -> int:
    """Return where the data set begins in a Part 10 file; only its first bytes are looked at.

    Raises:
        MalformedError: the stream does not begin with preamble and File Meta Information.
    """
    source = FileSource(stream)
    return _file_meta(Window(source), source.size(), LIMITS)[0]
