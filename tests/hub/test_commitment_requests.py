"""What comes of the hub's commitment requests, on both databases; tests/adapters/dimse has them over sockets."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from fhir_mappings.dicom.commitment import Information, Reference
from fhir_mappings.json import dumps, loads
from hub.actor import Actor
from hub.boot import Services
from hub.commitment_requests import FAILED, KIND, CommitmentRequests
from hub.envelope import Envelope
from hub.errors import Category, HubError
from hub.ports import Delivery, MemberEndpoint, NewDelivery, Timer, Tx
from tests.support.hub import register

CT = "1.2.840.10008.5.1.4.1.1.2"
ARCHIVE = MemberEndpoint(
    id="KN/dicom", member="KN", kind="dicom", ae_title="KN", address="127.0.0.1:1", settings={"commitment": True}
)


def ack(services: Services, *uids: str) -> tuple[Delivery, Delivery]:
    """Let the archive acknowledge images; returns their delivery and the request that follows."""
    rows = [{"digest": "0" * 64, "SOPClassUID": CT, "SOPInstanceUID": uid, "TransferSyntaxUID": "1.2"} for uid in uids]

    def work(tx: Tx) -> tuple[Delivery, Delivery]:
        number = tx.outbox.enqueue(
            NewDelivery(
                destination=ARCHIVE.id,
                lane="KN/dicom|p1",
                kind="dimse",
                payload=dumps({"instances": rows}),
                owner="KN",
                control_id="1.2.3",
            )
        )
        now = services.clock() + timedelta(minutes=1)
        [(lane, epoch, images)] = tx.outbox.lease("w", now=now, lease_s=60, limit=1)
        assert tx.outbox.succeeded(lane, epoch, number, ack=b'{"instances":[]}', now=now)
        CommitmentRequests(services).delivered(tx, images)
        [request] = tx.outbox.deliveries({"kind": KIND, "destination": ARCHIVE.id}, limit=1)
        return images, request

    return services.database.write(work)


def reports(services: Services, report: Information, member: str = "KN") -> None:
    envelope = Envelope(door="dimse", actor=Actor(institution=member), peer="x", received_at=services.clock())
    endpoint = ARCHIVE if member == "KN" else MemberEndpoint(id=f"{member}/dicom", member=member, kind="dicom")
    CommitmentRequests(services).reported(envelope, endpoint, report)


def open_images(services: Services) -> list[Delivery]:
    criteria = {"kind": "dimse", "state": "pending"}
    return list(services.database.read(lambda tx: tx.outbox.deliveries(criteria, limit=10)))


def test_a_failure_that_comes_by_two_doors_at_once_is_sent_again_once(hub_services: Services) -> None:
    register(hub_services, ARCHIVE)
    images, request = ack(hub_services, "1.2.1", "1.2.2")
    report = Information(
        TransactionUID=request.control_id, references=(Reference(CT, "1.2.1"),), failed=((Reference(CT, "1.2.2"), 272),)
    )
    together = threading.Barrier(4)

    def door() -> None:
        together.wait(20)
        reports(hub_services, report)

    doors = [threading.Thread(target=door) for _ in range(4)]
    for one in doors:
        one.start()
    for one in doors:
        one.join(30)
    [again] = open_images(hub_services)
    assert [one["SOPInstanceUID"] for one in loads(again.payload)["instances"]] == ["1.2.2"]
    stored = hub_services.database.read(lambda tx: tx.outbox.get(images.id))
    assert stored is not None
    mark = loads(stored.ack or b"")["commitment"]
    assert (mark["outcome"], mark["failed"]) == (FAILED, {"1.2.2": "0110"})
    entries = hub_services.database.read(lambda tx: tx.journal.search({"control_id": request.control_id}, limit=10))
    assert sorted(one.outcome for one in entries) == ["duplicate"] * 3 + ["failed"]


def test_nothing_is_recorded_for_whom_nothing_was_asked(hub_services: Services) -> None:
    register(hub_services, ARCHIVE)
    _, request = ack(hub_services, "1.2.1")
    report = Information(TransactionUID=request.control_id, references=(Reference(CT, "1.2.1"),))
    for member, wrong in (
        ("QH", report),
        ("KN", Information(TransactionUID="")),
        ("KN", Information(TransactionUID="9.9")),
    ):
        with pytest.raises(HubError) as raised:
            reports(hub_services, wrong, member)
        assert raised.value.category is Category.NOT_FOUND


def test_a_deadline_that_passed_after_the_report_asks_nobody(hub_services: Services) -> None:
    register(hub_services, ARCHIVE)
    _, request = ack(hub_services, "1.2.1")
    reports(hub_services, Information(TransactionUID=request.control_id, references=(Reference(CT, "1.2.1"),)))
    timer = Timer(
        kind="commitment", key=request.control_id, due_at=hub_services.clock(), payload={"request": request.id}
    )
    hub_services.database.write(lambda tx: CommitmentRequests(hub_services).overdue(tx, timer))
    gone = Timer(kind="commitment", key="x", due_at=hub_services.clock(), payload={"request": 10**6})
    hub_services.database.write(lambda tx: CommitmentRequests(hub_services).overdue(tx, gone))
    assert hub_services.database.read(lambda tx: tx.timers.due(hub_services.clock() + timedelta(days=9), limit=9)) == []
