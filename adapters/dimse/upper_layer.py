"""The DICOM upper layer on one TCP connection, with a bound on everything a peer decides (PS3.8 sections 9.1 to 9.3).

The library's own reader polls, trusts the 32-bit PDU length and has no deadline inside a PDU, so this one replaces it:
the length is checked before a byte of the body is read, a PDU has a deadline as a whole, and its bytes land in one
buffer that is used again for the next PDU.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import time
from collections.abc import Iterator

from hub.errors import Category, HubError

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
RELEASE_RQ_PDU = b"\x05\0\0\0\0\x04\0\0\0\0"
RELEASE_RP_PDU = b"\x06\0\0\0\0\x04\0\0\0\0"
#: A-ABORT reasons of the service provider (PS3.8 table 9-26).
NOT_SPECIFIED, UNRECOGNIZED_PDU, UNEXPECTED_PDU, INVALID_PARAMETER = 0, 1, 2, 6

#: Kept per connection; a longer PDU, within the cap, makes it grow.
_BUFFER_BYTES = 1 << 18
_LINGER_S = 2.0
_LINGER_BYTES = 1 << 20
_KEEPALIVE_S = (60, 15, 4)
_USER_TIMEOUT_MS = 60_000
_HEADER = struct.Struct(">BxI")
_PDV = struct.Struct(">IBB")


class ConnectionEnd(Exception):  # noqa: N818 - an end is not always an error
    """The peer closed, aborted, or let a deadline pass; *why* is one word for the log and the metric."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class ProtocolError(Exception):
    """The peer broke PS3.8; the connection is to be aborted for *reason*."""

    def __init__(self, why: str, reason: int = UNEXPECTED_PDU) -> None:
        super().__init__(why)
        self.why = why
        self.reason = reason


