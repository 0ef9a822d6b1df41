"""The reviewed comparison with the official v2-to-FHIR maps (docs/conformance/v2-to-fhir): its rows, and whether they hold.

A row without a reason says that the field reaches the element; one with a reason says that it deliberately does not.
http://hl7.org/fhir/uv/v2mappings (Apache License 2.0) numbers the rows; here stand their keys and no text of theirs.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.v2_reach import Reach

FOLDER = Path(__file__).parents[2] / "docs" / "conformance" / "v2-to-fhir"
#: What R4 calls elements that the maps call otherwise.
_NAMES_OF_R4 = {"doseForm": "form", "payer": "payor", "coveragePeriod": "period"}


@dataclass(frozen=True, slots=True, order=True)
class SegmentRow:
    """One row of a segment map: *field* (``PID-3``, or ``PID`` for what the segment as a whole says) to *element*."""

    map: str
    field: str
    element: str
    reason: str = ""


@dataclass(frozen=True, slots=True, order=True)
class MessageRow:
    """One segment map that a message structure calls for."""

    structure: str
    map: str
    reason: str = ""


@dataclass(frozen=True, slots=True, order=True)
class DatatypeRow:
    """One row of a data type map: *component* (``CX.1``) to *element*."""

    map: str
    component: str
    element: str
    reason: str = ""


@dataclass(frozen=True, slots=True, order=True)
class CodeRow:
    """One row of a concept map: what *code* becomes there and here (``*`` for a map as a whole)."""

    map: str
    code: str
    theirs: str
    ours: str
    reason: str = ""


def read(name: str) -> list[dict[str, str]]:
    """Return the rows of ``name.csv``."""
    with (FOLDER / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def segment_rows() -> list[SegmentRow]:
    """Return every reviewed row of the segment maps."""
    return [SegmentRow(**row) for row in read("segments")]


def message_rows() -> list[MessageRow]:
    """Return every reviewed row of the message maps."""
    return [MessageRow(**row) for row in read("messages")]


def datatype_rows() -> list[DatatypeRow]:
    """Return every reviewed row of the data type maps."""
    return [DatatypeRow(**row) for row in read("datatypes")]


def code_rows() -> list[CodeRow]:
    """Return every reviewed row of the concept maps."""
    return [CodeRow(**row) for row in read("codes")]


def reasons() -> dict[str, str]:
    """Return the reasons by name."""
    return {row["reason"]: row["text"] for row in read("reasons")}


def element(target: str) -> str:
    """Return a target of the maps as the element it speaks of, without occurrences and fixed parts.

    ``identifier[1].type.coding.code`` is ``identifier``, ``performer[2](Organization.address)`` keeps what it points into.
    """
    text = re.sub(r"\[[^\]]*\]|\s", "", target.partition("=")[0])
    outer, _, inner = text.partition("(")
    made = _head(outer.rstrip("."))
    pointed = [one for one in re.findall(r"[A-Z][A-Za-z]+(?:\.[A-Za-z]+)+", inner) if one]
    if pointed and not made.endswith("extension"):
        kind, _, path = pointed[-1].partition(".")
        made = f"{made}({kind}.{_head(path)})"
    return made


def _head(path: str) -> str:
    kept: list[str] = []
    for part in path.split("."):
        if part == "coding" or (part == "text" and kept[-1:] == ["type"]):
            if kept[-1:] == ["type"] and len(kept) > 1:
                kept.pop()
            break
        kept.append(part)
        if part == "extension":
            break
    if len(kept) > 1 and kept[-1] == "type" and kept[-2] == "identifier":
        kept.pop()
    return ".".join(kept)


def kind_of(name: str) -> str:
    """Return the resource type of a map: ``Patient`` of ``PRT[Patient-GeneralPractitioner-Practitioner]``."""
    found = re.search(r"\[([A-Za-z]+)", name)
    if found is None:
        raise ValueError(f"{name!r} names no resource type")
    return found[1]


def holds(row: SegmentRow, reached: Reach) -> bool:
    """Whether the field of *row* reaches its element."""
    segment, _, number = row.field.partition("-")
    if number:
        paths: Iterable[str] = reached.fields.get((segment, int(number)), ())
    else:
        paths = {path for (name, _), found in reached.fields.items() if name == segment for path in found}
    plain = {re.sub(r":[^.]*", "", path) for path in paths}
    return any(path == one or path.startswith(one + ".") for one in _places(row) for path in plain)


def _places(row: SegmentRow) -> Iterator[str]:
    kind = kind_of(row.map)
    outer, _, inner = row.element.partition("(")
    outer = ".".join(_NAMES_OF_R4.get(part, part) for part in outer.split("."))
    yield kind if outer == "$this" else f"{kind}.{outer}"
    if outer.startswith("medication"):
        yield f"{kind}.medicationCodeableConcept"
    if inner:
        pointed = ".".join(_NAMES_OF_R4.get(part, part) for part in inner.rstrip(")").split("."))
        yield pointed
        yield f"{kind}.contained.{pointed.partition('.')[2]}"


def component_element(target: str) -> str:
    """Return a target of the data type maps as the element it speaks of, with no part of an extension."""
    text = re.sub(r"\[[^\]]*\]|\s", "", target.partition("=")[0]).lstrip(".").partition("(")[0]
    return re.sub(r"(extension).*", r"\1", text)


def component_holds(row: DatatypeRow, reached: Mapping[tuple[str, int], frozenset[str]]) -> bool:
    """Whether the component of *row* reaches its element."""
    paths = reached.get((row.map, int(row.component.partition(".")[2])), frozenset())
    return any(path == row.element or path.startswith(f"{row.element}.") for path in paths)


def called(row: MessageRow, reached: Reach) -> bool:
    """Whether messages of the structure make what the segment map of *row* is for."""
    paths = reached.structures.get((row.structure, row.map.partition("[")[0]), set())
    return any(path.startswith(f"{kind_of(row.map)}.") for path in paths)
