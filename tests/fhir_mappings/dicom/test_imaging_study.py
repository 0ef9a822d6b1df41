"""Dates, names and stubs of the FHIR side of a study."""

from __future__ import annotations

import pytest

from fhir_mappings.definitions.check import check
from fhir_mappings.dicom.imaging_study import display_name, moment, patient_stub


@pytest.mark.parametrize(
    ("da", "tm", "expected"),
    [
        ("20250611", "093015", "2025-06-11T09:30:15+08:00"),
        ("20250611", "093015.25", "2025-06-11T09:30:15.250+08:00"),
        ("20250611", "0930", "2025-06-11T09:30:00+08:00"),
        ("20250611", "09", "2025-06-11"),
        ("20250611", "", "2025-06-11"),
        ("20250611", "235960", "2025-06-11T23:59:59+08:00"),
        ("20250230", "093015", ""),
        ("2025.06.11", "noon", "2025-06-11"),
        ("", "093015", ""),
    ],
)
def test_a_dicom_moment_is_never_a_time_without_its_zone(da: str, tm: str, expected: str) -> None:
    assert moment(da, tm, "Asia/Shanghai") == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("郑^伟", "郑伟"),
        ("ZHENG^WEI", "ZHENG WEI"),
        ("买买提·艾力", "买买提·艾力"),
        ("=郑^伟", "郑伟"),
        ("^^^", ""),
        ("", ""),
    ],
)
def test_names_are_shown_as_people_write_them(value: str, expected: str) -> None:
    assert display_name(value) == expected


def test_a_stub_says_where_it_comes_from_and_leaves_out_what_is_unusable() -> None:
    study = {
        "PatientID": " 7 ",
        "PatientName": "",
        "PatientNamePinyin": "",
        "PatientSex": "男",
        "PatientBirthDate": "19760231",
    }
    stub = patient_stub(study, id="x", institution="KN")
    assert stub["identifier"][0]["value"] == "7"
    assert stub["meta"]["tag"][0]["code"] == "dicom-header"
    assert not stub.keys() & {"name", "gender", "birthDate"}
    assert check(stub) == []