class UpperLayer:
    """One connection; used by one thread, except for :meth:`interrupt`."""

    def __init__(self, connection: socket.socket, *, max_pdu_bytes: int, pdu_deadline_s: float) -> None:
        self._socket = connection
        self._max_pdu_bytes = max_pdu_bytes
        self._pdu_deadline_s = pdu_deadline_s
        # A TLS socket knows no MSG_WAITALL, and its kernel socket no message borders.
        self._plain = type(connection) is socket.socket
        self._buffer = bytearray(min(_BUFFER_BYTES, max_pdu_bytes))
        self._small = bytearray(6)
        self._receive_timeout = 0.0
        self._pending: Iterator[tuple[int, int, memoryview]] = iter(())
        self._ahead: tuple[int, int, memoryview] | None = None
        if self._plain:
            connection.settimeout(None)
            self._set_timeout(socket.SO_SNDTIMEO, pdu_deadline_s)

    def read(self, *, wait_s: float, max_bytes: int | None = None) -> tuple[int, memoryview]:
        """Return (type, body) of the next PDU; the body is valid until the next read.

        Args:
            wait_s: how long the PDU's header may keep us waiting; the body then has the PDU deadline.
            max_bytes: cap for this PDU when it is not the connection's.

        Raises:
            ConnectionEnd: closed, reset, or too slow.
            ProtocolError: the length is beyond the cap.
        """
        header = memoryview(self._small)
        self._fill(header, wait_s)
        kind, length = _HEADER.unpack(header)
        if length > (self._max_pdu_bytes if max_bytes is None else max_bytes):
            raise ProtocolError("pdu-too-long", INVALID_PARAMETER)
        if length > len(self._buffer):
            self._buffer = bytearray(length)
        body = memoryview(self._buffer)[:length]
        self._fill(body, self._pdu_deadline_s)
        return kind, body

    def read_pdv(self, *, wait_s: float) -> tuple[int, int, memoryview] | None:
        """Return (context id, message control header, fragment) of the next PDV, or ``None`` for a release request.

        Raises:
            ConnectionEnd: as :meth:`read`, and when the peer aborts.
            ProtocolError: another PDU, or PDVs that do not fill their PDU exactly.
        """
        if self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            return ahead
        while True:
            found = next(self._pending, None)
            if found is not None:
                return found
            kind, body = self.read(wait_s=wait_s)
            if kind == P_DATA:
                self._pending = iter(_pdvs(body))
            elif kind == RELEASE_RQ:
                return None
            elif kind == ABORT:
                raise ConnectionEnd("aborted-by-peer")
            elif kind in {ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, RELEASE_RP}:
                raise ProtocolError("unexpected-pdu", UNEXPECTED_PDU)
            else:
                raise ProtocolError("unrecognized-pdu", UNRECOGNIZED_PDU)

    def readable(self, *, within_s: float = 0.0) -> bool:
        """Return, without waiting longer than *within_s*, whether the peer has sent something, or has gone."""
        if self._ahead is None:
            self._ahead = next(self._pending, None)
        if self._ahead is not None or (isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()):
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(within_s * 1000))

    def send(self, *parts: bytes | memoryview) -> None:
        """Send the parts as one; raises ConnectionEnd when the peer is gone or does not read."""
        try:
            if self._plain:
                data: bytes | memoryview = parts[0] if len(parts) == 1 else b"".join(parts)
                view = memoryview(data)
                deadline = time.monotonic() + self._pdu_deadline_s
                while view:
                    view = view[self._socket.send(view) :]
                    if view and time.monotonic() > deadline:
                        raise ConnectionEnd("too-slow")
            else:
                self._socket.settimeout(self._pdu_deadline_s)
                self._socket.sendall(b"".join(parts))
        except (BlockingIOError, TimeoutError):
            raise ConnectionEnd("too-slow") from None
        except OSError:
            raise ConnectionEnd("reset") from None

    def abort(self, *, reason: int | None = None) -> None:
        """Send an A-ABORT, as the provider where *reason* is given, and close."""
        source, why = (2, reason) if reason is not None else (0, 0)
        self.finish(struct.pack(">BxIxxBB", ABORT, 4, source, why))

    def finish(self, last: bytes = b"") -> None:
        """Send *last*, let the peer close first for a short while (ARTIM, PS3.8 section 9.1.5), and close."""
        with contextlib.suppress(ConnectionEnd, OSError, ValueError):
            if last:
                self.send(last)
            # Closing with unread bytes would reset the connection and destroy what we just said.
            self._socket.settimeout(_LINGER_S)
            if self._plain:
                self._socket.shutdown(socket.SHUT_WR)
            deadline, taken = time.monotonic() + _LINGER_S, 0
            while time.monotonic() < deadline and taken < _LINGER_BYTES:
                count = len(self._socket.recv(1 << 16))
                taken += count
                if not count:
                    break
        self.close()

    def release(self) -> None:
        """Ask for the end of the association, wait a short while for the answer, and close."""
        with contextlib.suppress(ConnectionEnd, ProtocolError):
            self.send(RELEASE_RQ_PDU)
            self.read(wait_s=_LINGER_S)
        self.close()

    def interrupt(self) -> None:
        """Wake a thread that waits for this peer; it then sees the connection as closed."""
        with contextlib.suppress(OSError):
            # The plain method also for TLS: that of a TLS socket would drop the encryption under a running read.
            socket.socket.shutdown(self._socket, socket.SHUT_RD)

    def close(self) -> None:
        """Close at once; what was read is of no more use."""
        with contextlib.suppress(OSError):
            self._socket.close()
        # Whoever still holds this connection, a trace of an error for example, need not hold its largest part.
        self._buffer, self._pending, self._ahead = bytearray(), iter(()), None

    def _fill(self, view: memoryview, within_s: float) -> None:
        deadline = time.monotonic() + within_s
        wanted, got = len(view), 0
        try:
            if self._plain:
                if within_s != self._receive_timeout:
                    self._set_timeout(socket.SO_RCVTIMEO, within_s)
                    self._receive_timeout = within_s
                while got < wanted:
                    # The kernel waits for the whole and keeps the time, so a body costs one call and one wake-up.
                    count = self._socket.recv_into(view[got:], wanted - got, socket.MSG_WAITALL)
                    if not count:
                        raise ConnectionEnd("closed" if not got else "closed-inside-pdu")
                    got += count
                    if got < wanted and time.monotonic() >= deadline:
                        raise ConnectionEnd("too-slow")
                # Peers that write a PDU in two parts (DCMTK without TCP_NODELAY) wait for this acknowledgement.
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            else:
                while got < wanted:
                    left_s = deadline - time.monotonic()
                    if left_s <= 0:
                        raise ConnectionEnd("too-slow")
                    self._socket.settimeout(left_s)
                    count = self._socket.recv_into(view[got:], wanted - got)
                    if not count:
                        raise ConnectionEnd("closed" if not got else "closed-inside-pdu")
                    got += count
        except (BlockingIOError, TimeoutError):
            raise ConnectionEnd("too-slow" if got or wanted > len(self._small) else "silent") from None
        except OSError:
            raise ConnectionEnd("reset") from None

    def _set_timeout(self, option: int, seconds: float) -> None:
        whole = int(seconds)
        with contextlib.suppress(OSError):
            self._socket.setsockopt(
                socket.SOL_SOCKET,
                option,
                struct.pack("@ll", whole, max(int((seconds - whole) * 1e6), 0 if whole else 1)),
            )


def _pdvs(body: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Yield the PDVs of a P-DATA-TF body (PS3.8 section 9.3.5.1)."""
    offset, end = 0, len(body)
    if not end:
        raise ProtocolError("empty-pdu", INVALID_PARAMETER)
    while offset < end:
        if end - offset < 6:
            raise ProtocolError("broken-pdv", INVALID_PARAMETER)
        length, context_id, control = _PDV.unpack_from(body, offset)
        after = offset + 4 + length
        if length < 2 or after > end:
            raise ProtocolError("broken-pdv", INVALID_PARAMETER)
        yield context_id, control, body[offset + 6 : after]
        offset = after


def pdv_header(context_id: int, control: int, length: int) -> bytes:
    """Return the head of a P-DATA-TF PDU that carries one PDV of *length* fragment bytes."""
    return struct.pack(">BxIIBB", P_DATA, length + 6, length + 2, context_id, control)


def tune(connection: socket.socket) -> None:
    """Set what every association wants: no delay, and the kernel's own end for peers that vanished."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    idle_s, interval_s, count = _KEEPALIVE_S
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle_s)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval_s)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, count)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)


def connect(host: str, port: int, *, timeout_s: float) -> socket.socket:
    """Return a tuned connection; raises HubError(unavailable) when there is none in time."""
    try:
        connection = socket.create_connection((host, port), timeout=timeout_s)
    except OSError as error:
        raise HubError(
            Category.UNAVAILABLE,
            f"The DICOM peer cannot be reached: {type(error).__name__}.",
            where=f"{host}:{port}",
            remedy="Check the address of the Endpoint and that the peer listens.",
        ) from error
    tune(connection)
    return connection
