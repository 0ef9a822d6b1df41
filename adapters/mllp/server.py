"""The MLLP listener: persistent connections, answers in order, deadlines against slow and silent peers.

HL7 Minimal Lower Layer Protocol, Transport Specification R2. Theory of operation: one event loop owns all sockets;
a whole frame is handed to a bounded pool of threads where the synchronous core makes it durable and says what to
answer. A connection has one message in hand at a time, so its answers keep the order of its messages and a peer that
sends faster than the hub commits is held back by TCP. Trouble that may pass closes the connection without an
acknowledgement: the sender keeps the message and sends it again. An answer is only ever sent for what was decided.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import threading
import traceback
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import structlog

from adapters._tls import line_of, tell_refusal
from adapters.mllp import metrics
from adapters.mllp.frames import BrokenFrame, Deframer, Fault, Frame, Garbage, encode_frame
from hub.certificates import OPEN_LINE, Line
from hub.config import Settings
from hub.errors import HubError

log = structlog.get_logger("adapters.mllp")

READ_BYTES = 1 << 16
#: A frame beyond this size waits for one of the few slots for large ones, which bounds what all connections hold.
LARGE_BYTES = 1 << 20
LARGE_FRAMES = 8
#: Time a refused peer gets to read why, before the connection goes.
LINGER_S = 2.0
TLS_HANDSHAKE_S = 5.0
#: Seconds without an acknowledgement from the peer's kernel after which a connection is dead (half-open peers).
TCP_USER_TIMEOUT_MS = 20_000
WORKERS = 16


class Messages(Protocol):
    """What the listener needs of :class:`hub.messages.MessageService`."""

    def receive(self, raw: bytes, peer: str, *, line: Line) -> bytes | None:
        """Return the answer to *raw* once it is durable, or ``None`` when none is wanted."""
        ...

    def refuse(self, head: bytes, peer: str, reason: str) -> bytes | None:
        """Return the refusal of a message that never arrived whole, or ``None`` when its MSH cannot be read."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one peer may cost; the defaults of :class:`hub.config.Settings` cite their origin."""

    max_bytes: int
    frame_deadline_s: float
    min_bytes_per_s: int
    idle_s: float
    connections: int
    connections_per_peer: int = 64

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Return the limits that *settings* give."""
        return cls(
            max_bytes=settings.max_message_bytes,
            frame_deadline_s=settings.frame_deadline_s,
            min_bytes_per_s=settings.min_bytes_per_s,
            idle_s=settings.mllp_idle_s,
            connections=settings.mllp_connections,
        )


class MllpServer:
    """Serves the listening sockets it is given until told to stop."""

    def __init__(self, messages: Messages, limits: Limits, *, tls: ssl.SSLContext | None = None) -> None:
        self._messages = messages
        self._limits = limits
        self._tls = tls
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="mllp")
        self._large = asyncio.Semaphore(LARGE_FRAMES)
        self._per_peer: Counter[str] = Counter()
        self._connections: set[_Connection] = set()
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
            connection = _Connection(
                self, accepted, host, f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"
            )
            self._connections.add(connection)
            metrics.open_connections.inc()
            self._per_peer[host] += 1
            connection.start(tls)

    def closed(self, connection: _Connection) -> None:
        """Forget *connection*."""
        self._connections.discard(connection)
        metrics.open_connections.dec()
        self._per_peer[connection.host] -= 1
        if not self._per_peer[connection.host]:
            del self._per_peer[connection.host]

    @property
    def limits(self) -> Limits:
        """What one peer may cost."""
        return self._limits

    @property
    def stopping(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stopping.is_set()

    @property
    def large(self) -> asyncio.Semaphore:
        """Slots for frames beyond :data:`LARGE_BYTES`."""
        return self._large

    async def answer(self, raw: bytes, peer: str, line: Line) -> bytes | None:
        """Return the core's answer to *raw*."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, lambda: self._messages.receive(raw, peer, line=line))
        except HubError as error:
            if error.fatal:
                self._fatal = error
                self.stop()
            raise

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


class _TooSlow(Exception):  # noqa: N818 - a turn of events, not an error of the hub
    """The peer missed a deadline."""


