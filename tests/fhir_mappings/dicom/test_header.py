"""The header holds what the index needs, in characters a person can read, and agrees with pydicom on the rest."""

from __future__ import annotations

import io
import json
from typing import Any

import pydicom
import pytest

from fhir_mappings.dicom import json_model
from fhir_mappings.dicom.header import InstanceHeader, read_header
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
)


def header(**choices: Any) -> InstanceHeader:
    return read_header(io.BytesIO(make_ct(**choices)))


@pytest.mark.parametrize("transfer_syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED])
def test_the_columns_are_read_in_every_encoding(transfer_syntax: str) -> None:
    found = header(transfer_syntax=transfer_syntax, study=7, series=2, instance=3)
    assert (found.StudyInstanceUID[-2:], found.SeriesInstanceUID[-4:], found.SOPInstanceUID[-6:]) == (
        ".7",
        ".7.2",
        ".7.2.3",
    )
    assert (found.Rows, found.Columns, found.BitsAllocated, found.NumberOfFrames) == (16, 16, 16, None)
    assert (found.PatientID, found.PatientName, found.StudyDescription) == ("10086", "郑伟", "胸部CT平扫")
    assert (found.StudyDate, found.StudyTime, found.Modality, found.InstanceNumber) == ("20250611", "101500", "CT", "3")
    assert found.TransferSyntaxUID == transfer_syntax


def test_gbk_without_a_label_is_read_and_said() -> None:
    found = header()
    assert (found.charset_declared, found.charset_used, found.charset_flagged) == ("", "gb18030", True)
    assert "against the label" in found.charset_evidence


def test_a_true_label_is_not_flagged() -> None:
    found = header(charset=b"GB18030")
    assert (found.charset_declared, found.charset_used, found.charset_flagged) == ("GB18030", "gb18030", False)


def test_the_ideographic_group_is_the_name_and_the_alphabetic_its_pinyin() -> None:
    found = header(patient_name=b"Zheng^Wei=\xd6\xa3^\xce\xb0")
    assert (found.PatientName, found.PatientNamePinyin) == ("郑^伟", "Zheng^Wei")
    names = json.loads(found.attributes)["00100010"]["Value"]
    assert names == [{"Alphabetic": "Zheng^Wei", "Ideographic": "郑^伟"}]


def test_a_gb18030_trail_byte_5c_does_not_split_a_value() -> None:
    found = header(more={0x00080080: ("LO", "誠信医院".encode("gb18030"))})
    assert json.loads(found.attributes)["00080080"]["Value"] == ["誠信医院"]


def test_an_override_decides_for_the_sender() -> None:
    raw = io.BytesIO(
        make_ct(patient_name=b"\xb1\xe2", more={0x00080080: ("LO", ""), 0x00081030: ("LO", ""), 0x00400275: ("SQ", [])})
    )
    assert read_header(raw, charset_override="BIG5").PatientName == b"\xb1\xe2".decode("big5")


def test_the_pixel_offset_points_at_the_pixels_of_the_object() -> None:
    data = make_ct()
    offset = read_header(io.BytesIO(data)).pixel_offset
    assert offset is not None
    assert len(data) - offset == 16 * 16 * 2
    frames = make_ct(transfer_syntax=JPEG_LOSSLESS, more={0x7FE00010: ("OB", fragments(b"one"))})
    offset = read_header(io.BytesIO(frames)).pixel_offset
    assert offset is not None
    assert frames[offset : offset + 8] == b"\xfe\xff\x00\xe0\0\0\0\0"
    assert header(transfer_syntax=DEFLATED).pixel_offset is None


def test_json_agrees_with_pydicom_on_everything_but_bulk() -> None:
    more = {
        0x00080005: ("CS", "GB18030"),
        0x00080301: ("UI", "1.2.3"),
        0x00181063: ("DS", "33.3"),
        0x00189345: ("FD", 1.5),
        0x00189309: ("FD", 0.125),
        0x00200037: ("DS", "1\\0\\0\\0\\1\\0"),
        0x00280009: ("AT", b"\x18\x00\x63\x10"),
        0x00280008: ("IS", "1"),
        0x00280106: ("US", 3),
        0x00281052: ("DS", "-1024"),
        0x00091010: ("OB", b"\1\2\3\4"),
        0x00090010: ("LO", "SYNTHETIC"),
        0x00100032: ("TM", ""),
        0x00101000: ("LO", "A\\\\B"),
        0x00104000: ("LT", " kept\\whole "),
        0x00189361: ("SL", -7),
        0x00080008: ("CS", "ORIGINAL\\PRIMARY"),
    }
    data = make_ct(more=more)
    ours = json.loads(read_header(io.BytesIO(data)).attributes)
    theirs = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True).to_json_dict()
    assert ours.pop("7FE00010") == {"vr": "OW", "BulkDataURI": "bulk/7FE00010"}
    assert ours.pop("00080005") == {"vr": "CS", "Value": ["ISO_IR 192"]}
    theirs.pop("00080005")
    # Empty values in the middle are null in the standard (PS3.18 section F.2.5) and empty strings in pydicom.
    assert ours.pop("00101000")["Value"] == ["A", None, "B"]
    theirs.pop("00101000")
    assert ours == theirs


