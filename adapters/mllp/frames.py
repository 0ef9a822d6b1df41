"""MLLP frames without I/O: bytes in, events out (HL7 Minimal Lower Layer Protocol, Transport Specification R2).

A frame is ``0x0B`` message ``0x1C 0x0D``. Neither control byte occurs inside a character of UTF-8 or GB 18030, so
cutting on bytes is safe before the charset is known. The deframer never sees a socket: feed it what arrived with
:meth:`Deframer.receive_data`, take events with :meth:`Deframer.next_event` until it answers ``None``, and hand it to
whatever transport there is. Its work is linear in the bytes received, however they are cut.

Between frames a line may bring noise, which is skipped. What is no noise is never skipped: a message that nobody framed is
a :class:`BrokenFrame`, so that its sender hears of it, and so is another protocol. A web page could else have a browser
inside a hospital post a frame in the body of a request, from an address that the hub trusts.

After a :class:`BrokenFrame` the place where the next message starts cannot be known, so the deframer takes no more:
the peer must open a new connection and send again what was not acknowledged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from hub.errors import Category, HubError

START = 0x0B
END = 0x1C
CARRIAGE_RETURN = 0x0D

#: Bytes kept of what cannot be taken whole: enough for its MSH segment.
HEAD_BYTES = 4096
#: Bytes between frames, with no end block among them, after which the peer is taken not to speak MLLP.
MAX_GARBAGE_BYTES = 4096
#: Line ends and fill bytes that careless senders put between frames; they mean nothing.
_FILL = b"\r\n \x00\t"
#: How a message begins, so that one without a start block is told from noise.
_HEADERS = (b"MSH", b"BHS", b"FHS")
#: The first line of an HTTP request (RFC 9112 section 3) or of HTTP/2 (RFC 9113 section 3.4).
_HTTP = re.compile(rb"[A-Z]{3,10} [^\r\n]* HTTP/[0-9]")
#: Type and major version of a TLS handshake record (RFC 8446 section 5.1).
_TLS = b"\x16\x03"


class Fault(Enum):
    """What is wrong with a frame."""

    #: A second 0x0B stands inside the frame.
    SECOND_START = "second start block inside a frame"
    #: 0x1C is not followed by 0x0D.
    BAD_END = "end block without carriage return"
    #: The frame outgrew the cap.
    OVERSIZE = "frame larger than the cap"
    #: What came between frames is too much to be line noise.
    NO_START = "message without start block"
    #: HTTP or TLS came where MLLP was expected.
    OTHER_PROTOCOL = "another protocol than MLLP"
    #: The stream ended inside the frame.
    CUT = "connection closed inside a frame"


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One whole message, without its block bytes."""

    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """Bytes between frames that belong to none; skipped, and worth a line in the log. Line ends are not counted."""

    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenFrame:
    """A frame that cannot be taken; the last event of its deframer.

    Attributes:
        head: at most the first :data:`HEAD_BYTES` bytes after the start block, from which MSH may be readable.
    """

    fault: Fault
    head: bytes


Event = Frame | Garbage | BrokenFrame


def encode_frame(payload: bytes) -> bytes:
    """Return *payload* as one frame.

    Raises:
        HubError: incorrect, when *payload* holds a block byte and would therefore be read as something else.
    """
    if START in payload or END in payload:
        raise HubError(
            Category.INCORRECT,
            "The message holds an MLLP block byte (0x0B or 0x1C).",
            where="message",
            remedy="Escape control characters as \\Xhh\\ before framing.",
        )
    return b"\x0b%b\x1c\r" % payload


