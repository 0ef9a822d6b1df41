"""What the first eight bytes of a little endian element say: tag, value representation and length (PS3.5 section 7.1)."""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import TypeAlias

from fhir_mappings.dicom.elements import BINARY_VRS, LONG_VRS, PIXEL_DATA, SHORT_VRS, implicit_vr

#: Values that may be as long as the object: pixels, encapsulated documents, waveforms, spectra.
BULK = frozenset({PIXEL_DATA, 0x7FE00008, 0x7FE00009, 0x7FE00001, 0x7FE00002, 0x00420011, 0x54001010, 0x56000020})
#: Groups that no data set may hold (PS3.5 section 7.1, PS3.10 section 7.1).
FORBIDDEN_GROUPS = frozenset({0x0000, 0x0001, 0x0002, 0x0003, 0x0005, 0x0007, 0xFFFF})
VR_NAMES = {vr.encode(): vr for vr in SHORT_VRS | LONG_VRS}
_EXPLICIT = Struct("<HH2sH").unpack
_IMPLICIT = Struct("<HHI").unpack

#: Tag, VR and length; a length below zero needs a second look.
Start: TypeAlias = tuple[int, str, int]
#: In place of the length of an explicit element: the next four bytes hold it.
LATER = -1


# The same few dozen starts of elements stand in each object of a series. The caches hold what the bytes themselves say, so
# a sender of nonsense can make them forget but not make them wrong.
@lru_cache(maxsize=2048)
def explicit_start(start: bytes) -> Start | None:
    """Return tag, VR and length from the first eight bytes of an element, ``None`` where only a careful look will do."""
    group, element, name, length = _EXPLICIT(start)
    tag, vr = group << 16 | element, VR_NAMES.get(name)
    if vr is None or vr == "SQ" or group in FORBIDDEN_GROUPS or group == 0xFFFE or tag in BULK:
        return None
    return tag, vr, length if vr in SHORT_VRS else LATER


@lru_cache(maxsize=256)
def meta_start(start: bytes) -> Start | None:
    """As :func:`explicit_start`, in the File Meta Information."""
    group, element, name, length = _EXPLICIT(start)
    vr = VR_NAMES.get(name)
    if vr is None or vr == "SQ" or group != 2:
        return None
    return group << 16 | element, vr, length if vr in SHORT_VRS else LATER


@lru_cache(maxsize=2048)
def implicit_start(start: bytes) -> Start | None:
    """As :func:`explicit_start`, in Implicit VR; the length of an opaque value is inverted, which marks it."""
    group, element, length = _IMPLICIT(start)
    tag = group << 16 | element
    vr = implicit_vr(tag)
    if vr == "SQ" or group in FORBIDDEN_GROUPS or group == 0xFFFE or tag in BULK:
        return None
    return tag, vr, ~length if vr in BINARY_VRS else length
