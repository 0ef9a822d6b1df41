"""Appointment as SIU^S12 to S17 and S26 (HL7 v2 chapter 10.4)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from fhir_mappings.hl7v2.builder import FieldValue
from fhir_mappings.hl7v2.outbound import fields
from fhir_mappings.hl7v2.outbound.target import OutboundTarget, start

Json = Mapping[str, Any]

#: Appointment.status -> table 0278.
_FILLER_STATUS = {
    "pending": "Pending",
    "waitlist": "Waitlist",
    "booked": "Booked",
    "checked-in": "Started",
    "arrived": "Started",
    "fulfilled": "Complete",
    "cancelled": "Cancelled",
    "entered-in-error": "Deleted",
    "noshow": "Noshow",
}


def siu_s12(
    appointment: Json,
    *,
    patient: Json,
    target: OutboundTarget,
    control_id: str,
    now: datetime,
    event: str = "S12",
    practitioners: Mapping[str, Json] | None = None,
) -> str:
    """Return the booking as text; *event* says what became of it (S12 booked, S13 moved, S15 cancelled, S26 no-show)."""
    people = practitioners or {}
    numbers = appointment.get("identifier", [])
    reasons = appointment.get("reasonCode", [])
    duration = appointment.get("minutesDuration")
    begin = fields.time(appointment.get("start"), target)
    end = fields.time(appointment.get("end"), target)
    builder = start(target, f"SIU^{event}^SIU_S12", control_id=control_id, now=now)
    schedule: dict[int, FieldValue] = {
        1: fields.typed_number(numbers, "PLAC") or str(appointment["id"]),
        2: fields.typed_number(numbers, "FILL"),
        # SCH-6, SCH-16 and SCH-20 are required: why the event happened, and who answers for the entry, which is the hub.
        6: ["", str(appointment.get("cancelationReason", {}).get("text", "")) or event],
        7: fields.concept(reasons[0], target) if reasons else None,
        8: fields.concept(appointment.get("appointmentType"), target),
        9: str(duration) if duration else "",
        10: "min" if duration else "",
        11: ["", "", "", begin, end],
        16: ["", target.sending_application],
        20: ["", target.sending_application],
        25: _FILLER_STATUS.get(str(appointment.get("status", "")), ""),
    }
    builder.segment("SCH", schedule)
    if appointment.get("comment"):
        builder.segment("NTE", {1: "1", 3: str(appointment["comment"])})
    builder.segment("PID", fields.pid(patient, target))
    builder.segment("RGS", {1: "1"})
    for ordinal, service in enumerate(appointment.get("serviceType", []), start=1):
        builder.segment("AIS", {1: str(ordinal), 3: fields.concept(service, target), 4: begin})
    actors: list[Json] = [item.get("actor", {}) for item in appointment.get("participant", [])]
    places = [actor for actor in actors if str(actor.get("reference", "")).startswith("Location/")]
    persons = [actor for actor in actors if str(actor.get("reference", "")).startswith("Practitioner/")]
    # AIL-4 and AIP-4 are required in v2.4: what kind of resource it is, in words, for FHIR has no code of table 0305.
    for ordinal, actor in enumerate(places, start=1):
        builder.segment("AIL", {1: str(ordinal), 3: str(actor.get("display", "")), 4: ["", "place"]})
    for ordinal, actor in enumerate(persons, start=1):
        builder.segment("AIP", {1: str(ordinal), 3: fields.xcn(actor, people), 4: ["", "person"]})
    return builder.to_text()
