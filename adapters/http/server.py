"""uvicorn on an inherited socket, with the deadlines that it does not have itself.

A connection must bring its whole request head within a deadline and a size and is closed otherwise, however many bytes
trickle in. Bodies have their own deadline and pace in :func:`adapters._http.read_body`; a body that no handler reads, and
a reader that takes no answer, are dropped here.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from adapters._tls import server_context
from adapters.http.acceptor import Acceptor
from adapters.http.app import build
from adapters.http.websocket import MAX_MESSAGE_BYTES, PING_S, GuardedWebSocket

if TYPE_CHECKING:
    from hub.boot import Services
    from hub.config import Settings

#: Silence allowed between two requests of a connection.
KEEP_ALIVE_S = 30
#: A reader of an answer is looked at this often.
STALL_S = 30.0
#: Time for a sender to notice the answer to a body that nobody reads to its end.
LINGER_S = 2.0
GRACE_S = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one connection may cost.

    Attributes:
        head_s: time for a whole request head.
        head_bytes: size of a whole request head.
        connections: of this process; one more is closed at once.
        body_s: after each such span a body that is still coming must have kept its pace.
        bytes_per_s: slowest pace of a body, and of a reader of answers.
    """

    head_s: float
    head_bytes: int
    connections: int
    body_s: float
    bytes_per_s: int

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Return the limits that *settings* give."""
        return cls(
            head_s=settings.http_head_s,
            head_bytes=settings.max_head_bytes,
            connections=settings.http_connections,
            # Longer than the deadline of read_body, which answers 408; this one is for whom nobody reads any more.
            body_s=settings.frame_deadline_s + 2,
            bytes_per_s=settings.min_bytes_per_s,
        )


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with deadlines for the head, the body and the reader, and a cap on the head."""

    limits: ClassVar[Limits]
    _head_timer: asyncio.TimerHandle | None = None
    _body_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None
    #: Between the first byte of a request and the end of its head, and until the end of its body.
    _in_head = False
    _in_body = False
    #: Bytes of the head so far; bytes that came since the pace was last looked at.
    _head_bytes = 0
    _came = 0

    def connection_made(self, transport: Any) -> None:
        """Start the clock with the connection; close it when there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            transport.abort()
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all clocks."""
        for timer in (self._head_timer, self._body_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._body_timer = self._write_timer = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what comes, and hand it on."""
        self._came += len(data)
        if not self._in_body:
            self._head_bytes += len(data)
            # Also before a request has begun: line ends alone keep no connection open.
            self._await_head()
        super().data_received(data)
        # Headers that are whole have been counted by then; this is for a head that does not end.
        if self._in_head and self._head_bytes > self.limits.head_bytes:
            self._refuse_head()

    def on_message_begin(self) -> None:
        """Start the clock with each further request."""
        self._in_head = True
        self._await_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is whole: watch the body from here on."""
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self.limits.head_bytes:
            self._refuse_head()
            return
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        self._in_head, self._in_body, self._came = False, True, 0
        self._body_timer = self.loop.call_later(self.limits.body_s, self._look_at_body)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Hand on a part of the body, unless the request was refused."""
        if not self._refused():
            super().on_body(body)

    def handle_websocket_upgrade(self) -> None:
        """Leave the connection to the WebSocket; none of the clocks here is for it."""
        if self.transport.is_closing():
            return
        for timer in (self._head_timer, self._body_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._body_timer = self._write_timer = None
        super().handle_websocket_upgrade()

    def on_message_complete(self) -> None:
        """The body is whole."""
        self._in_body, self._head_bytes = False, 0
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None
        if not self._refused():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on, or leave when the rest of a refused body is still coming."""
        super().on_response_complete()
        if self._in_body and self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = self.loop.call_later(LINGER_S, self._close)

    def pause_writing(self) -> None:
        """Watch the reader of an answer that does not fit into the buffers."""
        super().pause_writing()
        if self._write_timer is None:
            left = self.transport.get_write_buffer_size()
            self._write_timer = self.loop.call_later(STALL_S, self._look_at_reader, left)

    def resume_writing(self) -> None:
        """The reader has caught up."""
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.limits.head_s, self._close)

    def _refused(self) -> bool:
        # A head that was refused made no cycle for its request.
        return self.transport is None or self.transport.is_closing() or self.cycle is None

    def _refuse_head(self) -> None:
        self._in_head = False
        if not self.transport.is_closing():
            self.transport.write(
                b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            )
            self.transport.close()

    def _look_at_body(self) -> None:
        waiting = self.flow.read_paused or self.cycle.waiting_for_100_continue
        if not waiting and self._came < self.limits.bytes_per_s * self.limits.body_s:
            self._close()
            return
        self._came = 0
        self._body_timer = self.loop.call_later(self.limits.body_s, self._look_at_body)

    def _look_at_reader(self, before: int) -> None:
        left = self.transport.get_write_buffer_size()
        if before - left < self.limits.bytes_per_s * STALL_S and left:
            self._close()
            return
        self._write_timer = self.loop.call_later(STALL_S, self._look_at_reader, left)

    def _close(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.abort()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, stop: threading.Event, *, shared: bool) -> None:
        super().__init__(config)
        self._stop = stop
        self._shared = shared

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept on *sockets*; uvicorn's own way gives all connections to the process that wakes first."""
        await self.lifespan.startup()
        state = self.server_state

        def protocol() -> asyncio.Protocol:
            return self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config, server_state=state, app_state=self.lifespan.state
            )

        self.servers: list[Any] = [
            Acceptor(
                one,
                protocol,
                tls=self.config.ssl,
                open_connections=lambda: len(state.connections),
                shared=self._shared,
            )
            for one in sockets or ()
        ]
        self.started = True

    async def on_tick(self, counter: int) -> bool:
        """Return whether to end: uvicorn asks ten times a second."""
        return await super().on_tick(counter) or self._stop.is_set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process that runs the door."""
        yield


class HttpDoor:
    """The :class:`hub.boot.Door` for HTTP."""

    def serve(self, services: Services, sockets: Mapping[str, int], stop: threading.Event, index: int) -> None:  # noqa: ARG002 - the port names it
        """Serve until *stop* is set, then answer what is in flight."""
        app = build(services)
        limits = Limits.of(services.settings)
        protocol = type("LimitedProtocol", (GuardedProtocol,), {"limits": limits})
        servers: list[tuple[_Server, socket.socket]] = []
        for purpose, descriptor in sockets.items():
            config = uvicorn.Config(
                app,
                http=protocol,
                ws=GuardedWebSocket,
                ws_max_size=MAX_MESSAGE_BYTES,
                ws_ping_interval=PING_S,
                ws_ping_timeout=PING_S,
                # What is packed may unpack to anything.
                ws_per_message_deflate=False,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=True,
                timeout_keep_alive=KEEP_ALIVE_S,
                limit_concurrency=limits.connections + 1,
                timeout_graceful_shutdown=GRACE_S,
                proxy_headers=False,
            )
            config.load()
            if purpose == "tls":
                config.ssl = server_context(services.settings)
            servers.append(
                (_Server(config, stop, shared=services.settings.http_processes > 1), socket.socket(fileno=descriptor))
            )
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(servers))


async def _serve(servers: list[tuple[_Server, socket.socket]]) -> None:
    await asyncio.gather(*(server.serve(sockets=[listener]) for server, listener in servers))
