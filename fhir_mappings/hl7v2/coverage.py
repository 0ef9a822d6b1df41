"""Which fields of a message the translation uses, and for what: found by trying, so that no list can fall behind the tables.

Two things are observed. The message is translated from segments that write down which of their fields are asked for; and
each field that was asked for is taken out in turn, and what then differs in the FHIR resources is what it stands for. Field
numbers are those of HL7 v2 chapter 2.5; values are neither kept nor told.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fhir_mappings.errors import MappingError
from fhir_mappings.hl7v2.base import Attachment, Merge, Move, Replace, Snapshot, Translation, Unlink, Upsert
from fhir_mappings.hl7v2.context import MappingContext
from fhir_mappings.hl7v2.tokenizer import Field, Message, Segment
from fhir_mappings.hl7v2.translate import translate

#: ``mapped``: what the field says stands in elements of FHIR. ``required``: without it the message is refused.
#: ``read``: it was looked at and changed nothing. ``door``: it is for whoever takes the message and answers it. ``unused``:
#: nobody asks for it. ``segment``: nor for any field of its segment.
Use = Literal["mapped", "required", "read", "door", "unused", "segment"]

#: Elements that are told of one field; a number that identifies reaches everywhere.
MAX_ELEMENTS = 12
#: Fields that are tried in one message; each costs a translation.
MAX_TRIALS = 400
_HEADERS = frozenset({"MSH", "BHS", "FHS"})
#: What a change that is no resource does, in the words of FHIR.
_NAMES: Mapping[type, str] = {
    Merge: "Patient.link",
    Unlink: "Patient.link",
    Replace: "replaced-by",
    Move: "subject",
    Attachment: "Binary",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldUse:
    """What became of one valued field.

    Attributes:
        index: of the segment in the message, from 0.
        elements: as ``Patient.name``; ``Patient.id`` where the field decides which resource is meant, ``time`` where it
            decides which of two messages is the newer one, ``workflow`` where it moves a Task.
    """

    segment: str
    number: int
    index: int
    use: Use
    elements: tuple[str, ...] = ()


class _Observed(Segment):
    """A segment that writes down which fields are asked for."""

    __slots__ = ("_asked",)

    def __init__(self, of: Segment, message: Message, asked: set[tuple[int, int]]) -> None:
        super().__init__(of.name, of.index, of.line, of.terminator, message.delimiters)
        self._asked = asked

    def field(self, number: int) -> Field:
        """Return the field, as the segment would."""
        self._asked.add((self.index, number))
        return super().field(number)

    def get(self, number: int, component: int = 1, sub: int = 1) -> str:
        """Return the meaning, as the segment would."""
        self._asked.add((self.index, number))
        return super().get(number, component, sub)


def observed(message: Message, asked: set[tuple[int, int]]) -> Message:
    """Return *message* as one that adds to *asked* the segment, from 0, and the number of each field that is asked for."""
    segments = tuple(_Observed(one, message, asked) for one in message.segments)
    return Message(message.raw, message.prefix, message.delimiters, segments)


def uses(
    message: Message, ctx: MappingContext, door: Container[tuple[int, int]] = ()
) -> tuple[Translation, list[FieldUse]]:
    """Return the translation of *message*, and what became of each of its valued fields, in their order.

    Fields beyond :data:`MAX_TRIALS` that were asked for are told as ``read``.

    Args:
        door: what was asked for before the translation, as :func:`observed` tells it.

    Raises:
        MappingError: the message cannot be translated; see :func:`fhir_mappings.hl7v2.translate.translate`.
    """
    asked: set[tuple[int, int]] = set()
    translation = translate(observed(message, asked), ctx)
    before = _facts(translation)
    known = {index for index, _ in asked}
    found: list[FieldUse] = []
    trials = 0
    for segment in message.segments:
        for number in valued(segment):
            place = {"segment": segment.name, "number": number, "index": segment.index}
            if (segment.index, number) not in asked and (segment.index, number) in door:
                found.append(FieldUse(**place, use="door"))  # type: ignore[arg-type]
            elif segment.index not in known:
                found.append(FieldUse(**place, use="segment"))  # type: ignore[arg-type]
            elif (segment.index, number) not in asked:
                found.append(FieldUse(**place, use="unused"))  # type: ignore[arg-type]
            elif trials < MAX_TRIALS:
                trials += 1
                found.append(FieldUse(**place, **_tried(message, segment, number, ctx, before)))  # type: ignore[arg-type]
            else:
                found.append(FieldUse(**place, use="read"))  # type: ignore[arg-type]
    return translation, found


def valued(segment: Segment) -> Iterator[int]:
    """Yield the numbers of the fields of *segment* in which anything is written, MSH-1 and MSH-2 left out."""
    first = 3 if segment.name in _HEADERS else 1
    for number in range(first, segment.field_count + 1):
        if not segment.field(number).is_absent:
            yield number


def _tried(
    message: Message, segment: Segment, number: int, ctx: MappingContext, before: Mapping[str, Mapping[str, list[str]]]
) -> dict[str, Any]:
    """Return the use of a field by what is otherwise without it."""
    separator = message.delimiters.field
    cells = segment.line.split(separator)
    cells[number - 1 if segment.name in _HEADERS else number] = ""
    without = Segment(segment.name, segment.index, separator.join(cells), segment.terminator, message.delimiters)
    segments = tuple(without if one.index == segment.index else one for one in message.segments)
    text = message.prefix + "".join(one.line + one.terminator for one in segments)
    try:
        after = _facts(translate(Message(text, message.prefix, message.delimiters, segments), ctx))
    except MappingError:
        return {"use": "required"}
    elements = tuple(_differing(before, after))
    return {"use": "mapped", "elements": elements[:MAX_ELEMENTS]} if elements else {"use": "read"}


def _facts(translation: Translation) -> dict[str, dict[str, list[str]]]:
    """Return what a translation states, by resource and element."""
    found: dict[str, dict[str, list[str]]] = {"time/": {"": [translation.asserted_at.isoformat()]}}
    for change in translation.changes:
        if isinstance(change, Upsert):
            elements = found.setdefault(change.reference, {})
            for source in (change.defaults, change.resource):
                for name, value in source.items():
                    if name not in {"resourceType", "id"}:
                        elements.setdefault(name, []).append(repr(value))
            for name in change.cleared:
                elements.setdefault(name.partition(".")[0].partition(":")[0], []).append("cleared")
        elif not isinstance(change, Snapshot):
            # A list of what is still so follows from the resources that are listed.
            found.setdefault(f"{_NAMES[type(change)]}/", {}).setdefault("", []).append(repr(change))
    for event in translation.workflow_events:
        found.setdefault("workflow/", {}).setdefault("", []).append(repr(event))
    return found


def _differing(
    before: Mapping[str, Mapping[str, list[str]]], after: Mapping[str, Mapping[str, list[str]]]
) -> list[str]:
    gone, come = before.keys() - after.keys(), after.keys() - before.keys()
    kinds = {one.partition("/")[0] for one in come}
    found: set[str] = set()
    for reference in gone:
        kind = reference.partition("/")[0]
        # Another id means another resource; one that is not made at all is the field's own.
        found.add(f"{kind}.id" if kind in kinds else kind)
    moved = bool(gone and come)
    for reference in before.keys() & after.keys():
        kind = reference.partition("/")[0]
        for name in before[reference].keys() | after[reference].keys():
            old, new = before[reference].get(name), after[reference].get(name)
            # References to a resource that got another id say no more than that it did.
            if old != new and not (moved and old and new and any(f"{one}'" in "".join(old) for one in gone)):
                found.add(f"{kind}.{name}" if name else kind)
    return sorted(found)
