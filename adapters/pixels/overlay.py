"""Overlay planes: bitmaps over an image, in elements of their own or in its unused bits (PS3.3 C.9.2, C.9.3, PS3.5 8.1.2).

How a plane looks is left open where no presentation state says it (PS3.3 C.9.2): it is drawn white here, as common
archives do, graphics and regions of interest alike. Runs in a child process only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from adapters.pixels.image import Image

Array = np.ndarray[Any, np.dtype[Any]]

#: Sixteen planes may stand in one object, in the even groups (PS3.5 section 7.6).
GROUPS = range(0x6000, 0x6020, 2)
_ROWS, _COLUMNS, _FRAMES, _ORIGIN, _FRAME_ORIGIN = 0x0010, 0x0011, 0x0015, 0x0050, 0x0051
_BITS_ALLOCATED, _BIT_POSITION, _DATA = 0x0100, 0x0102, 0x3000


def planes(header: Dataset, image: Image, number: int, array: Array | None) -> Iterator[tuple[int, Array]]:
    """Yield the group of each overlay of frame *number* (from 1), and where it is set in the image.

    Args:
        array: the decoded frame, whose unused bits old objects keep planes in (PS3.5-2004 section 8.1.2); ``None``
            where the planes are not those of the image itself.
    """
    for group in GROUPS:
        found = plane(header, image, number, array, group)
        if found is not None:
            yield group, found


def plane(header: Dataset, image: Image, number: int, array: Array | None, group: int) -> Array | None:
    """Return where the overlay *group* is set in frame *number*, ``None`` where it has none."""
    if (group, _DATA) in header:
        return _own(header, image, number, group)
    position = _number(header, group, _BIT_POSITION, 0)
    unused = image.samples == 1 and 1 < image.bits_allocated == _number(header, group, _BITS_ALLOCATED, 0)
    inside = range(image.high_bit + 1 - image.bits_stored, image.high_bit + 1)
    if array is None or not unused or position in inside or not 0 <= position < image.bits_allocated:
        return None
    found: Array = np.bitwise_and(np.right_shift(array.view(f"u{array.dtype.itemsize}"), position), 1).astype(bool)
    return found


def _own(header: Dataset, image: Image, number: int, group: int) -> Array | None:
    rows, columns = _number(header, group, _ROWS, 0), _number(header, group, _COLUMNS, 0)
    index = 0
    if (group, _FRAMES) in header:
        # One frame after the other from the origin on; without a number it is one plane for all frames.
        index = number - _number(header, group, _FRAME_ORIGIN, 1)
        if not 0 <= index < _number(header, group, _FRAMES, 1):
            return None
    data = header[group, _DATA].value
    if not isinstance(data, bytes) or rows < 1 or columns < 1:
        return None
    # Frames follow each other without padding, lowest bit first; what the bytes do not hold is not set.
    start = index * rows * columns
    bits = np.unpackbits(np.frombuffer(data[start // 8 : (start + rows * columns + 7) // 8], "u1"), bitorder="little")
    bits = bits[start % 8 :][: rows * columns]
    rows = len(bits) // columns
    if not rows:
        return None
    return _placed(bits[: rows * columns].reshape(rows, columns).astype(bool), image, header, group)


def _placed(bits: Array, image: Image, header: Dataset, group: int) -> Array:
    """Return the plane as large as the image; its origin is row and column of its first point, from 1."""
    origin = header.get((group, _ORIGIN))
    values = [int(one) for one in origin.value] if origin is not None and origin.VM == 2 else [1, 1]
    top, left = (min(max(one - 1, -0x10000), 0x10000) for one in values)
    whole = np.zeros((image.rows, image.columns), bool)
    high, wide = min(bits.shape[0] + top, image.rows), min(bits.shape[1] + left, image.columns)
    first, begin = max(top, 0), max(left, 0)
    if high > first and wide > begin:
        whole[first:high, begin:wide] = bits[first - top : high - top, begin - left : wide - left]
    return whole


def _number(header: Dataset, group: int, element: int, default: int) -> int:
    found = header.get((group, element))
    try:
        return default if found is None or found.value in (None, "") else int(found.value)
    except (TypeError, ValueError):
        return default
