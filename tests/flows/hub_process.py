"""A whole hub as an operator runs it: ``hub serve`` in processes of its own, on free ports, in a folder of its own.

``HUB_BIN`` names the command under test, so the same stories run against the checkout and against an installed wheel.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx

T = TypeVar("T")

#: Longest wait for something that must happen; only a failing test ever waits this long.
DEADLINE_S = 40.0


def hub_command() -> list[str]:
    """Return the command under test."""
    chosen = os.environ.get("HUB_BIN")
    return shlex.split(chosen) if chosen else [sys.executable, "-m", "hub"]


def eventually(look: Callable[[], T | None], *, what: str, deadline_s: float = DEADLINE_S) -> T:
    """Return the first value of *look* that is neither ``None`` nor false; fails after the deadline, naming *what*."""
    end = time.monotonic() + deadline_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"did not happen in {deadline_s:.0f} s: {what}")
        time.sleep(0.05)


class HubProcess:
    """A running hub and what is needed to talk to it."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("HUB_", "COV_"))},
            "HUB_DATA_DIR": str(self.data_dir),
            "HUB_HTTP_BIND": "127.0.0.1:0",
            "HUB_DIMSE_BIND": "127.0.0.1:0",
            "HUB_MLLP_BIND": "127.0.0.1:0",
            "HUB_HTTP_PROCESSES": "1",
            "HUB_DIMSE_PROCESSES": "1",
            "HUB_STUDY_QUIET_S": "0.5",
            "HUB_WORKER_POLL_S": "0.05",
            **{f"HUB_{name.upper()}": value for name, value in settings.items()},
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.ports: Mapping[str, int] = {}
        self._tokens: dict[tuple[str, str, str], str] = {}
        self._client = httpx.Client(timeout=30)
        self._askers: list[Asker] = []

    # --- life ------------------------------------------------------------------------------------------------

    def run(self, *arguments: str, input: bytes | None = None, check: bool = True) -> str:
        """Run one ``hub`` command to its end and return its output."""
        done = subprocess.run(
            [*hub_command(), *arguments],
            env=self.environment,
            cwd=self.folder,
            input=input,
            capture_output=True,
            timeout=120,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"hub {' '.join(arguments)} exited {done.returncode}: {done.stderr.decode()[-3000:]}")
        return done.stdout.decode()

    def start(self) -> HubProcess:
        """Start serving and wait until every door answers."""
        log = (self.folder / "hub.log").open("ab")
        run = self.data_dir / "run" / "ports.json"
        run.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [*hub_command(), "serve"],
            env=self.environment,
            cwd=self.folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()

        def ready() -> bool:
            assert self.process is not None
            if self.process.poll() is not None:
                raise AssertionError(f"hub serve ended with {self.process.returncode}:\n{self.log()[-4000:]}")
            if not run.exists():
                return False
            try:
                addresses = json.loads(run.read_text())
                self.ports = {door: int(ways["plain"].rpartition(":")[2]) for door, ways in addresses.items()}
                return self._client.get(f"{self.http}/readyz").status_code == 200
            except (httpx.HTTPError, ValueError, KeyError):
                return False

        eventually(ready, what="hub serve gets ready")
        return self

    def stop(self) -> None:
        """Stop as an operator does (SIGTERM); kill what remains of its process group."""
        for client in (self._client, *(one.client for one in self._askers)):
            client.close()
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"the hub did not stop in 30 s:\n{self.log()[-4000:]}") from None
        self.process = None

    def kill(self) -> None:
        """End every process of this hub at once, as a power cut does."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def log(self) -> str:
        """Return what the hub has logged."""
        return (self.folder / "hub.log").read_text(errors="replace")

    # --- talking ---------------------------------------------------------------------------------------------

    @property
    def http(self) -> str:
        """Base URL of the HTTP door."""
        return f"http://127.0.0.1:{self.ports['http']}"

    def token(self, institution: str, practitioner: str = "", role: str = "") -> str:
        """Return a bearer token from ``hub token``."""
        key = (institution, practitioner, role)
        if key not in self._tokens:
            arguments = ["token", "--institution", institution]
            arguments += ["--practitioner", practitioner] if practitioner else []
            arguments += ["--role", role] if role else []
            self._tokens[key] = self.run(*arguments).strip()
        return self._tokens[key]

    def asker(self, institution: str, practitioner: str = "", role: str = "") -> Asker:
        """Return somebody who talks to the HTTP door."""
        one = Asker(self, self.token(institution, practitioner, role))
        self._askers.append(one)
        return one


class Asker:
    """One authenticated client of the HTTP door."""

    def __init__(self, hub: HubProcess, token: str) -> None:
        self.hub = hub
        self.headers = {"Authorization": f"Bearer {token}"}
        self.client = httpx.Client(timeout=90, headers=self.headers)

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Send one request; *path* starts with a slash."""
        return self.client.request(method, f"{self.hub.http}{path}", **more)

    def get(self, path: str, *, status: int = 200, **more: Any) -> Any:
        """GET and return the JSON body; fails on another status."""
        response = self.request("GET", path, **more)
        assert response.status_code == status, f"GET {path} -> {response.status_code}: {response.text[:2000]}"
        return response.json() if response.content else None

    def post(self, path: str, body: Any, *, status: int = 201, **more: Any) -> Any:
        """POST FHIR JSON and return the JSON body; fails on another status."""
        response = self._send("POST", path, body, **more)
        assert response.status_code == status, f"POST {path} -> {response.status_code}: {response.text[:2000]}"
        return response.json() if response.content else None

    def put(self, path: str, body: Any, *, status: int = 200, **more: Any) -> Any:
        """PUT FHIR JSON and return the JSON body; fails on another status."""
        response = self._send("PUT", path, body, **more)
        assert response.status_code == status, f"PUT {path} -> {response.status_code}: {response.text[:2000]}"
        return response.json() if response.content else None

    def _send(self, method: str, path: str, body: Any, **more: Any) -> httpx.Response:
        headers = {"Content-Type": "application/fhir+json", **more.pop("headers", {})}
        content = json.dumps(body, ensure_ascii=False).encode()
        return self.request(method, path, content=content, headers=headers, **more)

    def search(self, path: str) -> list[dict[str, Any]]:
        """Return the matches of a search."""
        return [
            entry["resource"]
            for entry in self.get(path).get("entry", [])
            if entry.get("search", {}).get("mode", "match") == "match"
        ]

    def move(self, task_id: str, event: str, *, status: int = 200, **parameters: Any) -> Any:
        """Send one workflow event by ``$transition``."""
        entries: list[dict[str, Any]] = [{"name": "event", "valueCode": event}]
        for name, value in parameters.items():
            if name in {"output", "input"}:
                entries.append({"name": name, "valueReference": {"reference": value}})
            elif name == "reason":
                entries.append(
                    {"name": name, "valueCodeableConcept": value if isinstance(value, dict) else {"text": value}}
                )
            elif name == "assignee":
                entries.append({"name": name, "valueReference": {"reference": value}})
            elif name == "expected_at":
                entries.append({"name": "expectedAt", "valueDateTime": value})
            else:
                entries.append({"name": name, "valueString": value})
        return self.post(
            f"/fhir/Task/{task_id}/$transition", {"resourceType": "Parameters", "parameter": entries}, status=status
        )
