"""One running hub for all programs of other makers that a test process tries on it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.strangers.running import RunningHub, running_hub
from tests.support import corpus
from tests.support.dimse_hub import free_port
from tests.support.strangers import Node, consortium_at, ran

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """A running hub with the sample consortium and the institutions of the test files; KN_PACS listens, when it does, at ``their_port``."""
    port = free_port()
    one = running_hub(tmp_path_factory.mktemp("hub"), [*consortium_at(port), *corpus.members()])
    one.their_port = port
    yield one
    one.stop()


@pytest.fixture(scope="session")
def http(hub: RunningHub) -> Iterator[httpx.Client]:
    """A client of the DICOMweb door that is nobody yet."""
    with httpx.Client(base_url=hub.dicom_web, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def kn(hub: RunningHub) -> Iterator[httpx.Client]:
    """A client of KN's PACS at the DICOMweb door."""
    with httpx.Client(base_url=hub.dicom_web, timeout=60, headers=dict(hub.bearer("KN"))) as client:
        yield client


@pytest.fixture(scope="session")
def sent_by_dimse(hub: RunningHub) -> Mapping[str, corpus.Outcome]:
    """What C-STORE did with each of the library's test files."""
    return corpus.store_all(hub)


@pytest.fixture(scope="session")
def sent_by_web(hub: RunningHub, http: httpx.Client) -> Mapping[str, corpus.Outcome]:
    """What STOW-RS did with each of the library's test files."""
    return corpus.stow_all(hub, http)


@pytest.fixture(scope="session")
def packages(request: pytest.FixtureRequest) -> Path:
    """The folder of the npm packages, fetched once for each lock into pytest's cache; several test processes wait for the first.

    Without a network the tests that need it are skipped by name, and with CI=true that is a failure.
    """
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
