"""Reports of storage commitment reach whoever asked, through the real worker, outbox and sockets (PS3.4 annex J)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adapters.dimse import command as dimse
from adapters.dimse import commitment_sender
from adapters.dimse.commitment import SOP_CLASS
from adapters.worker import delivery
from adapters.worker.delivery import LEASE_S, DeliveryLoop
from fhir_mappings.dicom import commitment
from hub.boot import Services
from hub.clock import utc_now
from hub.commitment import KIND, NO_SUCH_INSTANCE, PROCESSING_FAILURE
from hub.errors import Category, HubError
from hub.ports import Delivery, NewDelivery, StudyKey
from tests.support.dicom import CT_IMAGE_STORAGE, ROOT, make_ct
from tests.support.dimse import Door
from tests.support.dimse_commitment import Acceptor, deliveries, images_for, library, library_asks, scripted
from tests.support.dimse_hub import ae, free_port, hub_door, keep
from tests.support.hub import SetClock

STUDY = f"{ROOT}.1"
TRANSACTION = "1.2.826.0.1.99.1"
ABSENT = "1.2.3"


@pytest.fixture
def clock() -> SetClock:
    return SetClock(utc_now())


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def hub(tmp_path: Path, port: int, clock: SetClock) -> Iterator[tuple[Services, Door]]:
    """A hub that holds one image of KN's, and knows KN_ASKS at *port*."""
    with hub_door(tmp_path / "hub", ae("KN", "KN_ASKS", port), clock=clock, delivery_timeout_s=5) as (services, door):
        keep(services, make_ct(instance=1))
        yield services, door


def here(services: Services) -> str:
    key = StudyKey(owner="KN", StudyInstanceUID=STUDY)
    [row] = services.database.read(lambda tx: tx.imaging.instances_of(key))
    return row.SOPInstanceUID


def worker(services: Services) -> DeliveryLoop:
    return DeliveryLoop(services, rng=lambda: 1.0)


def the_report(services: Services) -> Delivery:
    [one] = deliveries(services, KIND)
    return one


def asks(door: Door, *uids: str, transaction: str = TRANSACTION) -> None:
    assert library_asks("KN_ASKS", door.port, transaction, *((CT_IMAGE_STORAGE, uid) for uid in uids)) == 0


def test_the_asker_gets_its_report_on_an_association_of_the_hubs_own(hub: tuple[Services, Door], port: int) -> None:
    services, door = hub
    uid = here(services)
    with library("KN_ASKS", port) as asker:
        asks(door, uid)
        assert worker(services).turn() == 1
        asks(door, uid, ABSENT, transaction="1.2.9")
        assert worker(services).turn() == 1
    (first, all_safe), (second, some) = asker.reports
    assert (first, all_safe.TransactionUID) == (1, TRANSACTION)
    assert [one.ReferencedSOPInstanceUID for one in all_safe.ReferencedSOPSequence] == [uid]
    assert "FailedSOPSequence" not in all_safe
    assert (second, some.TransactionUID) == (2, "1.2.9")
    assert [(one.ReferencedSOPInstanceUID, one.FailureReason) for one in some.FailedSOPSequence] == [
        (ABSENT, NO_SUCH_INSTANCE)
    ]
    sent = deliveries(services, KIND)
    assert [(one.state, one.ack) for one in sent] == [
        ("sent", b'{"status":"0000","committed":1,"failed":0}'),
        ("sent", b'{"status":"0000","committed":1,"failed":1}'),
    ]


