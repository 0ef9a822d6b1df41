"""SPM and OBR-15: specimens (HL7 v2 chapter 7.4.3) as FHIR Specimen. v2-to-FHIR: SPM[Specimen], OBR[Specimen]."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from fhir_mappings.errors import MalformedError
from fhir_mappings.hl7v2 import datatypes
from fhir_mappings.hl7v2.assembly import Assembly, Place, Row, fill
from fhir_mappings.hl7v2.segments import convert, nte, pid, sac
from fhir_mappings.hl7v2.tokenizer import MAX_SEGMENTS, Field, Segment

#: SPM-11 (patient, quality control, blind sample, ...) is Specimen.role of R5, for which v2-to-FHIR has no row.
ROLE = "http://hl7.org/fhir/5.0/StructureDefinition/extension-Specimen.role"


@dataclass(slots=True)
class Sample:
    """One SPM with its containers (SAC), what was observed of it (OBX) and its notes.

    Attributes:
        reference: the Specimen that states it; empty until the first order that it is for was translated.
    """

    spm: Segment
    containers: list[Segment] = field(default_factory=list)
    observations: list[Segment] = field(default_factory=list)
    notes: list[Segment] = field(default_factory=list)
    reference: str = ""


def check_shared(samples: Iterable[list[Sample]]) -> None:
    """Make sure that what is said of *samples*, those of each order, grows with the message and not with its square.

    Raises:
        MalformedError: code 102, the orders share so many specimens that few segments would mean millions of references.
    """
    if sum(map(len, samples)) > MAX_SEGMENTS:
        raise MalformedError(
            f"The orders share specimens more than {MAX_SEGMENTS} times.",
            where="SPM",
            remedy="Put each specimen before its own orders, or split the message.",
            code=102,
        )


def _number(content: Field, place: Place) -> list[dict[str, Any]]:
    """SPM-2 is a pair: component 1 the placer's number, component 2 the filler's, each with a namespace inside."""
    made = []
    for component, kind, code in ((1, "placer-specimen", "PLAC"), (2, "filler-specimen", "FILL")):
        value = content.repetitions[0].component(component).strip()
        if value:
            made.append(convert.order_identifier(place.ctx, kind, code, value))
    return made


def _parents(content: Field, place: Place) -> list[dict[str, Any]]:
    """SPM-3 names the specimen that this one was taken from, by the number that names it in SPM-2."""
    made = []
    for repetition in content.repetitions:
        number = repetition.component(1).strip() or repetition.component(2).strip()
        if number:
            made.append({"reference": f"Specimen/{place.ctx.id('Specimen', 'specimen', number)}"})
    return made


def _other_numbers(content: Field, place: Place) -> list[dict[str, Any]]:
    return [
        {"system": place.ctx.system("specimen", repetition.component(4)), "value": value}
        for repetition in content.repetitions
        if (value := repetition.component(1).strip())
    ]


def _shipment(content: Field, place: Place) -> dict[str, Any] | None:
    value = content.component(1).strip()
    return convert.order_identifier(place.ctx, "shipment", "SHIP", value, content.component(2)) if value else None


def _amount(content: Field, place: Place) -> dict[str, Any] | None:
    """CQ: the number and, as subcomponents of component 2, its unit."""
    number = datatypes.nm_value(content.component(1))
    if number is None:
        place.warn("The amount is no number; it was left out.")
        return None
    code, text = content.component(2, 1).strip(), content.component(2, 2).strip()
    return {"value": number, **({"unit": text or code} if text or code else {})}


def _description(content: Field, _place: Place) -> list[dict[str, Any]]:
    text = "\n".join(repetition.text() for repetition in content.repetitions).strip()
    return [{"text": text}] if text else []


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


def _role(content: Field, place: Place) -> list[dict[str, Any]]:
    return [{"url": ROLE, "valueCodeableConcept": one} for one in convert.concepts(content, place)]


ROWS: tuple[Row, ...] = (
    Row(2, "identifier*", _number, "-"),
    Row(31, "identifier*", _other_numbers, "-"),
    Row(32, "identifier*", _shipment, "-"),
    Row(30, "accessionIdentifier", _accession),
    Row(4, "type", convert.concept),
    Row(11, "extension*", _role, "extension:extension-Specimen.role"),
    # Before the other parts of the collection, because it states that object.
    Row(17, "collection", _collected, "collection.collected[x]"),
    Row(7, "collection.method", convert.concept),
    Row(8, "collection.bodySite", convert.concept),
    Row(12, "collection.quantity", _amount),
    Row(14, "note*", _description),
    Row(18, "receivedTime", convert.moment),
    Row(20, "status", _availability),
    Row(24, "condition*", convert.concepts),
)


def add_specimens(samples: list[Sample], obr: Segment, assembly: Assembly, *, order_key: str) -> list[str]:
    """Add the specimens of one order; return their references. Without SPM the OBR describes the one specimen."""
    if not samples:
        reference = _from_obr(obr, assembly, order_key)
        return [reference] if reference else []
    made = []
    for ordinal, sample in enumerate(samples, start=1):
        if sample.reference:
            # Orders behind one specimen share it; stated anew for each, it would be another where it has no number.
            made.append(sample.reference)
            continue
        segment = sample.spm
        filled = fill(ROWS, segment, assembly)
        parents = _parents(segment.field(3), Place(assembly, segment, 3))
        number = segment.get(2).strip() or segment.get(2, 2).strip() or f"{order_key}|{ordinal}"
        resource = {
            "resourceType": "Specimen",
            "id": assembly.ctx.id("Specimen", "specimen", number),
            **filled.elements,
            "subject": pid.patient_reference(assembly),
        }
        if parents:
            for parent in parents:
                # The parent may never be described; without a stub the reference would lead nowhere.
                identity = parent["reference"].removeprefix("Specimen/")
                stub = {"resourceType": "Specimen", "id": identity, "subject": pid.patient_reference(assembly)}
                assembly.intern(stub)
            resource["parent"] = parents
        containers = sac.containers(sample.containers, assembly)
        first = _container(segment, assembly)
        if containers or first:
            resource["container"] = [{**first, **containers[0]}, *containers[1:]] if containers else [first]
        remarks = [*resource.get("note", []), *nte.notes(sample.notes)]
        if remarks:
            resource["note"] = remarks
        for observation in sample.observations:
            # What is seen of a specimen (haemolysis) has no place in Specimen; it stays in the original message.
            assembly.skip(observation)
        cleared = filled.open_clears() | ({"parent"} if segment.field(3).is_null else frozenset())
        sample.reference = assembly.upsert(resource, cleared=cleared, guard="demographics")
        made.append(sample.reference)
    return made


def _container(segment: Segment, assembly: Assembly) -> dict[str, Any]:
    """SPM-27 and SPM-6: type and additive of the container, where no SAC describes it."""
    made: dict[str, Any] = {}
    kind = convert.concept(segment.field(27), Place(assembly, segment, 27))
    additive = convert.concept(segment.field(6), Place(assembly, segment, 6))
    if kind:
        made["type"] = kind
    if additive:
        made["additiveCodeableConcept"] = additive
    return made


def _from_obr(obr: Segment, assembly: Assembly, order_key: str) -> str | None:
    """OBR-15 (SPS) has the source in component 1 with code and text as subcomponents; it became SPM with v2.7."""
    code, text = obr.get(15, 1, 1).strip(), obr.get(15, 1, 2).strip()
    if assembly.ctx.dialect.specimen_form == "code-name":
        text = text or obr.get(15, 2).strip()
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
    collection = _collection(obr, assembly)
    if collection:
        resource["collection"] = collection
    described = _description(obr.field(39), Place(assembly, obr, 39)) if obr.get(39).strip() else []
    if described:
        resource["note"] = described
    if received:
        resource["receivedTime"] = received
    return assembly.upsert(resource, guard="demographics")


def _collection(obr: Segment, assembly: Assembly) -> dict[str, Any]:
    """Return when (OBR-7, OBR-8), how much (OBR-9) and by whom (OBR-10) the specimen was taken."""
    made: dict[str, Any] = {}
    start = convert.moment(obr.field(7), Place(assembly, obr, 7))
    end = convert.moment(obr.field(8), Place(assembly, obr, 8))
    if start and end and start != end:
        made["collectedPeriod"] = {"start": start, "end": end}
    elif start:
        made["collectedDateTime"] = start
    amount = _amount(obr.field(9), Place(assembly, obr, 9)) if obr.get(9).strip() else None
    if amount:
        made["quantity"] = amount
    collectors = convert.practitioners(obr.field(10), Place(assembly, obr, 10))
    if collectors:
        made["collector"] = collectors[0]
    return made
