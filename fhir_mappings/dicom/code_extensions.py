"""Chinese text under code extensions: GB 2312 in G1 beside ASCII in G0 (PS3.5 section 6.1.2.5 and annex K; PS3.3 table
C.12-4, defined term ISO 2022 IR 58).

The escape holds to the end of a line, value or component only (PS3.5 section 6.1.2.5.3), so each that has a character
of the set begins with it. G0 stays ASCII throughout and is never designated again.
"""

from __future__ import annotations

import re

#: What an answer declares: no first value, which is the default repertoire, then the code extension.
GB2312_LABEL = "\\ISO 2022 IR 58"
#: Designates GB 2312 to G1 (ISO-IR 58).
_ESCAPE = b"\x1b$)A"
_GB2312_TERM = "ISO 2022 IR 58"
#: Where a designation ends: at control characters of text and between values; in names between components also.
_ENDS = re.compile(r"([\t\n\f\r\\])")
_NAME_ENDS = re.compile(r"([\t\n\f\r\\^=])")


def reads_gb2312(character_set: str) -> bool:
    """Return whether who wrote *character_set*, values of (0008,0005), reads GB 2312 by code extension."""
    return _GB2312_TERM in [one.strip() for one in character_set.split("\\")]


def in_gb2312(text: str) -> bool:
    """Return whether *text* has ASCII and characters of GB 2312 only."""
    return all(_code(one) is not None for one in set(text))


def write_gb2312(text: str, *, name: bool) -> bytes:
    """Return *text* with the escape wherever it must stand; what GB 2312 lacks becomes a question mark.

    Args:
        name: whether it is a PN, in which ``^`` and ``=`` divide components.
    """
    return b"".join([_piece(one) for one in (_NAME_ENDS if name else _ENDS).split(text)])


def _piece(text: str) -> bytes:
    if text.isascii():
        return text.encode("ascii")
    return _ESCAPE + b"".join([_code(one) or b"?" for one in text])


def _code(character: str) -> bytes | None:
    """Return the bytes of a character in G1, ASCII in G0, or ``None`` where GB 2312 lacks it."""
    if character.isascii():
        return character.encode("ascii")
    # Python's own gb2312 takes the dot of names such as 阿依古丽·买买提 for another one; GB 18030 has it, and the dash,
    # at the places where GB 2312 has them.
    try:
        code = character.encode("gb18030")
        code.decode("gb2312")
    except UnicodeError:
        return None
    return code
