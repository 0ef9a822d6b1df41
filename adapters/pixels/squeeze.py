"""Frames squeezed without loss, and back to the very bytes; runs in a child process only.

What counts here is bytes, not what they mean: every bit of a sample is kept, also those beyond Bits Stored, in which old
overlays and padding live. The least sample of a frame is taken from all of them, so that signed ones need no sign, and the
code stream has as many bits as the widest needs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from adapters.pixels.codec import decode, encode
from adapters.pixels.image import Image
from adapters.pixels.syntaxes import EXPLICIT_LITTLE

Array = np.ndarray[Any, np.dtype[Any]]

#: JPEG-LS has no code stream of one bit (ISO/IEC 14495-1 table C.1).
_LEAST_BITS = 2


def squeeze(image: Image, target: str, frame: bytes) -> tuple[int, int, bytes]:
    """Return base, bits and code stream of a native frame; no bits and the frame itself where it would not get smaller.

    Raises:
        HubError: unsupported where *target* cannot hold such pixels.
    """
    array, _ = decode(image, EXPLICIT_LITTLE, frame)
    base = int(array.min())
    bits = max(_LEAST_BITS, (int(array.max()) - base).bit_length())
    lifted = (array.astype(np.int32) - base).astype(_dtype(image))
    try:
        data, _ = encode(lifted, _plain(image, bits), target)
    except RuntimeError:
        # So an encoder says that noise does not fit into the room of the frame itself.
        return 0, 0, frame
    return (base, bits, data) if len(data) < len(frame) else (0, 0, frame)


def restore(image: Image, syntax: str, base: int, bits: int, data: bytes) -> bytes:
    """Return the native frame that was squeezed into a code stream."""
    plain = _plain(image, bits)
    lifted, _ = decode(plain, syntax, data)
    array = (lifted.astype(np.int32) + base).astype(f"<{'i' if image.signed else 'u'}{image.bits_allocated // 8}")
    if image.samples > 1 and image.planar == 1:
        array = array.transpose(2, 0, 1)
    return np.ascontiguousarray(array).tobytes()


def _plain(image: Image, bits: int) -> Image:
    """Return what the lifted samples are to a codec: unsigned, by pixel, with no bit unused."""
    # Three samples are three numbers here, whatever colours they mean; encoders take no other kind in all depths.
    photometric = "MONOCHROME2" if image.samples == 1 else "RGB"
    return replace(image, bits_stored=bits, high_bit=bits - 1, signed=False, planar=0, photometric=photometric)


def _dtype(image: Image) -> np.dtype[Any]:
    return np.dtype(f"<u{image.bits_allocated // 8}")
