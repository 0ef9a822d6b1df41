"""What a DICOM query key asks for."""

from __future__ import annotations

import pytest

from hub.attribute_matching import Match, name_search, parse
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
