"""NK1: next of kin (HL7 v2 chapter 3.4.5) as FHIR RelatedPerson. v2-to-FHIR: NK1[RelatedPerson], NK1[Patient]."""

from __future__ import annotations

from typing import Any

from fhir_mappings.hl7v2.assembly import Assembly, Place, Row, fill
from fhir_mappings.hl7v2.segments import convert, pid
from fhir_mappings.hl7v2.tokenizer import Field, Segment


def relationship(content: Field, place: Place) -> dict[str, Any] | None:
    """Table 0063 as a CodeableConcept."""
    mapped = place.mapped("relationship", convert.code_of(content))
    text = convert.text_of(content)
    if mapped is None:
        return convert.concept(content, place)
    return {"coding": [mapped.coding()], **({"text": text} if text else {})}


def _contact_role(content: Field, place: Place) -> dict[str, Any] | None:
    """NK1-7 is of table 0131; Chinese feeds repeat the kinship of NK1-3 in it."""
    mapped = place.known("contact_role", convert.code_of(content))
    return {"coding": [mapped.coding()]} if mapped else relationship(content, place)


def _language(content: Field, place: Place) -> dict[str, Any] | None:
    concept = convert.concept(content, place)
    return {"language": concept} if concept else None


def gender(content: Field, place: Place) -> str | None:
    """Table 0001 as a code of FHIR."""
    mapped = place.mapped("administrative_sex", convert.code_of(content))
    return mapped.target if mapped else None


ROWS: tuple[Row, ...] = (
    Row(2, "name*", convert.names),
    Row(3, "relationship*", relationship),
    Row(7, "relationship*", _contact_role, "-"),
    Row(4, "address*", convert.addresses),
    Row(5, "telecom*", convert.telecoms),
    Row(6, "telecom*", convert.work_telecoms, "-"),
    Row(31, "telecom*", convert.telecoms, "-"),
    Row(40, "telecom*", convert.telecoms, "-"),
    Row(41, "telecom*", convert.telecoms, "-"),
    Row(30, "name*", convert.names, "-"),
    Row(32, "address*", convert.addresses, "-"),
    Row(8, "period.start", convert.moment),
    Row(9, "period.end", convert.moment),
    Row(12, "identifier*", convert.identifiers, "-"),
    Row(33, "identifier*", convert.identifiers, "-"),
    Row(37, "identifier*", convert.national_id, "-"),
    Row(15, "gender", gender),
    Row(16, "birthDate", convert.date),
    Row(20, "communication*", _language),
)


def add_related_persons(segments: list[Segment], assembly: Assembly) -> frozenset[str]:
    """Add a RelatedPerson for each NK1 that names somebody; return their ids.

    The v2-to-FHIR maps leave open whether NK1 becomes RelatedPerson or Patient.contact; a RelatedPerson can be the
    guardian who acts for an infant, so it is that in every case.
    """
    ids: set[str] = set()
    for segment in segments:
        filled = fill(ROWS, segment, assembly)
        names = filled.elements.get("name")
        if not names:
            continue
        key = f"{assembly.patient_id}|{names[0].get('text', '')}|{convert.first(segment, 3)}"
        identity = assembly.ctx.id("RelatedPerson", "NK1", key)
        ids.add(identity)
        assembly.upsert(
            {
                "resourceType": "RelatedPerson",
                "id": identity,
                "meta": convert.segment_tag("NK1", assembly.ctx),
                "active": True,
                **filled.elements,
                "patient": pid.patient_reference(assembly),
            },
            cleared=filled.open_clears(),
            guard="demographics",
        )
    return frozenset(ids)
