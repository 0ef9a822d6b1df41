"""Performed procedure steps: kept as Procedures, never changed once over, and held against what arrives (PS3.4 annex F)."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from adapters.dimse import command as dimse
from adapters.dimse import status
from adapters.dimse.mpps import RETRIEVE_SOP_CLASS, SOP_CLASS
from adapters.dimse.negotiation import Context
from adapters.dimse.upper_layer import P_DATA
from fhir_mappings.dicom import identifier
from hub.access import UNRESTRICTED
from hub.boot import Services
from hub.imaging_ids import STUDY_QUIET
from hub.performed_step import step_id
from hub.ports import StudyKey
from tests.support import services as support
from tests.support.dicom import CT_IMAGE_STORAGE, EXPLICIT, ct_tags
from tests.support.dimse import FakeServices, Peer, running
from tests.support.dimse_peer import associated, c_store, data_pdus

IMPLICIT = identifier.IMPLICIT
STEP, READER, CT = (
    Context(SOP_CLASS, IMPLICIT),
    Context(RETRIEVE_SOP_CLASS, IMPLICIT),
    Context(CT_IMAGE_STORAGE, EXPLICIT),
)
UID = "1.2.826.0.1.77.1"
TAGS = ct_tags(size=300)
STUDY, IMAGE = str(TAGS[0x0020000D][1]), str(TAGS[0x00080018][1])


class Clock:
    def __init__(self) -> None:
        self.now = dt.datetime(2026, 11, 23, 8, 0, tzinfo=dt.UTC)

    def __call__(self) -> dt.datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def services(tmp_path: Path, clock: Clock) -> Iterator[Services]:
    with support.running(tmp_path, clock=clock, study_quiet_s=30, step_wait_s=600) as made:
        yield made


def begun(**more: Any) -> dict[str, Any]:
    return {
        "00080060": {"vr": "CS", "Value": ["CT"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Zheng^Wei", "Ideographic": "郑^伟"}]},
        "00100020": {"vr": "LO", "Value": ["10086"]},
        "00400241": {"vr": "AE", "Value": ["CT1"]},
        "00400244": {"vr": "DA", "Value": ["20261123"]},
        "00400245": {"vr": "TM", "Value": ["080000"]},
        "00400252": {"vr": "CS", "Value": ["IN PROGRESS"]},
        "00400253": {"vr": "SH", "Value": ["P1"]},
        "00400270": {
            "vr": "SQ",
            "Value": [
                {"0020000D": {"vr": "UI", "Value": [STUDY]}, "00080050": {"vr": "SH", "Value": ["A1"]},
                 "00321060": {"vr": "LO", "Value": ["胸部CT平扫"]}},
            ],
        },
        **more,
    }  # fmt: skip


def over(*images: str, state: str = "COMPLETED") -> dict[str, Any]:
    references = [
        {"00081150": {"vr": "UI", "Value": [CT_IMAGE_STORAGE]}, "00081155": {"vr": "UI", "Value": [uid]}}
        for uid in images
    ]
    series = {"0020000E": {"vr": "UI", "Value": ["1.2.3"]}, "00081140": {"vr": "SQ", "Value": references}}
    return {
        "00400250": {"vr": "DA", "Value": ["20261123"]},
        "00400251": {"vr": "TM", "Value": ["081000"]},
        "00400252": {"vr": "CS", "Value": [state]},
        "00400340": {"vr": "SQ", "Value": [series] if images else []},
    }


def ask(peer: Peer, kind: int, content: dict[str, Any] | None, *, uid: str = UID, context_id: int = 1) -> dimse.Command:
    """Send one DIMSE-N request; return the response's command set."""
    named, instance = (
        (dimse.AFFECTED_SOP_CLASS_UID, dimse.AFFECTED_SOP_INSTANCE_UID)
        if kind == dimse.N_CREATE_RQ
        else (dimse.REQUESTED_SOP_CLASS_UID, dimse.REQUESTED_SOP_INSTANCE_UID)
    )
    command: dict[int, int | str] = {
        named: SOP_CLASS,
        dimse.COMMAND_FIELD: kind,
        dimse.MESSAGE_ID: 3,
        dimse.COMMAND_DATA_SET_TYPE: dimse.NO_DATA_SET if content is None else dimse.DATA_SET,
    }
    if uid:
        command[instance] = uid
    peer.send(dimse.pdu(context_id, command))
    if content is not None:
        for pdu in data_pdus(identifier.write(content, IMPLICIT, character_set="GB18030"), context_id=context_id):
            peer.send(pdu)
    type_, body = peer.read()
    assert type_ == P_DATA, type_
    return dimse.decode(body[6:])


