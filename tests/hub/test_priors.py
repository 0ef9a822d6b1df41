"""Which earlier studies are wanted, and what is asked for so that nothing is fetched twice."""

from __future__ import annotations

from datetime import date

import pytest

from hub.priors import Found, Rule, _classes, _requests

CT = "1.2.840.10008.5.1.4.1.1.2"
TODAY = date(2025, 6, 11)


def study(uid: str, day: str, *modalities: str) -> Found:
    return {"StudyInstanceUID": (uid,), "StudyDate": (day,) if day else (), "ModalitiesInStudy": modalities}


def test_a_rule_says_modalities_age_number_and_way() -> None:
    assert Rule.of("") == Rule(modalities=frozenset(), years=5, most=10, via="get")
    assert Rule.of("modality=CT,MR years=3 max=4 via=move") == Rule(
        modalities=frozenset({"CT", "MR"}), years=3, most=4, via="move"
    )
    assert Rule.of("months=24 on=acceptance show=task") == Rule(months=24, on_acceptance=True, shown=True)


@pytest.mark.parametrize(
    "text",
    ["years", "years=x", "years=-1", "years=٣", "max=0", "via=ftp", "modality=", "all=1", "months=0", "on=x", "show="],
)
def test_a_rule_that_cannot_be_read_names_its_part(text: str) -> None:
    with pytest.raises(ValueError, match=text.split("=", maxsplit=1)[0]):
        Rule.of(text)


def test_the_newest_fitting_studies_are_chosen() -> None:
    studies = [
        study("1", "20200610", "CT"),
        study("2", "20200611", "CT"),
        study("3", "20250101", "MR", "SR"),
        study("4", "20240101", "US"),
        study("5", "", "CT"),
    ]
    rule = Rule(modalities=frozenset({"CT", "MR"}), years=5, most=2)
    assert [one["StudyInstanceUID"][0] for one in rule.chosen(studies, today=TODAY)] == ["3", "2"]
    assert len(Rule(years=0).chosen(studies, today=TODAY)) == 5


@pytest.mark.parametrize(
    ("months", "chosen"),
    [
        (1, ["20250511"]),
        (12, ["20250511", "20240611"]),
        (18, ["20250511", "20240611", "20240610", "20231211"]),
    ],
)
def test_months_count_back_over_years(months: int, chosen: list[str]) -> None:
    days = ("20250511", "20240611", "20231211", "20231210", "20240610")
    found = Rule(months=months).chosen([study(day, day, "CT") for day in days], today=TODAY)
    assert [one["StudyInstanceUID"][0] for one in found] == chosen


def test_a_leap_day_has_a_limit_too() -> None:
    leap = date(2024, 2, 29)
    studies = [study("1", "20230228", "CT"), study("2", "20230301", "CT")]
    assert [one["StudyInstanceUID"][0] for one in Rule(years=1).chosen(studies, today=leap)] == ["2"]


def test_what_is_missing_is_asked_for_in_the_fewest_requests() -> None:
    there = {"s1": ("CT", {"1": CT, "2": CT}), "s2": ("CT", {"3": CT}), "s3": ("CT", {"4": CT})}
    assert list(_requests("u", there, set())) == [("STUDY", {"StudyInstanceUID": "u"}, [CT])]
    assert list(_requests("u", there, {"1", "4"})) == [
        ("IMAGE", {"StudyInstanceUID": "u", "SeriesInstanceUID": "s1", "SOPInstanceUID": ["2"]}, [CT]),
        ("SERIES", {"StudyInstanceUID": "u", "SeriesInstanceUID": "s2"}, [CT]),
    ]
    assert list(_requests("u", there, {"1", "2", "3", "4"})) == []
    assert list(_requests("u", {}, set())) == []


def test_long_lists_of_instances_are_asked_for_in_parts() -> None:
    images = {f"1.{number}": CT for number in range(1201)}
    requests = list(_requests("u", {"s": ("CT", images)}, {"1.0"}))
    assert [len(keys["SOPInstanceUID"]) for _, keys, _ in requests] == [500, 500, 200]


def test_sop_classes_that_the_archive_does_not_tell_are_guessed_from_the_modality() -> None:
    assert _classes([("CT", {"1": CT})]) == [CT]
    guessed = _classes([("CT", {"1": "", "2": CT}), ("XX", {"3": ""})])
    assert guessed[0] == CT
    assert f"{CT}.1" in guessed
    assert "1.2.840.10008.5.1.4.1.1.7" in guessed
    assert len(guessed) == len(set(guessed))
