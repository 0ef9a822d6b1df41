"""What an ADT event does to the visit of PV1 (HL7 v2 chapter 3.3): where it stands, where the patient lies, as what.

The status is :func:`fhir_mappings.hl7v2.segments.pv1.event_status`; here stand the effects that are one event's own.
"""

from __future__ import annotations

from typing import Any

from fhir_mappings.hl7v2 import visit_history
from fhir_mappings.hl7v2.assembly import Assembly, Filled, Place, put
from fhir_mappings.hl7v2.base import Snapshot
from fhir_mappings.hl7v2.segments import convert, dg1, pid, pv1, rol
from fhir_mappings.hl7v2.tokenizer import Segment

Json = dict[str, Any]

#: Events about a visit: without a way to name the visit they say nothing.
VISIT_EVENTS = frozenset(
    {
        *("A01", "A02", "A03", "A05", "A06", "A07", "A09", "A10", "A11", "A12", "A13", "A14", "A15", "A16", "A17"),
        *("A25", "A26", "A27", "A38"),
    }
)

_EXPECTED_END = f"extension:{pv1.PLANNED}.plannedEndDate"
#: What an event takes back from a stored visit.
_TAKES_BACK = {
    "A13": frozenset({"period.end", "hospitalization.dischargeDisposition", "hospitalization.destination"}),
    # A16 told when the patient was expected to leave.
    "A25": frozenset({_EXPECTED_END}),
}

_CLASS = {
    "A06": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
    "A07": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"},
}
#: Events that take a bed back which an earlier one had reserved or planned (A05 and A14, A15).
_FREES_BEDS = frozenset({"A26", "A27", "A38"})


def add_visit(segment: Segment, trigger: str, assembly: Assembly) -> str | None:
    """Add the Encounter of PV1 with its diagnoses; return its reference, ``None`` when nothing names the visit.

    Raises:
        MalformedError: code 101, the event is about a visit and PV1 does not name it.
    """
    filled = pv1.encounter(segment, assembly, trigger)
    if filled is None:
        if trigger in VISIT_EVENTS:
            raise assembly.missing(segment, 19, "Send the visit number in PV1-19.")
        if segment.get(2).strip().upper() not in {"", "N"}:
            Place(assembly, segment, 19).warn("PV1 names no visit; it was left out.", code="required")
        _diagnoses(None, assembly)
        return None
    roles = rol.participants(assembly)
    if roles:
        put(filled.elements, "participant*", roles)
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
    add_snapshot(assembly, "Condition", source_key, frozenset(reference.partition("/")[2] for reference, _ in made))
    return made


def add_snapshot(assembly: Assembly, resource_type: str, source_key: str, ids: frozenset[str]) -> None:
    """Say that the message listed every resource of this kind; an empty list says nothing."""
    if ids and assembly.patient_id:
        assembly.changes.append(
            Snapshot(resource_type=resource_type, subject_id=assembly.patient_id, source_key=source_key, keep_ids=ids)
        )


def occurred(assembly: Assembly) -> str | None:
    """Return the moment of the event from EVN-6 as a dateTime, if the message says it."""
    event = assembly.message.first("EVN")
    return convert.moment(event.field(6), Place(assembly, event, 6)) if event else None


def _since(assembly: Assembly) -> str:
    """The moment from which a transfer counts; a bare date in EVN-6 orders nothing."""
    said = occurred(assembly)
    return said if said and "T" in said else visit_history.as_text(assembly.asserted_at)


def _shape(filled: Filled, segment: Segment, trigger: str, assembly: Assembly) -> None:
    elements = filled.elements
    if trigger in _CLASS:
        elements.setdefault("class", _CLASS[trigger])
        elements["classHistory"] = [{"class": elements["class"], "period": {"start": _since(assembly)}}]
    if trigger == "A13":
        # The discharge is taken back, so what a copy of PV1 still says about it does not count.
        elements.get("period", {}).pop("end", None)
        for name in ("dischargeDisposition", "destination"):
            elements.get("hospitalization", {}).pop(name, None)
        for name in ("period", "hospitalization"):
            if not elements.get(name, True):
                del elements[name]
    if trigger == "A25":
        kept = [one for one in elements.pop("extension", []) if not one["url"].endswith(".plannedEndDate")]
        if kept:
            elements["extension"] = kept
    end = occurred(assembly) if trigger == "A03" else None
    if end and "end" not in elements.get("period", {}):
        elements.setdefault("period", {})["end"] = end
    if trigger in {"A02", "A12"} and "location" in elements:
        _transfer(elements, segment, trigger, _since(assembly))
    elif trigger in _FREES_BEDS and "location" in elements:
        left = [one for one in elements["location"] if one["status"] not in {"planned", "reserved"}]
        elements["location"] = left or elements["location"]


def _transfer(elements: Json, segment: Segment, trigger: str, since: str) -> None:
    """Date the places of a transfer (A02), or of its cancellation (A12), which leads back."""
    places = elements["location"]
    if trigger == "A02":
        for place in places:
            if place["status"] == "active":
                place["period"] = {"start": since}
            elif place["status"] == "completed":
                place["period"] = {"end": since}
        return
    # A cancelled transfer without PV1-3 puts the patient back where PV1-6 says.
    wanted = "completed" if segment.field(3).is_absent else "active"
    back = next((place for place in places if place["status"] == wanted), None)
    if back is None:
        del elements["location"]
    else:
        elements["location"] = [
            visit_history.takes_back({"location": back["location"], "status": "active", "period": {"start": since}})
        ]


def swap(assembly: Assembly, trigger: str) -> None:
    """Add what ADT^A17 says: two patients have changed beds, and nothing else about them (HL7 v2 chapter 3.3.17).

    Raises:
        MalformedError: there are not two PID with a PV1 each (100), or one names no patient, visit or place (101).
    """
    first: str | None = None
    pairs = _pairs(assembly)
    for person, visit in pairs:
        who = pid.patient(person, assembly)
        assembly.intern({"active": True, **who.elements})
        first = first or assembly.patient_id
        filled = pv1.encounter(visit, assembly, trigger)
        if filled is None:
            raise assembly.missing(visit, 19, "Send the visit number in PV1-19.")
        if visit.field(3).is_absent or visit.field(3).is_null or "location" not in filled.elements:
            raise assembly.missing(visit, 3, "Send the new bed of each patient in PV1-3.")
        _transfer(filled.elements, visit, "A02", _since(assembly))
        for name in set(filled.elements) - _OF_SWAP:
            del filled.elements[name]
        pv1.add_encounter(assembly, Filled(elements=filled.elements))
    assembly.patient_id = first


_OF_SWAP = frozenset({"resourceType", "id", "identifier", "status", "class", "subject", "serviceProvider", "location"})


def _pairs(assembly: Assembly) -> list[tuple[Segment, Segment]]:
    assembly.require("PID")
    assembly.require("PV1")
    pairs: list[tuple[Segment, Segment]] = []
    person: Segment | None = None
    for segment in assembly.message.segments:
        if segment.name == "PID":
            person = segment
        elif segment.name == "PV1" and person is not None:
            pairs.append((person, segment))
            person = None
    if len(pairs) != 2 or person is not None:
        raise assembly.structure("PV1", "Send PID and PV1 of the one patient and then of the other.")
    return pairs
