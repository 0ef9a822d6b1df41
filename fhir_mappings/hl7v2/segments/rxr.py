"""RXR: route and site (HL7 v2 chapter 4.14.2). v2-to-FHIR: RXR[MedicationRequest], RXR[Immunization]."""

from __future__ import annotations

from typing import Any

from fhir_mappings.hl7v2.assembly import Assembly, Place, Row, fill
from fhir_mappings.hl7v2.segments import convert
from fhir_mappings.hl7v2.tokenizer import Field, Segment


def _route(content: Field, place: Place) -> dict[str, Any] | None:
    """RXR-1: a code of table 0162 as v2-to-FHIR translates it; any other code as it was written."""
    made = convert.concept(content, place)
    system = content.component(3).strip().upper()
    if made is None or system not in {"", "HL70162"} or not content.component(1).strip().isascii():
        return made
    mapped = place.mapped("route", content.component(1))
    if mapped is None:
        return made
    text = convert.text_of(content)
    return {"coding": [mapped.coding()], **({"text": text} if text else {})}


ROWS: tuple[Row, ...] = (
    Row(1, "route", _route),
    Row(2, "site", convert.concept),
    Row(4, "method", convert.concept),
)


#: What only a Dosage has room for, not an Immunization and not what was given.
INSTRUCTION_ROWS: tuple[Row, ...] = (Row(5, "additionalInstruction*", convert.concepts),)


def instructed_route(segments: list[Segment], assembly: Assembly) -> dict[str, Any]:
    """Return what :func:`route` does, with the instructions of RXR-5."""
    made = route(segments, assembly)
    return {**made, **fill(INSTRUCTION_ROWS, segments[0], assembly).elements} if segments else made


def route(segments: list[Segment], assembly: Assembly) -> dict[str, Any]:
    """Return ``route``, ``site`` and ``method`` of the first RXR; further ones are alternatives, which is said."""
    if not segments:
        return {}
    for other in segments[1:]:
        Place(assembly, other, 1).warn("Another route was offered; the first one was taken.", code="not-supported")
    return fill(ROWS, segments[0], assembly).elements
