"""The MLLP listener: persistent connections, answers in order, deadlines against slow and silent peers.

HL7 Minimal Lower Layer Protocol, Transport Specification R2. Theory of operation: one event loop owns all sockets;
a whole frame is handed to a bounded pool of threads where the synchronous core makes it durable and says what to
answer. A connection has one message in hand at a time, so its answers keep the order of its messages and a peer that
sends faster than the hub commits is held back by TCP. Where more messages wait than there are threads, members take turns
by their weights, and a member beyond its quota is not read on (:mod:`adapters.mllp.turns`). Trouble that may pass closes the connection without an
acknowledgement: the sender keeps the message and sends it again. An answer is only ever sent for what was decided.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import structlog

from adapters.mllp import metrics
from adapters.mllp.connection import LARGE_BYTES, Connection, Limits
from adapters.mllp.turns import ByAddress, Members, OverQuota, Turns
from hub.certificates import Line
from hub.errors import HubError
from hub.quotas import Minutes, messages_in
from hub.shares import Share

__all__ = ["LARGE_BYTES", "LARGE_FRAMES", "WORKERS", "Limits", "Members", "Messages", "MllpServer", "serve"]

log = structlog.get_logger("adapters.mllp")

LARGE_FRAMES = 8
#: Of these slots, what one address may hold at a time.
LARGE_PER_PEER = 4
WORKERS = 16


class Messages(Protocol):
    """What the listener needs of :class:`hub.messages.MessageService`."""

    def receive(self, raw: bytes, peer: str, *, line: Line) -> bytes | None:
        """Return the answer to *raw* once it is durable, or ``None`` when none is wanted."""
        ...

    def refuse(self, head: bytes, peer: str, reason: str) -> bytes | None:
        """Return the refusal of a message that never arrived whole, or ``None`` when its MSH cannot be read."""
        ...


class MllpServer:
    """Serves the listening sockets it is given until told to stop."""

    def __init__(
        self,
        messages: Messages,
        limits: Limits,
        *,
        tls: ssl.SSLContext | None = None,
        members: Members | None = None,
        minutes: Minutes | None = None,
        workers: int = WORKERS,
    ) -> None:
        self._messages = messages
        self._limits = limits
        self._tls = tls
        self._members = members if members is not None else ByAddress()
        self._turns = Turns(workers, patience_s=limits.frame_deadline_s, minutes=minutes)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="mllp")
        # Who sends is found out beside the messages in hand, so that it never waits for a member that floods.
        self._asking = ThreadPoolExecutor(1, thread_name_prefix="mllp-sender")
        self._large = asyncio.Semaphore(LARGE_FRAMES)
        self._large_of: dict[str, asyncio.Semaphore] = {}
        self._per_peer: Counter[str] = Counter()
        self._connections: set[Connection] = set()
        self._stopping = asyncio.Event()
        self._fatal: HubError | None = None

    async def run(self, listeners: Mapping[str, socket.socket]) -> None:
        """Accept on *listeners* (``plain``, ``tls``) until :meth:`stop`; then answer what is in hand and close.

        Raises:
            HubError: fatal, when the disk failed and this node must not take data any more.
        """
        acceptors = [
            asyncio.create_task(self._accept(listener, self._tls if name == "tls" else None))
            for name, listener in listeners.items()
        ]
        try:
            await self._stopping.wait()
        finally:
            for acceptor in acceptors:
                acceptor.cancel()
            await asyncio.gather(*acceptors, return_exceptions=True)
            waiting = [connection.finish() for connection in list(self._connections)]
            await asyncio.gather(*waiting, return_exceptions=True)
            self._pool.shutdown(wait=True)
            self._asking.shutdown(wait=True)
        if self._fatal is not None:
            raise self._fatal

    def stop(self) -> None:
        """Stop accepting, let the messages in hand be answered, and end :meth:`run`."""
        self._stopping.set()

    async def _accept(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        while True:
            await _readable(listener)
            try:
                accepted, address = listener.accept()
            except (BlockingIOError, InterruptedError):
                continue  # The peer has gone again.
            except OSError as error:
                # Out of file descriptors, for example: the peers in service go on, new ones wait in the backlog.
                log.warning("accept_failed", error=type(error).__name__)
                await asyncio.sleep(0.1)
                continue
            host = str(address[0])
            full = len(self._connections) >= self._limits.connections
            if full or self._per_peer[host] >= self._limits.connections_per_peer:
                log.warning("connection_refused", peer=host, reason="too many connections")
                metrics.connections.labels("refused").inc()
                accepted.close()
                continue
            accepted.setblocking(False)
            connection = Connection(
                self, accepted, host, f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"
            )
            self._connections.add(connection)
            metrics.open_connections.inc()
            self._per_peer[host] += 1
            connection.start(tls)

    def closed(self, connection: Connection) -> None:
        """Forget *connection*."""
        self._connections.discard(connection)
        metrics.open_connections.dec()
        self._per_peer[connection.host] -= 1
        if not self._per_peer[connection.host]:
            del self._per_peer[connection.host]
            self._large_of.pop(connection.host, None)

    @property
    def limits(self) -> Limits:
        """What one peer may cost."""
        return self._limits

    @property
    def stopping(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stopping.is_set()

    async def hold_large(self, host: str) -> None:
        """Return once one of the slots for large frames is held, of which *host* gets a part only."""
        of_host = self._large_of.setdefault(host, asyncio.Semaphore(LARGE_PER_PEER))
        await of_host.acquire()
        try:
            await self._large.acquire()
        except BaseException:
            of_host.release()
            raise

    def release_large(self, host: str) -> None:
        """Give a slot for large frames back."""
        self._large.release()
        self._large_of[host].release()

    async def permitted(self, raw: bytes, peer: str, line: Line) -> Share:
        """Return for whom *raw* counts, once that member's quotas let it through.

        Raises:
            OverQuota: the member is to be told, or would wait for longer than senders do.
            HubError: transient, when it cannot be found out who sends.
        """
        loop = asyncio.get_running_loop()
        share = self._members.known(raw, peer, line)
        if share is None:
            share = await loop.run_in_executor(self._asking, self._members.of, raw, peer, line)
        try:
            for quota in ("per-minute", "connections"):
                if quota == "per-minute":
                    # To count them takes long in a large frame, and only such a quota asks for it.
                    number = messages_in(raw) if share.policy.messages_per_minute is not None else 1
                    waited = await self._turns.within_quota(share, len(raw), number)
                else:
                    waited = await self._turns.connection_free(share)
                if waited:
                    self._members.tell(share, quota, "slowed")
        except OverQuota as over:
            self._members.tell(share, over.quota, "refused" if over.refuse else "closed")
            raise
        return share

    async def answer(self, raw: bytes, peer: str, line: Line, share: Share) -> bytes | None:
        """Return the core's answer to *raw*, given in the turn of *share*."""
        loop = asyncio.get_running_loop()
        try:
            async with self._turns.turn(share, len(raw)):
                return await loop.run_in_executor(self._pool, lambda: self._messages.receive(raw, peer, line=line))
        except HubError as error:
            if error.fatal:
                self._fatal = error
                self.stop()
            raise

    async def over_quota(self, raw: bytes, peer: str, line: Line, quota: str) -> bytes | None:
        """Return what is answered to *raw*, which is over *quota*."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._asking, self._members.refuse, raw, peer, line, quota)

    async def refusal(self, head: bytes, peer: str, reason: str) -> bytes | None:
        """Return the core's refusal of a frame that did not arrive whole."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._messages.refuse, head, peer, reason)


