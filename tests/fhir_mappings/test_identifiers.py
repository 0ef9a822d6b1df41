"""Check digits and keys of Chinese numbers."""

from __future__ import annotations

from datetime import date
from uuid import uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_mappings.identifiers import (
    INSURANCE_CARD,
    NAMESPACE,
    RESIDENT_ID,
    canonical_system,
    check_organization_code,
    check_resident_id,
    check_social_credit_code,
    naming_system,
    patient_key,
    resource_id,
)

PATIENTS = [
    ("990001196803150313", "male"),
    ("990001195507080264", "female"),
    ("990001198211201155", "male"),
    ("990001199006062488", "female"),
    ("990001197602290170", "male"),
    ("990001196110013391", "male"),
    ("990001200109090532", "male"),
    ("990001194802120447", "female"),
    ("990001202405200192", "male"),
    ("990001195910015710", "male"),
    ("99000119850607005X", "male"),
]
ORGANIZATIONS = [
    "12990001TEAT00015E",
    "52990002TEAT00023K",
    "91990003TEAT00031U",
    "91990004TEAT0004X2",
    "91990005TEAT00058G",
    "51990000TEAT000667",
    "91990006TEAT00074L",
    "91990007TEAT00082X",
]


@pytest.mark.parametrize(("number", "sex"), PATIENTS)
def test_valid_resident_numbers_are_ok_and_say_sex_and_birth(number: str, sex: str) -> None:
    checked = check_resident_id(number, sex=sex)
    assert (checked.status, checked.sex, checked.test_region) == ("ok", sex, True)
    assert checked.birth_date == date.fromisoformat(f"{number[6:10]}-{number[10:12]}-{number[12:14]}")


def test_broken_resident_numbers_say_which_rule() -> None:
    assert check_resident_id("990001196803150314").status == "checksum"
    assert check_resident_id("990001202302300115").status == "date"
    assert check_resident_id("990001196803150313", sex="female").status == "sex-mismatch"
    assert check_resident_id("9900011968031503").status == "format"
    assert check_resident_id("无").status == "format"
    assert check_resident_id("١٢٣٤٥٦٧٨٩٠١٢٣٤٥").status == "format"


def test_fifteen_digits_become_eighteen() -> None:
    assert check_resident_id("990001680315031").value == "990001196803150313"


def test_a_lower_case_check_letter_is_accepted() -> None:
    assert check_resident_id(" 99000119850607005x ").value == "99000119850607005X"


@given(st.sampled_from([number for number, _ in PATIENTS]), st.integers(0, 16), st.integers(1, 9))
def test_any_one_digit_error_is_found(number: str, place: int, shift: int) -> None:
    wrong = number[:place] + str((int(number[place]) + shift) % 10) + number[place + 1 :]
    assert check_resident_id(wrong).status != "ok"


@pytest.mark.parametrize("code", ORGANIZATIONS)
def test_valid_credit_codes_are_ok_with_their_organisation_code(code: str) -> None:
    assert check_social_credit_code(code) == "ok"
    assert check_organization_code(code[8:17]) == "ok"
    assert check_organization_code(f"{code[8:16]}-{code[16]}") == "ok"


@pytest.mark.parametrize("code", ORGANIZATIONS)
def test_a_wrong_credit_code_is_found(code: str) -> None:
    assert check_social_credit_code(code[:-1] + ("0" if code[-1] != "0" else "1")) == "checksum"
    assert check_social_credit_code(code[:-1]) == "format"
    assert check_social_credit_code("I" + code[1:]) == "format"


def test_known_systems_become_the_canonical_one() -> None:
    assert canonical_system("2.16.156.10011.1.3") == RESIDENT_ID
    assert canonical_system("urn:oid:2.16.840.1.113883.2.23.1.19.1") == RESIDENT_ID
    assert canonical_system("2.16.840.1.113883.2.23.1.9.1") == RESIDENT_ID
    assert canonical_system("http://NamingSystem.hl7fhir.cn/identityDocument") == RESIDENT_ID
    assert canonical_system("urn:oid:2.16.840.1.113883.2.23.1.19.2") == INSURANCE_CARD
    assert canonical_system("https://elsewhere.example/id") == "https://elsewhere.example/id"


def test_patient_numbers_meet_with_and_without_leading_zeros() -> None:
    assert patient_key(" 0000010086 ") == patient_key("10086") == "10086"
    assert patient_key("000") == "0"
    assert patient_key("0A1") == "0A1"


def test_ids_depend_on_every_part_of_the_key() -> None:
    ids = {
        resource_id("KN", "patient-id", "Patient", "10086"),
        resource_id("QH", "patient-id", "Patient", "10086"),
        resource_id("KN", "inpatient-no", "Patient", "10086"),
        resource_id("KN", "patient-id", "Encounter", "10086"),
        resource_id("KN", "patient-id", "Patient", "10087"),
    }
    assert len(ids) == 5
    assert resource_id("KN", "patient-id", "Patient", "10086") == "878488bb-2a29-5784-be52-a91108da69a9"
    assert naming_system("KN", "patient-id") == "https://yixiehub.example/fhir/NamingSystem/KN/patient-id"


@given(st.lists(st.text(max_size=20), min_size=4, max_size=4))
def test_a_resource_id_is_the_uuid_of_its_parts(parts: list[str]) -> None:
    institution, authority, resource_type, value = parts

    made = resource_id(institution, authority, resource_type, value)

    assert made == str(uuid5(NAMESPACE, "|".join(parts)))
