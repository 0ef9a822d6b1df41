"""The hub asks its partners for storage commitment, and what comes of it survives restarts (PS3.4 annex J)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from adapters.dimse import command as dimse
from adapters.dimse import status
from adapters.dimse.commitment import SOP_CLASS
from adapters.dimse.negotiation import Context
from adapters.dimse.upper_layer import P_DATA, RELEASE_RP_PDU, RELEASE_RQ_PDU, pdv_header
from adapters.worker.delivery import DeliveryLoop
from adapters.worker.timers import TimerLoop
from fhir_mappings.dicom import commitment
from fhir_mappings.dicom.commitment import Information
from fhir_mappings.dicom.identifier import IMPLICIT
from fhir_mappings.json import loads
from hub.boot import Services
from hub.clock import utc_now
from hub.commitment_requests import COMMITTED, FAILED, KIND, SILENT, UNCOMMITTED
from hub.ports import Delivery, MemberEndpoint
from tests.support.dicom import CT_IMAGE_STORAGE, ROOT, ct_tags, make_ct
from tests.support.dimse import Door
from tests.support.dimse_commitment import (
    Acceptor,
    deliveries,
    images_for,
    library,
    library_reports,
    references,
    report_command,
    report_pdus,
    scripted,
)
from tests.support.dimse_hub import ae, audit_lines, free_port, hub_door, keep
from tests.support.dimse_peer import associated
from tests.support.hub import SetClock
from tests.support.images import resources, settle

STUDY = f"{ROOT}.1"
UIDS = tuple(str(ct_tags(instance=number)[0x00080018][1]) for number in (1, 2, 3))
PAIRS = [(CT_IMAGE_STORAGE, uid) for uid in UIDS]


@pytest.fixture
def clock() -> SetClock:
    return SetClock(utc_now())


@contextmanager
def holding(
    folder: Path, clock: SetClock, port: int, **settings: Any
) -> Iterator[tuple[Services, Door, MemberEndpoint]]:
    """A hub with three images of KN's, and KN's archive at *port*, which is to be asked."""
    to = ae("KN", "KN_ARCHIVE", port, **{"commitment": "true", "commitment-report": "new-association", **settings})
    with hub_door(folder / "hub", to, clock=clock, delivery_timeout_s=5) as (services, door):
        keep(services, *(make_ct(instance=number) for number in (1, 2, 3)))
        clock.forward(services.settings.study_quiet_s + 1)
        settle(services)
        yield services, door, to


def work(services: Services) -> None:
    """Deliver all that is due."""
    loop = DeliveryLoop(services, rng=lambda: 1.0)
    while loop.turn():
        pass


def images(services: Services) -> list[Delivery]:
    return deliveries(services, "dimse")


def outcome(delivery: Delivery) -> str:
    return str(loads(delivery.ack or b"{}").get("commitment", {}).get("outcome", ""))


def asked_of(services: Services) -> list[Delivery]:
    return deliveries(services, KIND)


def transactions(services: Services) -> list[str]:
    return [one.control_id for one in asked_of(services)]


def items(services: Services) -> list[tuple[str, int]]:
    """Return (status, number of images) of each work item."""
    return [
        (one["status"], next(value["valueInteger"] for value in one["input"] if "valueInteger" in value))
        for one in resources(services, "Task")
        if one["code"]["coding"][0]["code"] == UNCOMMITTED
    ][-1:]


def test_what_a_partner_acknowledged_it_is_asked_to_vouch_for(tmp_path: Path, clock: SetClock) -> None:
    port = free_port()
    with holding(tmp_path, clock, port) as (hub, door, to), library("KN_ARCHIVE", port) as archive:
        images_for(hub, to, STUDY)
        work(hub)
        assert len(archive.stored) == 3
        [asked] = archive.requests
        assert [
            (one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID) for one in asked.ReferencedSOPSequence
        ] == PAIRS
        [request] = asked_of(hub)
        assert (request.state, request.control_id) == ("sent", asked.TransactionUID)
        # The archive opens an association of its own, in the role of SCP.
        for _ in range(2):
            assert library_reports("KN_ARCHIVE", door.port, asked.TransactionUID, PAIRS) == status.SUCCESS
        [sent] = images(hub)
        assert outcome(sent) == COMMITTED
        assert len(loads(sent.ack or b"")["instances"]) == 3
        assert len(audit_lines(hub, "storage-commitment-report")) == 1
        # Nothing is left to happen.
        clock.forward(hub.settings.commitment_wait_s + 1)
        assert TimerLoop(hub).turn() == 0
        assert items(hub) == []


def test_a_partner_that_is_not_to_be_asked_is_not(tmp_path: Path, clock: SetClock) -> None:
    port = free_port()
    with holding(tmp_path, clock, port, commitment="false") as (hub, _, to), library("KN_ARCHIVE", port) as archive:
        images_for(hub, to, STUDY)
        work(hub)
        assert len(archive.stored) == 3
        assert asked_of(hub) == []


def test_what_fails_is_sent_once_more_and_then_a_person_is_asked(tmp_path: Path, clock: SetClock) -> None:
    port = free_port()
    with holding(tmp_path, clock, port) as (hub, door, to), library("KN_ARCHIVE", port) as archive:
        images_for(hub, to, STUDY)
        work(hub)
        [first] = transactions(hub)
        # A failure that is repeated is one failure.
        for _ in range(2):
            assert library_reports("KN_ARCHIVE", door.port, first, PAIRS[:1], PAIRS[1:]) == status.SUCCESS
        assert items(hub) == []
        work(hub)
        assert archive.stored == [*UIDS, *UIDS[1:]]
        [_, second] = transactions(hub)
        assert library_reports("KN_ARCHIVE", door.port, second, PAIRS[1:2], PAIRS[2:]) == status.SUCCESS
        work(hub)
        assert [outcome(one) for one in images(hub)] == [FAILED, FAILED]
        assert len(archive.stored) == 5
        assert items(hub) == [("requested", 1)]
        # An operator sends it again; the item closes by itself when the archive is content.
        again = images(hub)[1]
        hub.database.write(lambda tx: tx.outbox.replay(again.id, now=hub.clock()))
        work(hub)
        assert library_reports("KN_ARCHIVE", door.port, transactions(hub)[2], PAIRS[1:]) == status.SUCCESS
        assert items(hub) == [("completed", 1)]


def test_a_partner_that_never_reports_becomes_a_work_item_which_a_late_report_closes(
    tmp_path: Path, clock: SetClock
) -> None:
    port = free_port()
    with holding(tmp_path, clock, port) as (hub, door, to), library("KN_ARCHIVE", port):
        images_for(hub, to, STUDY)
        work(hub)
        clock.forward(hub.settings.commitment_wait_s - 1)
        assert TimerLoop(hub).turn() == 0
        clock.forward(2)
        assert TimerLoop(hub).turn() == 1
        assert [outcome(one) for one in images(hub)] == [SILENT]
        assert items(hub) == [("requested", 3)]
        assert library_reports("KN_ARCHIVE", door.port, transactions(hub)[0], PAIRS) == status.SUCCESS
        assert [outcome(one) for one in images(hub)] == [COMMITTED]
        assert items(hub) == [("completed", 3)]


def test_a_partner_that_went_away_before_it_was_asked_keeps_its_time(tmp_path: Path, clock: SetClock) -> None:
    port = free_port()
    with holding(tmp_path, clock, port) as (hub, _, to):
        with library("KN_ARCHIVE", port):
            images_for(hub, to, STUDY)
            DeliveryLoop(hub, rng=lambda: 1.0).turn()
        work(hub)
        assert [one.state for one in asked_of(hub)] == ["pending"]
        for _ in range(3):
            clock.forward(hub.settings.commitment_wait_s + 1)
            assert TimerLoop(hub).turn() == 1
            work(hub)
        assert items(hub) == []
        clock.forward(hub.settings.retry_longest_s + 1)
        with library("KN_ARCHIVE", port) as archive:
            work(hub)
            assert len(archive.requests) == 1


def test_a_refused_request_does_not_hold_up_the_patients_images(tmp_path: Path, clock: SetClock) -> None:
    port = free_port()
    with holding(tmp_path, clock, port) as (hub, _, to), library("KN_ARCHIVE", port, answer=0x0112) as archive:
        for _ in range(2):
            images_for(hub, to, STUDY)
            work(hub)
        assert [one.state for one in images(hub)] == ["sent", "sent"]
        assert [one.state for one in asked_of(hub)] == ["dead", "dead"]
        assert len(archive.stored) == 6
        clock.forward(hub.settings.commitment_wait_s + 1)
        TimerLoop(hub).turn()
        assert items(hub) == [("requested", 3)]


def reporting(
    report: Callable[[str], Information], codes: list[int], *, event_type: int = 1
) -> Callable[[Acceptor], None]:
    """A partner that reports on the association that it was asked on."""

    def script(partner: Acceptor) -> None:
        command, data = partner.message()
        partner.confirm(command)
        asked = commitment.read(data, partner.contexts[1].transfer_syntax)
        codes.append(partner.report(report(asked.TransactionUID), event_type=event_type))
        partner.released()

    return script


def test_a_report_on_the_same_association_is_taken_before_it_ends(tmp_path: Path, clock: SetClock) -> None:
    codes: list[int] = []
    script = reporting(lambda one: Information(TransactionUID=one, references=references(*UIDS)), codes)
    with scripted(stores, script) as port, holding(tmp_path, clock, port, **{"commitment-report": "same-association"}) as (hub, _, to):  # fmt: skip
        images_for(hub, to, STUDY)
        work(hub)
        assert codes == [status.SUCCESS]
        assert [outcome(one) for one in images(hub)] == [COMMITTED]
        assert [one.state for one in asked_of(hub)] == ["sent"]


def test_what_a_report_does_not_mention_is_not_committed(tmp_path: Path, clock: SetClock) -> None:
    codes: list[int] = []
    script = reporting(lambda one: Information(TransactionUID=one, references=references(UIDS[0], "1.2.3")), codes)
    with scripted(stores, script, stores, reads) as port, holding(tmp_path, clock, port, **{"commitment-report": "same-association"}) as (hub, _, to):  # fmt: skip
        images_for(hub, to, STUDY)
        work(hub)
        assert codes == [status.SUCCESS]
        first, second = images(hub)
        assert outcome(first) == FAILED
        assert [one["SOPInstanceUID"] for one in loads(second.payload)["instances"]] == list(UIDS[1:])


def stores(partner: Acceptor) -> None:
    """Take images until the hub has no more."""
    while True:
        kind, body = partner.read()
        if kind != P_DATA:
            partner.send(RELEASE_RP_PDU)
            return
        if body[5] & 1:
            command = dimse.decode(body[6 : 4 + int.from_bytes(body[:4], "big")])
        while not body[5] & 2 or body[5] & 1:
            _, body = partner.read()
        partner.confirm(command)


def reads(partner: Acceptor) -> None:
    """Take a request and say nothing of its outcome."""
    command, _ = partner.message()
    partner.confirm(command)
    partner.send(RELEASE_RQ_PDU)


@pytest.mark.parametrize("ending", ["abort", "release", "nothing", "another request"])
def test_however_the_association_ends_an_accepted_request_stays_accepted(
    tmp_path: Path, clock: SetClock, ending: str
) -> None:
    def script(partner: Acceptor) -> None:
        command, _ = partner.message()
        partner.confirm(command)
        if ending == "abort":
            partner.send(b"\x07\0\0\0\0\x04\0\0\0\0")
        elif ending == "release":
            partner.send(RELEASE_RQ_PDU)
        elif ending == "another request":
            echo = {dimse.COMMAND_FIELD: dimse.C_ECHO_RQ, dimse.MESSAGE_ID: 1, dimse.COMMAND_DATA_SET_TYPE: 0x0101}
            partner.send(dimse.pdu(1, echo))
            assert dimse.number(partner.message()[0], dimse.STATUS) == status.UNRECOGNIZED_OPERATION
            partner.released()

    with scripted(stores, script) as port, holding(tmp_path, clock, port, **{"commitment-report": "same-association"}) as (hub, _, to):  # fmt: skip
        images_for(hub, to, STUDY)
        work(hub)
        assert [one.state for one in asked_of(hub)] == ["sent"]


def test_only_the_institution_that_was_asked_may_report(tmp_path: Path, clock: SetClock) -> None:
    port = free_port()
    with holding(tmp_path, clock, port) as (hub, door, to), library("KN_ARCHIVE", port):
        images_for(hub, to, STUDY)
        work(hub)
        [transaction] = transactions(hub)
        assert library_reports("QH_PACS", door.port, transaction, PAIRS) == status.INVALID_ARGUMENT
        assert library_reports("KN_ARCHIVE", door.port, "1.2.3", PAIRS) == status.INVALID_ARGUMENT
        # Another AE title of the same institution may.
        assert library_reports("KN_PACS", door.port, transaction, PAIRS) == status.SUCCESS
        assert [outcome(one) for one in images(hub)] == [COMMITTED]


@pytest.mark.parametrize(
    ("event_type", "data", "code"),
    [
        (3, None, status.NO_SUCH_EVENT_TYPE),
        (1, b"\x08\x00\x95\x11\xff\xff\xff\x7f", status.INVALID_ARGUMENT),
        (1, b"", status.INVALID_ARGUMENT),
    ],
)
def test_a_broken_report_is_refused_and_the_association_stands(
    tmp_path: Path, clock: SetClock, event_type: int, data: bytes | None, code: int
) -> None:
    port = free_port()
    with holding(tmp_path, clock, port) as (hub, door, to), library("KN_ARCHIVE", port):
        images_for(hub, to, STUDY)
        work(hub)
        good = Information(TransactionUID=transactions(hub)[0], references=references(*UIDS))
        with associated(door.port, Context(SOP_CLASS, IMPLICIT), calling_ae="KN_ARCHIVE") as peer:
            broken = commitment.write(good, IMPLICIT) if data is None else data
            peer.send(report_command(event_type) + pdv_header(1, 2, len(broken)) + broken)
            assert dimse.number(dimse.decode(peer.read()[1][6:]), dimse.STATUS) == code
            assert [outcome(one) for one in images(hub)] == ["asked"]
            for pdu in report_pdus(good, IMPLICIT):
                peer.send(pdu)
            assert dimse.number(dimse.decode(peer.read()[1][6:]), dimse.STATUS) == status.SUCCESS
        assert [outcome(one) for one in images(hub)] == [COMMITTED]
