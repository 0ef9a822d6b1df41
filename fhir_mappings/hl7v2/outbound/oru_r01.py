"""DiagnosticReport as ORU^R01 (HL7 v2 chapter 7.3.1) for a partner whose system reads nothing else."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fhir_mappings.hl7v2.builder import FieldValue, MessageBuilder, Repeat
from fhir_mappings.hl7v2.outbound import fields, spm
from fhir_mappings.hl7v2.outbound.target import OutboundTarget, start

Json = Mapping[str, Any]

#: DiagnosticReport.status -> table 0123. A withdrawn report has no code of its own there: it is corrected, and its
#: results say that they are deleted.
REPORT_STATUS = {
    "registered": "I",
    "partial": "A",
    "preliminary": "P",
    "final": "F",
    "amended": "C",
    "corrected": "C",
    "appended": "C",
    "cancelled": "X",
    "entered-in-error": "C",
    "unknown": "",
}
#: Observation.status -> table 0085.
OBSERVATION_STATUS = {
    "registered": "I",
    "preliminary": "P",
    "final": "F",
    "amended": "C",
    "corrected": "C",
    "cancelled": "X",
    "entered-in-error": "D",
    "unknown": "",
}
_IMPRESSION: Json = {"coding": [{"system": "http://loinc.org", "code": "19005-8", "display": "诊断提示"}]}
_IMPRESSION_CODES = frozenset({"19005-8", "8251-1"})
#: What a performer's function (v3-ParticipationType) makes of him: OBR-33 wrote, OBR-34 did the work, OBR-35 typed it.
_WRITER, _TECHNICIAN, _TRANSCRIBER = "AUT", "SPRF", "TRANS"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundAttachment:
    """A document that goes inside the message."""

    title: str
    content_type: str
    data: bytes


def oru_r01(
    report: Json,
    *,
    patient: Json,
    target: OutboundTarget,
    control_id: str,
    now: datetime,
    observations: Sequence[Json] = (),
    request: Json | None = None,
    practitioners: Mapping[str, Json] | None = None,
    attachments: Sequence[OutboundAttachment] = (),
    specimens: Sequence[Json] = (),
) -> str:
    """Return the message as text; the caller encodes it in the receiver's character set.

    *request* is the receiver's own ServiceRequest, whose placer number stands in OBR-2; *practitioners* are keyed by
    their reference. OBR-32 is who answers for the report, OBR-33 who wrote it. *specimens* stand behind the results as SPM,
    before v2.5 in OBR-15.
    """
    people = practitioners or {}
    builder = start(target, "ORU^R01^ORU_R01", control_id=control_id, now=now)
    builder.segment("PID", fields.pid(patient, target))
    described = {} if target.modern else spm.obr_fields(specimens, target)
    builder.segment("OBR", {**_obr(report, request, people, target), **described})
    ordinal = 0
    for values, notes in _results(report, observations, target):
        ordinal += 1
        builder.segment("OBX", {1: str(ordinal), **values})
        for number, note in enumerate(notes, start=1):
            builder.segment("NTE", {1: str(number), 3: note})
    status = REPORT_STATUS.get(str(report.get("status", "")), "")
    for attachment in attachments:
        ordinal += 1
        _document(builder, ordinal, attachment, "F" if status == "" else status)
    if target.modern:
        # ORU^R01 has no place for SAC; chapter 7.3.1.
        spm.add_specimens(builder, specimens, target, containers=False)
    return builder.to_text()


def _obr(
    report: Json, request: Json | None, people: Mapping[str, Json], target: OutboundTarget
) -> dict[int, FieldValue]:
    period = report.get("effectivePeriod", {})
    sections = [
        coding["code"]
        for item in report.get("category", [])
        for coding in item.get("coding", [])
        if str(coding.get("system", "")).endswith("/v2-0074")
    ]
    reviewer = next(iter(report.get("resultsInterpreter", [])), None)
    return {
        1: "1",
        2: fields.placer_number(request, target) or fields.placer_number(report, target),
        3: fields.filler_number(report, request),
        # The receiver knows its own order code; the code of the report is the other side's.
        4: fields.concept((request or {}).get("code") or report.get("code"), target),
        7: fields.time(report.get("effectiveDateTime") or period.get("start"), target),
        8: fields.time(period.get("end"), target),
        16: fields.xcn((request or {}).get("requester"), people),
        22: fields.time(report.get("issued"), target),
        24: sections[0] if sections else "",
        25: REPORT_STATUS.get(str(report.get("status", "")), ""),
        32: fields.ndl(reviewer, people),
        33: fields.ndl(_writer(report, reviewer), people),
        34: _all(_performers(report, _TECHNICIAN), people),
        35: _all(_performers(report, _TRANSCRIBER), people),
    }


def _all(references: Sequence[Json], people: Mapping[str, Json]) -> Repeat | None:
    found = [made for one in references if (made := fields.ndl(one, people)) is not None]
    return Repeat(found) if found else None


def _writer(report: Json, reviewer: Json | None) -> Json | None:
    """Return who wrote the report: its author, else a person whose function nobody said and who did not review it."""
    authors = _performers(report, _WRITER)
    if authors:
        return authors[0]
    people = [item for item in _performers(report, "") if str(item.get("reference", "")).startswith("Practitioner")]
    others = [item for item in people if reviewer is None or item.get("reference") != reviewer.get("reference")]
    return others[0] if others else None


def _performers(report: Json, function: str) -> list[Json]:
    """Return the performers with *function*; empty for those whose function is none that OBR has a field for."""
    found = []
    for performer in report.get("performer", []):
        codes = {
            coding.get("code")
            for extension in performer.get("extension", [])
            for coding in extension.get("valueCodeableConcept", {}).get("coding", [])
        }
        if function in codes or (not function and codes.isdisjoint({_WRITER, _TECHNICIAN, _TRANSCRIBER})):
            found.append(performer)
    return found


def _results(
    report: Json, observations: Sequence[Json], target: OutboundTarget
) -> Iterable[tuple[dict[int, FieldValue], list[str]]]:
    """Yield each OBX with the notes that follow it."""
    codes: set[str] = set()
    for observation in observations:
        codes |= {str(coding.get("code", "")) for coding in observation.get("code", {}).get("coding", [])}
        components = observation.get("component", [])
        notes = [str(note["text"]) for note in observation.get("note", []) if note.get("text")]
        holders: list[tuple[Json, str]] = [(one, str(place)) for place, one in enumerate(components, start=1)]
        if not components or _value(observation, target) != ("", None):
            holders.insert(0, (observation, ""))
        elif (repeated := _repeated(observation, target)) is not None:
            # One result with several values: a reader that knows only the first still has the right one.
            yield {**_obx(observation, {**components[0], **observation}, "", target), **repeated}, notes
            continue
        for place, (holder, sub_id) in enumerate(holders, start=1):
            # A note is about the whole observation, so it stands behind its last OBX.
            yield _obx(observation, holder, sub_id, target), notes if place == len(holders) else []
    conclusion = str(report.get("conclusion", "")).strip()
    if conclusion and not codes & _IMPRESSION_CODES:
        impression: dict[int, FieldValue] = {
            2: "FT" if "\n" in conclusion else "TX",
            3: fields.concept(_IMPRESSION, target),
            5: conclusion,
            11: REPORT_STATUS.get(str(report.get("status", "")), "") or "F",
        }
        yield impression, []


def _repeated(observation: Json, target: OutboundTarget) -> dict[int, FieldValue] | None:
    """Return OBX-2, 5 and 6 of an Observation whose components are values of the same thing; ``None`` of any other."""
    components: list[Json] = observation["component"]
    if any(one.get("code") != observation.get("code") for one in components):
        return None
    kinds, values = zip(*(_value(one, target) for one in components), strict=True)
    units = [_unit(one.get("valueQuantity", {}), target) for one in components]
    if len(set(kinds)) > 1 or any(one != units[0] for one in units) or any(isinstance(one, Repeat) for one in values):
        return None
    return {2: kinds[0], 5: Repeat(["" if one is None else one for one in values]), 6: units[0]}


def _obx(observation: Json, holder: Json, sub_id: str, target: OutboundTarget) -> dict[int, FieldValue]:
    kind, value = _value(holder, target)
    ranges = holder.get("referenceRange") or []
    flags = [
        str(coding.get("code", ""))
        for item in holder.get("interpretation", [])
        for coding in item.get("coding", [])[:1]
    ]
    quantity = holder.get("valueQuantity") or holder.get("valueRange", {}).get("low") or {}
    return {
        2: kind,
        3: fields.concept(holder.get("code"), target),
        4: sub_id,
        5: value,
        6: _unit(quantity, target),
        7: _range(ranges[0]) if ranges else "",
        8: Repeat(flags) if flags else None,
        11: OBSERVATION_STATUS.get(str(observation.get("status", "")), ""),
        14: fields.time(
            observation.get("effectiveDateTime") or observation.get("effectivePeriod", {}).get("start"), target
        ),
    }


def _value(holder: Json, target: OutboundTarget) -> tuple[str, FieldValue]:
    if "valueQuantity" in holder:
        quantity = holder["valueQuantity"]
        if quantity.get("comparator"):
            return "SN", [str(quantity["comparator"]), fields.nm(quantity.get("value"))]
        return "NM", fields.nm(quantity.get("value"))
    if "valueRange" in holder:
        ends = holder["valueRange"]
        return "SN", [
            "",
            fields.nm(ends.get("low", {}).get("value")),
            "-",
            fields.nm(ends.get("high", {}).get("value")),
        ]
    if "valueRatio" in holder:
        ratio = holder["valueRatio"]
        return "SN", [
            "",
            fields.nm(ratio.get("numerator", {}).get("value")),
            ":",
            fields.nm(ratio.get("denominator", {}).get("value")),
        ]
    if "valueCodeableConcept" in holder:
        return ("CWE" if target.modern else "CE"), fields.concept(holder["valueCodeableConcept"], target)
    if "valueDateTime" in holder:
        return ("DTM" if target.modern else "TS"), fields.time(str(holder["valueDateTime"]), target)
    if "valueTime" in holder:
        return "TM", str(holder["valueTime"]).replace(":", "")
    for name in ("valueString", "valueBoolean", "valueInteger"):
        if name in holder:
            text = str(holder[name])
            # Only FT may hold line breaks (chapter 2A.33); they travel as \.br\.
            return ("FT" if "\n" in text else "TX"), text
    return "", None


def _unit(quantity: Json, target: OutboundTarget) -> FieldValue:
    """Return OBX-6: the unit as it is read, or code, unit and system where it is coded."""
    unit, code = str(quantity.get("unit", "")), str(quantity.get("code", ""))
    if not code or not quantity.get("system"):
        return unit or code
    return [code, unit, fields.code_system(str(quantity["system"]), target)]


def _range(reference: Json) -> str:
    if reference.get("text"):
        return str(reference["text"])
    low = fields.nm(reference.get("low", {}).get("value"))
    high = fields.nm(reference.get("high", {}).get("value"))
    if low and high:
        return f"{low}-{high}"
    return f">={low}" if low else f"<={high}" if high else ""


def _document(builder: MessageBuilder, ordinal: int, attachment: OutboundAttachment, status: str) -> None:
    kind, _, subtype = attachment.content_type.partition(";")[0].partition("/")
    builder.segment(
        "OBX",
        {
            1: str(ordinal),
            2: "ED",
            3: ["PDF" if subtype == "pdf" else subtype.upper()[:20], attachment.title, "L"],
            5: ["", kind, subtype, "Base64", base64.b64encode(attachment.data).decode()],
            11: status,
        },
    )
