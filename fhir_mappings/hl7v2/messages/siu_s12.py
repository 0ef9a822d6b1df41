"""SIU^S12 to S22 and S26: bookings (HL7 v2 chapter 10.4) as FHIR Appointment. v2-to-FHIR: SIU_S12, SCH[Appointment].

The event says where the booking stands and wins over SCH-25, which senders leave as it was. S18 to S22 speak of single
services and resources of a booking: those they name join it or leave it, and all others stay. S23 and S24, which are about
no booking, are in :mod:`.siu_s23`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from fhir_mappings.hl7v2 import datatypes
from fhir_mappings.hl7v2.assembly import Assembly, Place, Row, fill
from fhir_mappings.hl7v2.base import Upsert, WorkflowEvent
from fhir_mappings.hl7v2.segments import convert, nte, pid, pv1
from fhir_mappings.hl7v2.tokenizer import Segment

_STATUS = {
    "S12": "booked",
    "S13": "booked",
    "S14": "booked",
    "S15": "cancelled",
    "S16": "cancelled",
    "S17": "entered-in-error",
    "S26": "noshow",
}
_EVENTS = {
    "S12": "appointment.booked",
    "S13": "appointment.rescheduled",
    "S14": "appointment.modified",
    "S15": "appointment.cancelled",
    "S16": "appointment.cancelled",
    "S17": "appointment.deleted",
    "S26": "appointment.no-show",
    **dict.fromkeys(("S18", "S19", "S20", "S21", "S22"), "appointment.modified"),
}
#: Events about services and resources, and those of them that take away what has no action code of its own.
_RESOURCE_EVENTS = frozenset({"S18", "S19", "S20", "S21", "S22"})
_TAKES_AWAY = frozenset({"S20", "S21", "S22"})
_MAPPED = frozenset({"MSH", "SCH", "TQ1", "NTE", "PID", "PV1", "PV2", "RGS", "AIS", "AIG", "AIL", "AIP", "DG1"})
_MINUTES = {"MIN": 1, "M": 1, "H": 60, "HR": 60, "S": 0, "": 1}

ROWS: tuple[Row, ...] = (
    Row(7, "reasonCode*", convert.concepts),
    Row(8, "appointmentType", convert.concept),
)


def translate(assembly: Assembly, trigger: str) -> None:
    """Add the booking.

    Raises:
        MalformedError: SCH or PID is missing (100), neither SCH-1 nor SCH-2 is valued, or a booking has no time (101).
    """
    message = assembly.message
    segment = assembly.require("SCH")
    placer, filler = segment.get(1).strip(), segment.get(2).strip()
    if not (placer or filler):
        raise assembly.missing(segment, 1, "Send the booking's number in SCH-1 or SCH-2.")
    pid.add_patient(assembly.require_one("PID"), assembly)
    pv1.mention_encounter(assembly)
    status = _STATUS.get(trigger, "")
    filled = fill(ROWS, segment, assembly)
    appointment: dict[str, Any] = {
        "resourceType": "Appointment",
        "id": assembly.ctx.id(
            "Appointment", "placer-appointment" if placer else "filler-appointment", placer or filler
        ),
        "identifier": [
            convert.order_identifier(assembly.ctx, kind, code, value)
            for kind, code, value in (("placer-appointment", "PLAC", placer), ("filler-appointment", "FILL", filler))
            if value
        ],
        **({"status": status} if status else {}),
        **filled.elements,
    }
    if status:
        _compare_status(segment, status, assembly)
    reason = segment.get(6, 2).strip() or segment.get(6).strip()
    if reason and status == "cancelled":
        # SCH-6 is why the event happened, which for a cancellation is its reason.
        appointment["cancelationReason"] = {"text": reason}
    appointment.update(times(segment, status, assembly))
    services, ended = _services(trigger, assembly)
    if services:
        appointment["serviceType"] = services
    texts = nte.notes(message.all("NTE"))
    if texts:
        appointment["comment"] = texts[0]["text"]
    orders = [
        {"reference": f"ServiceRequest/{assembly.ctx.id('ServiceRequest', authority, value)}"}
        for number, authority in ((26, "placer-order"), (27, "filler-order"))
        if (value := segment.get(number).strip())
    ]
    if orders:
        appointment["basedOn"] = orders[:1]
    appointment["participant"], removed = _participants(trigger, assembly)
    for item in message.segments:
        if item.name not in _MAPPED:
            assembly.skip(item)
    by_item: dict[str, tuple[Any, ...]] = {}
    if trigger in _RESOURCE_EVENTS:
        by_item = {"participant": tuple(removed), "serviceType": tuple(ended)}
    change = Upsert(
        resource=appointment,
        cleared=filled.open_clears() | ({"cancelationReason"} if status else frozenset()),
        guard="demographics",
        defaults={"status": "booked"},
        by_item=by_item,
    )
    assembly.changes.append(change)
    reference = change.reference
    assembly.workflow_events.append(
        WorkflowEvent(
            kind=_EVENTS[trigger],
            focus=(reference,),
            # The request that the booking is for is what a workflow knows; its own number is the second best.
            placer_number=segment.get(26).strip() or placer,
            filler_number=segment.get(27).strip() or filler,
            receiver=message.get("MSH-6").strip(),
            reason=reason,
        )
    )


def _compare_status(segment: Segment, status: str, assembly: Assembly) -> None:
    stated = segment.get(25).strip()
    if not stated:
        return
    place = Place(assembly, segment, 25)
    mapped = place.mapped("appointment_status", stated)
    if mapped and mapped.target != status:
        place.warn("SCH-25 says another status than the event, which decides.", code="conflict")


def times(segment: Segment, status: str, assembly: Assembly) -> dict[str, Any]:
    """Start and end: TQ1-7/8, SCH-11.4/5, else AIS-4; the end from the duration where it is not given."""
    timing, service = assembly.message.first("TQ1"), assembly.message.first("AIS")
    candidates = (
        (timing.get(7), timing.get(8)) if timing else ("", ""),
        (segment.get(11, 4), segment.get(11, 5)),
        (service.get(4), "") if service else ("", ""),
    )
    start_text, end_text = next(((start, end) for start, end in candidates if start.strip()), ("", ""))
    start = _instant(start_text, assembly)
    end = _instant(end_text, assembly)
    minutes = _minutes(segment, service)
    if start and end is None and minutes:
        end = start + timedelta(minutes=minutes)
    if start is None and status in {"booked", "noshow"}:
        raise assembly.missing(segment, 11, "Send the start of the booking in SCH-11.4 or TQ1-7.")
    times: dict[str, Any] = {}
    if start:
        times["start"] = start.isoformat(timespec="seconds")
        # A booking without an end (app-2 wants both or none) ends when it starts; the duration is not known.
        times["end"] = (end or start).isoformat(timespec="seconds")
        if end and end > start:
            times["minutesDuration"] = minutes or int((end - start).total_seconds() // 60)
    return times


def _instant(text: str, assembly: Assembly) -> datetime | None:
    return datatypes.dtm_instant(text, assembly.ctx) if len(text.strip()) >= 12 else None


def _minutes(segment: Segment, service: Segment | None) -> int:
    for item, number, unit in ((segment, 9, 10), (service, 7, 8)):
        if item is None:
            continue
        value = item.get(number).strip()
        if value.isdigit():
            return int(value) * _MINUTES.get(item.get(unit).strip().upper(), 1)
    return 0


def _leaves(segment: Segment, trigger: str) -> bool:
    """Whether the service or resource leaves the booking: action code D (table 0206), else what the event does."""
    action = segment.get(2).strip().upper()
    return action == "D" or (action not in {"A", "U"} and trigger in _TAKES_AWAY)


def _services(trigger: str, assembly: Assembly) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The services (AIS) that the booking has, and those that leave it."""
    made: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for item in assembly.message.all("AIS"):
        concept = convert.concept(item.field(3), Place(assembly, item, 3))
        if concept:
            made[_leaves(item, trigger)].append(concept)
    return made


def actors(item: Segment, assembly: Assembly) -> list[dict[str, Any]]:
    """Return who or what an AIP, AIL or AIG names, as references."""
    place = Place(assembly, item, 3)
    if item.name == "AIP":
        return convert.practitioners(item.field(3), place)
    if item.name == "AIL":
        where = convert.location(item.field(3), place)
        return [where] if where else []
    text = convert.text_of(item.field(3)) or convert.code_of(item.field(3))
    return [{"display": text}] if text else []


def _participants(trigger: str, assembly: Assembly) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The patient, then persons (AIP), places (AIL) and things (AIG); and those that leave the booking."""
    made: list[dict[str, Any]] = [{"actor": pid.patient_reference(assembly), "status": "accepted"}]
    removed: list[dict[str, Any]] = []
    for item in assembly.message.segments:
        if item.name in {"AIP", "AIL", "AIG"}:
            into = removed if _leaves(item, trigger) else made
            into += [{"actor": actor, "status": "accepted"} for actor in actors(item, assembly)]
    return made, removed
