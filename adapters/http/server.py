"""uvicorn on an inherited socket, with the deadlines that it does not have itself.

A connection must bring its whole request head within a deadline and is closed otherwise, however many bytes trickle in;
bodies have their own deadline and pace in :func:`adapters._http.read_body`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from adapters.http.app import build
from hub.errors import Category, HubError

if TYPE_CHECKING:
    from hub.boot import Services
    from hub.config import Settings

#: Time for a whole request head; common servers allow 10 to 60 s.
HEAD_DEADLINE_S = 10.0
#: Silence allowed between two requests of a connection.
KEEP_ALIVE_S = 30
#: Connections of one process; more are answered 503.
CONNECTIONS = 1000
GRACE_S = 15


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with a deadline for the request head."""

    head_deadline_s = HEAD_DEADLINE_S
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start the clock with the connection."""
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._disarm()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Start the clock with each further request."""
        if self._timer is None:
            self._arm()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Stop the clock: the head is whole."""
        self._disarm()
        super().on_headers_complete()

    def _arm(self) -> None:
        self._timer = self.loop.call_later(self.head_deadline_s, self._late)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self.transport is not None and not self.transport.is_closing():
            self.transport.abort()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process that runs the door."""
        yield


def tls_context(settings: Settings) -> ssl.SSLContext:
    """Return the context of the TLS socket; peers must show a certificate when ``tls_client_ca`` is set.

    Raises:
        HubError: incorrect when the certificate is missing or cannot be read.
    """
    if settings.tls_certificate is None or settings.tls_key is None:
        raise HubError(
            Category.INCORRECT,
            "TLS needs a certificate and its key.",
            where="tls_certificate, tls_key",
            remedy="Set both, or leave http_tls_bind empty.",
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
        if settings.tls_client_ca is not None:
            context.load_verify_locations(settings.tls_client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise HubError(Category.INCORRECT, f"The TLS files cannot be used: {error}", where="tls_certificate") from error
    return context


class HttpDoor:
    """The :class:`hub.boot.Door` for HTTP."""

    def serve(self, services: Services, sockets: Mapping[str, int], stop: threading.Event, index: int) -> None:  # noqa: ARG002 - the port names it
        """Serve until *stop* is set, then answer what is in flight."""
        app = build(services)
        servers: list[tuple[_Server, socket.socket]] = []
        for purpose, descriptor in sockets.items():
            config = uvicorn.Config(
                app,
                http=GuardedProtocol,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=True,
                timeout_keep_alive=KEEP_ALIVE_S,
                limit_concurrency=CONNECTIONS,
                timeout_graceful_shutdown=GRACE_S,
                proxy_headers=False,
            )
            config.load()
            if purpose == "tls":
                config.ssl = tls_context(services.settings)
            servers.append((_Server(config), socket.socket(fileno=descriptor)))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(servers, stop))


async def _serve(servers: list[tuple[_Server, socket.socket]], stop: threading.Event) -> None:
    async def watch() -> None:
        await asyncio.to_thread(stop.wait)
        for server, _ in servers:
            server.should_exit = True

    await asyncio.gather(watch(), *(server.serve(sockets=[listener]) for server, listener in servers))
