"""Studies are pushed by rule and to their readers, each object once, and nothing leaves that its receiver may not see."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from adapters.worker.delivery import DeliveryLoop
from adapters.worker.timers import TimerLoop
from fhir_mappings.json import loads
from hub.access import UNRESTRICTED, Scope
from hub.actor import Actor
from hub.boot import Services
from hub.ports import Delivery, Grant, Tx
from hub.routing import WITHHELD, Rule, Window
from hub.search import parse
from tests.flows.test_remote_reading import ORDER
from tests.support.hub import SetClock
from tests.support.images import STUDY, ct, envelope, receive
from tests.support.services import consortium, running

BASE = "https://yixiehub.example/fhir"
KN = Actor(institution="KN", client="KN_PACS")
DOCTOR = Actor(institution="KN", practitioner="0231", roles=frozenset({"doctor", "physician"}))
DESK = Actor(institution="YL", practitioner="C201", roles=frozenset({"desk"}))
SHANGHAI = ZoneInfo("Asia/Shanghai")


# --- windows and rules


@pytest.mark.parametrize(
    ("text", "now", "opens"),
    [
        # 2025-06-11 is a Wednesday.
        ("08:00-18:00", "2025-06-11T12:00", "2025-06-11T12:00"),
        ("08:00-18:00", "2025-06-11T07:59", "2025-06-11T08:00"),
        ("08:00-18:00", "2025-06-11T18:00", "2025-06-12T08:00"),
        ("19:00-07:00", "2025-06-11T06:59", "2025-06-11T06:59"),
        ("19:00-07:00", "2025-06-11T12:00", "2025-06-11T19:00"),
        ("19:00-07:00", "2025-06-11T23:30", "2025-06-11T23:30"),
        ("mon-fri 18:00-24:00", "2025-06-13T23:59", "2025-06-13T23:59"),
        ("mon-fri 18:00-24:00", "2025-06-14T00:00", "2025-06-16T18:00"),
        ("fri 22:00-06:00", "2025-06-14T05:00", "2025-06-14T05:00"),
        ("sat,sun 00:00-24:00", "2025-06-15T23:00", "2025-06-15T23:00"),
        ("sat-mon 00:00-00:00", "2025-06-11T01:00", "2025-06-14T00:00"),
        ("wed 08:00-09:00", "2025-06-11T09:00", "2025-06-18T08:00"),
    ],
)
def test_a_window_opens_at_the_members_own_time(text: str, now: str, opens: str) -> None:
    window = Window.of(text)

    found = window.opening(datetime.fromisoformat(now).replace(tzinfo=SHANGHAI), SHANGHAI)

    assert found == datetime.fromisoformat(opens).replace(tzinfo=SHANGHAI)


def test_a_window_follows_the_clocks_of_its_zone() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    # The night in which the clocks go forward: 22:00 to 06:00 lasts seven hours.
    before, after = (datetime.fromisoformat(f"2025-03-30T{at}+00:00") for at in ("03:59", "04:00"))

    assert Window.of("22:00-06:00").opening(before, berlin) == before
    assert Window.of("22:00-06:00").opening(after, berlin) == datetime.fromisoformat("2025-03-30T20:00+00:00")


@pytest.mark.parametrize(
    "text", ["", "8:00-9:00", "08:00", "25:00-26:00", "24:00-06:00", "08:00-24:30", "foo 08:00-09:00", "mon-tue-wed 1"]
)
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Window.of(text)


@pytest.mark.parametrize(
    ("conditions", "fits"),
    [
        ({}, True),
        ({"modality": ["MR", "CT"]}, True),
        ({"modality": ["MR"]}, False),
        ({"description": "*平扫"}, True),
        ({"description": "胸部ct*"}, True),
        ({"description": "胸部"}, False),
        ({"modality": ["CT"], "description": "*增强*"}, False),
    ],
)
def test_all_conditions_of_a_rule_must_hold(conditions: dict[str, Any], fits: bool) -> None:
    rule = Rule.of({"name": "r", "to": "KN", **conditions})

    assert rule.fits({"ModalitiesInStudy": "CT\\SR", "StudyDescription": "胸部CT平扫"}) is fits


# --- a hub with rules


@pytest.fixture
def hub(tmp_path: Path, set_clock: SetClock) -> Iterator[Services]:
    with running(tmp_path, clock=set_clock) as services:
        yield services


def archive(port: int = 11299) -> dict[str, Any]:
    """Return a second AE of KN, which takes what is sent to it."""
    return {
        "resourceType": "Endpoint",
        "id": "kn-archive",
        "identifier": [{"system": f"{BASE}/NamingSystem/endpoint", "value": "KN/dicom/archive"}],
        "status": "active",
        "connectionType": {"code": "dicom"},
        "managingOrganization": {"reference": "Organization/kn"},
        "payloadType": [{"text": "DICOM"}],
        "address": f"dicom://KN_ARCHIVE@127.0.0.1:{port}",
    }


def rule(name: str = "存档", to: str = "KN/dicom/archive", **parts: Any) -> dict[str, Any]:
    """Return a routing rule; a part that is a list is given once for each value."""
    given = [("name", name), ("to", to)]
    given += [(part, one) for part, value in parts.items() for one in (value if isinstance(value, list) else [value])]
    return {
        "url": f"{BASE}/StructureDefinition/routing-rule",
        "extension": [{"url": part, "valueString": value} for part, value in given],
    }


def rules(hub: Services, *given: dict[str, Any], member: str = "kn", push: str = "", address: str = "") -> None:
    """Import the consortium with *given* rules of *member*, and *push* switched on at YL's AE."""
    resources = consortium()
    for one in resources:
        if one["resourceType"] == "Organization" and one["id"] == member:
            one["extension"] = [*one.get("extension", ()), *given]
        if one["id"] == "yl-dicom" and push:
            part = [{"url": "name", "valueString": "push"}, {"url": "value", "valueString": push}]
            one["extension"] = [{"url": f"{BASE}/StructureDefinition/endpoint-setting", "extension": part}]
        if one["id"] in {"yl-dicom", "qh-dicom"} and address:
            one["address"] = one["address"].partition("@")[0] + f"@{address}"
    hub.directory.load([*resources, archive()])


