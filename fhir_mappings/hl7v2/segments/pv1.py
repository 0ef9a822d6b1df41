"""PV1 and PV2: the visit (HL7 v2 chapter 3.4.3, 3.4.4) as FHIR Encounter. v2-to-FHIR: PV1[Encounter], PV2[Encounter]."""

from __future__ import annotations

from html import escape
from typing import Any

from fhir_mappings import codes
from fhir_mappings.hl7v2 import datatypes
from fhir_mappings.hl7v2.assembly import Assembly, Convert, Filled, Place, Row, fill
from fhir_mappings.hl7v2.segments import convert
from fhir_mappings.hl7v2.segments.z import fill_z
from fhir_mappings.hl7v2.tokenizer import Field, Segment

PLANNED = "extension-Encounter"
#: FHIR R5 has elements for these moments, R4 the extensions that stand for them.
_R5_ENCOUNTER = f"http://hl7.org/fhir/5.0/StructureDefinition/{PLANNED}"
_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
UNKNOWN_CLASS = {"system": "http://terminology.hl7.org/CodeSystem/v3-NullFlavor", "code": "UNK", "display": "unknown"}

#: Events that say nothing about where the visit stands; a stored status stays (hl7.org v2-to-FHIR has "unknown").
SNAPSHOT_EVENTS = frozenset({"A08", "A28", "A31"})
_CANCEL_EVENTS = frozenset({"A11", "A27", "A38"})


def _class(content: Field, place: Place) -> dict[str, Any] | None:
    mapped = place.mapped("patient_class", convert.code_of(content))
    return mapped.coding() if mapped else None


def _participants(code: str, display: str) -> Convert:
    def convert_field(content: Field, place: Place) -> list[dict[str, Any]]:
        return [
            {
                "type": [{"coding": [{"system": _PARTICIPATION, "code": code, "display": display}]}],
                "individual": reference,
            }
            for reference in convert.practitioners(content, place)
        ]

    return convert_field


def _locations(status: str) -> Convert:
    def convert_field(content: Field, place: Place) -> list[dict[str, Any]]:
        reference = convert.location(content, place)
        return [{"location": reference, "status": status}] if reference else []

    return convert_field


def _visit_numbers(content: Field, place: Place) -> list[dict[str, Any]]:
    return [
        datatypes.visit_identifier(repetition, place.ctx)
        for repetition in content.repetitions
        if repetition.component(1).strip()
    ]


def _concepts(content: Field, place: Place) -> list[dict[str, Any]]:
    found = convert.concept(content, place)
    return [found] if found else []


def _pre_admission(content: Field, place: Place) -> dict[str, Any] | None:
    value = content.repetitions[0].component(1).strip()
    if not value:
        return None
    return {"system": convert.system(place.ctx, "preadmission"), "value": value}


def _destination(content: Field, _place: Place) -> dict[str, Any] | None:
    """PV1-37: the v2-to-FHIR row makes a Location; a name alone identifies none, so it stays a display."""
    text = convert.text_of(content) or convert.code_of(content)
    return {"display": text} if text else None


def _episode(content: Field, place: Place) -> dict[str, Any] | None:
    """PV1-54, and PV1-53 in words: the episode goes by its number, for nobody here looks after episodes of care."""
    value, words = content.repetitions[0].component(1).strip(), place.segment.get(53).strip()
    if not value:
        return None
    number = {"system": convert.system(place.ctx, "episode"), "value": value}
    return {"type": "EpisodeOfCare", "identifier": number, **({"display": words} if words else {})}


ROWS: tuple[Row, ...] = (
    Row(19, "identifier*", _visit_numbers, "-"),
    Row(50, "identifier*", _visit_numbers, "-"),
    Row(2, "class", _class),
    Row(4, "type*", _concepts),
    Row(10, "serviceType", convert.concept),
    Row(7, "participant*", _participants("ATND", "attender"), "participant:ATND"),
    Row(8, "participant*", _participants("REF", "referrer"), "participant:REF"),
    Row(9, "participant*", _participants("CON", "consultant"), "participant:CON"),
    Row(17, "participant*", _participants("ADM", "admitter"), "participant:ADM"),
    Row(52, "participant*", _participants("PART", "Participation"), "participant:PART"),
    Row(54, "episodeOfCare*", _episode),
    Row(44, "period.start", convert.moment),
    Row(45, "period.end", convert.moment),
    Row(5, "hospitalization.preAdmissionIdentifier", _pre_admission),
    Row(13, "hospitalization.reAdmission", convert.concept),
    Row(14, "hospitalization.admitSource", convert.concept),
    Row(15, "hospitalization.specialArrangement", _concepts),
    Row(16, "hospitalization.specialCourtesy", _concepts),
    Row(38, "hospitalization.dietPreference", _concepts),
    Row(37, "hospitalization.destination", _destination),
    Row(36, "hospitalization.dischargeDisposition", convert.concept),
    Row(3, "location*", _locations("active")),
    Row(6, "location*", _locations("completed"), "-"),
    # The v2-to-FHIR row classifies a temporary place with an extension; FHIR's own status says that it is where the
    # patient is, which is what readers need.
    Row(11, "location*", _locations("active"), "-"),
    Row(42, "location*", _locations("reserved"), "-"),
)


def _length_days(content: Field, place: Place) -> dict[str, Any] | None:
    value = convert.decimal(content, place)
    if value is None:
        return None
    return {"value": value, "unit": "d", "system": "http://unitsofmeasure.org", "code": "d"}


def _planned(name: str) -> Convert:
    def convert_field(content: Field, place: Place) -> list[dict[str, Any]]:
        moment = convert.moment(content, place)
        return [{"url": f"{_R5_ENCOUNTER}.{name}", "valueDateTime": moment}] if moment else []

    return convert_field


