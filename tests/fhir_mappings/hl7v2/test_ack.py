"""What the hub answers in which mode, and that an acknowledgement reads back as it was meant."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.parser import parse_message

from fhir_mappings.errors import MalformedError, UnsupportedError
from fhir_mappings.hl7v2 import ack
from fhir_mappings.hl7v2.tokenizer import Message, parse

NOW = datetime(2025, 6, 11, 8, 30, tzinfo=UTC)


def message(
    accept: str = "", application: str = "", version: str = "2.4", kind: str = "ADT^A01", tail: str = ""
) -> Message:
    return parse(
        f"MSH|^~\\&|HIS|KNYY|YXT|HUB|20250611083000||{kind}|C1|P|{version}|||{accept}|{application}|CHN{tail}\r"
    )


def answer(original: Message | None, **options: Any) -> Message:
    return parse(ack.build_ack(original, control_id="H1", now=NOW, **options))


@pytest.mark.parametrize(
    ("outcome", "code"), [("stored", "AA"), ("invalid", "AE"), ("refused", "AR"), ("unstorable", "AE")]
)
def test_original_mode_answers_with_application_codes(outcome: Any, code: str) -> None:
    assert ack.immediate_code(message(), outcome) == code
    assert ack.application_code(message(), outcome) is None


@pytest.mark.parametrize(
    ("accept", "outcome", "code"),
    [
        ("AL", "stored", "CA"),
        ("AL", "refused", "CR"),
        ("AL", "unstorable", "CE"),
        ("AL", "invalid", "CA"),
        ("NE", "stored", None),
        ("NE", "refused", None),
        ("ER", "stored", None),
        ("ER", "refused", "CR"),
        ("SU", "stored", "CA"),
        ("SU", "refused", None),
        ("", "stored", None),
    ],
)
def test_enhanced_mode_answers_as_msh_15_asks(accept: str, outcome: Any, code: str | None) -> None:
    assert ack.immediate_code(message(accept, "AL"), outcome) == code


@pytest.mark.parametrize(
    ("application", "outcome", "code"),
    [
        ("AL", "stored", "AA"),
        ("AL", "invalid", "AE"),
        ("NE", "stored", None),
        ("ER", "stored", None),
        ("ER", "invalid", "AE"),
        ("SU", "stored", "AA"),
        ("SU", "invalid", None),
        ("AL", "refused", None),
    ],
)
def test_application_acknowledgement_follows_msh_16(application: str, outcome: Any, code: str | None) -> None:
    assert ack.application_code(message("AL", application), outcome) == code


@pytest.mark.parametrize(
    ("accept", "application", "outcome", "code"),
    [
        ("", "AL", "refused", "AR"),
        ("NE", "AL", "refused", "AR"),
        ("NE", "ER", "refused", "AR"),
        ("SU", "AL", "refused", "AR"),
        ("NE", "AL", "unstorable", "AE"),
        # CR or CE has said it already.
        ("AL", "AL", "refused", None),
        ("ER", "AL", "unstorable", None),
        ("NE", "SU", "refused", None),
        ("NE", "NE", "refused", None),
    ],
)
def test_a_refusal_that_msh_15_keeps_quiet_is_told_as_msh_16_asks(
    accept: str, application: str, outcome: Any, code: str | None
) -> None:
    assert ack.application_code(message(accept, application), outcome) == code


@pytest.mark.parametrize(("application", "code"), [("AL", "AR"), ("ER", "AR"), ("SU", None), ("NE", None)])
def test_a_refusal_after_the_acceptance_is_told_as_msh_16_asks(application: str, code: str | None) -> None:
    assert ack.application_code(message("AL", application), "refused", accepted=True) == code


def test_an_acknowledgement_is_never_acknowledged() -> None:
    received = message("AL", "AL", kind="ACK^A01")
    assert ack.is_ack(received)
    assert ack.immediate_code(received, "stored") is None
    assert ack.application_code(received, "stored") is None


def test_application_response_is_not_an_acknowledgement() -> None:
    assert not ack.is_ack(message(kind="RRI^I12"))


def test_answer_swaps_the_parties_and_echoes_the_control_id() -> None:
    made = answer(message(tail="|GB 18030-2000"), code="AA")
    assert [made.get(f"MSH-{n}") for n in (3, 4, 5, 6)] == ["YXT", "HUB", "HIS", "KNYY"]
    assert made.get("MSH-9.1") == "ACK"
    assert made.get("MSH-9.2") == "A01"
    assert made.get("MSH-10") == "H1"
    assert made.get("MSH-12") == "2.4"
    assert made.get("MSH-18") == "GB 18030-2000"
    assert made.get("MSA-1") == "AA"
    assert made.get("MSA-2") == "C1"


def test_empty_msh_18_stays_empty() -> None:
    assert answer(message(), code="AA").get("MSH-18") == ""


def test_input_without_header_still_gets_an_answer() -> None:
    made = answer(None, code="AR", errors=[ack.AckError(location="segment 1", code=100, text="No MSH.")])
    assert made.get("MSH-3") == "YIXIE"
    assert made.get("MSH-4") == "HUB"
    assert made.get("MSA-1") == "AR"
    assert made.first("ERR") is not None


def test_error_place_is_an_erl_from_v25_on_and_an_eld_before() -> None:
    error = ack.AckError(location="PID-3 of segment 2", code=101, text="PID-3 is not valued.")
    newer = answer(message(version="2.5.1"), code="AE", errors=[error])
    assert newer.get("ERR-2.1") == "PID"
    assert newer.get("ERR-2.3") == "3"
    assert newer.get("ERR-3") == "101"
    assert newer.get("ERR-4") == "E"
    assert newer.get("ERR-8") == "PID-3 is not valued."
    older = answer(message(version="2.4"), code="AE", errors=[error])
    assert older.get("ERR-1.1") == "PID"
    assert older.get("ERR-1.4.1") == "101"


def test_sender_cannot_inject_a_segment_through_its_own_header() -> None:
    hostile = parse("MSH|^~\\&|HI\\X0D\\MSA|K|Y|H|2025||ADT^A01|C\\X0D\\MSA\\F\\AA|P|2.4\r")
    made = ack.build_ack(hostile, code="AE", control_id="H1", now=NOW)
    assert [line[:3] for line in made.strip("\r").split("\r")] == ["MSH", "MSA"]


def test_sender_delimiters_are_used_in_the_answer() -> None:
    made = ack.build_ack(parse("MSH#*~\\&#HIS#KN#Y#H#2025##ADT*A01#C1#P#2.4\r"), code="AA", control_id="H1", now=NOW)
    assert made.startswith("MSH#*~\\&#Y#H#HIS#KN#")


@pytest.mark.parametrize("version", ["2.3.1", "2.4", "2.5.1"])
def test_answer_is_a_valid_ack_for_hl7apy(version: str) -> None:
    text = ack.build_ack(message(version=version), code="AA", control_id="H1", now=NOW)
    parse_message(text, validation_level=VALIDATION_LEVEL.TOLERANT).validate()


def test_partner_answer_reads_back() -> None:
    read = ack.parse_ack(
        parse("MSH|^~\\&|HIS|KNYY|YXT|HUB|2025||ACK^R01|9|P|2.4\rMSA|AE|YX1|字段缺失\rERR|PID^1^3^101&缺\r")
    )
    assert read == ack.ParsedAck(code="AE", control_id="YX1", text="字段缺失; 缺")
    assert not read.accepted
    assert not read.refused


@pytest.mark.parametrize("body", ["", "MSA||YX1\r", "MSA|OK|YX1\r"])
def test_answer_without_a_code_is_no_answer(body: str) -> None:
    with pytest.raises(MalformedError):
        ack.parse_ack(parse("MSH|^~\\&|HIS|KNYY|YXT|HUB|2025||ACK|9|P|2.4\r" + body))


def test_refusals_of_the_translator_become_err_and_outcome() -> None:
    unsupported = UnsupportedError(
        "Event A99 is not supported.", where="MSH-9 of segment 1", remedy="Send A01.", code=201
    )
    assert ack.outcome_of(unsupported) == "refused"
    assert ack.error_of(unsupported) == ack.AckError(
        location="MSH-9 of segment 1", code=201, text="Event A99 is not supported. Send A01."
    )
    missing = MalformedError("PID-3 is not valued.", where="PID-3 of segment 2", code=101)
    assert ack.outcome_of(missing) == "invalid"
    assert ack.error_of(MalformedError("?")).code == 207