def complete(hub: Services, set_clock: SetClock, *objects: bytes, study: str = STUDY) -> None:
    """Let *objects* arrive and the study go quiet."""
    for data in objects:
        receive(hub, data, KN)
    hub.imaging.association_ended(envelope(hub, KN), {study})
    set_clock.forward(hub.settings.study_quiet_s + 1)
    TimerLoop(hub).turn()


def queued(hub: Services, destination: str = "KN/dicom/archive") -> list[Delivery]:
    """Return the deliveries to *destination*, oldest first."""
    found = hub.database.read(lambda tx: tx.outbox.deliveries({"destination": destination}, limit=50))
    return list(reversed(found))


def numbers(delivery: Delivery) -> list[int]:
    return [int(one["SOPInstanceUID"].rpartition(".")[2]) for one in loads(delivery.payload)["instances"]]


def test_a_complete_study_is_queued_for_where_the_rule_sends_it(hub: Services, set_clock: SetClock) -> None:
    rules(hub, rule(modality=["MR", "CT"], description="*CT*"))

    complete(hub, set_clock, ct(1), ct(2))

    [one] = queued(hub)
    study = hub.database.read(lambda tx: tx.imaging.studies(UNRESTRICTED, [], limit=5))[0]
    assert (one.kind, one.state, one.owner, one.control_id) == ("dimse", "pending", "KN", STUDY)
    assert one.lane == f"KN/dicom/archive|{study['patient_id']}"
    assert one.correlation_id == study["correlation_id"]
    assert numbers(one) == [1, 2]
    assert hub.objects.read(loads(one.payload)["instances"][0]["digest"]) == ct(1)


def test_without_a_rule_nothing_leaves(hub: Services, set_clock: SetClock) -> None:
    rules(hub, rule(), member="qh")

    complete(hub, set_clock, ct(1))

    assert queued(hub) == []


def test_a_late_object_is_sent_alone_and_two_rules_for_one_place_send_once(hub: Services, set_clock: SetClock) -> None:
    rules(hub, rule(), rule("同去", description="*"))
    complete(hub, set_clock, ct(1), ct(2))
    complete(hub, set_clock)
    complete(hub, set_clock, ct(3))

    assert [numbers(one) for one in queued(hub)] == [[1, 2], [3]]


@pytest.mark.parametrize(
    ("conditions", "sent"),
    [
        ({"source": "KN_PACS"}, True),
        ({"source": "KN_CT2"}, False),
        ({"station": "CT-2"}, True),
        ({"station": "CT-1"}, False),
        ({"source": "KN_PACS", "station": "CT-1"}, False),
    ],
)
def test_a_rule_may_ask_who_sent_and_which_machine_made_the_images(
    hub: Services, set_clock: SetClock, conditions: dict[str, str], sent: bool
) -> None:
    rules(hub, rule(**conditions))

    complete(hub, set_clock, ct(1, StationName="CT-2"))

    assert bool(queued(hub)) is sent


