"""Text that others wrote, for a terminal or a log: what steers one is written out, and everything else stays.

The journal keeps and finds control ids and names as they were sent; only where they are shown do they go through here. The
sets are those of ECMA-48 (C0, DEL, C1) and of Unicode UAX #9 (marks of direction).
"""

from __future__ import annotations

_CONTROLS = (*range(0x20), *range(0x7F, 0xA0), 0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
#: Written as JSON writes them, so that a line of JSON stays what it was.
_SHOWN = {code: f"\\u{code:04x}" for code in _CONTROLS if chr(code) not in "\t\n"}


def printable(text: str) -> str:
    """Return *text* with its control characters written out as ``\\u001b``; tabs and line ends stay.

    What senders write into names and messages must not steer the operator's terminal (ECMA-48), nor turn the direction in
    which it is read (Unicode UAX #9).
    """
    return text.translate(_SHOWN)
