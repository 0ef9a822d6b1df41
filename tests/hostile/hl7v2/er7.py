"""A second reader of HL7 v2, which shares no line with the hub's: it splits, and knows nothing else.

It is what a careless receiver does, and so what must not find more segments or fields than the hub meant to write.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_HEADERS = ("MSH", "BHS", "FHS")
_ESCAPE_LETTERS = "FSRTE"


@dataclass(frozen=True, slots=True)
class Read:
    """One segment: its name, and the raw fields by the standard's numbers."""

    name: str
    fields: dict[int, str]
    separators: str

    def value(self, field: int, component: int = 1) -> str:
        """Return the meaning of that component of the first repetition."""
        _, comp, rep, _, sub = self.separators[:5]
        raw = self.fields.get(field, "").split(rep)[0].split(comp)
        return meaning(raw[component - 1].split(sub)[0], self.separators) if component <= len(raw) else ""


def read(text: str) -> list[Read]:
    """Return the segments of *text*, which may end in any way that some reader takes for the end of a line."""
    made: list[Read] = []
    separators = "|^~\\&"
    for line in text.splitlines():  # CR, LF, VT, FF, FS, GS, RS, U+0085, U+2028, U+2029
        name = line[:3]
        if name in _HEADERS:
            end = line.index(line[3], 4) if line[3] in line[4:] else len(line)
            separators = line[3] + line[4:end]
            cells = ["", line[3], *line[4:].split(line[3])]
        else:
            cells = ["", *line.split(separators[0])[1:]]
        made.append(Read(name, {number: cell for number, cell in enumerate(cells) if number}, separators))
    return made


def meaning(raw: str, separators: str) -> str:
    """Return what *raw* says: the five letters, hexadecimal in UTF-8, and the line break."""
    field, component, repetition, escape, sub = separators[:5]
    letters = dict(zip(_ESCAPE_LETTERS, (field, component, repetition, sub, escape), strict=True))
    letters["P"] = separators[5:] or "P"

    def one(match: re.Match[str]) -> str:
        body = match.group(1)
        if body == ".br":
            return "\n"
        return letters[body] if body in letters else bytes.fromhex(body[1:]).decode("utf-8")

    e = re.escape(escape)
    return re.sub(f"{e}([FSRTEP]|\\.br|X(?:[0-9A-F]{{2}})+){e}", one, raw)
