"""OBX: results (HL7 v2 chapter 7.4.2) as FHIR Observation. v2-to-FHIR: OBX[Observation], OBX[Observation-Component]."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from fhir_mappings.hl7v2.assembly import Assembly, Filled, Place, Row, fill
from fhir_mappings.hl7v2.segments import convert, nte, obx_value, pid
from fhir_mappings.hl7v2.tokenizer import Field, Segment

_ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
_ALTERNATE = "http://hl7.org/fhir/StructureDefinition/alternate-codes"

#: What a result states completely: what a newer OBX leaves out is no longer so. A corrected potassium that is back in
#: its range must not keep the old flag.
STATED_WHOLE = frozenset(
    {"value[x]", "dataAbsentReason", "interpretation", "referenceRange", "note", "component", "method", "_status"}
)

#: Flags that somebody must act on at once (v3-ObservationInterpretation).
CRITICAL = frozenset({"HH", "LL", "AA"})


@dataclass(slots=True)
class Results:
    """The results under one OBR while they are read.

    Attributes:
        key: authority and number of the order, then OBR-4: what the ids of its results start with.
        ordinals: how often each OBX-3 and OBX-4 came up, so that repeated tests stay apart.
    """

    key: tuple[str, str]
    service: str
    status_default: str
    effective: dict[str, Any]
    encounter: str | None = None
    based_on: str | None = None
    specimen: str | None = None
    category: list[dict[str, Any]] = field(default_factory=list)
    ordinals: Counter[str] = field(default_factory=Counter)
    references: list[str] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)
    critical: list[str] = field(default_factory=list)


def code_of(content: Field) -> str:
    """Return the code of a CE or CWE in whichever component the sender writes it (``^^^code^name`` is common)."""
    return next((part for n in (1, 4, 2, 5) if (part := content.component(n).strip())), "")


def observation_code(segment: Segment) -> str:
    """Return the code of OBX-3."""
    return code_of(segment.field(3))


def _interpretation(content: Field, place: Place) -> list[dict[str, Any]]:
    made = []
    for repetition in content.repetitions:
        mapped = place.mapped("interpretation", repetition.component(1))
        if mapped:
            made.append({"coding": [mapped.coding()]})
    return made


def _device(content: Field, place: Place) -> dict[str, Any] | None:
    """OBX-18 names the analyser; it stays an identifier, because nobody looks after Device resources for it."""
    value = content.repetitions[0].component(1).strip()
    return {"identifier": {"system": convert.system(place.ctx, "device"), "value": value}} if value else None


def _identifier(content: Field, place: Place) -> list[dict[str, Any]]:
    value = content.repetitions[0].component(1).strip()
    return [convert.order_identifier(place.ctx, "observation", "FILL", value)] if value else []


def _effective(content: Field, place: Place) -> dict[str, Any] | None:
    moment = convert.moment(content, place)
    return {"effectiveDateTime": moment} if moment else None


def _nature(content: Field, _place: Place) -> list[dict[str, Any]]:
    url = "http://hl7.org/fhir/StructureDefinition/observation-nature-of-abnormal-test"
    system = "http://terminology.hl7.org/CodeSystem/v2-0080"
    codes = [code for one in content.repetitions if (code := one.component(1).strip())]
    return [{"url": url, "valueCodeableConcept": {"coding": [{"system": system, "code": code}]}} for code in codes]


def _analysed(content: Field, place: Place) -> dict[str, Any] | None:
    moment = convert.moment(content, place)
    url = "http://hl7.org/fhir/StructureDefinition/observation-analysis-date-time"
    return {"url": url, "valueDateTime": moment} if moment else None


def _producer(content: Field, place: Place) -> dict[str, Any] | None:
    """OBX-15: the laboratory by its code; OBX-23 says the same by name and number since v2.5.1."""
    code, name = convert.code_of(content), convert.text_of(content)
    owner = place.ctx.dialect.authorities.get(code)
    if owner is not None:
        return convert.institution(owner, place.ctx, name)
    return {"type": "Organization", "display": name or code} if name or code else None


ROWS: tuple[Row, ...] = (
    Row(21, "identifier*", _identifier, "-"),
    Row(3, "code", convert.concept, "-"),
    Row(8, "interpretation*", _interpretation),
    Row(14, "", _effective, "-"),
    Row(16, "performer*", convert.practitioners),
    Row(23, "performer*", convert.organizations, "-"),
    Row(15, "performer*", _producer, "-"),
    Row(10, "extension*", _nature, "extension:observation-nature-of-abnormal-test"),
    Row(19, "extension*", _analysed, "extension:observation-analysis-date-time"),
    Row(17, "method", convert.concept),
    Row(18, "device", _device),
    Row(20, "bodySite", convert.concept),
)


def status(segment: Segment, assembly: Assembly, default: str) -> str:
    """Return the Observation status: OBX-11, else *default* (what OBR-25 says of the whole)."""
    code = segment.get(11).strip()
    if not code:
        return default
    mapped = Place(assembly, segment, 11).mapped("observation_status", code)
    return mapped.target if mapped else "unknown"


def add_observation(
    segment: Segment, lines: list[Segment], notes: list[Segment], results: Results, assembly: Assembly
) -> str:
    """Add the Observation of *segment* and return its reference.

    *lines* are further OBX of the same test that continue a text (TX, FT), in order.

    Raises:
        MalformedError: code 101, OBX-3 is not valued.
    """
    code = observation_code(segment)
    if not code:
        raise assembly.missing(segment, 3, "Say in OBX-3 what was observed.")
    sub_id = segment.field(4).raw
    results.ordinals[f"{code}|{sub_id}"] += 1
    ordinal = results.ordinals[f"{code}|{sub_id}"]
    authority, number = results.key
    identity = assembly.ctx.id("Observation", authority, f"{number}|{results.service}|{code}|{sub_id}|{ordinal}")
    filled = fill(ROWS, segment, assembly)
    state = status(segment, assembly, results.status_default)
    resource: dict[str, Any] = {"resourceType": "Observation", "id": identity, "status": state}
    flag = segment.get(11).strip().upper()
    if flag == "X":
        coding = {"system": "http://terminology.hl7.org/CodeSystem/v2-0085", "code": "X"}
        resource["_status"] = {"extension": [{"url": _ALTERNATE, "valueCodeableConcept": {"coding": [coding]}}]}
    if results.category:
        resource["category"] = results.category
    resource.update(filled.elements)
    resource.setdefault("code", {"text": code})
    _add_value(resource, segment, lines, flag, assembly)
    ranges = obx_value.reference_range(segment, Place(assembly, segment, 7))
    if ranges:
        resource["referenceRange"] = ranges
    remarks = nte.notes(notes)
    if remarks:
        resource["note"] = remarks
    if not any(name.startswith("effective") for name in filled.elements):
        resource.update(results.effective)
    resource["subject"] = pid.patient_reference(assembly)
    for key, reference in (("encounter", results.encounter), ("specimen", results.specimen)):
        if reference:
            resource[key] = {"reference": reference}
    if results.based_on:
        resource["basedOn"] = [{"reference": results.based_on}]
    made = assembly.upsert(resource, cleared=_cleared(filled), guard="status")
    results.references.append(made)
    results.statuses.append(state)
    flags = {coding["code"] for item in resource.get("interpretation", []) for coding in item["coding"]}
    if flags & CRITICAL and state not in {"cancelled", "entered-in-error"}:
        results.critical.append(made)
    return made


def _cleared(filled: Filled) -> frozenset[str]:
    return filled.open_clears() | STATED_WHOLE


def _add_value(resource: dict[str, Any], segment: Segment, lines: list[Segment], flag: str, assembly: Assembly) -> None:
    place = Place(assembly, segment, 5)
    content = segment.field(5)
    kind = segment.get(2).strip().upper()
    repetitions = [item for item in content.repetitions if item.raw and not item.is_null]
    if kind in obx_value.TEXT_TYPES:
        text = "\n".join(item.text() for part in (segment, *lines) for item in part.field(5).repetitions).strip("\n")
        if text.strip():
            resource["valueString"] = text
    elif len(repetitions) > 1 and kind != "NA":
        # OBX[Observation-Component]: a value cannot repeat, so each repetition is a component under the same code.
        resource["component"] = [
            {"code": resource["code"], **made}
            for item in repetitions
            if (made := obx_value.value(item, segment, place))
        ]
    elif repetitions:
        resource.update(obx_value.value(repetitions[0], segment, place))
    has_value = "component" in resource or any(name.startswith("value") for name in resource)
    if flag == "N":
        _absent(resource, "not-asked")
    elif flag == "X" and not has_value:
        _absent(resource, "unknown")


def _absent(resource: dict[str, Any], code: str) -> None:
    for name in [key for key in resource if key.startswith("value")]:
        del resource[name]
    resource["dataAbsentReason"] = {"coding": [{"system": _ABSENT, "code": code}]}


def continues(first: Segment, following: Segment) -> bool:
    """Whether *following* goes on with the text of *first*: same test, same sub-id, both text."""
    return (
        first.get(2).strip().upper() in {"TX", "FT"}
        and following.get(2).strip().upper() in {"TX", "FT"}
        and observation_code(first) == observation_code(following)
        and first.field(4).raw == following.field(4).raw
        and first.get(11) == following.get(11)
    )
