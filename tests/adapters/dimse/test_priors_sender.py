"""Earlier studies come from the requester's archive when a reading is accepted, and the reader sees them by the Task alone."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
import pynetdicom
import pytest
from pynetdicom import evt

from adapters.dimse import scu
from adapters.worker.delivery import DeliveryLoop
from fhir_mappings.json import loads
from hub.access import Scope
from hub.actor import Actor
from hub.boot import Services
from hub.ports import Delivery, NewDelivery, StudyKey
from hub.prior_requests import KIND
from tests.hub.test_routing import BASE, DESK, DOCTOR, asked, complete, move
from tests.support.dicom import CT_IMAGE_STORAGE, EXPLICIT
from tests.support.dimse_hub import audit_lines, free_port
from tests.support.hub import SetClock
from tests.support.images import ROOT, STUDY, ct
from tests.support.services import consortium, running

RULE = "modality=CT months=24 max=2 on=acceptance show=task"
YL = Scope(institution="YL")
WRITER = Actor(institution="YL", practitioner="C015", roles=frozenset({"writer"}))


def prior(number: int, day: str, **attributes: Any) -> bytes:
    return ct(1, study=f"{ROOT}.{number}", StudyDate=day, **attributes)


#: Wanted are the two newest CTs of 10086 of the last 24 months, which 31 and 32 are.
PRIORS = (
    prior(31, "20250101"),
    prior(32, "20240101"),
    prior(33, "20240101", Modality="MR"),
    prior(34, "20230501"),
    prior(35, "20250301", PatientID="20001", PatientName="LI^SI"),
)


@dataclass
class Archive:
    """KN's archive, made of the DICOM library; it loosely answers a query for a patient with all that it has.

    Attributes:
        answer: what it says to C-FIND, where it is no success.
        given: the UIDs of the studies that it was asked to send.
        on_get: runs before it sends anything.
    """

    objects: list[pydicom.Dataset]
    answer: int = 0x0000
    asked: list[str] = field(default_factory=list)
    given: list[str] = field(default_factory=list)
    on_get: Any = lambda: None

    def find(self, event: Any) -> Iterator[tuple[int, pydicom.Dataset | None]]:
        wanted = event.identifier
        self.asked.append(f"{wanted.QueryRetrieveLevel} {wanted.get('PatientID', '')}".strip())
        if self.answer:
            yield self.answer, None
            return
        for one in self.objects:
            if wanted.get("StudyInstanceUID") and wanted.StudyInstanceUID != one.StudyInstanceUID:
                continue
            match = pydicom.Dataset()
            for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "StudyDate"):
                setattr(match, name, one[name].value)
            match.PatientID, match.Modality, match.ModalitiesInStudy = one.PatientID, one.Modality, one.Modality
            match.QueryRetrieveLevel = wanted.QueryRetrieveLevel
            yield 0xFF00, match

    def get(self, event: Any) -> Iterator[Any]:
        self.given.append(event.identifier.StudyInstanceUID)
        self.on_get()
        found = [one for one in self.objects if one.StudyInstanceUID == event.identifier.StudyInstanceUID]
        yield len(found)
        for one in found:
            yield 0xFF00, one


@contextlib.contextmanager
def archive(*objects: bytes, port: int = 0) -> Iterator[tuple[Archive, int]]:
    made = Archive([pydicom.dcmread(io.BytesIO(one)) for one in objects])
    entity = pynetdicom.AE("KN_ARCHIVE")
    for uid in (scu.FIND, scu.GET):
        entity.add_supported_context(uid)
    entity.add_supported_context(CT_IMAGE_STORAGE, EXPLICIT, scu_role=True, scp_role=True)
    handlers = [(evt.EVT_C_FIND, made.find), (evt.EVT_C_GET, made.get)]
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    assert server is not None
    try:
        yield made, server.socket.getsockname()[1]
    finally:
        server.shutdown()


def knows(hub: Services, port: int, rule: str = RULE) -> None:
    """Import the consortium with an archive of KN on *port*, whose setting ``priors`` is *rule*."""
    part = [{"url": "name", "valueString": "priors"}, {"url": "value", "valueString": rule}]
    point = {
        "resourceType": "Endpoint",
        "id": "kn-archive",
        "identifier": [{"system": f"{BASE}/NamingSystem/endpoint", "value": "KN/dicom/archive"}],
        "status": "active",
        "connectionType": {"code": "dicom"},
        "managingOrganization": {"reference": "Organization/kn"},
        "payloadType": [{"text": "DICOM"}],
        "address": f"dicom://KN_ARCHIVE@127.0.0.1:{port}",
        "extension": [{"url": f"{BASE}/StructureDefinition/endpoint-setting", "extension": part}] if rule else [],
    }
    hub.directory.load([*consortium(), point])


@pytest.fixture
def hub(tmp_path: Path, set_clock: SetClock) -> Iterator[Services]:
    with running(tmp_path, clock=set_clock, association_idle_s=20) as services:
        yield services


def accepted(hub: Services, set_clock: SetClock) -> str:
    """Let KN ask YL for a reading, and YL accept it; returns the Task's id."""
    task = asked(hub, set_clock)
    move(hub, task, "assign", DESK, assignee="PractitionerRole/yl-songjie")
    return task


