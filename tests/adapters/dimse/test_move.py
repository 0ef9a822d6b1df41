"""C-MOVE over real sockets, with DCMTK and the DICOM library on both other sides: what is sent, to whom, and what is told."""

from __future__ import annotations

import contextlib
import io
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pynetdicom.sop_class import _STORAGE_CLASSES

from adapters.dimse import command as dimse
from adapters.dimse.negotiation import Context
from adapters.dimse.upper_layer import ABORT
from adapters.pixels.part10 import swapped
from adapters.pixels.pool import Pool
from adapters.pixels.stored import StoredPixels
from adapters.pixels.syntaxes import JPEG_2000, JPEG_LS, RLE
from hub.boot import Services
from hub.config import Settings
from tests.support.dicom import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    JPEG_LOSSLESS,
    ROOT,
    ct_tags,
    encode,
    fragments,
    make_ct,
)
from tests.support.dimse import Door
from tests.support.dimse_hub import (
    MODELS,
    ae,
    audit_lines,
    dataset_of,
    free_port,
    grant,
    hub_door,
    keep,
    library_scp,
    run,
    storescp,
    taken,
)
from tests.support.dimse_peer import associated
from tests.support.dimse_retrieve import STUDY_MOVE, cancel, keys, move, move_request, next_answer

STUDY = f"{ROOT}.1"
PATIENT_MOVE = MODELS["patient", "move"]


def movescu(door: Door, *keys: str, to: str = "ARCHIVE", calling: str = "KN_PACS", model: str = "-S") -> Any:
    arguments = [part for key in keys for part in ("-k", key)]
    return run("movescu", "-d", model, "-aet", calling, "-aec", "YIXIE", "-aem", to, "127.0.0.1", door.port, *arguments)


@contextmanager
def scene(folder: Path, answer: Any = lambda _: 0, **choices: Any) -> Iterator[tuple[Services, Door, list[bytes]]]:
    """A hub whose member KN has an ARCHIVE that answers as told."""
    with library_scp(answer, **choices) as (port, received), hub_door(folder, ae("KN", "ARCHIVE", port)) as (hub, door):
        yield hub, door, received


def uid(instance: int, study: int = 1, series: int = 1) -> str:
    return f"{ROOT}.{study}.{series}.{instance}"


# --- what is sent


@pytest.mark.tool("movescu", "storescp")
@pytest.mark.parametrize(
    ("model", "level", "wanted"),
    [
        ("-P", ["0008,0052=PATIENT", "0010,0020=10086"], {1, 2, 3, 4}),
        ("-S", ["0008,0052=STUDY", f"0020,000D={STUDY}"], {1, 2, 3}),
        ("-S", ["0008,0052=STUDY", rf"0020,000D={STUDY}\{ROOT}.2"], {1, 2, 3, 4}),
        ("-S", ["0008,0052=SERIES", f"0020,000D={STUDY}", f"0020,000E={STUDY}.1"], {1, 2}),
        ("-S", ["0008,0052=IMAGE", f"0020,000D={STUDY}", rf"0008,0018={STUDY}.1.2\{STUDY}.2.3"], {2, 3}),
        ("-O", ["0008,0052=STUDY", "0010,0020=10086", f"0020,000D={ROOT}.2"], {4}),
    ],
)
def test_dcmtk_moves_each_level_byte_for_byte(tmp_path: Path, model: str, level: list[str], wanted: set[int]) -> None:
    objects = {
        1: make_ct(instance=1, size=300),
        2: make_ct(instance=2, transfer_syntax=IMPLICIT),
        3: make_ct(series=2, instance=3, transfer_syntax=BIG_ENDIAN),
        4: make_ct(study=2, instance=4, undefined=True),
    }
    with (
        storescp(tmp_path / "taken", "+xa") as port,
        hub_door(tmp_path / "hub", ae("KN", "ARCHIVE", port)) as (hub, door),
    ):
        keep(hub, *objects.values(), make_ct(study=3, patient_id="20001"))
        done = movescu(door, *level, model=model)
        assert done.returncode == 0, done.stderr
        assert taken(tmp_path / "taken") == sorted(dataset_of(objects[number]) for number in wanted)


