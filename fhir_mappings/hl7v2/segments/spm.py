"""SPM and OBR-15: specimens (HL7 v2 chapter 7.4.3) as FHIR Specimen. v2-to-FHIR: SPM[Specimen], OBR[Specimen]."""

from __future__ import annotations

from typing import Any

from fhir_mappings.hl7v2.assembly import Assembly, Place, Row, fill
from fhir_mappings.hl7v2.segments import convert, pid
from fhir_mappings.hl7v2.tokenizer import Field, Segment


def _number(content: Field, place: Place) -> list[dict[str, Any]]:
    """SPM-2 is a pair: component 1 the placer's number, component 2 the filler's, each with a namespace inside."""
    made = []
    for component, kind, code in ((1, "placer-specimen", "PLAC"), (2, "filler-specimen", "FILL")):
        value = content.repetitions[0].component(component).strip()
        if value:
            made.append(convert.order_identifier(place.ctx, kind, code, value))
    return made


def _collected(content: Field, place: Place) -> dict[str, Any] | None:
    start = convert.moment_text(content.repetitions[0].component(1), place)
    end = convert.moment_text(content.repetitions[0].component(2), place)
    if start and end and start != end:
        return {"collectedPeriod": {"start": start, "end": end}}
    return {"collectedDateTime": start} if start else None


def _availability(content: Field, _place: Place) -> str | None:
    return {"Y": "available", "N": "unavailable"}.get(content.repetitions[0].component(1).strip().upper())


def _accession(content: Field, place: Place) -> dict[str, Any] | None:
    value = content.repetitions[0].component(1).strip()
    return convert.order_identifier(place.ctx, "specimen-accession", "ACSN", value) if value else None


ROWS: tuple[Row, ...] = (
    Row(2, "identifier*", _number, "-"),
    Row(30, "accessionIdentifier", _accession),
    Row(4, "type", convert.concept),
    Row(7, "collection.method", convert.concept),
    Row(8, "collection.bodySite", convert.concept),
    Row(17, "collection", _collected),
    Row(18, "receivedTime", convert.moment),
    Row(20, "status", _availability),
    Row(24, "condition*", convert.concepts),
)


def add_specimens(segments: list[Segment], obr: Segment, assembly: Assembly, *, order_key: str) -> list[str]:
    """Add the specimens of one order; return their references. Without SPM the OBR describes the one specimen."""
    if not segments:
        reference = _from_obr(obr, assembly, order_key)
        return [reference] if reference else []
    made = []
    for ordinal, segment in enumerate(segments, start=1):
        filled = fill(ROWS, segment, assembly)
        number = segment.get(2).strip() or segment.get(2, 2).strip() or f"{order_key}|{ordinal}"
        resource = {
            "resourceType": "Specimen",
            "id": assembly.ctx.id("Specimen", "specimen", number),
            **filled.elements,
            "subject": pid.patient_reference(assembly),
        }
        made.append(assembly.upsert(resource, cleared=filled.open_clears(), guard="demographics"))
    return made


def _from_obr(obr: Segment, assembly: Assembly, order_key: str) -> str | None:
    """OBR-15 (SPS) has the source in component 1 with code and text as subcomponents; it became SPM with v2.7."""
    code, text = obr.get(15, 1, 1).strip(), obr.get(15, 1, 2).strip()
    received = convert.moment(obr.field(14), Place(assembly, obr, 14))
    if not (code or text or received):
        return None
    resource: dict[str, Any] = {
        "resourceType": "Specimen",
        "id": assembly.ctx.id("Specimen", "order", order_key),
        "subject": pid.patient_reference(assembly),
    }
    if code and not text and not code.isascii():
        code, text = "", code
    if code or text:
        kind: dict[str, Any] = {}
        if code:
            kind["coding"] = [{"system": assembly.ctx.code_system(obr.get(15, 1, 3)), "code": code}]
            if text:
                kind["coding"][0]["display"] = text
        if text:
            kind["text"] = text
        resource["type"] = kind
    collected = convert.moment(obr.field(7), Place(assembly, obr, 7))
    if collected:
        resource["collection"] = {"collectedDateTime": collected}
    if received:
        resource["receivedTime"] = received
    return assembly.upsert(resource, guard="demographics")
