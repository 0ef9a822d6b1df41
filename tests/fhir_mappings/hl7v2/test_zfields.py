"""Z-segments become the elements that the sender's own table names, and a table that cannot work is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fhir_mappings.definitions.check import check
from fhir_mappings.hl7v2 import zfields
from fhir_mappings.hl7v2.base import Translation, Upsert
from fhir_mappings.hl7v2.dialects import dialect_from
from fhir_mappings.hl7v2.segments import z
from fhir_mappings.hl7v2.tokenizer import parse
from fhir_mappings.hl7v2.translate import translate
from tests.fhir_mappings.hl7v2.golden import context

ROWS = {
    "ZPI-2": "Patient.maritalStatus",
    "ZPI-3.2": "Patient.extension(blood-group).valueString",
    "ZPI-4": "Patient.gender:administrative_sex",
    "ZPI-5": "Patient.telecom",
    "ZPI-6": "Patient.extension(insured).valueBoolean",
    "ZVI-1": "Encounter.hospitalization.destination.display",
    "ZVI-2": "Encounter.reasonCode",
    "ZVI-3": "Encounter.period.end",
}
TABLE = " ".join(f"{place}={target}" for place, target in ROWS.items())


def said(*segments: str, table: str = TABLE) -> Translation:
    ctx = context("KN")
    dialect = ctx.dialect.varied({"z_fields": zfields.table(table)})
    header = "MSH|^~\\&|HIS|KNYY|YXT|HUB|20250611083000||ADT^A08|C1|P|2.4"
    lines = [header, "PID|1||10086^^^^IDCard||郑伟||19760229", "PV1|1|I" + "|" * 17 + "V1", *segments]
    return translate(parse("".join(f"{line}\r" for line in lines)), replace(ctx, dialect=dialect))


def change(translation: Translation, kind: str) -> Upsert:
    (found,) = (one for one in translation.changes if isinstance(one, Upsert) and one.resource["resourceType"] == kind)
    return found


def test_each_field_becomes_the_element_its_row_names() -> None:
    made = said("ZPI|1|M^已婚^L|x^RhD阴性|M|12000000077|是", "ZVI|康复医院|R05^咳嗽^I10|20250612")
    patient: dict[str, Any] = change(made, "Patient").resource
    assert patient["maritalStatus"]["coding"][0]["display"] == "已婚"
    assert patient["gender"] == "male"
    assert patient["telecom"] == [{"system": "phone", "value": "12000000077"}]
    extensions = {one["url"].rpartition("/")[2]: one for one in patient["extension"]}
    assert extensions["blood-group"]["valueString"] == "RhD阴性"
    assert extensions["insured"]["valueBoolean"] is True
    visit = change(made, "Encounter").resource
    assert visit["hospitalization"] == {"destination": {"display": "康复医院"}}
    assert visit["reasonCode"][0]["coding"][0]["code"] == "R05"
    assert visit["period"] == {"end": "2025-06-12"}
    assert [issue for issue in check(patient) if issue.severity == "error"] == []


def test_a_value_that_does_not_fit_is_reported_with_its_place_and_left_out() -> None:
    made = said("ZPI|1||||", "ZPI|2||||12|maybe")
    assert "extension" not in change(made, "Patient").resource
    assert [(issue.code, issue.where) for issue in made.issues] == [("value", "ZPI-6 of segment 5")]


def test_a_null_clears_the_element_and_never_the_extensions_of_others() -> None:
    made = said('ZPI|1|""|""', 'ZVI|""')
    assert change(made, "Patient").cleared == {"maritalStatus"}
    assert change(made, "Encounter").cleared == {"hospitalization.destination.display"}


def test_without_a_table_a_z_segment_says_nothing() -> None:
    assert said("ZPI|1|M", table="ZXX-1=Patient.maritalStatus") == said(table="ZXX-1=Patient.maritalStatus")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("PID-3=Patient.maritalStatus", "Z-segment"),
        ("ZPI-0=Patient.maritalStatus", "Z-segment"),
        ("ZPI-3=Patient.colour", "no element colour"),
        ("ZPI-3=Patient.contact.name", "contact repeats"),
        ("ZPI-3=Patient.gender", "code map"),
        ("ZPI-3=Patient.gender:colours", "no code map colours"),
        ("ZPI-3=Patient.maritalStatus:marital_status", "type code"),
        ("ZPI-3.1=Patient.maritalStatus", "component"),
        ("ZPI-3=Patient.photo", "Attachment"),
        ("ZPI-3=Patient.birthDate.year", "has no year"),
        ("ZPI-3=Patient.active", "own rules"),
        ("ZPI-3=Encounter.subject.display", "own rules"),
        ("ZPI-3=Coverage.type", "Encounter, Patient"),
        ("ZPI-3=Patient.extension(x).url", "one value"),
        ("ZPI-3=Patient.extension(x).valueColour", "no element"),
        ("ZPI-3", "no row"),
        ("ZPI-3=Patient.maritalStatus ZPI-3=Patient.gender:administrative_sex", "twice"),
    ],
)
def test_a_row_that_cannot_work_is_refused_when_it_is_configured(row: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        zfields.table(row)
    assert not zfields.is_table(row)


def test_every_kind_that_a_table_may_name_has_a_reader() -> None:
    assert {*z._SIMPLE, "code"} == zfields.SIMPLE
    assert set(z._COMPLEX) == zfields.COMPLEX


def test_a_dialect_with_a_wrong_table_is_refused_as_a_whole() -> None:
    with pytest.raises(ValueError, match="colour"):
        dialect_from({"z_fields": {"ZPI-3": "Patient.colour"}})
    assert dialect_from({"z_fields": {"ZPI-3": "Patient.maritalStatus"}}).z_fields