def test_implicit_us_or_ss_follows_the_pixel_representation() -> None:
    for signed, vr, number in ((0, "US", 65535), (1, "SS", -1)):
        data = encode(ct_tags(more={0x00280103: ("US", signed), 0x00280106: ("US", 65535)}), IMPLICIT)
        element = json.loads(read_header(io.BytesIO(data), IMPLICIT).attributes)["00280106"]
        assert element == {"vr": vr, "Value": [number]}


def test_bulk_inside_sequences_names_its_path() -> None:
    icon = {0x00280010: ("US", 64), 0x7FE00010: ("OW", b"\0" * 2048)}
    found = json.loads(header(more={0x00880200: ("SQ", [icon])}).attributes)  # type: ignore[dict-item]
    assert found["00880200"]["Value"][0]["7FE00010"]["BulkDataURI"] == "bulk/00880200/1/7FE00010"


def test_numbers_json_does_not_know_are_strings() -> None:
    found = json.loads(
        header(
            more={0x00189345: ("FD", float("nan")), 0x00180050: ("DS", "thick"), 0x00200013: ("IS", "x1")}
        ).attributes
    )
    assert [found[tag]["Value"] for tag in ("00189345", "00180050", "00200013")] == [["NaN"], ["thick"], ["x1"]]


def test_the_same_bytes_are_read_by_the_label_of_each_object() -> None:
    raw = "Buc^Jérôme".encode("latin-1")
    for _ in range(2):
        for label, expected in ((b"ISO_IR 100", "Buc^Jérôme"), (b"ISO_IR 144", raw.decode("iso8859-5"))):
            more = {0x00080080: ("LO", b""), 0x00081030: ("LO", b""), 0x00400275: ("SQ", [])}
            found = header(charset=label, patient_name=raw, more=more)
            assert found.PatientName == expected
            assert json.loads(found.attributes)["00100010"]["Value"] == [{"Alphabetic": expected}]


def test_the_same_bytes_are_read_in_the_byte_order_and_with_the_sign_of_each_object() -> None:
    for _ in range(2):
        for transfer_syntax, number in ((EXPLICIT, 1), (BIG_ENDIAN, 256)):
            data = make_ct(transfer_syntax=transfer_syntax, more={0x00280106: ("US", b"\1\0")})
            assert json.loads(read_header(io.BytesIO(data)).attributes)["00280106"]["Value"] == [number]
        for signed, number in ((0, 65535), (1, -1)):
            tags = ct_tags(more={0x00280103: ("US", signed), 0x00280106: ("US", 65535)})
            found = read_header(io.BytesIO(encode(tags, IMPLICIT)), IMPLICIT)
            assert json.loads(found.attributes)["00280106"]["Value"] == [number]


def test_an_unordered_object_is_ordered_in_json() -> None:
    tags = ct_tags(charset=b"GB18030")
    data = b"".join(encode({tag: tags[tag]}) for tag in sorted(tags, reverse=True))
    found = list(json.loads(read_header(io.BytesIO(data), EXPLICIT).attributes))
    assert found == [f"{tag:08X}" for tag in sorted(tags)]


def test_long_values_are_not_remembered() -> None:
    before = json_model._plain_member.cache_info().currsize
    header(more={0x00091000 + number: ("LO", f"{number:065d}") for number in range(16, 200)})
    assert json_model._plain_member.cache_info().currsize < before + 100


def test_a_decimal_string_of_many_digits_takes_no_longer_than_other_text() -> None:
    # A pattern that tries every split of the digits would outlast the limit on a test.
    digits = "1" * 65_000 + "x "
    tags = ct_tags(more={0x00180050: ("DS", digits), 0x00180060: ("DS", digits), 0x00180090: ("DS", digits)})
    tags |= {0x00181100: ("DS", digits), 0x00181110: ("DS", digits), 0x00181111: ("DS", digits)}
    found = json.loads(read_header(io.BytesIO(encode(tags, IMPLICIT)), IMPLICIT).attributes)
    assert found["00181111"] == {"vr": "DS", "Value": [digits.strip()]}
