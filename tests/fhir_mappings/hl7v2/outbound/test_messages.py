"""Messages that leave: structures that hl7apy accepts, the receiver's own numbers, and no text that becomes structure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.parser import parse_message
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_mappings.errors import UnsupportedError
from fhir_mappings.hl7v2.base import Attachment, Upsert
from fhir_mappings.hl7v2.charset import decode_message, encode_for
from fhir_mappings.hl7v2.outbound.oru_r01 import oru_r01
from fhir_mappings.hl7v2.outbound.target import OutboundTarget
from fhir_mappings.hl7v2.tokenizer import parse
from fhir_mappings.hl7v2.translate import translate
from tests.fhir_mappings.hl7v2.golden import context
from tests.fhir_mappings.hl7v2.outbound.samples import (
    APPOINTMENT,
    FINDINGS,
    KN,
    KN_251,
    NOW,
    PATIENT,
    PDF,
    PRACTITIONERS,
    REFERRAL,
    REPORT,
    REQUEST,
    answer,
    booking,
    identifier,
    order,
    referral,
    report,
)

TARGETS = [pytest.param(KN, id="his-cn-2.4"), pytest.param(KN_251, id="standard-2.5.1")]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("make", [report, referral, answer, booking])
def test_structure_is_valid_for_hl7apy(make: Callable[[OutboundTarget], str], target: OutboundTarget) -> None:
    # TOLERANT, because STRICT refuses any field longer than its old table length, such as a Base64 PDF in OBX-5.
    parse_message(make(target), validation_level=VALIDATION_LEVEL.TOLERANT, find_groups=True).validate()


@pytest.mark.parametrize("target", TARGETS)
def test_order_segments_are_valid_for_hl7apy(target: OutboundTarget) -> None:
    # hl7apy takes the alternatives of ORM_O01's choice group (OBR, RQD, RXO, ...) for required all at once, so the message
    # as a whole can never be valid for it; its segments are judged one by one.
    parsed = parse_message(order(target), validation_level=VALIDATION_LEVEL.TOLERANT, find_groups=False)
    assert [child.name for child in parsed.children] == ["MSH", "PID", "ORC", "OBR", "NTE", "DG1"]
    for child in parsed.children:
        child.validate()


def test_report_goes_out_as_the_county_hospital_reads_it() -> None:
    sent = parse(report(KN, observations=[FINDINGS]))
    assert sent.get("MSH-3") == "YIXIE"
    assert sent.get("MSH-7") == "20250611101530"
    assert sent.get("MSH-18") == ""
    assert sent.get("PID-2") == "0000010086"
    first, second = sent.first("PID").field(3).repetitions  # type: ignore[union-attr]
    assert (first.component(1), first.component(5)) == ("0000010086", "IDCard")
    assert (second.component(1), second.component(5)) == ("990001197602290170", "IdentifyNO")
    obr = sent.first("OBR")
    assert obr is not None
    assert [obr.get(n) for n in (2, 3, 4, 7, 22, 24, 25)] == [
        "KN20250611001",
        "YXTRAD202506110001",
        "CT0101",
        "20250611085500",
        "20250611101500",
        "CT",
        "F",
    ]
    assert (obr.get(32), obr.get(32, 1, 2)) == ("C002", "韩磊")
    assert (obr.get(33), obr.get(33, 1, 2)) == ("C015", "宋洁")
    obx = sent.all("OBX")
    assert [(item.get(2), item.get(3), item.get(11)) for item in obx] == [
        ("TX", "18782-3", "F"),
        ("TX", "19005-8", "F"),
        ("ED", "PDF", "F"),
    ]


def test_number_of_the_other_hospital_never_leaves_without_its_owner() -> None:
    stranger = {**PATIENT, "identifier": PATIENT["identifier"][:1]}
    (number,) = parse(report(KN, patient=stranger)).first("PID").field(3).repetitions  # type: ignore[union-attr]
    assert (number.component(1), number.component(4)) == ("600777", "YL")
    assert "600777" not in report(KN)


def test_address_and_telephone_stay_behind() -> None:
    assert "12000000002" not in report(KN)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("preliminary", "P"),
        ("partial", "A"),
        ("final", "F"),
        ("amended", "C"),
        ("corrected", "C"),
        ("cancelled", "X"),
    ],
)
def test_report_status_goes_to_obr_25(status: str, code: str) -> None:
    assert parse(report(KN, report={**REPORT, "status": status})).get("OBR-25") == code


def test_amended_report_marks_its_conclusion_and_document_corrected() -> None:
    sent = parse(report(KN, report={**REPORT, "status": "amended"}, observations=[]))
    assert {item.get(11) for item in sent.all("OBX")} == {"C"}


@pytest.mark.parametrize("target", TARGETS)
def test_report_comes_back_as_it_went(target: OutboundTarget) -> None:
    text = report(target)
    raw = encode_for(text, target.dialect.charset_out)
    made = translate(parse(decode_message(raw).text), context("KN"))
    observations = [
        change.resource
        for change in made.changes
        if isinstance(change, Upsert) and change.resource["resourceType"] == "Observation"
    ]
    assert [item["code"]["coding"][0]["code"] for item in observations] == ["18782-3", "2823-3", "19005-8"]
    assert str(observations[1]["valueQuantity"]["value"]) == "6.90"
    assert observations[0]["valueString"] == FINDINGS["valueString"]
    assert [change.data for change in made.changes if isinstance(change, Attachment)] == [PDF.data]
    assert made.patient_id == context("KN").id("Patient", "patient-id", "10086")


@pytest.mark.parametrize("target", TARGETS)
def test_who_did_what_comes_back_as_it_went(target: OutboundTarget) -> None:
    """A laboratory's technician is neither who wrote the report nor lost; who asked for it is told by his own number."""
    function = "http://hl7.org/fhir/StructureDefinition/event-performerFunction"

    def performer(who: str, code: str) -> dict[str, Any]:
        concept = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "code": code}]}
        return {"extension": [{"url": function, "valueCodeableConcept": concept}], "reference": f"Practitioner/{who}"}

    told = {
        **REPORT,
        "performer": [performer("song", "SPRF"), performer("liu", "SPRF"), performer("liu", "TRANS")],
    }
    request = {**REQUEST, "requester": {"reference": "Practitioner/liu"}}
    text = report(target, report=told, request=request)
    [obr] = parse(text).all("OBR")
    assert obr.get(33) == ""
    made = translate(parse(text), context("KN"))
    [back] = [
        change.resource
        for change in made.changes
        if isinstance(change, Upsert) and change.resource["resourceType"] == "DiagnosticReport"
    ]
    assert [
        (one["display"], one["extension"][0]["valueCodeableConcept"]["coding"][0]["code"]) for one in back["performer"]
    ] == [("宋洁", "SPRF"), ("刘敏", "SPRF"), ("刘敏", "TRANS")]
    assert [one["display"] for one in back["resultsInterpreter"]] == ["韩磊"]
    [ordered] = [
        change.resource
        for change in made.changes
        if isinstance(change, Upsert) and change.resource["resourceType"] == "ServiceRequest"
    ]
    assert ordered["requester"]["display"] == "刘敏"
    assert (obr.get(16), obr.get(16, 2)) == ("0231", "刘敏")


