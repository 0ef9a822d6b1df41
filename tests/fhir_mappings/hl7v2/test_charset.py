"""Character sets of v2 messages."""

from __future__ import annotations

import pytest

from fhir_mappings.errors import UnsupportedError
from fhir_mappings.hl7v2.charset import declared_charset, decode_message, encode_for
from fhir_mappings.hl7v2.tokenizer import parse


def message(name: str, msh_18: str = "", facility: str = "KNYY") -> str:
    return (
        f"MSH|^~\\&|HIS|{facility}|YIXIE|HUB|20250611083000||ADT^A08|KN1|P|2.4|||AL|AL|CHN|{msh_18}\r"
        f"PID|1||0000010086^^^^IDCard||{name}||19760229|M\r"
    )


@pytest.mark.parametrize("codec", ["gb18030", "utf-8"])
@pytest.mark.parametrize(
    "msh_18", ["", "UNICODE", "UNICODE UTF-8", "GB18030", "GB 18030-2000", "GBK", "8859/1", "ASCII~GBK"]
)
@pytest.mark.parametrize("name", ["郑伟", "张伟", "陳東", "陈䶮", "买买提·艾力", "张　伟", "玘珅鍇颺億"])
def test_a_name_is_one_field_whatever_msh_18_says(name: str, msh_18: str, codec: str) -> None:
    text = message(name, msh_18)
    decoded = decode_message(text.encode(codec))
    assert decoded.text == text
    assert decoded.charset == codec
    assert decoded.declared == msh_18
    assert not decoded.flagged
    pid = parse(decoded.text).first("PID")
    assert pid is not None
    assert pid.field_count == 8
    assert pid.field(5).component(1) == name


def test_the_trail_byte_of_a_gbk_character_adds_no_field() -> None:
    raw = message("陳東").encode("gb18030")
    assert bytes.fromhex("EA90967C") in raw
    assert raw.split(b"\r")[1].count(b"|") == 9
    assert parse(decode_message(raw).text).get("PID-5") == "陳東"


@pytest.mark.parametrize("codec", ["gb18030", "utf-8"])
def test_msh_18_is_found_behind_a_facility_with_a_delimiter_byte(codec: str) -> None:
    raw = message("郑伟", "GB18030", facility="億陳東").encode(codec)
    assert declared_charset(raw) == "GB18030"


def test_messages_without_a_usable_header_declare_nothing() -> None:
    assert declared_charset(b"") == ""
    assert declared_charset(b"garbage") == ""
    assert declared_charset(b"MSH") == ""
    assert declared_charset(b"MSH|^~\\&\r") == ""


def test_ascii_messages_keep_the_declared_set_for_the_answer() -> None:
    decoded = decode_message(message("ZHANG", "GBK").encode())
    assert (decoded.charset, decoded.evidence) == ("gb18030", "declared")
    assert decode_message(message("ZHANG").encode()).charset == "ascii"
    assert not decode_message(message("ZHANG").encode()).flagged


def test_the_override_decides_and_the_label_is_kept() -> None:
    decoded = decode_message(message("郑伟", "UNICODE").encode("gb18030"), override="GBK")
    assert (decoded.evidence, decoded.declared, decoded.disagrees) == ("override", "UNICODE", True)


def test_answers_are_encoded_by_label_or_codec() -> None:
    assert encode_for("郑伟", "GBK") == encode_for("郑伟", "gb18030") == bytes.fromhex("D6A3CEB0")
    assert encode_for("郑伟", "UNICODE UTF-8") == "郑伟".encode()


def test_what_a_set_cannot_say_is_refused_not_replaced() -> None:
    with pytest.raises(UnsupportedError, match="8859/1"):
        encode_for("郑伟", "8859/1")
    with pytest.raises(UnsupportedError, match="KLINGON"):
        encode_for("x", "KLINGON")


@pytest.mark.parametrize("label", ["UNICODE UTF-16", "UNICODE UTF-32", "UTF-16LE"])
@pytest.mark.parametrize("more", range(4))
def test_a_message_of_narrow_characters_is_not_read_as_wide_ones_however_many_bytes_it_has(
    label: str, more: int
) -> None:
    text = f"MSH|^~\\&|HIS|KNYY|YIXIE|HUB|2025||ADT^A01|1|P|2.4||||||{label}\rPID|1||1||郑伟{'x' * more}\r"
    for override in (None, label):
        decoded = decode_message(text.encode("gb18030"), override=override)
        assert (decoded.text, decoded.charset) == (text, "gb18030")
        assert decoded.disagrees
        assert decoded.flagged


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-16", "utf-32"])
def test_wide_characters_never_hold_a_block_byte_of_mllp(codec: str) -> None:
    """下 is U+4E0B: in UTF-16 half of it would start a frame."""
    text = "MSH|^~!&|A\rMSA|AA|下午\u1c00x\r"
    made = encode_for(text, codec)
    assert not set(made) & {0x0B, 0x1C}
    assert made.decode(codec) == "MSH|^~!&|A\rMSA|AA|!XE4B88B!午!XE1B080!x\r"
    assert parse(made.decode(codec)).get("MSA-2") == "下午\u1c00x"


def test_a_nul_is_read_as_a_character_that_was_lost() -> None:
    decoded = decode_message(b"MSH|^~\\&|HIS|KNYY\rPID|1||1\x002\r")
    assert decoded.text.endswith("PID|1||1\ufffd2\r")
    assert decoded.flagged
