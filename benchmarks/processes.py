"""The programs under measurement: a hub as ``hub serve`` runs it, and Orthanc as Debian ships it; each ends only itself."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub.actor import Actor
from hub.boot import assemble
from hub.config import Settings

MEMBERS = Path(__file__).parent.parent / "sample_data" / "members" / "consortium.json"
BASE = "https://yixiehub.example/fhir"
#: A peer that does not answer in this time has failed.
START_S = 60.0
#: DCMTK (and Orthanc, which is built on it) loses 40 ms an object to delayed acknowledgements without it.
DCMTK_ENVIRONMENT = {"TCP_NODELAY": "1"}


def until(look: Callable[[], bool], *, what: str, deadline_s: float = START_S, every_s: float = 0.05) -> None:
    """Wait until *look* is true; raises TimeoutError naming *what*."""
    end = time.monotonic() + deadline_s
    while not look():
        if time.monotonic() > end:
            raise TimeoutError(f"did not happen in {deadline_s:.0f} s: {what}")
        time.sleep(every_s)


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Return whether somebody listens on *port* of loopback."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass(slots=True)
class Hub:
    """A hub that serves."""

    folder: Path
    settings: Settings
    process: subprocess.Popen[bytes]
    ports: dict[str, int]
    tokens: dict[str, str]

    def pids(self) -> dict[str, int]:
        """Return the processes of the hub by name, the supervisor among them."""
        path = self.settings.data_dir / "run" / f"processes-{self.process.pid}.json"
        running = json.loads(path.read_text("utf-8"))
        return {"supervisor": running["supervisor"], **running["children"]}


def member_resources(*, ack_stored: bool = False) -> list[dict[str, Any]]:
    """Return the sample consortium; with *ack_stored* KN's v2 feed is answered as soon as it is stored."""
    resources = [entry["resource"] for entry in json.loads(MEMBERS.read_text("utf-8"))["entry"]]
    for one in resources:
        if ack_stored and one["id"] == "kn-mllp":
            parts = [{"url": "name", "valueString": "ack"}, {"url": "value", "valueString": "stored"}]
            one["extension"].append({"url": f"{BASE}/StructureDefinition/endpoint-setting", "extension": parts})
    return resources


@contextlib.contextmanager
def hub(
    folder: Path,
    *,
    only: Sequence[str] = (),
    ack_stored: bool = False,
    prepare: Callable[[Any], None] | None = None,
    **changes: str,
) -> Iterator[Hub]:
    """Run a hub with its defaults (SQLite WAL FULL, files, default processes) on free ports until the block ends.

    Args:
        folder: where its data live; made when missing.
        only: doors to serve; all by default.
        ack_stored: answer KN's v2 feed when its messages are stored.
        prepare: called with the open services before the hub starts.
        changes: settings other than the defaults.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = Settings(data_dir=folder / "data")
    import importlib

    importlib.import_module("storage.sql.migrate").migrate(settings)
    services = assemble(settings, node="bench")
    tokens: dict[str, str] = {}
    try:
        services.directory.load(member_resources(ack_stored=ack_stored))
        for institution in ("KN", "YL"):
            actor = Actor(institution=institution, roles=frozenset({"system"}), client="bench")
            tokens[institution] = services.directory.issue_token(actor, ttl_s=3600)
        if prepare is not None:
            prepare(services)
    finally:
        services.close()
    with serving(folder, settings, tokens, only=only, **changes) as running:
        until(lambda: ready(running), what="the hub gets ready")
        yield running


@contextlib.contextmanager
def serving(
    folder: Path, settings: Settings, tokens: dict[str, str], *, only: Sequence[str] = (), **changes: str
) -> Iterator[Hub]:
    """Start a hub over what is in *folder* and yield it once its ports are bound; :func:`hub` says what the others mean."""
    data = settings.data_dir
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HUB_")}
    environment |= {
        "HUB_DATA_DIR": str(data),
        "HUB_HTTP_BIND": "127.0.0.1:0",
        "HUB_DIMSE_BIND": "127.0.0.1:0",
        "HUB_MLLP_BIND": "127.0.0.1:0",
        "HUB_LOG_LEVEL": "warning",
        **{f"HUB_{name.upper()}": value for name, value in changes.items()},
    }
    ports_file = data / "run" / "ports.json"
    ports_file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "hub", "serve", *(["--only", ",".join(only)] if only else [])]
    with (folder / "hub.log").open("ab") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        until(lambda: process.poll() is not None or ports_file.exists(), what="hub serve binds its ports")
        if process.poll() is not None:
            raise RuntimeError(
                f"hub serve ended with {process.returncode}:\n{(folder / 'hub.log').read_text()[-3000:]}"
            )
        addresses = json.loads(ports_file.read_text("utf-8"))
        ports = {door: int(ways["plain"].rpartition(":")[2]) for door, ways in addresses.items()}
        yield Hub(folder=folder, settings=settings, process=process, ports=ports, tokens=tokens)
    finally:
        end(process)


def ready(running: Hub) -> bool:
    """Return whether the doors of *running* serve: sockets listen from the start, so each is asked in its own words."""
    if running.process.poll() is not None:
        log = (running.folder / "hub.log").read_text()
        raise RuntimeError(f"hub serve ended with {running.process.returncode}:\n{log[-3000:]}")
    if "http" in running.ports and http_status(running.ports["http"], "/readyz") != 200:
        return False
    return "dimse" not in running.ports or echo(running.ports["dimse"])


def http_status(port: int, path: str) -> int:
    """Return the status of a GET, 0 when nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return int(error.code)
    except OSError:
        return 0


