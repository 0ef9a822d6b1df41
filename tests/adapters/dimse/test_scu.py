"""Pulling from archives that are programs of their own: DCMTK's, the DICOM library's, the hub's, and some that lie."""

from __future__ import annotations

import contextlib
import io
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pynetdicom
import pytest
from pynetdicom import evt

from adapters.dimse import scu
from adapters.dimse.scu import DimseArchive, open_archive
from hub.actor import HUB
from hub.boot import Services
from hub.errors import Category, HubError
from hub.ports import MemberEndpoint, StudyKey
from hub.priors import Priors, Rule
from tests.support.dicom import CT_IMAGE_STORAGE, EXPLICIT, IMPLICIT, ROOT, ct_tags, encode, make_ct
from tests.support.dimse import Door
from tests.support.dimse_hub import (
    ae,
    audit_lines,
    dataset_of,
    free_port,
    hub_door,
    keep,
    library_scp,
    program,
    run,
)

STUDY = f"{ROOT}.1"
ANY_AGE = Rule(years=0)


def held(hub: Services, study: str = STUDY, owner: str = "KN") -> list[bytes]:
    """Return the data sets that the hub holds of a study, in the order of their numbers."""
    rows = hub.database.read(lambda tx: tx.imaging.instances_of(StudyKey(owner=owner, StudyInstanceUID=study)))
    return [dataset_of(hub.objects.read(row.digest)) for row in rows]


@contextlib.contextmanager
def dcmqrscp(folder: Path, *files: Path) -> Iterator[tuple[Services, Door, MemberEndpoint]]:
    """A hub, and DCMTK's archive as KN_ARCHIVE with *files* in it; each knows the other."""
    port = free_port()
    archive = ae("KN", "KN_ARCHIVE", port)
    database = folder / "archive"
    database.mkdir()
    with hub_door(folder / "hub", archive) as (hub, door):
        config = folder / "dcmqrscp.cfg"
        config.write_text(
            f"""NetworkTCPPort = {port}
MaxPDUSize = 16384
MaxAssociations = 16
HostTable BEGIN
hub = (YIXIE, 127.0.0.1, {door.port})
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
KN_ARCHIVE {database} RW (200, 1024mb) ANY
AETable END
"""
        )
        with program(port, "dcmqrscp", "-c", config):
            if files:
                done = run("storescu", "-aec", "KN_ARCHIVE", "127.0.0.1", port, *files)
                assert done.returncode == 0, done.stderr
            yield hub, door, archive


def files(folder: Path, *objects: bytes) -> list[Path]:
    paths = []
    for number, one in enumerate(objects):
        path = folder / f"{number}.dcm"
        path.write_bytes(one)
        paths.append(path)
    return paths


@pytest.mark.tool("dcmqrscp", "storescu")
@pytest.mark.parametrize("via", ["get", "move"])
def test_priors_come_from_dcmtks_archive_and_only_once(tmp_path: Path, via: str) -> None:
    objects = [make_ct(instance=1), make_ct(instance=2, size=300), make_ct(series=2, instance=3)]
    other = [make_ct(study=2, patient_id="20001"), make_ct(study=3)]
    rule = Rule(years=0, via=via)
    with dcmqrscp(tmp_path, *files(tmp_path, *objects, *other)) as (hub, _, archive):
        priors = Priors(hub, open_archive)
        first = priors.pull(HUB, "KN", "10086", rule=rule)
        again = priors.pull(HUB, "KN", "10086", rule=rule)
        assert held(hub) == [
            encode(ct_tags(series=1 + (n == 3), instance=n, size=300 if n == 2 else 16)) for n in (1, 2, 3)
        ]
        assert held(hub, f"{ROOT}.2") == []
        lines = audit_lines(hub, "priors")
    assert {one.StudyInstanceUID: (one.present, one.fetched, one.missing) for one in first} == {
        STUDY: (0, 3, 0),
        f"{ROOT}.3": (0, 1, 0),
    }
    assert [(one.fetched, one.missing, one.why) for one in again] == [(0, 0, "")] * 2
    assert {one.present for one in again} == {3, 1}
    assert len(lines) == 2
    assert archive.id in str(lines[0])


@pytest.mark.tool("dcmqrscp", "storescu")
@pytest.mark.parametrize("via", ["get", "move"])
def test_only_what_is_missing_is_fetched(tmp_path: Path, via: str) -> None:
    objects = [make_ct(instance=1), make_ct(instance=2), make_ct(series=2, instance=3)]
    with dcmqrscp(tmp_path, *files(tmp_path, *objects)) as (hub, _, _archive):
        keep(hub, objects[0])
        (one,) = Priors(hub, open_archive).pull(HUB, "KN", "10086", rule=Rule(years=0, via=via))
        arrived = hub.database.read(
            lambda tx: [entry for entry in tx.journal.search({}, limit=100) if entry.message_type == "C-STORE"]
        )
    assert (one.present, one.fetched, one.missing) == (1, 2, 0)
    assert len(arrived) == 3


def test_the_hub_pulls_from_a_hub(tmp_path: Path) -> None:
    with hub_door(tmp_path / "archive", ae("YY", "YIXIE"), ae_title="KN_ARCHIVE") as (there, archive_door):
        keep(there, *(make_ct(instance=number, transfer_syntax=IMPLICIT) for number in (1, 2)), owner="YY")
        with hub_door(tmp_path / "hub", ae("KN", "KN_ARCHIVE", archive_door.port)) as (hub, _):
            (one,) = Priors(hub, open_archive).pull(HUB, "KN", "10086", rule=ANY_AGE)
            assert (one.fetched, one.missing, one.why) == (2, 0, "")
            assert len(held(hub)) == 2


