"""Character sets of DICOM data sets; the elements are raw, as they come from the wire."""

from __future__ import annotations

import io
import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset

from fhir_mappings.dicom.charset import choose_decoder, dataset_decoder, normalise_text, person_name
from fhir_mappings.dicom.header import read_header
from tests.support.dicom import EXPLICIT, IMPLICIT, make_ct

NAME = 0x00100010
INSTITUTION = 0x00080080
Element = tuple[int, bytes, bytes]


def encoded(elements: list[Element], *, implicit: bool = False) -> bytes:
    made = b""
    for tag, vr, value in sorted(elements):
        even = value + (b"\0" if vr in {b"SQ", b"OB"} else b" ") * (len(value) % 2)
        if implicit:
            made += struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(even)) + even
        elif vr in {b"SQ", b"UT", b"UC", b"UN", b"OB"}:
            made += struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr, 0, len(even)) + even
        else:
            made += struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(even)) + even
    return made


def item(elements: list[Element], *, implicit: bool = False) -> bytes:
    body = encoded(elements, implicit=implicit)
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(body)) + body


def dataset(*elements: Element, label: bytes | None = None, implicit: bool = False) -> Dataset:
    labels = [] if label is None else [(0x00080005, b"CS", label)]
    return dcmread(io.BytesIO(encoded([*labels, *elements], implicit=implicit)), force=True)


VECTORS = [
    pytest.param(b"ISO_IR 100", "D5C5CEB0", "", "张伟", True, id="GBK under ISO_IR 100"),
    pytest.param(None, "D6A3CEB0", "", "郑伟", True, id="GBK that is valid UTF-8, no label"),
    pytest.param(None, "5A68656E675E5765693DD6A35ECEB0", "Zheng^Wei", "郑^伟", True, id="component groups in GBK"),
    pytest.param(b"GB18030", "E5BCA0E4BC9F", "", "张伟", True, id="UTF-8 under GB18030"),
    pytest.param(b"ISO_IR 192", "D5C5CEB0", "", "张伟", True, id="GBK under ISO_IR 192"),
    pytest.param(
        b"\\ISO 2022 IR 58",
        "5A68616E675E5869616F446F6E673D1B242941D5C55E1B242941D0A1B6AB",
        "Zhang^XiaoDong",
        "张^小东",
        False,
        id="escapes of ISO 2022 IR 58",
    ),
    pytest.param(b"GBK", "B3C2FE9F", "", "陈䶮", False, id="a character that only GB 18030 has"),
    pytest.param(b"GB18030", "EA90967C", "", "陳東", False, id="a trail byte that is a delimiter"),
    pytest.param(b"GB18030\\ISO IR 192", "D6A3CEB0", "", "郑伟", False, id="two labels that must stand alone, GBK"),
    pytest.param(
        b"GB18030\\ISO IR 192", "E98391E4BC9F", "", "郑伟", True, id="two labels that must stand alone, UTF-8"
    ),
    pytest.param(b"ISO_IR 58", "D6A3CEB0", "", "郑伟", False, id="a misspelt label"),
    pytest.param(b"GB2312", "D6A3CEB0", "", "郑伟", False, id="a label that is none of DICOM's"),
    pytest.param(b"ISO 2022 IR 165", "D6A3CEB0", "", "郑伟", False, id="a label that PS3.3 does not define"),
    pytest.param(b"NONSENSE", "D6A3CEB0", "", "郑伟", True, id="a label that means nothing"),
]


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize(("label", "raw", "alphabetic", "ideographic", "disagrees"), VECTORS)
def test_names_are_read_whatever_the_label_says(
    label: bytes | None, raw: str, alphabetic: str, ideographic: str, disagrees: bool, implicit: bool
) -> None:
    source = dataset((NAME, b"PN", bytes.fromhex(raw)), label=label, implicit=implicit)
    normal = normalise_text(source)
    name = person_name(str(normal.dataset.PatientName))
    assert (name.alphabetic, name.ideographic) == (alphabetic, ideographic)
    assert "\x1b" not in normal.dataset.to_json()
    assert normal.dataset.SpecificCharacterSet == "ISO_IR 192"
    assert normal.decoder.disagrees is disagrees
    assert normal.decoder.flagged is (label == b"NONSENSE")
    assert normal.decoder.declared == ("" if label is None else label.decode().strip())


