"""Remote reading from the request to the amendment."""

from __future__ import annotations

from datetime import timedelta

import pytest

from hub.errors import Category, HubError
from hub.workflows import (
    HUB_ACTOR,
    CancelTimer,
    CloseGrant,
    CreateTask,
    EndTask,
    OpenGrant,
    Send,
    SetStatus,
    Sign,
    StartTimer,
)
from hub.workflows.task import recorded
from tests.support.workflows import (
    DESK,
    HAN,
    LIU,
    NOW,
    SONG,
    SONG_PARTY,
    STRANGER,
    YL_SYSTEM,
    Play,
    entry,
    make,
    reason,
    role,
)


def written(reading: Play) -> Play:
    reading.do("receive", DESK)
    reading.do("assign", DESK, assignee=SONG_PARTY)
    reading.do("start", SONG)
    reading.do("preliminary", SONG, outputs=(entry(reading.report("preliminary")),))
    return reading


def issued(reading: Play) -> Play:
    written(reading).do("final", HAN)
    reading.report("final")
    return reading


def test_submitting_opens_the_study_to_the_reader_and_starts_the_clock(reading: Play) -> None:
    assert reading.last is not None
    assert reading.task["status"] == "requested"
    assert reading.task["businessStatus"]["coding"][0]["code"] == "submitted"
    assert reading.task["businessStatus"]["coding"][0]["display"] == "已申请"
    effects = reading.last.effects
    assert OpenGrant(role="desk", scope="task-closure", institution="YL", task="Task/t1") in effects
    assert OpenGrant(role="requester", scope="task-closure", institution="KN", task="Task/t1") in effects
    assert StartTimer(name="sla", event="overdue", due=NOW + timedelta(hours=24)) in effects
    assert SetStatus(resource_type="ServiceRequest", status="active", reference="ServiceRequest/sr1") in effects
    assert [e.institution for e in effects if isinstance(e, Send)] == ["YL"]


def test_the_whole_story_with_one_return_and_two_signatures(reading: Play) -> None:
    written(reading)
    assert reading.last is not None
    assert [(e.practitioner, e.reference) for e in reading.last.effects if isinstance(e, Sign)] == [
        ("Practitioner/song-jie", "DiagnosticReport/dr1")
    ]
    reading.do("return-report", HAN, reason=reason("请补充测量密度"))
    assert reading.state == "returned"
    assert reading.task["statusReason"] == {"text": "请补充测量密度"}
    reading.do("start", SONG)
    assert "statusReason" not in reading.task
    reading.do("preliminary", SONG)
    final = reading.do("final", HAN)
    assert reading.task["status"] == "completed"
    assert reading.task["executionPeriod"].keys() == {"start", "end"}
    assert [(e.practitioner, e.role) for e in final.effects if isinstance(e, Sign)] == [
        ("Practitioner/han-lei", "reviewer")
    ]
    assert (
        Send(message="oru_r01", to_role="requester", control="F", institution="KN", reference="DiagnosticReport/dr1")
        in final.effects
    )
    assert CancelTimer(name="sla") in final.effects
    assert (
        CloseGrant(
            role="desk",
            scope="task-closure",
            institution="YL",
            task="Task/t1",
            until=reading.now + timedelta(days=30),
        )
        in final.effects
    )
    reading.do("deliver", HUB_ACTOR)
    reading.report("amended")
    amended = reading.do("amend", HAN, reason=reason())
    assert [e.control for e in amended.effects if isinstance(e, Send)] == ["C"]
    reading.do("deliver", HUB_ACTOR)
    assert reading.state == "delivered"


def test_the_writer_may_not_review_own_work(reading: Play) -> None:
    written(reading)
    with pytest.raises(HubError, match="may not review") as caught:
        reading.do("final", role(SONG, "writer", "reviewer"))
    assert caught.value.status == 422
    assert recorded(reading.task, "writer") == ("YL", "Practitioner/song-jie")


def test_a_final_needs_a_report(reading: Play) -> None:
    reading.do("claim", SONG)
    reading.do("start", SONG)
    with pytest.raises(HubError, match="must hold DiagnosticReport"):
        reading.do("preliminary", SONG)


def test_only_the_assigned_person_writes(reading: Play) -> None:
    reading.do("assign", DESK, assignee=SONG_PARTY)
    with pytest.raises(HubError, match="to whom the work was assigned"):
        reading.do("start", HAN)


