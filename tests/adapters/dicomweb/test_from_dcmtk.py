"""From DCMTK's sender through the DIMSE door, the stores and the DICOMweb door: the bytes are the same at both ends."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import httpx
import pydicom
import pytest

from hub.boot import Services
from tests.support.dicom import EXPLICIT, JPEG_LOSSLESS, fragments, make_ct
from tests.support.dimse import FakeDirectory, FakeServices, running


def dcmtk(name: str) -> str:
    """Return DCMTK's tool; the DICOM library installs scripts of the same names beside Python."""
    ours = Path(sys.prefix, "bin")
    path = os.pathsep.join(one for one in os.environ.get("PATH", "").split(os.pathsep) if Path(one) != ours)
    found = shutil.which(name, path=path)
    assert found is not None
    return found


def data_set(part10: bytes) -> bytes:
    """Return what stands behind the File Meta Information, which each receiver writes anew (PS3.10 section 7.1)."""
    buffer = io.BytesIO(part10)
    pydicom.filereader.read_preamble(buffer, force=False)
    pydicom.filereader._read_file_meta_info(buffer)
    return buffer.read()


@pytest.mark.tool("dcmsend")
@pytest.mark.parametrize("transfer_syntax", [EXPLICIT, JPEG_LOSSLESS])
def test_what_dcmtk_sends_comes_back_byte_for_byte(
    http: httpx.Client, hub: Services, tmp_path: Path, transfer_syntax: str
) -> None:
    more = {0x7FE00010: ("OB", fragments(b"synthetic"))} if transfer_syntax == JPEG_LOSSLESS else {}
    folder = tmp_path / "sent"
    folder.mkdir()
    sent = {
        number: make_ct(
            folder / f"{number}.dcm", instance=number, size=32, transfer_syntax=transfer_syntax, more=dict(more)
        )
        for number in (1, 2, 3)
    }

    class Both(FakeDirectory):
        """Knows the AE title at one door and the tokens at the other."""

        actor_for = staticmethod(hub.directory.actor_for)

    hub.__dict__["directory"] = Both()
    with running(cast("FakeServices", hub)) as door:
        command = [dcmtk("dcmsend"), "-aet", "KN_PACS", "-aec", "YIXIE", "127.0.0.1", str(door.port), "+sd", folder]
        done = subprocess.run(
            command, env={**os.environ, "TCP_NODELAY": "1"}, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    (study,) = http.get("/studies?PatientID=10086").json()
    assert study["00201208"]["Value"] == [3]
    study_uid = study["0020000D"]["Value"][0]
    listed: list[dict[str, Any]] = http.get(f"/studies/{study_uid}/instances").json()
    for one in listed:
        series, instance, number = (one[tag]["Value"][0] for tag in ("0020000E", "00080018", "00200013"))
        accept = {"Accept": "application/dicom; transfer-syntax=*"}
        got = http.get(f"/studies/{study_uid}/series/{series}/instances/{instance}", headers=accept)
        assert got.headers["content-type"] == f"application/dicom; transfer-syntax={transfer_syntax}"
        assert data_set(got.content) == data_set(sent[number])
    assert len(listed) == 3
