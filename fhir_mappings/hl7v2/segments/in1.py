"""IN1: insurance (HL7 v2 chapter 6.5.6) as FHIR Coverage. v2-to-FHIR: IN1[Coverage]."""

from __future__ import annotations

from typing import Any

from fhir_mappings.hl7v2.assembly import Assembly, Place, Row, fill
from fhir_mappings.hl7v2.segments import convert, pid
from fhir_mappings.hl7v2.tokenizer import Field, Segment


def _text(content: Field, _place: Place) -> str | None:
    return content.repetitions[0].component(1).strip() or None


def _relationship(content: Field, place: Place) -> dict[str, Any] | None:
    mapped = place.mapped("relationship", convert.code_of(content))
    text = convert.text_of(content)
    if mapped is None:
        return convert.concept(content, place)
    return {"coding": [mapped.coding()], **({"text": text} if text else {})}


def _plan(content: Field, place: Place) -> list[dict[str, Any]]:
    concept = convert.concept(content, place)
    value = content.repetitions[0].component(1).strip()
    if concept is None or not value:
        return []
    entry: dict[str, Any] = {
        "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/coverage-class", "code": "plan"}]},
        "value": value,
    }
    if convert.text_of(content):
        entry["name"] = convert.text_of(content)
    return [entry]


def _policy_holder(content: Field, place: Place) -> dict[str, Any] | None:
    found = convert.organizations(content, place)
    return found[0] if found else None


def _subscriber(content: Field, place: Place) -> dict[str, Any] | None:
    """IN1-16: the patient where IN1-17 says so, else somebody of whom the segment has the name."""
    if convert.first(place.segment, 17).upper() in {"SEL", "SELF"}:
        return pid.patient_reference(place.assembly)
    name = convert.name_text(content, place)
    return {"type": "RelatedPerson", "display": name} if name else None


ROWS: tuple[Row, ...] = (
    Row(2, "class*", _plan),
    Row(11, "policyHolder", _policy_holder),
    Row(16, "subscriber", _subscriber),
    Row(12, "period.start", convert.date),
    Row(13, "period.end", convert.date),
    Row(15, "type", convert.concept),
    Row(17, "relationship", _relationship),
    # Subscriber numbers: IN1-36 is the policy number, IN1-49 the insured's own; the policy is what Chinese cards print.
    Row(49, "subscriberId", _text),
    Row(36, "subscriberId", _text),
)


def add_coverages(segments: list[Segment], assembly: Assembly) -> frozenset[str]:
    """Add a Coverage for each IN1; return their ids."""
    ids: set[str] = set()
    for segment in segments:
        payor_name = convert.first(segment, 4)
        payor_number = convert.first(segment, 3)
        plan = convert.first(segment, 2)
        if not (payor_name or payor_number or plan):
            continue
        filled = fill(ROWS, segment, assembly)
        policy = convert.first(segment, 36)
        identity = assembly.ctx.id("Coverage", "IN1", f"{assembly.patient_id}|{payor_number}|{plan}|{policy}")
        ids.add(identity)
        payor: dict[str, Any] = {"type": "Organization"}
        if payor_number:
            payor["identifier"] = {"system": convert.system(assembly.ctx, "insurer"), "value": payor_number}
        if payor_name or not payor_number:
            payor["display"] = payor_name or plan
        assembly.upsert(
            {
                "resourceType": "Coverage",
                "id": identity,
                "meta": convert.segment_tag("IN1", assembly.ctx),
                "status": "active",
                **filled.elements,
                "beneficiary": pid.patient_reference(assembly),
                "payor": [payor],
            },
            cleared=filled.open_clears(),
            guard="demographics",
        )
    return frozenset(ids)
