"""The scanner accepts whole objects in every form and refuses everything else with the place."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import zlib

import pytest

from fhir_mappings.dicom.elements import Element, Elements
from fhir_mappings.dicom.scanner import LIMITS, ScanLimits, scan
from fhir_mappings.errors import MalformedError
from tests.support.dicom import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    JPEG_LOSSLESS,
    ct_tags,
    encode,
    fragments,
    make_ct,
    part10,
)


def scanned(data: bytes, transfer_syntax: str | None = None) -> Elements:
    return scan(io.BytesIO(data), transfer_syntax).dataset


def value(elements: Elements, tag: int) -> object:
    return next(element.value for element in elements if element.tag == tag)


def raw_element(tag: int, vr: str, length: int, data: bytes = b"") -> bytes:
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode() + b"\0\0" + struct.pack("<I", length) + data


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("transfer_syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED])
def test_every_encoding_gives_the_same_elements(transfer_syntax: str, undefined: bool) -> None:
    found = scan(io.BytesIO(make_ct(transfer_syntax=transfer_syntax, undefined=undefined)))
    assert found.TransferSyntaxUID == transfer_syntax
    assert value(found.dataset, 0x00100010) == b"\xd6\xa3\xce\xb0"
    (item,) = value(found.dataset, 0x00400275)  # type: ignore[misc]
    assert [element.tag for element in item] == [0x00400007, 0x00401001]


def test_a_bare_data_set_is_scanned_when_the_transfer_syntax_is_given() -> None:
    assert value(scanned(encode(ct_tags(), IMPLICIT), IMPLICIT), 0x00100020) == b"10086 "


def test_encapsulated_fragments_are_walked_and_located() -> None:
    tags = ct_tags(more={0x7FE00010: ("OB", fragments(b"frame one", b"frame two!"))})
    data = make_ct(transfer_syntax=JPEG_LOSSLESS, more={0x7FE00010: ("OB", fragments(b"frame one", b"frame two!"))})
    pixels = scanned(data)[-1]
    assert pixels.fragments
    assert data[pixels.offset : pixels.offset + 4] == b"\xfe\xff\x00\xe0"
    assert pixels.offset + pixels.length == len(data)
    with pytest.raises(MalformedError, match="native"):
        scanned(encode(tags), EXPLICIT)


@pytest.mark.parametrize("transfer_syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED, JPEG_LOSSLESS])
def test_an_object_cut_at_any_97th_byte_is_refused(transfer_syntax: str) -> None:
    more = {0x7FE00010: ("OB", fragments(b"x" * 600))} if transfer_syntax == JPEG_LOSSLESS else {}
    whole = make_ct(transfer_syntax=transfer_syntax, undefined=True, more=more)
    scanned(whole)
    for cut in {*range(0, len(whole), 97), len(whole) - 1, len(whole) - 2}:
        with pytest.raises(MalformedError):
            scanned(whole[:cut])


def test_bytes_after_the_last_element_are_refused() -> None:
    with pytest.raises(MalformedError):
        scanned(make_ct() + b"\0\0")
    with pytest.raises(MalformedError, match="follow"):
        scanned(make_ct(transfer_syntax=DEFLATED) + b"more")


def test_a_deflate_bomb_is_refused_without_being_inflated() -> None:
    bomb = encode(ct_tags()) + raw_element(0x7FE10010, "OB", 64 << 20, b"\0" * (64 << 20))
    deflater = zlib.compressobj(9, wbits=-15)
    data = deflater.compress(bomb) + deflater.flush()
    del bomb
    tracemalloc.start()
    with pytest.raises(MalformedError, match="grows beyond"):
        scanned(data, DEFLATED)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 << 20


def test_a_hundred_thousand_nested_sequences_are_refused() -> None:
    level = raw_element(0x00400275, "SQ", 0xFFFFFFFF) + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    with pytest.raises(MalformedError, match="32 deep"):
        scanned(level * 100_000, EXPLICIT)
    level = b"\x40\x00\x75\x02\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    with pytest.raises(MalformedError, match="32 deep"):
        scanned(level * 100_000, IMPLICIT)


def test_sequences_32_deep_are_read() -> None:
    tags: dict[int, tuple[str, object]] = {0x00401001: ("SH", "RP1")}
    for _ in range(31):
        tags = {0x00400275: ("SQ", [tags])}
    scanned(encode(ct_tags(more={0x00400275: ("SQ", [tags])})), EXPLICIT)  # type: ignore[list-item, dict-item]


def test_items_and_elements_are_counted() -> None:
    data = encode(ct_tags(more={0x00400275: ("SQ", [{}] * 9)}))
    scan(io.BytesIO(data), EXPLICIT, limits=ScanLimits(items=9))
    with pytest.raises(MalformedError, match="more than 8 items"):
        scan(io.BytesIO(data), EXPLICIT, limits=ScanLimits(items=8))
    with pytest.raises(MalformedError, match="more than 20 elements"):
        scan(io.BytesIO(data), EXPLICIT, limits=ScanLimits(elements=20))


def test_a_length_beyond_its_parent_is_refused_though_the_file_is_long_enough() -> None:
    tags = encode({0x00400007: ("LO", "0123456789")})
    longer = tags[:6] + struct.pack("<H", 40) + tags[8:]
    item = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(longer)) + longer
    data = encode({t: v for t, v in ct_tags().items() if t < 0x00400000})
    data += raw_element(0x00400275, "SQ", len(item), item) + encode({0x7FE00010: ("OW", b"\0" * 512)})
    with pytest.raises(MalformedError, match="runs past") as caught:
        scanned(data, EXPLICIT)
    assert caught.value.where.startswith("(0040,0007) at byte ")


@pytest.mark.parametrize("uid", ["../../etc/x", "1.02.3", "1..2", "", "1." + "2" * 64])
@pytest.mark.parametrize("tag", [0x00080016, 0x00080018, 0x0020000D, 0x0020000E])
def test_wrong_uids_are_refused(tag: int, uid: str) -> None:
    with pytest.raises(MalformedError, match="not a UID"):
        scanned(encode(ct_tags(more={tag: ("UI", uid)})), EXPLICIT)


def test_native_pixels_must_hold_every_frame() -> None:
    # 65,535 x 65,535 x 16 bit x 2**31 frames overflows 64 bits; the product must still be right.
    for more in (
        {0x7FE00010: ("OW", b"\0" * 510)},
        {0x00280008: ("IS", "2")},
        {0x00280010: ("US", 65535), 0x00280011: ("US", 65535), 0x00280008: ("IS", "2147483647")},
    ):
        with pytest.raises(MalformedError, match="are needed"):
            scanned(encode(ct_tags(more=more)), EXPLICIT)  # type: ignore[arg-type]
    with pytest.raises(MalformedError, match="one US"):
        scanned(encode(ct_tags(more={0x00280010: ("UL", 16)})), EXPLICIT)


def test_an_element_that_occurs_twice_is_refused() -> None:
    data = encode(ct_tags())
    with pytest.raises(MalformedError, match="twice"):
        scanned(data + encode({0x00100020: ("LO", "10087")}), EXPLICIT)


@pytest.mark.parametrize("start", [b"MZ", b"\x7fELF", b"%PDF", b"#!/bin/sh", b"PK\3\4", b"<html>", b" "])
def test_a_preamble_of_another_file_type_is_refused(start: bytes) -> None:
    data = make_ct()
    with pytest.raises(MalformedError, match="another file type"):
        scanned(start + data[len(start) :])


def test_a_tiff_preamble_is_taken() -> None:
    scanned(b"II*\0\x08\0\0\0" + make_ct()[8:])


def test_the_file_meta_must_name_the_same_object() -> None:
    with pytest.raises(MalformedError, match="another object"):
        scanned(
            part10(
                encode(ct_tags()), sop_class="1.2.840.10008.5.1.4.1.1.2", sop_instance="1.2.3", transfer_syntax=EXPLICIT
            )
        )
    with pytest.raises(MalformedError, match="Part 10"):
        scanned(encode(ct_tags()))
    data = make_ct()
    with pytest.raises(MalformedError, match="length of the File Meta"):
        scanned(data[:140] + b"\1" + data[141:])


def test_unknown_representations_and_stray_delimiters_are_refused() -> None:
    data = encode(ct_tags())
    for extra in (
        b"\xe1\x7f\x10\x00??\0\0",
        b"\xfe\xff\x0d\xe0\0\0\0\0",
        b"\xfe\xff\xdd\xe0\0\0\0\0",
        b"\xfe\xff\x00\xe0\0\0\0\0",
        raw_element(0x7FE10010, "OB", 0xFFFFFFFF),
        encode({0x00020010: ("UI", EXPLICIT)}),
    ):
        with pytest.raises(MalformedError):
            scanned(data + extra, EXPLICIT)


def test_an_unknown_sequence_is_read_as_implicit() -> None:
    inner = encode({0x00400007: ("LO", "x")}, IMPLICIT)
    item = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(inner)) + inner
    data = encode(ct_tags()) + raw_element(0x7FE10010, "UN", 0xFFFFFFFF, item + b"\xfe\xff\xdd\xe0\0\0\0\0")
    (inside,) = value(scanned(data, EXPLICIT), 0x7FE10010)  # type: ignore[misc]
    assert isinstance(inside[0], Element)
    assert inside[0].tag == 0x00400007


def test_long_values_stay_in_the_object() -> None:
    more = {
        0x00091010: ("OB", b"\1" * 1026),
        0x00091011: ("OB", b"\1" * 1024),
        0x00091012: ("UT", "x" * (LIMITS.held_bytes + 2)),
    }
    found = scanned(encode(ct_tags(more=more)), EXPLICIT)  # type: ignore[arg-type]
    assert [value(found, tag) for tag in (0x00091010, 0x00091012)] == [None, None]
    assert value(found, 0x00091011) == b"\1" * 1024


def test_random_damage_is_refused_or_read_but_never_crashes() -> None:
    chooser = random.Random(20250611)
    forms = [
        make_ct(transfer_syntax=ts, undefined=u)
        for ts in (EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED)
        for u in (False, True)
    ]
    refused = 0
    for _ in range(1500):
        data = bytearray(chooser.choice(forms))
        for _ in range(chooser.randint(1, 4)):
            data[chooser.randrange(132, min(len(data), 1000))] = chooser.randrange(256)
        try:
            scanned(bytes(data))
        except MalformedError:
            refused += 1
    assert refused > 300
