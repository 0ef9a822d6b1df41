"""Index rows of resources (https://hl7.org/fhir/R4/search.html)."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from fhir_mappings.definitions import extract as extract_module
from fhir_mappings.definitions.compartments import patient_of, patients_of
from fhir_mappings.definitions.dates import range_us
from fhir_mappings.definitions.extract import extract
from fhir_mappings.definitions.index_rows import DATE_MAX_US, DATE_MIN_US
from fhir_mappings.definitions.row_writers import split_reference
from fhir_mappings.definitions.search_parameters import COLUMNS, DECEASED, search_parameters, unsupported
from fhir_mappings.definitions.structures import resource_types
from fhir_mappings.errors import MalformedError, UnsupportedError

ID_CARD = "urn:oid:2.16.156.10011.1.3"

MINGYUE: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "p1",
    "meta": {"tag": [{"system": "urn:t", "code": "a"}], "profile": ["http://x/p"], "source": "urn:kn"},
    "identifier": [
        {
            "system": ID_CARD,
            "value": "990001199006062488",
            "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "NI"}]},
        }
    ],
    "name": [{"text": "欧阳明月", "family": "欧阳", "given": ["明月"]}],
    "gender": "female",
    "birthDate": "1990-06-06",
    "telecom": [{"system": "phone", "value": "120 0000-0008"}, {"system": "email", "value": "a@yixiehub.example"}],
    "address": [{"city": "云岭示范市", "line": ["青禾路8号"]}],
    "managingOrganization": {"reference": "Organization/KN"},
}


def us(text: str) -> int:
    """Return microseconds since the epoch."""
    return round((datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1_000_000)


def strings(resource: dict[str, Any], param: str) -> set[tuple[str, str]]:
    return {(row.kind, row.value) for row in extract(resource).strings if row.param == param}


def tokens(resource: dict[str, Any], param: str) -> set[tuple[str, str]]:
    return {(row.system, row.code) for row in extract(resource).tokens if row.param == param}


def test_a_name_is_indexed_by_han_pinyin_and_initials() -> None:
    assert strings(MINGYUE, "name") == {
        ("text", "欧阳明月"), ("pinyin", "ouyangmingyue"), ("initials", "oymy"),
        ("text", "欧阳"), ("pinyin", "ouyang"), ("initials", "oy"),
        ("text", "明月"), ("pinyin", "mingyue"), ("initials", "my"),
    }  # fmt: skip
    assert strings(MINGYUE, "family") == {("text", "欧阳"), ("pinyin", "ouyang"), ("initials", "oy")}


def test_a_name_without_text_is_indexed_whole_too() -> None:
    han = {"resourceType": "Patient", "name": [{"family": "欧阳", "given": ["明", "月"]}]}
    assert ("initials", "oymy") in strings(han, "name")
    latin = {"resourceType": "Patient", "name": [{"family": "Smith", "given": ["John"]}]}
    assert {("text", "smithjohn"), ("text", "johnsmith")} <= strings(latin, "name")


@pytest.mark.parametrize(
    ("name", "pinyin", "initials"),
    [("曾伟", {"zengwei", "cengwei"}, {"zw", "cw"}), ("万俟明", {"moqiming"}, {"mqm"}), ("张伟", {"zhangwei"}, {"zw"})],
)
def test_a_surname_is_read_as_a_surname(name: str, pinyin: set[str], initials: set[str]) -> None:
    rows = strings({"resourceType": "Patient", "name": [{"text": name}]}, "name")
    assert {value for kind, value in rows if kind == "pinyin"} >= pinyin
    assert {value for kind, value in rows if kind == "initials"} >= initials


def test_the_written_form_is_kept_for_exact_search() -> None:
    row = next(row for row in extract({"resourceType": "Organization", "name": "康宁 医院"}).strings)
    assert (row.value, row.exact) == ("康宁医院", "康宁 医院")


def test_an_organization_is_found_by_pinyin_but_an_address_is_not() -> None:
    assert ("initials", "knyy") in strings({"resourceType": "Organization", "name": "康宁医院"}, "name")
    assert strings(MINGYUE, "address") == {("text", "云岭示范市"), ("text", "青禾路8号")}


def test_phonetic_shares_the_rows_of_name() -> None:
    assert strings(MINGYUE, "phonetic") == set()
    assert search_parameters("Patient")["phonetic"].rows == "name"


def test_identifier_is_a_token_and_by_type_another() -> None:
    assert tokens(MINGYUE, "identifier") == {(ID_CARD, "990001199006062488")}
    assert tokens(MINGYUE, "identifier:of-type") == {
        ("http://terminology.hl7.org/CodeSystem/v2-0203", "NI|990001199006062488")
    }


def test_a_code_gets_the_system_of_its_required_value_set() -> None:
    assert tokens(MINGYUE, "gender") == {("http://hl7.org/fhir/administrative-gender", "female")}


def test_telecom_is_split_by_system_and_numbers_are_found_without_spaces() -> None:
    assert tokens(MINGYUE, "phone") == {("", "120 0000-0008"), ("", "12000000008")}
    assert tokens(MINGYUE, "email") == {("", "a@yixiehub.example")}


def test_common_parameters_come_from_meta() -> None:
    rows = extract(MINGYUE)
    assert tokens(MINGYUE, "_tag") == {("urn:t", "a")}
    assert {(row.param, row.value) for row in rows.uris} == {("_profile", "http://x/p"), ("_source", "urn:kn")}
    assert not {row.param for row in rows.tokens} & COLUMNS


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ({}, "false"),
        ({"deceasedBoolean": False}, "false"),
        ({"deceasedBoolean": True}, "true"),
        ({"deceasedDateTime": "2025"}, "true"),
    ],
)
def test_deceased_is_true_or_false_for_everyone(patch: dict[str, Any], expected: str) -> None:
    assert {code for _, code in tokens({"resourceType": "Patient", **patch}, "deceased")} == {expected}


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("2025", "2025-01-01T00:00:00+08:00", "2026-01-01T00:00:00+08:00"),
        ("2025-12", "2025-12-01T00:00:00+08:00", "2026-01-01T00:00:00+08:00"),
        ("2024-02", "2024-02-01T00:00:00+08:00", "2024-03-01T00:00:00+08:00"),
        ("2025-06-11", "2025-06-11T00:00:00+08:00", "2025-06-12T00:00:00+08:00"),
        ("2025-06-11T09:30", "2025-06-11T09:30:00+08:00", "2025-06-11T09:31:00+08:00"),
        ("2025-06-11T09:30:15Z", "2025-06-11T09:30:15+00:00", "2025-06-11T09:30:16+00:00"),
        ("2025-06-11T09:30:15.5-03:30", "2025-06-11T09:30:15.500+00:00", "2025-06-11T09:30:15.600+00:00"),
        ("1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999999+00:00", "1970-01-01T00:00:00+00:00"),
    ],
)
def test_a_date_covers_its_precision(text: str, low: str, high: str) -> None:
    shift = us("1970-01-01T03:30:00+00:00") if text.endswith("-03:30") else 0
    assert range_us(text) == (us(low) + shift, us(high) + shift)


@pytest.mark.parametrize(
    "text", ["", "2025-13", "2025-02-29", "2025-06-11T25:00:00Z", "11/06/2025", "2025-6-1", "２０２５"]
)
def test_what_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        range_us(text)


def test_an_open_period_reaches_to_the_end_of_time() -> None:
    rows = extract({"resourceType": "Encounter", "period": {"start": "2025-06-11"}}).dates
    assert [(row.low_us, row.high_us) for row in rows] == [(us("2025-06-11T00:00:00+08:00"), DATE_MAX_US)]
    rows = extract({"resourceType": "Encounter", "period": {"end": "2025-06-11"}}).dates
    assert [(row.low_us, row.high_us) for row in rows] == [(DATE_MIN_US, us("2025-06-12T00:00:00+08:00"))]


def test_quantities_carry_value_unit_and_comparator() -> None:
    quantity = {"value": Decimal("6.90"), "comparator": ">=", "unit": "毫摩尔/升", "system": "urn:u", "code": "mmol/L"}
    rows = extract({"resourceType": "Observation", "valueQuantity": quantity}).quantities
    assert {row.param for row in rows} == {"value-quantity", "combo-value-quantity"}
    assert {row[1:] for row in rows} == {(6.9, math.inf, "urn:u", "mmol/L", "毫摩尔/升")}


def test_the_same_value_twice_gives_one_row() -> None:
    coding = {"system": "urn:c", "code": "k"}
    rows = extract({"resourceType": "Observation", "code": {"coding": [coding, coding]}}).tokens
    assert [row.param for row in rows] == ["code", "combo-code"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Patient/p1", ("Patient", "p1", "")),
        ("Patient/p1/_history/3", ("Patient", "p1", "")),
        ("https://other.example/fhir/Patient/p1", ("Patient", "p1", "https://other.example/fhir/Patient/p1")),
        ("urn:uuid:8e1f", ("", "", "urn:uuid:8e1f")),
        ("Nonsense/p1", ("", "", "Nonsense/p1")),
        ("#contained", ("", "", "")),
    ],
)
def test_references_are_split(text: str, expected: tuple[str, str, str]) -> None:
    assert split_reference(text) == expected


def test_patient_is_the_subject_only_where_the_subject_is_a_patient() -> None:
    def params(reference: dict[str, Any]) -> set[str]:
        return {row.param for row in extract({"resourceType": "Observation", "subject": reference}).references}

    assert params({"reference": "Patient/p1"}) == {"subject", "patient"}
    assert params({"reference": "Device/d1"}) == {"subject"}
    assert params({"type": "Patient", "identifier": {"value": "10086"}}) == {"subject", "patient"}


def test_a_logical_reference_keeps_its_identifier() -> None:
    subject = {"type": "Patient", "identifier": {"system": ID_CARD, "value": "990001199006062488"}}
    row = extract({"resourceType": "Task", "for": subject}).references[0]
    assert row[1:] == ("Patient", "", "", ID_CARD, "990001199006062488")


def test_a_canonical_is_found_with_and_without_version() -> None:
    rows = extract({"resourceType": "QuestionnaireResponse", "questionnaire": "http://x/q|2"}).references
    assert [row.url for row in rows] == ["http://x/q", "http://x/q|2"]


def test_a_choice_is_indexed_by_the_type_it_has() -> None:
    goal = {"resourceType": "Observation", "valueCodeableConcept": {"coding": [{"code": "pos"}], "text": "阳性"}}
    rows = extract(goal)
    assert ("", "pos") in tokens(goal, "value-concept")
    assert [(row.param, row.exact) for row in rows.strings] == [("value-string", "阳性")]
    assert not rows.quantities


def test_every_parameter_of_every_type_is_indexed_or_listed_as_unsupported() -> None:
    def writers(node: Any) -> int:
        below = [*node.members.values(), *(child for _, _, child in node.guarded)]
        return len(node.writers) + sum(writers(child) for child in below)

    for resource_type in sorted(resource_types()):
        for parameter in search_parameters(resource_type).values():
            if parameter.code in COLUMNS or parameter.expression == DECEASED or parameter.rows != parameter.code:
                continue
            assert writers(extract_module._tree(resource_type, parameter.code)), (resource_type, parameter.code)
        for code, reason in unsupported(resource_type).items():
            assert reason
            assert code not in search_parameters(resource_type)


def test_unsupported_are_composites_full_text_and_a_few_named_ones() -> None:
    reasons = {(code, reason) for kind in resource_types() for code, reason in unsupported(kind).items()}
    others = {code for code, reason in reasons if "composite" not in reason and "no expression" not in reason}
    assert others == {"near", "composition", "message"}
    assert {code for code, reason in reasons if "no expression" in reason} == {"_content", "_query", "_text"}
    assert set(unsupported("Patient")) == {"_content", "_query", "_text"}


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="Krankenhaus"):
        extract({"resourceType": "Krankenhaus"})


@pytest.mark.parametrize(
    ("resource", "expected"),
    [
        (MINGYUE, "Patient/p1"),
        (
            {
                "resourceType": "Observation",
                "subject": {"reference": "Patient/p1"},
                "performer": [{"reference": "Patient/p2"}],
            },
            "Patient/p1",
        ),
        ({"resourceType": "ImagingStudy", "subject": {"reference": "Patient/p1/_history/2"}}, "Patient/p1"),
        ({"resourceType": "Task", "for": {"reference": "Patient/p1"}}, "Patient/p1"),
        ({"resourceType": "Observation", "subject": {"reference": "Device/d"}}, None),
        ({"resourceType": "Observation", "subject": {"reference": "https://o.example/Patient/p1"}}, None),
        ({"resourceType": "Organization", "name": "康宁医院"}, None),
        (
            {
                "resourceType": "Appointment",
                "participant": [{"actor": {"reference": "Practitioner/x"}}, {"actor": {"reference": "Patient/p1"}}],
            },
            "Patient/p1",
        ),
    ],
)
def test_the_patient_of_a_resource(resource: dict[str, Any], expected: str | None) -> None:
    assert patient_of(resource) == expected


def test_every_patient_of_a_resource_is_listed_subject_first() -> None:
    observation = {
        "resourceType": "Observation",
        "performer": [{"reference": "Patient/b"}],
        "subject": {"reference": "Patient/a"},
    }
    assert patients_of(observation) == ("Patient/a", "Patient/b")
