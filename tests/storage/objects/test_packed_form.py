"""The packed form gives back every byte of the original, whatever stands around the frames and whatever is in them."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.pixels.lossless import PooledCodec
from hub.config import Settings
from hub.errors import Category, HubError
from hub.ports.packing import NotPackableError
from hub.recompression import JPEG_2000, JPEG_LS
from storage.objects import packed_form
from storage.objects.memory import MemorySpool
from tests.support.part10 import Part10

MIB = 1 << 20
GO_ON = threading.Event()


@pytest.fixture(scope="module")
def codec() -> Iterator[PooledCodec]:
    opened = PooledCodec(Settings(pixel_processes=1))
    yield opened
    opened.close()


def packed(codec: PooledCodec, data: bytes, syntax: str = JPEG_LS) -> bytes:
    with MemorySpool(max_bytes=len(data) + MIB) as spool:
        packed_form.write(io.BytesIO(data), hashlib.sha256(data).hexdigest(), codec, syntax, spool, GO_ON)
        return spool.content()


def original(codec: PooledCodec, data: bytes, form: bytes) -> io.BufferedReader:
    handle = packed_form.original(io.BytesIO(form), hashlib.sha256(data).hexdigest(), codec)
    assert isinstance(handle, io.BufferedReader)
    return handle


def parts() -> st.SearchStrategy[Part10]:
    """Files of every shape that can be packed."""
    return st.builds(
        Part10,
        implicit=st.booleans(),
        rows=st.integers(1, 40),
        columns=st.integers(1, 40),
        frames=st.integers(1, 4),
        samples=st.sampled_from([1, 3]),
        planar=st.sampled_from([0, 1]),
        bits_allocated=st.sampled_from([8, 16]),
        bits_stored=st.sampled_from([8, 10, 12, 16]),
        signed=st.booleans(),
        photometric=st.sampled_from(["MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "PALETTE COLOR"]),
        overlay=st.booleans(),
        private_after=st.binary(max_size=40),
        padding=st.binary(max_size=31),
        surplus=st.integers(0, 5),
        content=st.sampled_from(["noise", "ramp", "constant", "high-bits"]),
        seed=st.integers(0, 1 << 30),
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(part=parts(), syntax=st.sampled_from([JPEG_LS, JPEG_2000]), cuts=st.lists(st.integers(0, 20_000), max_size=6))
def test_every_byte_comes_back_whole_and_in_parts(
    codec: PooledCodec, part: Part10, syntax: str, cuts: list[int]
) -> None:
    data = part.data()
    if syntax == JPEG_2000 and min(part.rows, part.columns) < 32:
        with pytest.raises(NotPackableError, match="too-small"):
            packed(codec, data, syntax)
        return
    form = packed(codec, data, syntax)
    with original(codec, data, form) as handle:
        assert handle.read() == data
        for at in cuts:
            handle.seek(at)
            assert handle.read(777) == data[at : at + 777]
        assert handle.seek(-3, io.SEEK_END) == len(data) - 3
        assert handle.read() == data[-3:]


def test_the_same_object_always_gives_the_same_packed_form(codec: PooledCodec) -> None:
    data = Part10(rows=64, columns=64, frames=3, content="ramp").data()
    assert packed(codec, data) == packed(codec, data)


def test_signed_and_smooth_pixels_take_much_less_room(codec: PooledCodec) -> None:
    data = Part10(rows=128, columns=128, frames=2, signed=True, content="ramp").data()
    assert len(packed(codec, data)) < len(data) / 2
    assert len(packed(codec, data, JPEG_2000)) < len(data) / 2


class Counting:
    """A codec that tells which frames it was asked to decode."""

    def __init__(self, codec: PooledCodec) -> None:
        self.codec = codec
        self.decoded = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.codec, name)

    def decode(self, *arguments: object) -> bytes:
        self.decoded += 1
        return self.codec.decode(*arguments)  # type: ignore[arg-type]


def test_a_part_costs_the_frames_that_it_touches_and_the_header_costs_none(codec: PooledCodec) -> None:
    part = Part10(rows=256, columns=256, frames=20, content="ramp")
    data = part.data()
    counting = Counting(codec)
    handle = packed_form.original(
        io.BytesIO(packed(codec, data)),
        hashlib.sha256(data).hexdigest(),
        counting,  # type: ignore[arg-type]
    )
    with handle:
        assert handle.read(300) == data[:300]
        assert counting.decoded == 0
        frame = 256 * 256 * 2
        start = data.index(part.pixels())
        handle.seek(start + 7 * frame)
        assert handle.read(frame) == data[start + 7 * frame : start + 8 * frame]
        assert counting.decoded == 1


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (Part10(bits_allocated=32, bits_stored=32), "pixels-unsupported"),
        (Part10(photometric="YBR_FULL_422", samples=3, bits_allocated=8, bits_stored=8), "pixels-unsupported"),
        (Part10(syntax="1.2.840.10008.1.2.2"), "unreadable"),
        (Part10(with_pixels=False), "no-pixels"),
    ],
)
def test_what_cannot_be_packed_says_why(codec: PooledCodec, part: Part10, reason: str) -> None:
    with pytest.raises(NotPackableError) as caught:
        packed(codec, part.data())
    assert caught.value.reason == reason


def test_what_is_no_dicom_file_is_not_packed(codec: PooledCodec) -> None:
    with pytest.raises(NotPackableError) as caught:
        packed(codec, b"no DICOM file at all" * 20)
    assert caught.value.reason == "unreadable"


@pytest.mark.parametrize("cut", [1, 12, 40])
def test_a_packed_form_that_lost_its_end_is_damaged(codec: PooledCodec, cut: int) -> None:
    data = Part10().data()
    with pytest.raises(HubError) as caught:
        original(codec, data, packed(codec, data)[:-cut])
    assert caught.value.category is Category.FAULT


def test_the_packed_form_of_another_object_is_not_taken(codec: PooledCodec) -> None:
    data, other = Part10(seed=1).data(), Part10(seed=2).data()
    with pytest.raises(HubError) as caught:
        original(codec, other, packed(codec, data))
    assert caught.value.category is Category.FAULT


def test_packing_ends_when_the_hub_stops(codec: PooledCodec) -> None:
    stopping = threading.Event()
    stopping.set()
    data = Part10().data()
    with MemorySpool(max_bytes=MIB) as spool, pytest.raises(HubError) as caught:
        packed_form.write(io.BytesIO(data), "0" * 64, codec, JPEG_LS, spool, stopping)
    assert caught.value.category is Category.INTERRUPTED