def code(answer: dimse.Command) -> int:
    return dimse.number(answer, dimse.STATUS)


def procedure(services: Services, owner: str = "KN") -> dict[str, Any]:
    stored = services.database.read(lambda tx: tx.records.get("Procedure", step_id(owner, UID), UNRESTRICTED))
    assert stored is not None
    found: dict[str, Any] = json.loads(stored.body)
    return found


def work_items(services: Services, kind: str) -> list[dict[str, Any]]:
    from hub.search.parse import parse

    found = services.database.read(lambda tx: tx.records.search(parse("Task", [("code", kind)]), UNRESTRICTED))
    return [json.loads(one.body) for one in found.matches]


def tick(services: Services) -> list[str]:
    """Do what the worker does with due timers; return the studies that became complete."""
    done = []
    for timer in services.database.read(lambda tx: tx.timers.due(services.clock(), limit=10)):
        if timer.kind == STUDY_QUIET:

            def work(tx: Any, timer: Any = timer) -> StudyKey | None:
                return services.imaging.on_study_quiet(tx, timer) if tx.timers.take(timer) else None

            key = services.database.write(work)
            done += [key.StudyInstanceUID] if key else []
    return done


def test_a_step_is_a_procedure_of_its_institution(services: Services) -> None:
    with running(cast("FakeServices", services)) as door, associated(door.port, STEP, READER) as peer:
        assert code(ask(peer, dimse.N_CREATE_RQ, begun())) == status.SUCCESS
        made = procedure(services)
        assert (made["status"], made["code"]["text"]) == ("in-progress", "胸部CT平扫")
        assert made["performedPeriod"] == {"start": "2026-11-23T08:00:00+08:00"}
        assert code(ask(peer, dimse.N_SET_RQ, over(IMAGE))) == status.SUCCESS
        made = procedure(services)
        assert made["status"] == "completed"
        assert made["performedPeriod"]["end"] == "2026-11-23T08:10:00+08:00"
        # What is over stays as it is.
        answer = ask(peer, dimse.N_SET_RQ, {"00400280": {"vr": "ST", "Value": ["late"]}})
        assert code(answer) == status.PROCESSING_FAILURE
        assert dimse.number(answer, dimse.ERROR_ID) == 0xA710
        # The data set comes back, changes and all.
        answer = ask(peer, dimse.N_GET_RQ, None, context_id=3)
        assert code(answer) == status.SUCCESS
        content = identifier.read(peer.read()[1][6:], IMPLICIT).attributes
        assert content["00400252"]["Value"] == ["COMPLETED"]
        assert content["00100010"]["Value"] == [{"Alphabetic": "Zheng^Wei", "Ideographic": "郑^伟"}]
    patient = services.database.read(lambda tx: tx.records.get(*made["subject"]["reference"].split("/"), UNRESTRICTED))
    assert patient is not None
    assert json.loads(patient.body)["name"][0]["text"] == "郑伟"


@pytest.mark.parametrize(
    ("content", "uid", "expected"),
    [
        (begun() | {"00400252": {"vr": "CS", "Value": ["COMPLETED"]}}, UID, status.INVALID_ATTRIBUTE_VALUE),
        (begun() | {"00400270": {"vr": "SQ"}}, UID, status.INVALID_ATTRIBUTE_VALUE),
        (begun(), "1.2.x", status.INVALID_ATTRIBUTE_VALUE),
    ],
)
def test_a_broken_step_is_refused_and_nothing_is_kept(
    services: Services, content: dict[str, Any], uid: str, expected: int
) -> None:
    with running(cast("FakeServices", services)) as door, associated(door.port, STEP) as peer:
        assert code(ask(peer, dimse.N_CREATE_RQ, content, uid=uid)) == expected
        assert code(ask(peer, dimse.N_SET_RQ, over(IMAGE))) == status.NO_SUCH_SOP_INSTANCE
        # The association goes on, and a UID can be left to the hub.
        answer = ask(peer, dimse.N_CREATE_RQ, begun(), uid="")
        assert code(answer) == status.SUCCESS
        assert dimse.uid(answer, dimse.AFFECTED_SOP_INSTANCE_UID).startswith("2.25.")