def test_compressed_objects_go_out_as_they_are(tmp_path: Path) -> None:
    frames = {0x7FE00010: ("OB", fragments(b"synthetic" * 50_000))}
    compressed = make_ct(transfer_syntax=JPEG_LOSSLESS, more=frames)
    with scene(tmp_path) as (hub, door, received):
        keep(hub, compressed, make_ct(instance=2, transfer_syntax=DEFLATED))
        answers = move(door, "ARCHIVE", keys("STUDY", study=STUDY))
    assert answers[-1] == {"status": 0, "completed": 2, "failed": 0, "warning": 0, "comment": ""}
    assert received == [dataset_of(compressed), encode(ct_tags(instance=2), DEFLATED)]


@pytest.mark.parametrize(("stored", "taken_as"), [(EXPLICIT, IMPLICIT), (IMPLICIT, EXPLICIT), (DEFLATED, EXPLICIT)])
def test_a_native_object_is_written_anew_where_the_destination_does_not_take_it(
    tmp_path: Path, stored: str, taken_as: str
) -> None:
    with scene(tmp_path, syntaxes=[taken_as]) as (hub, door, received):
        keep(hub, make_ct(size=700, transfer_syntax=stored))
        answers = move(door, "ARCHIVE", keys("STUDY", study=STUDY))
    assert answers[-1]["status"] == 0
    (got,) = received
    # Deflated is Explicit VR inside; sequences that are written anew end with delimiters.
    assert got == encode(ct_tags(size=700), taken_as, undefined=stored != DEFLATED)


def test_what_the_destination_cannot_take_counts_as_failed_and_is_named(tmp_path: Path) -> None:
    frames = {0x7FE00010: ("OB", fragments(b"no image"))}
    with scene(tmp_path, syntaxes=[EXPLICIT]) as (hub, door, received):
        keep(hub, make_ct(instance=1), make_ct(instance=2, transfer_syntax=JPEG_LOSSLESS, more=frames))
        answers = move(door, "ARCHIVE", keys("STUDY", study=STUDY))
    assert len(received) == 1
    assert (answers[-1]["status"], answers[-1]["completed"], answers[-1]["failed"]) == (0xB000, 1, 1)
    assert answers[-1]["failed_uids"] == [uid(2)]
    assert answers[-1]["comment"]


@pytest.mark.parametrize("syntax", [JPEG_LS, JPEG_2000, RLE])
def test_compressed_images_are_decoded_for_a_destination_that_takes_none(tmp_path: Path, syntax: str) -> None:
    plain = make_ct(size=64)
    with (
        contextlib.closing(Pool.of(Settings())) as pool,
        StoredPixels(io.BytesIO(plain), max_frame_bytes=1 << 20) as pixels,
    ):
        compressed = b"".join(pixels.transcode(pool, syntax))
    with scene(tmp_path, syntaxes=[EXPLICIT]) as (hub, door, received):
        keep(hub, compressed)
        answers = move(door, "ARCHIVE", keys("STUDY", study=STUDY))
    assert answers[-1]["status"] == 0
    (got,) = received
    assert got[-64 * 64 * 2 :] == dataset_of(plain)[-64 * 64 * 2 :]
    assert pydicom.dcmread(io.BytesIO(got), force=True).PatientID == "10086"


def test_a_big_endian_object_is_turned_round_for_a_destination_that_wants_it(tmp_path: Path) -> None:
    with scene(tmp_path, syntaxes=[EXPLICIT]) as (hub, door, received):
        keep(hub, make_ct(size=64, transfer_syntax=BIG_ENDIAN))
        assert move(door, "ARCHIVE", keys("STUDY", study=STUDY))[-1]["status"] == 0
    (got,) = received
    # The maker of the test's objects leaves the pixels as they are, whatever the byte order.
    whole = pydicom.dcmread(io.BytesIO(make_ct(size=64)))
    whole.PixelData = swapped(whole.PixelData, 2)
    assert {one.tag: one.value for one in pydicom.dcmread(io.BytesIO(got), force=True)} == {
        one.tag: one.value for one in whole
    }