async def _readable(listener: socket.socket) -> None:
    """Return when a peer waits on *listener*.

    ``loop.sock_accept`` loses the connection it has just accepted when it is cancelled; here nothing is accepted before
    the caller runs again.
    """
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(listener, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(listener)


async def serve(
    messages: Messages,
    limits: Limits,
    sockets: Mapping[str, int],
    stop: threading.Event,
    *,
    tls: ssl.SSLContext | None = None,
    members: Members | None = None,
    minutes: Minutes | None = None,
    workers: int = WORKERS,
) -> None:
    """Serve the inherited descriptors *sockets* until *stop* is set; see :meth:`MllpServer.run`."""
    server = MllpServer(messages, limits, tls=tls, members=members, minutes=minutes, workers=workers)
    loop = asyncio.get_running_loop()
    listeners = {name: socket.socket(fileno=os.dup(descriptor)) for name, descriptor in sockets.items()}
    ended = threading.Event()

    def watch() -> None:
        while not stop.wait(0.5):
            if ended.is_set():
                return
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(server.stop)

    watcher = threading.Thread(target=watch, name="mllp-stop", daemon=True)
    watcher.start()
    try:
        for listener in listeners.values():
            listener.setblocking(False)
        await server.run(listeners)
    finally:
        ended.set()
        for listener in listeners.values():
            listener.close()