def test_a_uid_names_one_step_of_one_institution(services: Services) -> None:
    with running(cast("FakeServices", services)) as door:
        with associated(door.port, STEP) as peer:
            assert code(ask(peer, dimse.N_CREATE_RQ, begun())) == status.SUCCESS
            assert code(ask(peer, dimse.N_CREATE_RQ, begun())) == status.DUPLICATE_SOP_INSTANCE
        with associated(door.port, STEP, READER, calling_ae="QH_PACS") as peer:
            assert code(ask(peer, dimse.N_SET_RQ, over(IMAGE))) == status.NO_SUCH_SOP_INSTANCE
            assert code(ask(peer, dimse.N_GET_RQ, None, context_id=3)) == status.NO_SUCH_SOP_INSTANCE
            assert code(ask(peer, dimse.N_CREATE_RQ, begun())) == status.SUCCESS
    assert procedure(services)["subject"] != procedure(services, "QH")["subject"]


def test_a_study_is_complete_as_soon_as_its_step_says_so(services: Services) -> None:
    with running(cast("FakeServices", services)) as door, associated(door.port, STEP, CT) as peer:
        assert code(ask(peer, dimse.N_CREATE_RQ, begun())) == status.SUCCESS
        assert c_store(peer, TAGS, context_id=3)[0] == 0
        assert tick(services) == []
        assert code(ask(peer, dimse.N_SET_RQ, over(IMAGE))) == status.SUCCESS
        # Not a second of quiet time has passed.
        assert tick(services) == [STUDY]
    assert work_items(services, "incomplete-study") == []
    study = services.database.read(lambda tx: tx.imaging.study(StudyKey(owner="KN", StudyInstanceUID=STUDY)))
    assert study is not None
    stored = services.database.read(lambda tx: tx.records.get("ImagingStudy", study["resource_id"], UNRESTRICTED))
    assert stored is not None
    assert json.loads(stored.body)["procedureReference"] == {"reference": f"Procedure/{step_id('KN', UID)}"}


def test_a_study_in_progress_waits_for_its_step_and_not_for_ever(services: Services, clock: Clock) -> None:
    with running(cast("FakeServices", services)) as door, associated(door.port, STEP, CT) as peer:
        assert code(ask(peer, dimse.N_CREATE_RQ, begun())) == status.SUCCESS
        assert c_store(peer, TAGS, context_id=3)[0] == 0
    clock.now += dt.timedelta(seconds=31)
    assert tick(services) == []
    clock.now += dt.timedelta(seconds=600)
    assert tick(services) == [STUDY]


def test_images_that_never_came_are_somebodys_work(services: Services, clock: Clock) -> None:
    other = ct_tags(size=300)
    other[0x00080018] = (other[0x00080018][0], f"{IMAGE}.2")
    with running(cast("FakeServices", services)) as door, associated(door.port, STEP, CT) as peer:
        assert code(ask(peer, dimse.N_CREATE_RQ, begun())) == status.SUCCESS
        assert c_store(peer, TAGS, context_id=3)[0] == 0
        assert code(ask(peer, dimse.N_SET_RQ, over(IMAGE, f"{IMAGE}.2"))) == status.SUCCESS
        clock.now += dt.timedelta(seconds=31)
        assert tick(services) == []
        clock.now += dt.timedelta(seconds=600)
        assert tick(services) == [STUDY]
        (item,) = work_items(services, "incomplete-study")
        assert item["status"] == "requested"
        assert "1 / 2" in item["note"][0]["text"]
        # The missing one comes late: the study opens again, is complete, and the work item is closed.
        assert c_store(peer, other, context_id=3)[0] == 0
    clock.now += dt.timedelta(seconds=31)
    assert tick(services) == [STUDY]
    (item,) = work_items(services, "incomplete-study")
    assert item["status"] == "completed"