def test_more_contexts_than_one_association_has_take_several(tmp_path: Path) -> None:
    # Each is proposed as it is stored and in the other native syntax.
    classes = sorted(_STORAGE_CLASSES.values())[:70]
    with ExitStack() as stack:
        port, received = stack.enter_context(library_scp(lambda _: 0, *classes))
        hub, door = stack.enter_context(hub_door(tmp_path, ae("KN", "ARCHIVE", port)))
        keep(hub, *(make_ct(instance=number, sop_class=one) for number, one in enumerate(classes, 1)))
        answers = move(door, "ARCHIVE", keys("STUDY", study=STUDY))
    assert (answers[-1]["status"], answers[-1]["completed"], len(received)) == (0, 70, 70)


def test_each_store_names_the_move_that_it_belongs_to(tmp_path: Path) -> None:
    said: list[tuple[str, int]] = []

    def answer(event: Any) -> int:
        request = event.request
        said.append((str(request.MoveOriginatorApplicationEntityTitle).strip(), request.MoveOriginatorMessageID))
        return 0

    with scene(tmp_path, answer) as (hub, door, _):
        keep(hub, make_ct())
        move(door, "ARCHIVE", keys("STUDY", study=STUDY))
    assert said == [("KN_PACS", 9)]


# --- what is told


def test_a_destination_that_refuses_every_second_object_gives_a_warning_and_the_names(tmp_path: Path) -> None:
    with scene(tmp_path, lambda event: 0xC001 if int(event.request.AffectedSOPInstanceUID[-1]) % 2 else 0) as made:
        hub, door, received = made
        keep(hub, *(make_ct(instance=number) for number in range(1, 9)))
        answers = move(door, "ARCHIVE", keys("STUDY", study=STUDY))
    assert len(received) == 8
    assert (answers[0]["status"], answers[0]["remaining"], answers[0]["completed"]) == (0xFF00, 8, 0)
    last = answers[-1]
    assert (last["status"], last["completed"], last["failed"], last["warning"]) == (0xB000, 4, 4, 0)
    assert last["failed_uids"] == [uid(number) for number in (1, 3, 5, 7)]
    assert "remaining" not in last


def test_warnings_of_the_destination_are_counted_as_such(tmp_path: Path) -> None:
    with scene(tmp_path, lambda _: 0xB000) as (hub, door, _):
        keep(hub, make_ct())
        last = move(door, "ARCHIVE", keys("STUDY", study=STUDY))[-1]
    assert (last["status"], last["completed"], last["failed"], last["warning"]) == (0xB000, 0, 0, 1)


def test_a_full_destination_is_not_sent_everything(tmp_path: Path) -> None:
    with scene(tmp_path, lambda _: 0xA700) as (hub, door, received):
        keep(hub, *(make_ct(instance=number) for number in range(1, 31)))
        last = move(door, "ARCHIVE", keys("STUDY", study=STUDY))[-1]
    assert (last["status"], last["failed"]) == (0xA702, 30)
    assert len(received) == 10


def test_a_destination_that_is_down_fails_all_sub_operations(tmp_path: Path) -> None:
    with hub_door(tmp_path, ae("KN", "ARCHIVE", free_port())) as (hub, door):
        keep(hub, make_ct(instance=1), make_ct(instance=2))
        last = move(door, "ARCHIVE", keys("STUDY", study=STUDY))[-1]
    assert (last["status"], last["failed"], last["completed"]) == (0xA702, 2, 0)
    assert last["failed_uids"] == [uid(1), uid(2)]


