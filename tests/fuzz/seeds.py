"""Where fuzzing starts: the hostile corpus and the words that the formats are made of."""

from __future__ import annotations

from functools import cache

from tests.hostile.hl7v2.corpus import corpus

LARGEST_BYTES = 4_096
#: What mutations put in; each has a meaning somewhere.
WORDS = (
    b"\x0b", b"\x1c", b"\r", b"\n", b"\x1c\r", b"\x0bMSH|", b"MSH|^~\\&|", b"MSH", b"BHS|^~\\&|\r", b"FHS|^~\\&|\r", b"BTS|1\r", b"FTS|1\r",
    b"PID|1||", b"|", b"^", b"~", b"\\", b"&", b"#", b'""', b"\\X0D\\", b"\\X", b"\\.br\\", b"\\.sk99\\", b"\\E\\", b"\\F\\", b"\0",
    b"\xef\xbb\xbf", b"\xff\xfe", b"\xe4\xb8\x8b", b"\xea\x90", b"\x96\x7c", b"\xc0\x8d", b"\xed\xa0\x80", b"\xc2\x85", b"\xe2\x80\xa8",
    b"\x1b$)A", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"<a>", b"{", b"UNICODE UTF-16", b"M\0S\0H\0",
)  # fmt: skip


@cache
def seeds() -> tuple[bytes, ...]:
    """Return what the hostile cases send, with and without block bytes; the long ones are left out."""
    wires = (b"".join(case.wire) for case in corpus())
    short = [wire for wire in wires if 0 < len(wire) <= LARGEST_BYTES]
    bare = [wire.strip(b"\x0b\x1c\r") for wire in short]
    return tuple(dict.fromkeys([*short, *bare]))
