"""The lossless lazy tokenizer."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_mappings.errors import MalformedError
from fhir_mappings.hl7v2.tokenizer import MAX_FIELDS, MAX_HEADER, MAX_REPETITIONS, MAX_SEGMENTS, parse

HEAD = "MSH|^~\\&|HIS|KNYY|YIXIE|HUB|20250611083000||ADT^A08^ADT_A01|KN1|P|2.4"


def test_header_fields_have_the_standards_numbers() -> None:
    message = parse(f"{HEAD}\r")
    msh = message.first("MSH")
    assert msh is not None
    assert msh.field(1).raw == "|"
    assert msh.field(2).raw == "^~\\&"
    assert msh.field(2).repetitions[0].component(1) == "^~\\&"
    assert [msh.get(number) for number in (1, 2, 3, 9, 10, 12, 99)] == ["|", "^~\\&", "HIS", "ADT", "KN1", "2.4", ""]
    assert (msh.get(9, 2), msh.get(9, 3), msh.field_count) == ("A08", "ADT_A01", 12)


def test_paths_reach_components_and_subcomponents() -> None:
    message = parse(f"{HEAD}\rPID|1||10086^^^KN&2.16.156.10011.1.5&ISO^IDCard~990001||A\\T\\B^C")
    assert message.get("PID-3") == message.get("PID-3.1") == "10086"
    assert message.get("PID-3.4.2") == "2.16.156.10011.1.5"
    assert message.get("PID-5.1") == "A&B"
    assert message.get("PID-3.4.9") == message.get("PID-30") == message.get("ZZZ-1") == ""
    with pytest.raises(ValueError, match="path"):
        message.get("PID")


def test_absent_null_and_empty_are_three_things() -> None:
    pid = parse(f'{HEAD}\rPID|1||""|""^x|^').first("PID")
    assert pid is not None
    assert pid.field(2).is_absent
    assert not pid.field(2).is_null
    assert pid.field(2).repetitions == ()
    assert pid.field(3).is_null
    assert pid.field(3).repetitions[0].is_null
    assert pid.field(3).component(1) == pid.field(3).text() == ""
    assert not pid.field(4).is_null
    assert pid.field(4).first.components[0].is_null
    assert pid.get(4, 2) == "x"
    assert not pid.field(5).is_absent
    assert pid.field(5).component(1) == ""


def test_repetitions_components_and_subcomponents_are_cut_and_unescaped() -> None:
    pid = parse(f"{HEAD}\rPID|1||a&b\\F\\^c~d").first("PID")
    assert pid is not None
    first, second = pid.field(3).repetitions
    assert first.components[0].subcomponents == ("a", "b|")
    assert (first.component(1, 2), first.component(2), first.component(2, 2), second.component(1)) == (
        "b|",
        "c",
        "",
        "d",
    )
    assert first.raw == "a&b\\F\\^c"


def test_other_delimiters_are_taken_from_the_header() -> None:
    message = parse("MSH!@$%*!HIS\rPID!1!!a@b$c*d!100%F%^|")
    assert (message.get("PID-3.2"), message.get("PID-4")) == ("b", "100!^|")
    assert message.delimiters.field == "!"


def test_the_truncation_character_is_known() -> None:
    message = parse("MSH|^~\\&#|HIS\rPID|1||a\\P\\b")
    assert (message.delimiters.truncation, message.get("PID-3")) == ("#", "a#b")


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", "\r\r\n"])
def test_every_segment_end_is_understood(end: str) -> None:
    text = end.join([HEAD, "PID|1", "ZXX|自定义", ""])
    message = parse(text)
    assert [segment.name for segment in message.segments] == ["MSH", "PID", "ZXX"]
    assert message.lossless() == text


def test_a_line_feed_inside_a_field_of_a_return_message_stays_in_the_field() -> None:
    text = f"{HEAD}\rOBX|1|TX|||第一行\n第二行||||||F\nOBX|2|TX|||x\n"
    message = parse(text)
    assert [segment.get(5) for segment in message.all("OBX")] == ["第一行\n第二行", "x"]
    assert message.lossless() == text


def test_leading_line_ends_are_kept_aside() -> None:
    message = parse(f"\r\n{HEAD}\r")
    assert (message.prefix, message.get("MSH-10"), message.lossless()) == ("\r\n", "KN1", f"\r\n{HEAD}\r")


def test_other_line_separators_of_unicode_do_not_cut() -> None:
    message = parse(f"{HEAD}\rPID|1||a\u2028b\u0085c\x0bd")
    assert len(message.segments) == 2


def test_segments_know_their_place() -> None:
    message = parse(f"{HEAD}\rPID|1\rOBX|1\rOBX|2")
    assert [segment.index for segment in message.all("OBX")] == [2, 3]
    assert message.all("OBX")[1].where == "segment 4 (OBX)"
    assert message.all("OBX")[1].field(3).where == "OBX-3 of segment 4"
    assert message.first("ZZZ") is None


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", 100),
        ("PID|1", 100),
        ("\x00MSH|^~\\&|", 100),
        ("MSH", 102),
        ("MSH|", 102),
        ("MSH|^~\\|HIS", 102),
        ("MSH|^^\\&|HIS", 102),
        ("MSH|^~\\&amp;|HIS", 102),
        ("MSHA^~\\&A", 102),
        ("MSH\r^~\\&\r", 102),
        ("MSH|^~\r&|HIS", 102),
        (f"{HEAD}\rgarbage", 100),
        (f"{HEAD}\rPI|1", 100),
        (f"{HEAD}\rpid|1", 100),
        (f"{HEAD}\rPID^1", 100),
        (f"{HEAD}\r1ID|1", 100),
        (f"{HEAD}\nfree text", 100),
    ],
)
def test_text_that_is_no_message_is_refused_with_a_place(text: str, code: int) -> None:
    with pytest.raises(MalformedError) as caught:
        parse(text)
    assert caught.value.code == code
    assert caught.value.where
    assert caught.value.remedy


def test_caps_hold_exactly() -> None:
    assert len(parse(HEAD + "\rNTE" * (MAX_SEGMENTS - 1)).segments) == MAX_SEGMENTS
    with pytest.raises(MalformedError, match="segments"):
        parse(HEAD + "\rNTE" * MAX_SEGMENTS)
    parse(f"{HEAD}\rPID{'|' * MAX_FIELDS}")
    with pytest.raises(MalformedError, match="fields"):
        parse(f"{HEAD}\rPID{'|' * (MAX_FIELDS + 1)}")
    full = parse(f"{HEAD}\rPID|1||{'~' * (MAX_REPETITIONS - 1)}").first("PID")
    assert full is not None
    assert len(full.field(3).repetitions) == MAX_REPETITIONS
    over = parse(f"{HEAD}\rPID|1||{'~' * MAX_REPETITIONS}").first("PID")
    assert over is not None
    with pytest.raises(MalformedError, match="PID-3 of segment 2"):
        _ = over.field(3).repetitions


def calls_of(work: Callable[[], object]) -> int:
    """Return how many Python and C functions *work* calls: a measure of its cost that no busy machine disturbs."""
    # What is only done the first time, such as filling a cache, is no part of the cost.
    work()
    count = 0

    def tick(_frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    # A collection in between would count as well: others have it call them.
    gc.disable()
    sys.setprofile(tick)
    try:
        work()
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


def test_parsing_costs_a_constant_number_of_calls_for_each_segment() -> None:
    small, large = (f"{HEAD}\r" + "OBX|1|NM|a^b^c~d||1|||||F\r" * count for count in (200, 2000))
    assert calls_of(lambda: parse(large)) < 11 * calls_of(lambda: parse(small))


def test_fields_that_nobody_reads_cost_nothing() -> None:
    wide = f"{HEAD}\rPID" + "|a^b&c~d" * 900 + "\r"
    narrow = f"{HEAD}\rPID|a\r"
    assert calls_of(lambda: parse(wide)) == calls_of(lambda: parse(narrow))


@pytest.mark.parametrize(
    "tail",
    [
        "PID|" + "\n" * 400_000 + "x",
        "PID|" + "\n\r" * 200_000 + "x|",
        "PID|" + "\\X" + "41" * 400_000,
        "PID|" + "\\X" * 400_000,
        "PID|" + "~" * 400_000,
        "PID|" + "^&" * 400_000,
    ],
)
def test_hostile_runs_are_read_or_refused_without_quadratic_work(tail: str) -> None:
    # Work that grew with the square of these lengths would pass any deadline of the test run.
    try:
        message = parse(f"{HEAD}\r{tail}")
    except MalformedError:
        return
    assert message.lossless() == f"{HEAD}\r{tail}"
    message.get("PID-1.1")


SEGMENT_TEXT = st.text(alphabet=st.sampled_from('ab|^~\\&"1张\u2028\n'), max_size=30)


@given(st.lists(SEGMENT_TEXT, max_size=6), st.sampled_from(["\r", "\n", "\r\n", "\r\r"]))
@settings(max_examples=200, deadline=None)
def test_what_parses_is_given_back_whole(lines: list[str], end: str) -> None:
    text = end.join([HEAD, *(f"ZZ1|{line}" for line in lines), ""])
    try:
        message = parse(text)
    except MalformedError:
        return
    assert message.lossless() == text
    for segment in message.segments:
        separator = message.delimiters.field
        first = 3 if segment.name == "MSH" else 1
        fields = [segment.field(number) for number in range(first, segment.field_count + 1)]
        assert (
            separator.join(["x" * 0, *(field.raw for field in fields)])
            == segment.line[len(segment.name) + (5 if first == 3 else 0) :]
        )
        for field in fields:
            assert "~".join(repetition.raw for repetition in field.repetitions) == field.raw
            for repetition in field.repetitions:
                assert "^".join(component.raw for component in repetition.components) == repetition.raw


@given(st.text(max_size=120))
@settings(max_examples=200, deadline=None)
def test_any_text_parses_or_is_refused_in_our_own_words(text: str) -> None:
    for candidate in (text, f"MSH{text}", f"{HEAD}\r{text}"):
        try:
            message = parse(candidate)
        except MalformedError:
            continue
        assert message.lossless() == candidate


@pytest.mark.parametrize("line_end", ["\r", "\n", ""])
def test_a_header_that_no_answer_could_copy_is_refused(line_end: str) -> None:
    start = "MSH|^~\\&|HIS|KNYY|"
    parse(start + "x" * (MAX_HEADER - len(start)) + line_end)
    with pytest.raises(MalformedError):
        parse(start + "x" * (MAX_HEADER - len(start) + 1) + line_end)


def test_a_header_field_that_repeats_too_often_is_refused_before_an_answer_copies_it() -> None:
    start = "MSH|^~\\&|HIS|KNYY|"
    assert len(parse(start + "~" * (MAX_REPETITIONS - 1)).segments[0].field(5).repetitions) == MAX_REPETITIONS
    # A line feed inside a field does not end the header where segments end in carriage returns.
    for between in ("", "a\nb"):
        with pytest.raises(MalformedError):
            parse(start + between + "~" * MAX_REPETITIONS + "\rPID|1\r")
