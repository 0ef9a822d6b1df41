"""What a DICOM query key asks for."""

from __future__ import annotations

import pytest

from hub.attribute_matching import Match, combined, fits, name_search, parse, parse_as
from hub.errors import Category, HubError


@pytest.mark.parametrize("value", ["", "*", "**", "  "])
def test_empty_values_and_stars_match_everything(value: str) -> None:
    assert parse("PatientID", value, level="study") is None


@pytest.mark.parametrize(
    ("keyword", "value", "kind", "values"),
    [
        ("StudyDate", "2025.06.11", "range", ("20250611", "20250611")),
        ("StudyDate", "20250601-", "range", ("20250601", "")),
        ("StudyTime", "08:30-1200", "range", ("0830", "1200")),
        ("PatientID", "a\\b", "any", ("a", "b")),
        ("PatientID", "a,b", "any", ("a,b",)),
        ("ModalitiesInStudy", "CT,MR", "any", ("CT", "MR")),
        ("StudyInstanceUID", "1.2,1.3\\1.4", "any", ("1.2", "1.3", "1.4")),
        ("AccessionNumber", "A*", "wildcard", ("A*",)),
        ("AccessionNumber", "A*\\B1", "wildcard", ("A*", "B1")),
    ],
)
def test_values_are_read_as_ps3_4_says(keyword: str, value: str, kind: str, values: tuple[str, ...]) -> None:
    match = parse(keyword, value, level="study")
    assert isinstance(match, Match)
    assert (match.kind, match.values) == (kind, values)


@pytest.mark.parametrize(
    ("keyword", "value", "level"),
    [
        ("StudyDate", "yesterday", "study"),
        ("StudyDate", "-", "study"),
        ("StudyTime", "2561", "study"),
        ("StudyInstanceUID", "1.2;drop", "study"),
        ("StudyInstanceUID", "1" * 65, "study"),
        ("Modality", "CT", "study"),
        ("Rows", "512", "instance"),
        ("StudyInstanceUID", ",".join(f"1.{n}" for n in range(1001)), "study"),
    ],
)
def test_what_cannot_be_matched_is_refused_with_its_name(keyword: str, value: str, level: str) -> None:
    with pytest.raises(HubError) as caught:
        parse(keyword, value, level=level)  # type: ignore[arg-type]
    assert caught.value.category is Category.INCORRECT


def test_fuzzy_names_become_folded_words_and_a_wildcard_stays_one() -> None:
    match = parse("PatientName", "Zheng^Wei", level="study", fuzzy=True)
    assert match is not None
    assert (match.kind, match.values) == ("fuzzy", ("zheng", "wei"))
    starred = parse("PatientName", "zh*", level="study", fuzzy=True)
    assert starred is not None
    assert starred.kind == "wildcard"


def test_a_name_is_findable_by_han_pinyin_and_initials() -> None:
    assert name_search("欧阳明月", "") == " 欧阳明月 ouyangmingyue ~oymy "
    assert name_search("", "") == ""


def times(*keys: tuple[str, str]) -> list[dict[str, str]]:
    """Return the parts that the moments of *keys* are asked for in."""
    return [dict(one) for one in combined(keys)]


def test_a_date_range_beside_a_time_range_is_one_span_of_moments() -> None:
    assert times(("StudyDate", "20250601-20250630"), ("PatientID", "7"), ("StudyTime", "0830-1200")) == [
        {"StudyDate": "20250630", "PatientID": "7", "StudyTime": "-1200"},
        {"StudyDate": "20250602-20250629", "PatientID": "7"},
        {"StudyDate": "20250601", "PatientID": "7", "StudyTime": "0830-"},
    ]


def test_an_open_end_of_a_span_stays_open() -> None:
    assert times(("StudyDate", "20250601-"), ("StudyTime", "0830-")) == [
        {"StudyDate": "20250602-"},
        {"StudyDate": "20250601", "StudyTime": "0830-"},
    ]
    assert times(("StudyDate", "20250601-20250602"), ("StudyTime", "0830-")) == [
        {"StudyDate": "20250602-20250602"},
        {"StudyDate": "20250601", "StudyTime": "0830-"},
    ]


def test_days_that_follow_each_other_have_no_days_between() -> None:
    assert times(("StudyDate", "20250601-20250602"), ("StudyTime", "0830-1200")) == [
        {"StudyDate": "20250602", "StudyTime": "-1200"},
        {"StudyDate": "20250601", "StudyTime": "0830-"},
    ]


@pytest.mark.parametrize(
    ("date", "time"),
    [
        ("20250601", "0830-1200"),
        ("20250601-20250630", "0830"),
        ("soon-", "0830-"),
        ("20250601-", "-"),
        # Backwards: the range of dates holds nothing, and neither may its ends.
        ("20250612-20250611", "0800-0900"),
    ],
)
def test_what_is_no_span_is_left_as_it_is(date: str, time: str) -> None:
    assert times(("StudyDate", date), ("StudyTime", time)) == [{"StudyDate": date, "StudyTime": time}]


@pytest.mark.parametrize(
    ("vr", "asked", "value", "fit"),
    [
        ("SH", "S1", "S1", True),
        ("SH", "S1", "s1", False),
        ("SH", "S*", "S77", True),
        ("SH", "S?", "S77", False),
        ("SH", "a.c", "abc", False),
        ("CS", "CT,MR", "MR", True),
        ("PN", "zheng*", "ZHENG^WEI", True),
        ("DA", "20250601-20250630", "20250611", True),
        ("DA", "20250601-", "20250531", False),
        ("TM", "0800-0900", "083015", True),
        ("TM", "0800-0900", "", False),
    ],
)
def test_values_can_be_compared_outside_a_store(vr: str, asked: str, value: str, fit: bool) -> None:
    match = parse_as("Key", vr, asked)
    assert match is not None
    assert fits(match, [value]) is fit


@pytest.mark.parametrize(
    ("value", "fit"), [("A17", True), ("a17", True), ("B1", True), ("C05", True), ("B12", False), ("C5", False)]
)
def test_each_value_of_a_list_is_matched_by_its_own_wildcards(value: str, fit: bool) -> None:
    match = parse("AccessionNumber", "A*\\B1\\C?5", level="study")
    assert match is not None
    assert fits(match, [value]) is fit


def test_a_list_with_a_value_that_all_match_matches_everything() -> None:
    assert parse("AccessionNumber", "A1\\*", level="study") is None


@pytest.mark.parametrize("asked", ["wei", "zheng", "郑", "zhengw", "zw"])
def test_names_fit_by_the_beginnings_of_words_pinyin_and_han(asked: str) -> None:
    match = parse_as("PersonName", "PN", asked, fuzzy=True)
    assert match is not None
    assert fits(match, ["郑^伟", "ZHENG^WEI"])
