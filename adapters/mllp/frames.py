"""MLLP frames without I/O: bytes in, events out (HL7 Minimal Lower Layer Protocol, Transport Specification R2).

A frame is ``0x0B`` message ``0x1C 0x0D``. Neither control byte occurs inside a character of UTF-8 or GB 18030, so
cutting on bytes is safe before the charset is known. The deframer never sees a socket: feed it what arrived with
:meth:`Deframer.receive_data`, take events with :meth:`Deframer.next_event` until it answers ``None``, and hand it to
whatever transport there is. Its work is linear in the bytes received, however they are cut.

After a :class:`BrokenFrame` the place where the next message starts cannot be known, so the deframer takes no more:
the peer must open a new connection and send again what was not acknowledged.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from hub.errors import Category, HubError

START = 0x0B
END = 0x1C
CARRIAGE_RETURN = 0x0D

#: Bytes kept of what cannot be taken whole: enough for its MSH segment.
HEAD_BYTES = 4096
#: Bytes between frames after which the peer is taken not to speak MLLP.
MAX_GARBAGE_BYTES = 4096
#: Line ends and fill bytes that careless senders put between frames; they mean nothing.
_FILL = b"\r\n \x00\t"


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
        self._garbage = 0
        self._garbage_head = bytearray()
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
        self._garbage += len(skipped.translate(None, _FILL))
        if self._garbage:
            head = skipped if self._garbage_head else skipped.lstrip(_FILL)
            self._garbage_head += head[: HEAD_BYTES - len(self._garbage_head)]
        if self._garbage > MAX_GARBAGE_BYTES:
            return self._broken(Fault.NO_START, bytes(self._garbage_head))
        if found >= 0:
            self._inside = True
            self._scanned = 0
        elif not self._eof:
            return None
        if self._garbage:
            event = Garbage(size=self._garbage)
            self._garbage = 0
            self._garbage_head.clear()
            return event
        return None

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
