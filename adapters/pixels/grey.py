"""From stored values to grey levels: Modality LUT, VOI LUT and Presentation LUT (PS3.3 C.11.1, C.11.2, C.11.6, PS3.4 N.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from adapters.pixels.image import Image

Array = np.ndarray[Any, np.dtype[Any]]
#: Center, width and function of a window.
Window = tuple[float, float, str]


def effective(header: Dataset, number: int) -> Dataset:
    """Return *header* with what the functional groups say of frame *number* (from 1) on top (PS3.3 C.7.6.16)."""
    found = Dataset()
    found.update(header)
    groups = []
    shared = header.get("SharedFunctionalGroupsSequence")
    each = header.get("PerFrameFunctionalGroupsSequence")
    if shared:
        groups.append(shared[0])
    if each and number <= len(each):
        groups.append(each[number - 1])
    for group in groups:
        for keyword in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            items = group.get(keyword)
            if items:
                found.update(items[0])
    return found


def levels(array: Array, image: Image, header: Dataset, window: Window | None) -> Array:
    """Return *array* as grey levels of 8 bits, 0 black.

    Args:
        window: asked for; ``None`` takes the object's own VOI LUT or first window, else all values there are.
    """
    values = modality(stored(array, image), header)
    own = header.get("VOILUTSequence")
    if window is None and own:
        shown = _table(values, own[0], stretch=True)
    else:
        chosen = window or own_window(header)
        shown = windowed(values, *chosen) if chosen is not None else _stretched(values, array, header)
    table = header.get("PresentationLUTSequence")
    if table:
        return np.rint(_presented(shown, table[0])).astype(np.uint8)
    # Both say the same of one image: its lowest value is white (PS3.3 C.7.6.3.1.2, C.8.11.3.1.2).
    inverse = image.photometric == "MONOCHROME1" or header.get("PresentationLUTShape") == "INVERSE"
    grey = np.rint(shown).astype(np.uint8)
    return 255 - grey if inverse else grey


def stored(array: Array, image: Image) -> Array:
    """Return the stored values alone, without what else is in the allocated bits (PS3.5 section 8.1.1)."""
    shift = image.high_bit + 1 - image.bits_stored
    if image.bits_stored == image.bits_allocated or image.bits_allocated == 1:
        return array
    up = image.bits_allocated - image.bits_stored - shift
    # Up to the top and down again: the shift of a signed type carries the sign.
    return np.right_shift(np.left_shift(array, up), up + shift)


def modality(values: Array, header: Dataset) -> Array:
    """Return values of the modality (Hounsfield units and the like)."""
    own = header.get("ModalityLUTSequence")
    if own:
        return _table(values, own[0], stretch=False)
    slope, intercept = header.get("RescaleSlope"), header.get("RescaleIntercept")
    result: Array = values.astype(np.float32 if values.dtype.itemsize <= 2 else np.float64)
    if slope is not None:
        result = result * float(slope)
    if intercept is not None:
        result = result + float(intercept)
    return result


def own_window(header: Dataset) -> Window | None:
    """Return the object's first window, or ``None`` where it has none that can be used."""
    center, width = (_first(header.get(keyword)) for keyword in ("WindowCenter", "WindowWidth"))
    if center is None or width is None:
        return None
    function = str(header.get("VOILUTFunction") or "LINEAR").lower().replace("_", "-")
    least = 1 if function == "linear" else 0
    return (center, width, function) if width >= least and width > 0 else None


def windowed(values: Array, center: float, width: float, function: str) -> Array:
    """Return *values* through a window, 0 to 255 (PS3.3 C.11.2.1.2, C.11.2.1.3)."""
    if function == "sigmoid":
        return 255.0 / (1.0 + np.exp(np.clip(-4.0 * (values - center) / width, -80.0, 80.0)))
    if function == "linear":
        center, width = center - 0.5, width - 1
    if width == 0:
        return np.where(values <= center, 0.0, 255.0)
    return np.clip(((values - center) / width + 0.5) * 255.0, 0.0, 255.0)


def _stretched(values: Array, array: Array, header: Dataset) -> Array:
    """Return all values that are there spread over the levels, padding apart (PS3.3 C.7.5.1.1.2)."""
    padding = _first(header.get("PixelPaddingValue"))
    inside = values
    if padding is not None:
        limit = _first(header.get("PixelPaddingRangeLimit"))
        low, high = sorted((padding, padding if limit is None else limit))
        kept = values[(array < low) | (array > high)]
        inside = kept if kept.size else values
    low, high = float(inside.min()), float(inside.max())
    if high <= low:
        return np.zeros(values.shape)
    return np.clip((values - low) / (high - low) * 255.0, 0.0, 255.0)


def _table(values: Array, item: Dataset, *, stretch: bool) -> Array:
    """Return *values* through a lookup table (PS3.3 C.11.1.1.1); with *stretch* its outputs are 0 to 255."""
    entries, first, bits = (int(one) for one in item.LUTDescriptor)
    entries = entries or 1 << 16
    if first >= 1 << 15 and values.min() < 0:
        first -= 1 << 16
    data = item.LUTData
    if isinstance(data, bytes):
        table = np.frombuffer(data, "u1" if len(data) < entries * 2 else "<u2")
    else:
        table = np.atleast_1d(np.asarray(data, dtype=np.int64)) & 0xFFFF
    table = table[:entries]
    index = np.clip(np.rint(values).astype(np.int64) - first, 0, len(table) - 1)
    out = table.astype(np.float32)[index]
    # Some tables say fewer bits than they use; the levels must not run over.
    most = max((1 << bits) - 1, int(table.max()), 1)
    return out * (255.0 / most) if stretch else out


def _presented(shown: Array, item: Dataset) -> Array:
    """Return levels of 0 to 255 through a Presentation LUT, whose input is all that the VOI LUT can give (PS3.3 C.11.6.1.1)."""
    entries = int(item.LUTDescriptor[0]) or 1 << 16
    most = (1 << int(item.LUTDescriptor[2])) - 1
    shifted = Dataset()
    shifted.update(item)
    shifted.LUTDescriptor = [entries, 0, item.LUTDescriptor[2]]
    return np.clip(_table(shown / 255.0 * (entries - 1), shifted, stretch=False) * (255.0 / most), 0.0, 255.0)


def _first(value: Any) -> float | None:
    if value is None or value == "":
        return None
    try:
        return float(value if isinstance(value, str | int | float) else value[0])
    except TypeError:
        return float(value)
    except (ValueError, IndexError):
        return None