def test_outside_its_window_a_study_waits_for_it(hub: Services, set_clock: SetClock) -> None:
    # It is 16:30 in Shanghai.
    rules(hub, rule(window="19:00-07:00"), rule("白天", to="KN/dicom", window="08:00-18:00"))
    complete(hub, set_clock, ct(1))
    assert [numbers(one) for one in queued(hub, "KN/dicom")] == [[1]]
    assert queued(hub) == []

    set_clock.now = datetime(2025, 6, 11, 18, 59, tzinfo=SHANGHAI)
    TimerLoop(hub).turn()
    assert queued(hub) == []
    set_clock.now += timedelta(minutes=1)
    TimerLoop(hub).turn()

    assert [numbers(one) for one in queued(hub)] == [[1]]
    assert len(queued(hub, "KN/dicom")) == 1


def test_the_window_is_read_by_the_members_clock(hub: Services, set_clock: SetClock) -> None:
    zone = {
        "url": f"{BASE}/StructureDefinition/member-setting",
        "extension": [{"url": "name", "valueString": "time-zone"}, {"url": "value", "valueString": "Asia/Urumqi"}],
    }
    # 16:30 in Shanghai is 14:30 in Urumqi.
    rules(hub, rule(window="14:00-15:00"), zone)

    complete(hub, set_clock, ct(1))

    assert len(queued(hub)) == 1


# --- other institutions


def share(hub: Services, grantee: str, *, until: datetime | None = None) -> None:
    def work(tx: Tx) -> None:
        study = tx.imaging.studies(UNRESTRICTED, [], limit=5)[0]
        target = study["resource_id"]
        tx.grants.open(
            Grant(grantee=grantee, target_type="ImagingStudy", target_id=target, task_id="t", until=until),
            now=hub.clock(),
        )

    hub.database.write(work)


def test_another_institution_without_a_grant_gets_nothing_and_the_operator_reads_why(
    hub: Services, set_clock: SetClock
) -> None:
    rules(hub, rule(to="QH"))
    complete(hub, set_clock, ct(1))
    complete(hub, set_clock)

    [one] = queued(hub, "QH/dicom")
    assert one.state == "skipped"
    assert WITHHELD in one.last_error
    assert "QH/dicom" in one.last_error
    [line] = withheld(hub)
    assert line["outcome"] == "4"


def withheld(hub: Services) -> list[Any]:
    found = hub.database.read(
        lambda tx: tx.audit.search({"subtype": "withheld"}, institution=None, limit=5, before=None)
    )
    return list(found)


def test_what_was_withheld_is_sent_with_what_comes_after_the_grant(hub: Services, set_clock: SetClock) -> None:
    rules(hub, rule(to="QH/dicom"))
    complete(hub, set_clock, ct(1))
    share(hub, "QH")

    complete(hub, set_clock, ct(2))

    assert [(one.state, numbers(one)) for one in queued(hub, "QH/dicom")] == [("skipped", [1]), ("pending", [1, 2])]


