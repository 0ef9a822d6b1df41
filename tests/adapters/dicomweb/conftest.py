"""A DICOMweb door on a real socket, over real stores."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette

from adapters.dicomweb import routes
from hub.actor import Actor
from hub.boot import Services
from hub.ports import Member, MemberEndpoint
from tests.support.databases import migrate, opened
from tests.support.images import KN, QH, YL, FakeClock, services

ACTORS = {
    "kn": KN,
    "qh": QH,
    "yl": YL,
    "patient": Actor(institution="KN", roles=frozenset({"patient"}), patient="someone"),
    "operator": Actor(institution="YY", roles=frozenset({"operator"})),
}


class Tokens:
    """Knows a token for each actor of the tests, and the endpoints that a test gives it."""

    def __init__(self) -> None:
        self.known: list[MemberEndpoint] = []

    def member(self, code: str) -> Member | None:
        """Return the member *code*: none has settings of its own here."""
        return None

    def endpoints(self, member: str, kind: str) -> list[MemberEndpoint]:
        return [one for one in self.known if one.member == member and one.kind == kind]

    def endpoint(self, id: str) -> MemberEndpoint | None:
        """Return the endpoint called *id*."""
        return next((one for one in self.known if one.id == id), None)

    def dicom_member(self, ae_title: str, peer_ip: str) -> MemberEndpoint | None:
        """Return the endpoint with this AE title."""
        return next((one for one in self.known if one.ae_title == ae_title), None)

    def actor_for(self, token: str) -> Actor | None:
        """Return the actor whose token this is."""
        return ACTORS.get(token)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def port() -> Iterator[socket.socket]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield listening


@pytest.fixture
def hub(tmp_path: Path, clock: FakeClock, port: socket.socket) -> Iterator[Services]:
    url = f"sqlite:///{tmp_path / 'hub.db'}"
    migrate(url)
    with opened(url, clock=clock) as database:
        made = services(
            database,
            tmp_path,
            clock,
            public_url=f"http://127.0.0.1:{port.getsockname()[1]}",
            max_object_bytes=4 << 20,
            max_stow_bytes=8 << 20,
        )
        made.__dict__["directory"] = Tokens()
        yield made


@pytest.fixture
def door(hub: Services, port: socket.socket) -> Iterator[str]:
    """Serve the door; gives its base URL."""
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes(hub)), log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [port]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    yield f"{hub.settings.public()}/dicom-web"
    server.should_exit = True
    thread.join(timeout=10)


@pytest.fixture
def http(door: str) -> Iterator[httpx.Client]:
    """A client of KN's PACS."""
    with httpx.Client(base_url=door, headers={"Authorization": "Bearer kn"}, timeout=30) as client:
        yield client