def requests(hub: Services) -> list[Delivery]:
    return list(reversed(hub.database.read(lambda tx: tx.outbox.deliveries({"kind": KIND}, limit=50))))


def here(hub: Services, number: int, scope: Scope) -> bool:
    """Return whether *scope* sees an ImagingStudy of the study of that number."""

    def work(tx: Any) -> bool:
        study = tx.imaging.study(StudyKey(owner="KN", StudyInstanceUID=f"{ROOT}.{number}"))
        return study is not None and tx.records.get("ImagingStudy", study["resource_id"], scope) is not None

    return hub.database.read(work)


def quiet(hub: Services, set_clock: SetClock) -> None:
    """Let every study that was fetched become complete."""
    complete(hub, set_clock)


def inputs(hub: Services, task: str) -> list[str]:
    stored = hub.database.read(lambda tx: tx.records.get("Task", task, Scope(institution="KN")))
    assert stored is not None
    return [one["type"]["text"] for one in loads(stored.body)["input"]]


def test_the_reader_sees_the_fitting_earlier_studies_of_this_patient_and_of_no_other(
    hub: Services, set_clock: SetClock
) -> None:
    with archive(*PRIORS, ct(1)) as (peer, port):
        knows(hub, port)
        task = accepted(hub, set_clock)
        [request] = requests(hub)
        assert (request.destination, request.owner, request.task_id) == ("KN/dicom/archive", "KN", task)
        # The Task has not waited.
        move(hub, task, "start", WRITER)
        DeliveryLoop(hub).turn()
        assert not here(hub, 31, YL)
        quiet(hub, set_clock)

    assert sorted(peer.given) == [f"{ROOT}.31", f"{ROOT}.32"]
    assert peer.asked[0] == "STUDY 10086"
    assert [here(hub, number, YL) for number in (31, 32, 33, 34, 35)] == [True, True, False, False, False]
    assert inputs(hub, task) == ["影像", "既往影像 / earlier study", "既往影像 / earlier study"]
    [done] = requests(hub)
    assert (done.state, loads(done.ack or b"")["shown"]) == ("sent", True)
    [line] = [one for one in audit_lines(hub, "priors") if "asked KN/dicom/archive" in str(one)]
    assert f"Task/{task}" in str(line)


def test_what_the_task_showed_is_gone_with_it(hub: Services, set_clock: SetClock) -> None:
    with archive(*PRIORS) as (_, port):
        knows(hub, port)
        task = accepted(hub, set_clock)
        DeliveryLoop(hub).turn()
        quiet(hub, set_clock)
    assert here(hub, 31, YL)

    move(hub, task, "withdraw", DOCTOR)

    assert not here(hub, 31, YL)


def test_without_the_word_for_it_they_are_fetched_and_shown_to_nobody_else(hub: Services, set_clock: SetClock) -> None:
    with archive(*PRIORS) as (_, port):
        knows(hub, port, "on=acceptance")
        task = accepted(hub, set_clock)
        DeliveryLoop(hub).turn()
        quiet(hub, set_clock)

    assert here(hub, 31, Scope(institution="KN"))
    assert not here(hub, 31, YL)
    assert inputs(hub, task) == ["影像"]


@pytest.mark.parametrize("rule", ["", "modality=CT months=24"])
def test_an_archive_that_does_not_ask_for_it_is_not_called(hub: Services, set_clock: SetClock, rule: str) -> None:
    knows(hub, free_port(), rule)
    accepted(hub, set_clock)

    assert requests(hub) == []


def test_work_that_is_accepted_again_asks_once(hub: Services, set_clock: SetClock) -> None:
    knows(hub, free_port())
    task = accepted(hub, set_clock)
    move(hub, task, "release", DESK)
    move(hub, task, "assign", DESK, assignee="PractitionerRole/yl-songjie")

    assert len(requests(hub)) == 1


def test_studies_that_are_here_already_are_shown_at_once(hub: Services, set_clock: SetClock) -> None:
    with archive(PRIORS[0]) as (peer, port):
        knows(hub, port)
        task = accepted(hub, set_clock)
        complete(hub, set_clock, PRIORS[0], study=f"{ROOT}.31")
        assert not here(hub, 31, YL)
        DeliveryLoop(hub).turn()

    assert peer.given == []
    assert here(hub, 31, YL)
    assert inputs(hub, task) == ["影像", "既往影像 / earlier study"]


