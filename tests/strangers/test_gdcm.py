"""GDCM's gdcmscu on a running hub: echo, store and find.

Debian's gdcmscu 3.0.21 does its work, releases the association, and then falls over its own closed stream, whoever the peer is
(DCMTK's storescp too); so it is judged by what it did, and writes unbuffered. Its receiver for C-MOVE takes one transfer
syntax an association, from anybody; why that excludes it is shown at the end.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom import dcmread
from pynetdicom import AE, build_context, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelMove

from tests.strangers.running import RunningHub
from tests.support.corpus import AS_STORED, dataset_of
from tests.support.dicom import EXPLICIT, IMPLICIT, ROOT, make_ct
from tests.support.strangers import ran


def gdcmscu(hub: RunningHub, *arguments: object) -> str:
    """Run gdcmscu as KN_PACS and return what it said."""
    who = ["--aetitle", "KN_PACS", "--call", "YIXIE"]
    done = ran(["stdbuf", "-o0", "gdcmscu", *who, "-D", "127.0.0.1", str(hub.ports["dimse"]), *map(str, arguments)])
    said = done.stdout + done.stderr
    assert done.returncode == 0 or "ProtocolStream as nullptr is invalid" in done.stderr, said
    return said


def statuses(said: str) -> set[str]:
    """Return the statuses (0000,0900) that gdcmscu wrote down."""
    return set(re.findall(r"\(0000,0900\) \?\? \(US\) (\d+)", said))


@pytest.mark.tool("gdcmscu")
def test_gdcm_is_answered_to_its_echo(hub: RunningHub) -> None:
    said = gdcmscu(hub, "--echo")
    assert "(0000,0100) ?? (US) 32816" in said, "the C-ECHO-RSP"
    assert statuses(said) == {"0"}


@pytest.mark.tool("gdcmscu")
def test_what_gdcm_stores_it_finds(hub: RunningHub, kn: httpx.Client, tmp_path: Path) -> None:
    study = f"{ROOT}.711"
    for number in (1, 2):
        path = tmp_path / f"{number}.dcm"
        sent = make_ct(path, study=711, instance=number, patient_id="P711", size=32, transfer_syntax=IMPLICIT)
        gdcmscu(hub, "--store", path)
        back = kn.get(f"/studies/{study}/series/{study}.1/instances/{study}.1.{number}", headers={"Accept": AS_STORED})
        assert dataset_of(back.content) == dataset_of(sent)
    said = gdcmscu(hub, "--find", "--studyroot", "--study", "--key", f"20,d={study}", "--key", "10,20")
    # It says of an answer only the command: pending with a data set (FF00), and then success.
    assert statuses(said) == {"65280", "0"}
    nobody = gdcmscu(hub, "--find", "--studyroot", "--study", "--key", f"20,d={study}.9", "--key", "10,20")
    assert statuses(nobody) == {"0"}


def gdcm_moves(folder: Path, port: int, receiver: int) -> tuple[str, int]:
    """Let gdcmscu move a study from the archive at *port* to itself; return what it fell over, and how many files it wrote."""
    folder.mkdir()
    command = [
        "gdcmscu", "--aetitle", "KN_PACS", "--call", "YIXIE", "--move", "--studyroot", "--study",
        "--port-scp", str(receiver), "--key", f"20,d={ROOT}.712", "-o", str(folder), "127.0.0.1", str(port),
    ]  # fmt: skip
    done = ran(command)
    return done.stderr.strip().rpartition("\n")[2], len(list(folder.iterdir()))


@contextlib.contextmanager
def archive(file: Path, receiver: int, *syntaxes: list[str]) -> Iterator[int]:
    """Run pynetdicom's archive of one image, which proposes a context for each list of *syntaxes*; yield its port."""
    image = dcmread(file)

    def move(_event: evt.Event) -> Iterator[Any]:
        contexts = [build_context(image.SOPClassUID, one) for one in syntaxes]
        yield "127.0.0.1", receiver, {"contexts": contexts}
        yield 1
        yield 0xFF00, image

    ae = AE("YIXIE")
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelMove)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_MOVE, move)])
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()


@pytest.mark.tool("gdcmscu")
def test_gdcms_own_receiver_knows_one_transfer_syntax_whoever_sends(hub: RunningHub, tmp_path: Path) -> None:
    """It reads everything in the syntax of the last context that it took, so a second context of a class is its end.

    The hub proposes one context for each syntax in which it can send an image, as PS3.8 section 9.3.2.2 lets it; so does the
    archive here, which is not ours. Where this fails because GDCM has been mended, a C-MOVE from the hub is to be tried.
    """
    file = tmp_path / "one.dcm"
    make_ct(file, study=712, patient_id="P712", size=32, transfer_syntax=EXPLICIT)
    with archive(file, hub.their_port, [EXPLICIT]) as port:
        said, files = gdcm_moves(tmp_path / "one-context", port, hub.their_port)
        assert (said, files) == ("ProtocolStream as nullptr is invalid", 1)
    with archive(file, hub.their_port, [EXPLICIT], [IMPLICIT]) as port:
        theirs = gdcm_moves(tmp_path / "two-contexts", port, hub.their_port)
    assert theirs == ("Should not happen (imp)", 0)
