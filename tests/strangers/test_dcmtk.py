"""DCMTK's programs on a running hub: send, ask, move, get, and its own worklist server beside ours."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from tests.strangers.running import RunningHub
from tests.support.corpus import AS_STORED, corpus, dataset_of
from tests.support.dicom import EXPLICIT, JPEG_LOSSLESS, ROOT, fragments, make_ct
from tests.support.dimse_hub import program, run, storescp, taken

US = ("-aet", "KN_PACS", "-aec", "YIXIE")


def made(folder: Path, study: int, **choices: object) -> tuple[str, dict[str, bytes]]:
    """Write three slices of study *study*; return its UID and their data sets by SOP Instance UID."""
    folder.mkdir()
    files = {
        f"{ROOT}.{study}.1.{number}": make_ct(
            folder / f"{number}.dcm", study=study, instance=number, patient_id=f"P{study}", **choices
        )
        for number in (1, 2, 3)
    }
    return f"{ROOT}.{study}", {uid: dataset_of(file) for uid, file in files.items()}


def kept(kn: httpx.Client, study: str) -> dict[str, bytes]:
    """Return the data sets that the hub hands out of *study*, by SOP Instance UID."""
    found = {}
    for one in kn.get(f"/studies/{study}/instances").json():
        answer = kn.get(one["00081190"]["Value"][0], headers={"Accept": AS_STORED})
        assert answer.status_code == 200
        found[one["00080018"]["Value"][0]] = dataset_of(answer.content)
    return found


def succeeded(name: str, *arguments: object) -> str:
    """Run DCMTK's *name* and return what it said; it must have ended well."""
    done = run(name, *arguments)
    assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.mark.tool("echoscu", "termscu")
def test_echoscu_is_answered_and_termscu_stops_nothing(hub: RunningHub) -> None:
    port = hub.ports["dimse"]
    succeeded("echoscu", *US, "--propose-pc", 128, "--repeat", 3, "127.0.0.1", port)
    # termscu asks for a private SOP class that shuts its receivers down; the hub has no ears for it.
    run("termscu", *US, "127.0.0.1", port)
    succeeded("echoscu", *US, "127.0.0.1", port)


@pytest.mark.tool("storescu", "movescu", "getscu", "findscu")
@pytest.mark.parametrize(
    ("study", "syntax", "propose", "accept"),
    [(701, EXPLICIT, "-xe", "+xe"), (702, JPEG_LOSSLESS, "-xs", "+xs")],
    ids=["explicit", "jpeg-lossless"],
)
def test_what_storescu_sends_is_found_moved_and_got_byte_for_byte(
    hub: RunningHub, kn: httpx.Client, tmp_path: Path, study: int, syntax: str, propose: str, accept: str
) -> None:
    more = {0x7FE00010: ("OB", fragments(b"synthetic"))} if syntax == JPEG_LOSSLESS else {}
    uid, sent = made(tmp_path / "sent", study, size=32, transfer_syntax=syntax, more=dict(more))
    port = hub.ports["dimse"]
    succeeded("storescu", *US, propose, "+sd", "127.0.0.1", port, tmp_path / "sent")
    assert kept(kn, uid) == sent
    query = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={uid}"]
    said = succeeded("findscu", *US, "-S", *query, "-k", "PatientID", "-k", "PatientName", "127.0.0.1", port)
    assert f"[P{study}" in said
    assert len(re.findall(r"Find Response: ", said)) <= 1
    moved = tmp_path / "moved"
    moved.mkdir()
    with program(hub.their_port, "storescp", "--bit-preserving", accept, "-od", moved, hub.their_port):
        succeeded("movescu", *US, "-aem", "KN_PACS", "-S", *query, "127.0.0.1", port)
    assert taken(moved) == sorted(sent.values())
    (tmp_path / "got").mkdir()
    succeeded("getscu", *US, accept, "+B", "-S", *query, "-od", tmp_path / "got", "127.0.0.1", port)
    assert taken(tmp_path / "got") == sorted(sent.values())


@pytest.mark.tool("dcmsend", "storescp")
def test_dcmsend_leaves_at_the_hub_what_it_leaves_at_dcmtks_own_receiver(
    hub: RunningHub, kn: httpx.Client, tmp_path: Path
) -> None:
    """dcmsend writes data sets anew, so DCMTK's receiver says what it sent; each file has a UID of its own."""
    files = [one.path for one in corpus() if one.sendable and one.turn == 0 and "dicomdirtests/98892003" in one.name]
    assert len(files) == 17
    with storescp(tmp_path / "theirs") as port:
        succeeded("dcmsend", *US, "127.0.0.1", port, *files)
    expected = taken(tmp_path / "theirs")
    succeeded("dcmsend", *US, "127.0.0.1", hub.ports["dimse"], *files)
    study = {one["0020000D"]["Value"][0] for one in kn.get("/instances?PatientID=98890234").json()}
    assert sorted(data for uid in study for data in kept(kn, uid).values()) == expected
