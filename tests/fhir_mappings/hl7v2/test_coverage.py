"""What a field is used for is found by taking it out; what the tables do not ask for is told as such."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from fhir_mappings.errors import UnsupportedError
from fhir_mappings.hl7v2 import coverage
from fhir_mappings.hl7v2.context import MappingContext
from fhir_mappings.hl7v2.coverage import FieldUse, uses
from fhir_mappings.hl7v2.dialects import DIALECTS
from fhir_mappings.hl7v2.tokenizer import parse
from fhir_mappings.hl7v2.translate import translate

CTX = MappingContext(institution="KN", dialect=DIALECTS["standard"], received_at=datetime(2025, 6, 11, 1, tzinfo=UTC))
ADMIT = (
    "MSH|^~\\&|HIS|KNYY|YIXIE|HUB|20250611083000||ADT^A01|1|P|2.4\r"
    "EVN||20250611083000\r"
    "PID|1||10086^^^KN^PI||LI^SI||19800101|M" + "|" * 31 + "X\r"
    "PV1|1|I|W1^1^1||||||||||||||||V1\r"
    "UB1|1||SOMETHING\r"
    'DG1|1||I10^Hypertension^I10||""|A\r'
)


def found(text: str = ADMIT) -> dict[str, FieldUse]:
    return {f"{one.segment}-{one.number}": one for one in uses(parse(text), CTX)[1]}


def test_a_field_stands_for_the_elements_that_differ_without_it() -> None:
    by_field = found()
    assert by_field["PID-5"].use == "mapped"
    assert by_field["PID-5"].elements == ("Patient.name",)
    assert by_field["PID-7"].elements == ("Patient.birthDate",)
    assert by_field["PV1-2"].elements == ("Encounter.class",)
    assert by_field["EVN-2"].use == "read", "MSH-7 says the same time"
    assert by_field["DG1-3"].elements == ("Condition", "Encounter.diagnosis"), "without it there is none"


def test_a_field_that_decides_which_record_is_meant_stands_for_its_id() -> None:
    assert "Patient.id" in found(ADMIT.replace("PID|1||", "PID|1|777|"))["PID-3"].elements


def test_what_decides_the_order_of_messages_is_told_as_time() -> None:
    assert found(ADMIT.replace("EVN||20250611083000", "EVN||20250611070000"))["EVN-2"].elements == ("time",)


def test_a_field_without_which_the_message_is_refused_is_required() -> None:
    by_field = found()
    assert [by_field[name].use for name in ("MSH-9", "MSH-10", "MSH-12", "PID-3", "PV1-19")] == ["required"] * 5


def test_a_field_and_a_segment_that_no_table_asks_for_are_told_apart() -> None:
    by_field = found()
    assert by_field["PID-39"].use == "unused"
    assert by_field["UB1-3"].use == "segment"


def test_what_the_door_asked_for_is_no_waste() -> None:
    asked: set[tuple[int, int]] = set()
    message = parse(ADMIT)
    coverage.observed(message, asked).get("MSH-11")
    told = {f"{one.segment}-{one.number}": one.use for one in uses(message, CTX, asked)[1]}
    assert (told["MSH-11"], told["MSH-5"]) == ("door", "unused")


def test_the_translation_is_the_one_that_the_hub_makes() -> None:
    assert uses(parse(ADMIT), CTX)[0] == translate(parse(ADMIT), CTX)


def test_every_valued_field_is_told_once_and_a_null_is_a_value() -> None:
    told = [(one.index, one.number) for one in uses(parse(ADMIT), CTX)[1]]
    assert len(told) == len(set(told))
    assert (5, 5) in told
    assert (2, 2) not in told


def test_trials_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage, "MAX_TRIALS", 0)
    assert {one.use for one in uses(parse(ADMIT), CTX)[1]} == {"read", "unused", "segment"}


def test_a_message_that_cannot_be_translated_is_no_matter_of_fields() -> None:
    with pytest.raises(UnsupportedError):
        uses(parse(ADMIT.replace("ADT^A01", "ZZZ^Z01")), CTX)
