"""FHIR to v2 and back, over the wire in the receiver's character set: what the segments have room for comes back as it was."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_mappings.hl7v2.base import Attachment, Upsert
from fhir_mappings.hl7v2.charset import decode_message
from fhir_mappings.hl7v2.outbound.encoding import encode_or_escape
from fhir_mappings.hl7v2.outbound.mdm_t02 import DocumentPart
from fhir_mappings.hl7v2.outbound.target import OutboundTarget
from fhir_mappings.hl7v2.tokenizer import parse
from fhir_mappings.hl7v2.translate import translate
from tests.fhir_mappings.hl7v2.golden import context
from tests.fhir_mappings.hl7v2.outbound import samples as s

Json = dict[str, Any]

HAN = "周建国郑伟玘珅鍇陳東乐龘㐂\U00020bb7\U0002a6d6"
#: Free text of a clinic: Chinese and Latin, every delimiter, escapes as text, line breaks inside.
TEXT = st.text(alphabet=f"{HAN}abcXYZ019 .,;:+-()/%<>\"'|^~\\&#$\n", min_size=1, max_size=120).map(
    lambda text: f"见{text}。"
)
LINE = TEXT.map(lambda text: " ".join(text.split()))
NAME = st.text(alphabet=HAN, min_size=2, max_size=12)
LONG = st.builds(lambda text, times: text * times, TEXT, st.integers(1, 200))
ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


def moments(until: datetime) -> st.SearchStrategy[str]:
    """Return dateTimes with offsets. From 1992 on Shanghai has had one; that of 1901 has seconds, which FHIR cannot write."""
    made = st.datetimes(datetime(1992, 1, 1), until, timezones=ZONES)
    return made.map(lambda moment: moment.replace(microsecond=0).isoformat())


MOMENT = moments(datetime(2100, 1, 1))
#: A referral says when it was written, which cannot be after the message was.
PAST = moments(datetime(2025, 6, 10))
DATE = st.dates(datetime(1880, 1, 1).date()).flatmap(
    lambda day: st.sampled_from([day.isoformat(), day.isoformat()[:7], day.isoformat()[:4]])
)
NUMBER = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9, places=3)
CODE = st.text(alphabet="ABC0123456789.-|^~\\&", min_size=1, max_size=12)
TARGETS = st.sampled_from(
    [
        s.KN,
        s.KN_251,
        *(replace(s.KN, dialect=replace(s.KN_251.dialect, version_out=one)) for one in ("2.3", "2.3.1", "2.6")),
    ]
)
FEW = settings(max_examples=60, deadline=None)


def back(text: str, target: OutboundTarget) -> tuple[dict[str, list[Json]], list[bytes]]:
    """Return the resources by type, and the attachments, of *text* as its receiver's own hub would read it."""
    raw, missing = encode_or_escape(text, target.dialect.charset_out)
    assert missing == 0
    decoded = decode_message(raw)
    assert decoded.text == text
    made: dict[str, list[Json]] = {}
    files = []
    for change in translate(parse(decoded.text), context_of(target)).changes:
        if isinstance(change, Upsert):
            made.setdefault(change.resource["resourceType"], []).append(change.resource)
        elif isinstance(change, Attachment):
            files.append(change.data)
    return made, files


def context_of(target: OutboundTarget) -> Any:
    authorities = context("KN").dialect.authorities
    return replace(context("KN"), dialect=replace(target.dialect, authorities=authorities))


def instant(value: str) -> datetime:
    return datetime.fromisoformat(value).astimezone(UTC)


@FEW
@given(name=NAME, born=DATE, number=CODE.filter(lambda one: one.strip("0")), died=st.none() | MOMENT, target=TARGETS)
def test_who_a_patient_is(name: str, born: str, number: str, died: str | None, target: OutboundTarget) -> None:
    patient: Json = {
        "resourceType": "Patient",
        "id": "p",
        "identifier": [s.identifier("KN", "patient-id", number), s.identifier("YL", "patient-id", number)],
        "name": [{"text": name}],
        "birthDate": born,
        "gender": "female",
    }
    if died:
        patient["deceasedDateTime"] = died
    for event in ("A08", "A31"):
        [made] = back(s.demographics(target, patient, event=event), target)[0]["Patient"]
        assert (made["name"][0]["text"], made["birthDate"], made["gender"]) == (name, born, "female")
        told = {(one["system"], one["value"]) for one in made["identifier"]}
        assert {(one["system"], one["value"]) for one in patient["identifier"]} <= told
        assert ("deceasedDateTime" in made) == bool(died)
        if died:
            assert instant(made["deceasedDateTime"]) == instant(died)