def test_nobody_is_called_for_a_task_that_is_over(hub: Services, set_clock: SetClock) -> None:
    with archive(*PRIORS) as (peer, port):
        knows(hub, port)
        task = accepted(hub, set_clock)
        move(hub, task, "withdraw", DOCTOR)
        DeliveryLoop(hub).turn()

    assert (peer.asked, peer.given) == ([], [])
    assert [one.state for one in requests(hub)] == ["skipped"]
    assert f"Task/{task}" in str(audit_lines(hub, "priors-not-asked"))
    # The lane goes on: nothing is parked.
    assert not [lane for lane in hub.database.read(lambda tx: tx.outbox.lanes()) if KIND in lane["lane"]]


def test_a_task_that_ends_while_its_studies_come_shows_none_of_them(hub: Services, set_clock: SetClock) -> None:
    with archive(*PRIORS) as (_, port):
        knows(hub, port)
        task = accepted(hub, set_clock)
        DeliveryLoop(hub).turn()
        move(hub, task, "withdraw", DOCTOR)
        quiet(hub, set_clock)

    assert here(hub, 31, Scope(institution="KN"))
    assert not here(hub, 31, YL)


def test_a_number_that_is_another_patients_by_now_is_not_asked_for(hub: Services, set_clock: SetClock) -> None:
    with archive(*PRIORS) as (peer, port):
        knows(hub, port)
        accepted(hub, set_clock)
        [request] = requests(hub)

        def other(tx: Any) -> None:
            forged = request.payload.replace(b"10086", b"20001")
            tx.outbox.skip(request.id, now=hub.clock(), reason="test")
            names = ("destination", "lane", "kind", "owner", "task_id", "patient_id")
            tx.outbox.enqueue(NewDelivery(payload=forged, **{name: getattr(request, name) for name in names}))

        hub.database.write(other)
        DeliveryLoop(hub).turn()

    assert peer.asked == []
    assert [one.state for one in requests(hub)] == ["skipped", "skipped"]


def test_an_archive_that_is_away_is_asked_until_it_is_back(hub: Services, set_clock: SetClock) -> None:
    port = free_port()
    knows(hub, port)
    accepted(hub, set_clock)
    loop = DeliveryLoop(hub)
    for _ in range(20):
        loop.turn()
        set_clock.forward(hub.settings.retry_longest_s + 1)
    [waiting] = requests(hub)
    assert (waiting.state, waiting.attempts) == ("pending", 0)

    with archive(*PRIORS, port=port) as (peer, _):
        loop.turn()

    assert len(peer.given) == 2
    assert [one.state for one in requests(hub)] == ["sent"]


def test_an_archive_that_fails_becomes_a_dead_letter_and_the_task_goes_on(hub: Services, set_clock: SetClock) -> None:
    with archive(*PRIORS) as (peer, port):
        peer.answer = 0xA700
        knows(hub, port)
        task = accepted(hub, set_clock)
        loop = DeliveryLoop(hub)
        for _ in range(hub.settings.retry_attempts):
            loop.turn()
            set_clock.forward(hub.settings.retry_longest_s + 1)
    [dead] = requests(hub)
    assert dead.state == "dead"
    assert "A700" in dead.last_error
    move(hub, task, "start", WRITER)


def test_a_hub_that_stops_does_not_wait_for_an_archive(tmp_path: Path) -> None:
    set_clock = SetClock()
    with running(tmp_path, clock=set_clock) as hub, archive(*PRIORS) as (peer, port):
        sending, go_on = threading.Event(), threading.Event()

        def stalls() -> None:
            sending.set()
            assert go_on.wait(60)

        peer.on_get = stalls
        knows(hub, port)
        accepted(hub, set_clock)
        stop = threading.Event()
        worker = threading.Thread(target=DeliveryLoop(hub).run, args=(stop,))
        worker.start()
        try:
            assert sending.wait(30)
            stop.set()
            worker.join(30)
            assert not worker.is_alive()
        finally:
            go_on.set()
            stop.set()
            worker.join(60)
        [waiting] = requests(hub)
        assert (waiting.state, waiting.attempts) == ("pending", 0)


def test_the_study_to_be_read_is_no_earlier_one(hub: Services, set_clock: SetClock) -> None:
    with archive(ct(1), ct(9)) as (peer, port):
        knows(hub, port)
        accepted(hub, set_clock)
        DeliveryLoop(hub).turn()

    assert STUDY in {str(one.StudyInstanceUID) for one in peer.objects}
    assert peer.given == []
