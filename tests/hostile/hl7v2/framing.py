"""Hostile framing: MLLP block bytes missing, doubled, nested, torn, and peers that speak something else.

HL7 Minimal Lower Layer Protocol, Transport Specification R2. A message that was not framed is refused if its MSH can be
read, and never dropped in silence; line noise between frames is skipped.
"""

from __future__ import annotations

from adapters.mllp.frames import MAX_GARBAGE_BYTES
from tests.hostile.hl7v2.cases import CR, FS, SMUGGLED, TAIL, VT, Case, Family, admit, framed

#: The cap of the ordinary door, and of the one with short deadlines.
MAX_BYTES = 16 << 20
HURRIED_MAX_BYTES = 64 << 10

# A ClientHello of TLS 1.2 without extensions: RFC 5246 section 7.4.1.2.
CLIENT_HELLO = (
    bytes.fromhex("16030100310100002d0303") + bytes(range(0x20, 0x40)) + bytes.fromhex("000006c02bc02f00ff0100")
)


def cases() -> list[Case]:
    """Return the family."""
    f = Family("framing", 1)
    _torn(f)
    _unframed(f)
    _misframed(f)
    _empty(f)
    _other_protocols(f)
    _endless(f)
    return f.cases


def _good(f: Family) -> bytes:
    return admit(*f.ids()).encode("gb18030")


def _pieces(data: bytes, size: int) -> tuple[bytes, ...]:
    return tuple(data[at : at + size] for at in range(0, len(data), size))


def _torn(f: Family) -> None:
    f.add("one piece", framed(_good(f)), says="AA", stored=True)
    for size in (1, 2, 3, 7, 64):
        f.add(f"in pieces of {size} bytes", *_pieces(framed(_good(f)), size), says="AA", stored=True)
    f.add("the start block alone first", VT, _good(f) + TAIL, says="AA", stored=True)
    f.add("the end block alone last", VT + _good(f), TAIL, says="AA", stored=True)
    f.add("torn inside the end block", VT + _good(f) + FS, CR, says="AA", stored=True)
    f.add("two in one piece", framed(_good(f)) * 2, says=("AA", "AA"), stored=True, writes=("done",))
    f.add("twenty in one piece", framed(_good(f)) * 20, says=("AA",) * 20, stored=True, writes=("done",))
    f.add(
        "three, each torn in a character",
        *_pieces(framed(_good(f)) * 3, 11),
        says=("AA",) * 3,
        stored=True,
        writes=("done",),
    )
    f.add("one, and the peer ends its side", framed(_good(f)), says="AA", then="closed", stored=True, ends=True)


def _unframed(f: Family) -> None:
    f.add("no start block", _good(f) + TAIL, says="AR 100", then="closed")
    f.add("no start block, in pieces of one byte", *_pieces(_good(f) + TAIL, 1), says="AR 100", then="closed")
    f.add("no start block, line ends first", b"\r\n\r\n" + _good(f) + TAIL, says="AR 100", then="closed")
    f.add("no start block, a whole frame behind", _good(f) + TAIL + framed(_good(f)), says="AR 100", then="closed")
    f.add("no block bytes at all, a frame behind", _good(f) + framed(_good(f)), says="AR 100", then="closed")
    f.add("no block bytes, and the peer ends its side", _good(f), says="AR 100", then="closed", ends=True)
    f.add("no start block, behind a whole frame", framed(_good(f)) + _good(f) + TAIL, says=("AA", "AR 100"), then="closed", stored=True)  # fmt: skip
    f.add("no start block before a batch", b"BHS|^~\\&|HIS|KNYY\r" + _good(f) + TAIL, then="closed")
    f.add("a page of text", b"x" * (MAX_GARBAGE_BYTES + 1), then="closed")
    f.add("a page of text with a header", _good(f) + b"x" * MAX_GARBAGE_BYTES, says="AR 100", then="closed")
    f.add("as much noise as is borne", b"x" * MAX_GARBAGE_BYTES + framed(_good(f)), says="AA", stored=True)
    f.add("noise before the frame", b"noise\r\n" + framed(_good(f)), says="AA", stored=True)
    f.add("fill bytes before the frame", b"\x00" * 9000 + framed(_good(f)), says="AA", stored=True)
    f.add("a byte order mark before the frame", b"\xef\xbb\xbf" + framed(_good(f)), says="AA", stored=True)
    f.add("telnet options before the frame", bytes.fromhex("fffb01fffb03") + framed(_good(f)), says="AA", stored=True)
    f.add(
        "noise between two frames",
        framed(_good(f)) + b"noise" + framed(_good(f)),
        says=("AA", "AA"),
        stored=True,
        writes=("done",),
    )


