"""Values of objects that must be sought or changed before they go out: pixels of every kind, deflated and big endian ones."""

from __future__ import annotations

import io
import zlib
from typing import BinaryIO

from adapters.pixels.part10 import swapped
from fhir_mappings.dicom.elements import BINARY_VRS, Element
from fhir_mappings.dicom.scanner import scan
from hub.errors import Category, HubError
from hub.ports import InstanceRow

#: Frames and bulk values that must be changed on their way out (big endian, deflated) are held whole, up to this size.
_MAX_HELD_BYTES = 256 << 20
#: Pixel Data, and Float and Double Float Pixel Data, of which an object has one (PS3.3 sections C.7.6.3, C.7.6.24, C.7.6.25).
PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})


class Pixels:
    """The stream that holds an instance's pixel data of any kind, and where in it the value begins."""

    def __init__(self, stream: BinaryIO, row: InstanceRow) -> None:
        self._stream = stream
        self._row = row

    def __enter__(self) -> tuple[BinaryIO, int]:
        try:
            if self._row.pixel_offset is not None:
                return self._stream, self._row.pixel_offset
            if self._row.Rows is not None:
                return self._sought()
        except BaseException:
            self._stream.close()
            raise
        self._stream.close()
        raise _no_pixels()

    def _sought(self) -> tuple[BinaryIO, int]:
        """Return pixels that the index has no place of: deflated ones, and those in floating point."""
        scanned = scan(self._stream)
        element = next((one for one in scanned.dataset if one.tag in PIXELS), None)
        if element is None:
            raise _no_pixels()
        if not scanned.deflated:
            return self._stream, element.offset
        return io.BytesIO(inflate(self._stream, element.offset + element.length)), element.offset

    def __exit__(self, *exc: object) -> None:
        self._stream.close()


def _no_pixels() -> HubError:
    return HubError(Category.NOT_FOUND, "The instance has no pixel data.", where="(7FE0,0010)")


def inflate(stream: BinaryIO, wanted: int) -> bytes:
    """Return the first *wanted* bytes of the inflated data set of a Part 10 file; the scan has bounded them."""
    if wanted > _MAX_HELD_BYTES:
        raise HubError(Category.UNSUPPORTED, "The deflated value is too large.", remedy="Retrieve the whole instance.")
    stream.seek(140)
    stream.seek(144 + int.from_bytes(stream.read(4), "little"))
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(stream.read(), wanted)


def held(stream: BinaryIO, element: Element, *, deflated: bool, big: bool) -> bytes:
    """Return a value that cannot be sent straight from the object, as little endian bytes."""
    if element.length > _MAX_HELD_BYTES:
        raise HubError(Category.UNSUPPORTED, "The value is too large.", remedy="Retrieve the whole instance.")
    if deflated:
        return inflate(stream, element.offset + element.length)[element.offset :]
    stream.seek(element.offset)
    data = stream.read(element.length)
    return swapped(data, BINARY_VRS.get(element.vr, 1)) if big else data
