"""What each field of an HL7 v2 message reaches in FHIR, found by leaving it out: the code answers, and no list of ours.

The messages are the samples of the consortium and those under ``tests/fhir_mappings/hl7v2/every_field``, in which every
field of a segment is valued (HL7 v2 chapters 3 to 12). Each field is emptied in turn; where the event requires it, it gets
another value. The elements of FHIR that differ then are what the field reaches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from fhir_mappings.errors import MappingError
from fhir_mappings.hl7v2.base import Attachment, Translation, Upsert
from fhir_mappings.hl7v2.charset import decode_message
from fhir_mappings.hl7v2.context import MappingContext
from fhir_mappings.hl7v2.tokenizer import Field, Segment, parse
from fhir_mappings.hl7v2.translate import translate
from tests.fhir_mappings.hl7v2.golden import context, institution_of, samples

EVERY_FIELD = Path(__file__).parents[1] / "fhir_mappings" / "hl7v2" / "every_field"


def messages() -> Iterator[tuple[str, str, MappingContext]]:
    """Yield name, text (segments end with CR) and context of every message that is looked at."""
    for path in sorted(EVERY_FIELD.glob("*.hl7")):
        yield path.stem, path.read_text("utf-8").replace("\n", "\r"), context("YL")
    for path in samples():
        yield path.stem, decode_message(path.read_bytes()).text, context(institution_of(path))


def flat(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield path and text of every leaf; items of lists have no place, ids of resources no value."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from flat(part, f"{path}.{name.lstrip('_')}")
    elif isinstance(value, list | tuple):
        for part in value:
            named = isinstance(part, Mapping) and path.endswith("xtension") and "url" in part
            yield from flat(part, f"{path}:{str(part['url']).rpartition('/')[2]}" if named else path)
    else:
        text = str(value)
        yield path, "#" if path.endswith((".reference", ".id")) else text


def elements(translation: Translation) -> Counter[tuple[str, str]]:
    """Count every leaf that the changes of *translation* state."""
    counted: Counter[tuple[str, str]] = Counter()
    for change in translation.changes:
        if isinstance(change, Upsert):
            kind = str(change.resource["resourceType"])
            counted.update(flat(change.resource, kind))
            counted.update(flat(dict(change.defaults), kind))
            for name, items in change.by_item.items():
                counted.update(flat(list(items), f"{kind}.{name}"))
        elif isinstance(change, Attachment):
            counted.update([("Binary.data", repr(change))])
        else:
            counted.update([(f"({type(change).__name__})", repr(change))])
    for event in translation.workflow_events:
        counted.update([("(workflow)", repr(event))])
    return counted


def translated(text: str, ctx: MappingContext) -> Counter[tuple[str, str]] | None:
    """Return the leaves of the translation of *text*, or ``None`` when it is refused."""
    try:
        return elements(translate(parse(text), ctx))
    except MappingError:
        return None


def _variants(segment: str, number: int, cell: str) -> Iterator[str]:
    if (segment, number) == ("MSH", 9) and cell.startswith("ADT^"):
        # The event decides where a visit stands; another event of the same message type shows that.
        yield "ADT^A03"
    yield ""
    # What may not be absent may be something else: another number, another name, another time.
    yield cell.replace("1", "2", 1) if "1" in cell else f"{cell}2"
    yield f"X{cell}"


@contextmanager
def _recorded() -> Iterator[set[tuple[int, int]]]:
    """Collect the (segment index, field) that are read while it is open; the others need not be tried."""
    read: set[tuple[int, int]] = set()
    field, get = Segment.field, Segment.get

    def recording_field(self: Segment, number: int) -> Field:
        read.add((self.index, number))
        return field(self, number)

    def recording_get(self: Segment, number: int, component: int = 1, sub: int = 1) -> str:
        read.add((self.index, number))
        return get(self, number, component, sub)

    with patch.object(Segment, "field", recording_field), patch.object(Segment, "get", recording_get):
        yield read


@dataclass(slots=True)
class Reach:
    """What fields reach.

    Attributes:
        fields: (segment, field) -> paths; a field that no message values is absent, one that reaches nothing has none.
        structures: (message structure, segment) -> paths of all its fields.
    """

    fields: dict[tuple[str, int], set[str]] = field(default_factory=dict)
    structures: dict[tuple[str, str], set[str]] = field(default_factory=dict)


@lru_cache(maxsize=1)
def reach() -> Reach:
    """Return what the fields of all messages reach."""
    found = Reach()
    for _name, text, ctx in messages():
        with _recorded() as read:
            whole = translated(text, ctx)
        if whole is None:
            continue
        lines = text.rstrip("\r").split("\r")
        structure = lines[0].split("|")[8].split("^")[-1]
        for index, line in enumerate(lines):
            cells = line.split("|")
            shift = cells[0] == "MSH"
            for place in range(2 if shift else 1, len(cells)):
                if not cells[place]:
                    continue
                number = place + 1 if shift else place
                paths = found.fields.setdefault((cells[0], number), set())
                if (index, number) not in read:
                    continue
                before = [*lines[:index], "|".join(cells[:place])]
                made = _differing(
                    before,
                    _variants(cells[0], number, cells[place]),
                    cells[place + 1 :],
                    lines[index + 1 :],
                    whole,
                    ctx,
                )
                paths |= made
                found.structures.setdefault((structure, cells[0]), set()).update(made)
    return found


def _differing(
    before: list[str],
    variants: Iterator[str],
    rest: list[str],
    after: list[str],
    whole: Counter[tuple[str, str]],
    ctx: MappingContext,
) -> set[str]:
    *ahead, start = before
    for variant in variants:
        made = translated("\r".join([*ahead, "|".join([start, variant, *rest]), *after]) + "\r", ctx)
        if made is not None:
            return {path for path, _ in (whole - made) + (made - whole)}
    return set()
