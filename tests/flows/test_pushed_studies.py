"""A study that arrived is pushed on by its hospital's rule to DCMTK, byte for byte, and to nobody who may not see it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flows.conftest import consortium
from tests.flows.hub_process import HubProcess, eventually
from tests.flows.test_remote_reading import ct_folder, storescu
from tests.support.dicom import ROOT, make_ct

pytestmark = pytest.mark.tool("storescu", "storescp")

BASE = "https://yixiehub.example/fhir"


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port: int = held.getsockname()[1]
        return port


@contextlib.contextmanager
def storescp(port: int, folder: Path) -> Iterator[Path]:
    """Run DCMTK's storescp on *port*, which keeps what it gets, bit for bit, in *folder*."""
    # The DICOM library installs a script of the same name beside Python.
    ours = Path(sys.prefix, "bin")
    path = os.pathsep.join(one for one in os.environ.get("PATH", "").split(os.pathsep) if Path(one) != ours)
    tool = shutil.which("storescp", path=path)
    assert tool is not None
    folder.mkdir()
    process = subprocess.Popen(
        [tool, "--bit-preserving", "-od", str(folder), str(port)], env={**os.environ, "TCP_NODELAY": "1"}
    )
    try:
        yield folder
    finally:
        process.terminate()
        process.wait(10)


def rule(name: str, to: str, **parts: str) -> dict[str, Any]:
    given = {"name": name, "to": to, **parts}
    return {
        "url": f"{BASE}/StructureDefinition/routing-rule",
        "extension": [{"url": part, "valueString": value} for part, value in given.items()],
    }


@pytest.fixture
def ports() -> dict[str, int]:
    return {"archive": free_port(), "qh": free_port()}


@pytest.fixture
def hub(tmp_path: Path, ports: dict[str, int]) -> Iterator[HubProcess]:
    """A hub in which KN sends its CTs to its own archive and, without leave, to QH."""
    resources = consortium(**{"QH/dicom": f"dicom://QH_PACS@127.0.0.1:{ports['qh']}"})
    for one in resources:
        if one["resourceType"] == "Organization" and one["id"] == "kn":
            wanted = [rule("存档", "KN/dicom/archive", modality="CT", source="KN_PACS"), rule("外院", "QH")]
            one["extension"] = [*one.get("extension", ()), *wanted]
    [pacs] = [one for one in resources if one["id"] == "kn-dicom"]
    archive = {
        **pacs,
        "id": "kn-archive",
        "identifier": [{**pacs["identifier"][0], "value": "KN/dicom/archive"}],
        "address": f"dicom://KN_ARCHIVE@127.0.0.1:{ports['archive']}",
    }
    one_hub = HubProcess(tmp_path, retry_first_s="0.2", retry_longest_s="0.5")
    one_hub.run("migrate")
    path = tmp_path / "members.json"
    entries = [{"resource": one} for one in [*resources, archive]]
    path.write_text(json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}), "utf-8")
    one_hub.run("members", "import", str(path))
    one_hub.start()
    yield one_hub
    one_hub.stop()


def deliveries(hub: HubProcess, destination: str) -> list[dict[str, Any]]:
    """Return the deliveries to *destination*, oldest first, as an operator lists them."""
    lines = hub.run("queue", "list", "--destination", destination, "--json").splitlines()
    return sorted((json.loads(line) for line in lines), key=lambda one: int(one["id"]))


def arrived(hub: HubProcess, folder: Path, study: int, count: int) -> None:
    """Send *count* images of *study*, of one patient, and wait until the study is queued for the archive."""
    storescu(hub, ct_folder(folder, study=study, count=count))
    eventually(
        lambda: [one for one in deliveries(hub, "KN/dicom/archive") if one["control_id"] == f"{ROOT}.{study}"],
        what="the study is queued",
    )


def datasets(folder: Path) -> list[bytes]:
    """Return the data sets of all files, in the order in which they were written."""
    paths = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    return [dataset_of(path.read_bytes()) for path in paths]


def dataset_of(data: bytes) -> bytes:
    """Return what is behind the File Meta Information, which is each receiver's own."""
    return data[144 + struct.unpack("<I", data[140:144])[0] :]


def sent(study: int, *instances: int) -> list[bytes]:
    return [dataset_of(make_ct(study=study, instance=number)) for number in instances]


def test_what_waited_for_the_archive_arrives_in_order_and_a_late_image_alone(
    hub: HubProcess, ports: dict[str, int], tmp_path: Path
) -> None:
    arrived(hub, tmp_path / "first", 1, 3)
    arrived(hub, tmp_path / "second", 2, 2)
    first, second = deliveries(hub, "KN/dicom/archive")
    assert (first["state"], second["state"]) == ("pending", "pending")
    eventually(
        lambda: "cannot be reached" in deliveries(hub, "KN/dicom/archive")[0]["last_error"],
        what="the hub has found nobody there",
    )

    with storescp(ports["archive"], tmp_path / "archive") as archive:
        eventually(lambda: len(datasets(archive)) == 5, what="both studies are at the archive")
        assert datasets(archive) == [*sent(1, 1, 2, 3), *sent(2, 1, 2)]

        make_ct(tmp_path / "first" / "0004.dcm", study=1, instance=4)
        for old in ("0001.dcm", "0002.dcm", "0003.dcm"):
            (tmp_path / "first" / old).unlink()
        storescu(hub, tmp_path / "first")
        eventually(lambda: len(datasets(archive)) == 6, what="the late image is there")
        eventually(
            lambda: {one["state"] for one in deliveries(hub, "KN/dicom/archive")} == {"sent"},
            what="all is acknowledged",
        )
    assert len(deliveries(hub, "KN/dicom/archive")) == 3
    # The late image is what was written last, and nothing came with it.
    assert datasets(archive)[-1:] == sent(1, 4)
    assert len(datasets(archive)) == 6


def test_a_hospital_without_a_grant_gets_nothing_and_the_operator_reads_why(
    hub: HubProcess, ports: dict[str, int], tmp_path: Path
) -> None:
    with storescp(ports["qh"], tmp_path / "qh") as qh, storescp(ports["archive"], tmp_path / "archive") as archive:
        arrived(hub, tmp_path / "ct", 1, 2)
        eventually(lambda: len(datasets(archive)) == 2, what="the rule for the own archive is followed")
        [one] = deliveries(hub, "QH/dicom")
        assert one["state"] == "skipped"
        assert "no open grant" in one["last_error"]
        assert f"{ROOT}.1" in hub.run("queue", "list", "--state", "skipped")
        # To order it by hand changes nothing: the door asks again.
        hub.run("queue", "replay", str(one["id"]))
        again = eventually(
            lambda: found if (found := deliveries(hub, "QH/dicom")[-1])["state"] == "skipped" else None,
            what="the replay is withheld too",
        )
        assert again["id"] != one["id"]
        assert datasets(qh) == []
