"""AL1: allergies (HL7 v2 chapter 3.4.6) as FHIR AllergyIntolerance. v2-to-FHIR: AL1[AllergyIntolerance]."""

from __future__ import annotations

from typing import Any

from fhir_mappings.hl7v2.assembly import Assembly, Place, Row, fill
from fhir_mappings.hl7v2.segments import convert, pid
from fhir_mappings.hl7v2.tokenizer import Field, Segment

CLINICAL = "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical"


def _category(content: Field, place: Place) -> list[str]:
    mapped = place.mapped("allergy_category", convert.code_of(content))
    return [mapped.target] if mapped else []


def _type(content: Field, place: Place) -> str | None:
    """AL1-2 says the type too; a contraindication (MC) is no allergy, and the category reports what has no row."""
    mapped = place.known("allergy_type", convert.code_of(content))
    return mapped.target if mapped else None


def _criticality(content: Field, place: Place) -> str | None:
    mapped = place.mapped("allergy_criticality", convert.code_of(content))
    return mapped.target if mapped else None


def _reactions(content: Field, _place: Place) -> list[dict[str, Any]]:
    return [
        {"manifestation": [{"text": repetition.component(1)}]}
        for repetition in content.repetitions
        if repetition.component(1)
    ]


def _onset(content: Field, place: Place) -> dict[str, Any] | None:
    moment = convert.moment(content, place)
    return {"onsetDateTime": moment} if moment else None


ROWS: tuple[Row, ...] = (
    Row(2, "category", _category),
    Row(2, "type", _type),
    Row(3, "code", convert.concept),
    Row(4, "criticality", _criticality),
    Row(5, "reaction*", _reactions),
    Row(6, "", _onset, "onset[x]"),
)


def add_allergies(segments: list[Segment], assembly: Assembly) -> frozenset[str]:
    """Add an AllergyIntolerance for each AL1; return their ids."""
    ids: set[str] = set()
    for segment in segments:
        key = convert.first(segment, 3) or convert.text_of(segment.field(3))
        if not key:
            Place(assembly, segment, 3).warn("The allergy names no substance; it was left out.", code="required")
            continue
        filled = fill(ROWS, segment, assembly)
        identity = assembly.ctx.id("AllergyIntolerance", "AL1", f"{assembly.patient_id}|{key}")
        ids.add(identity)
        assembly.upsert(
            {
                "resourceType": "AllergyIntolerance",
                "id": identity,
                "meta": convert.segment_tag("AL1", assembly.ctx),
                "clinicalStatus": {"coding": [{"system": CLINICAL, "code": "active"}]},
                **filled.elements,
                "patient": pid.patient_reference(assembly),
            },
            cleared=filled.open_clears(),
            guard="demographics",
        )
    return frozenset(ids)
