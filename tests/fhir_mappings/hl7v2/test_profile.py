"""A feed's own profile: what it may say, and what it finds."""

from __future__ import annotations

import pytest

from fhir_mappings.hl7v2.profile import findings, is_profile, read_profile
from fhir_mappings.hl7v2.tokenizer import parse

PROFILE = """{
  "*": {"required": ["MSH-10"]},
  "ADT": {"segments": ["PV1", "NK1"], "required": ["PID-5", "PID-3.4"], "lengths": {"PID-3.1": 4}},
  "ADT^A01": {"tables": {"PV1-2": ["I", "O"]}},
  "ORU^R01": {"segments": ["OBX"]}
}"""
TEXT = "MSH|^~\\&|HIS|KNYY|Y|H|20250611||ADT^{}||P|2.4\rPID|1||12345^^^KN~1^^^|||\rPV1|1|E\r"


def found(event: str) -> list[tuple[str, int]]:
    return [(one.location, one.code) for one in findings(read_profile(PROFILE), parse(TEXT.format(event)))]


def test_everything_that_fits_the_message_holds_for_it() -> None:
    of_type = [("MSH-10 of segment 1", 101), ("NK1", 100), ("PID-5 of segment 2", 101), ("PID-3.1 of segment 2", 102)]
    assert found("A08") == of_type
    assert found("A01") == [*of_type, ("PV1-2 of segment 3", 103)]


def test_a_component_is_there_if_any_repetition_has_it() -> None:
    profile = read_profile('{"*": {"required": ["PID-3.4", "PID-3.5"]}}')
    assert [one.location for one in findings(profile, parse(TEXT.format("A01")))] == ["PID-3.5 of segment 2"]


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "x", '{"adt": {}}', '{"ADT": []}', '{"ADT": {"need": ["PID-5"]}}', '{"ADT": {"required": "PID-5"}}',
        '{"ADT": {"required": ["PID"]}}', '{"ADT": {"required": ["PID-0"]}}', '{"ADT": {"lengths": {"PID-5": "9"}}}',
        '{"ADT": {"lengths": {"PID-5": 0}}}', '{"ADT": {"lengths": {"PID-5": true}}}', '{"ADT": {"tables": {"PV1-2": "I"}}}',
        '{"ADT": {"tables": ["PV1-2"]}}', '{"ADT": {"segments": ["PV1-2"]}}', '{"ADT": {"segments": [7]}}',
    ],
)  # fmt: skip
def test_what_is_no_profile_is_refused(text: str) -> None:
    assert not is_profile(text)