def test_a_grant_that_ended_while_the_study_waited_keeps_it_here(hub: Services, set_clock: SetClock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        rules(hub, rule(to="QH"), address=f"127.0.0.1:{listener.getsockname()[1]}")
        # A rule withholds what may not be seen yet, so the grant opens between two instances.
        complete(hub, set_clock, ct(1))
        share(hub, "QH", until=set_clock.now + timedelta(hours=1))
        complete(hub, set_clock, ct(2))
        assert [one.state for one in queued(hub, "QH/dicom")] == ["skipped", "pending"]
        set_clock.forward(3600)

        DeliveryLoop(hub).turn()

        listener.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            pytest.fail(f"somebody called: {listener.accept()}")
    one = queued(hub, "QH/dicom")[-1]
    assert one.state == "skipped"
    assert WITHHELD in one.last_error
    assert len(withheld(hub)) == 2
    # The lane goes on: nothing is parked.
    assert hub.database.read(lambda tx: tx.outbox.lanes()) == []


def test_what_an_operator_skipped_is_not_sent_again(hub: Services, set_clock: SetClock) -> None:
    rules(hub, rule())
    complete(hub, set_clock, ct(1))
    [one] = queued(hub)
    hub.database.write(lambda tx: tx.outbox.skip(one.id, now=hub.clock(), reason="坏图"))

    complete(hub, set_clock, ct(2))

    assert [numbers(one) for one in queued(hub)] == [[1], [2]]


# --- remote reading


def found(hub: Services, kind: str, **pairs: str) -> list[dict[str, Any]]:
    query = parse(kind, list(pairs.items()))
    return [loads(one.body) for one in hub.database.read(lambda tx: tx.records.search(query, UNRESTRICTED)).matches]


def asked(hub: Services, set_clock: SetClock) -> str:
    """Let KN ask YL to read a study of two images; returns the Task's id."""
    assert hub.messages.receive(ORDER, "127.0.0.1:5000") is not None
    complete(hub, set_clock, ct(1), ct(2))
    [study], [request] = found(hub, "ImagingStudy"), found(hub, "ServiceRequest")
    assert study["subject"] == request["subject"]
    task = {
        "resourceType": "Task",
        "id": "reading",
        "status": "requested",
        "intent": "order",
        "code": {"coding": [{"system": f"{BASE}/CodeSystem/workflow", "code": "remote-reading"}]},
        "focus": {"reference": f"ServiceRequest/{request['id']}"},
        "for": request["subject"],
        "requester": {"reference": "PractitionerRole/kn-liumin"},
        "owner": {"reference": "Organization/yl"},
        "input": [{"type": {"text": "影像"}, "valueReference": {"reference": f"ImagingStudy/{study['id']}"}}],
    }
    return hub.database.write(lambda tx: hub.tasks.create(tx, task, DOCTOR, correlation_id="case-1")).id


def move(hub: Services, task: str, event: str, actor: Actor, **given: Any) -> None:
    hub.database.write(lambda tx: hub.tasks.transition(tx, task, event, actor, **given))


def test_the_study_goes_to_the_reader_when_the_work_is_assigned_and_late_images_follow(
    hub: Services, set_clock: SetClock
) -> None:
    rules(hub, push="true")
    task = asked(hub, set_clock)
    move(hub, task, "receive", DESK)
    assert queued(hub, "YL/dicom") == []

    move(hub, task, "assign", DESK, assignee="PractitionerRole/yl-songjie")
    [first] = queued(hub, "YL/dicom")
    complete(hub, set_clock, ct(3))

    assert (first.task_id, first.owner, first.state) == (task, "KN", "pending")
    assert first.correlation_id == loads(stored(hub, task))["groupIdentifier"]["value"]
    assert [numbers(one) for one in queued(hub, "YL/dicom")] == [[1, 2], [3]]
    assert queued(hub, "YL/dicom")[1].task_id == task


def stored(hub: Services, task: str) -> bytes:
    row = hub.database.read(lambda tx: tx.records.get("Task", task, Scope(institution="KN")))
    assert row is not None
    return row.body


@pytest.mark.parametrize("push", ["", "false"])
def test_a_reader_that_does_not_ask_for_it_is_sent_nothing(hub: Services, set_clock: SetClock, push: str) -> None:
    rules(hub, push=push)
    task = asked(hub, set_clock)

    move(hub, task, "assign", DESK, assignee="PractitionerRole/yl-songjie")

    assert queued(hub, "YL/dicom") == []


def test_when_the_work_is_withdrawn_what_has_not_left_stays_here(hub: Services, set_clock: SetClock) -> None:
    rules(hub, push="true")
    task = asked(hub, set_clock)
    move(hub, task, "assign", DESK, assignee="PractitionerRole/yl-songjie")

    move(hub, task, "withdraw", DOCTOR)
    complete(hub, set_clock, ct(3))

    [one] = queued(hub, "YL/dicom")
    assert one.state == "skipped"
    assert WITHHELD in one.last_error
    [line] = withheld(hub)
    assert f"Task/{task}" in str(line)


def test_work_that_is_given_back_and_taken_again_sends_nothing_twice(hub: Services, set_clock: SetClock) -> None:
    rules(hub, push="true")
    task = asked(hub, set_clock)
    move(hub, task, "assign", DESK, assignee="PractitionerRole/yl-songjie")
    [sent] = queued(hub, "YL/dicom")
    move(hub, task, "release", DESK)
    # It is still YL's work, so nothing is called back, and nothing is sent twice.
    move(hub, task, "assign", DESK, assignee="PractitionerRole/yl-songjie")

    assert queued(hub, "YL/dicom") == [sent]
