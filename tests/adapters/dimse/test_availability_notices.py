"""A member's archive tells the hub what can be fetched from it, by the DICOM library's own client (PS3.4 annex R)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pynetdicom
import pytest
from pydicom.dataset import Dataset

from adapters.dimse import command as dimse
from adapters.dimse.negotiation import Context
from fhir_mappings.dicom import identifier
from fhir_mappings.json import loads
from hub.access import UNRESTRICTED, Scope
from hub.boot import Services
from hub.ports import StudyKey
from hub.search import parse
from tests.support.dicom import CT_IMAGE_STORAGE, ROOT, make_ct
from tests.support.dimse import Door
from tests.support.dimse_hub import ae, audit_lines, hub_door, keep
from tests.support.dimse_peer import answer, associated, data_pdus

SOP_CLASS = "1.2.840.10008.5.1.4.33"
STUDY, NOTICE = f"{ROOT}.1", "1.2.826.0.1.77.1"
INSTANCES = tuple(f"{STUDY}.1.{number}" for number in (1, 2, 3))


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[Services, Door]]:
    with hub_door(tmp_path / "hub", ae("KN", "KN_OTHER", services="echo store")) as opened:
        yield opened


def notice(*availabilities: str, study: str = STUDY, title: str = "KN_PACS") -> Dataset:
    """Return a notice of the first instances of a study, one for each of *availabilities*."""
    made, series = Dataset(), Dataset()
    made.StudyInstanceUID, made.ReferencedPerformedProcedureStepSequence = study, []
    series.SeriesInstanceUID, series.ReferencedSOPSequence = f"{study}.1", []
    for uid, availability in zip(INSTANCES, availabilities, strict=False):
        one = Dataset()
        one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = CT_IMAGE_STORAGE, uid
        one.InstanceAvailability, one.RetrieveAETitle = availability, title
        series.ReferencedSOPSequence.append(one)
    made.ReferencedSeriesSequence = [series]
    return made


def study_alone() -> Dataset:
    made = Dataset()
    made.StudyInstanceUID = STUDY
    return made


@contextlib.contextmanager
def client(door: Door, title: str = "KN_PACS") -> Iterator[Any]:
    entity = pynetdicom.AE(title)
    entity.add_requested_context(SOP_CLASS)
    association = entity.associate("127.0.0.1", door.port, ae_title="YIXIE")
    assert association.is_established
    try:
        yield association
    finally:
        association.release()


def told(door: Door, content: Dataset, uid: str = NOTICE, title: str = "KN_PACS") -> int:
    with client(door, title) as association:
        found, _ = association.send_n_create(content, SOP_CLASS, uid)
        return int(found.Status)


def notes(hub: Services, scope: Scope = UNRESTRICTED) -> list[dict[str, Any]]:
    found = hub.database.read(lambda tx: tx.records.search(parse("Basic", []), scope))
    return [loads(one.body) for one in found.matches]


def said(note: dict[str, Any]) -> dict[str, Any]:
    [extension] = note["extension"]
    parts = {one["url"]: next(value for name, value in one.items() if name != "url") for one in extension["extension"]}
    del parts["received"]
    return parts


def journal(hub: Services) -> list[Any]:
    return list(hub.database.read(lambda tx: tx.journal.search({"control_id": NOTICE}, limit=10)))


def test_a_notice_is_kept_and_tells_what_is_where_and_what_is_here(hub: tuple[Services, Door]) -> None:
    services, door = hub
    keep(services, make_ct(instance=1), make_ct(instance=9))
    assert told(door, notice("ONLINE", "NEARLINE", "NEARLINE")) == 0

    [note] = notes(services, Scope(institution="KN"))
    assert said(note) == {"instances": 3, "here": 1, "online": 1, "nearline": 2, "retrieve-ae": "KN_PACS"}
    study = services.database.read(lambda tx: tx.imaging.study(StudyKey(owner="KN", StudyInstanceUID=STUDY)))
    assert study is not None
    assert note["subject"] == {"reference": f"ImagingStudy/{study['resource_id']}"}
    assert note["identifier"][0]["value"] == f"urn:oid:{STUDY}"
    assert notes(services, Scope(institution="QH")) == []
    [entry] = journal(services)
    assert (entry.institution, entry.sending_application) == ("KN", "KN_PACS")
    [line] = audit_lines(services, "IAN N-CREATE")
    assert STUDY in str(line)


def test_a_study_that_is_not_here_is_told_of_too(hub: tuple[Services, Door]) -> None:
    services, door = hub
    assert told(door, notice("OFFLINE")) == 0

    [note] = notes(services)
    assert said(note) == {"instances": 1, "here": 0, "offline": 1, "retrieve-ae": "KN_PACS"}
    assert "subject" not in note


def test_the_same_notice_again_changes_nothing_and_another_one_needs_another_uid(hub: tuple[Services, Door]) -> None:
    services, door = hub
    assert [told(door, notice("ONLINE")), told(door, notice("ONLINE"))] == [0, 0]
    assert told(door, notice("UNAVAILABLE")) == 0x0111
    assert len(journal(services)) == 1
    assert [said(one)["online"] for one in notes(services)] == [1]
    # Two institutions may use one UID.
    assert told(door, notice("ONLINE"), title="QH_PACS") == 0
    assert len(notes(services)) == 2


@pytest.mark.parametrize(
    "broken",
    [
        notice(),
        notice("SOMEWHERE"),
        notice("ONLINE", title=""),
        notice("ONLINE", study=""),
        study_alone(),
    ],
)
def test_what_lacks_what_the_standard_demands_is_refused(hub: tuple[Services, Door], broken: Dataset) -> None:
    services, door = hub
    assert told(door, broken) == 0x0106
    assert (notes(services), journal(services)) == ([], [])


def test_an_ae_without_the_right_cannot_tell(hub: tuple[Services, Door]) -> None:
    _, door = hub
    entity = pynetdicom.AE("KN_OTHER")
    entity.add_requested_context(SOP_CLASS)
    association = entity.associate("127.0.0.1", door.port, ae_title="YIXIE")
    assert association.accepted_contexts == []


def test_a_long_notice_is_taken_and_broken_ones_harm_nothing(hub: tuple[Services, Door]) -> None:
    services, door = hub
    item = {
        "00080054": {"vr": "AE", "Value": ["KN_PACS"]},
        "00080056": {"vr": "CS", "Value": ["ONLINE"]},
        "00081150": {"vr": "UI", "Value": [CT_IMAGE_STORAGE]},
    }
    many = [{**item, "00081155": {"vr": "UI", "Value": [f"{STUDY}.1.{number}"]}} for number in range(6000)]
    series = {"0020000E": {"vr": "UI", "Value": [f"{STUDY}.1"]}, "00081199": {"vr": "SQ", "Value": many}}
    content = {"00081115": {"vr": "SQ", "Value": [series]}, "0020000D": {"vr": "UI", "Value": [STUDY]}}
    with associated(door.port, Context(SOP_CLASS, identifier.IMPLICIT)) as peer:
        for data, expected in (
            (b"\xff" * 40, 0x0106),
            (identifier.write(content, identifier.IMPLICIT), 0),
            (identifier.write(content, identifier.IMPLICIT), 0),
        ):
            # Without a UID, which the hub then chooses.
            peer.send(
                dimse.pdu(
                    1,
                    {
                        dimse.AFFECTED_SOP_CLASS_UID: SOP_CLASS,
                        dimse.COMMAND_FIELD: dimse.N_CREATE_RQ,
                        dimse.MESSAGE_ID: 3,
                        dimse.COMMAND_DATA_SET_TYPE: dimse.DATA_SET,
                    },
                )
            )
            for pdu in data_pdus(data, context_id=1):
                peer.send(pdu)
            assert answer(peer)[0] == expected
    assert [said(one)["instances"] for one in notes(services)] == [6000]