def _arrival(content: Field, place: Place) -> list[dict[str, Any]]:
    mapped = place.mapped("mode_of_arrival", convert.code_of(content))
    url = "http://hl7.org/fhir/StructureDefinition/encounter-modeOfArrival"
    return [{"url": url, "valueCoding": mapped.coding()}] if mapped else []


def _priority(content: Field, place: Place) -> dict[str, Any] | None:
    mapped = place.known("encounter_priority", convert.code_of(content))
    return {"coding": [mapped.coding()]} if mapped else convert.concept(content, place)


def _description(content: Field, _place: Place) -> dict[str, Any] | None:
    text = content.text().strip()
    div = f'<div xmlns="http://www.w3.org/1999/xhtml">{escape(text)}</div>'
    return {"status": "additional", "div": div} if text else None


def _protection(content: Field, _place: Place) -> list[dict[str, Any]]:
    """PV2-22: the v2-to-FHIR row keeps the Y; what readers of FHIR look for is the confidentiality it means."""
    if content.component(1).strip().upper() != "Y":
        return []
    system = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
    return [{"system": system, "code": "R", "display": "restricted"}]


PV2_ROWS: tuple[Row, ...] = (
    Row(1, "location*", _locations("planned"), "-"),
    Row(8, "extension*", _planned("plannedStartDate"), f"extension:{PLANNED}.plannedStartDate"),
    Row(9, "extension*", _planned("plannedEndDate"), f"extension:{PLANNED}.plannedEndDate"),
    Row(12, "text", _description),
    Row(22, "meta.security*", _protection, "meta.security"),
    Row(38, "extension*", _arrival, "extension:encounter-modeOfArrival"),
    Row(3, "reasonCode*", _concepts),
    Row(11, "length", _length_days),
    Row(13, "participant*", _participants("REF", "referrer"), "participant:REF"),
    Row(25, "priority", _priority),
)


def visit_id(segment: Segment, assembly: Assembly) -> str | None:
    """Return the FHIR id of the visit, or ``None`` when nothing in PV1 tells one visit from the next.

    PV1-19 names it, else PV1-50; where a hospital has no visit numbers the patient and the moment of admission do.
    """
    for number in (19, 50):
        content = segment.field(number)
        if not content.is_absent and not content.is_null and content.repetitions[0].component(1).strip():
            return assembly.ctx.id("Encounter", "visit", content.repetitions[0].component(1).strip())
    admitted = segment.field(44)
    if not admitted.is_absent and not admitted.is_null:
        return assembly.ctx.id("Encounter", "admission", f"{assembly.patient_id}|{admitted.raw.strip()}")
    return None


def event_status(segment: Segment, trigger: str) -> str | None:
    """Return the Encounter status that *trigger* and PV1 give, or ``None`` when they say nothing about it.

    Cancelling events come first, then a discharge time (A13 takes it back), then the event, then the patient class.
    """
    if trigger in SNAPSHOT_EVENTS:
        return None
    event = codes.lookup("encounter_event", trigger)
    if trigger in _CANCEL_EVENTS and event is not None:
        return event.target
    discharged = segment.field(45)
    if trigger not in {"A13", "A12"} and not discharged.is_absent and not discharged.is_null:
        return "finished"
    if event is not None:
        return event.target
    # PatientClass[EncounterStatus] has only P as planned; a message that merely carries a visit (orders, results) says
    # nothing about where the visit stands.
    return "planned" if convert.code_of(segment.field(2)) == "P" else None


def encounter(segment: Segment, assembly: Assembly, trigger: str = "") -> Filled | None:
    """Return the elements of the Encounter of PV1, or ``None`` when the visit cannot be named."""
    identity = visit_id(segment, assembly)
    if identity is None:
        return None
    filled = fill(ROWS, segment, assembly)
    second = assembly.message.first("PV2")
    if second is not None:
        fill(PV2_ROWS, second, assembly, into=filled)
    fill_z("Encounter", assembly.message.segments, assembly, filled)
    head: dict[str, Any] = {"resourceType": "Encounter", "id": identity}
    status = event_status(segment, trigger)
    if status:
        head["status"] = status
    filled.elements = {
        **head,
        **filled.elements,
        "subject": {"reference": f"Patient/{assembly.patient_id}"},
        "serviceProvider": convert.institution(assembly.ctx.institution, assembly.ctx),
    }
    if status == "planned":
        for place in filled.elements.get("location", []):
            place["status"] = "planned" if place["status"] == "active" else place["status"]
    return filled


def add_encounter(assembly: Assembly, filled: Filled, *, extra_clears: frozenset[str] = frozenset()) -> str:
    """Add the Encounter as a change guarded by age and status; return its reference."""
    finished = "end" in filled.elements.get("period", {})
    return assembly.upsert(
        filled.elements,
        cleared=filled.open_clears() | extra_clears,
        guard="status",
        defaults={"status": "finished" if finished else "unknown", "class": UNKNOWN_CLASS},
    )


def mention_encounter(assembly: Assembly) -> str | None:
    """State the visit that an order, result, booking or document belongs to; return its reference.

    Only ADT says where a visit stands and where the patient lies. What another message copies of PV1 may be hours old,
    so it makes the Encounter where there is none and changes nothing where there is one.
    """
    segment = assembly.message.first("PV1")
    filled = encounter(segment, assembly) if segment is not None else None
    return intern_encounter(filled, assembly) if filled is not None else None


def intern_encounter(filled: Filled, assembly: Assembly) -> str:
    """Add the Encounter for the case that it is not known yet; return its reference."""
    return assembly.intern({"status": "unknown", "class": UNKNOWN_CLASS, **filled.elements})
