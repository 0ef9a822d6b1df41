"""C-GET over real sockets: instances come back on the asker's own association, in what it said it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydicom
import pynetdicom
import pytest
from pynetdicom import evt

from adapters.dimse.negotiation import Context, Proposal
from tests.support.dicom import (
    BIG_ENDIAN,
    CT_IMAGE_STORAGE,
    EXPLICIT,
    IMPLICIT,
    JPEG_LOSSLESS,
    ROOT,
    ct_tags,
    encode,
    fragments,
    make_ct,
)
from tests.support.dimse_hub import MODELS, ae, audit_lines, dataset_of, grant, hub_door, keep, run, taken
from tests.support.dimse_peer import AssociatedPeer, associated
from tests.support.dimse_retrieve import STUDY_GET, cancel, get, get_request, keys

STUDY = f"{ROOT}.1"
CT = Proposal(CT_IMAGE_STORAGE, (EXPLICIT,), as_scp=True)


def uid(instance: int) -> str:
    return f"{STUDY}.1.{instance}"


@pytest.mark.tool("getscu")
@pytest.mark.parametrize(("syntax", "prefer"), [(EXPLICIT, "+xe"), (BIG_ENDIAN, "+xb"), (JPEG_LOSSLESS, "+xs")])
def test_dcmtk_gets_a_study_byte_for_byte(tmp_path: Path, syntax: str, prefer: str) -> None:
    frames = {0x7FE00010: ("OB", fragments(b"synthetic"))} if syntax == JPEG_LOSSLESS else {}
    objects = [make_ct(instance=number, transfer_syntax=syntax, size=200, more=frames) for number in (1, 2, 3)]
    (tmp_path / "taken").mkdir()
    with hub_door(tmp_path / "hub") as (hub, door):
        keep(hub, *objects, make_ct(study=2))
        query = ["-k", "0008,0052=STUDY", "-k", f"0020,000D={STUDY}"]
        options = ["-S", prefer, "+B", "-od", tmp_path / "taken", "-aet", "KN_PACS", "-aec", "YIXIE", *query]
        done = run("getscu", "-d", *options, "127.0.0.1", door.port)
        (line,) = audit_lines(hub, "C-GET")
    assert done.returncode == 0, done.stderr
    assert taken(tmp_path / "taken") == sorted(dataset_of(one) for one in objects)
    assert STUDY in str(line)


def test_the_dicom_library_gets_a_study(tmp_path: Path) -> None:
    received: list[bytes] = []

    def store(event: Any) -> int:
        received.append(event.request.DataSet.getvalue())
        return 0

    entity = pynetdicom.AE("KN_PACS")
    entity.add_requested_context(STUDY_GET)
    entity.add_requested_context(CT_IMAGE_STORAGE, EXPLICIT)
    role = pynetdicom.build_role(CT_IMAGE_STORAGE, scp_role=True)
    query = pydicom.Dataset()
    query.QueryRetrieveLevel = "STUDY"
    query.StudyInstanceUID = STUDY
    with hub_door(tmp_path) as (hub, door):
        keep(hub, *(make_ct(instance=number) for number in (1, 2, 3)))
        association = entity.associate(
            "127.0.0.1", door.port, ae_title="YIXIE", ext_neg=[role], evt_handlers=[(evt.EVT_C_STORE, store)]
        )
        assert association.is_established
        last = list(association.send_c_get(query, STUDY_GET))[-1][0]
        association.release()
    assert (last.Status, last.NumberOfCompletedSuboperations) == (0, 3)
    assert received == [encode(ct_tags(instance=number)) for number in (1, 2, 3)]


def test_what_fits_no_accepted_context_counts_as_failed(tmp_path: Path) -> None:
    frames = {0x7FE00010: ("OB", fragments(b"no image"))}
    with hub_door(tmp_path) as (hub, door):
        keep(
            hub,
            make_ct(instance=1),
            make_ct(instance=2, transfer_syntax=JPEG_LOSSLESS, more=frames),
            make_ct(instance=3, sop_class="1.2.840.10008.5.1.4.1.1.4"),
            make_ct(instance=4, transfer_syntax=IMPLICIT),
        )
        answers, received = get(door, keys("STUDY", study=STUDY), CT)
    last = answers[-1]
    assert (last["status"], last["completed"], last["failed"]) == (0xB000, 2, 2)
    assert last["failed_uids"] == [uid(2), uid(3)]
    assert received == [encode(ct_tags(instance=1)), encode(ct_tags(instance=4), EXPLICIT, undefined=True)]


def test_a_context_without_the_role_of_scp_is_not_used(tmp_path: Path) -> None:
    with hub_door(tmp_path) as (hub, door):
        keep(hub, make_ct())
        answers, received = get(door, keys("STUDY", study=STUDY), Proposal(CT_IMAGE_STORAGE, (EXPLICIT,)))
    assert (answers[-1]["status"], answers[-1]["failed_uids"]) == (0xA702, [uid(1)])
    assert received == []


def test_what_the_peer_refuses_is_counted_and_named(tmp_path: Path) -> None:
    with hub_door(tmp_path) as (hub, door):
        keep(hub, *(make_ct(instance=number) for number in range(1, 7)))
        answers, _ = get(
            door,
            keys("SERIES", study=STUDY, series=f"{STUDY}.1"),
            CT,
            stored=lambda _, number: (0, 0xC000, 0xB007)[number % 3],
        )
    last = answers[-1]
    assert (last["status"], last["completed"], last["failed"], last["warning"]) == (0xB000, 2, 2, 2)
    assert last["failed_uids"] == [uid(1), uid(4)]


def test_a_cancel_between_sub_operations_is_heard(tmp_path: Path) -> None:
    def stored(peer: AssociatedPeer, number: int) -> int:
        if number == 3:
            cancel(peer)
        return 0

    with hub_door(tmp_path) as (hub, door):
        keep(hub, *(make_ct(instance=number) for number in range(1, 11)))
        answers, received = get(door, keys("STUDY", study=STUDY), CT, stored=stored)
    last = answers[-1]
    assert (last["status"], last["completed"], last["remaining"]) == (0xFE00, 3, 7)
    assert len(received) == 3


def test_nothing_found_is_success_and_another_institutions_study_is_not_found(tmp_path: Path) -> None:
    with hub_door(tmp_path, ae("YL", "YL_CENTER")) as (hub, door):
        keep(hub, make_ct())
        absent, _ = get(door, keys("STUDY", study=f"{ROOT}.9"), CT)
        foreign, received = get(door, keys("STUDY", study=STUDY), CT, calling="QH_PACS")
        assert received == []
        grant(hub, "YL", STUDY)
        granted, received = get(door, keys("STUDY", study=STUDY), CT, calling="YL_CENTER")
        assert len(audit_lines(hub, "C-GET")) == 3
    assert absent == foreign == [{"status": 0, "completed": 0, "failed": 0, "warning": 0, "comment": ""}]
    assert (granted[-1]["status"], len(received)) == (0, 1)


def test_without_the_right_to_get_no_role_of_scp_is_granted(tmp_path: Path) -> None:
    contexts = [Context(STUDY_GET, EXPLICIT), Proposal(CT_IMAGE_STORAGE, (EXPLICIT,), as_scp=True)]
    with (
        hub_door(tmp_path, ae("KN", "MODALITY", services="store echo")) as (_, door),
        associated(door.port, *contexts, calling_ae="MODALITY") as peer,
    ):
        assert peer.accepted == frozenset()


def test_a_peer_that_stops_reading_its_instances_is_let_go(tmp_path: Path) -> None:
    with hub_door(tmp_path, pdu_deadline_s=0.5, association_idle_s=0.5) as (hub, door):
        keep(hub, make_ct(size=1500))
        with associated(door.port, Context(MODELS["study", "get"], EXPLICIT), CT) as peer:
            for pdu in get_request(STUDY_GET, keys("STUDY", study=STUDY)):
                peer.send(pdu)
            peer.read()
            # The other side of the silence is the end of the connection, and of the thread that served it.
            while peer.read()[0]:
                pass


def test_a_damaged_object_ends_the_association_only_when_it_was_under_way(tmp_path: Path) -> None:
    with hub_door(tmp_path) as (hub, door):
        keep(hub, *(make_ct(instance=number) for number in (1, 2)))
        digest = hub.database.read(lambda tx: tx.imaging.current_digest("KN", uid(1)))
        hub.objects.delete(digest)
        answers, received = get(door, keys("STUDY", study=STUDY), CT)
    assert (answers[-1]["status"], answers[-1]["failed_uids"]) == (0xB000, [uid(1)])
    assert received == [encode(ct_tags(instance=2))]