def test_work_is_assigned_only_within_the_reading_institution(reading: Play) -> None:
    party = type(SONG_PARTY)(reference="PractitionerRole/q", institution="QH", practitioner="Practitioner/q")
    with pytest.raises(HubError, match="institution that does the work"):
        reading.do("assign", DESK, assignee=party)


def test_a_refused_move_names_the_allowed_events(reading: Play) -> None:
    with pytest.raises(HubError) as caught:
        reading.do("final", HAN)
    assert (caught.value.category, caught.value.status) == (Category.CONFLICT, 409)
    assert caught.value.remedy == "Allowed events: receive, claim, refuse."
    with pytest.raises(HubError) as caught:
        reading.do("no-such-event", LIU)
    assert (caught.value.category, caught.value.status) == (Category.INCORRECT, 422)
    assert caught.value.remedy == "Allowed events: withdraw, modify, hold, release-hold."


def test_a_stranger_may_do_nothing(reading: Play) -> None:
    with pytest.raises(HubError, match="not open") as caught:
        reading.do("receive", STRANGER)
    assert caught.value.remedy == "Allowed events: none."


def test_nobody_but_the_hub_acts_as_the_hub(reading: Play) -> None:
    for actor in (LIU, DESK, role(STRANGER, "hub"), type(LIU)(institution="")):
        with pytest.raises(HubError):
            reading.do("overdue", actor)
    reading.do("overdue", HUB_ACTOR)


def test_unwritten_work_returns_to_the_pool(reading: Play) -> None:
    assigned = reading.do("assign", DESK, assignee=SONG_PARTY)
    assert reading.task["owner"] == {"reference": "PractitionerRole/song-YL"}
    due = reading.now + timedelta(minutes=20)
    assert StartTimer(name="lease", event="lease-expired", due=due) in assigned.effects
    reading.do("start", SONG)
    saved = reading.do("save", SONG)
    due = reading.now + timedelta(minutes=20)
    assert [e for e in saved.effects if isinstance(e, StartTimer)] == [
        StartTimer(name="lease", event="lease-expired", due=due)
    ]
    reading.do("lease-expired", HUB_ACTOR)
    assert reading.state == "received"
    assert reading.task["owner"] == {"reference": "Organization/YL"}
    with pytest.raises(HubError):
        reading.do("lease-expired", HUB_ACTOR)


def test_overdue_work_is_escalated_and_stays_open(reading: Play) -> None:
    decision = reading.do("overdue", HUB_ACTOR)
    assert decision.old_state == decision.new_state == "submitted"
    (task,) = (e for e in decision.effects if isinstance(e, CreateTask))
    assert (task.code, task.owner, task.part_of) == ("escalation", "YL", "Task/t1")


def test_an_urgent_reading_is_due_in_thirty_minutes_unless_a_deadline_is_given() -> None:
    play = make("remote-reading")
    stat = play.create(LIU, input=[entry("ImagingStudy/is1")], priority="stat")
    assert [e.due for e in stat.effects if isinstance(e, StartTimer)] == [NOW + timedelta(minutes=30)]
    play = make("remote-reading")
    given = play.create(
        LIU,
        input=[entry("ImagingStudy/is1")],
        priority="stat",
        restriction={"period": {"end": "2025-06-11T18:00:00+08:00"}},
    )
    assert [e.due for e in given.effects if isinstance(e, StartTimer)] == [NOW + timedelta(minutes=90)]


def test_incomplete_images_go_back_and_come_again(reading: Play) -> None:
    reading.do("receive", DESK)
    with pytest.raises(HubError, match="statusReason is required"):
        reading.do("return-images", DESK)
    bad = {"coding": [{"system": "https://yixiehub.example/fhir/CodeSystem/image-return-reason", "code": "nonsense"}]}
    with pytest.raises(HubError, match="not a code"):
        reading.do("return-images", DESK, reason=bad)
    bad["coding"][0]["code"] = "no-thin-slices"
    decision = reading.do("return-images", DESK, reason=bad)
    assert reading.task["status"] == "on-hold"
    assert not [e for e in decision.effects if isinstance(e, CloseGrant)]
    reading.hold("ImagingStudy/is2", "KN", status="available", subject={"reference": "Patient/p1"})
    decision = reading.do("resupply", LIU, inputs=(entry("ImagingStudy/is2"),))
    assert reading.state == "received"
    assert [e.institution for e in decision.effects if isinstance(e, OpenGrant)] == ["KN", "YL"]