def test_order_comes_back_as_it_went() -> None:
    made = translate(parse(order(KN)), context("KN"))
    (event,) = made.workflow_events
    assert (event.kind, event.placer_number) == ("order.new", "KN20250611001")


def test_referral_and_its_refusal_come_back_as_they_went() -> None:
    (asked,) = translate(parse(referral(KN)), context("KN")).workflow_events
    assert (asked.kind, asked.placer_number, asked.receiver, asked.performer) == (
        "referral.requested",
        "KNREF20250612001",
        "YL",
        "C101",
    )
    (refused,) = translate(parse(answer(KN)), context("YL")).workflow_events
    assert (refused.kind, refused.placer_number, refused.reason) == (
        "referral.rejected",
        "KNREF20250612001",
        "无床",
    )


def test_booking_comes_back_as_it_went() -> None:
    made = translate(parse(booking(KN)), context("KN"))
    (change,) = [
        item for item in made.changes if isinstance(item, Upsert) and item.resource["resourceType"] == "Appointment"
    ]
    assert change.resource["start"] == APPOINTMENT["start"]
    assert change.resource["end"] == APPOINTMENT["end"]


def test_gbk_report_survives_a_delimiter_byte_inside_a_name() -> None:
    raw = encode_for(report(KN, patient={**PATIENT, "name": [{"text": "陳東"}]}), KN.dialect.charset_out)
    assert b"\x96\x7c" in raw
    assert parse(decode_message(raw).text).get("PID-5") == "陳東"


def test_overlong_control_id_is_refused() -> None:
    with pytest.raises(UnsupportedError):
        oru_r01(REPORT, patient=PATIENT, target=KN, control_id="x" * 21, now=NOW)


HOSTILE = st.text(
    alphabet=st.one_of(
        st.sampled_from('|^~\\&#\r\n\x0b\x1c\x85\u2028\t"MSHOBX1陳'), st.characters(exclude_categories=["Cs"])
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(text=HOSTILE, target=st.sampled_from([KN, KN_251]))
def test_no_text_of_a_partner_becomes_structure(text: str, target: OutboundTarget) -> None:
    named = {**PATIENT, "name": [{"text": text}], "identifier": [identifier("KN", "patient-id", text)]}
    coded = {"coding": [{"system": "http://loinc.org", "code": text, "display": text}], "text": text}
    people = {key: {"identifier": [{"value": text}], "name": [{"text": text}]} for key in PRACTITIONERS}
    observation = {"status": "final", "code": coded, "valueString": text, "referenceRange": [{"text": text}]}
    request = {**REQUEST, "code": coded, "reasonCode": [{"text": text}], "note": [{"text": text}]}
    request["identifier"] = [identifier("KN", "placer-order", text, "PLAC")]
    referred = {**REFERRAL, "reasonCode": [coded], "note": [{"text": text}]}
    messages = {
        "MSH PID OBR OBX OBX OBX": report(
            target,
            patient=named,
            observations=[observation],
            request=request,
            practitioners=people,
            report={**REPORT, "conclusion": f"x{text}x"},
            attachments=[replace(PDF, title=text)],
        ),
        "MSH PID ORC OBR NTE DG1": order(
            target, request, patient=named, practitioners=people, conditions=[{"code": coded}], reason=text
        ),
        "MSH RF1 PRD PRD PID DG1 NTE": referral(target, referred, patient=named, conditions=[{"code": coded}]),
        "MSH MSA RF1 PRD PRD PID NTE": answer(
            target, referred, patient=named, reason=text, note=f"x{text}", original_control_id=text
        ),
        "MSH SCH PID RGS AIS AIL AIP": booking(
            target,
            {
                **APPOINTMENT,
                "serviceType": [{"text": text}],
                "participant": [
                    {"actor": {"reference": "Location/x", "display": text}},
                    {"actor": {"reference": "Practitioner/liu"}},
                ],
            },
            patient=named,
            practitioners=people,
        ),
    }
    for names, message in messages.items():
        assert "\n" not in message
        assert [segment.name for segment in parse(message).segments] == names.split()
        assert [line[:3] for line in message.rstrip("\r").split("\r")] == names.split()