@FEW
@given(kept=CODE, gone=CODE, name=NAME, target=TARGETS)
def test_which_numbers_are_one(kept: str, gone: str, name: str, target: OutboundTarget) -> None:
    def person(number: str) -> Json:
        return {"id": "p", "identifier": [s.identifier("YL", "patient-id", number)], "name": [{"text": name}]}

    raw, _ = encode_or_escape(s.merge(target, person(kept), person(gone)), target.dialect.charset_out)
    sent = parse(decode_message(raw).text)
    pid, mrg = sent.first("PID"), sent.first("MRG")
    assert pid is not None
    assert mrg is not None
    assert (pid.get(3), pid.get(3, 4), mrg.get(1), mrg.get(1, 4)) == (kept, "YL", gone, "YL")


@FEW
@given(
    text=LONG, note=LINE, conclusion=TEXT, value=NUMBER, unit=LINE, limits=LINE, label=LINE, code=CODE, at=MOMENT,
    issued=MOMENT, target=TARGETS, data=st.binary(min_size=1, max_size=200),
)  # fmt: skip
def test_a_report(
    text: str, note: str, conclusion: str, value: Decimal, unit: str, limits: str, label: str, code: str, at: str,
    issued: str, target: OutboundTarget, data: bytes,
) -> None:  # fmt: skip
    concept = {"coding": [{"system": "http://loinc.org", "code": code, "display": label}], "text": label}
    finding = {
        "status": "final",
        "code": concept,
        "valueString": text,
        "effectiveDateTime": at,
        "note": [{"text": note}],
    }
    measured = {
        "status": "final",
        "code": concept,
        "valueQuantity": {"value": value, "unit": unit},
        "referenceRange": [{"text": limits}],
        "effectiveDateTime": at,
    }
    report = {**s.REPORT, "conclusion": conclusion, "issued": issued, "effectiveDateTime": at}
    made, files = back(
        s.report(
            target,
            report=report,
            observations=[finding, measured],
            attachments=[replace(s.PDF, data=b"%PDF-1.4 " + data)],
        ),
        target,
    )
    said, number, impression = made["Observation"]
    assert said["valueString"] == text
    assert said["code"]["coding"][0] == concept["coding"][0]
    assert [one["text"] for one in said["note"]] == [note]
    assert number["valueQuantity"]["value"] == value
    assert number["valueQuantity"]["unit"] == unit
    assert number["referenceRange"][0]["text"] == limits
    assert impression["valueString"] == conclusion.strip()
    assert instant(said["effectiveDateTime"]) == instant(number["effectiveDateTime"]) == instant(at)
    [whole] = made["DiagnosticReport"]
    assert instant(whole["issued"]) == instant(issued)
    assert files == [b"%PDF-1.4 " + data]


@FEW
@given(
    reason=LINE,
    notes=st.lists(LINE, min_size=1, max_size=3),
    label=LINE,
    code=CODE,
    at=MOMENT,
    number=CODE,
    target=TARGETS,
)
def test_an_order(
    reason: str, notes: list[str], label: str, code: str, at: str, number: str, target: OutboundTarget
) -> None:
    request = {
        **s.REQUEST,
        "identifier": [s.identifier("KN", "placer-order", number, "PLAC")],
        "code": {"coding": [{"system": "http://loinc.org", "code": code, "display": label}], "text": label},
        "reasonCode": [{"text": reason}],
        "note": [{"text": one} for one in notes],
        "authoredOn": at,
    }
    [made] = back(s.order(target, request, conditions=[]), target)[0]["ServiceRequest"]
    assert made["code"] == request["code"]
    assert "\n".join(one["text"] for one in made["note"]) == "\n".join(notes)
    assert instant(made["authoredOn"]) == instant(at)
    assert number in {one["value"] for one in made["identifier"]}
    assert parse(s.order(target, request)).get("OBR-13") == reason