def _misframed(f: Family) -> None:
    f.add("no end block", VT + _good(f), says="AR 100", then="closed")
    f.add("no end block, and the peer ends its side", VT + _good(f), then="closed", ends=True)
    f.add("no carriage return behind the end block", VT + _good(f) + FS, says="AR 100", then="closed")
    f.add("a line feed behind the end block", VT + _good(f) + FS + b"\n", says="AR 100", then="closed")
    f.add("the end byte doubled", VT + _good(f) + FS + TAIL, says="AR 100", then="closed")
    f.add("the end block doubled", framed(_good(f)) + TAIL, says="AA", stored=True)
    f.add("a carriage return too many", framed(_good(f)) + CR, says="AA", stored=True)
    f.add("the start block doubled", VT + framed(_good(f)), then="closed")
    f.add("a frame in a frame", VT + _good(f) + framed(_good(f)), says="AR 100", then="closed")
    f.add(
        "a frame in a frame in a frame", VT + _good(f) + VT + _good(f) + framed(_good(f)), says="AR 100", then="closed"
    )
    f.add("a start block inside a name", framed(_good(f).replace(b"|M", b"|M|" + VT)), says="AR 100", then="closed")
    f.add(
        "an end byte inside a name", framed(_good(f).replace(b"|M", b"|M|" + FS + b"x")), says="AR 100", then="closed"
    )
    split = _good(f).split(b"PID", 1)
    f.add("an end block between two segments", framed(split[0]) + b"PID" + split[1] + TAIL, says="AE 100")
    f.add("end before start", TAIL + framed(_good(f)), says="AA", stored=True)
    f.add("the block bytes swapped", FS + _good(f) + VT + CR, says="AR 100", then="closed")
    f.add("a start block that nothing follows", TAIL + VT, then="closed")
    f.add("start blocks alone", VT * 3, then="closed")
    f.add("end blocks alone", TAIL * 300)
    f.add("a smuggled frame behind a good one", framed(_good(f)) + VT + f"PID|1||{SMUGGLED}".encode() + TAIL, says=("AA", "AR 100"), stored=True, control=(f.ids()[0], ""))  # fmt: skip


def _empty(f: Family) -> None:
    for name, payload in (
        ("nothing", b""), ("a carriage return", CR), ("line ends", b"\r\n" * 50), ("NULs", b"\x00" * 40),
        ("spaces", b" " * 40), ("one letter", b"M"), ("the name alone in lower case", b"msh"), ("a mark", b"\xef\xbb\xbf"),
        ("random bytes", bytes(n for n in range(256) if n not in {0x0B, 0x1C})),
    ):  # fmt: skip
        f.add(f"{name} in a frame", framed(payload), says="AR 100", control=("",))
    f.add("fifty empty frames", framed(b"") * 50, says=("AR 100",) * 50, control=("",) * 50)
    f.add("spaces before MSH", framed(b"  " + _good(f)), says="AR 100", control=("",))
    f.add("line ends before MSH", framed(b"\r\n" + _good(f)), says="AA", stored=True)
    f.add("NULs behind the message", framed(_good(f) + b"\x00\x00"), says="AE 100")
    f.add("a DOS end of file behind the message", framed(_good(f) + b"\x1a"), says="AE 100")


def _other_protocols(f: Family) -> None:
    post = b"POST / HTTP/1.1\r\nHost: his.example\r\nContent-Type: text/plain\r\n\r\n"
    f.add("an HTTP request", b"GET / HTTP/1.1\r\nHost: his.example\r\n\r\n", then="closed", ends=True)
    # A page that a browser in the hospital shows could send this, from an address that the hub knows.
    f.add("a frame in the body of an HTTP request", post + framed(_good(f)), then="closed")
    f.add("the same, in pieces of one byte", *_pieces(post + framed(_good(f)), 1), then="closed")
    f.add("a frame behind HTTP/2's preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + framed(_good(f)), then="closed")
    f.add("TLS to the plain port", CLIENT_HELLO, then="closed", ends=True)
    f.add("a frame behind TLS to the plain port", CLIENT_HELLO + framed(_good(f)), then="closed")
    f.add("the first bytes of TLS to the plain port", CLIENT_HELLO[:2], then="closed")
    f.add("SSH", b"SSH-2.0-OpenSSH_9.6\r\n", then="closed", ends=True)
    f.add(
        "DICOM", bytes.fromhex("0100000000cc00010000") + b"YIXIE           KN_PACS         ", then="closed", ends=True
    )
    f.add("a proxy's first line before the frame", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2575\r\n" + framed(_good(f)), says="AA", stored=True)  # fmt: skip


def _endless(f: Family) -> None:
    for name, size in (("a frame of the cap and a byte", MAX_BYTES + 1), ("twenty megabytes", 20_000_000)):
        long = admit(*f.ids(), extra="ZZZ|").encode("gb18030")
        f.add(name, framed(long + b"x" * (size - len(long))), says="AR 100", then="closed")
    f.add("sixteen megabytes and a NUL without a header", VT + b"\x00" * (MAX_BYTES + 1), then="closed")
    f.add("a frame that never ends", *(VT + _good(f), *[b"ZZZ|" + b"x" * 4092] * 40), says="AR 100", then="closed", hurried=True)  # fmt: skip
    f.add("a frame that stops", VT + _good(f), then="closed", hurried=True)
    f.add("an end block that stops halfway", VT + _good(f) + FS, then="closed", hurried=True)
    f.add("a peer that says nothing", then="closed", hurried=True)
    f.add("a peer that says only line ends", b"\r\n" * 100, then="closed", hurried=True)