def echo(port: int) -> bool:
    """Return whether a C-ECHO to the hub succeeds."""
    command = ["echoscu", "-to", "5", "-ta", "10", "-aet", "KN_PACS", "-aec", "YIXIE", "127.0.0.1", str(port)]
    environment = {**os.environ, **DCMTK_ENVIRONMENT}
    return subprocess.run(command, check=False, env=environment, capture_output=True, timeout=30).returncode == 0


def end(process: subprocess.Popen[bytes], *, patience_s: float = 25.0) -> None:
    """Stop *process* as an operator does; what remains of its group is killed."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
    with contextlib.suppress(ProcessLookupError):
        # It was started as the leader of its own session, so nobody else is in the group.
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


# --- Orthanc ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Orthanc:
    """An Orthanc that serves."""

    process: subprocess.Popen[bytes]
    http_port: int
    dicom_port: int


def orthanc_version() -> str:
    """Return the version of the Orthanc that is installed, empty when there is none."""
    path = shutil.which("Orthanc")
    if path is None:
        return ""
    shown = subprocess.run([path, "--version"], check=False, capture_output=True, text=True, timeout=30).stdout
    found = re.search(r"Orthanc (\d\S*)", shown)
    return found.group(1) if found else ""


@contextlib.contextmanager
def orthanc(folder: Path) -> Iterator[Orthanc]:
    """Run Orthanc with Debian's defaults on free ports until the block ends.

    Its defaults are durable for the objects (``SyncStorageArea``: each file is flushed) and not quite for its SQLite
    index (WAL with ``synchronous=NORMAL``, so a power cut may lose the last commits); the hub flushes both. Beside the
    ports, the folder and the way past its password only the PDU length differs: 131072 in place of 16384, which helps it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    http_port, dicom_port = free_port(), free_port()
    configuration = {
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "HttpPort": http_port,
        "DicomPort": dicom_port,
        "AuthenticationEnabled": False,
        "RemoteAccessAllowed": False,
        "MaximumPduLength": 131072,
        "SyncStorageArea": True,
        "Plugins": ["/usr/share/orthanc/plugins/libOrthancDicomWeb.so"],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(configuration), "utf-8")
    with (folder / "orthanc.log").open("ab") as log:
        process = subprocess.Popen(
            ["Orthanc", str(path)],
            env={**os.environ, **DCMTK_ENVIRONMENT},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        until(
            lambda: process.poll() is not None or (answers(dicom_port) and http_status(http_port, "/system") == 200),
            what="Orthanc gets ready",
        )
        if process.poll() is not None:
            raise RuntimeError(f"Orthanc ended:\n{(folder / 'orthanc.log').read_text()[-3000:]}")
        yield Orthanc(process=process, http_port=http_port, dicom_port=dicom_port)
    finally:
        end(process)


# --- MessageFoundry ----------------------------------------------------------------------------------------------

#: Where ``scripts/bench_peers`` installs it, apart from the hub's own environment.
PEERS = Path(__file__).parent.parent / ".venv" / "peers"
_SCAFFOLDED_PORT = "port=2575"


def messagefoundry_version() -> str:
    """Return the version of the MessageFoundry that is installed for comparison, empty when there is none."""
    program = PEERS / "bin" / "messagefoundry"
    if not program.exists():
        return ""
    shown = subprocess.run([program, "--version"], check=False, capture_output=True, text=True, timeout=60).stdout
    found = re.search(r"(\d+\.\d\S*)", shown)
    return found.group(1) if found else ""


@contextlib.contextmanager
def messagefoundry(folder: Path) -> Iterator[int]:
    """Run MessageFoundry with the configuration that its own ``init`` makes, and yield its MLLP port until the block ends.

    That configuration answers a message once it is in its SQLite store, and writes the message to a file afterwards; it
    translates nothing. Only the ports differ, and the log level.
    """
    program = str(PEERS / "bin" / "messagefoundry")
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([program, "init", "peer"], cwd=folder, check=True, capture_output=True, timeout=120)
    mllp_port, api_port = free_port(), free_port()
    for path in (folder / "peer" / "config").glob("*.py"):
        text = path.read_text("utf-8")
        if _SCAFFOLDED_PORT not in text:
            raise RuntimeError(f"{path.name} does not name the port that is to be replaced")
        path.write_text(text.replace(_SCAFFOLDED_PORT, f"port={mllp_port}"), "utf-8")
    command = [program, "serve", "--config", "config", "--env", "dev", "--port", str(api_port), "--log-level", "ERROR"]
    with (folder / "peer.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder / "peer", stdout=log, stderr=log, start_new_session=True)
    try:
        until(lambda: process.poll() is not None or answers(mllp_port), what="MessageFoundry gets ready")
        if process.poll() is not None:
            raise RuntimeError(f"MessageFoundry ended:\n{(folder / 'peer.log').read_text()[-3000:]}")
        yield mllp_port
    finally:
        end(process)
