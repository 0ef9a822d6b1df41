"""Escape sequences of HL7 v2 text, chapter 2 section 2.7 (v2.5.1 2.7.1 to 2.7.7).

Text that leaves the hub can never start a segment, a field or an MLLP frame: every delimiter and every control
character is escaped. Text that arrives keeps what it cannot express: an escape of a character that FHIR forbids, or
one nobody knows, stays as the sender wrote it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

#: Characters that some reader takes for the end of a line, so they leave as a line break escape.
_LINE_ENDS = "\r\n\u0085\u2028\u2029"
_MAX_REPEAT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Delimiters:
    """The encoding characters of one message, from MSH-1 and MSH-2."""

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"
    truncation: str | None = None

    @property
    def msh_2(self) -> str:
        """The encoding characters in the order of MSH-2."""
        return self.component + self.repetition + self.escape + self.subcomponent + (self.truncation or "")


STANDARD = Delimiters()


@lru_cache(maxsize=64)
def _escapes(delimiters: Delimiters) -> dict[int, str]:
    e = delimiters.escape
    table = {code: f"{e}X{chr(code).encode('utf-8').hex().upper()}{e}" for code in (*range(0x20), *range(0x7F, 0xA0))}
    table.update({ord(char): f"{e}.br{e}" for char in _LINE_ENDS})
    table[ord(delimiters.field)] = f"{e}F{e}"
    table[ord(delimiters.component)] = f"{e}S{e}"
    table[ord(delimiters.repetition)] = f"{e}R{e}"
    table[ord(delimiters.subcomponent)] = f"{e}T{e}"
    table[ord(delimiters.escape)] = f"{e}E{e}"
    if delimiters.truncation is not None:
        table[ord(delimiters.truncation)] = f"{e}P{e}"
    return table


@lru_cache(maxsize=64)
def _known(delimiters: Delimiters) -> re.Pattern[str]:
    e = re.escape(delimiters.escape)
    # Only sequences that are known and closed match, so a stray escape character costs nothing and hides nothing.
    return re.compile(
        f"{e}(?:([FSTREPHN])|X((?:[0-9A-Fa-f]{{2}})+)|\\.(br|sp|sk|ce|fi|nf|in|ti)\\s?([+-]?[0-9]{{0,4}})){e}"
    )


def escape(text: str, delimiters: Delimiters = STANDARD) -> str:
    """Return *text* so that no part of it is read as a delimiter; line ends of every kind become ``\\.br\\``."""
    return text.replace("\r\n", "\n").translate(_escapes(delimiters))


def unescape(text: str, delimiters: Delimiters = STANDARD) -> str:
    """Return what *text* means; line breaks are ``\\n``, highlighting is dropped, unknown sequences stay as written."""
    if delimiters.escape not in text:
        return text
    letters = {
        "F": delimiters.field,
        "S": delimiters.component,
        "T": delimiters.subcomponent,
        "R": delimiters.repetition,
        "E": delimiters.escape,
        "P": delimiters.truncation or "#",
        "H": "",
        "N": "",
    }

    def meaning(match: re.Match[str]) -> str:
        letter, digits, command, count = match.groups()
        if letter is not None:
            return letters[letter]
        if digits is not None:
            return _from_hex(digits, match.group())
        times = min(abs(int(count)) if count.strip("+-") else 1, _MAX_REPEAT)
        if command in {"br", "ce"}:
            return "\n"
        if command == "sp":
            return "\n" * times
        return " " * times if command == "sk" else ""

    return _known(delimiters).sub(meaning, text)


def _from_hex(digits: str, as_written: str) -> str:
    raw = bytes.fromhex(digits)
    for codec in ("utf-8", "gb18030"):
        try:
            text = raw.decode(codec)
        except UnicodeDecodeError:
            continue
        # A FHIR string may hold only these control characters (https://hl7.org/fhir/R4/datatypes.html#string).
        return text if all(char >= " " or char in "\t\r\n" for char in text) and "\x7f" not in text else as_written
    return as_written
