"""The reading of received bytes as text, and the folding of names."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_mappings.text import all_cjk, codec_for, decode, encode, fold, full_pinyin, pinyin_initials

GB_LABELS = [
    "GB 18030-2000",
    "GB18030",
    "GBK",
    "GB2312",
    "CP936",
    "gb2312-80",
    "ISO 2022 IR 58",
    "ISO_IR 58",
    "ISO 2022 IR 165",
]
UTF8_LABELS = ["UNICODE", "UNICODE UTF-8", "UTF-8", "utf8", "ISO_IR 192"]

#: Everyday clinical phrases whose symbols share bytes with Han characters in the other encoding.
PHRASES = [
    "血β2微球蛋白 ≥3.0mg/L，肌酐 90μmol/L",
    "体温37.5℃±0.3，瞳孔3×4mm，Ⅱ型糖尿病①②",
    "胃",
    "未位胃卫渭谓尉慰",
    "云岭示范县文化路1号·康宁医院（测试）",
    "右肺上叶见一约8mm磨玻璃结节，边界清。",
    "张　伟",
    "买买提·艾力",
    "陈䶮",
    "陳東",
    "誠信医院",
    "郑伟",
]

SURNAMES = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎余潘杜戴夏钟汪田任姜范方石姚谭"
GIVEN = "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超秀霞平刚桂英华玉兰红建国文辉力永健世广志义兴良海山仁波宁贵福生龙元全胜学祥才发䶮喆珅颺"


@pytest.mark.parametrize("label", GB_LABELS)
def test_gb_labels_mean_the_superset(label: str) -> None:
    assert codec_for(label) == "gb18030"


@pytest.mark.parametrize("label", UTF8_LABELS)
def test_unicode_labels_mean_utf8(label: str) -> None:
    assert codec_for(label) == "utf-8"


def test_labels_of_both_standards_are_known() -> None:
    assert codec_for("8859/1") == codec_for("ISO_IR 100") == codec_for("ISO-8859-1") == "iso8859-1"
    assert codec_for("BIG-5") == "big5hkscs"
    assert codec_for("ISO 2022 IR 149") == "euc_kr"
    assert codec_for("KLINGON") is None


@pytest.mark.parametrize("codec", ["utf-8", "gb18030"])
@pytest.mark.parametrize("label", ["", "GB18030", "UNICODE UTF-8", "8859/1"])
@pytest.mark.parametrize("phrase", PHRASES)
def test_chinese_text_is_read_whatever_the_label_says(phrase: str, codec: str, label: str) -> None:
    decoded = decode(f"OBX|1|TX|{phrase}".encode(codec), declared=label)
    assert decoded.text == f"OBX|1|TX|{phrase}"
    assert decoded.codec == codec
    assert not decoded.flagged


def test_no_two_character_name_is_misread_in_either_encoding() -> None:
    wrong = [
        (name, codec)
        for surname in SURNAMES
        for given_name in GIVEN
        for name in [surname + given_name]
        for codec in ("utf-8", "gb18030")
        if decode(name.encode(codec)).text != name
    ]
    assert wrong == []


def test_the_override_wins_over_the_evidence() -> None:
    decoded = decode("张伟".encode(), override="GBK")
    assert (decoded.text, decoded.evidence, decoded.codec) == ("寮犱紵", "override", "gb18030")


def test_an_override_that_cannot_read_the_bytes_is_left_and_flagged() -> None:
    decoded = decode("张伟".encode("gb18030"), override="UTF-8")
    assert (decoded.text, decoded.evidence, decoded.flagged) == ("张伟", "gb18030", True)


def test_an_unknown_override_is_flagged() -> None:
    assert decode("张伟".encode(), override="KLINGON").flagged


def test_an_unknown_label_is_flagged() -> None:
    decoded = decode("张伟".encode(), declared="KLINGON")
    assert decoded.text == "张伟"
    assert decoded.flagged


def test_byte_order_marks_decide_and_are_dropped() -> None:
    utf8 = decode(b"\xef\xbb\xbf" + "MSH|张伟".encode())
    assert (utf8.text, utf8.evidence) == ("MSH|张伟", "bom")
    for codec in ("utf-16-le", "utf-16-be"):
        mark = "\ufeff".encode(codec)
        assert decode(mark + "MSH|张伟".encode(codec)).text == "MSH|张伟"
        assert decode("MSH|张伟".encode(codec)).text == "MSH|张伟"


def test_the_gb2312_escape_is_dropped() -> None:
    decoded = decode(b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab", declared="ISO 2022 IR 58")
    assert (decoded.text, decoded.evidence) == ("Zhang^XiaoDong=张^小东", "escape")
    assert not decoded.disagrees


def test_european_text_under_its_own_label_stays_european() -> None:
    decoded = decode("Müller^José".encode("latin-1"), declared="8859/1")
    assert (decoded.text, decoded.evidence, decoded.flagged) == ("Müller^José", "declared", False)


def test_a_rare_label_is_meant() -> None:
    cyrillic = "Люкcемб"
    assert decode(cyrillic.encode("iso8859-5"), declared="ISO_IR 144").text == cyrillic
    assert decode("김희중".encode("euc_kr"), declared="KS X 1001").text == "김희중"


def test_a_utf8_symbol_alone_is_read_by_the_label_only() -> None:
    assert decode("90 μmol".encode(), declared="UNICODE UTF-8").text == "90 μmol"
    assert decode("90 胃".encode("gb18030")).text == "90 胃"


def test_utf8_in_another_script_is_kept_and_flagged() -> None:
    decoded = decode("مەمەت ئېلى".encode())
    assert decoded.text == "مەمەت ئېلى"
    assert decoded.flagged


@pytest.mark.parametrize("codec", ["utf-8", "gb18030"])
def test_a_broken_character_costs_only_itself_and_is_flagged(codec: str) -> None:
    raw = "诊断：右肺上叶磨玻璃结节".encode(codec) + b"\xff|" + "建议复查".encode(codec)
    decoded = decode(raw)
    assert decoded.evidence == "replaced"
    assert decoded.flagged
    assert decoded.codec == codec
    assert decoded.text.replace("\ufffd", "") == "诊断：右肺上叶磨玻璃结节|建议复查"


def test_disagreement_with_the_label_is_reported() -> None:
    assert decode("张伟".encode(), declared="GB18030").disagrees
    assert not decode("张伟".encode("gb18030"), declared="GBK").disagrees
    assert not decode(b"Zhang", declared="GB18030").disagrees


def test_private_use_codes_of_old_gb18030_become_unicode_and_return() -> None:
    raw = bytes.fromhex("FE59FEA0".replace("FEA0", "A6D9"))
    assert decode(raw).text == "\u9fb4\ufe10"
    assert encode("\u9fb4\ufe10", "gb18030") == raw


def test_all_cjk_accepts_clinical_text_and_refuses_other_scripts() -> None:
    assert all_cjk("姓名：张伟 37.5℃±0.3（复查）ABC")
    assert not all_cjk("֣ΰ")
    assert not all_cjk("ÕÅÎ°")


@given(st.binary(max_size=200), st.sampled_from(["", "GBK", "8859/1", "UNICODE", "nonsense"]))
@settings(max_examples=200, deadline=None)
def test_decoding_never_fails_and_never_loses_characters_unflagged(raw: bytes, label: str) -> None:
    decoded = decode(raw, declared=label)
    if "\ufffd" in decoded.text and "\ufffd".encode() not in raw and "\ufffd".encode("gb18030") not in raw:
        assert decoded.flagged


@given(st.text(alphabet=st.characters(min_codepoint=0x4E00, max_codepoint=0x9FA5), min_size=3, max_size=30))
@settings(max_examples=200, deadline=None)
def test_han_text_survives_either_encoding(text: str) -> None:
    assert decode(text.encode()).text == text


def test_folding_hides_width_spaces_dots_and_case() -> None:
    assert fold("张　伟") == fold("张 伟") == "张伟"
    assert fold("买买提·艾力") == fold("买买提・艾力") == "买买提艾力"
    assert fold("ＺＨＡＮＧ Wei") == "zhangwei"


def test_pinyin_of_compound_surnames_and_minority_names() -> None:
    assert full_pinyin("欧阳明月") == "ouyangmingyue"
    assert pinyin_initials("欧阳明月") == "oymy"
    assert full_pinyin("买买提·艾力") == "maimaitiaili"
    assert pinyin_initials("买买提·艾力") == "mmtal"
    assert full_pinyin("Zhang Wei") == pinyin_initials("Zhang Wei") == "zhangwei"


def test_nothing_has_no_pinyin() -> None:
    assert full_pinyin("") == pinyin_initials("") == ""
