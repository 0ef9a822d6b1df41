"""A sender's codes get the standard's beside them, and never less than what the sender wrote."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from fhir_mappings.code_maps import CodeMaps, UnmappedCode, compiled, institution_of, rows
from fhir_mappings.errors import MalformedError
from fhir_mappings.hl7v2.base import Translation, Upsert
from fhir_mappings.hl7v2.context import MappingContext
from fhir_mappings.hl7v2.dialects import STANDARD
from fhir_mappings.hl7v2.tokenizer import parse
from fhir_mappings.hl7v2.translate import translate

Json = dict[str, Any]

KN = "https://yixiehub.example/fhir/CodeSystem/KN"
LOINC = "http://loinc.org"
SEX = "http://hl7.org/fhir/administrative-gender"
ORU = (
    "MSH|^~\\&|LIS|KNYY|YIXIE|HUB|20250611080000||ORU^R01|1|P|2.4\r"
    "PID|1||10086^^^^PI||郑伟||19800101|8\r"
    "OBR|1||F1|CHEM^生化^L|||20250611070000||||||||||||||||||F\r"
    "OBX|1|NM|K^血钾^L||4.1|mmol/L|3.5-5.3|||||F\r"
    "OBX|2|NM|NA^血钠^L^2951-2^Sodium^LN||140|mmol/L||偏高||||F\r"
)


def a_map(source: str, target: str, **elements: str) -> Json:
    """Return an active ConceptMap of *elements*, each equivalent to its target."""
    return {
        "resourceType": "ConceptMap",
        "id": "m",
        "status": "active",
        "group": [
            {
                "source": source,
                "target": target,
                "element": [
                    {"code": code, "target": [{"code": to, "equivalence": "equivalent"}]}
                    for code, to in elements.items()
                ],
            }
        ],
    }


def translated(*maps: Json, text: str = ORU) -> Translation:
    context = MappingContext(institution="KN", dialect=STANDARD, received_at=datetime(2025, 6, 11, tzinfo=UTC))
    return translate(parse(text), replace(context, maps=compiled(maps).get("KN", CodeMaps())))


def resources(translation: Translation, kind: str) -> list[Json]:
    found = [one.resource for one in translation.changes if isinstance(one, Upsert)]
    return [one for one in found if one["resourceType"] == kind]


def potassium(translation: Translation) -> Json:
    return next(one for one in resources(translation, "Observation") if one["code"]["coding"][0]["code"] == "K")


def test_a_mapped_coding_stands_behind_the_senders_own() -> None:
    made = potassium(translated(a_map(f"{KN}/local", LOINC, K="2823-3")))
    assert made["code"] == {
        "coding": [
            {"system": f"{KN}/local", "code": "K", "display": "血钾"},
            {"system": LOINC, "code": "2823-3"},
        ],
        "text": "血钾",
    }


def test_a_map_changes_nothing_but_the_codings_it_adds() -> None:
    before, after = translated(), translated(a_map(f"{KN}/local", LOINC, K="2823-3", CHEM="24323-8"))
    assert [type(one) for one in before.changes] == [type(one) for one in after.changes]
    for old, new in zip(before.changes, after.changes, strict=True):
        assert isinstance(old, Upsert)
        assert isinstance(new, Upsert)
        for coding in _codings(new.resource):
            coding[:] = [one for one in coding if one.get("system") != LOINC or one["code"] == "2951-2"]
        assert old == new


def _codings(value: Any) -> list[list[Json]]:
    if isinstance(value, list):
        return [found for item in value for found in _codings(item)]
    if not isinstance(value, dict):
        return []
    own = [value["coding"]] if isinstance(value.get("coding"), list) else []
    return own + [found for item in value.values() for found in _codings(item)]


def test_a_unit_gets_its_ucum_code_in_the_value_and_in_the_range() -> None:
    made = potassium(translated(a_map(f"{KN}/table/unit", "http://unitsofmeasure.org", **{"mmol/L": "mmol/L"})))
    coded = {"unit": "mmol/L", "system": "http://unitsofmeasure.org", "code": "mmol/L"}
    assert made["valueQuantity"].items() >= coded.items()
    assert made["referenceRange"][0]["low"].items() >= coded.items()


def test_a_code_of_a_table_means_what_its_sender_says() -> None:
    assert "gender" not in resources(translated(), "Patient")[0]
    made = translated(a_map(f"{KN}/table/administrative_sex", SEX, **{"8": "male"}))
    assert resources(made, "Patient")[0]["gender"] == "male"
    assert not [issue for issue in made.issues if issue.where.startswith("PID-8")]


def test_the_senders_own_map_wins_over_the_standard_table() -> None:
    text = ORU.replace("|8\r", "|M\r")
    made = translated(a_map(f"{KN}/table/administrative_sex", SEX, M="female"), text=text)
    assert resources(made, "Patient")[0]["gender"] == "female"


def test_what_is_unmapped_is_told_once_and_a_code_with_a_standard_one_beside_it_is_not() -> None:
    assert set(translated().unmapped) == {
        UnmappedCode(f"{KN}/local", "CHEM"),
        UnmappedCode(f"{KN}/local", "K"),
        UnmappedCode(f"{KN}/table/unit", "mmol/L"),
        UnmappedCode(f"{KN}/table/administrative_sex", "8"),
        UnmappedCode(f"{KN}/table/interpretation", "偏高"),
    }


@pytest.mark.parametrize("equivalence", ["unmatched", "disjoint", "narrower", "relatedto", "inexact"])
def test_what_is_no_statement_about_every_use_settles_a_code_and_adds_nothing(equivalence: str) -> None:
    found = a_map(f"{KN}/local", LOINC, K="2823-3")
    found["group"][0]["element"][0]["target"][0]["equivalence"] = equivalence
    made = translated(found)
    assert len(potassium(made)["code"]["coding"]) == 1
    assert UnmappedCode(f"{KN}/local", "K") not in made.unmapped


def test_a_table_code_that_has_no_meaning_is_settled_too() -> None:
    found = a_map(f"{KN}/table/administrative_sex", SEX, **{"8": "male"})
    found["group"][0]["element"][0]["target"] = [{"equivalence": "unmatched"}]
    made = translated(found)
    assert "gender" not in resources(made, "Patient")[0]
    assert UnmappedCode(f"{KN}/table/administrative_sex", "8") not in made.unmapped


def test_a_draft_is_not_applied_and_neither_is_another_institutions_map() -> None:
    draft = {**a_map(f"{KN}/local", LOINC, K="2823-3"), "status": "draft"}
    other = a_map(f"{KN}/local".replace("/KN/", "/QH/"), LOINC, K="2823-3")
    assert len(potassium(translated(draft, other))["code"]["coding"]) == 1


def test_of_two_maps_the_first_is_believed_for_each_target_system() -> None:
    snomed = "http://snomed.info/sct"
    made = potassium(
        translated(
            a_map(f"{KN}/local", LOINC, K="2823-3"),
            a_map(f"{KN}/local", LOINC, K="6298-4"),
            a_map(f"{KN}/local", snomed, K="59573005"),
        )
    )
    assert [one["code"] for one in made["code"]["coding"]] == ["K", "2823-3", "59573005"]


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"source": f"{KN}/table/no_such"}, "ConceptMap.group[0].source"),
        ({"source": f"{KN}/table/order_control"}, "ConceptMap.group[0].source"),
        ({"unmapped": {"mode": "provided"}}, "ConceptMap.group[0].unmapped"),
        ({"source": f"{KN}/table/unit"}, "ConceptMap.group[0].target"),
        ({"target": ""}, "ConceptMap.group[0].element[0]"),
        ({"element": [{"target": []}]}, "ConceptMap.group[0].element[0].code"),
        ({"source": f"{KN}/table/administrative_sex"}, "ConceptMap.group[0].element[0]"),
        (
            {"element": [{"code": "K", "target": [{"code": "1", "equivalence": "equal", "dependsOn": [{}]}]}]},
            "ConceptMap.group[0].element[0]",
        ),
    ],
)
def test_a_group_that_no_translation_could_follow_is_refused_by_its_place(change: Json, where: str) -> None:
    found = a_map(f"{KN}/local", LOINC, K="2823-3")
    found["group"][0].update(change)
    with pytest.raises(MalformedError) as refused:
        list(rows(found))
    assert refused.value.where == where
    assert refused.value.remedy


def test_a_map_between_standards_says_nothing_of_a_sender() -> None:
    assert compiled([a_map("http://snomed.info/sct", LOINC, A="1")]) == {}
    assert institution_of(f"{KN}/local") == "KN"
    assert institution_of("https://yixiehub.example/fhir/CodeSystem/v2-segment") == ""


def test_no_table_of_the_package_is_changed_by_a_translation() -> None:
    maps = compiled([a_map(f"{KN}/local", LOINC, K="2823-3")])["KN"]
    first = translated(a_map(f"{KN}/local", LOINC, K="2823-3"))
    potassium(first)["code"]["coding"][1]["code"] = "spoiled"
    assert maps.codings[f"{KN}/local", "K"][0]["code"] == "2823-3"
    assert potassium(translated())["code"]["coding"] == [{"system": f"{KN}/local", "code": "K", "display": "血钾"}]
