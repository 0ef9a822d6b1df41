"""Whole instances turned into another transfer syntax, and pictures of them, by way of child processes."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image as Pictures
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from adapters.pixels.look import Look
from adapters.pixels.pool import Pool
from adapters.pixels.stored import StoredPixels, transcodable
from adapters.pixels.syntaxes import DEFLATED_FRAMES, EXPLICIT_LITTLE, JPEG_2000, JPEG_BASELINE, JPEG_LS, RLE
from hub.errors import HubError
from tests.support.pixels import DCMCJPEG, EXACT, LOSSY, NATIVE, Counted, by_dcmtk, pool, ramp, sample

MAX = 150 << 20


@pytest.fixture(scope="module")
def children() -> Iterator[Pool]:
    one = pool()
    yield one
    one.close()


def opened(data: bytes, max_frame_bytes: int = MAX) -> StoredPixels:
    return StoredPixels(io.BytesIO(data), max_frame_bytes=max_frame_bytes)


def transcoded(data: bytes, target: str, children: Any) -> pydicom.Dataset:
    with opened(data) as stored:
        return pydicom.dcmread(io.BytesIO(b"".join(stored.transcode(children, target))))


def frame(data: bytes, children: Any, number: int = 1) -> bytes:
    with opened(data) as stored:
        return stored.transcoded(children, number, EXPLICIT_LITTLE)[0]


@pytest.mark.parametrize("target", [EXPLICIT_LITTLE, JPEG_LS, JPEG_2000, RLE])
@pytest.mark.parametrize("syntax", EXACT)
def test_exact_syntaxes_become_each_other_without_a_changed_value(syntax: str, target: str, children: Pool) -> None:
    for pixels in (ramp(2, signed=True), ramp(2, samples=3)):
        data = sample(pixels, syntax, frames=2)
        found = transcoded(data, target, children)
        assert found.file_meta.TransferSyntaxUID == target
        assert np.array_equal(found.pixel_array, pixels)
        assert found.SOPInstanceUID == pydicom.dcmread(io.BytesIO(data)).SOPInstanceUID
        assert str(found.PatientName) == "ZHENG^WEI=郑^伟"


def deflated(pixels: bytes, count: int, **attributes: Any) -> bytes:
    """Return an object of *count* frames, each deflated by itself."""
    data = pydicom.dcmread(io.BytesIO(sample(ramp(count), EXPLICIT_LITTLE, frames=count)))
    data.file_meta.TransferSyntaxUID = JPEG_LS
    for name, value in attributes.items():
        setattr(data, name, value)
    size = len(pixels) // count
    made = []
    for start in range(0, len(pixels), size):
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        made.append(deflater.compress(pixels[start : start + size]) + deflater.flush())
    data.PixelData = encapsulate([one + b"\0" * (len(one) % 2) for one in made])
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    out = io.BytesIO()
    data.save_as(out)
    # The library has no name for this syntax yet; the one it wrote is as long as this one with its padding.
    return out.getvalue().replace(JPEG_LS.encode(), DEFLATED_FRAMES.encode() + b"\0")


def test_frames_that_are_deflated_one_by_one_become_native_ones(children: Pool) -> None:
    pixels = ramp(2)
    found = transcoded(deflated(pixels.tobytes(), 2), EXPLICIT_LITTLE, children)
    assert np.array_equal(found.pixel_array, pixels)
    assert np.array_equal(transcoded(deflated(pixels.tobytes(), 2), JPEG_LS, children).pixel_array, pixels)


@pytest.mark.parametrize(("side", "joined"), [(8, True), (3, False)])
def test_deflated_segments_become_native_where_their_frames_end_with_a_byte(
    side: int, joined: bool, children: Pool
) -> None:
    frame_bytes = (side * side + 7) // 8
    bits = bytes(range(1, 1 + 2 * frame_bytes))
    shape = {"Rows": side, "Columns": side, "BitsAllocated": 1, "BitsStored": 1, "HighBit": 0, "PixelRepresentation": 0}
    data = deflated(bits, 2, **shape)
    if joined:
        assert transcoded(data, EXPLICIT_LITTLE, children).PixelData == bits
        return
    with pytest.raises(HubError) as caught:
        transcoded(data, EXPLICIT_LITTLE, children)
    assert caught.value.status == 406


@pytest.mark.parametrize(("syntax", "bound"), LOSSY.items())
def test_lossy_images_are_decoded_within_their_error(syntax: str, bound: int, children: Pool) -> None:
    pixels = ramp()
    found = transcoded(sample(pixels, syntax), EXPLICIT_LITTLE, children)
    assert np.abs(found.pixel_array.astype(int) - pixels.astype(int)).max() <= bound


def test_lossy_jpeg_colour_becomes_rgb_and_says_so(children: Pool) -> None:
    pixels = ramp(samples=3)
    smooth = np.asarray(Pictures.fromarray(pixels).resize((8, 6)).resize((48, 40)))
    found = transcoded(
        sample(smooth, JPEG_BASELINE, PhotometricInterpretation="YBR_FULL_422"), EXPLICIT_LITTLE, children
    )
    assert found.PhotometricInterpretation == "RGB"
    raw = np.frombuffer(found.PixelData, np.uint8)[: smooth.size].reshape(smooth.shape)
    assert np.abs(raw.astype(int) - smooth.astype(int)).max() <= 12


@pytest.mark.tool("dcmcjpeg")
@pytest.mark.parametrize(("syntax", "option"), DCMCJPEG.items())
def test_what_dcmtk_compresses_is_decoded(syntax: str, option: str, children: Pool, tmp_path: Path) -> None:
    pixels = ramp()
    data = by_dcmtk(sample(pixels), option, tmp_path)
    assert pydicom.dcmread(io.BytesIO(data)).file_meta.TransferSyntaxUID == syntax
    found = np.frombuffer(frame(data, children), np.uint16).reshape(pixels.shape)
    # Process 4 is lossy; the ramp jumps, which is the worst case for its transform.
    bound = 64 if option == "+ee" else 0
    assert np.abs(found.astype(int) - pixels.astype(int)).max() <= bound


@pytest.mark.parametrize("syntax", NATIVE)
def test_every_byte_of_the_header_outlives_a_change_of_native_syntax(syntax: str, children: Pool) -> None:
    item = Dataset()
    item.add_new(0x00283006, "US", [1, 2, 3])
    item.add_new(0x00283002, "US", [3, 0, 16])
    names = {"PatientName": "郑^伟", "SpecificCharacterSet": "GB18030", "FrameTime": "33.3"}
    data = sample(ramp(), syntax, VOILUTSequence=[item], SliceThickness="1.25", RescaleSlope="2", **names)
    found = transcoded(data, EXPLICIT_LITTLE, children)
    before = pydicom.dcmread(io.BytesIO(data))
    before.decode()
    found.decode()
    for element in before:
        if element.tag != 0x7FE00010:
            assert found[element.tag].value == element.value, element.tag


def test_of_three_hundred_frames_only_the_one_asked_for_is_decoded(children: Pool) -> None:
    pixels = ramp(300, rows=8, columns=8)
    counted = Counted(children)
    with opened(sample(pixels, JPEG_LS, frames=300)) as stored:
        data, _ = stored.transcoded(counted, 217, EXPLICIT_LITTLE)  # type: ignore[arg-type]
    assert counted.jobs == ["frame"]
    assert np.array_equal(np.frombuffer(data, np.uint16).reshape(8, 8), pixels[216])


def test_a_header_that_promises_too_much_is_refused_before_anything_is_decoded() -> None:
    data = sample(ramp(), JPEG_LS).replace(b"\x28\0\x10\0US\2\0\x28\0", b"\x28\0\x10\0US\2\0\x60\xea")
    data = data.replace(b"\x28\0\x11\0US\2\0\x30\0", b"\x28\0\x11\0US\2\0\x60\xea")
    counted = Counted(pool())
    with opened(data) as stored, pytest.raises(HubError) as caught:
        stored.transcoded(counted, 1, EXPLICIT_LITTLE)  # type: ignore[arg-type]
    assert (caught.value.status, counted.jobs) == (406, [])
    with opened(sample(ramp(), JPEG_LS, NumberOfFrames=2_000_000)) as stored, pytest.raises(HubError):
        stored.transcoded(counted, 1_999_999, EXPLICIT_LITTLE)  # type: ignore[arg-type]
    with opened(sample(ramp()), max_frame_bytes=100) as stored, pytest.raises(HubError):
        _ = stored.image
    assert counted.jobs == []


@pytest.mark.parametrize("noise", [b"\0\0", b"\xff\xd8\xff", b"\xff\x4f\xff\x51" + b"\0" * 40, bytes(range(256))])
def test_bytes_that_are_no_code_stream_cost_one_request(noise: bytes, children: Pool) -> None:
    from tests.support.images import ct

    for syntax in (JPEG_BASELINE, "1.2.840.10008.1.2.4.70", JPEG_LS, JPEG_2000, RLE):
        data = ct(compressed=[noise + b"\0" * (len(noise) % 2)], meta={"TransferSyntaxUID": syntax})
        with pytest.raises(HubError) as caught:
            frame(data, children)
        assert caught.value.status == 406
    assert frame(sample(ramp(), JPEG_LS), children)


def test_what_has_no_pixels_may_only_change_its_native_encoding() -> None:
    assert transcodable(NATIVE[1], has_pixels=False, target=EXPLICIT_LITTLE)
    assert not transcodable(NATIVE[1], has_pixels=False, target=JPEG_LS)
    assert not transcodable("1.2.840.10008.1.2.4.102", has_pixels=True, target=EXPLICIT_LITTLE)
    assert not transcodable(JPEG_LS, has_pixels=True, target=JPEG_BASELINE)
    assert not transcodable("1.2.3.4", has_pixels=True, target=EXPLICIT_LITTLE)


# --- pictures


def picture(data: bytes, children: Pool, number: int = 1, **look: Any) -> Any:
    with opened(data) as stored:
        made = stored.picture(children, number, Look(**{"media_type": "image/png", **look}))
    return Pictures.open(io.BytesIO(made))


@pytest.mark.parametrize("syntax", EXACT)
def test_a_picture_is_the_same_whatever_the_syntax(syntax: str, children: Pool) -> None:
    for pixels in (ramp(signed=True), ramp(samples=3)):
        one = np.asarray(picture(sample(pixels, syntax), children))
        assert np.array_equal(one, np.asarray(picture(sample(pixels), children)))
        if pixels.ndim == 3:
            assert np.array_equal(one, pixels)


def test_palette_colour_is_looked_up(children: Pool) -> None:
    index = (np.arange(40 * 48) % 4).reshape(40, 48).astype(np.uint8)
    tables = {"Red": [0, 255, 0, 128], "Green": [0, 0, 255, 64], "Blue": [9, 0, 0, 32]}
    values: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour, table in tables.items():
        values[f"{colour}PaletteColorLookupTableDescriptor"] = [4, 0, 16]
        values[f"{colour}PaletteColorLookupTableData"] = b"".join((one * 257).to_bytes(2, "little") for one in table)
    found = np.asarray(picture(sample(index, **values), children))
    assert found[0, 1].tolist() == [255, 0, 0]
    assert found[0, 3].tolist() == [128, 64, 32]


def test_the_viewport_cuts_mirrors_and_keeps_proportions(children: Pool) -> None:
    data = sample(ramp(samples=3))
    whole = picture(data, children)
    assert picture(data, children, size=(96.0, 96.0)).size == (96, 80)
    cut = picture(data, children, size=(10.0, 10.0), source=(2.0, 3.0, 10.0, 10.0))
    assert np.array_equal(np.asarray(cut), np.asarray(whole)[3:13, 2:12])
    mirrored = picture(data, children, size=(48.0, 40.0), source=(0.0, 0.0, -48.0, None))
    assert np.array_equal(np.asarray(mirrored), np.asarray(whole)[:, ::-1])
    half = picture(data, children, region=(0.5, 0.0, 1.0, 1.0))
    assert np.array_equal(np.asarray(half), np.asarray(whole)[:, 24:])
    with pytest.raises(HubError) as caught:
        picture(data, children, source=(60.0, 0.0, 5.0, 5.0), size=(5.0, 5.0))
    assert caught.value.where == "viewport"


def test_a_colour_profile_goes_along_when_it_is_asked_for(children: Pool) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = sample(ramp(samples=3), ICCProfile=profile + b"\0" * (len(profile) % 2))
    assert "icc_profile" not in picture(data, children).info
    assert picture(data, children, icc="yes").info["icc_profile"].startswith(profile[:4])
    assert picture(data, children, icc="srgb").info["icc_profile"]
    assert picture(sample(ramp(samples=3)), children, icc="srgb").info["icc_profile"]
    with pytest.raises(HubError):
        picture(sample(ramp(samples=3), ICCProfile=b"no profile"), children, icc="srgb")


def test_texts_are_drawn_in_their_corners(children: Pool) -> None:
    data = sample(np.zeros((200, 300), np.uint16))
    plain = np.asarray(picture(data, children))
    marked = np.asarray(picture(data, children, lines={"left": [("郑伟", "zhengwei")], "right": [("CT", "CT")]}))
    changed = np.argwhere(plain != marked)
    assert changed[:, 0].max() < 40
    assert changed[:, 1].min() < 30
    assert changed[:, 1].max() > 270
