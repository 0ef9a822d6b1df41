"""Z-segments: fields that a member defined for itself, read by the table of its dialect (HL7 v2 chapter 2.11).

The table is :mod:`fhir_mappings.hl7v2.zfields`; a message type that has made the elements of a resource adds those of
the Z-segments with :func:`fill_z`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fhir_mappings.hl7v2 import datatypes
from fhir_mappings.hl7v2.assembly import Assembly, Convert, Filled, Place, Row, fill
from fhir_mappings.hl7v2.segments import convert
from fhir_mappings.hl7v2.tokenizer import Field, Segment
from fhir_mappings.hl7v2.zfields import ZField, rows_for

_YES_NO = {"Y": True, "1": True, "TRUE": True, "是": True, "N": False, "0": False, "FALSE": False, "否": False}


def _boolean(text: str, place: Place) -> bool | None:
    said = _YES_NO.get(text.upper())
    if said is None:
        place.warn("The value is neither yes nor no (Y, N, 1, 0); it was left out.")
    return said


def _integer(text: str, place: Place) -> int | None:
    if not text.isascii() or not text.isdigit():
        place.warn("The value is no whole number; it was left out.")
        return None
    return int(text)


def _positive(text: str, place: Place) -> int | None:
    number = _integer(text, place)
    if number == 0:
        place.warn("The value must be greater than zero; it was left out.")
        return None
    return number


def _decimal(text: str, place: Place) -> Any:
    made = datatypes.nm_value(text)
    if made is None:
        place.warn("The value is no number; it was left out.")
    return made


def _date(text: str, place: Place) -> str | None:
    made = datatypes.dtm_date(text, place.ctx)
    if made is None:
        place.warn("The date does not exist or is not YYYY[MM[DD]]; it was left out.")
    return made


def _instant(text: str, place: Place) -> str | None:
    made = convert.moment_text(text, place)
    if made is not None and "T" not in made:
        place.warn("The moment has no time of day, which FHIR requires here; it was left out.")
        return None
    return made


def _as_written(text: str, _place: Place) -> str:
    return text


_SIMPLE: Mapping[str, Callable[[str, Place], Any]] = {
    "string": _as_written,
    "markdown": _as_written,
    "uri": _as_written,
    "boolean": _boolean,
    "integer": _integer,
    "unsignedInt": _integer,
    "positiveInt": _positive,
    "decimal": _decimal,
    "date": _date,
    "dateTime": convert.moment_text,
    "instant": _instant,
}
_COMPLEX: Mapping[str, Convert] = {
    "CodeableConcept": convert.concepts,
    "Identifier": convert.identifiers,
    "HumanName": convert.names,
    "Address": convert.addresses,
    "ContactPoint": convert.telecoms,
}


def _simple(row: ZField) -> Convert:
    def read(text: str, place: Place) -> Any:
        if row.kind == "code":
            if not row.map:
                return text
            mapped = place.mapped(row.map, text)
            return mapped.target if mapped else None
        return _SIMPLE[row.kind](text, place)

    def convert_field(content: Field, place: Place) -> Any:
        texts = [item.component(row.component or 1).strip() for item in content.repetitions]
        made = [read(text, place) for text in texts if text]
        made = [value for value in made if value is not None]
        if row.element.endswith("*"):
            return made
        return made[0] if made else None

    return convert_field


def _complex(row: ZField) -> Convert:
    def convert_field(content: Field, place: Place) -> Any:
        made = _COMPLEX[row.kind](content, place)
        if row.element.endswith("*"):
            return made
        return made[0] if made else None

    return convert_field


def _extension(row: ZField, inner: Convert) -> Convert:
    def convert_field(content: Field, place: Place) -> Any:
        value = inner(content, place)
        if value is None:
            return None
        return [{"url": f"{place.ctx.base}/StructureDefinition/{row.extension}", row.element: value}]

    return convert_field


def _row(row: ZField) -> Row:
    inner = _simple(row) if row.kind in _SIMPLE or row.kind == "code" else _complex(row)
    if row.extension:
        # A null clears nothing here: the element holds the extensions of other fields too.
        return Row(row.number, "extension*", _extension(row, inner), "-")
    return Row(row.number, row.element, inner)


def fill_z(resource_type: str, segments: Iterable[Segment], assembly: Assembly, into: Filled) -> None:
    """Add what the Z-segments among *segments* say of a resource of *resource_type*, by the sender's table."""
    table = assembly.ctx.dialect.z_fields
    if not table:
        return
    rows = rows_for(table, resource_type)
    for segment in segments:
        fill((_row(row) for row in rows if row.segment == segment.name), segment, assembly, into=into)