def test_images_under_a_merged_number_are_the_patients(reading: Play) -> None:
    reading.do("receive", DESK)
    lacking = {
        "coding": [{"system": "https://yixiehub.example/fhir/CodeSystem/image-return-reason", "code": "no-thin-slices"}]
    }
    reading.do("return-images", DESK, reason=lacking)
    reading.hold("ImagingStudy/is2", "KN", status="available", subject={"reference": "Patient/dead"})
    with pytest.raises(HubError, match="not of the Patient"):
        reading.do("resupply", LIU, inputs=(entry("ImagingStudy/is2"),))
    reading.persons = frozenset({"Patient/p1", "Patient/dead"})
    reading.do("resupply", LIU, inputs=(entry("ImagingStudy/is2"),))
    assert reading.state == "received"


def test_withdrawing_closes_the_view_at_once(reading: Play) -> None:
    decision = reading.do("withdraw", LIU)
    assert [(e.institution, e.until) for e in decision.effects if isinstance(e, CloseGrant)] == [("YL", reading.now)]
    assert SetStatus(resource_type="ServiceRequest", status="revoked", reference="ServiceRequest/sr1") in (
        decision.effects
    )


def test_begun_work_is_withdrawn_only_with_the_readers_consent(reading: Play) -> None:
    written(reading)
    with pytest.raises(HubError) as caught:
        reading.do("withdraw", LIU)
    assert caught.value.remedy == "Allowed events: release-hold, ask-withdraw."
    with pytest.raises(HubError, match="Nobody has asked"):
        reading.do("confirm-withdraw", DESK)
    asked = reading.do("ask-withdraw", LIU, reason=reason())
    assert [e.focus for e in asked.effects if isinstance(e, CreateTask)] == ["Task/t1"]
    with pytest.raises(HubError, match="already waits"):
        reading.do("ask-withdraw", LIU, reason=reason())
    declined = reading.do("decline-withdraw", DESK)
    assert EndTask(code="abort", status="rejected", part_of="Task/t1") in declined.effects
    reading.do("ask-withdraw", LIU, reason=reason())
    confirmed = reading.do("confirm-withdraw", DESK)
    assert reading.state == "withdrawn"
    assert [(e.code, e.status) for e in confirmed.effects if isinstance(e, EndTask)] == [
        ("abort", "completed"),
        ("abort", "cancelled"),
        ("escalation", "cancelled"),
    ]


def test_the_readers_system_may_send_a_report_that_names_both_signatories(reading: Play) -> None:
    people = [{"reference": "Practitioner/song-jie"}]
    report = entry(reading.report("final", resultsInterpreter=people))
    with pytest.raises(HubError, match="writer and reviewer"):
        reading.do("import-final", YL_SYSTEM, outputs=(report,))
    reading.report("final", resultsInterpreter=[*people, {"reference": "Practitioner/han-lei"}])
    decision = reading.do("import-final", YL_SYSTEM, outputs=(report,))
    assert reading.state == "final"
    assert not [e for e in decision.effects if isinstance(e, Sign)]


def test_a_report_for_another_request_is_refused(reading: Play) -> None:
    reading.do("claim", SONG)
    reading.do("start", SONG)
    report = entry(reading.report("preliminary", basedOn=[{"reference": "ServiceRequest/other"}]))
    with pytest.raises(HubError, match="answers another request"):
        reading.do("preliminary", SONG, outputs=(report,))


def test_a_finished_reading_takes_corrections_only(reading: Play) -> None:
    issued(reading)
    for event in ("start", "refuse", "release", "return-report", "withdraw"):
        for actor in (LIU, DESK, SONG, HAN, HUB_ACTOR):
            with pytest.raises(HubError) as caught:
                reading.do(event, actor, reason=reason())
            assert caught.value.category is Category.CONFLICT
    with pytest.raises(HubError, match="amended or appended or corrected"):
        reading.do("amend", HAN, reason=reason())


def test_a_held_reading_is_not_begun_and_goes_on_when_released(reading: Play) -> None:
    reading.do("assign", DESK, assignee=SONG_PARTY)
    held = reading.do("hold", LIU)
    sent = [(e.message, e.control, e.institution) for e in held.effects if isinstance(e, Send)]
    assert sent == [("orm_o01", "HD", "YL"), ("orr_o02", "HR", "KN")]
    with pytest.raises(HubError, match="on hold"):
        reading.do("start", SONG)
    reading.do("release-hold", LIU)
    reading.do("start", SONG)
    with pytest.raises(HubError):
        reading.do("hold", LIU)
