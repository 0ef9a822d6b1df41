"""Short data sets on the wire: read by the rules for objects, written in the character set the asker reads."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from fhir_mappings.dicom.identifier import EXPLICIT_BIG, IMPLICIT, Identifier, read, write
from fhir_mappings.errors import MalformedError

EXPLICIT = "1.2.840.10008.1.2.1"
ANSWER: dict[str, Any] = {
    "00080061": {"vr": "CS", "Value": ["CT", "SR"]},
    "00080050": {"vr": "SH"},
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Zheng^Wei", "Ideographic": "郑^伟"}]},
    "00100020": {"vr": "LO", "Value": ["10086"]},
    "00201208": {"vr": "IS", "Value": [3]},
    "00400100": {"vr": "SQ", "Value": [{"00400001": {"vr": "AE", "Value": ["CT1"]}, "00400002": {"vr": "DA"}}]},
}


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, EXPLICIT_BIG])
@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("", "ISO_IR 192"),
        ("GB18030", "GB18030"),
        ("GBK", "GBK"),
        ("ISO_IR 192", "ISO_IR 192"),
        ("ISO_IR 100", "ISO_IR 192"),
        ("ISO 2022 IR 58", "\\ISO 2022 IR 58"),
        ("\\ISO 2022 IR 58", "\\ISO 2022 IR 58"),
        ("ISO 2022 IR 6\\ISO 2022 IR 58", "\\ISO 2022 IR 58"),
        ("\\ISO 2022 IR 87", "ISO_IR 192"),
        ("no such set", "ISO_IR 192"),
    ],
)
def test_text_goes_out_as_asked_else_in_utf_8(syntax: str, asked: str, answered: str) -> None:
    assert read(write(ANSWER, syntax, character_set=asked), syntax) == Identifier(
        attributes=ANSWER, character_set=answered
    )


def test_ascii_needs_no_label() -> None:
    data = write({"00100020": {"vr": "LO", "Value": ["10086"]}}, IMPLICIT)
    assert read(data, IMPLICIT).character_set == ""


def test_the_library_reads_what_is_written() -> None:
    data = write(ANSWER, IMPLICIT, character_set="GB18030")
    dataset = dcmread(BytesIO(data), force=True)
    assert str(dataset.PatientName) == "Zheng^Wei=郑^伟"
    assert "郑".encode("gb18030") in data
    assert dataset["ScheduledProcedureStepSequence"].value[0].ScheduledStationAETitle == "CT1"


def test_gb_2312_is_designated_anew_in_each_component_line_and_value() -> None:
    answer: dict[str, Any] = {
        "00081030": {"vr": "LO", "Value": ["胸部 CT^平扫", "头"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Zheng^Wei", "Ideographic": "郑^伟"}]},
        "001021B0": {"vr": "LT", "Value": ["第一行\r\nline two\r\n第三行=末"]},
    }
    data = write(answer, EXPLICIT, character_set="\\ISO 2022 IR 58")
    on = b"\x1b$)A"

    def gb(text: str) -> bytes:
        return text.encode("gb2312")

    assert b"Zheng^Wei=" + on + gb("郑") + b"^" + on + gb("伟") in data
    assert on + gb("胸部 CT^平扫") + b"\\" + on + gb("头") in data
    assert on + gb("第一行") + b"\r\nline two\r\n" + on + gb("第三行=末") in data
    dataset = dcmread(BytesIO(data), force=True)
    assert list(dataset.SpecificCharacterSet) == ["", "ISO 2022 IR 58"]
    # The library reads the characters and leaves this one escape in the text.
    shown = on.decode()
    assert str(dataset.PatientName).replace(shown, "") == "Zheng^Wei=郑^伟"
    assert [one.replace(shown, "") for one in dataset.StudyDescription] == ["胸部 CT^平扫", "头"]
    assert dataset.AdditionalPatientHistory.replace(shown, "") == "第一行\r\nline two\r\n第三行=末"
    assert read(data, EXPLICIT).attributes == answer


@pytest.mark.parametrize(
    ("name", "held"), [("䶮", False), ("朱镕基", False), ("€", False), ("阿依古丽·买买提", True), ("zhāng", True)]
)
def test_a_character_that_gb_2312_lacks_makes_the_answer_utf_8(name: str, held: bool) -> None:
    answer: dict[str, Any] = {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "X", "Ideographic": name}]}}
    answered = read(write(answer, EXPLICIT, character_set="\\ISO 2022 IR 58"), EXPLICIT)
    assert answered == Identifier(attributes=answer, character_set="\\ISO 2022 IR 58" if held else "ISO_IR 192")


def test_the_dot_and_the_dash_stand_where_gb_2312_has_them() -> None:
    answer: dict[str, Any] = {"00081030": {"vr": "LO", "Value": ["·—"]}}
    assert b"\x1b$)A\xa1\xa4\xa1\xaa" in write(answer, EXPLICIT, character_set="ISO 2022 IR 58")


def test_a_name_in_gbk_without_a_label_is_read() -> None:
    dataset = Dataset()
    dataset.PatientID = "10086"
    stream = BytesIO()
    from pydicom.filewriter import dcmwrite

    dcmwrite(stream, dataset, implicit_vr=True, little_endian=True)
    name = "郑伟".encode("gbk")
    data = b"\x10\x00\x10\x00" + len(name).to_bytes(4, "little") + name + stream.getvalue()
    assert read(data, IMPLICIT).attributes["00100010"]["Value"] == [{"Alphabetic": "郑伟"}]


@pytest.mark.parametrize("cut", range(1, 36, 3))
def test_a_truncated_data_set_is_refused(cut: int) -> None:
    data = write(ANSWER, EXPLICIT)
    with pytest.raises(MalformedError):
        read(data[:-cut], EXPLICIT)


def test_sequences_that_nest_without_end_are_refused() -> None:
    one = b"\x40\x00\x00\x01" + b"\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0" + b"\xff\xff\xff\xff"
    with pytest.raises(MalformedError):
        read(one * 5000, IMPLICIT)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, EXPLICIT_BIG])
def test_numbers_and_tags_come_back(syntax: str) -> None:
    attributes: dict[str, Any] = {
        "00080001": {"vr": "UL", "Value": [70000]},
        "00189073": {"vr": "FD", "Value": [0.5, -2.0]},
        "00280009": {"vr": "AT", "Value": ["00181063"]},
        "00280010": {"vr": "US", "Value": [512]},
        "00101020": {"vr": "DS", "Value": [1.75]},
    }
    assert read(write(attributes, syntax), syntax).attributes == attributes


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("vr", "value"),
    [("IS", "abc"), ("DS", "1,5"), ("DA", "2025.06.11"), ("CS", "far too long for a code string"), ("AE", "x" * 30)],
)
def test_a_stored_value_that_breaks_its_vr_is_handed_on(vr: str, value: str) -> None:
    """A header is shown as it came: one odd value must neither end a query nor be quoted in a warning."""
    data = write({"00090010": {"vr": vr, "Value": [value]}}, EXPLICIT)
    assert value.encode() in data


def test_a_value_too_long_for_its_vr_is_written_as_unknown() -> None:
    data = write({"00080050": {"vr": "SH", "Value": ["1"] * 40_000}}, EXPLICIT)
    assert data[4:8] == b"UN\0\0"
    assert data[12:].rstrip() == b"\\".join([b"1"] * 40_000)


def test_binary_is_written_as_its_bytes() -> None:
    data = write({"00420011": {"vr": "OB", "InlineBinary": "AAEC"}}, EXPLICIT)
    assert data == b"\x42\0\x11\0OB\0\0\4\0\0\0\0\1\2\0"