def test_a_damaged_object_costs_itself_alone(tmp_path: Path) -> None:
    with scene(tmp_path) as (hub, door, received):
        keep(hub, *(make_ct(instance=number, size=400) for number in (1, 2, 3)))
        digest = hub.database.read(lambda tx: tx.imaging.current_digest("KN", uid(2)))
        path = tmp_path / "objects" / digest[:2] / digest
        path.chmod(0o600)
        data = bytearray(path.read_bytes())
        data[-10] ^= 1
        path.write_bytes(bytes(data))
        last = move(door, "ARCHIVE", keys("STUDY", study=STUDY))[-1]
    assert (last["status"], last["completed"], last["failed_uids"]) == (0xB000, 2, [uid(2)])
    assert received == [encode(ct_tags(instance=number, size=400)) for number in (1, 3)]


def test_nothing_found_is_success(tmp_path: Path) -> None:
    with scene(tmp_path) as (hub, door, received):
        answers = move(door, "ARCHIVE", keys("STUDY", study=STUDY))
        (line,) = audit_lines(hub, "C-MOVE")
    assert answers == [{"status": 0, "completed": 0, "failed": 0, "warning": 0, "comment": ""}]
    assert received == []
    assert STUDY in str(line)


@pytest.mark.parametrize(
    ("model", "asked", "comment"),
    [
        (STUDY_MOVE, keys("PATIENT", patient="10086"), "Query/Retrieve Level"),
        (STUDY_MOVE, {"0020000D": {"vr": "UI", "Value": [STUDY]}}, "Query/Retrieve Level"),
        (STUDY_MOVE, keys("STUDY"), "StudyInstanceUID"),
        (STUDY_MOVE, keys("STUDY", study="1.2.*"), "not a UID"),
        (STUDY_MOVE, keys("SERIES", series=f"{STUDY}.1"), "StudyInstanceUID"),
        (STUDY_MOVE, keys("IMAGE", study=STUDY), "SOPInstanceUID"),
        (PATIENT_MOVE, keys("PATIENT", patient=["1", "2"]), "single value"),
        (MODELS["patient-study", "move"], keys("IMAGE", study=STUDY, image=uid(1)), "Query/Retrieve Level"),
    ],
)
def test_an_identifier_that_does_not_fit_the_model_is_refused(
    tmp_path: Path, model: str, asked: dict[str, Any], comment: str
) -> None:
    with scene(tmp_path) as (hub, door, received):
        keep(hub, make_ct())
        (last,) = move(door, "ARCHIVE", asked, model=model)
    assert last["status"] == 0xA900
    assert comment in last["comment"]
    assert received == []


# --- who may


def test_another_institutions_study_is_as_if_absent_and_the_try_is_written_down(tmp_path: Path) -> None:
    with ExitStack() as stack:
        port, received = stack.enter_context(library_scp(lambda _: 0))
        hub, door = stack.enter_context(hub_door(tmp_path, ae("QH", "QH_ARCHIVE", port)))
        keep(hub, make_ct())
        last = move(door, "QH_ARCHIVE", keys("STUDY", study=STUDY), calling="QH_PACS")[-1]
        (line,) = audit_lines(hub, "C-MOVE")
    assert (last["status"], last["completed"], last["failed"]) == (0, 0, 0)
    assert received == []
    assert STUDY in str(line)
    assert "QH" in str(line)


def test_an_unknown_destination_and_one_that_may_not_see_the_study_are_answered_alike(tmp_path: Path) -> None:
    with ExitStack() as stack:
        port, received = stack.enter_context(library_scp(lambda _: 0))
        endpoints = [ae("YL", "YL_CENTER", port), ae("KN", "NOT_REACHED")]
        hub, door = stack.enter_context(hub_door(tmp_path, *endpoints))
        keep(hub, make_ct())
        refusals = [
            move(door, to, keys("STUDY", study=study))
            for to in ("NOBODY", "YL_CENTER", "NOT_REACHED", "")
            for study in (STUDY, f"{ROOT}.99")
        ]
        lines = audit_lines(hub, "C-MOVE")
    assert all(one == refusals[0] for one in refusals)
    assert refusals[0][0]["status"] == 0xA801
    assert received == []
    assert sum("destination refused" in str(line) for line in lines) == len(refusals)