@pytest.mark.parametrize("transfer_syntax", [EXPLICIT, IMPLICIT])
@pytest.mark.parametrize(("label", "raw", "alphabetic", "ideographic", "disagrees"), VECTORS)
def test_the_index_and_the_json_of_an_object_hold_the_same_names(
    label: bytes | None, raw: str, alphabetic: str, ideographic: str, disagrees: bool, transfer_syntax: str
) -> None:
    # The name is the only text, so that nothing else is evidence.
    silent = {0x00080080: ("LO", ""), 0x00081030: ("LO", ""), 0x00400275: ("SQ", [])}
    made = make_ct(patient_name=bytes.fromhex(raw), charset=label, more=silent, size=1, transfer_syntax=transfer_syntax)
    found = read_header(io.BytesIO(made))
    assert (found.PatientName, found.PatientNamePinyin) == (ideographic, alphabetic)
    (name,) = json.loads(found.attributes)["00100010"]["Value"]
    # A name of one group stands in the first one (PS3.5 section 6.2.1.1), whatever its script.
    assert name == (
        {"Alphabetic": alphabetic, "Ideographic": ideographic} if alphabetic else {"Alphabetic": ideographic}
    )
    assert found.charset_flagged is (disagrees or label == b"NONSENSE")
    assert found.charset_declared == ("" if label is None else label.decode().strip())


@pytest.mark.parametrize("label", [None, b"GB18030", b"ISO_IR 100"])
def test_a_backslash_inside_a_character_splits_nothing(label: bytes | None) -> None:
    raw = "誠信医院".encode("gb18030")
    assert raw[1:2] == b"\\"
    source = dataset((INSTITUTION, b"LO", raw + b"\\" + "二部".encode("gb18030")), label=label)
    assert list(normalise_text(source).dataset.InstitutionName) == ["誠信医院", "二部"]


def test_the_original_keeps_its_bytes_and_label() -> None:
    source = dataset((NAME, b"PN", bytes.fromhex("D5C5CEB0")), label=b"ISO_IR 100")
    before = source.get_item(NAME)
    normalise_text(source)
    assert source.get_item(NAME) is before
    assert source.SpecificCharacterSet == "ISO_IR 100"


def test_the_whole_data_set_decides_not_one_value() -> None:
    # 郑伟 in GBK is valid UTF-8 by itself and the description alone would decide nothing.
    source = dataset((NAME, b"PN", "郑伟".encode("gb18030")), (0x00081030, b"LO", "胸部CT平扫".encode("gb18030")))
    normal = normalise_text(source)
    assert (str(normal.dataset.PatientName), normal.dataset.StudyDescription) == ("郑伟", "胸部CT平扫")


@pytest.mark.parametrize("implicit", [False, True])
def test_text_inside_sequences_is_evidence_and_is_normalised(implicit: bool) -> None:
    meaning = (0x00080104, b"LO", "胸部".encode("gb18030"))
    inner = item([meaning], implicit=implicit)
    outer = item([(0x00400260, b"SQ", inner)], implicit=implicit)
    source = dataset(
        (0x00400275, b"SQ", outer), (NAME, b"PN", "郑伟".encode("gb18030")), label=b"ISO_IR 192", implicit=implicit
    )
    normal = normalise_text(source)
    request = normal.dataset.RequestAttributesSequence[0]
    assert request.PerformedProtocolCodeSequence[0].CodeMeaning == "胸部"
    assert normal.decoder.codec == "gb18030"


def test_an_override_of_the_sender_wins() -> None:
    source = dataset((NAME, b"PN", "张伟".encode()), label=b"ISO_IR 192")
    normal = normalise_text(source, override="GB18030")
    assert (str(normal.dataset.PatientName), normal.decoder.evidence) == ("寮犱紵", "override")


def test_ascii_data_sets_agree_with_any_label() -> None:
    for label in (None, b"ISO_IR 100", b"GB18030", b"NONSENSE"):
        decoder = dataset_decoder(dataset((NAME, b"PN", b"ZHANG^WEI"), label=label))
        assert not decoder.disagrees
        assert decoder.decode(b"ZHANG^WEI") == "ZHANG^WEI"
    assert dataset_decoder(dataset((NAME, b"PN", b"A"))).decode("张伟".encode("gb18030")) == "张伟"


