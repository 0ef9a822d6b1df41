"""SAC: the container of a specimen (HL7 v2 chapter 13.4.3) as FHIR Specimen.container. v2-to-FHIR has no map for it."""

from __future__ import annotations

from typing import Any

from fhir_mappings.hl7v2 import datatypes
from fhir_mappings.hl7v2.assembly import Assembly, Place, Row, fill
from fhir_mappings.hl7v2.segments import convert
from fhir_mappings.hl7v2.tokenizer import Field, Segment


def _number(kind: str) -> Any:
    def converter(content: Field, place: Place) -> dict[str, Any] | None:
        value = content.component(1).strip()
        return {"system": place.ctx.system(kind, content.component(2)), "value": value} if value else None

    return converter


def _volume(content: Field, place: Place) -> dict[str, Any] | None:
    # SAC-24 is the unit of all volumes of the container.
    made = datatypes.nm_quantity(content.component(1), place.segment.field(24).first, place.ctx)
    if made is None:
        place.warn("The volume is no number; it was left out.")
    return made


#: Into ``Specimen.container``.
ROWS: tuple[Row, ...] = (
    Row(3, "identifier*", _number("container"), "-"),
    Row(4, "identifier*", _number("carrier"), "-"),
    Row(5, "type", convert.concept, "-"),
    Row(21, "capacity", _volume, "-"),
    Row(22, "specimenQuantity", _volume, "-"),
    Row(27, "additiveCodeableConcept", convert.concept, "-"),
)


def containers(segments: list[Segment], assembly: Assembly) -> list[dict[str, Any]]:
    """Return ``Specimen.container``, one for each SAC that says something."""
    return [made for segment in segments if (made := fill(ROWS, segment, assembly).elements)]
