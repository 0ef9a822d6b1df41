"""Frames decoded and encoded: exact where the syntax is, near where it is lossy, refused where they lie."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from adapters.pixels.codec import decode, encode
from adapters.pixels.image import Image
from adapters.pixels.syntaxes import DEFLATED_FRAMES, EXPLICIT_LITTLE, JPEG_2000, JPEG_LS, RLE
from hub.errors import Category, HubError
from tests.support.pixels import ramp


def image(array: Any, photometric: str = "", **changes: Any) -> Image:
    bits = array.dtype.itemsize * 8
    made = Image(
        rows=array.shape[0],
        columns=array.shape[1],
        samples=3 if array.ndim == 3 else 1,
        bits_allocated=bits,
        bits_stored=12 if bits == 16 else bits,
        high_bit=11 if bits == 16 else bits - 1,
        signed=array.dtype.kind == "i",
        photometric=photometric or ("RGB" if array.ndim == 3 else "MONOCHROME2"),
        planar=0,
    )
    return replace(made, **changes)


@pytest.mark.parametrize("target", [EXPLICIT_LITTLE, JPEG_LS, JPEG_2000, RLE])
@pytest.mark.parametrize(
    "array", [ramp(), ramp(signed=True), ramp(samples=3), ramp().astype(np.uint8)], ids=["u12", "s12", "rgb", "u8"]
)
def test_what_is_encoded_is_decoded_to_the_same_values(array: Any, target: str) -> None:
    data, described = encode(array, image(array), target)
    # The decoder sees what a reader of the transcoded header would.
    again, found = decode(described, target, data)
    assert again.dtype == array.dtype
    assert np.array_equal(again, array)
    assert found.photometric in {described.photometric, "RGB"}


def test_colour_in_ybr_stays_as_it_is_where_the_syntax_is_exact() -> None:
    array = ramp(samples=3)
    for target in (JPEG_LS, JPEG_2000, RLE):
        data, described = encode(array, image(array, "YBR_FULL"), target)
        assert described.photometric == "YBR_FULL"
        assert np.array_equal(decode(described, target, data)[0], array)


def test_native_colour_by_plane_and_subsampled_colour_come_out_by_pixel() -> None:
    array = ramp(samples=3)
    planes = array.transpose(2, 0, 1).tobytes()
    assert np.array_equal(decode(image(array, planar=1), EXPLICIT_LITTLE, planes)[0], array)
    shared = image(array, "YBR_FULL_422")
    data = b"".join(bytes([y, y + 1, 90, 160]) for y in range(0, 200, 2)).ljust(40 * 48 * 2, b"\0")
    whole, found = decode(shared, EXPLICIT_LITTLE, data)
    assert (found.photometric, whole[0, 0].tolist(), whole[0, 1].tolist()) == ("YBR_FULL", [0, 90, 160], [1, 90, 160])


def test_one_bit_pixels_go_in_and_out_of_their_bytes() -> None:
    bits = image(np.zeros((3, 3), np.uint8), bits_allocated=1, bits_stored=1, high_bit=0)
    array, _ = decode(bits, EXPLICIT_LITTLE, b"\x55\x01")
    assert array.reshape(-1).tolist() == [1, 0, 1, 0, 1, 0, 1, 0, 1]
    assert encode(array, bits, EXPLICIT_LITTLE)[0] == b"\x55\x01"
    with pytest.raises(HubError):
        encode(array, bits, JPEG_LS)


def test_bits_that_the_target_would_lose_are_not_lost_silently() -> None:
    array = ramp()
    array[0, 0] |= 0x8000
    for target in (JPEG_LS, JPEG_2000, RLE):
        with pytest.raises(HubError) as caught:
            encode(array, image(array), target)
        assert "would lose" in caught.value.message
    wide = ramp().astype(np.uint32)
    with pytest.raises(HubError):
        encode(wide, image(wide), JPEG_LS)
    small = ramp(rows=8, columns=8)
    with pytest.raises(HubError):
        encode(small, image(small), JPEG_2000)


@pytest.mark.parametrize("target", [JPEG_LS, JPEG_2000])
def test_a_code_stream_of_another_size_than_the_header_is_not_decoded(target: str) -> None:
    array = ramp()
    data, described = encode(array, image(array), target)
    # The decoder would allocate for 60000 x 60000 pixels.
    place = data.index(b"\xff\x51") + 6 if target == JPEG_2000 else data.index(b"\xff\xf7") + 5
    size = b"\0\0\xea\x60" * 2 if target == JPEG_2000 else b"\xea\x60" * 2
    bomb = data[:place] + size + data[place + len(size) :]
    with pytest.raises(HubError) as caught:
        decode(described, target, bomb)
    assert "60000 x 60000" in caught.value.message


def deflated(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    made = deflater.compress(data) + deflater.flush()
    return made + b"\0" * (len(made) % 2)


@pytest.mark.parametrize(
    "array", [ramp(), ramp(signed=True), ramp(samples=3), ramp(rows=3, columns=3).astype(np.uint8)],
    ids=["u12", "s12", "rgb", "odd"],
)  # fmt: skip
def test_a_deflated_frame_holds_the_native_one(array: Any) -> None:
    for padding in (b"", b"\0" * (array.nbytes % 2)):
        found, described = decode(image(array), DEFLATED_FRAMES, deflated(array.tobytes() + padding))
        assert found.dtype == array.dtype
        assert np.array_equal(found, array)
        assert described.planar == 0


def test_a_deflated_frame_of_one_bit_pixels_ends_with_its_last_byte() -> None:
    bits = image(np.zeros((3, 3), np.uint8), bits_allocated=1, bits_stored=1, high_bit=0)
    array, _ = decode(bits, DEFLATED_FRAMES, deflated(b"\x55\x01"))
    assert array.reshape(-1).tolist() == [1, 0, 1, 0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    "data",
    [deflated(bytes(40 * 48 * 2 - 2)), deflated(bytes(1 << 24)), deflated(bytes(4096))[:-8], b"\xff" * 64, b""],
    ids=["short", "bomb", "cut off", "noise", "nothing"],
)
def test_a_deflated_frame_of_another_size_than_the_header_is_refused(data: bytes) -> None:
    with pytest.raises(HubError) as caught:
        decode(image(ramp()), DEFLATED_FRAMES, data)
    assert caught.value.category is Category.INCORRECT
    assert "3840 bytes" in caught.value.message
