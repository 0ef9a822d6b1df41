"""Frames cut out of native and encapsulated pixel data."""

from __future__ import annotations

import io
import struct
from typing import Any

import pytest

from adapters.pixels import frames
from hub.errors import Category, HubError


def item(data: bytes) -> bytes:
    return b"\xfe\xff\x00\xe0" + struct.pack("<I", len(data)) + data


def stream(*fragments: bytes, table: bytes = b"", before: bytes = b"\0" * 16) -> io.BytesIO:
    end = b"\xfe\xff\xdd\xe0\0\0\0\0"
    return io.BytesIO(before + b"\xff" * 4 + item(table) + b"".join(item(one) for one in fragments) + end)


OFFSET = 20


def cut(source: io.BytesIO, count: int, attributes: dict[str, Any] | None = None) -> list[bytes]:
    found = frames.encapsulated_frames(source, attributes or {}, OFFSET, count)
    return [frames.read(source, pieces) for pieces in found]


def test_all_fragments_of_a_single_frame_are_one() -> None:
    assert cut(stream(b"ab", b"cd"), 1) == [b"abcd"]
    assert frames.is_encapsulated(stream(b"ab"), OFFSET)


def test_the_basic_offset_table_groups_fragments() -> None:
    # Frame 1 is fragments 1 and 2 (10 bytes each with their heads), frame 2 is fragment 3.
    assert cut(stream(b"ab", b"cd", b"ef", table=struct.pack("<II", 0, 20)), 2) == [b"abcd", b"ef"]


def test_the_extended_offset_table_groups_fragments() -> None:
    from base64 import b64encode

    table = {"7FE00001": {"vr": "OV", "InlineBinary": b64encode(struct.pack("<QQ", 0, 20)).decode()}}
    assert cut(stream(b"ab", b"cd", b"ef"), 2, table) == [b"abcd", b"ef"]


def test_without_a_table_the_start_of_each_image_tells() -> None:
    assert cut(stream(b"\xff\xd8a", b"bb", b"\xff\xd8c"), 2) == [b"\xff\xd8abb", b"\xff\xd8c"]


@pytest.mark.parametrize("table", [b"", struct.pack("<II", 0, 7), struct.pack("<II", 20, 0)])
def test_frames_that_cannot_be_told_apart_are_refused(table: bytes) -> None:
    with pytest.raises(HubError) as caught:
        cut(stream(b"ab", b"cd", b"ef", table=table), 2)
    assert caught.value.status == 406


def native(data: bytes, number: int, syntax: str = frames.EXPLICIT_LITTLE, **values: Any) -> bytes:
    tags = {
        "rows": "00280010",
        "columns": "00280011",
        "samples": "00280002",
        "bits": "00280100",
        "photometric": "00280004",
    }
    header = {tags[name]: {"Value": [value]} for name, value in values.items()}
    length = len(data).to_bytes(4, "big" if syntax == frames.EXPLICIT_BIG else "little")
    return frames.native_frame(io.BytesIO(b"\0" * 3 + length + data), header, 7, syntax, number)


def test_one_bit_frames_are_shifted_to_their_first_bit() -> None:
    # Two frames of 3 x 3 pixels: 9 bits each, lowest bit first.
    bits = 0b101010101_111000111
    data = bits.to_bytes(3, "little")
    assert int.from_bytes(native(data, 1, rows=3, columns=3, bits=1), "little") == 0b111000111
    assert int.from_bytes(native(data, 2, rows=3, columns=3, bits=1), "little") == 0b101010101


def test_big_endian_words_come_out_little_endian() -> None:
    data = b"\x01\x02\x03\x04"
    assert native(data, 1, frames.EXPLICIT_BIG, rows=1, columns=2, bits=16) == b"\x02\x01\x04\x03"


def test_big_endian_bytes_keep_their_order_and_frames_may_begin_inside_a_word() -> None:
    header = {"00280010": {"Value": [1]}, "00280011": {"Value": [3]}, "00280100": {"Value": [8]}}

    def second(vr: bytes, data: bytes) -> bytes:
        source = io.BytesIO(b"\x7f\xe0\0\x10" + vr + b"\0\0" + struct.pack(">I", len(data)) + data)
        return frames.native_frame(source, header, 12, frames.EXPLICIT_BIG, 2)

    assert second(b"OB", b"abcdef") == b"def"
    assert second(b"OW", b"badcfe") == b"def"


def test_subsampled_colour_has_two_samples_for_each_pixel() -> None:
    assert native(bytes(8), 2, rows=1, columns=2, samples=3, bits=8, photometric="YBR_FULL_422") == bytes(4)


def test_a_frame_beyond_the_object_is_a_fault_and_pixels_without_size_are_absent() -> None:
    with pytest.raises(HubError):
        native(b"\0\0", 2, rows=1, columns=1, bits=16)
    with pytest.raises(HubError):
        native(b"\0\0", 1, rows=1, bits=16)


def test_empty_pixel_data_is_absent_whatever_follows_it() -> None:
    header = {"00280010": {"Value": [1]}, "00280011": {"Value": [1]}, "00280100": {"Value": [16]}}
    source = io.BytesIO(b"\xe0\x7f\x10\0OW\0\0" + bytes(4) + b"what follows")
    with pytest.raises(HubError) as caught:
        frames.native_frame(source, header, 12, frames.EXPLICIT_LITTLE, 1)
    assert caught.value.category is Category.NOT_FOUND
