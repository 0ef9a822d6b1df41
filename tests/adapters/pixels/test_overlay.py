"""Overlay planes against bits that were set one by one (PS3.3 C.9.2, PS3.5 section 8.1.2)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image as Pictures
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

from adapters.pixels.look import Look
from adapters.pixels.pool import Pool
from adapters.pixels.stored import StoredPixels
from adapters.pixels.syntaxes import RLE
from tests.support.pixels import NATIVE, pool, sample


@pytest.fixture(scope="module")
def children() -> Iterator[Pool]:
    one = pool()
    yield one
    one.close()


def shown(data: bytes, children: Pool, number: int = 1) -> Any:
    with StoredPixels(io.BytesIO(data), max_frame_bytes=1 << 24) as stored:
        made = stored.picture(children, number, Look(media_type="image/png"))
    return np.asarray(Pictures.open(io.BytesIO(made)))


def packed(*planes: Any) -> bytes:
    """Return planes bit by bit, lowest first, without padding between them."""
    value = 0
    for place, bit in enumerate(bit for plane in planes for bit in np.asarray(plane).reshape(-1)):
        value |= int(bit) << place
    size = (sum(np.asarray(plane).size for plane in planes) + 7) // 8
    return value.to_bytes(size + size % 2, "little")


def with_overlay(data: bytes, *planes: Any, group: int = 0x6000, **more: Any) -> bytes:
    """Return *data* with an overlay of these planes; *more* adds to the group by element, as ``e0015=...``."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    rows, columns = np.asarray(planes[0]).shape
    bits = packed(*planes)
    big = dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian
    if big:
        bits = b"".join(bits[at : at + 2][::-1] for at in range(0, len(bits), 2))
    values: dict[str, tuple[str, Any]] = {
        "e0010": ("US", rows), "e0011": ("US", columns), "e0040": ("CS", "G"), "e0050": ("SS", [1, 1]),
        "e0100": ("US", 1), "e0102": ("US", 0), "e3000": ("OW", bits), **more,
    }  # fmt: skip
    for name, (vr, value) in values.items():
        dataset.add_new((group, int(name[1:], 16)), vr, value)
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


DARK = np.zeros((13, 11), np.uint16)
CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]])


@pytest.mark.parametrize("syntax", [*NATIVE, RLE])
def test_an_overlay_is_drawn_white_at_its_origin_in_every_syntax(syntax: str, children: Pool) -> None:
    data = with_overlay(sample(DARK, syntax, WindowCenter=100, WindowWidth=50), CROSS, e0050=("SS", [4, 6]))
    expected = np.zeros((13, 11), int)
    expected[3:6, 5:8] = CROSS * 255
    assert np.array_equal(shown(data, children), expected)


def test_the_part_of_an_overlay_beyond_the_image_is_cut(children: Pool) -> None:
    data = with_overlay(sample(DARK, WindowCenter=100, WindowWidth=50), CROSS, e0050=("SS", [0, 10]))
    expected = np.zeros((13, 11), int)
    expected[0:2, 9:11] = CROSS[1:, :2] * 255
    assert np.array_equal(shown(data, children), expected)


def test_sixteen_groups_are_drawn_and_curves_are_not(children: Pool) -> None:
    data = sample(DARK, WindowCenter=100, WindowWidth=50)
    for row, group in enumerate((0x6000, 0x6002, 0x600A, 0x601E)):
        data = with_overlay(data, [[1]], group=group, e0050=("SS", [row + 1, 1]))
    assert (shown(data, children)[:, 0] > 0).tolist() == [True] * 4 + [False] * 9


def test_colour_gets_white_overlays_too(children: Pool) -> None:
    data = with_overlay(sample(np.full((13, 11, 3), (9, 80, 3), np.uint8)), CROSS)
    found = shown(data, children)
    assert found[0, 1].tolist() == [255, 255, 255]
    assert found[0, 0].tolist() == [9, 80, 3]


def test_overlays_of_many_frames_go_with_their_frames(children: Pool) -> None:
    frames = sample(np.zeros((4, 3, 5), np.uint16), frames=4, WindowCenter=100, WindowWidth=50)
    first, second = np.zeros((3, 5), int), np.zeros((3, 5), int)
    first[0, 1], second[2, 4] = 1, 1
    data = with_overlay(frames, first, second, e0015=("IS", 2), e0051=("US", 2))
    found = [shown(data, children, number) > 0 for number in (1, 2, 3, 4)]
    assert [one.tolist() for one in found] == [
        (first * 0 > 0).tolist(), (first > 0).tolist(), (second > 0).tolist(), (first * 0 > 0).tolist(),
    ]  # fmt: skip
    everywhere = with_overlay(frames, first)
    assert all(np.array_equal(shown(everywhere, children, number) > 0, first > 0) for number in (1, 2, 3, 4))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_overlays_in_the_unused_bits_of_old_images_are_drawn(syntax: str, children: Pool) -> None:
    array = DARK.copy()
    array[2, 3] |= 1 << 13
    array[5, 5] |= 1 << 12
    data = pydicom.dcmread(io.BytesIO(sample(array, syntax, WindowCenter=100, WindowWidth=50)))
    for name, vr, value in (
        (0x0010, "US", 13), (0x0011, "US", 11), (0x0050, "SS", [1, 1]), (0x0100, "US", 16), (0x0102, "US", 13),
    ):  # fmt: skip
        data.add_new((0x6000, name), vr, value)
    out = io.BytesIO()
    data.save_as(out, enforce_file_format=True)
    found = shown(out.getvalue(), children)
    assert np.argwhere(found).tolist() == [[2, 3]]


def test_a_bit_position_within_the_pixels_draws_nothing(children: Pool) -> None:
    array = DARK.copy()
    array[2, 3] = 1 << 4
    data = pydicom.dcmread(io.BytesIO(sample(array, WindowCenter=2000, WindowWidth=50)))
    for name, value in ((0x0010, 13), (0x0011, 11), (0x0100, 16), (0x0102, 4)):
        data.add_new((0x6000, name), "US", value)
    out = io.BytesIO()
    data.save_as(out, enforce_file_format=True)
    assert shown(out.getvalue(), children).max() == 0


def test_an_overlay_that_promises_more_than_it_has_is_drawn_as_far_as_it_goes(children: Pool) -> None:
    plain = sample(DARK, WindowCenter=100, WindowWidth=50)
    data = with_overlay(plain, np.ones((2, 8), int), e0010=("US", 0xFFFF), e0011=("US", 8))
    found = shown(data, children) > 0
    assert found[:2, :8].all()
    assert found.sum() == 16
    empty = with_overlay(plain, CROSS, e3000=("OW", b""))
    assert shown(empty, children).max() == 0