def test_other_code_extensions_are_read() -> None:
    japanese = b"Yamada^Tarou=" + "山田".encode("iso2022_jp") + b"^" + "太郎".encode("iso2022_jp")
    decoder = choose_decoder([japanese], ["", "ISO 2022 IR 87"])
    assert decoder.decode(japanese) == "Yamada^Tarou=山田^太郎"
    assert (decoder.evidence, decoder.disagrees, decoder.flagged) == ("escape", False, False)
    korean = b"Hong^Gildong=\x1b$)C" + "홍".encode("euc_kr") + b"^\x1b$)C" + "길동".encode("euc_kr")
    assert choose_decoder([korean], ["", "ISO 2022 IR 149"]).decode(korean) == "Hong^Gildong=홍^길동"
    assert choose_decoder([korean], ["ISO_IR 100"]).disagrees
    mixed = b"\x1b-FAgo\xf1\xdc " + b"\x1b$)A\xd5\xc5"
    assert choose_decoder([mixed], ["ISO 2022 IR 6", "ISO 2022 IR 126"]).decode(mixed) == "Agoρά 张".replace("oρ", "oρ")


def test_an_unknown_escape_is_flagged() -> None:
    assert choose_decoder([b"\x1b$(Z!!"], ["ISO 2022 IR 6"]).flagged


def test_european_and_cyrillic_labels_are_believed() -> None:
    assert (
        choose_decoder(["Buc^Jérôme".encode("latin-1")], ["ISO_IR 100"]).decode("Buc^Jérôme".encode("latin-1"))
        == "Buc^Jérôme"
    )
    cyrillic = "Люкceмбypг".encode("iso8859-5")
    decoder = choose_decoder([cyrillic], ["ISO_IR 144"])
    assert (decoder.decode(cyrillic), decoder.disagrees) == ("Люкceмбypг", False)


def test_a_value_cut_in_the_middle_of_a_character_is_flagged_and_harms_no_other() -> None:
    cut = ("很长的检查描述" * 5).encode("gb18030")[:63]
    source = dataset((0x00081030, b"LO", cut), (NAME, b"PN", "郑伟".encode("gb18030")))
    normal = normalise_text(source)
    assert str(normal.dataset.PatientName) == "郑伟"
    assert normal.decoder.flagged
    assert normal.decoder.codec == "gb18030"


def test_numbers_and_bulk_data_are_shared_unchanged() -> None:
    pixels = bytes(range(256))
    source = dataset((0x00280010, b"US", b"\x00\x02"), (0x7FE00010, b"OB", pixels), (NAME, b"PN", b"A"))
    normal = normalise_text(source).dataset
    assert normal.Rows == 512
    assert normal.get_item(0x7FE00010).value is source.get_item(0x7FE00010).value


def test_data_sets_whose_values_were_already_read_are_normalised_too() -> None:
    source = Dataset()
    source.PatientName = "Zhang^Wei=张^伟"
    source.InstitutionName = "康宁医院"
    source.SpecificCharacterSet = "GB18030"
    normal = normalise_text(source).dataset
    assert person_name(str(normal.PatientName)).ideographic == "张^伟"
    assert normal.InstitutionName == "康宁医院"


@pytest.mark.parametrize(
    ("text", "name", "pinyin"),
    [
        ("Zhang^Wei=张^伟", "张伟", "Zhang Wei"),
        ("张伟", "张伟", ""),
        ("张　伟", "张伟", ""),
        ("买买提·艾力", "买买提·艾力", ""),
        ("ZHANG WEI", "ZHANG WEI", ""),
        ("Smith^John^^Dr", "John Smith", ""),
        ("=郑^伟", "郑伟", ""),
        ("", "", ""),
    ],
)
def test_person_names_read_as_a_reader_expects(text: str, name: str, pinyin: str) -> None:
    parts = person_name(text)
    assert (parts.name, parts.pinyin) == (name, pinyin)


@given(
    st.lists(st.binary(max_size=40), max_size=4),
    st.lists(st.sampled_from(["", "GBK", "ISO_IR 100", "ISO 2022 IR 58", "ISO 2022 IR 87", "x"]), max_size=3),
)
@settings(max_examples=150, deadline=None)
def test_no_bytes_and_no_label_can_fail(values: list[bytes], labels: list[str]) -> None:
    decoder = choose_decoder(values, labels)
    for value in values:
        decoder.decode(value)
