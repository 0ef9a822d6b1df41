"""PD1: what else is known of the person (HL7 v2 chapter 3.4.10) in FHIR Patient. v2-to-FHIR: PD1[Patient]."""

from __future__ import annotations

from typing import Any

from fhir_mappings.hl7v2.assembly import Place, Row
from fhir_mappings.hl7v2.segments import convert
from fhir_mappings.hl7v2.tokenizer import Field


def _disability(content: Field, place: Place) -> dict[str, Any] | None:
    concept = convert.concept(content, place)
    url = "http://hl7.org/fhir/StructureDefinition/patient-disability"
    return {"url": url, "valueCodeableConcept": concept} if concept else None


ROWS: tuple[Row, ...] = (
    Row(4, "generalPractitioner*", convert.practitioners),
    Row(3, "generalPractitioner*", convert.organizations, "-"),
    Row(6, "extension*", _disability, "extension:patient-disability"),
)
