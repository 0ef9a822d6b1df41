"""A member's own systems learn of complete studies, through the real worker, outbox and sockets (PS3.4 annex R)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from adapters.worker.delivery import DeliveryLoop
from hub import availability
from hub.availability import KIND
from hub.boot import Services
from hub.clock import utc_now
from hub.envelope import Envelope
from hub.performed_step import PerformedSteps
from hub.ports import Delivery, MemberEndpoint
from tests.support.dicom import CT_IMAGE_STORAGE, ROOT, ct_tags, make_ct
from tests.support.dimse import Door
from tests.support.dimse_commitment import Library, deliveries, library
from tests.support.dimse_hub import ae, free_port, hub_door, keep
from tests.support.hub import SetClock
from tests.support.images import KN, settle

STUDY = f"{ROOT}.1"
STEP = "1.2.826.0.1.99.7"


@pytest.fixture
def clock() -> SetClock:
    return SetClock(utc_now())


@pytest.fixture
def port() -> int:
    return free_port()


@contextmanager
def knowing(folder: Path, clock: SetClock, *endpoints: MemberEndpoint) -> Iterator[tuple[Services, Door]]:
    with hub_door(folder / "hub", *endpoints, clock=clock, delivery_timeout_s=5) as opened:
        yield opened


def wants(member: str, title: str, port: int) -> MemberEndpoint:
    return ae(member, title, port, availability=True)


def complete(services: Services, clock: SetClock) -> None:
    clock.forward(services.settings.study_quiet_s + 1)
    settle(services)


def work(services: Services) -> None:
    loop = DeliveryLoop(services, rng=lambda: 1.0)
    while loop.turn():
        pass


def the_notice(services: Services) -> Delivery:
    [one] = deliveries(services, KIND)
    return one


def told(notice: Dataset) -> dict[str, list[str]]:
    """Return the instances of each series that *notice* says can be fetched from the hub."""
    found: dict[str, list[str]] = {}
    for series in notice.ReferencedSeriesSequence:
        for one in series.ReferencedSOPSequence:
            assert (one.ReferencedSOPClassUID, one.InstanceAvailability) == (CT_IMAGE_STORAGE, "ONLINE")
            assert one.RetrieveAETitle == "YIXIE"
            found.setdefault(series.SeriesInstanceUID, []).append(one.ReferencedSOPInstanceUID)
    return found


def uid(tag: int, **choices: Any) -> str:
    return str(ct_tags(**choices)[tag][1])


def test_a_complete_study_is_told_to_its_own_institutions_systems(tmp_path: Path, clock: SetClock, port: int) -> None:
    other = free_port()
    with (
        library("KN_RIS", port) as ris,
        library("QH_RIS", other) as stranger,
        knowing(tmp_path, clock, wants("KN", "KN_RIS", port), wants("QH", "QH_RIS", other)) as (hub, _),
    ):
        keep(hub, make_ct(instance=1), make_ct(instance=2), make_ct(series=2, instance=3))
        work(hub)
        assert ris.notices == []
        complete(hub, clock)
        work(hub)
        [(_, notice)] = ris.notices
        assert stranger.notices == []
    assert notice.StudyInstanceUID == STUDY
    assert list(notice.ReferencedPerformedProcedureStepSequence) == []
    assert told(notice) == {
        uid(0x0020000E, instance=1): [uid(0x00080018, instance=1), uid(0x00080018, instance=2)],
        uid(0x0020000E, series=2, instance=3): [uid(0x00080018, series=2, instance=3)],
    }
    # Nothing of the patient and no further attribute goes with it (PS3.4 R.3.2.1.2).
    assert {one.keyword for one in notice} == {
        "ReferencedPerformedProcedureStepSequence",
        "StudyInstanceUID",
        "ReferencedSeriesSequence",
    }


def test_late_images_are_told_of_and_a_study_without_news_is_not(tmp_path: Path, clock: SetClock, port: int) -> None:
    with library("KN_RIS", port) as ris, knowing(tmp_path, clock, wants("KN", "KN_RIS", port)) as (hub, _):
        keep(hub, make_ct(instance=1))
        complete(hub, clock)
        work(hub)
        hub.imaging.association_ended(_envelope(hub), {STUDY})
        complete(hub, clock)
        work(hub)
        assert len(ris.notices) == 1
        keep(hub, make_ct(instance=2))
        complete(hub, clock)
        work(hub)
        assert [sum(map(len, told(one).values())) for _, one in ris.notices] == [1, 2]
        assert len({number for number, _ in ris.notices}) == 2


def _envelope(services: Services) -> Envelope:
    return Envelope(door="dimse", actor=KN, peer="127.0.0.1", received_at=services.clock())


def test_the_step_that_made_the_study_is_named(tmp_path: Path, clock: SetClock, port: int) -> None:
    with library("KN_RIS", port) as ris, knowing(tmp_path, clock, wants("KN", "KN_RIS", port)) as (hub, _):
        PerformedSteps(hub).create(_envelope(hub), STEP, step())
        keep(hub, make_ct(instance=1))
        clock.forward(hub.settings.step_wait_s + 1)
        settle(hub)
        work(hub)
        [(_, notice)] = ris.notices
    [named] = notice.ReferencedPerformedProcedureStepSequence
    assert (named.ReferencedSOPClassUID, named.ReferencedSOPInstanceUID) == ("1.2.840.10008.3.1.2.3.3", STEP)
    assert list(named.PerformedWorkitemCodeSequence) == []


def step() -> dict[str, Any]:
    scheduled = {"0020000D": {"vr": "UI", "Value": [STUDY]}}
    return {
        "00400252": {"vr": "CS", "Value": ["IN PROGRESS"]},
        "00400253": {"vr": "SH", "Value": ["S1"]},
        "00400241": {"vr": "AE", "Value": ["KN_CT"]},
        "00400244": {"vr": "DA", "Value": ["20250611"]},
        "00400245": {"vr": "TM", "Value": ["0930"]},
        "00080060": {"vr": "CS", "Value": ["CT"]},
        "00100020": {"vr": "LO", "Value": ["10086"]},
        "00400270": {"vr": "SQ", "Value": [scheduled]},
    }


def test_a_system_that_is_away_for_days_is_told_of_the_study_as_it_then_is(
    tmp_path: Path, clock: SetClock, port: int
) -> None:
    with knowing(tmp_path, clock, wants("KN", "KN_RIS", port)) as (hub, _):
        keep(hub, make_ct(instance=1))
        complete(hub, clock)
        for _ in range(40):
            work(hub)
            clock.forward(7200)
        assert the_notice(hub).state == "pending"
        keep(hub, make_ct(instance=2))
        with library("KN_RIS", port) as ris:
            work(hub)
            [(_, notice)] = ris.notices
        assert sum(map(len, told(notice).values())) == 2
        assert the_notice(hub).state == "sent"


def test_a_large_study_is_told_of_in_several_notices(
    tmp_path: Path, clock: SetClock, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(availability, "PAGE", 2)
    with library("KN_RIS", port) as ris, knowing(tmp_path, clock, wants("KN", "KN_RIS", port)) as (hub, _):
        keep(hub, *(make_ct(series=1 + number // 3, instance=number) for number in range(1, 6)))
        complete(hub, clock)
        work(hub)
        assert the_notice(hub).ack == b'{"status":"0000","instances":5}'
        assert len(ris.called) == 1
    assert [[len(one) for one in told(notice).values()] for _, notice in ris.notices] == [[2], [2], [1]]


@pytest.mark.parametrize(
    ("answer", "state"), [(0x0111, "sent"), (0x0116, "sent"), (0x0213, "pending"), (0x0122, "dead")]
)
def test_the_answer_decides_what_comes_next(
    tmp_path: Path, clock: SetClock, port: int, answer: int, state: str
) -> None:
    with library("KN_RIS", port, answer=answer), knowing(tmp_path, clock, wants("KN", "KN_RIS", port)) as (hub, _):
        keep(hub, make_ct(instance=1))
        complete(hub, clock)
        DeliveryLoop(hub, rng=lambda: 1.0).turn()
        assert the_notice(hub).state == state


def test_a_notice_that_is_tried_again_is_the_same_notice(tmp_path: Path, clock: SetClock, port: int) -> None:
    seen: list[Library] = []
    with knowing(tmp_path, clock, wants("KN", "KN_RIS", port)) as (hub, _):
        keep(hub, make_ct(instance=1))
        complete(hub, clock)
        for answer in (0x0213, 0x0000):
            with library("KN_RIS", port, answer=answer) as ris:
                work(hub)
                seen.append(ris)
            clock.forward(hub.settings.retry_longest_s + 1)
    [(first, _)], [(second, _)] = (one.notices for one in seen)
    assert first == second
