"""A DIMSE door on a free port with a core that only remembers, and raw peers that break the rules."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self, cast

from adapters.dimse import negotiation
from adapters.dimse import server as server_module
from adapters.dimse.negotiation import Context
from adapters.dimse.server import DimseServer
from fhir_mappings.dicom.instance import InstanceHeader
from hub.boot import Services
from hub.certificates import Line
from hub.clock import utc_now
from hub.config import Settings
from hub.envelope import Envelope
from hub.ports import Member, MemberEndpoint, ObjectStore, Spool
from storage.objects.memory import MemoryStore

# The tests start and stop hundreds of doors.
server_module._POLL_S = 0.02

KN_PACS = MemberEndpoint(id="KN/dicom", member="KN", kind="dicom", ae_title="KN_PACS")


class FakeDirectory:
    """Knows KN_PACS and, when told, others."""

    def __init__(self) -> None:
        self.endpoints = {"KN_PACS": KN_PACS}
        self.members: dict[str, Member] = {}

    def member(self, code: str) -> Member | None:
        return self.members.get(code)

    def dicom_member(self, ae_title: str, peer_ip: str) -> MemberEndpoint | None:
        return self.endpoints.get(ae_title)

    def all_endpoints(self) -> list[MemberEndpoint]:
        return list(self.endpoints.values())


@dataclass
class FakeImaging:
    """Remembers what was received; *trouble* may raise instead."""

    objects: ObjectStore
    received: list[tuple[Envelope, str, InstanceHeader]] = field(default_factory=list)
    ended: list[tuple[Envelope, set[str]]] = field(default_factory=list)
    trouble: Callable[[InstanceHeader], None] | None = None
    changed: threading.Condition = field(default_factory=threading.Condition)

    def receive(self, envelope: Envelope, spool: Spool, header: InstanceHeader) -> str:
        if self.trouble is not None:
            self.trouble(header)
        ref = self.objects.put(spool)
        with self.changed:
            known = any(digest == ref.digest for _, digest, _ in self.received)
            self.received.append((envelope, ref.digest, header))
            self.changed.notify_all()
        return "duplicate" if known else "new"

    def association_ended(self, envelope: Envelope, studies: set[str]) -> None:
        with self.changed:
            self.ended.append((envelope, set(studies)))
            self.changed.notify_all()


@dataclass
class FakeNotes:
    """Keeps what peers showed, by endpoint."""

    noted: list[tuple[str, Line]] = field(default_factory=list)

    def note(self, endpoint: str, line: Line) -> None:
        """Keep *line*."""
        self.noted.append((endpoint, line))


@dataclass
class FakeServices:
    """What the door uses of :class:`hub.boot.Services`."""

    settings: Settings
    objects: ObjectStore = field(default_factory=MemoryStore)
    directory: FakeDirectory = field(default_factory=FakeDirectory)
    clock: Callable[[], datetime] = utc_now
    imaging: FakeImaging = field(init=False)
    presented_certificates: FakeNotes = field(default_factory=FakeNotes)

    def __post_init__(self) -> None:
        self.imaging = FakeImaging(self.objects)


@dataclass
class Door:
    """A running door."""

    services: FakeServices
    server: DimseServer
    port: int
    stop: threading.Event
    thread: threading.Thread
    fatal: list[BaseException]

    @property
    def imaging(self) -> FakeImaging:
        return self.services.imaging

    def wait(self, condition: Callable[[], bool], *, within_s: float = 10.0) -> None:
        """Wait until *condition* holds."""
        deadline = time.monotonic() + within_s
        with self.imaging.changed:
            while not condition():
                left_s = deadline - time.monotonic()
                assert left_s > 0, "what the test waits for did not happen"
                self.imaging.changed.wait(min(left_s, 0.02))

    def quiet(self) -> None:
        """Wait until no connection is left."""
        self.wait(lambda: not self.server._threads)

    def close(self) -> None:
        self.stop.set()
        self.thread.join(30)
        assert not self.thread.is_alive()


@contextlib.contextmanager
def running(services: FakeServices, *, tls: Any = None, listener: socket.socket | None = None) -> Iterator[Door]:
    """Serve *services* on a free port of the loopback, or on *listener*, which stays open afterwards."""
    server = DimseServer(cast("Services", services), tls=tls)
    stop = threading.Event()
    fatal: list[BaseException] = []
    owned = socket.create_server(("127.0.0.1", 0)) if listener is None else contextlib.nullcontext(listener)
    with owned as bound:

        def serve() -> None:
            try:
                server.serve({"tls" if tls else "plain": bound}, stop)
            except BaseException as error:
                fatal.append(error)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        door = Door(services, server, bound.getsockname()[1], stop, thread, fatal)
        try:
            yield door
        finally:
            door.close()


class Peer:
    """A raw peer: sends any bytes, reads whole PDUs."""

    def __init__(self, port: int, *, timeout_s: float = 20.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read(self) -> tuple[int, bytes]:
        """Return (type, body) of the next PDU; type 0 when the door closed."""
        head = self._exactly(6)
        if len(head) < 6:
            return 0, b""
        kind, length = struct.unpack(">BxI", head)
        return kind, self._exactly(length)

    def closed(self) -> bool:
        """Return whether the door has closed the connection."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def associate(self, *contexts: Context, calling_ae: str = "KN_PACS", called_ae: str = "YIXIE") -> tuple[int, bytes]:
        """Ask for an association and return the answer."""
        chosen = contexts or (Context(negotiation.VERIFICATION, "1.2.840.10008.1.2"),)
        self.send(
            negotiation.propose(calling_ae=calling_ae, called_ae=called_ae, contexts=chosen, offered_pdu_bytes=16384)
        )
        return self.read()

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                more = self.socket.recv(count - len(data))
            except ConnectionResetError:
                break
            if not more:
                break
            data += more
        return data
