"""PD1: what else is known of the person (HL7 v2 chapter 3.4.10) in FHIR Patient. v2-to-FHIR: PD1[Patient]."""

from __future__ import annotations

from typing import Any

from fhir_mappings.hl7v2.assembly import Place, Row
from fhir_mappings.hl7v2.segments import convert
from fhir_mappings.hl7v2.tokenizer import Field


def _organizations(content: Field, place: Place) -> list[dict[str, Any]]:
    """XON repetitions; a member goes by its code, any other organisation by the name that the sender gives it."""
    made: list[dict[str, Any]] = []
    for item in content.repetitions:
        name = item.component(1).strip()
        number = item.component(10).strip() or item.component(3).strip()
        owner = place.ctx.dialect.authorities.get(number)
        if owner is not None:
            made.append(convert.institution(owner, place.ctx, name))
        elif name:
            made.append({"type": "Organization", "display": name})
    return made


def _disability(content: Field, place: Place) -> dict[str, Any] | None:
    concept = convert.concept(content, place)
    url = "http://hl7.org/fhir/StructureDefinition/patient-disability"
    return {"url": url, "valueCodeableConcept": concept} if concept else None


ROWS: tuple[Row, ...] = (
    Row(4, "generalPractitioner*", convert.practitioners),
    Row(3, "generalPractitioner*", _organizations, "-"),
    Row(6, "extension*", _disability, "extension:patient-disability"),
)
