"""The scanner accepts whole objects in every form and refuses everything else with the place."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import zlib
from typing import Any

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_mappings.dicom import walker
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


def test_a_deflated_data_set_may_end_as_gzip_does_if_the_sum_is_right() -> None:
    """Some writers leave the trailer of RFC 1952 section 2.3.1 behind the stream; the DICOM library's test file has it."""
    data = encode(ct_tags())
    deflater = zlib.compressobj(9, wbits=-15)
    deflated = deflater.compress(data) + deflater.flush()
    trailer = struct.pack("<II", zlib.crc32(data), len(data))
    scanned(deflated + trailer, DEFLATED)
    scanned(deflated + trailer + b"\0", DEFLATED)
    for wrong in (trailer + b"\0\0", trailer[:7], b"\0" + trailer, struct.pack("<II", zlib.crc32(data) ^ 1, len(data))):
        with pytest.raises(MalformedError, match="follow the deflated"):
            scanned(deflated + wrong, DEFLATED)


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
    with pytest.raises(MalformedError, match="twice"):
        scanned(in_order_of(0x00100020, 0x00080020, 0x00100040, 0x00100040))
    data = encode(ct_tags())
    with pytest.raises(MalformedError, match="twice"):
        scanned(data + encode({0x00100020: ("LO", "10087")}), EXPLICIT)


@pytest.mark.parametrize("start", [b"MZ", b"\x7fELF", b"%PDF", b"#!/bin/sh", b"PK\3\4", b"<html>", b" "])
def test_a_preamble_of_another_file_type_is_refused(start: bytes) -> None:
    data = make_ct()
    with pytest.raises(MalformedError, match="another file type"):
        scanned(start + data[len(start) :])


@pytest.mark.parametrize(
    "hidden", [b"\0\0\0\x18ftypmp42", b"\0\0\1\0\1\0", b"\0" * 40 + b"%PDF-1.7", b"\0" * 20 + b"<html>"]
)
def test_a_preamble_that_hides_another_file_type_behind_zeros_is_refused(hidden: bytes) -> None:
    data = make_ct()
    with pytest.raises(MalformedError, match="another file type"):
        scanned(hidden + data[len(hidden) :])


def test_a_modality_may_keep_numbers_of_its_own_in_the_preamble() -> None:
    """A CT of the DICOM library's test files has a 1 in the 18th byte."""
    scanned(b"\0" * 17 + b"\1" + make_ct()[18:])


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


_MIXED: dict[int, tuple[str, Any]] = {
    0x00080005: ("CS", b"GB18030"),
    0x00090010: ("LO", "SYNTHETIC"),
    0x00091001: ("UN", b"\1\2\3\4"),
    0x00091002: ("OB", b"\1" * 90),
    0x00091003: ("UT", "some text"),
    0x00081140: ("SQ", [{0x00081150: ("UI", "1.2"), 0x00091001: ("UN", b"")}, {}]),
}
_FORMS = [
    make_ct(transfer_syntax=transfer_syntax, undefined=undefined, more=_MIXED)
    for transfer_syntax in (EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED)
    for undefined in (False, True)
] + [make_ct(transfer_syntax=JPEG_LOSSLESS, more={**_MIXED, 0x7FE00010: ("OB", fragments(b"one", b"two!"))})]
_SMALL_LIMITS = st.builds(
    ScanLimits,
    depth=st.sampled_from([1, 2, 32]),
    items=st.sampled_from([0, 1, 2, 50_000]),
    elements=st.sampled_from([5, 30, 40, 45, 46, 47, 48, 49, 50, 60, 1000]),
    element_bytes=st.sampled_from([16, 89, 90, 1 << 20]),
    held_bytes=st.sampled_from([0, 8, 9, 20, 1 << 16]),
    held_binary_bytes=st.sampled_from([0, 3, 4, 1024]),
    held_total_bytes=st.sampled_from([0, 50, 300, 400, 500, 1 << 20]),
)


def in_order_of(*order: int) -> bytes:
    tags = {**ct_tags(), **_MIXED}
    dataset = b"".join(encode({tag: tags[tag]}) for tag in (*order, *sorted(tags.keys() - set(order))))
    return part10(
        dataset, sop_class=str(tags[0x00080016][1]), sop_instance=str(tags[0x00080018][1]), transfer_syntax=EXPLICIT
    )


_FORMS += [
    in_order_of(0x00080020),
    in_order_of(0x00100020, 0x00080020),
    in_order_of(0x00100020, 0x00080020, 0x00100040, 0x00100040),
]


def outcome(data: bytes, limits: ScanLimits) -> object:
    try:
        return scan(io.BytesIO(data), limits=limits)
    except MalformedError as error:
        return str(error), error.where, error.remedy


