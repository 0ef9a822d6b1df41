"""Accepting on a socket that several processes share, so that each gets its part of the connections.

An event loop takes every connection that waits when it wakes up, and connections stay open for many requests: the
process that wakes first would do all the work. Here a process takes one connection at a time, and waits a little before
it does when it has some already, so that one with fewer comes first.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable

import structlog

from adapters._tls import tell_refusal

#: Waited for each open connection, up to _MOST of them, before another is taken.
_STEP_S = 0.001
_MOST = 5
#: Taken at a time by a process that has many: all that is left to balance is then whose wait ends first.
_TOGETHER = 4
#: Out of file descriptors, for example: new peers wait in the backlog meanwhile.
_TROUBLE_S = 0.1
TLS_HANDSHAKE_S = 20.0

_log = structlog.get_logger("adapters.http")


class Acceptor:
    """Hands the connections of *listener* to protocols that *factory* makes, until :meth:`close`.

    Args:
        open_connections: returns how many connections this process has.
        shared: whether other processes accept on the same socket.
    """

    def __init__(
        self,
        listener: socket.socket,
        factory: Callable[[], asyncio.Protocol],
        *,
        tls: ssl.SSLContext | None,
        open_connections: Callable[[], int],
        shared: bool,
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._factory = factory
        self._tls = tls
        self._open_connections = open_connections
        self._shared = shared
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._watch()

    def close(self) -> None:
        """Take no more connections."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._listener)
        if self._timer is not None:
            self._timer.cancel()

    async def wait_closed(self) -> None:
        """Return when the handshakes under way have ended."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _watch(self) -> None:
        self._timer = None
        self._loop.add_reader(self._listener, self._waiting)

    def _waiting(self) -> None:
        """A peer waits."""
        wait_s = min(self._open_connections(), _MOST) * _STEP_S if self._shared else 0.0
        if wait_s:
            self._loop.remove_reader(self._listener)
            self._timer = self._loop.call_later(wait_s, self._take)
        else:
            self._take()

    def _take(self) -> None:
        if self._timer is not None:
            self._watch()
        for _ in range(_TOGETHER if self._open_connections() >= _MOST else 1):
            try:
                accepted, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return  # Another process was quicker, or the peer has gone again.
            except OSError as error:
                _log.warning("accept_failed", error=type(error).__name__)
                self._loop.remove_reader(self._listener)
                self._timer = self._loop.call_later(_TROUBLE_S, self._watch)
                return
            accepted.setblocking(False)
            with contextlib.suppress(OSError):
                # It fails on a connection that is broken already, which reading from it will tell.
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = self._loop.create_task(self._connect(accepted, str(address[0])))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self, accepted: socket.socket, peer: str) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._factory,
                accepted,
                ssl=self._tls,
                ssl_handshake_timeout=TLS_HANDSHAKE_S if self._tls is not None else None,
            )
        except OSError as error:  # ssl.SSLError is one
            accepted.close()
            if self._tls is None:
                _log.info("connection_lost", error=type(error).__name__)
            else:
                tell_refusal(_log, error, peer=peer)
        except BaseException:
            accepted.close()
            raise
