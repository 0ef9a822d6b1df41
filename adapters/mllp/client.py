"""The sending side of MLLP: one connection, one message in flight, its answer or an error.

HL7 Minimal Lower Layer Protocol, Transport Specification R2. A connection that missed an answer is of no more use:
the late answer would be taken for the next message's. So every trouble closes it, and the next message opens another.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
from collections.abc import Callable

from adapters._tls import line_of
from adapters.mllp.frames import BrokenFrame, Deframer, Frame, encode_frame
from hub.certificates import OPEN_LINE, Line

READ_BYTES = 1 << 16
ANSWER_MAX_BYTES = 16 << 20
#: How long one who says frames faster than they are read is listened to when the connection is closed.
_LEAVE_S = 1.0

#: Takes a frame that answers an earlier message and returns True; False for a frame that is none of that kind.
Stray = Callable[[bytes], bool]


def _no_stray(_: bytes) -> bool:
    return False


class NoAnswer(Exception):  # noqa: N818 - what happened, not a category of the hub
    """There is no answer to the message; whether the peer took it is not known.

    Attributes:
        reached: the peer sent something, though no answer.
    """

    def __init__(self, message: str, *, reached: bool = False) -> None:
        super().__init__(message)
        self.reached = reached


class MllpClient:
    """A connection to one address, opened when needed and kept. Not for use by two threads at once.

    Attributes:
        line: what the peer showed when the present connection was opened; an open line while there is none.
    """

    def __init__(self, host: str, port: int, *, timeout_s: float, tls: ssl.SSLContext | None = None) -> None:
        self._deframer = Deframer(max_bytes=ANSWER_MAX_BYTES)
        self._host = host
        self._port = port
        self._timeout_s = timeout_s
        self._tls = tls
        self._socket: socket.socket | None = None
        self.line: Line = OPEN_LINE

    def exchange(self, payload: bytes, *, stray: Stray = _no_stray) -> bytes:
        """Send *payload* and return the next frame that the peer sends, within the timeout from connecting to answer.

        Frames that *stray* takes are passed over. One that waits before *payload* is sent can be no answer to it: where
        *stray* does not take it, the connection is replaced.

        Raises:
            NoAnswer: the peer cannot be reached, closed, took too long or does not speak MLLP; the connection is closed.
            HubError: incorrect, when *payload* cannot be framed.
        """
        return self._send(payload, answered=True, stray=stray)

    def more(self, wait_s: float, *, stray: Stray = _no_stray) -> bytes | None:
        """Return one more frame that *stray* does not take, ``None`` when none comes in *wait_s* seconds.

        With 0 only what has come together with the answer is looked at. The connection stays of use, unless it ended.
        """
        if self._socket is None:
            return None
        try:
            return self._answer(self._socket, time.monotonic() + wait_s, stray)
        except TimeoutError:
            return None
        except (NoAnswer, OSError):
            # The message was answered before, so that what ended here is the connection and nothing more.
            self.close()
            return None

    def post(self, payload: bytes, *, stray: Stray = _no_stray) -> None:
        """Send *payload*, to which no answer is due; returns once the kernel has it.

        What came before it is looked at as by :meth:`exchange`.

        Raises:
            NoAnswer: the peer cannot be reached or takes nothing; the connection is closed.
            HubError: incorrect, when *payload* cannot be framed.
        """
        self._send(payload, answered=False, stray=stray)

    def _send(self, payload: bytes, *, answered: bool, stray: Stray) -> bytes:
        framed = encode_frame(payload)
        deadline = time.monotonic() + self._timeout_s
        try:
            connection = self._connected(deadline, stray)
            connection.settimeout(_left(deadline))
            connection.sendall(framed)
            return self._answer(connection, deadline, stray) if answered else b""
        except NoAnswer:
            self.close()
            raise
        except TimeoutError as error:
            self.close()
            raise NoAnswer("The peer did not answer in time.") from error
        except OSError as error:
            self.close()
            raise NoAnswer(f"The connection failed: {error.strerror or type(error).__name__}.") from error

    def leave(self, *, stray: Stray) -> None:
        """Close the connection, having given *stray* what had come on it; waits for nothing more."""
        if self._socket is not None:
            self._is_of_use(self._socket, time.monotonic() + _LEAVE_S, stray)
            self.close()

    def close(self) -> None:
        """Close the connection; the next exchange opens another."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None
            self.line = OPEN_LINE

    def _connected(self, deadline: float, stray: Stray) -> socket.socket:
        if self._socket is not None and not self._is_of_use(self._socket, deadline, stray):
            # Closed by the peer meanwhile, or a late answer to a message long given up.
            self.close()
        if self._socket is None:
            self._deframer = Deframer(max_bytes=ANSWER_MAX_BYTES)
            connection = socket.create_connection((self._host, self._port), timeout=self._timeout_s)
            try:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                self._socket = (
                    self._tls.wrap_socket(connection, server_hostname=self._host) if self._tls else connection
                )
            except BaseException:
                connection.close()
                raise
            self.line = line_of(self._socket)
        return self._socket

    def _is_of_use(self, connection: socket.socket, deadline: float, stray: Stray) -> bool:
        """Return whether the next message may go on *connection*, having read what came on it since the last answer."""
        try:
            connection.setblocking(False)
            while True:
                while (frame := self._frame()) is not None:
                    if not stray(frame):
                        return False
                if not _speaks_unasked(connection):
                    return True
                # Who says answers faster than they are read could else keep the lane for ever.
                _left(deadline)
                data = connection.recv(READ_BYTES)
                if not data:
                    return False
                self._deframer.receive_data(data)
        except (BlockingIOError, ssl.SSLWantReadError):
            # TLS has words of its own, such as a session ticket, which are none of the peer's application.
            return True
        except (NoAnswer, OSError):
            return False

    def _answer(self, connection: socket.socket, deadline: float, stray: Stray) -> bytes:
        heard = False
        while True:
            while (frame := self._frame()) is not None:
                if not stray(frame):
                    return frame
            connection.settimeout(_left(deadline))
            data = connection.recv(READ_BYTES)
            heard = heard or bool(data)
            self._deframer.receive_data(data)
            if not data:
                # What ends in the middle of a frame says so first.
                self._frame()
                raise NoAnswer("The peer closed the connection without an answer.", reached=heard)

    def _frame(self) -> bytes | None:
        """Return the next whole frame of what was read, ``None`` when there is none.

        Raises:
            NoAnswer: what came is no frame.
        """
        while (event := self._deframer.next_event()) is not None:
            if isinstance(event, Frame):
                return event.payload
            if isinstance(event, BrokenFrame):
                raise NoAnswer(f"The peer's answer is no MLLP frame: {event.fault.value}.", reached=True)
        return None


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _speaks_unasked(connection: socket.socket) -> bool:
    if isinstance(connection, ssl.SSLSocket) and connection.pending():
        return True
    # Not select(2), which knows no descriptor above 1023.
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))