class _Connection:
    """One peer: frames in, answers out, in order."""

    def __init__(self, server: MllpServer, accepted: socket.socket, host: str, peer: str) -> None:
        self._server = server
        self._socket = accepted
        self.host = host
        self._peer = peer
        self._line = OPEN_LINE
        self._limits = server.limits
        self._deframer = Deframer(max_bytes=self._limits.max_bytes)
        self._task: asyncio.Task[None] | None = None
        self._in_hand = False
        self._holds_large = False
        self._frame_began: float | None = None
        self._quiet_since = 0.0

    def start(self, tls: ssl.SSLContext | None) -> None:
        self._task = asyncio.create_task(self._run(tls))

    async def finish(self) -> None:
        """Answer the message in hand, if any, then close."""
        assert self._task is not None
        if not self._in_hand:
            self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, tls: ssl.SSLContext | None) -> None:
        outcome = "closed"
        try:
            await self._serve(tls)
        except (OSError, ssl.SSLError, TimeoutError, _TooSlow) as error:
            outcome = "too-slow" if isinstance(error, _TooSlow) else "lost"
            log.info("connection_lost", peer=self._peer, error=str(error) or type(error).__name__)
        except HubError as error:
            outcome = "without-acknowledgement"
            log.warning(
                "closed_without_acknowledgement", peer=self._peer, category=error.category.value, error=error.message
            )
        except Exception as error:  # noqa: BLE001 - one peer's trouble must not end the listener
            # The text of an unforeseen error may quote the message, so only its kind and place are logged.
            outcome = "fault"
            place = traceback.extract_tb(error.__traceback__)[-1]
            log.error(  # noqa: TRY400 - as above
                "closed_after_fault", peer=self._peer, error=type(error).__name__, place=f"{place.name}:{place.lineno}"
            )
        finally:
            if self._holds_large:
                self._server.large.release()
            metrics.connections.labels(outcome).inc()
            self._server.closed(self)

    async def _serve(self, tls: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        _tune(self._socket)
        reader = asyncio.StreamReader(limit=READ_BYTES, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, self._socket, ssl=tls, ssl_handshake_timeout=TLS_HANDSHAKE_S if tls else None
            )
        except BaseException as error:
            self._socket.close()
            if isinstance(error, ssl.SSLError):
                tell_refusal(log, error, peer=self._peer)
            raise
        self._line = line_of(transport.get_extra_info("ssl_object"))
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        transport.set_write_buffer_limits(high=READ_BYTES)
        try:
            await self._converse(reader, writer)
        except asyncio.CancelledError:
            # The hub stops while this peer is silent: answers still in the buffer go out first.
            writer.close()
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(LINGER_S):
                    await writer.wait_closed()
            transport.abort()
            raise
        except BaseException:
            transport.abort()
            raise
        writer.close()
        try:
            async with asyncio.timeout(self._limits.frame_deadline_s):
                await writer.wait_closed()
        finally:
            transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._quiet_since = asyncio.get_running_loop().time()
        eof = False
        while not self._server.stopping:
            event = self._deframer.next_event()
            if event is None:
                if eof:
                    return
                eof = await self._fill(reader)
            elif isinstance(event, Garbage):
                log.warning("bytes_between_frames", peer=self._peer, size=event.size)
            elif isinstance(event, Frame):
                self._in_hand = True
                try:
                    answer = await self._server.answer(event.payload, self._peer, self._line)
                    metrics.frames.labels("taken").inc()
                    metrics.received_bytes.inc(len(event.payload))
                    if answer is not None:
                        await self._write(writer, answer)
                finally:
                    self._in_hand = False
                self._frame_done()
            else:
                await self._refuse(event, reader, writer)
                return

    async def _fill(self, reader: asyncio.StreamReader) -> bool:
        """Read once and return whether the peer has said its last; raises _TooSlow when a deadline passes."""
        loop = asyncio.get_running_loop()
        if self._deframer.in_frame:
            if self._deframer.frame_bytes > LARGE_BYTES and not self._holds_large:
                waited_from = loop.time()
                await self._server.large.acquire()
                self._holds_large = True
                if self._frame_began is not None:
                    self._frame_began += loop.time() - waited_from
            if self._frame_began is None:
                self._frame_began = loop.time()
            deadline, what = self._frame_deadline(self._frame_began), "frame not complete in time"
        else:
            deadline, what = self._quiet_since + self._limits.idle_s, "idle for too long"
        try:
            async with asyncio.timeout_at(deadline):
                data = await reader.read(READ_BYTES)
        except TimeoutError:
            raise _TooSlow(what) from None
        self._deframer.receive_data(data)
        return not data

    def _frame_deadline(self, began: float) -> float:
        # A sixth of the whole time is given before the rate counts, so that a short message may pause once.
        by_rate = self._limits.frame_deadline_s / 6 + self._deframer.frame_bytes / self._limits.min_bytes_per_s
        return began + min(self._limits.frame_deadline_s, by_rate)

    def _frame_done(self) -> None:
        self._frame_began = None
        self._quiet_since = asyncio.get_running_loop().time()
        if self._holds_large:
            self._server.large.release()
            self._holds_large = False

    async def _write(self, writer: asyncio.StreamWriter, answer: bytes) -> None:
        writer.write(encode_frame(answer))
        try:
            async with asyncio.timeout(self._limits.frame_deadline_s):
                await writer.drain()
        except TimeoutError:
            raise _TooSlow("answers not read in time") from None

    async def _refuse(self, broken: BrokenFrame, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        metrics.frames.labels("broken").inc()
        log.warning("broken_frame", peer=self._peer, reason=broken.fault.value)
        if broken.fault is Fault.CUT:
            # The sender is gone, so there is nobody to answer; it will send again what nobody acknowledged.
            return
        self._in_hand = True
        try:
            answer = await self._server.refusal(broken.head, self._peer, broken.fault.value)
            if answer is None:
                return
            await self._write(writer, answer)
        finally:
            self._in_hand = False
        # Closing with unread bytes would reset the connection and could take the answer with it.
        with contextlib.suppress(TimeoutError, OSError):
            if writer.can_write_eof():
                writer.write_eof()
            async with asyncio.timeout(LINGER_S):
                while await reader.read(READ_BYTES):
                    pass


def _tune(accepted: socket.socket) -> None:
    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TCP_USER_TIMEOUT_MS)


async def serve(
    messages: Messages,
    limits: Limits,
    sockets: Mapping[str, int],
    stop: threading.Event,
    *,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Serve the inherited descriptors *sockets* until *stop* is set; see :meth:`MllpServer.run`."""
    server = MllpServer(messages, limits, tls=tls)
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
