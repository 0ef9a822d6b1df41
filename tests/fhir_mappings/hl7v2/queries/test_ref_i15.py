"""REF^I15 and RRI^I15 as messages: what is asked, and an answer in the version, names and delimiters of its question."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.exceptions import ValidationError
from hl7apy.parser import parse_message

from fhir_mappings.errors import MalformedError
from fhir_mappings.hl7v2.ack import AckError
from fhir_mappings.hl7v2.dialects import STANDARD
from fhir_mappings.hl7v2.outbound.target import OutboundTarget
from fhir_mappings.hl7v2.outbound.validation import CONDITIONAL
from fhir_mappings.hl7v2.queries import ref_i15
from fhir_mappings.hl7v2.tokenizer import parse
from tests.fhir_mappings.hl7v2.golden import EVENTS, SAMPLES, translation_of

NOW = datetime(2025, 6, 12, 13, 0, tzinfo=UTC)
TARGET = OutboundTarget(institution="KN", application="HIS", facility="KNYY", dialect=STANDARD)
QUESTION = (
    "MSH|^~\\&|HIS|KNYY|YXT|CENTER|20250612130000||REF^I15^REF_I12|ASK1|P|{version}\r"
    "RF1|P|||||N1^KN|||||F1\r"
    "PRD|RP\r"
    "PID|1||A1^^^KN~^^^X~B2^^^KN~A1^^^KN||周建国\r"
)


def answered(version: str, *, question: str = QUESTION) -> str:
    made = {
        change.resource["resourceType"]: change.resource
        for change in translation_of(SAMPLES / "REF_I12" / "kn_i12_referral.hl7").changes
        if hasattr(change, "resource")
    }
    response = ref_i15.ReferralResponse(
        status="AA",
        request=made["ServiceRequest"],
        patient=made["Patient"],
        answer="R",
        sender="KN",
        reason="无床|满员",
        step="拒绝接收 rejected",
    )
    original = parse(question.format(version=version))
    return ref_i15.build(original, response, target=TARGET, control_id="YX1", now=NOW)


def test_a_question_names_a_referral_and_its_patient_s_numbers_once() -> None:
    assert ref_i15.read(parse(QUESTION.format(version="2.4"))) == ref_i15.ReferralQuestion(
        placer="N1", filler="F1", patients=("A1", "B2")
    )


@pytest.mark.parametrize(("gone", "code", "place"), [("RF1", 100, "after segment 1"), ("PID", 100, "after segment 1")])
def test_a_question_without_its_segments_says_which(gone: str, code: int, place: str) -> None:
    lines = [one for one in QUESTION.format(version="2.4").split("\r") if not one.startswith(gone)]
    with pytest.raises(MalformedError, match=gone) as caught:
        ref_i15.read(parse("\r".join(lines)))
    assert (caught.value.code, caught.value.where) == (code, place)


@pytest.mark.parametrize(
    ("kind", "asks"), [("REF^I15", True), ("ref^i15", True), ("REF^I12", False), ("RRI^I15", False)]
)
def test_only_ref_i15_is_the_question(kind: str, asks: bool) -> None:
    assert ref_i15.is_referral_query(parse(f"MSH|^~\\&|A|B|C|D|||{kind}|1|P|2.4\r")) is asks


@pytest.mark.parametrize("version", ["2.3.1", "2.4", "2.5", "2.5.1", "2.6"])
def test_every_segment_of_an_answer_is_valid_for_hl7apy(version: str) -> None:
    text = answered(version)
    message = parse(text)
    assert [one.name for one in message.segments] == ["MSH", "MSA", "RF1", "PRD", "PRD", "PID", "NTE"]
    assert (message.get("MSH-12"), message.get("MSA-2"), message.get("RF1-1")) == (version, "ASK1", "R")
    for one in parse_message(text, validation_level=VALIDATION_LEVEL.TOLERANT, find_groups=False).children:
        try:
            one.validate()
        except ValidationError as error:
            if not any(f"Missing required child {name}" in str(error) for name in CONDITIONAL.get(version, ())):
                raise


def test_an_answer_has_the_names_and_delimiters_of_its_question_and_wants_no_acknowledgement() -> None:
    theirs = QUESTION.replace("|", "#").replace("^", "@")
    message = parse(answered("2.5.1", question=theirs))
    names = [message.get(f"MSH-{number}") for number in (3, 4, 5, 6, 15, 16)]
    assert names == ["YXT", "CENTER", "HIS", "KNYY", "", ""]
    assert message.delimiters == parse(theirs.format(version="2.5.1")).delimiters
    # A delimiter of one message is a character of another.
    assert message.get("RF1-10.2") == "无床|满员"


def test_a_refusal_is_an_acknowledgement_because_there_is_no_referral_to_tell_of() -> None:
    original = parse(QUESTION.format(version="2.5.1"))
    error = AckError(location="RF1-6", code=204, text="No such referral.")
    message = parse(
        ref_i15.build(original, ref_i15.response_of("AE", (error,)), target=TARGET, control_id="YX1", now=NOW)
    )
    assert [one.name for one in message.segments] == ["MSH", "MSA", "ERR"]
    assert (message.get("MSH-9.1"), message.get("MSA-1"), message.get("ERR-3.1")) == ("ACK", "AE", "204")


def test_the_samples_of_answers_say_what_their_event_was_asked() -> None:
    kinds = {
        trigger: translation_of(EVENTS / f"yl_rri_{trigger}.hl7").workflow_events[0].kind
        for trigger in ("i13", "i14", "i15")
    }
    assert kinds == {
        "i13": "referral.change-accepted",
        "i14": "referral.cancellation-refused",
        "i15": "referral.status-received",
    }
