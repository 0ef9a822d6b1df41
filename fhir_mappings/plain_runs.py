"""Documents inside a message, set aside while its character set is found.

A PDF of ten megabytes in OBX-5 is thirteen megabytes of Base64 that say nothing about the character set of the text around
them, and each pass over them keeps every other thread of the process waiting. So long runs of ASCII are replaced by short
marks, the rest is judged and decoded as ever, and the runs are put back.

A run is what stands between two bytes ``|`` and is ASCII throughout. That byte ends a character in each character set
of HL7 table 0211, be it the separator itself or the second byte of a character, so no character reaches into a run.
"""

from __future__ import annotations

#: A message below this size is decoded at once as it is.
SMALLEST_MESSAGE_BYTES = 1 << 20
#: A run below this size stays where it is.
SMALLEST_RUN_BYTES = 1 << 16

_MARK = b"\x1a"
_SEPARATOR = b"|"
#: ESC and SO shift ISO 2022 to other characters in seven bits, NUL is in wide characters, and what is a mark already is none.
_NEVER_IN = (b"\x1b", b"\x0e", b"\0", _MARK)
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")


def take_out(raw: bytes) -> tuple[bytes, list[bytes]]:
    """Return *raw* with marks for its long runs of ASCII, and the runs; *raw* itself and none where it has none.

    *raw* must not be in UTF-16 or UTF-32; what is marked as either is left alone.
    """
    if len(raw) < SMALLEST_MESSAGE_BYTES or raw.startswith(_WIDE_MARKS) or any(byte in raw for byte in _NEVER_IN):
        return raw, []
    kept: list[bytes] = []
    runs: list[bytes] = []
    begin = position = 0
    while position < len(raw):
        last = raw.rfind(_SEPARATOR, position, position + SMALLEST_RUN_BYTES)
        if last >= 0:
            position = last + 1
            continue
        end = raw.find(_SEPARATOR, position + SMALLEST_RUN_BYTES)
        end = len(raw) if end < 0 else end
        run = raw[position:end]
        if position and len(run) >= SMALLEST_RUN_BYTES and run.isascii():
            kept += [raw[begin:position], b"%b%d%b" % (_MARK, len(runs), _MARK)]
            runs.append(run)
            begin = end
        position = end
    return (b"".join([*kept, raw[begin:]]), runs) if runs else (raw, [])


def put_back(text: str, runs: list[bytes]) -> str:
    """Return *text*, decoded from what :func:`take_out` left, with *runs* in their places."""
    parts = text.split(_MARK.decode("ascii"))
    parts[1::2] = [run.decode("ascii") for run in runs]
    return "".join(parts)
