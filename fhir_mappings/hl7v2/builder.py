"""Messages built so that no value can become structure: every value is escaped (HL7 v2 chapter 2, section 2.7).

A field value is one of: a string (one value); a list (the components, each a string or a list of subcomponents); or
``Repeat([...])`` for several repetitions. ``NULL`` writes ``""``, which asks the receiver to delete its value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fhir_mappings.hl7v2.escapes import STANDARD, Delimiters, escape
from fhir_mappings.hl7v2.tokenizer import NULL as NULL_TEXT

_NAME = re.compile(r"[A-Z][A-Z0-9]{2}")


class Null:
    """The HL7 null value."""

    __slots__ = ()


NULL: Final = Null()

ComponentValue = str | Null | Sequence[str]
RepetitionValue = str | Null | Sequence[ComponentValue]


@dataclass(frozen=True, slots=True)
class Repeat:
    """Several repetitions of one field."""

    values: Sequence[RepetitionValue]


FieldValue = RepetitionValue | Repeat | None


class MessageBuilder:
    """Collects segments and writes them; the header's delimiters come from *delimiters*."""

    def __init__(self, delimiters: Delimiters = STANDARD) -> None:
        self.delimiters = delimiters
        self._lines: list[str] = []

    def segment(self, name: str, fields: Mapping[int, FieldValue]) -> MessageBuilder:
        """Append segment *name* with *fields* by the standard's numbers; MSH-1 and MSH-2 are written by the builder.

        Raises:
            ValueError: the name is not a segment name, or a field number is below 1 or is MSH-1 or MSH-2.
        """
        if _NAME.fullmatch(name) is None:
            raise ValueError(f"{name!r} is not a segment name")
        header = name in {"MSH", "BHS", "FHS"}
        lowest = 3 if header else 1
        if any(number < lowest for number in fields):
            raise ValueError(f"fields of {name} start at {lowest}")
        cells = [name, self.delimiters.msh_2] if header else [name]
        cells.extend(self._field(fields.get(number)) for number in range(lowest, max(fields, default=0) + 1))
        while len(cells) > lowest - 1 and not cells[-1] and len(cells) > 1:
            cells.pop()
        self._lines.append(self.delimiters.field.join(cells))
        return self

    def to_text(self) -> str:
        """Return the message; every segment ends with a carriage return."""
        return "".join(line + "\r" for line in self._lines)

    def _field(self, value: FieldValue) -> str:
        if isinstance(value, Repeat):
            return self.delimiters.repetition.join(self._repetition(item) for item in value.values)
        return "" if value is None else self._repetition(value)

    def _repetition(self, value: RepetitionValue) -> str:
        if isinstance(value, str | Null):
            return self._leaf(value)
        return self._joined((self._component(item) for item in value), self.delimiters.component)

    def _component(self, value: ComponentValue) -> str:
        if isinstance(value, str | Null):
            return self._leaf(value)
        return self._joined((self._leaf(item) for item in value), self.delimiters.subcomponent)

    def _leaf(self, value: str | Null) -> str:
        if isinstance(value, Null):
            return NULL_TEXT
        # A person's text that happens to be two quotation marks is not a request to delete; a space keeps it text.
        return escape(value, self.delimiters) if value != NULL_TEXT else '" "'

    @staticmethod
    def _joined(parts: Iterable[str], separator: str) -> str:
        return separator.join(parts).rstrip(separator)
