"""What an order says about the images it asks for."""

from __future__ import annotations

from datetime import date

import pytest

from fhir_mappings.dicom.order import accession, days, modalities, modality_group, numbers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("胸部CT平扫", {"CT"}),
        ("头颅CTA", {"CT"}),
        ("头颅MRI平扫+增强", {"MR"}),
        ("腰椎核磁共振", {"MR"}),
        ("胸部正位DR", {"CR", "DX", "DR", "RG"}),
        ("腹部彩超", {"US"}),
        ("全身骨ECT", {"NM"}),
        ("PET-CT", {"PT", "CT"}),
        ("乳腺钼靶", {"MG"}),
        ("血常规", set()),
        ("ACTH", set()),
    ],
)
def test_the_name_of_an_examination_tells_its_modality(text: str, expected: set[str]) -> None:
    assert modalities({"code": {"text": text}}) == expected


def test_a_coded_section_wins_over_the_name() -> None:
    order = {
        "code": {"text": "CT引导下穿刺超声"},
        "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "RUS"}]}],
    }
    assert modalities(order) == {"US"}


def test_codes_of_other_systems_are_no_modalities() -> None:
    assert modalities({"code": {"coding": [{"system": "http://loinc.org", "code": "CT"}]}}) == frozenset()


def test_plain_radiography_is_one_kind_by_many_codes() -> None:
    assert modality_group("DX") == modality_group("CR")
    assert modality_group("ct") == {"CT"}


def test_days_are_those_of_the_senders_zone() -> None:
    order = {"authoredOn": "2025-06-10T16:30:00Z", "occurrencePeriod": {"start": "2025-06-12"}}
    assert days(order, "Asia/Shanghai") == (date(2025, 6, 12), date(2025, 6, 11))
    assert days({"authoredOn": "2025-06"}, "Asia/Shanghai") == (None, None)


def test_numbers_come_best_first() -> None:
    order = {
        "identifier": [
            {"system": "https://yixiehub.example/fhir/NamingSystem/KN/placer-order", "value": "P"},
            {"type": {"coding": [{"code": "ACSN"}]}, "value": "A"},
            {"value": "X"},
        ]
    }
    assert numbers(order) == ("A", "P", "X")
    assert accession(order) == "A"
