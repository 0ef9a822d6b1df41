"""ADT: admissions, visits, demographics and merges (HL7 v2 chapter 3.3). v2-to-FHIR: ADT_A01, A02, A05, A06, A09, A11.

What an event does to the stored visit is decided here; how late or repeated events meet stored data is
:mod:`fhir_mappings.hl7v2.status`.
"""

from __future__ import annotations

from typing import Any

from fhir_mappings.hl7v2.assembly import Assembly, Filled, Place
from fhir_mappings.hl7v2.base import Snapshot
from fhir_mappings.hl7v2.segments import al1, convert, dg1, in1, nk1, obx, pid, pv1
from fhir_mappings.hl7v2.tokenizer import Segment

#: Events about a visit: without a way to name the visit they say nothing.
_VISIT_EVENTS = frozenset({"A01", "A02", "A03", "A05", "A06", "A07", "A11", "A12", "A13"})

#: What an event takes back from a stored visit.
_TAKES_BACK = {
    "A13": frozenset({"period.end", "hospitalization.dischargeDisposition", "hospitalization.destination"}),
}

_CLASS = {
    "A06": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
    "A07": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"},
}

_MAPPED = frozenset({"MSH", "EVN", "PID", "PV1", "PV2", "DG1", "AL1", "NK1", "IN1", "OBX", "MRG", "SFT"})


def translate(assembly: Assembly, trigger: str) -> None:
    """Add what an ADT about one patient says.

    Raises:
        MalformedError: PID is missing (100) or names no patient (101), or a visit event does not name its visit (101).
    """
    message = assembly.message
    pid.add_patient(assembly.require_one("PID"), assembly)
    related = nk1.add_related_persons(message.all("NK1"), assembly)
    _snapshot(assembly, "RelatedPerson", "NK1", related)
    visit = message.first("PV1")
    if visit is None and trigger in _VISIT_EVENTS:
        assembly.require("PV1")
    encounter = _visit(visit, trigger, assembly) if visit is not None else None
    allergies = al1.add_allergies(message.all("AL1"), assembly)
    _snapshot(assembly, "AllergyIntolerance", "AL1", allergies)
    _snapshot(assembly, "Coverage", "IN1", in1.add_coverages(message.all("IN1"), assembly))
    _observations(message.all("OBX"), encounter, assembly)
    for segment in message.segments:
        if segment.name not in _MAPPED:
            assembly.skip(segment)


def _snapshot(assembly: Assembly, resource_type: str, source_key: str, ids: frozenset[str]) -> None:
    if ids and assembly.patient_id:
        assembly.changes.append(
            Snapshot(resource_type=resource_type, subject_id=assembly.patient_id, source_key=source_key, keep_ids=ids)
        )


def _visit(segment: Segment, trigger: str, assembly: Assembly) -> str | None:
    filled = pv1.encounter(segment, assembly, trigger)
    if filled is None:
        if trigger in _VISIT_EVENTS:
            raise assembly.missing(segment, 19, "Send the visit number in PV1-19.")
        if segment.get(2).strip().upper() not in {"", "N"}:
            Place(assembly, segment, 19).warn("PV1 names no visit; it was left out.", code="required")
        _diagnoses(None, assembly)
        return None
    _shape(filled, segment, trigger, assembly)
    # The Conditions refer to the visit and the visit to them; all changes of a message are stored in one commit.
    diagnoses = _diagnoses(str(filled.elements["id"]), assembly)
    if diagnoses:
        filled.elements["diagnosis"] = dg1.encounter_diagnoses(diagnoses, assembly)
    return pv1.add_encounter(assembly, filled, extra_clears=_TAKES_BACK.get(trigger, frozenset()))


def _diagnoses(visit_id: str | None, assembly: Assembly) -> list[tuple[str, Segment]]:
    """Add the DG1 list of one visit; it replaces the earlier list of that visit and touches no other visit's."""
    source_key = f"DG1/{visit_id}" if visit_id else "DG1"
    made = dg1.add_conditions(
        assembly.message.all("DG1"),
        assembly,
        encounter=f"Encounter/{visit_id}" if visit_id else None,
        scope=visit_id or "patient",
        source_key=source_key,
    )
    _snapshot(assembly, "Condition", source_key, frozenset(reference.partition("/")[2] for reference, _ in made))
    return made


