"""One pass over the elements of a data set, which trusts nothing it is told (PS3.5 section 7).

No recursion: what is open lies on a stack of its own, so hostile nesting costs no stack of the interpreter. Every length
is checked against what encloses it before it is believed. Nearly all elements are plain, so runs of them are taken in one
short loop; whatever is not plain is left for the long one to judge.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct

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
    implicit_vr,
    name_of,
)
from fhir_mappings.dicom.scan_limits import ScanLimits
from fhir_mappings.dicom.starts import (
    BULK,
    FORBIDDEN_GROUPS,
    VR_NAMES,
    Start,
    explicit_start,
    implicit_start,
    meta_start,
)
from fhir_mappings.dicom.window import Window
from fhir_mappings.errors import MalformedError

#: What the sender is told to do about an object that breaks off or contradicts itself.
WHOLE = "Send the object again, whole."
_LITTLE, _BIG = (
    tuple(Struct(mark + form).unpack_from for form in ("HHI", "HH", "H", "I")) for mark in ("<", ">")
)  # fmt: skip


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


class Walker:
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
        return MalformedError(f"{message}.", where=f"{name_of(tag)} at byte {pos}", remedy=WHOLE)
