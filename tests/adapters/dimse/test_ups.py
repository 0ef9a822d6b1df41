"""Workitems over DIMSE, asked by the DICOM library's client and by a raw peer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pynetdicom
import pytest
from pydicom.dataset import Dataset

from adapters.dimse import command as dimse
from adapters.dimse import status
from adapters.dimse.negotiation import Context
from adapters.dimse.ups import PULL, PUSH, QUERY, WATCH
from fhir_mappings.dicom import identifier
from hub.boot import Services
from hub.workitem_rules import Reason, Remark
from tests.support import services as support
from tests.support.dimse import Door, FakeServices, Peer, running
from tests.support.dimse_peer import answer, associated, data_pdus
from tests.support.workitems import KEY, UID, Json, performed, state, stopped, text, workitem


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with support.running(tmp_path) as made:
        yield made


@pytest.fixture
def door(services: Services) -> Iterator[Door]:
    with running(cast("FakeServices", services)) as made:
        yield made


def dataset(content: Json) -> Dataset:
    made = Dataset.from_json(content)
    made.SpecificCharacterSet = "ISO_IR 192"
    return made


@contextlib.contextmanager
def client(door: Door, title: str = "KN_PACS") -> Iterator[Any]:
    """Associate as *title* with the library's own client."""
    entity = pynetdicom.AE(title)
    for uid in (PUSH, PULL, QUERY):
        entity.add_requested_context(uid)
    association = entity.associate("127.0.0.1", door.port, ae_title="YIXIE")
    assert association.is_established
    assert len(association.accepted_contexts) == 3
    try:
        yield association
    finally:
        association.release()


def create(association: Any, content: Json, uid: str = UID) -> int:
    found, _ = association.send_n_create(dataset(content), PUSH, uid)
    return int(found.Status)


def change(association: Any, content: Json, uid: str = UID) -> int:
    found, _ = association.send_n_set(dataset(content), PUSH, uid, meta_uid=PULL)
    return int(found.Status)


def act(association: Any, kind: int, content: Json, *, context: str = PULL, uid: str = UID) -> int:
    found, _ = association.send_n_action(dataset(content), kind, PUSH, uid, meta_uid=context)
    return int(found.Status)


def find(association: Any, keys: Json, context: str = PULL) -> tuple[int, list[Dataset]]:
    answers = list(association.send_c_find(dataset(keys), context))
    assert {int(one.Status) for one, _ in answers[:-1]} <= {status.PENDING}
    return int(answers[-1][0].Status), [one for _, one in answers[:-1]]


def test_an_item_is_created_found_claimed_and_completed(door: Door) -> None:
    with client(door) as orderer, client(door, "YL_CENTER") as performer:
        assert create(orderer, workitem()) == 0
        assert create(orderer, workitem()) == status.DUPLICATE_SOP_INSTANCE
        keys = {
            "00741000": text("CS", "SCHEDULED"),
            "00404025": text("SQ", {"00080100": text("SH", "YL_CENTER")}),
            "00404005": text("DT", "20261123-20261124"),
            "00100010": text("PN", {"Alphabetic": "*郑*"}),
            "00080018": {"vr": "UI"},
            "00741204": {"vr": "LO"},
            "00404011": {"vr": "DT"},
        }
        code, (found,) = find(performer, keys)
        assert code == 0
        assert (found.SOPInstanceUID, found.ProcedureStepLabel) == (UID, "胸部CT肺结节检测")
        assert found.ExpectedCompletionDateTime is None or found.ExpectedCompletionDateTime == ""
        assert "PatientID" not in found
        assert act(performer, 1, state("IN PROGRESS", "")) == 0xC301
        assert act(performer, 1, state("IN PROGRESS")) == 0
        assert act(orderer, 1, state("IN PROGRESS", "2.25.1")) == 0xC301
        assert act(performer, 1, state("IN PROGRESS")) == 0xC302
        assert act(performer, 1, state("SCHEDULED")) == 0xC303
        assert change(performer, performed()) == 0xC301
        assert act(performer, 1, state("COMPLETED")) == 0xC304
        assert change(performer, performed() | {"00081195": text("UI", KEY)}) == 0
        assert act(orderer, 2, {}, context=PUSH) == 0xC312
        assert act(performer, 1, state("COMPLETED")) == 0
        assert act(performer, 1, state("COMPLETED")) == 0xB306
        assert act(orderer, 2, {}, context=PUSH) == 0xC311
        assert change(performer, performed() | {"00081195": text("UI", KEY)}) == 0xC300
        assert find(orderer, keys)[1] == []
        found, content = orderer.send_n_get([0x00741000, 0x00100010, 0x00081195], PUSH, UID)
        assert found.Status == 0
        assert content.ProcedureStepState == "COMPLETED"
        assert str(content.PatientName) == "Zheng^Wei=郑^伟"
        assert "TransactionUID" not in content


def test_an_item_that_nobody_claimed_is_cancelled_on_request(door: Door) -> None:
    with client(door) as orderer:
        assert create(orderer, workitem(x00741202={"vr": "LO"})) == 0xB300
        assert change(orderer, stopped() | {"00081195": text("UI", KEY)}) == 0xC310
        assert act(orderer, 1, state("COMPLETED")) == 0xC310
        assert act(orderer, 2, {"00741238": text("LT", "患者已出院")}, context=PUSH) == 0
        assert act(orderer, 2, {}, context=PUSH) == 0xB304
        code, (found,) = find(orderer, {"00741000": text("CS", "CANCELED"), "00741002": {"vr": "SQ"}}, QUERY)
        assert code == 0
        assert found.ProcedureStepProgressInformationSequence[0].ReasonForCancellation == "患者已出院"