def _shape(filled: Filled, segment: Segment, trigger: str, assembly: Assembly) -> None:
    elements = filled.elements
    if trigger in _CLASS and "class" not in elements:
        elements["class"] = _CLASS[trigger]
    if trigger == "A13":
        # The discharge is taken back, so what a copy of PV1 still says about it does not count.
        elements.get("period", {}).pop("end", None)
        for name in ("dischargeDisposition", "destination"):
            elements.get("hospitalization", {}).pop(name, None)
        for name in ("period", "hospitalization"):
            if not elements.get(name, True):
                del elements[name]
    occurred = convert.moment(evn.field(6), Place(assembly, evn, 6)) if (evn := assembly.message.first("EVN")) else None
    if trigger == "A03" and "end" not in elements.get("period", {}) and occurred:
        elements.setdefault("period", {})["end"] = occurred
    if trigger == "A02":
        for place in elements.get("location", []):
            if occurred and place["status"] == "active":
                place["period"] = {"start": occurred}
            elif occurred and place["status"] == "completed":
                place["period"] = {"end": occurred}
    if trigger == "A12" and segment.field(3).is_absent:
        # A cancelled transfer without PV1-3 puts the patient back where PV1-6 says.
        back = [place for place in elements.get("location", []) if place["status"] == "completed"]
        if back:
            elements["location"] = [{"location": back[0]["location"], "status": "active"}]
    elif trigger == "A12":
        elements["location"] = [place for place in elements.get("location", []) if place["status"] == "active"]


def _observations(segments: list[Segment], encounter: str | None, assembly: Assembly) -> None:
    """OBX in ADT: body weight, height and the like; they have no order, so the patient and the visit name them."""
    if not segments:
        return
    results = obx.Results(
        key=("ADT", f"{assembly.patient_id}|{encounter or ''}"),
        service="",
        status_default="final",
        effective=_observed(assembly),
        encounter=encounter,
    )
    for segment in segments:
        if segment.get(2).strip().upper() in {"ED", "RP"}:
            assembly.skip(segment)
            continue
        obx.add_observation(segment, [], [], results, assembly)


def _observed(assembly: Assembly) -> dict[str, Any]:
    return {"effectiveDateTime": assembly.asserted_at.isoformat(timespec="seconds")}


def merge(assembly: Assembly, _trigger: str) -> None:
    """Add what ADT^A40 says: each PID survives, the MRG behind it is dead (HL7 v2 3.3.40, PID and MRG may repeat).

    Raises:
        MalformedError: a PID or an MRG is missing (100) or names nobody (101).
    """
    assembly.require("PID")
    assembly.require("MRG")
    survivor: Segment | None = None
    first: str | None = None
    for segment in assembly.message.segments:
        if segment.name == "PID":
            survivor = segment
        elif segment.name == "MRG" and survivor is not None:
            survivor_id = _merge_pair(survivor, segment, assembly)
            first = first or survivor_id
    assembly.patient_id = first


def _merge_pair(survivor: Segment, dead: Segment, assembly: Assembly) -> str:
    dead_id = pid.number_id(dead.field(1), assembly, dead.get(4).strip())
    if dead_id is None:
        raise assembly.missing(dead, 1, "Send the number of the record that is merged away in MRG-1.")
    filled = pid.patient(survivor, assembly)
    survivor_id = str(filled.elements["id"])
    old_numbers = [{**item, "use": "old"} for item in convert.identifiers(dead.field(1), Place(assembly, dead, 1))]
    if survivor_id == dead_id:
        Place(assembly, dead, 1).warn("MRG-1 and PID-3 name the same record; nothing was merged.", code="duplicate")
    else:
        present = {(item["system"], item["value"]) for item in filled.elements.get("identifier", [])}
        extra = [item for item in old_numbers if (item["system"], item["value"]) not in present]
        filled.elements.setdefault("identifier", []).extend(extra)
    assembly.upsert(filled.elements, cleared=filled.open_clears(), guard="demographics", defaults={"active": True})
    if survivor_id != dead_id:
        stub: dict[str, Any] = {
            "resourceType": "Patient",
            "id": dead_id,
            "identifier": old_numbers,
            "active": False,
            "managingOrganization": convert.institution(assembly.ctx.institution, assembly.ctx),
        }
        names = convert.names(dead.field(7), Place(assembly, dead, 7))
        if names:
            stub["name"] = [{**name, "use": "old"} for name in names]
        # A record nobody sent before still has to exist, inactive, for its number to lead to the survivor.
        assembly.intern(stub)
        assembly.merge(survivor_id, dead_id)
    return survivor_id
