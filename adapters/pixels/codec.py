"""Frames decoded and encoded, one at a time; runs in a child process only (PS3.5 section 8, annex A.4).

Decoding and encoding are exact wherever the stored syntax is; what a lossy JPEG holds as YBR comes out as RGB, because
its colour is not exact anyway and RGB is what every reader understands.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.encoders.base import get_encoder
from pydicom.pixels.processing import convert_color_space

from adapters.pixels.image import Image
from adapters.pixels.syntaxes import (
    DEFLATED_FRAMES,
    EXPLICIT_LITTLE,
    JPEG_2000,
    JPEG_2000_LOSSY,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LS,
    NATIVE,
    RLE,
)
from hub.errors import Category, HubError

Array = np.ndarray[Any, np.dtype[Any]]

#: Start-of-frame markers of JPEG and JPEG-LS (ISO/IEC 10918-1 table B.1, 14495-1 C.1.1).
_FRAME_MARKERS = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}) | {0xF7}
#: Markers that stand alone.
_LONE = frozenset({0x01, *range(0xD0, 0xD9)})
#: Widest samples that each encoder takes.
_MOST_BITS = {JPEG_LS: 16, JPEG_2000: 24, RLE: 32, JPEG_BASELINE: 8, JPEG_2000_LOSSY: 16}

#: The JPEG 2000 encoder makes six resolutions, each half of the one before, whatever it is told.
_LEAST_SIDE = 32


def decode(image: Image, syntax: str, data: bytes) -> tuple[Array, Image]:
    """Return the frame as (rows, columns[, samples]), colour by pixel, and what its pixels now are.

    Args:
        syntax: how *data* is encoded; native frames of any kind come as little endian bytes.

    Raises:
        HubError: incorrect where the bytes contradict the header.
    """
    if syntax in NATIVE:
        return _native(image, data)
    if syntax == DEFLATED_FRAMES:
        return _native(image, _inflated(image, data))
    _check_size(image, data)
    if syntax == JPEG_EXTENDED and image.bits_stored > 8:
        return _extended(image, data), image
    colour = image.samples > 1
    exact = syntax not in {JPEG_BASELINE, JPEG_EXTENDED}
    options: dict[str, Any] = {
        "rows": image.rows,
        "columns": image.columns,
        "number_of_frames": 1,
        "samples_per_pixel": image.samples,
        "bits_allocated": image.bits_allocated,
        "bits_stored": image.bits_stored,
        "pixel_representation": int(image.signed),
        "photometric_interpretation": image.photometric,
        "pixel_keyword": "PixelData",
    }
    if colour:
        options["planar_configuration"] = image.planar
    array, found = get_decoder(syntax).as_array(
        encapsulate([data + b"\0" * (len(data) % 2)], has_bot=False),
        index=0,
        # As stored; otherwise the decoder would turn YBR into RGB, which is not exact.
        raw=exact,
        **options,
    )
    # A codec may hold the samples in fewer bytes than the header says.
    return array.astype(_dtype(image), copy=False), replace(
        image, photometric=str(found["photometric_interpretation"]), planar=0
    )


def encode(array: Array, image: Image, target: str) -> tuple[bytes, Image]:
    """Return *array* as one frame of *target* without loss, and what its pixels then are.

    Raises:
        HubError: unsupported where the target cannot hold such pixels.
    """
    if target == EXPLICIT_LITTLE:
        if image.bits_allocated == 1:
            return np.packbits(array.reshape(-1), bitorder="little").tobytes(), image
        return np.ascontiguousarray(array, dtype=_dtype(image)).tobytes(), replace(image, planar=0)
    check_encodable(array, image, target)
    photometric = image.photometric
    if target == JPEG_2000 and photometric == "RGB":
        # The reversible colour transform compresses better and is exact (PS3.5 section 8.2.4).
        photometric = "YBR_RCT"
    options: dict[str, Any] = {"planar_configuration": 0} if image.samples > 1 else {}
    if target == RLE:
        options["encoding_plugin"] = "gdcm" if image.bits_allocated <= 16 else "pydicom"
    data = get_encoder(target).encode(
        np.ascontiguousarray(array),
        rows=image.rows,
        columns=image.columns,
        number_of_frames=1,
        samples_per_pixel=image.samples,
        bits_allocated=image.bits_allocated,
        bits_stored=image.bits_stored,
        pixel_representation=int(image.signed),
        photometric_interpretation=photometric,
        **options,
    )
    # RLE is by plane in itself, and says so by convention (PS3.5 annex G).
    return bytes(data), replace(image, photometric=photometric, planar=int(target == RLE and image.samples > 1))


def check_encodable(array: Array, image: Image, target: str) -> None:
    """Raise HubError(unsupported) where *target* cannot hold such pixels."""
    if image.bits_allocated == 1 or image.bits_stored > _MOST_BITS[target] or image.bits_allocated > 32:
        raise HubError(
            Category.UNSUPPORTED,
            f"This transfer syntax cannot hold {image.bits_stored} bits in {image.bits_allocated}.",
            where="(0028,0100)",
        )
    if target in {JPEG_2000, JPEG_2000_LOSSY} and min(image.rows, image.columns) < _LEAST_SIDE:
        raise HubError(
            Category.UNSUPPORTED,
            f"JPEG 2000 is made here of {_LEAST_SIDE} rows and columns or more.",
            where="(0028,0010)",
        )
    low, high = _range(image)
    if int(array.min()) < low or int(array.max()) > high or image.high_bit != image.bits_stored - 1:
        raise HubError(
            Category.UNSUPPORTED,
            "Bits outside the stored ones are in use, which this transfer syntax would lose.",
            where="(0028,0101)",
        )


def to_rgb(array: Array, image: Image) -> Array:
    """Return colour samples as RGB; they stay as they are where they are RGB."""
    if image.photometric in {"YBR_FULL", "YBR_FULL_422"}:
        return np.asarray(convert_color_space(array, "YBR_FULL", "RGB"))
    return array


def _dtype(image: Image) -> np.dtype[Any]:
    if image.bits_allocated == 1:
        return np.dtype("u1")
    return np.dtype(f"<{'i' if image.signed else 'u'}{image.bits_allocated // 8}")


def _range(image: Image) -> tuple[int, int]:
    if image.signed:
        return -(1 << image.bits_stored - 1), (1 << image.bits_stored - 1) - 1
    return 0, (1 << image.bits_stored) - 1


def _native(image: Image, data: bytes) -> tuple[Array, Image]:
    rows, columns, samples = image.rows, image.columns, image.samples
    if image.bits_allocated == 1:
        bits = np.unpackbits(np.frombuffer(data, "u1"), bitorder="little", count=rows * columns * samples)
        return bits.reshape(rows, columns), image
    flat = np.frombuffer(data, _dtype(image))
    if image.photometric == "YBR_FULL_422" and samples == 3:
        # Y1 Y2 Cb Cr for each two pixels of a row (PS3.3 section C.7.6.3.1.2).
        pairs = flat.reshape(rows, columns // 2, 4)
        whole = np.empty((rows, columns, 3), flat.dtype)
        whole[:, 0::2, 0], whole[:, 1::2, 0] = pairs[..., 0], pairs[..., 1]
        for place in (1, 2):
            whole[:, 0::2, place] = whole[:, 1::2, place] = pairs[..., place + 1]
        return whole, replace(image, photometric="YBR_FULL", planar=0)
    if samples == 1:
        return flat.reshape(rows, columns), image
    if image.planar == 1:
        return flat.reshape(samples, rows, columns).transpose(1, 2, 0), replace(image, planar=0)
    return flat.reshape(rows, columns, samples), image


def _inflated(image: Image, data: bytes) -> bytes:
    """Return the native bytes of a frame that was deflated by itself, as RFC 1951 has it (PS3.5 section A.4.13)."""
    samples = 2 if image.photometric == "YBR_FULL_422" and image.samples == 3 else image.samples
    size = (image.rows * image.columns * samples * image.bits_allocated + 7) // 8
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        # One byte more than the frame may be its padding; a second one shows that it is another frame than described.
        native = inflater.decompress(data, size + 2)
    except zlib.error:
        native = b""
    if len(native) not in {size, size + size % 2}:
        raise HubError(
            Category.INCORRECT,
            f"The deflated frame does not hold the {size} bytes that its header says.",
            where="(7FE0,0010)",
        )
    return native[:size]


def _extended(image: Image, data: bytes) -> Array:
    """Return a 12-bit frame of JPEG Extended (process 4), which the common decoder leaves out."""
    import gdcm

    writer = gdcm.ImageWriter()
    stored = writer.GetImage()
    stored.SetNumberOfDimensions(2)
    stored.SetDimensions((image.columns, image.rows, 1))
    kind = gdcm.PhotometricInterpretation.GetPIType(image.photometric)
    stored.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    stored.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    stored.SetPixelFormat(
        gdcm.PixelFormat(image.samples, image.bits_allocated, image.bits_stored, image.high_bit, int(image.signed))
    )
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(data)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    stored.SetDataElement(element)
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ExplicitVRLittleEndian))
    change.SetInput(stored)
    if not change.Change():
        raise HubError(Category.UNSUPPORTED, "The pixels cannot be decoded.", where="(7FE0,0010)")
    native = change.GetOutput().GetBuffer().encode("utf-8", "surrogateescape")
    return _native(replace(image, planar=0), native)[0]


def _check_size(image: Image, data: bytes) -> None:
    """Refuse a code stream whose own size is not the header's: the decoder would allocate for that one."""
    size = _jpeg_2000_size(data) if b"\xff\x4f\xff\x51" in data[:512] else _jpeg_size(data)
    if size is not None and size != (image.rows, image.columns):
        raise HubError(
            Category.UNSUPPORTED,
            f"The compressed frame is {size[0]} x {size[1]}, the header says {image.rows} x {image.columns}.",
            where="(7FE0,0010)",
        )


def _jpeg_2000_size(data: bytes) -> tuple[int, int] | None:
    at = data.index(b"\xff\x4f\xff\x51")
    if len(data) < at + 24:
        return None
    width, height, left, top = struct.unpack_from(">IIII", data, at + 8)
    return height - top, width - left


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in _LONE:
            at += 2
        elif marker in _FRAME_MARKERS:
            rows, columns = struct.unpack_from(">HH", data, at + 5)
            return rows, columns
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
