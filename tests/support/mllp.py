"""An MLLP door on a free port for tests, and a bare socket that speaks to it."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

from adapters.mllp.frames import Deframer, Frame
from adapters.mllp.server import WORKERS, Limits, Members, Messages, serve

#: Longest wait of a test for something that must happen.
PATIENCE_S = 20.0


def limits(**changes: object) -> Limits:
    """Return limits that no well-behaved test meets, with *changes*."""
    values: dict[str, object] = {
        "max_bytes": 16 << 20,
        "frame_deadline_s": PATIENCE_S,
        "min_bytes_per_s": 1,
        "idle_s": PATIENCE_S,
        "connections": 64,
    }
    return Limits(**(values | changes))  # type: ignore[arg-type]


@dataclass
class Running:
    """A door that serves."""

    address: tuple[str, int]
    tls_address: tuple[str, int] | None
    stop: threading.Event
    thread: threading.Thread
    failures: list[BaseException] = field(default_factory=list)

    def join(self) -> None:
        """Wait until the door has ended."""
        self.stop.set()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive(), "the door did not stop"


def listening() -> socket.socket:
    """Return a socket that listens on a free port of loopback."""
    return socket.create_server(("127.0.0.1", 0), backlog=128)


@contextmanager
def door(
    messages: Messages,
    allowed: Limits,
    *,
    tls: ssl.SSLContext | None = None,
    members: Members | None = None,
    workers: int = WORKERS,
) -> Iterator[Running]:
    """Serve *messages* on a free port until the block ends."""
    plain = listening()
    secure = listening() if tls else None
    sockets = {"plain": plain.fileno()} | ({"tls": secure.fileno()} if secure else {})
    stop = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(serve(messages, allowed, sockets, stop, tls=tls, members=members, workers=workers))
        except BaseException as error:  # handed to the test
            failures.append(error)

    thread = threading.Thread(target=run, name="door", daemon=True)
    running = Running(plain.getsockname(), secure.getsockname() if secure else None, stop, thread, failures)
    thread.start()
    try:
        yield running
    finally:
        running.join()
        plain.close()
        if secure:
            secure.close()


class Peer:
    """A bare MLLP peer."""

    def __init__(self, address: tuple[str, int], *, tls: ssl.SSLContext | None = None) -> None:
        raw = socket.create_connection(address, timeout=PATIENCE_S)
        self.socket = tls.wrap_socket(raw, server_hostname="localhost") if tls else raw
        self._deframer = Deframer(max_bytes=64 << 20)

    def send(self, data: bytes) -> None:
        """Send *data* as it is."""
        self.socket.sendall(data)

    def answer(self) -> bytes | None:
        """Return the next answer, or ``None`` when the door has closed the connection."""
        while True:
            event = self._deframer.next_event()
            if isinstance(event, Frame):
                return event.payload
            try:
                data = self.socket.recv(1 << 16)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._deframer.receive_data(data)

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