def test_an_asker_that_is_away_for_days_is_told_once(
    hub: tuple[Services, Door], port: int, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    services, door = hub
    uid = here(services)
    verified: list[str] = []
    original = services.objects.verify
    monkeypatch.setattr(services.objects, "verify", lambda digest: (verified.append(digest), original(digest))[1])
    asks(door, uid)
    loop = worker(services)
    for _ in range(40):
        loop.turn()
        clock.forward(7200)
    assert the_report(services).state == "pending"
    # Nothing was read for somebody who does not listen.
    assert verified == []
    with library("KN_ASKS", port) as asker:
        while loop.turn():
            pass
        clock.forward(7200)
        assert loop.turn() == 0
    assert len(asker.reports) == 1
    assert len(verified) == 1


def test_a_store_that_is_away_makes_the_report_wait_and_not_say_no(
    hub: tuple[Services, Door], port: int, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    services, door = hub
    uid = here(services)
    asks(door, uid)
    loop = worker(services)
    with library("KN_ASKS", port) as asker:
        with monkeypatch.context() as away:

            def unavailable(digest: str) -> bool:
                raise HubError(Category.UNAVAILABLE, "The object store does not answer.")

            away.setattr(services.objects, "verify", unavailable)
            for _ in range(10):
                loop.turn()
                clock.forward(services.settings.retry_longest_s + 1)
        assert asker.reports == []
        assert the_report(services).state == "pending"
        loop.turn()
    [(event_type, _)] = asker.reports
    assert event_type == 1


def test_an_object_that_was_damaged_since_it_was_asked_about_is_not_vouched_for(
    hub: tuple[Services, Door], port: int, tmp_path: Path
) -> None:
    services, door = hub
    asks(door, here(services))
    [path] = [one for one in (tmp_path / "hub" / "objects").rglob("*") if one.is_file() and one.stat().st_size > 500]
    path.chmod(0o600)
    body = bytearray(path.read_bytes())
    body[-1] ^= 1
    path.write_bytes(body)
    with library("KN_ASKS", port) as asker:
        worker(services).turn()
    [(event_type, report)] = asker.reports
    assert event_type == 2
    assert [one.FailureReason for one in report.FailedSOPSequence] == [PROCESSING_FAILURE]


@pytest.mark.parametrize(
    ("answer", "state"),
    [(0x0000, "sent"), (0x0107, "sent"), (0x0213, "pending"), (0x0110, "pending"), (0x0112, "dead"), (0x0211, "dead")],
)
def test_the_askers_status_decides_what_comes_next(
    hub: tuple[Services, Door], port: int, answer: int, state: str
) -> None:
    services, door = hub
    asks(door, ABSENT)
    with library("KN_ASKS", port, answer=answer):
        worker(services).turn()
    assert the_report(services).state == state


@pytest.mark.parametrize("peer_scp", [None, False])
def test_an_asker_that_takes_no_reports_is_a_dead_letter_that_says_why(
    hub: tuple[Services, Door], port: int, peer_scp: bool | None
) -> None:
    services, door = hub
    asks(door, ABSENT)
    with library("KN_ASKS", port, peer_scp=peer_scp) as asker:
        worker(services).turn()
    assert asker.reports == []
    assert the_report(services).state == "dead"
    assert SOP_CLASS in the_report(services).last_error


def test_one_refused_report_holds_up_no_other(hub: tuple[Services, Door], port: int) -> None:
    services, door = hub
    asks(door, ABSENT)
    with library("KN_ASKS", port, answer=0x0112):
        worker(services).turn()
    asks(door, ABSENT, transaction="1.2.9")
    with library("KN_ASKS", port) as asker:
        worker(services).turn()
    assert [one.TransactionUID for _, one in asker.reports] == ["1.2.9"]


def test_a_judgement_that_takes_long_is_sent_on_another_association(
    hub: tuple[Services, Door], port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    services, door = hub
    monkeypatch.setattr(commitment_sender, "PATIENCE_S", -1.0)
    asks(door, here(services))
    with library("KN_ASKS", port) as asker:
        worker(services).turn()
    assert len(asker.called) == 2
    assert [event_type for event_type, _ in asker.reports] == [1]
    assert the_report(services).state == "sent"


def test_a_report_of_many_thousand_instances_is_one(tmp_path: Path) -> None:
    uids = [f"1.2.{number}" for number in range(12_000)]
    reports = []

    def takes(partner: Acceptor) -> None:
        command, data = partner.message()
        reports.append(commitment.read(data, partner.contexts[1].transfer_syntax))
        partner.confirm(command)
        partner.released()

    with scripted(takes) as port, hub_door(tmp_path / "hub", ae("KN", "KN_ASKS", port)) as (services, door):
        asks(door, *uids)
        worker(services).turn()
        assert the_report(services).state == "sent"
    assert [len(one.failed) for one in reports] == [12_000]


def breaks_off(partner: Acceptor) -> None:
    partner.message()


def answers_another(partner: Acceptor) -> None:
    command, _ = partner.message()
    partner.confirm({**command, dimse.MESSAGE_ID: b"\x99\x99"})
    partner.read()


def sends_a_request(partner: Acceptor) -> None:
    partner.message()
    partner.send(dimse.pdu(1, {dimse.COMMAND_FIELD: dimse.N_GET_RQ, dimse.MESSAGE_ID: 1, dimse.COMMAND_DATA_SET_TYPE: 0x0101}))  # fmt: skip
    partner.read()


@pytest.mark.parametrize("script", [breaks_off, answers_another, sends_a_request])
def test_an_asker_that_breaks_off_after_it_was_reached_is_not_tried_for_ever(
    tmp_path: Path, clock: SetClock, script: Any
) -> None:
    with (
        scripted(*[script] * 5) as port,
        hub_door(tmp_path / "hub", ae("KN", "KN_ASKS", port), clock=clock, delivery_timeout_s=5) as (services, door),
    ):
        asks(door, ABSENT)
        loop = worker(services)
        for _ in range(5):
            loop.turn()
            clock.forward(services.settings.retry_longest_s + 1)
        assert the_report(services).state == "dead"


def test_an_asker_of_another_name_rejects_us_and_is_not_tried_for_ever(tmp_path: Path, clock: SetClock) -> None:
    with (
        library("OTHER") as asker,
        hub_door(tmp_path / "hub", ae("KN", "KN_ASKS", asker.port), clock=clock) as (services, door),
    ):
        asks(door, ABSENT)
        loop = worker(services)
        for _ in range(5):
            loop.turn()
            clock.forward(services.settings.retry_longest_s + 1)
        assert the_report(services).state == "dead"
        assert "rejected" in the_report(services).last_error
    assert asker.reports == []


def test_a_payload_that_is_no_transaction_is_a_dead_letter(hub: tuple[Services, Door]) -> None:
    services, _ = hub
    services.database.write(
        lambda tx: tx.outbox.enqueue(
            NewDelivery(destination="KN/dicom/KN_ASKS", lane="x", kind=KIND, payload=b"{}", owner="KN")
        )
    )
    worker(services).turn()
    assert the_report(services).state == "dead"


class WatchedLoop(DeliveryLoop):
    """The worker's loop, which tells when it has looked after its leases."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self.looked = threading.Condition()
        self.looks = 0

    def _renew(self) -> None:
        super()._renew()
        with self.looked:
            self.looks += 1
            self.looked.notify_all()

    def wait(self) -> None:
        """Return once a look began after this call has ended."""
        with self.looked:
            until = self.looks + 2
            assert self.looked.wait_for(lambda: self.looks >= until, timeout=30)


def test_however_long_a_judgement_takes_no_other_worker_reports_too(
    hub: tuple[Services, Door], port: int, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    services, door = hub
    asks(door, here(services))
    reading, go_on = threading.Event(), threading.Event()
    original = services.objects.verify

    def slow(digest: str) -> bool:
        reading.set()
        assert go_on.wait(30)
        return original(digest)

    monkeypatch.setattr(services.objects, "verify", slow)
    # Leases end by the clock of the database, and are renewed by that of the machine.
    monkeypatch.setattr(delivery, "time", SimpleNamespace(monotonic=lambda: clock().timestamp(), sleep=time.sleep))
    loop, stop = WatchedLoop(services), threading.Event()
    thread = threading.Thread(target=loop.run, args=(stop,))
    with library("KN_ASKS", port) as asker:
        thread.start()
        try:
            assert reading.wait(30)
            for _ in range(6):
                clock.forward(LEASE_S / 2)
                loop.wait()
                taken = services.database.write(
                    lambda tx: tx.outbox.lease("other", now=services.clock(), lease_s=LEASE_S, limit=10)
                )
                assert taken == []
        finally:
            go_on.set()
            stop.set()
            thread.join(30)
    assert len(asker.reports) == 1
    assert the_report(services).state == "sent"


def test_images_pass_a_report_that_their_destination_does_not_answer(tmp_path: Path) -> None:
    stalled, stored, go_on = threading.Event(), threading.Event(), threading.Event()

    def stalls() -> None:
        stalled.set()
        assert go_on.wait(30)

    stop = threading.Event()
    with library("KN_ASKS", on_report=stalls, on_store=stored.set) as asker:
        to = ae("KN", "KN_ASKS", asker.port)
        with hub_door(tmp_path / "hub", to, delivery_timeout_s=60) as (services, door):
            keep(services, make_ct(instance=1))
            asks(door, ABSENT)
            thread = threading.Thread(target=DeliveryLoop(services).run, args=(stop,))
            thread.start()
            try:
                assert stalled.wait(30)
                images_for(services, to, STUDY)
                assert stored.wait(30)
                assert the_report(services).state == "pending"
            finally:
                go_on.set()
                stop.set()
                thread.join(30)
            assert [one.state for one in (*deliveries(services, "dimse"), the_report(services))] == ["sent", "sent"]
    assert len(asker.reports) == 1