def test_a_partner_gets_what_an_open_grant_lets_it_see_and_nothing_else(tmp_path: Path) -> None:
    with ExitStack() as stack:
        port, received = stack.enter_context(library_scp(lambda _: 0))
        hub, door = stack.enter_context(hub_door(tmp_path, ae("YL", "YL_CENTER", port)))
        keep(hub, make_ct(study=1), make_ct(study=2))
        grant(hub, "YL", STUDY)
        last = move(door, "YL_CENTER", keys("STUDY", study=[STUDY, f"{ROOT}.2"]))[-1]
    assert received == [encode(ct_tags(study=1))]
    assert (last["status"], last["completed"], last["failed_uids"]) == (0xB000, 1, [uid(1, study=2)])


def test_a_reader_moves_what_was_granted_to_its_own_archive(tmp_path: Path) -> None:
    with ExitStack() as stack:
        port, received = stack.enter_context(library_scp(lambda _: 0))
        hub, door = stack.enter_context(hub_door(tmp_path, ae("YL", "YL_CENTER", port)))
        keep(hub, make_ct(study=1), make_ct(study=2))
        grant(hub, "YL", STUDY)
        last = move(door, "YL_CENTER", keys("PATIENT", patient="10086"), model=PATIENT_MOVE, calling="YL_CENTER")[-1]
    assert (last["status"], last["completed"]) == (0, 1)
    assert received == [encode(ct_tags(study=1))]


def test_the_same_patient_id_at_two_institutions_is_two_patients(tmp_path: Path) -> None:
    def asked(**more: str) -> dict[str, Any]:
        return keys("PATIENT", patient="10086", **more)

    with ExitStack() as stack:
        port, received = stack.enter_context(library_scp(lambda _: 0))
        hub, door = stack.enter_context(hub_door(tmp_path, ae("YL", "YL_CENTER", port), ae("KN", "ARCHIVE", port)))
        keep(hub, make_ct(study=1), owner="KN")
        keep(hub, make_ct(study=2), owner="QH")
        grant(hub, "YL", STUDY)
        grant(hub, "YL", f"{ROOT}.2", owner="QH")
        grant(hub, "KN", f"{ROOT}.2", owner="QH")
        own = move(door, "ARCHIVE", asked(), model=PATIENT_MOVE)[-1]
        both = move(door, "YL_CENTER", asked(), model=PATIENT_MOVE, calling="YL_CENTER")[-1]
        one = move(door, "YL_CENTER", asked(issuer="QH"), model=PATIENT_MOVE, calling="YL_CENTER")[-1]
    assert (own["status"], own["completed"]) == (0, 1)
    assert both["status"] == 0xC000
    assert "several patients" in both["comment"]
    assert (one["status"], one["completed"]) == (0, 1)
    assert received == [encode(ct_tags(study=1)), encode(ct_tags(study=2))]


def test_an_ae_without_the_right_gets_no_context(tmp_path: Path) -> None:
    with (
        hub_door(tmp_path, ae("KN", "MODALITY", services="store echo")) as (_, door),
        associated(door.port, Context(STUDY_MOVE, EXPLICIT), calling_ae="MODALITY") as peer,
    ):
        assert peer.accepted == frozenset()


# --- in the middle


class Gate:
    """Holds a receiver at one instance until it is opened."""

    def __init__(self, at: int) -> None:
        self._at = at
        self._count = 0
        self.reached = threading.Event()
        self.open = threading.Event()

    def __call__(self, event: Any) -> int:
        self._count += 1
        if self._count == self._at:
            self.reached.set()
            assert self.open.wait(60)
        return 0


