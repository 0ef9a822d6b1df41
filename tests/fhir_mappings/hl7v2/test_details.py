"""Fields of orders, results, diagnoses and kin that v2-to-FHIR has rows for and a reader of the FHIR side looks for."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_mappings.hl7v2.base import Upsert
from fhir_mappings.hl7v2.tokenizer import parse
from fhir_mappings.hl7v2.translate import translate
from tests.fhir_mappings.hl7v2.golden import context

_PID = "PID|1||600123^^^YLYY^MR||欧阳^明月||19900624|F"


def _message(event: str, *segments: str) -> str:
    kind, _, trigger = event.partition("^")
    header = f"MSH|^~\\&|HIS|YLYY|YXT|HUB|20250611100000+0800||{kind}^{trigger}|D1|P|2.5.1"
    return "\r".join([header, *segments]) + "\r"


def _resources(kind: str, event: str, *segments: str) -> list[dict[str, Any]]:
    translation = translate(parse(_message(event, *segments)), context("YL"))
    changes = [one for one in translation.changes if isinstance(one, Upsert)]
    return [one.resource for one in changes if one.resource["resourceType"] == kind]


def _order(orc: dict[int, str], obr: dict[int, str]) -> dict[str, Any]:
    def line(name: str, fields: dict[int, str]) -> str:
        return "|".join([name, *(fields.get(number, "") for number in range(1, max(fields) + 1))])

    segments = (
        _PID,
        line("ORC", {1: "NW", 2: "P1", **orc}),
        line("OBR", {2: "P1", 4: "CT01^胸部CT^L", **obr}),
    )
    return _resources("ServiceRequest", "ORM^O01", *segments)[0]


@pytest.mark.parametrize(
    ("code", "coding"),
    [
        ("V", ("v3-Confidentiality", "V")),
        ("R", ("v3-Confidentiality", "R")),
        # "Usual control" is what v3 calls normal; its own U would publish the order.
        ("U", ("v3-Confidentiality", "N")),
        ("EMP", ("v2-0177", "EMP")),
    ],
)
def test_the_confidentiality_of_an_order_is_its_security_label(code: str, coding: tuple[str, str]) -> None:
    (label,) = _order({28: code}, {})["meta"]["security"]
    assert (label["system"].rpartition("/")[2], label["code"]) == coding


def test_why_an_order_was_changed_stands_with_the_order() -> None:
    (extension,) = _order({16: "R1^碘过敏^L"}, {})["extension"]
    assert extension["url"].endswith("/request-statusReason")
    assert extension["valueCodeableConcept"]["text"] == "碘过敏"


def test_a_number_to_call_that_both_segments_give_stands_once() -> None:
    number = "^WPN^PH^^^^08710000001"
    (extension,) = _order({14: number}, {17: number})["extension"]
    assert extension["valueContactPoint"]["value"] == "08710000001"


def test_a_second_number_of_the_placer_is_an_identifier() -> None:
    values = [one["value"] for one in _order({33: "ALT9"}, {53: "ALT9"})["identifier"]]
    assert values == ["P1", "ALT9"]


def test_an_order_that_came_of_another_names_it() -> None:
    (parent,) = _order({}, {29: "P0&YLYY"})["basedOn"]
    assert (parent["type"], parent["identifier"]["value"]) == ("ServiceRequest", "P0")


def test_the_place_of_an_order_keeps_its_code() -> None:
    (place,) = _order({29: "CT2^二号CT室^L"}, {})["locationCode"]
    assert place["text"] == "二号CT室"


def _result(**fields: str) -> dict[str, Any]:
    cells = {1: "1", 2: "NM", 3: "K^血钾^L", 5: "4.1", 11: "F", **{int(k[1:]): v for k, v in fields.items()}}
    obx = "|".join(["OBX", *(cells.get(number, "") for number in range(1, max(cells) + 1))])
    return _resources("Observation", "ORU^R01", _PID, "OBR|1|P1|F1|LYTES^电解质^L", obx)[0]


def test_a_member_that_made_a_result_is_its_performer() -> None:
    (performer,) = _result(f15="QMJY^某第三方实验室^L")["performer"]
    assert performer["identifier"]["value"] == "QM"
    assert performer["type"] == "Organization"


def test_a_laboratory_that_is_no_member_keeps_its_name() -> None:
    (performer,) = _result(f23="省临检中心^^X9")["performer"]
    assert performer == {"type": "Organization", "display": "省临检中心"}


def test_when_a_result_was_analysed_is_not_when_the_blood_was_taken() -> None:
    made = _result(f14="20250611080000+0800", f19="20250611093000+0800")
    (extension,) = made["extension"]
    assert made["effectiveDateTime"] == "2025-06-11T08:00:00+08:00"
    assert extension["valueDateTime"] == "2025-06-11T09:30:00+08:00"


def test_a_specimen_without_its_own_segment_says_who_took_how_much_and_when() -> None:
    obr = (
        "OBR|1|P1|F1|LYTES^电解质^L|||20250611080000+0800|20250611081000+0800|5^ml|N01^李^护||||"
        "20250611090000+0800|BLD&血&L||||||||||||||||||||||||脂血"
    )
    (specimen,) = _resources("Specimen", "ORU^R01", _PID, obr, "OBX|1|NM|K^血钾^L||4.1||||||F")
    collection = specimen["collection"]
    assert collection["collectedPeriod"]["end"] == "2025-06-11T08:10:00+08:00"
    assert (str(collection["quantity"]["value"]), collection["quantity"]["unit"]) == ("5", "ml")
    assert collection["collector"]["display"] == "李护"
    assert specimen["note"] == [{"text": "脂血"}]


def test_a_diagnosis_names_the_one_that_it_came_of() -> None:
    visit = "PV1|1|I|||||||||||||||||E1"
    second = "DG1|1||N18^肾功能不全^I10|||F||||||||||||||D2||D1"
    (condition,) = _resources("Condition", "ADT^A08", "EVN||20250611100000+0800", _PID, visit, second)
    (extension,) = condition["extension"]
    assert extension["valueReference"]["identifier"]["value"] == "D1"


def test_kin_have_the_number_of_their_identity_card() -> None:
    kin = "NK1|1|欧阳^父亲|FTH" + "|" * 34 + "99010119600101001X"
    (person,) = _resources("RelatedPerson", "ADT^A28", "EVN||20250611100000+0800", _PID, kin)
    assert [one["value"] for one in person["identifier"]] == ["99010119600101001X"]


@pytest.mark.parametrize(("relation", "kind"), [("SEL", "reference"), ("SPO", "display")])
def test_the_subscriber_is_the_patient_or_somebody_with_a_name(relation: str, kind: str) -> None:
    insurance = f"IN1|1|B1^医保^L|310000|某市医保局|||||||单位^^X9|20250101||||欧阳^明月|{relation}"
    visit = "PV1|1|I|||||||||||||||||E1"
    (coverage,) = _resources("Coverage", "ADT^A08", "EVN||20250611100000+0800", _PID, visit, insurance)
    assert kind in coverage["subscriber"]
    assert coverage["policyHolder"]["display"] == "单位"


def test_a_visit_knows_its_episode_by_number() -> None:
    visit = "PV1|1|I|||||||||||||||||E1" + "|" * 34 + "化疗|EP7"
    (encounter,) = _resources("Encounter", "ADT^A08", "EVN||20250611100000+0800", _PID, visit)
    (episode,) = encounter["episodeOfCare"]
    assert (episode["identifier"]["value"], episode["display"]) == ("EP7", "化疗")


def test_the_moment_of_death_stands_for_the_bare_yes() -> None:
    person = _PID + "|" * 21 + "20250610220000+0800|Y"
    (patient,) = _resources("Patient", "ADT^A28", "EVN||20250611100000+0800", person)
    # FHIR has one deceased[x]; both at once are no Patient.
    assert [name for name in patient if name.startswith("deceased")] == ["deceasedDateTime"]


def test_the_place_in_a_multiple_birth_stands_for_the_bare_yes() -> None:
    person = _PID + "|" * 16 + "Y|2"
    (patient,) = _resources("Patient", "ADT^A28", "EVN||20250611100000+0800", person)
    assert [name for name in patient if name.startswith("multipleBirth")] == ["multipleBirthInteger"]
