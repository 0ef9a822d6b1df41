"""Storage Commitment: kept before it is answered, and vouched for only after each object was read again (PS3.4 annex J)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from adapters.dimse import command as dimse
from adapters.dimse import status
from adapters.dimse.commitment import SOP_CLASS, SOP_INSTANCE
from adapters.dimse.negotiation import Context
from adapters.dimse.upper_layer import P_DATA, pdv_header
from fhir_mappings.dicom import commitment, identifier
from fhir_mappings.dicom.commitment import Information
from hub.boot import Services
from hub.commitment import CLASS_CONFLICT, KIND, NO_SUCH_INSTANCE, PROCESSING_FAILURE, CommitmentService, Request
from tests.support import services as support
from tests.support.dicom import CT_IMAGE_STORAGE, EXPLICIT, ct_tags
from tests.support.dimse import FakeServices, Peer, running
from tests.support.dimse_peer import associated, c_store, data_pdus

IMPLICIT = identifier.IMPLICIT
PUSH = Context(SOP_CLASS, IMPLICIT)
CT = Context(CT_IMAGE_STORAGE, EXPLICIT)
TRANSACTION = "1.2.826.0.1.99.1"


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with support.running(tmp_path) as made:
        yield made


def sequence(*pairs: tuple[str, str]) -> dict[str, Any]:
    items = [
        {"00081150": {"vr": "UI", "Value": [one]}, "00081155": {"vr": "UI", "Value": [other]}} for one, other in pairs
    ]
    return {"vr": "SQ", "Value": items}


def ask(peer: Peer, *pairs: tuple[str, str], transaction: str = TRANSACTION, **wrong: Any) -> int:
    """Send an N-ACTION on context 1 and return its status."""
    content = {"00081195": {"vr": "UI", "Value": [transaction]}, "00081199": sequence(*pairs)}
    command: dict[int, int | str] = {
        dimse.REQUESTED_SOP_CLASS_UID: SOP_CLASS,
        dimse.COMMAND_FIELD: dimse.N_ACTION_RQ,
        dimse.MESSAGE_ID: 5,
        dimse.COMMAND_DATA_SET_TYPE: dimse.DATA_SET,
        dimse.REQUESTED_SOP_INSTANCE_UID: wrong.get("instance", SOP_INSTANCE),
        dimse.ACTION_TYPE_ID: wrong.get("action", 1),
    }
    peer.send(dimse.pdu(1, command))
    for pdu in data_pdus(wrong.get("data", identifier.write(content, IMPLICIT))):
        peer.send(pdu)
    return dimse.number(command_of(peer), dimse.STATUS)


def command_of(peer: Peer) -> dimse.Command:
    kind, body = peer.read()
    assert kind == P_DATA, kind
    return dimse.decode(body[6:])


def report_of(peer: Peer) -> tuple[int, Information]:
    """Read an N-EVENT-REPORT-RQ, confirm it, and return (event type, event information)."""
    kind, body = peer.read()
    assert kind == P_DATA
    length = int.from_bytes(body[:4], "big")
    command, rest = dimse.decode(body[6 : 4 + length]), body[4 + length :]
    assert dimse.number(command, dimse.COMMAND_FIELD) == dimse.N_EVENT_REPORT_RQ
    data = bytearray()
    while True:
        if not rest:
            kind, rest = peer.read()
            assert kind == P_DATA
        length = int.from_bytes(rest[:4], "big")
        data += rest[6 : 4 + length]
        last, rest = rest[5] & 2, rest[4 + length :]
        if last:
            break
    answer: dict[int, int | str] = {
        dimse.AFFECTED_SOP_CLASS_UID: SOP_CLASS,
        dimse.COMMAND_FIELD: dimse.N_EVENT_REPORT_RSP,
        dimse.MESSAGE_ID_RESPONDED_TO: dimse.number(command, dimse.MESSAGE_ID),
        dimse.COMMAND_DATA_SET_TYPE: dimse.NO_DATA_SET,
        dimse.STATUS: 0,
    }
    peer.send(dimse.pdu(1, answer))
    return dimse.number(command, dimse.EVENT_TYPE_ID), commitment.read(bytes(data), IMPLICIT)


def failures(report: Information) -> dict[str, int]:
    return {one.SOPInstanceUID: reason for one, reason in report.failed}


def committed(report: Information) -> set[str]:
    return {one.SOPInstanceUID for one in report.references}


def without_address(services: Services) -> None:
    """Let KN's PACS be one that only calls, as many modalities do."""
    resources = [one for one in support.consortium() if one["resourceType"] in {"Organization", "Endpoint"}]
    for one in resources:
        if one["resourceType"] == "Endpoint" and "KN_PACS" in json.dumps(one):
            one["address"] = "dicom://KN_PACS@"
    services.directory.load(resources)


