"""Clients in JavaScript on a running hub: the npm packages dicomweb-client, which OHIF asks with, and dcmjs-dimse.

The packages are fetched by npm, locked by their sums, into pytest's cache; without a network the tests are skipped by name, and
with CI=true that is a failure.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest

from tests.strangers.running import RunningHub
from tests.support.dicom import ROOT, make_ct
from tests.support.strangers import ran

HERE = Path(__file__).parent
Node = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def packages(request: pytest.FixtureRequest) -> Path:
    """The folder of the packages, installed once for each lock; several test processes wait for the first."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        # The tests name both as their tools, so it is known already whether that is a skip or a failure.
        pytest.skip("needs node and npm")
    lock = (HERE / "package-lock.json").read_bytes()
    cache = getattr(request.config, "cache", None)
    assert cache is not None
    folder = Path(cache.mkdir("strangers")) / hashlib.sha256(lock).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        whole = folder / ".whole"
        if not whole.exists():
            for name in ("package.json", "package-lock.json"):
                shutil.copyfile(HERE / name, folder / name)
            done = ran(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder)
            if done.returncode != 0:
                said = f"npm could not fetch the packages of tests/strangers: {done.stderr[-500:]}"
                if os.environ.get("CI") == "true":
                    pytest.fail(said)
                pytest.skip(said)
            whole.touch()
    return folder / "node_modules"


@pytest.fixture
def node(packages: Path) -> Node:
    """Return what runs a script of this folder and returns the JSON in the last line that it printed."""

    def run(script: str, *arguments: object, stdin: Path | None = None) -> dict[str, Any]:
        command = ["node", str(HERE / "js" / script), *map(str, arguments)]
        environment = {**os.environ, "NODE_PATH": str(packages)}
        with (stdin or Path(os.devnull)).open("rb") as source:
            done = ran(command, env=environment, stdin=source)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        printed: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return printed

    return run


@pytest.mark.tool("node", "npm")
def test_the_client_that_ohif_asks_with_stores_finds_and_retrieves(hub: RunningHub, node: Node, tmp_path: Path) -> None:
    study, path = f"{ROOT}.731", tmp_path / "sent.dcm"
    sent = make_ct(path, study=731, patient_id="P731", size=64)
    said = node("web.js", hub.dicom_web, hub.token("KN"), study, stdin=path)
    pixels = pydicom.dcmread(io.BytesIO(sent)).PixelData
    assert (said["count"], said["name"], said["missing"]) == (1, "郑伟", 404)
    assert base64.b64decode(said["frame"]) == pixels
    assert base64.b64decode(said["bulk"]) == pixels
    assert base64.b64decode(said["whole"]) == sent
    assert [base64.b64decode(one) for one in said["all"]] == [sent]
    assert base64.b64decode(said["rendered"]).startswith(b"\xff\xd8")


@pytest.mark.tool("node", "npm")
def test_dcmjs_dimse_echoes_stores_finds_moves_and_gets(hub: RunningHub, node: Node, tmp_path: Path) -> None:
    study, path = f"{ROOT}.732", tmp_path / "sent.dcm"
    make_ct(path, study=732, patient_id="P732", size=64)
    said = node("dimse.js", hub.ports["dimse"], path, study, hub.their_port)
    instance = f"{study}.1.1"
    assert [one["status"] for one in said["echo"]] == [0]
    assert [one["status"] for one in said["store"]] == [0]
    assert [one["status"] for one in said["find"]] == [0xFF00, 0]
    assert said["find"][0]["data"]["PatientID"] == "P732"
    assert said["move"][-1]["status"] == said["get"][-1]["status"] == 0
    assert said["move"][-1]["completed"] == said["get"][-1]["completed"] == 1
    assert said["received"] == {"moved": [instance], "got": [instance]}