# --- an archive's word


@contextlib.contextmanager
def library_archive(handler: Any, event: Any = evt.EVT_C_GET) -> Iterator[int]:
    """An archive made of the DICOM library that answers one service by *handler*."""
    entity = pynetdicom.AE("KN_ARCHIVE")
    for uid in (scu.FIND, scu.MOVE, scu.GET):
        entity.add_supported_context(uid)
    entity.add_supported_context(CT_IMAGE_STORAGE, EXPLICIT, scu_role=True, scp_role=True)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(event, handler)])
    assert server is not None
    try:
        yield server.socket.getsockname()[1]
    finally:
        server.shutdown()


def dataset(number: int) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(make_ct(instance=number)))


@contextlib.contextmanager
def pulling(
    folder: Path, handler: Any, event: Any = evt.EVT_C_GET, **settings: Any
) -> Iterator[tuple[Services, DimseArchive]]:
    with library_archive(handler, event) as port:
        point = ae("KN", "KN_ARCHIVE", port)
        with hub_door(folder, point, **settings) as (hub, _):
            yield hub, open_archive(hub, point)


def test_a_get_that_failed_says_so(tmp_path: Path) -> None:
    def handler(event: Any) -> Any:
        yield 2
        yield 0xFF00, dataset(1)
        yield 0xA702, pydicom.Dataset()

    with pulling(tmp_path, handler) as (hub, archive):
        outcome = archive.get("STUDY", {"StudyInstanceUID": STUDY}, [CT_IMAGE_STORAGE])
        assert len(held(hub)) == 1
    assert not outcome.complete
    assert (outcome.status, outcome.completed) == (0xA702, 1)
    assert outcome.failed >= 1


def test_an_instance_that_the_hub_refuses_is_a_failure_whatever_the_archive_says(tmp_path: Path) -> None:
    def handler(event: Any) -> Any:
        yield 2
        yield 0xFF00, dataset(1)
        bad = dataset(2)
        del bad.StudyInstanceUID
        yield 0xFF00, bad

    with pulling(tmp_path, handler) as (hub, archive):
        outcome = archive.get("STUDY", {"StudyInstanceUID": STUDY}, [CT_IMAGE_STORAGE])
        assert len(held(hub)) == 1
    assert not outcome.complete


def test_a_move_that_failed_says_so(tmp_path: Path) -> None:
    def handler(event: Any) -> Any:
        yield None, None

    with pulling(tmp_path, handler, evt.EVT_C_MOVE) as (_, archive):
        assert archive.move("STUDY", {"StudyInstanceUID": STUDY}).status == 0xA801


def test_a_query_that_fails_is_no_empty_answer(tmp_path: Path) -> None:
    def handler(event: Any) -> Any:
        yield 0xA700, None

    with pulling(tmp_path, handler, evt.EVT_C_FIND) as (_, archive), pytest.raises(HubError) as failed:
        archive.find("STUDY", {"PatientID": "10086"}, ["StudyInstanceUID"])
    assert failed.value.category is Category.UNAVAILABLE
    assert "A700" in failed.value.message


def test_an_archive_that_answers_without_end_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scu, "MAX_ANSWERS", 5)

    def handler(event: Any) -> Any:
        match = pydicom.Dataset()
        match.StudyInstanceUID = STUDY
        while not event.is_cancelled:
            yield 0xFF00, match

    with pulling(tmp_path, handler, evt.EVT_C_FIND) as (_, archive), pytest.raises(HubError) as failed:
        archive.find("STUDY", {"PatientID": "10086"}, ["StudyInstanceUID"])
    assert failed.value.category is Category.UNSUPPORTED


def test_another_patients_study_is_not_taken_from_an_archive_that_ignores_keys(tmp_path: Path) -> None:
    asked: list[Any] = []

    def handler(event: Any) -> Any:
        asked.append(event.identifier)
        match = pydicom.Dataset()
        match.StudyInstanceUID, match.PatientID, match.StudyDate = STUDY, "20001", "20250611"
        yield 0xFF00, match

    with pulling(tmp_path, handler, evt.EVT_C_FIND) as (hub, _):
        assert Priors(hub, open_archive).pull(HUB, "KN", "10086", rule=ANY_AGE) == []
    assert [(one.QueryRetrieveLevel, one.PatientID) for one in asked] == [("STUDY", "10086")]


def test_an_archive_that_does_not_offer_the_service_or_rejects_us_is_named(tmp_path: Path) -> None:
    with library_scp(lambda _: 0) as (port, _):
        point = ae("KN", "KN_ARCHIVE", port)
        with hub_door(tmp_path, point) as (hub, _):
            with pytest.raises(HubError) as failed:
                open_archive(hub, point).find("STUDY", {"PatientID": "1"}, ["StudyInstanceUID"])
            assert failed.value.category is Category.UNSUPPORTED
            nobody = ae("KN", "KN_ARCHIVE", free_port())
            with pytest.raises(HubError) as failed:
                open_archive(hub, nobody).find("STUDY", {"PatientID": "1"}, ["StudyInstanceUID"])
            assert failed.value.category is Category.UNAVAILABLE


def test_an_archive_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        point = ae("KN", "KN_ARCHIVE", silent.getsockname()[1])
        with (
            hub_door(tmp_path, point, association_idle_s=0.3, pdu_deadline_s=0.3) as (hub, _),
            pytest.raises(HubError) as failed,
        ):
            open_archive(hub, point).move("STUDY", {"StudyInstanceUID": STUDY})
    assert failed.value.category is Category.UNAVAILABLE
