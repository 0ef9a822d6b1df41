"""Referral: there, and the outcome back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from hub.errors import HubError
from hub.workflows import (
    HUB_ACTOR,
    CancelTimer,
    CloseGrant,
    CreateTask,
    EndTask,
    OpenGrant,
    Send,
    SetStatus,
    StartTimer,
    event_for_message,
)
from tests.support.workflows import FENG, KN_SYSTEM, LIU, YL_SYSTEM, Play, entry, make, reason


def test_up_arrival_outcome_and_close(referral: Play) -> None:
    assert referral.last is not None
    assert [e.message for e in referral.last.effects if isinstance(e, Send)] == ["ref_i12"]
    referral.do("review", FENG)
    referral.do("need-info", FENG, reason=reason("肌钙蛋白结果"))
    assert referral.task["status"] == "on-hold"
    with pytest.raises(HubError, match="something new"):
        referral.do("supply-info", LIU)
    referral.do("supply-info", LIU, inputs=(entry("DocumentReference/doc-KN"),))
    accepted = referral.do("accept", FENG)
    assert [(e.message, e.control, e.institution) for e in accepted.effects if isinstance(e, Send)] == [
        ("rri_i12", "A", "KN")
    ]
    referral.hold("Appointment/a1", "YL", status="proposed", start="2025-06-13T09:00:00+08:00")
    booked = referral.do("book", FENG, outputs=(entry("Appointment/a1"),))
    assert SetStatus(resource_type="Appointment", status="booked", reference="Appointment/a1") in booked.effects
    due = datetime(2025, 6, 15, 9, tzinfo=timezone(timedelta(hours=8)))
    assert StartTimer(name="no-show", event="no-show", due=due) in booked.effects
    referral.do("notify-patient", HUB_ACTOR)
    arrived = referral.do("arrive", FENG)
    assert OpenGrant(role="recipient", scope="patient-record", institution="YL", task="Task/t1") in arrived.effects
    assert [(e.code, e.owner) for e in arrived.effects if isinstance(e, CreateTask)] == [("upload-full-record", "KN")]
    assert CancelTimer(name="no-show") in arrived.effects
    referral.hold("DocumentReference/record", "KN")
    sent = referral.do("send-record", LIU, inputs=(entry("DocumentReference/record"),))
    assert EndTask(code="upload-full-record", status="completed", part_of="Task/t1") in sent.effects
    referral.do("admit", FENG)
    referral.do("discharge", FENG)
    with pytest.raises(HubError, match="must hold ServiceRequest"):
        referral.do("propose-down", FENG)
    referral.hold("ServiceRequest/down", "YL", subject={"reference": "Patient/p-YL"})
    with pytest.raises(HubError, match="basedOn"):
        referral.do("propose-down", FENG, outputs=(entry("ServiceRequest/down"),))
    up = [{"reference": "ServiceRequest/sr1"}]
    referral.hold("ServiceRequest/down", "YL", status="active", subject={"reference": "Patient/p-YL"}, basedOn=up)
    down = referral.do("propose-down", FENG, outputs=(entry("ServiceRequest/down"),))
    (task,) = (e for e in down.effects if isinstance(e, CreateTask))
    assert (task.code, task.requester, task.owner) == ("referral", "YL", "KN")
    assert (task.focus, task.patient) == ("ServiceRequest/down", "Patient/p-YL")
    with pytest.raises(HubError, match="must hold DocumentReference"):
        referral.do("feedback", FENG)
    fed_back = referral.do("feedback", FENG, outputs=(entry("DocumentReference/doc-YL"),))
    closed = {e.scope: e.until for e in fed_back.effects if isinstance(e, CloseGrant)}
    assert closed == {
        "task-closure": referral.now + timedelta(days=30),
        "patient-record": referral.now,
    }
    assert SetStatus(resource_type="ServiceRequest", status="completed", reference="ServiceRequest/sr1") in (
        fed_back.effects
    )
    referral.do("follow-up", LIU)
    referral.do("close", LIU)
    assert referral.state == "closed"


def test_the_full_record_stays_closed_until_the_patient_has_arrived(referral: Play) -> None:
    scopes = set()
    for event in ("review", "accept"):
        scopes |= {e.scope for e in referral.do(event, FENG).effects if isinstance(e, OpenGrant)}
    assert scopes == set()
    assert [e.scope for e in referral.do("arrive", FENG).effects if isinstance(e, OpenGrant)] == ["patient-record"]


def test_a_rejection_has_a_reason_and_a_suggestion_names_a_hospital(referral: Play) -> None:
    system = "https://yixiehub.example/fhir/CodeSystem/referral-rejection-reason"
    with pytest.raises(HubError, match="statusReason is required"):
        referral.do("reject", FENG)
    elsewhere = {"coding": [{"system": system, "code": "other-hospital"}]}
    with pytest.raises(HubError, match="must name its Organization"):
        referral.do("reject", FENG, reason=elsewhere)
    rejected = referral.do("reject", FENG, reason=elsewhere, outputs=(entry("Organization/YJ"),))
    assert [(e.message, e.control) for e in rejected.effects if isinstance(e, Send)] == [("rri_i12", "R")]
    assert {e.until for e in rejected.effects if isinstance(e, CloseGrant)} == {referral.now}
    assert not [e for e in rejected.effects if isinstance(e, SetStatus)]


def test_a_patient_who_does_not_come_ends_it_48_h_after_the_promise(referral: Play) -> None:
    expected = datetime(2025, 6, 20, 1, tzinfo=UTC)
    accepted = referral.do("accept", FENG, expected_at=expected)
    assert StartTimer(name="no-show", event="no-show", due=expected + timedelta(hours=48)) in accepted.effects
    referral.do("no-show", HUB_ACTOR)
    assert (referral.task["status"], referral.state) == ("failed", "not-arrived")


def test_a_request_with_an_end_expires_and_one_without_does_not() -> None:
    play = make("referral")
    decision = play.create(LIU, restriction={"period": {"end": "2025-06-14T23:59:59+08:00"}})
    timers = {e.name: e.due.isoformat() for e in decision.effects if isinstance(e, StartTimer)}
    assert timers["expiry"] == "2025-06-14T23:59:59+08:00"
    play.do("expire", HUB_ACTOR)
    assert (play.task["status"], play.state) == ("cancelled", "expired")
    assert "expiry" not in {e.name for e in make("referral").create(LIU).effects if isinstance(e, StartTimer)}


def test_messages_mean_the_event_of_the_present_state(referral: Play) -> None:
    def meant(kind: str) -> str | None:
        actor = KN_SYSTEM if kind in ("referral.modified", "referral.cancelled") else YL_SYSTEM
        return event_for_message(referral.workflow, referral.instance, kind, actor)

    assert meant("referral.modified") == "modify"
    assert meant("referral.cancelled") == "cancel"
    assert meant("referral.accepted") == "accept"
    assert meant("referral.rejected") == "reject"
    referral.do("accept", YL_SYSTEM)
    assert meant("referral.accepted") is None
    referral.do("arrive", YL_SYSTEM)
    assert meant("referral.cancelled") == "ask-cancel"
    assert event_for_message(referral.workflow, referral.instance, "referral.cancelled", YL_SYSTEM) is None


def test_treatment_is_cancelled_only_when_the_recipient_agrees(referral: Play) -> None:
    referral.do("accept", FENG)
    referral.do("arrive", FENG)
    with pytest.raises(HubError) as caught:
        referral.do("cancel", LIU)
    assert caught.value.remedy == "Allowed events: send-record, ask-cancel."
    referral.do("ask-cancel", LIU, reason=reason())
    decision = referral.do("confirm-cancel", FENG)
    assert {e.scope for e in decision.effects if isinstance(e, CloseGrant)} == {"task-closure", "patient-record"}


def test_a_referral_without_diagnosis_or_reason_is_refused() -> None:
    play = make("referral")
    del play.request["reasonCode"]
    with pytest.raises(HubError, match="diagnosis or reason"):
        play.create(LIU)


def test_a_referral_that_awaits_consent_is_not_sent_without_it() -> None:
    play = make("referral")
    play.create(LIU, status="draft")
    play.do("ask-consent", LIU)
    with pytest.raises(HubError, match="No active Consent"):
        play.do("submit", LIU)
    play.hold("Consent/c1", "KN", status="active", patient={"reference": "Patient/p1"})
    play.do("submit", LIU, inputs=(entry("Consent/c1"),))
    assert play.state == "submitted"
