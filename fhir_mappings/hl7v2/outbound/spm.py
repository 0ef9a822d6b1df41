"""Specimen as SPM and SAC (HL7 v2 chapters 7.4.3 and 13.4.3), or as OBR-15 where a message or version has no SPM.

The inverse of :mod:`fhir_mappings.hl7v2.segments.spm`. SPM came with v2.5 and requires the type of the specimen (SPM-4), so a
specimen without one is named by nobody here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fhir_mappings.hl7v2.builder import FieldValue, MessageBuilder, Repeat, RepetitionValue
from fhir_mappings.hl7v2.outbound import fields
from fhir_mappings.hl7v2.outbound.target import OutboundTarget
from fhir_mappings.hl7v2.segments.spm import ROLE

Json = Mapping[str, Any]

#: Specimen.status -> SPM-20 (table 0136).
_AVAILABLE = {"available": "Y", "unavailable": "N"}


def described(specimens: Sequence[Json]) -> list[Json]:
    """Return those of *specimens* that SPM can describe."""
    return [one for one in specimens if one.get("type")]


def add_specimens(
    builder: MessageBuilder, specimens: Sequence[Json], target: OutboundTarget, *, containers: bool = True
) -> None:
    """Add SPM of each of *specimens*, with SAC of its containers where the message has a place for them."""
    for ordinal, specimen in enumerate(described(specimens), start=1):
        builder.segment("SPM", spm(specimen, ordinal, target))
        for container in specimen.get("container", ()) if containers else ():
            cells = sac(container)
            if cells:
                builder.segment("SAC", cells)


def spm(specimen: Json, ordinal: int, target: OutboundTarget) -> dict[int, FieldValue]:
    """Return SPM of *specimen*."""
    collection = specimen.get("collection", {})
    start, end = _collected(collection)
    container: Json = next(iter(specimen.get("container", ())), {})
    roles = [one["valueCodeableConcept"] for one in specimen.get("extension", ()) if one.get("url") == ROLE]
    period: list[str] = [fields.time(start, target), fields.time(end, target)]
    return {
        1: str(ordinal),
        2: _numbers(specimen),
        4: fields.concept(specimen.get("type"), target),
        6: fields.concept(container.get("additiveCodeableConcept"), target),
        7: fields.concept(collection.get("method"), target),
        8: fields.concept(collection.get("bodySite"), target),
        11: _repeated(roles, target),
        12: _amount(collection.get("quantity")),
        14: "\n".join(str(one["text"]) for one in specimen.get("note", ()) if one.get("text")),
        17: period if start else None,
        18: fields.time(specimen.get("receivedTime"), target),
        20: _AVAILABLE.get(str(specimen.get("status", "")), ""),
        24: _repeated(specimen.get("condition", ()), target),
        27: fields.concept(container.get("type"), target),
    }


def sac(container: Json) -> dict[int, FieldValue]:
    """Return SAC of *container*: its own number (SAC-3) and that of what carries it (SAC-4); empty without either."""
    cells: dict[int, FieldValue] = {}
    for identifier in container.get("identifier", ()):
        system, value = str(identifier.get("system", "")), str(identifier.get("value", ""))
        place = 4 if system.endswith("/carrier") else 3
        if value and place not in cells:
            cells[place] = value
    return cells


def obr_fields(specimens: Sequence[Json], target: OutboundTarget) -> dict[int, FieldValue]:
    """Return OBR-14 (when it was received) and OBR-15 (what it is) of the first specimen, for a message without SPM."""
    first = next(iter(described(specimens)), None)
    if first is None:
        return {}
    kind = fields.concept(first["type"], target)
    parts = [str(one) for one in kind[:3]] if isinstance(kind, list) else []
    return {14: fields.time(first.get("receivedTime"), target), 15: [parts]}


def _numbers(specimen: Json) -> FieldValue:
    """SPM-2 is a pair: the placer's number and the filler's, each with room for its namespace."""
    numbers = specimen.get("identifier", [])
    placer, filler = fields.typed_number(numbers, "PLAC"), fields.typed_number(numbers, "FILL")
    return [[placer], [filler]] if placer or filler else None


def _collected(collection: Json) -> tuple[str, str]:
    period = collection.get("collectedPeriod", {})
    return str(collection.get("collectedDateTime") or period.get("start", "")), str(period.get("end", ""))


def _amount(quantity: Json | None) -> FieldValue:
    if not quantity or "value" not in quantity:
        return None
    unit = str(quantity.get("unit") or quantity.get("code", ""))
    return [fields.nm(quantity["value"]), *([[unit]] if unit else [])]


def _repeated(concepts: Sequence[Json], target: OutboundTarget) -> FieldValue:
    made: list[RepetitionValue] = []
    for one in concepts:
        value = fields.concept(one, target)
        if value is not None and not isinstance(value, Repeat):
            made.append(value)
    return Repeat(made) if made else None