def test_what_is_stored_is_committed_on_the_same_association(services: Services) -> None:
    without_address(services)
    tags = ct_tags(size=300)
    uid = str(tags[0x00080018][1])
    with running(cast("FakeServices", services)) as door, associated(door.port, PUSH, CT) as peer:
        assert c_store(peer, tags, context_id=3)[0] == 0
        assert ask(peer, (CT_IMAGE_STORAGE, uid)) == status.SUCCESS
        kind, report = report_of(peer)
        assert (kind, committed(report), failures(report)) == (1, {uid}, {})
        assert report.TransactionUID == TRANSACTION
        # What is missing, of another class, or of another institution is said to be so.
        assert ask(peer, (CT_IMAGE_STORAGE, uid), (CT_IMAGE_STORAGE, "1.2.3"), transaction="1.2.9") == status.SUCCESS
        kind, report = report_of(peer)
        assert (kind, committed(report), failures(report)) == (2, {uid}, {"1.2.3": NO_SUCH_INSTANCE})
        assert ask(peer, ("1.2.840.10008.5.1.4.1.1.4", uid), transaction="1.2.10") == status.SUCCESS
        assert failures(report_of(peer)[1]) == {uid: CLASS_CONFLICT}


def test_another_institutions_instance_is_unknown(services: Services) -> None:
    tags = ct_tags(size=300)
    uid = str(tags[0x00080018][1])
    with running(cast("FakeServices", services)) as door:
        with associated(door.port, CT) as peer:
            assert c_store(peer, tags)[0] == 0
        service = CommitmentService(services)
        request = Request.unpacked(
            json.dumps({"transaction": "1.2", "asker": "X", "references": [[CT_IMAGE_STORAGE, uid]]}).encode()
        )
        assert service.report(request, owner="KN").failed == ()
        assert [reason for _, reason in service.report(request, owner="QH").failed] == [NO_SUCH_INSTANCE]


def test_a_damaged_object_is_not_vouched_for(services: Services, tmp_path: Path) -> None:
    without_address(services)
    tags = ct_tags(size=300)
    uid = str(tags[0x00080018][1])
    with running(cast("FakeServices", services)) as door, associated(door.port, PUSH, CT) as peer:
        assert c_store(peer, tags, context_id=3)[0] == 0
        (path,) = [one for one in (tmp_path / "objects").rglob("*") if one.is_file() and one.stat().st_size > 1000]
        path.chmod(0o600)
        body = bytearray(path.read_bytes())
        body[-1] ^= 1
        path.write_bytes(body)
        assert ask(peer, (CT_IMAGE_STORAGE, uid)) == status.SUCCESS
        assert failures(report_of(peer)[1]) == {uid: PROCESSING_FAILURE}


def test_a_request_is_in_the_outbox_before_it_is_answered(services: Services) -> None:
    with running(cast("FakeServices", services)) as door, associated(door.port, PUSH) as peer:
        for _ in range(2):
            assert ask(peer, (CT_IMAGE_STORAGE, "1.2.3")) == status.SUCCESS
        waiting = services.database.read(lambda tx: tx.outbox.deliveries({"control_id": TRANSACTION}, limit=9))
        assert [(one.kind, one.owner, one.destination) for one in waiting] == [(KIND, "KN", "KN/dicom")]
        assert Request.unpacked(waiting[0].payload).asker == "KN_PACS"
        # One transaction UID is one question.
        assert ask(peer, (CT_IMAGE_STORAGE, "1.2.4")) == status.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"instance": "1.2.3"}, status.NO_SUCH_SOP_INSTANCE),
        ({"action": 2}, status.NO_SUCH_ACTION),
        ({"data": b"\x08\x00\x95\x11\xff\xff\xff\x7f"}, status.INVALID_ARGUMENT),
        ({"data": identifier.write({"00081195": {"vr": "UI", "Value": [TRANSACTION]}}, IMPLICIT)}, status.INVALID_ARGUMENT),
        ({"data": identifier.write({"00081199": sequence((CT_IMAGE_STORAGE, "1.2"))}, IMPLICIT)}, status.INVALID_ARGUMENT),
        ({"data": identifier.write({"00081195": {"vr": "UI", "Value": ["1.2"]}, "00081199": sequence(("", "1.2"))}, IMPLICIT)}, status.INVALID_ARGUMENT),
    ],
)  # fmt: skip
def test_a_broken_request_is_refused_and_the_association_stands(
    services: Services, wrong: dict[str, Any], code: int
) -> None:
    with running(cast("FakeServices", services)) as door, associated(door.port, PUSH) as peer:
        assert ask(peer, (CT_IMAGE_STORAGE, "1.2.3"), **wrong) == code
        assert ask(peer, (CT_IMAGE_STORAGE, "1.2.3")) == status.SUCCESS


def test_a_data_set_without_end_ends_the_association(services: Services) -> None:
    with running(cast("FakeServices", services)) as door, associated(door.port, PUSH) as peer:
        peer.send(
            dimse.pdu(
                1,
                {
                    dimse.COMMAND_FIELD: dimse.N_ACTION_RQ,
                    dimse.MESSAGE_ID: 1,
                    dimse.COMMAND_DATA_SET_TYPE: dimse.DATA_SET,
                },
            )
        )
        piece = pdv_header(1, 0, 60_000) + bytes(60_000)
        for _ in range(commitment.MAX_BYTES // 60_000 + 1):
            peer.send(piece)
        assert peer.read()[0] == 7


def test_more_instances_than_an_identifier_holds_are_one_transaction(services: Services) -> None:
    without_address(services)
    pairs = [(CT_IMAGE_STORAGE, f"1.2.{number}") for number in range(12_000)]
    with running(cast("FakeServices", services)) as door, associated(door.port, PUSH) as peer:
        assert ask(peer, *pairs) == status.SUCCESS
        kind, report = report_of(peer)
        assert kind == 2
        assert failures(report) == dict.fromkeys((uid for _, uid in pairs), NO_SUCH_INSTANCE)