def test_a_cancel_stops_between_two_instances_and_tells_how_many_remain(tmp_path: Path) -> None:
    gate = Gate(3)
    with scene(tmp_path, gate) as (hub, door, received):
        keep(hub, *(make_ct(instance=number) for number in range(1, 11)))
        with associated(door.port, Context(STUDY_MOVE, EXPLICIT)) as peer:
            for pdu in move_request(STUDY_MOVE, "ARCHIVE", keys("STUDY", study=STUDY)):
                peer.send(pdu)
            assert gate.reached.wait(60)
            cancel(peer)
            gate.open.set()
            last = next_answer(peer)
            while last["status"] == 0xFF00:
                last = next_answer(peer)
            # The association is as good as before.
            for pdu in move_request(STUDY_MOVE, "ARCHIVE", keys("IMAGE", study=STUDY, image=uid(10))):
                peer.send(pdu)
            again = next_answer(peer)
            while again["status"] == 0xFF00:
                again = next_answer(peer)
    assert last["status"] == 0xFE00
    assert last["completed"] + last["remaining"] == 10
    assert last["remaining"] >= 6
    assert again["status"] == 0
    assert len(received) == last["completed"] + 1


def test_a_requestor_that_goes_ends_the_move(tmp_path: Path) -> None:
    gate = Gate(2)
    with scene(tmp_path, gate) as (hub, door, received):
        keep(hub, *(make_ct(instance=number) for number in range(1, 11)))
        with associated(door.port, Context(STUDY_MOVE, EXPLICIT)) as peer:
            for pdu in move_request(STUDY_MOVE, "ARCHIVE", keys("STUDY", study=STUDY)):
                peer.send(pdu)
            assert gate.reached.wait(60)
            peer.socket.close()
            gate.open.set()
            door.server._finish()
    assert len(received) < 10


def test_the_hub_stops_in_the_middle_of_a_move(tmp_path: Path) -> None:
    gate = Gate(2)
    with scene(tmp_path, gate) as (hub, door, received):
        keep(hub, *(make_ct(instance=number) for number in range(1, 11)))
        with associated(door.port, Context(STUDY_MOVE, EXPLICIT)) as peer:
            for pdu in move_request(STUDY_MOVE, "ARCHIVE", keys("STUDY", study=STUDY)):
                peer.send(pdu)
            assert gate.reached.wait(60)
            door.stop.set()
            # The receiver is never let go: the hub does not wait for it.
            last = next_answer(peer)
            while last["status"] == 0xFF00:
                last = next_answer(peer)
            assert peer.read()[0] == ABORT
        door.close()
        gate.open.set()
    assert (last["status"], last["completed"], last["failed"]) == (0xB000, 1, 9)
    assert "stopping" in last["comment"]
    assert len(received) == 2


def test_counts_stay_at_their_highest_value(tmp_path: Path) -> None:
    from adapters.dimse.retrieve import Progress
    from hub.retrieval import Selection

    said: list[dict[int, int]] = []

    class Exchange:
        def answer(self, message: Any, code: int, *, more: Any, **_: Any) -> None:
            said.append({**more, dimse.STATUS: code})

    class Message:
        context = Context(STUDY_MOVE, EXPLICIT)

    progress = Progress(Exchange(), Message(), Selection(items=(), withheld=["1.2"] * 70_000))  # type: ignore[arg-type]
    progress.tell(now=True)
    assert progress.finish() == 0xA702
    assert [one[dimse.FAILED_SUB_OPERATIONS] for one in said] == [65535, 65535]


@pytest.mark.tool("storescp")
def test_twelve_hundred_instances_leave_memory_flat(tmp_path: Path) -> None:
    with (
        storescp(tmp_path / "taken", "--ignore") as port,
        hub_door(tmp_path / "hub", ae("KN", "ARCHIVE", port)) as (hub, door),
    ):
        keep(hub, *(make_ct(instance=number, size=64) for number in range(1, 1201)))
        move(door, "ARCHIVE", keys("IMAGE", study=STUDY, image=uid(1)))
        tracemalloc.start()
        try:
            answers = move(door, "ARCHIVE", keys("STUDY", study=STUDY))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert (answers[-1]["status"], answers[-1]["completed"]) == (0, 1200)
    # One Pending goes out after twenty instances, and a few for the time.
    assert len(answers) < 200
    # The rows of 1,200 instances and one chunk of one object.
    assert peak < 8 << 20