def test_what_is_another_institutions_is_not_there(door: Door) -> None:
    with client(door) as orderer, client(door, "QH_PACS") as stranger:
        assert create(orderer, workitem()) == 0
        assert act(stranger, 1, state("IN PROGRESS")) == 0xC307
        assert change(stranger, performed()) == 0xC307
        assert stranger.send_n_get([], PUSH, UID)[0].Status == 0xC307
        assert find(stranger, {"00741000": {"vr": "CS"}}) == (0, [])


def test_nothing_is_subscribed_to_but_by_watch_and_event_is_the_hubs_to_propose(door: Door) -> None:
    with client(door) as orderer:
        assert create(orderer, workitem()) == 0
        for kind in (3, 4, 5):
            assert act(orderer, kind, {"00741234": text("AE", "KN_PACS")}) == status.UPS_NO_EVENT_REPORTS
    entity = pynetdicom.AE("KN_PACS")
    for kind in (2, 4):
        entity.add_requested_context(f"1.2.840.10008.5.1.4.34.6.{kind}")
    association = entity.associate("127.0.0.1", door.port, ae_title="YIXIE")
    assert [one.abstract_syntax for one in association.accepted_contexts] == [WATCH]
    association.release()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (workitem(x00741000=text("CS", "IN PROGRESS")), 0xC309),
        (workitem(x00741204={"vr": "LO"}), status.INVALID_ATTRIBUTE_VALUE),
        (workitem(x00081195=text("UI", "1.2.3")), status.INVALID_ATTRIBUTE_VALUE),
    ],
)
def test_a_broken_item_is_refused_and_the_association_goes_on(door: Door, content: Json, expected: int) -> None:
    with client(door) as orderer:
        assert create(orderer, content) == expected
        assert create(orderer, workitem()) == 0
        assert change(orderer, {"00741000": text("CS", "COMPLETED")}) == status.INVALID_ATTRIBUTE_VALUE
        assert act(orderer, 1, {"00741000": text("CS", "DONE"), "00081195": text("UI", KEY)}) == 0x0106
        assert act(orderer, 2, {}) == status.NO_SUCH_ACTION
        assert act(orderer, 1, state("IN PROGRESS"), context=PUSH) == status.NO_SUCH_ACTION


def test_a_question_that_cannot_be_answered_is_refused(door: Door) -> None:
    with client(door) as orderer:
        code, found = find(orderer, {"00404005": text("DT", "tomorrow")})
        assert (code, found) == (status.UNABLE_TO_PROCESS, [])


def raw(peer: Peer, kind: int, data: bytes | None, **more: int) -> int:
    """Send one request on the first context and return the status answered."""
    named = {"sop_class": dimse.REQUESTED_SOP_CLASS_UID, "instance": dimse.REQUESTED_SOP_INSTANCE_UID}
    command: dict[int, int | str] = {
        named["sop_class"]: PUSH,
        named["instance"]: UID,
        dimse.COMMAND_FIELD: kind,
        dimse.MESSAGE_ID: 3,
        dimse.COMMAND_DATA_SET_TYPE: dimse.NO_DATA_SET if data is None else dimse.DATA_SET,
    }
    if "action" in more:
        command[dimse.ACTION_TYPE_ID] = more["action"]
    peer.send(dimse.pdu(1, command))
    for pdu in data_pdus(data or b"", context_id=1):
        peer.send(pdu)
    return answer(peer)[0]


def test_broken_messages_are_answered_and_harm_nothing(door: Door) -> None:
    with associated(door.port, Context(PULL, identifier.IMPLICIT)) as peer:
        assert raw(peer, dimse.N_CREATE_RQ, identifier.write(workitem(), identifier.IMPLICIT)) == 0x0211
        assert raw(peer, dimse.N_SET_RQ, b"\xff" * 40) == status.PROCESSING_FAILURE
        assert raw(peer, dimse.N_ACTION_RQ, None) == status.NO_SUCH_ACTION
        assert raw(peer, dimse.N_ACTION_RQ, None, action=1) == status.INVALID_ATTRIBUTE_VALUE
        assert raw(peer, dimse.N_GET_RQ, None) == 0xC307
        assert raw(peer, dimse.C_STORE_RQ, None) == status.UNRECOGNIZED_OPERATION


def test_text_is_read_in_the_charset_it_came_in(door: Door) -> None:
    with associated(door.port, Context(PUSH, identifier.IMPLICIT)) as peer:
        command: dict[int, int | str] = {
            dimse.AFFECTED_SOP_CLASS_UID: PUSH,
            dimse.AFFECTED_SOP_INSTANCE_UID: UID,
            dimse.COMMAND_FIELD: dimse.N_CREATE_RQ,
            dimse.MESSAGE_ID: 3,
            dimse.COMMAND_DATA_SET_TYPE: dimse.DATA_SET,
        }
        peer.send(dimse.pdu(1, command))
        for pdu in data_pdus(identifier.write(workitem(), identifier.IMPLICIT, character_set="GB18030"), context_id=1):
            peer.send(pdu)
        assert answer(peer)[0] == 0
    with client(door) as orderer:
        _, (found,) = find(orderer, {"00741204": text("LO", "胸部CT肺结节检测"), "00741202": {"vr": "LO"}})
        assert found.WorklistLabel == "影像后处理"


def test_every_reason_and_remark_has_its_status() -> None:
    assert set(status.BY_UPS_REASON) == set(Reason)
    assert set(status.BY_UPS_REMARK) == set(Remark)
