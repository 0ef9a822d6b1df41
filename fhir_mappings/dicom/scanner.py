"""Proof that a SOP Instance is whole and harmless, before any library parses it (PS3.5 section 7, PS3.10 section 7).

The common parser accepts truncated files and recurses into sequences, so this scanner stands in front: no recursion,
bounded memory, and every length checked against what encloses it. It reads headers only; pixel bytes are skipped by
their length, and the last element must end where the stream ends.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct
from typing import BinaryIO

from pydicom.uid import UID

from fhir_mappings.dicom.elements import (
    BINARY_VRS,
    ITEM,
    ITEM_END,
    PIXEL_DATA,
    SEQUENCE_END,
    SHORT_VRS,
    UNDEFINED,
    Element,
    Elements,
    Scan,
    implicit_vr,
    name_of,
)
from fhir_mappings.dicom.starts import (
    BULK,
    FORBIDDEN_GROUPS,
    VR_NAMES,
    Start,
    explicit_start,
    implicit_start,
    meta_start,
)
from fhir_mappings.dicom.window import FileSource, InflatingSource, Window
from fhir_mappings.errors import MalformedError

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
_WHOLE = "Send the object again, whole."
_LITTLE, _BIG = (
    tuple(Struct(mark + form).unpack_from for form in ("HHI", "HH", "H", "I")) for mark in ("<", ">")
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanLimits:
    """What one object may hold; far above real objects, far below what would hurt.

    Attributes:
        element_bytes: longest value other than pixels, documents, waveforms and spectra.
        held_bytes: longest text or number value handed on; longer ones stay in the object.
        held_binary_bytes: longest opaque value handed on.
        held_total_bytes: sum of the values handed on; what comes after them stays in the object.
    """

    depth: int = 32
    items: int = 50_000
    elements: int = 1_000_000
    element_bytes: int = 64 << 20
    held_bytes: int = 64 << 10
    held_binary_bytes: int = 1024
    held_total_bytes: int = 16 << 20
    inflated_bytes: int = 256 << 20
    inflated_ratio: int = 100


LIMITS = ScanLimits()


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
        raise MalformedError("The transfer syntax is missing or not a UID.", where="(0002,0010)", remedy=_WHOLE)
    walker = _Walker(window, limits, little_endian=transfer_syntax != _BIG_ENDIAN)
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
    walker = _Walker(window, limits, little_endian=True)
    meta = walker.walk(132, size, implicit=False, meta=True)
    end = meta[-1].offset + meta[-1].length if meta else 132
    if meta and meta[0].tag == 0x00020000 and isinstance(meta[0].value, bytes):
        stated = int.from_bytes(meta[0].value, "little")
        if meta[0].offset + 4 + stated != end:
            raise MalformedError(
                "The length of the File Meta Information is wrong.", where="(0002,0000) at byte 132", remedy=_WHOLE
            )
    if not meta:
        raise MalformedError(
            "The File Meta Information is missing.", where="byte 132", remedy="Send DICOM Part 10 (PS3.10)."
        )
    return end, meta


class _Frame:
    """An open data set, item or sequence."""

    __slots__ = ("elements", "end", "implicit", "items", "last", "seen", "tag", "undefined")

    def __init__(self, tag: int, end: int, *, undefined: bool, implicit: bool, items: list[Elements] | None) -> None:
        self.tag = tag
        self.end = end
        self.undefined = undefined
        self.implicit = implicit
        self.items = items
        self.elements: Elements = []
        self.last = -1
        self.seen: set[int] | None = None


_UNKNOWN_END = 1 << 62


class _Walker:
    """One pass over a data set with an explicit stack."""

    def __init__(self, window: Window, limits: ScanLimits, *, little_endian: bool) -> None:
        self.window = window
        self.limits = limits
        self.little_endian = little_endian
        self.count = 0
        self._held = 0
        self._text_bytes = min(limits.held_bytes, limits.element_bytes)
        self._tag_length, self._tag, self._u16, self._u32 = _LITTLE if little_endian else _BIG

    def walk(self, pos: int, size: int | None, *, implicit: bool, meta: bool = False) -> Elements:  # noqa: C901 - one loop, so that hostile nesting costs no stack
        """Return the elements from *pos* to *size* (``None``: to where the stream turns out to end).

        Args:
            meta: only the File Meta Information, which ends at the first element of another group.
        """
        root = _Frame(0, _UNKNOWN_END if size is None else size, undefined=False, implicit=implicit, items=None)
        frame, stack, depth = root, list[_Frame](), 0
        window = self.window
        while True:
            if frame.items is None and self.little_endian and pos < frame.end:
                pos = self._plain_elements(frame, pos, meta)
            if pos >= frame.end:
                if frame.undefined:
                    raise self._broken("The delimiter is missing", frame.tag, pos)
                if not stack:
                    return root.elements
                if frame.items is None:
                    depth -= 1
                frame = stack.pop()
                continue
            index = window.index(pos, 8)
            if index < 0:
                # Only the inflated form learns its end by reaching it.
                if frame is root and size is None and not window.data:
                    return root.elements
                raise self._broken("The object ends inside an element", frame.tag, pos)
            items = frame.items
            if items is not None:
                group, element, length = self._tag_length(window.data, index)
                tag = group << 16 | element
                if tag == SEQUENCE_END and frame.undefined and not length:
                    frame = stack.pop()
                    pos += 8
                    continue
                if tag != ITEM:
                    raise self._broken("A sequence holds something other than an item", tag, pos)
                if len(items) >= self.limits.items:
                    raise self._broken(f"The sequence has more than {self.limits.items} items", frame.tag, pos)
                depth += 1
                if depth > self.limits.depth:
                    raise self._broken(f"Sequences are nested more than {self.limits.depth} deep", frame.tag, pos)
                self._counted(tag, pos)
                pos += 8
                end = self._end(frame, ITEM, pos, length)
                child = _Frame(frame.tag, end, undefined=length == UNDEFINED, implicit=frame.implicit, items=None)
                items.append(child.elements)
                stack.append(frame)
                frame = child
                continue
            group, element = self._tag(window.data, index)
            tag = group << 16 | element
            if group == 0xFFFE:
                if tag == ITEM_END and frame.undefined and window.data[index + 4 : index + 8] == b"\0\0\0\0":
                    depth -= 1
                    frame = stack.pop()
                    pos += 8
                    continue
                raise self._broken("A delimiter stands where an element should", tag, pos)
            if meta:
                if group != 2:
                    return root.elements
            elif group in FORBIDDEN_GROUPS:
                raise self._broken("A data set cannot hold this group", tag, pos)
            self._counted(tag, pos)
            self._once(frame, tag, pos)
            here = pos
            if frame.implicit:
                vr = implicit_vr(tag)
                length = self._u32(window.data, index + 4)[0]
                pos += 8
            else:
                found = VR_NAMES.get(window.data[index + 4 : index + 6])
                if found is None:
                    raise self._broken("The value representation is unknown", tag, pos)
                vr = found
                if vr in SHORT_VRS:
                    length = self._u16(window.data, index + 6)[0]
                    pos += 8
                else:
                    index = window.index(pos, 12)
                    if index < 0:
                        raise self._broken("The object ends inside an element", tag, pos)
                    length = self._u32(window.data, index + 8)[0]
                    pos += 12
            if length == UNDEFINED and tag == PIXEL_DATA and vr != "SQ" and vr != "UN":
                end = self._fragments(tag, pos, frame.end)
                frame.elements.append(Element(tag, vr, None, pos, end - pos, fragments=True))
                pos = end
            elif vr == "SQ" or length == UNDEFINED:
                if vr not in {"SQ", "UN"} and not frame.implicit:
                    raise self._broken("Only sequences may have an undefined length", tag, here)
                if vr == "UN" and not self.little_endian:
                    raise self._broken("An unknown sequence cannot be read in big endian", tag, here)
                end = self._end(frame, tag, pos, length)
                inner: list[Elements] = []
                # An unknown sequence is always Implicit VR Little Endian inside (PS3.5 section 6.2.2).
                child = _Frame(
                    tag, end, undefined=length == UNDEFINED, implicit=frame.implicit or vr == "UN", items=inner
                )
                frame.elements.append(Element(tag, "SQ", inner, pos, length))
                stack.append(frame)
                frame = child
            else:
                end = self._end(frame, tag, pos, length)
                frame.elements.append(Element(tag, vr, self._value(tag, vr, pos, length), pos, length))
                pos = end

    def _plain_elements(self, frame: _Frame, pos: int, meta: bool) -> int:
        """Take the plain elements that stand one after the other from *pos*; return where the first other one begins.

        Nearly all elements are plain: known, ascending, and whole inside the window, what encloses them and every limit.
        Nothing is refused here: whatever is not plain is left where it is for :meth:`walk` to judge.
        """
        window, limits = self.window, self.limits
        data, base = window.data, window.base
        index = first = pos - base
        # An element takes eight bytes at least and holds fewer than it takes, so within this stretch no limit is reached.
        most = min(self._text_bytes, limits.held_total_bytes - self._held, (limits.elements - self.count) * 8)
        stop = min(len(data), frame.end - base, index + most)
        if index + 8 > stop or frame.seen is not None:
            return pos
        read_start: Callable[[bytes], Start | None] = (
            implicit_start if frame.implicit else meta_start if meta else explicit_start
        )
        elements, last = frame.elements, frame.last
        append, new, before, wider = elements.append, tuple.__new__, len(elements), 0
        while index + 8 <= stop:
            begin = index + 8
            found = read_start(data[index:begin])
            if found is None:
                break
            tag, vr, length = found
            if length < 0:
                begin, length = (begin, ~length) if frame.implicit else self._later(data, begin, stop)
                if begin + length > stop or tag <= last or (vr in BINARY_VRS and length > limits.held_binary_bytes):
                    break
                wider += begin - index - 8
            end = begin + length
            if end > stop or tag <= last:
                break
            append(new(Element, (tag, vr, data[begin:end], base + begin, length, False)))
            last = tag
            index = end
        taken = len(elements) - before
        frame.last = last
        self.count += taken
        self._held += index - first - taken * 8 - wider
        return base + index

    def _later(self, data: bytes, index: int, stop: int) -> tuple[int, int]:
        """Return where the value begins and its length, which stands in the four bytes at *index*."""
        return index + 4, self._u32(data, index)[0] if index + 4 <= stop else UNDEFINED

    def _value(self, tag: int, vr: str, pos: int, length: int) -> bytes | None:
        if tag not in BULK:
            if length > self.limits.element_bytes:
                raise self._broken(f"The value is longer than {self.limits.element_bytes} bytes", tag, pos)
            if (
                length <= (self.limits.held_binary_bytes if vr in BINARY_VRS else self.limits.held_bytes)
                and self._held + length <= self.limits.held_total_bytes
            ):
                self._held += length
                index = self.window.index(pos, length)
                if index < 0:
                    raise self._broken("The object ends inside a value", tag, pos)
                return self.window.data[index : index + length]
        # A stream of unknown end must show that the value is there.
        if length and self.window.index(pos + length - 1, 1) < 0:
            raise self._broken("The object ends inside a value", tag, pos)
        return None

    def _fragments(self, tag: int, pos: int, end: int) -> int:
        """Return where the encapsulated pixel data that begins at *pos* ends (PS3.5 annex A.4)."""
        first = True
        while True:
            index = self.window.index(pos, 8)
            if index < 0 or pos + 8 > end:
                raise self._broken("The pixel data has no end", tag, pos)
            group, element, length = self._tag_length(self.window.data, index)
            found = group << 16 | element
            pos += 8
            if found == SEQUENCE_END and not length and not first:
                return pos
            if found != ITEM or length == UNDEFINED or (first and length % 4):
                raise self._broken("The pixel data holds something other than fragments", tag, pos - 8)
            self._counted(tag, pos)
            pos += length
            if pos > end:
                raise self._broken("A pixel data fragment runs past the end", tag, pos - length)
            first = False

    def _end(self, frame: _Frame, tag: int, pos: int, length: int) -> int:
        if length == UNDEFINED:
            return frame.end
        if pos + length > frame.end:
            raise self._broken("The value runs past what encloses it", tag, pos)
        return pos + length

    def _once(self, frame: _Frame, tag: int, pos: int) -> None:
        """An element occurs at most once (PS3.5 section 7.1); two PatientIDs would let two readers see two patients."""
        if tag > frame.last and frame.seen is None:
            frame.last = tag
            return
        if frame.seen is None:
            frame.seen = {element.tag for element in frame.elements}
        if tag in frame.seen:
            raise self._broken("The element occurs twice", tag, pos)
        frame.seen.add(tag)

    def _counted(self, tag: int, pos: int) -> None:
        self.count += 1
        if self.count > self.limits.elements:
            raise self._broken(f"The object has more than {self.limits.elements} elements", tag, pos)

    @staticmethod
    def _broken(message: str, tag: int, pos: int) -> MalformedError:
        return MalformedError(f"{message}.", where=f"{name_of(tag)} at byte {pos}", remedy=_WHOLE)


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
                remedy=_WHOLE,
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
                remedy=_WHOLE,
            )
        return
    if kind or not pixels.length:
        return

    def number(tag: int) -> int | None:
        element = top.get(tag)
        if element is None or not element.value:
            return None
        if element.vr not in {"US", "US or SS"} or not isinstance(element.value, bytes) or len(element.value) != 2:
            raise MalformedError("The element must be one US value.", where=name_of(tag), remedy=_WHOLE)
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
            remedy=_WHOLE,
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
