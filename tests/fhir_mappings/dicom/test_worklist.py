"""Orders as worklist items: names in two scripts, numbers that are whole or absent, UIDs that lead back."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_mappings.dicom.worklist import Around, item, modality, order_id, study_uid

BASE = "https://yixiehub.example/fhir"
ID = "cf2ff304-4c59-5745-9656-e3830e16cf8b"


def order(**more: Any) -> dict[str, Any]:
    return {"resourceType": "ServiceRequest", "id": ID, "code": {"text": "胸部CT平扫"}, **more}


def made(the_order: dict[str, Any] | None = None, **around: Any) -> dict[str, Any]:
    values = {
        "institution": "KN",
        "owner": "KN",
        "station": "CT1",
        "time_zone": "Asia/Shanghai",
        "base": BASE,
        **around,
    }
    return item(the_order or order(), Around(**values))


def value(element: dict[str, Any]) -> Any:
    return (element.get("Value") or [None])[0]


def test_the_uid_of_an_order_leads_back_to_it() -> None:
    uid = study_uid(order())
    assert uid.startswith("2.25.")
    assert len(uid) <= 64
    assert order_id(uid) == ID


def test_an_order_that_names_its_study_keeps_that_name() -> None:
    assert study_uid(order(identifier=[{"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}])) == "1.2.3"


def test_an_id_that_is_no_uuid_has_a_uid_all_the_same() -> None:
    assert study_uid(order(id="o1")) == study_uid(order(id="o1")) != study_uid(order(id="o2"))


@pytest.mark.parametrize("uid", ["1.2.3", "2.25.", "2.25.x", f"2.25.{1 << 128}", "2.25.1.2"])
def test_a_uid_that_no_order_gave_leads_nowhere(uid: str) -> None:
    assert order_id(uid) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ({"text": "郑伟"}, {"Alphabetic": "ZHENG^WEI", "Ideographic": "郑^伟"}),
        ({"text": "欧阳明月"}, {"Alphabetic": "OUYANG^MINGYUE", "Ideographic": "欧阳^明月"}),
        ({"text": "单雄信"}, {"Alphabetic": "SHAN^XIONGXIN", "Ideographic": "单^雄信"}),
        ({"family": "司", "given": ["马光"]}, {"Alphabetic": "SI^MAGUANG", "Ideographic": "司^马光"}),
        ({"family": "Smith", "given": ["Ann"]}, {"Alphabetic": "Smith^Ann"}),
        ({"text": "A=B^C\\D"}, {"Alphabetic": "A B C D"}),
    ],
)
def test_a_name_is_written_in_both_scripts(name: dict[str, Any], expected: dict[str, str]) -> None:
    assert value(made(patient={"name": [name]})["00100010"]) == expected


def test_a_name_that_came_in_pinyin_too_keeps_it() -> None:
    names = [{"text": "曾曾"}, {"family": "Tsang", "given": ["Chang"]}]
    assert value(made(patient={"name": names})["00100010"])["Alphabetic"] == "Tsang^Chang"


def test_the_number_of_the_asking_institution_goes_first() -> None:
    numbers = [
        {"system": f"{BASE}/NamingSystem/{code}/patient-id", "value": number}
        for code, number in (("KN", "1"), ("YL", "2"))
    ]
    asked_by_yl = made(patient={"identifier": numbers}, institution="YL")
    assert (value(asked_by_yl["00100020"]), value(asked_by_yl["00100021"])) == ("2", "YL")
    asked_by_qh = made(patient={"identifier": numbers}, institution="QH")
    assert (value(asked_by_qh["00100020"]), value(asked_by_qh["00100021"])) == ("1", "KN")


def test_a_number_too_long_for_its_element_is_left_out_and_never_cut() -> None:
    long = {"system": f"{BASE}/NamingSystem/KN/placer-order", "value": "KN2025061100000000001"}
    found = made(order(identifier=[long]))
    assert value(found["00080050"]) is None
    assert value(found["00401001"]) == "CF2FF3044C595745"
    assert value(found["00402016"]) == "KN2025061100000000001"


def numbered(kind: str, number: str, modality: str = "") -> dict[str, Any]:
    said = [{"url": f"{BASE}/StructureDefinition/scheduled-modality", "valueString": modality}] if modality else []
    return {"extension": said, "system": f"{BASE}/NamingSystem/KN/{kind}", "value": number}


def test_procedure_and_step_have_the_numbers_that_the_placer_gave_them() -> None:
    own = [numbered("accession", "A1"), numbered("requested-procedure", "R1"), numbered("scheduled-step", "S1")]
    found = made(order(identifier=own))
    step = value(found["00400100"])
    assert [value(found[tag]) for tag in ("00080050", "00401001")] == ["A1", "R1"]
    assert value(step["00400009"]) == "S1"


def test_a_step_has_the_number_of_its_modality() -> None:
    own = [numbered("scheduled-step", "S1", "CT"), numbered("scheduled-step", "S2", "PT")]
    both = order(code={"text": "PET-CT"}, identifier=[numbered("accession", "A1"), *own])
    for wanted, expected in (("CT", ("CT", "S1")), ("PT", ("PT", "S2"))):
        step = value(made(both, modality=wanted)["00400100"])
        assert (value(step["00080060"]), value(step["00400009"])) == expected


@pytest.mark.parametrize("number", ["", "RP-20250611-0000000001"])
def test_the_accession_number_stands_in_where_nobody_numbered_the_procedure(number: str) -> None:
    found = made(order(identifier=[numbered("accession", "A1"), numbered("requested-procedure", number)]))
    assert value(found["00401001"]) == value(value(found["00400100"])["00400009"]) == "A1"


def test_the_number_of_a_procedure_is_no_accession_number() -> None:
    found = made(order(identifier=[numbered("requested-procedure", "R1"), numbered("scheduled-step", "S1")]))
    assert value(found["00080050"]) is None


@pytest.mark.parametrize(
    ("planned", "expected"),
    [
        ({"occurrenceDateTime": "2025-06-11T16:30:00Z"}, ("20250612", "003000")),
        ({"occurrencePeriod": {"start": "2025-06-11"}}, ("20250611", "000000")),
        ({"authoredOn": "2025-06-11T08:30:00+08:00"}, ("20250611", "083000")),
        ({"authoredOn": "2025"}, ("", "")),
        ({}, ("", "")),
    ],
)
def test_a_step_is_scheduled_in_the_hubs_time_zone(planned: dict[str, Any], expected: tuple[str, str]) -> None:
    step = value(made(order(**planned))["00400100"])
    assert (value(step["00400002"]) or "", value(step["00400003"]) or "") == expected


@pytest.mark.parametrize(
    ("text", "wanted", "expected"),
    [("胸部正位片 DR", "", "DX"), ("胸片", "CR", "CR"), ("胸片", "CT", "DX"), ("PET-CT", "", "PT"), ("肝功能", "", "")],
)
def test_one_modality_is_chosen_of_those_an_order_allows(text: str, wanted: str, expected: str) -> None:
    assert modality(order(code={"text": text}), wanted) == expected


def test_codes_without_room_or_meaning_are_left_out() -> None:
    codings = [
        {"system": "http://loinc.org", "code": "24627-2", "display": "CT Chest"},
        {"system": f"{BASE}/CodeSystem/KN/local", "code": "CT0101"},
        {"system": f"{BASE}/CodeSystem/KN/local", "code": "A-CODE-OF-TOO-MANY-CHARACTERS", "display": "x"},
    ]
    items = made(order(code={"coding": codings}))["00321064"]["Value"]
    assert [(value(one["00080100"]), value(one["00080102"])) for one in items] == [("24627-2", "LN")]