class Deframer:
    """Cuts one connection's bytes into frames."""

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._inside = False
        #: Bytes of the open frame that hold neither a start nor an end block.
        self._scanned = 0
        #: Bytes since the last frame that mean nothing, and how many of them since the last end block.
        self._garbage = 0
        self._stray = 0
        #: The first bytes since the last end block.
        self._stray_head = bytearray()
        self._dead = False
        self._eof = False

    @property
    def in_frame(self) -> bool:
        """Whether a frame has begun and is not complete."""
        return self._inside

    @property
    def frame_bytes(self) -> int:
        """Bytes held of the frame that has begun, 0 between frames."""
        return len(self._buffer) if self._inside else 0

    def receive_data(self, data: bytes) -> None:
        """Take *data* as it came from the peer; ``b""`` says that the peer will send no more."""
        if self._dead:
            return
        if data:
            self._buffer += data
        else:
            self._eof = True

    def next_event(self) -> Event | None:
        """Return the next event, or ``None`` when more data is needed."""
        if self._dead:
            return None
        if not self._inside:
            event = self._seek_start()
            if event is not None or not self._inside:
                return event
        return self._seek_end()

    def _seek_start(self) -> Event | None:
        found = self._buffer.find(START)
        skipped = self._buffer[: found if found >= 0 else len(self._buffer)]
        del self._buffer[: len(skipped) + (1 if found >= 0 else 0)]
        for number, piece in enumerate(skipped.split(bytes([END]))):
            if number:
                # An end block: what came before it is over, and what follows is a thing of its own.
                if self._stray_is_message():
                    return self._broken(Fault.NO_START, bytes(self._stray_head))
                self._garbage += 1
                self._end_stray()
            broken = self._take_stray(piece)
            if broken is not None:
                return broken
        if found < 0 and not self._eof:
            return None
        if self._stray_is_message():
            return self._broken(Fault.NO_START, bytes(self._stray_head))
        if found >= 0:
            self._inside = True
            self._scanned = 0
        self._end_stray()
        if self._garbage:
            event = Garbage(size=self._garbage)
            self._garbage = 0
            return event
        return None

    def _take_stray(self, piece: bytearray) -> BrokenFrame | None:
        """Count *piece*, which stands in no frame; the answer is the same however the stream was cut."""
        size = len(piece.translate(None, _FILL))
        self._garbage += size
        self._stray += size
        head = piece if self._stray_head else piece.lstrip(_FILL)
        room = HEAD_BYTES - len(self._stray_head)
        if head and room:
            self._stray_head += head[:room]
            if self._stray_head.startswith(_TLS) or _HTTP.match(self._stray_head):
                return self._broken(Fault.OTHER_PROTOCOL, b"")
        return self._broken(Fault.NO_START, bytes(self._stray_head)) if self._stray > MAX_GARBAGE_BYTES else None

    def _stray_is_message(self) -> bool:
        return self._stray_head.startswith(_HEADERS)

    def _end_stray(self) -> None:
        self._stray = 0
        self._stray_head.clear()

    def _seek_end(self) -> Event | None:
        buffer = self._buffer
        end = buffer.find(END, self._scanned)
        limit = end if end >= 0 else len(buffer)
        second = buffer.find(START, self._scanned, min(limit, self._max_bytes + 1))
        if second >= 0:
            return self._broken(Fault.SECOND_START, bytes(buffer[: min(second, HEAD_BYTES)]))
        self._scanned = limit
        if limit > self._max_bytes:
            return self._broken(Fault.OVERSIZE, bytes(buffer[: min(self._max_bytes, HEAD_BYTES)]))
        if end >= 0 and end + 1 < len(buffer):
            if buffer[end + 1] != CARRIAGE_RETURN:
                return self._broken(Fault.BAD_END, bytes(buffer[: min(end, HEAD_BYTES)]))
            payload = bytes(memoryview(buffer)[:end])
            del buffer[: end + 2]
            self._inside = False
            return Frame(payload=payload)
        if self._eof:
            return self._broken(Fault.CUT, bytes(buffer[:HEAD_BYTES]))
        return None

    def _broken(self, fault: Fault, head: bytes) -> BrokenFrame:
        self._dead = True
        self._inside = False
        self._buffer.clear()
        return BrokenFrame(fault=fault, head=head)