@FEW
@given(reason=LINE, notes=st.lists(LINE, min_size=1, max_size=2), until=MOMENT, at=PAST, target=TARGETS)
def test_a_referral_and_its_answer(reason: str, notes: list[str], until: str, at: str, target: OutboundTarget) -> None:
    request = {
        **s.REFERRAL,
        "reasonCode": [{"text": reason}],
        "note": [{"text": one} for one in notes],
        "occurrencePeriod": {"end": until},
        "authoredOn": at,
    }
    [made] = back(s.referral(target, request, conditions=[]), target)[0]["ServiceRequest"]
    assert made["reasonCode"][0]["text"] == reason
    assert "\n".join(one["text"] for one in made["note"]) == "\n".join(notes)
    assert instant(made["authoredOn"]) == instant(at)
    assert instant(made["occurrencePeriod"]["end"]) == instant(until)
    (refused,) = translate(parse(s.answer(target, request, reason=reason)), context_of(target)).workflow_events
    assert (refused.kind, refused.reason) == ("referral.rejected", reason)


@FEW
@given(begin=MOMENT, minutes=st.integers(1, 600), service=LINE, comment=LINE, target=TARGETS)
def test_a_booking(begin: str, minutes: int, service: str, comment: str, target: OutboundTarget) -> None:
    end = (datetime.fromisoformat(begin) + timedelta(minutes=minutes)).isoformat()
    booking = {
        **s.APPOINTMENT,
        "start": begin,
        "end": end,
        "minutesDuration": minutes,
        "serviceType": [{"text": service}],
        "comment": comment,
    }
    [made] = back(s.booking(target, booking), target)[0]["Appointment"]
    assert (instant(made["start"]), instant(made["end"])) == (instant(begin), instant(end))
    assert (made["minutesDuration"], made["comment"]) == (minutes, comment)
    assert made["serviceType"][0]["text"] == service


@FEW
@given(text=LONG, at=MOMENT, number=CODE, target=TARGETS, data=st.binary(min_size=1, max_size=200))
def test_a_document(text: str, at: str, number: str, target: OutboundTarget, data: bytes) -> None:
    body = {**s.DOCUMENT, "masterIdentifier": s.identifier("YL", "document", number), "date": at}
    parts = [
        DocumentPart(title="报告", content_type="application/pdf", data=b"%PDF-1.4 " + data),
        DocumentPart(title="正文", content_type="text/plain", data=text.encode()),
    ]
    made, files = back(s.document(target, body, parts=parts), target)
    [document] = made["DocumentReference"]
    assert document["masterIdentifier"]["value"] == number
    assert document["masterIdentifier"]["system"] == body["masterIdentifier"]["system"]
    assert (document["status"], document["docStatus"]) == ("current", "final")
    assert instant(document["date"]) == instant(at)
    assert b"%PDF-1.4 " + data in files
    plain = [one["attachment"]["data"] for one in document["content"] if "data" in one["attachment"]]
    assert [base64.b64decode(one).decode() for one in plain] == [text]


@pytest.mark.parametrize(
    ("value", "zone", "written"),
    [
        ("2025-06-11T23:59:60Z", "Asia/Shanghai", "20250612075959"),
        ("9999-12-31T23:59:59Z", "Asia/Shanghai", "99991231235959+0000"),
        # The hour that Shanghai had twice when its summer time of 1990 ended.
        ("1990-09-15T16:30:00Z", "Asia/Shanghai", "19900916013000+0900"),
        ("1990-09-15T17:30:00Z", "Asia/Shanghai", "19900916013000+0800"),
        ("2025-06-11T08:30:00+08:00", "UTC", "20250611003000"),
        ("2025-06", "UTC", "202506"),
        ("2025", "UTC", "2025"),
        ("0999-01-02T00:00:00Z", "UTC", "09990102000000"),
    ],
)
def test_a_time_keeps_its_moment(value: str, zone: str, written: str) -> None:
    from fhir_mappings.hl7v2.outbound.fields import time

    assert time(value, replace(s.KN, dialect=replace(s.KN.dialect, time_zone=zone))) == written
