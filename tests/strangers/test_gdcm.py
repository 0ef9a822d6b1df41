"""GDCM's gdcmscu on a running hub: echo, store and find.

Debian's gdcmscu 3.0.21 does its work, releases the association, and then falls over its own closed stream, whoever the peer is
(DCMTK's storescp too); so it is judged by what it did, and writes unbuffered. Its receiver for C-MOVE falls over the first data set it gets, and is
not tried.
"""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from tests.strangers.running import RunningHub
from tests.support.corpus import AS_STORED, dataset_of
from tests.support.dicom import IMPLICIT, ROOT, make_ct
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
