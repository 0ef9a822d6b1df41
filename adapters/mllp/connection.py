"""One MLLP peer at the listener: its frames in, the core's answers out, in order, within deadlines.

HL7 Minimal Lower Layer Protocol, Transport Specification R2. See :mod:`adapters.mllp.server` for how it works.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import traceback
from dataclasses import dataclass
from typing import Protocol

import structlog

from adapters._tls import line_of, tell_refusal
from adapters.mllp import metrics
from adapters.mllp.frames import BrokenFrame, Deframer, Fault, Frame, Garbage, encode_frame
from adapters.mllp.turns import OverQuota
from hub.certificates import OPEN_LINE, Line
from hub.config import Settings
from hub.errors import HubError
from hub.shares import Share

log = structlog.get_logger("adapters.mllp")

READ_BYTES = 1 << 16
#: A frame beyond this size waits for one of the few slots for large ones, which bounds what all connections hold.
LARGE_BYTES = 1 << 20
#: Time a refused peer gets to read why, before the connection goes.
LINGER_S = 2.0
TLS_HANDSHAKE_S = 5.0
#: Seconds without an acknowledgement from the peer's kernel after which a connection is dead (half-open peers).
TCP_USER_TIMEOUT_MS = 20_000


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


class Listener(Protocol):
    """What a connection needs of :class:`adapters.mllp.server.MllpServer`."""

    @property
    def limits(self) -> Limits:
        """What one peer may cost."""
        ...

    @property
    def stopping(self) -> bool:
        """Whether no more is to be taken."""
        ...

    def closed(self, connection: Connection) -> None:
        """Forget *connection*."""
        ...

    async def hold_large(self, host: str) -> None:
        """Return once a frame beyond :data:`LARGE_BYTES` from *host* may be read on."""
        ...

    def release_large(self, host: str) -> None:
        """Give the slot back."""
        ...

    async def permitted(self, raw: bytes, peer: str, line: Line) -> Share:
        """Return for whom *raw* counts once it is within the quotas; raises OverQuota where that is not to be waited for."""
        ...

    async def answer(self, raw: bytes, peer: str, line: Line, share: Share) -> bytes | None:
        """Return the core's answer to *raw*, given in its sender's turn."""
        ...

    async def over_quota(self, raw: bytes, peer: str, line: Line, quota: str) -> bytes | None:
        """Return what is answered to *raw*, which is over *quota*."""
        ...

    async def refusal(self, head: bytes, peer: str, reason: str) -> bytes | None:
        """Return the core's refusal of a frame that did not arrive whole."""
        ...


class TooSlow(Exception):  # noqa: N818 - a turn of events, not an error of the hub
    """The peer missed a deadline."""


class Connection:
    """One peer: frames in, answers out, in order."""

    def __init__(self, server: Listener, accepted: socket.socket, host: str, peer: str) -> None:
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
        """Begin to serve the peer."""
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
        except (OSError, ssl.SSLError, TimeoutError, TooSlow) as error:
            outcome = "too-slow" if isinstance(error, TooSlow) else "lost"
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
                self._server.release_large(self.host)
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
                try:
                    # Still to be cancelled when the hub stops: the sender keeps what was not acknowledged.
                    share = await self._server.permitted(event.payload, self._peer, self._line)
                except OverQuota as over:
                    if not await self._tell_over_quota(event.payload, over, writer):
                        return
                    self._frame_done()
                    continue
                self._in_hand = True
                try:
                    answer = await self._server.answer(event.payload, self._peer, self._line, share)
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

    async def _tell_over_quota(self, raw: bytes, over: OverQuota, writer: asyncio.StreamWriter) -> bool:
        """Refuse *raw* if the member is to be told; return whether the connection goes on."""
        metrics.frames.labels("over-quota").inc()
        if not over.refuse:
            return False
        self._in_hand = True
        try:
            answer = await self._server.over_quota(raw, self._peer, self._line, over.quota)
            if answer is None:
                # Its sender wants no such answer, and would take silence for success.
                return False
            await self._write(writer, answer)
        finally:
            self._in_hand = False
        return True

    async def _fill(self, reader: asyncio.StreamReader) -> bool:
        """Read once and return whether the peer has said its last; raises TooSlow when a deadline passes."""
        loop = asyncio.get_running_loop()
        if self._deframer.in_frame:
            if self._deframer.frame_bytes > LARGE_BYTES and not self._holds_large:
                waited_from = loop.time()
                await self._server.hold_large(self.host)
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
            raise TooSlow(what) from None
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
            self._server.release_large(self.host)
            self._holds_large = False

    async def _write(self, writer: asyncio.StreamWriter, answer: bytes) -> None:
        writer.write(encode_frame(answer))
        try:
            async with asyncio.timeout(self._limits.frame_deadline_s):
                await writer.drain()
        except TimeoutError:
            raise TooSlow("answers not read in time") from None

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
