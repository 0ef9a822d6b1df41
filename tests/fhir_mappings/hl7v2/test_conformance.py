"""Received messages held against the standard: everything is found, nothing of a patient is told."""

from __future__ import annotations

import pytest

from fhir_mappings.hl7v2.conformance import findings
from fhir_mappings.hl7v2.tokenizer import parse
from tests.support.v2 import adt, oru


def found(text: str, severity: str = "E") -> list[tuple[str, int]]:
    return [(one.location, one.code) for one in findings(parse(text)) if one.severity == severity]


HEAD = "MSH|^~\\&|HIS|KNYY|Y|H|20250611||ADT^A01|1|P|{}\r"


@pytest.mark.parametrize("text", [adt("A01", "1"), oru("1", "F", "6.9", at="20250611090000")])
def test_what_keeps_to_the_standard_has_no_error(text: str) -> None:
    assert found(text) == []


def test_all_errors_are_found_with_their_places() -> None:
    text = HEAD.format("2.4") + "PID|1||||\rPV1|1|\rAL1|1\rZZZ|anything\rNOP|x\r"
    assert found(text) == [
        ("EVN", 100),
        ("NOP of segment 6", 100),
        ("PID-3 of segment 2", 101),
        ("PID-5 of segment 2", 101),
        ("PV1-2 of segment 3", 101),
        ("AL1-3 of segment 4", 101),
    ]


def test_a_segment_that_the_message_does_not_have_and_values_of_no_table_are_warnings() -> None:
    text = HEAD.format("2.4") + "EVN||20250611\rPID|1||7||郑^伟||||\rPV1|1|XX\rORC|NW\r"
    assert found(text) == []
    assert found(text, "W") == [("ORC of segment 5", 100), ("PV1-2 of segment 4", 103)]


def test_no_value_is_told() -> None:
    text = HEAD.format("2.4") + "EVN||20250611\rPID|1||420881199||郑伟||1990|猫\rPV1|1|急诊抢救\r"
    told = " ".join(one.text + one.location for one in findings(parse(text)))
    assert told
    assert not any(value in told for value in ("420881199", "郑伟", "急诊抢救", "猫"))


@pytest.mark.parametrize("version", ["", "9.9", "V2.4"])
def test_a_version_that_there_is_none_of_is_said(version: str) -> None:
    assert found(HEAD.format(version) + "EVN||20250611\r") == [("MSH-12 of segment 1", 203)]