@given(
    st.sampled_from(_FORMS),
    st.lists(st.tuples(st.integers(128, 1400), st.integers(0, 255)), max_size=3),
    st.integers(0, 60) | st.none(),
    st.just(LIMITS) | _SMALL_LIMITS,
)
@settings(max_examples=400, deadline=None)
def test_plain_elements_are_taken_as_the_careful_walk_would(
    form: bytes, damage: list[tuple[int, int]], missing: int | None, limits: ScanLimits
) -> None:
    data = bytearray(form)
    for place, byte in damage:
        data[min(place, len(data) - 1)] = byte
    if missing is not None:
        del data[len(data) - missing * missing :]
    found = outcome(bytes(data), limits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walker.Walker, "_plain_elements", lambda self, frame, pos, meta: pos)
        assert outcome(bytes(data), limits) == found


def test_an_object_cut_anywhere_is_judged_as_the_careful_walk_would() -> None:
    for form in _FORMS:
        cuts = range(len(form))
        found = [outcome(form[:cut], LIMITS) for cut in cuts]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(walker.Walker, "_plain_elements", lambda self, frame, pos, meta: pos)
            assert [outcome(form[:cut], LIMITS) for cut in cuts] == found


@pytest.mark.parametrize("form", _FORMS)
def test_every_limit_is_kept_as_the_careful_walk_would(form: bytes) -> None:
    limits = [ScanLimits(held_total_bytes=most) for most in range(0, 1200, 2)]
    limits += [ScanLimits(elements=most) for most in range(70)]
    found = [outcome(form, one) for one in limits]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walker.Walker, "_plain_elements", lambda self, frame, pos, meta: pos)
        assert [outcome(form, one) for one in limits] == found


@pytest.mark.parametrize("group", [0x0000, 0x0001, 0x0002, 0x0003, 0x0005, 0x0007, 0xFFFE, 0xFFFF])
@pytest.mark.parametrize("transfer_syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN])
def test_forbidden_groups_are_refused_in_every_encoding(transfer_syntax: str, group: int) -> None:
    with pytest.raises(MalformedError, match=r"cannot hold this group|delimiter stands"):
        scanned(encode(ct_tags(more={group << 16 | 0x0010: ("LO", "x")}), transfer_syntax), transfer_syntax)


_TAGS = st.sampled_from([0x00080021, 0x0008103E, 0x00101010, 0x00104000, 0x00181063, 0x00200010, 0x00281052]) | (
    st.builds(
        lambda group, number: group << 16 | number, st.sampled_from([0x0009, 0x0029]), st.integers(0x1000, 0x10FF)
    )
)
_VALUES = st.tuples(st.sampled_from(["LO", "DS", "UI", "FD", "UN", "OB", "UT"]), st.binary(max_size=40))


@given(
    st.dictionaries(_TAGS, _VALUES, max_size=12),
    st.lists(st.dictionaries(_TAGS, _VALUES, max_size=4), max_size=3),
    st.sampled_from([EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED]),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_the_elements_are_those_that_pydicom_reads(
    more: dict[int, Any], items: list[dict[int, Any]], transfer_syntax: str, undefined: bool
) -> None:
    data = make_ct(transfer_syntax=transfer_syntax, undefined=undefined, more={**more, 0x00081140: ("SQ", items)})

    # Pixels stay in the object, and pydicom turns the Pixel Representation into a number at once.
    left_out = {0x7FE00010, 0x00280103}

    def ours(elements: Elements) -> dict[int, object]:
        return {
            one.tag: [ours(item) for item in one.value] if isinstance(one.value, list) else one.value
            for one in elements
            if one.tag not in left_out
        }

    def theirs(dataset: pydicom.Dataset) -> dict[int, object]:
        found: dict[int, object] = {}
        for tag in list(dataset.keys()):
            element = dataset.get_item(tag)
            if element is not None and tag not in left_out:
                sequence = tag in {0x00081140, 0x00400275}
                found[int(tag)] = [theirs(item) for item in dataset[tag].value] if sequence else element.value or b""
        return found

    assert ours(scanned(data)) == theirs(pydicom.dcmread(io.BytesIO(data)))


def test_only_the_header_and_the_last_byte_are_read() -> None:
    class Counting(io.BytesIO):
        total = 0

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            self.total += len(data)
            return data

    stream = Counting(make_ct(size=512))
    scan(stream)
    assert stream.total <= 8192 + 1


def test_a_header_longer_than_one_look_is_read_whole() -> None:
    more = {0x00091000 + number: ("LO", "x" * 3000) for number in range(64)}
    found = scanned(make_ct(more=more))  # type: ignore[arg-type]
    assert [value(found, tag) for tag in more] == [b"x" * 3000] * 64
    assert [element.tag for element in found] == sorted(element.tag for element in found)
