"""A hub that packs its images while it is idle: what a PACS sent is what everybody gets, byte for byte, in less room."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require_tool
from tests.flows.conftest import consortium
from tests.flows.hub_process import Asker, HubProcess, eventually
from tests.flows.test_remote_reading import storescu
from tests.support.part10 import Part10

IMAGES = 3
STUDY = "2.25.1"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    """A running hub that packs the images of KN as soon as nobody needs it."""
    one = HubProcess(tmp_path, recompression_idle_s="0.5", recompression_keep_s="0")
    one.run("migrate")
    resources = consortium()
    [kn] = (found for found in resources if json.dumps(found.get("identifier", [])).find('/member", "value": "KN"') > 0)
    parts = [
        {"url": "name", "valueString": "recompression"},
        {"url": "value", "valueString": "transfer-syntax=jpeg-ls modalities=CT after-days=0"},
    ]
    url = "https://yixiehub.example/fhir/StructureDefinition/member-setting"
    kn.setdefault("extension", []).append({"url": url, "extension": parts})
    path = tmp_path / "members.json"
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": found} for found in resources]}
    path.write_text(json.dumps(bundle, ensure_ascii=False), "utf-8")
    one.run("members", "import", str(path))
    one.start()
    yield one
    one.stop()


def as_stored(kn: Asker, instance: str) -> bytes:
    accept = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
    answer = kn.request("GET", f"/dicom-web/studies/{STUDY}/series/{STUDY}.1/instances/{instance}", headers=accept)
    assert answer.status_code == 200
    return answer.content.partition(b"\r\n\r\n")[2].rpartition(b"\r\n--")[0]


def frame(kn: Asker, instance: str, number: int) -> bytes:
    accept = {"Accept": 'multipart/related; type="application/octet-stream"; transfer-syntax=1.2.840.10008.1.2.1'}
    address = f"/dicom-web/studies/{STUDY}/series/{STUDY}.1/instances/{instance}/frames/{number}"
    answer = kn.request("GET", address, headers=accept)
    assert answer.status_code == 200
    return answer.content.partition(b"\r\n\r\n")[2].rpartition(b"\r\n--")[0]


def dataset(path: Path) -> bytes:
    """Return what follows the File Meta Information, which each end of an association writes anew."""
    data = path.read_bytes()
    return data[144 + int.from_bytes(data[140:144], "little") :]


def got(hub: HubProcess, folder: Path) -> list[bytes]:
    """Return the data sets that DCMTK gets of the study by C-GET, as they came over the wire."""
    folder.mkdir()
    keys = ["-k", "0008,0052=STUDY", "-k", f"0020,000D={STUDY}"]
    command = [require_tool("getscu"), "-S", "+xe", "+B", "-od", folder, "-aet", "KN_PACS", "-aec", "YIXIE", *keys]
    done = subprocess.run(
        [*map(str, command), "127.0.0.1", str(hub.ports["dimse"])],
        env={"TCP_NODELAY": "1", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return sorted(dataset(path) for path in folder.iterdir())


@pytest.mark.tool("storescu", "getscu")
def test_what_was_sent_comes_back_byte_for_byte_from_less_room(hub: HubProcess, tmp_path: Path) -> None:
    folder = tmp_path / "sent"
    folder.mkdir()
    images = [
        Part10(rows=256, columns=256, frames=2, signed=True, content="ramp", private_after=b"odd", instance=number)
        for number in range(1, IMAGES + 1)
    ]
    for number, one in enumerate(images):
        (folder / f"{number}.dcm").write_bytes(one.data())
    kn = hub.asker("KN")
    storescu(hub, folder)
    uids = [f"{STUDY}.1.{one.instance}.{one.seed}" for one in images]
    stored = {uid: as_stored(kn, uid) for uid in uids}
    before = got(hub, tmp_path / "before")
    eventually(lambda: "object_packed" in hub.log(), what="an image is packed")
    hub.kill()
    hub.start()

    def settled() -> bool:
        said = re.search(
            r"recompression *ok  (\d+) objects packed, (\d+) of (\d+) bytes saved; 0 with", hub.run("check")
        )
        return said is not None and int(said[1]) == IMAGES and int(said[2]) > int(said[3]) / 2

    eventually(settled, what="all images are packed and their originals gone", deadline_s=90)
    assert {uid: as_stored(kn, uid) for uid in uids} == stored
    assert got(hub, tmp_path / "after") == before == sorted(dataset(path) for path in folder.iterdir())
    size = 256 * 256 * 2
    for uid, one in zip(uids, images, strict=True):
        assert frame(kn, uid, 2) == one.pixels()[size:]
    assert "hub_packed_bytes_saved_total" in kn.request("GET", "/metrics").text
    hub.run("fsck")
    hub.run("backup", str(tmp_path / "copy"))
    hub.stop()
    (tmp_path / "elsewhere").mkdir()
    again = HubProcess(tmp_path / "elsewhere")
    again.run("restore", str(tmp_path / "copy"))
    again.run("fsck")
    again.start()
    try:
        other = again.asker("KN")
        assert {uid: as_stored(other, uid) for uid in uids} == stored
    finally:
        again.stop()
