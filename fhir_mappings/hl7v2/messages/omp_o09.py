"""OMP^O09, RDE^O11/O25 (RDE^O01 before v2.4) and ORM^O01 with RXO: prescriptions (HL7 v2 chapter 4.13) as FHIR
MedicationRequest. v2-to-FHIR: RXO[MedicationRequest], RXR[MedicationRequest], TQ1[MedicationRequest], ORC[ServiceRequest].

RXO is what the physician asked for, RXE what the pharmacy made of it under the same number; where both are in a message
the RXE counts. Nothing here starts a workflow: prescriptions do not move between institutions. What ORC-1 commands is
stated as an event all the same (``prescription.CA``), so that :mod:`hub.prescriptions` can judge it and answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fhir_mappings.errors import MalformedError
from fhir_mappings.hl7v2 import datatypes
from fhir_mappings.hl7v2.assembly import Assembly, Place, where
from fhir_mappings.hl7v2.base import WorkflowEvent
from fhir_mappings.hl7v2.messages.order_groups import Order, orders
from fhir_mappings.hl7v2.segments import al1, convert, nte, orc, pid, pv1, rxc, rxr, tq1
from fhir_mappings.hl7v2.tokenizer import Segment

Json = dict[str, Any]

MAPPED = frozenset(
    {
        *("MSH", "SFT", "PID", "PD1", "PV1", "PV2", "IN1", "IN2", "AL1", "NTE", "ORC", "TQ1", "TQ2"),
        *("RXO", "RXE", "RXR", "RXC"),
    }
)
_UCUM = "http://unitsofmeasure.org"


@dataclass(slots=True)
class Part:
    """One RXO, RXE, RXD or RXA with what stands behind it."""

    head: Segment
    routes: list[Segment] = field(default_factory=list)
    components: list[Segment] = field(default_factory=list)
    timings: list[Segment] = field(default_factory=list)
    notes: list[Segment] = field(default_factory=list)


def parts(order: Order) -> list[Part]:
    """Return the pharmacy segments of *order*, each head with its own."""
    made: list[Part] = []
    for segment in order.pharmacy:
        if segment.name in {"RXO", "RXE", "RXD", "RXA"}:
            made.append(Part(head=segment))
        elif made:
            part = made[-1]
            {"RXR": part.routes, "RXC": part.components, "TQ1": part.timings, "NTE": part.notes}[segment.name].append(
                segment
            )
    return made


def translate(assembly: Assembly, _trigger: str) -> None:
    """Add the prescriptions of the message.

    Raises:
        MalformedError: PID, ORC, or RXO and RXE of an order are missing (100), or ORC-1, the order number or the medicine
            is not valued (101).
    """
    encounter = add_head(assembly)
    for order in orders(assembly):
        add_order(order, encounter, assembly)
    for segment in assembly.message.segments:
        if segment.name not in MAPPED:
            assembly.skip(segment)


def add_head(assembly: Assembly) -> str | None:
    """Add patient, visit and allergies, and see that there is an order; return the reference of the visit.

    Raises:
        MalformedError: PID or ORC is missing, or PID stands twice (100).
    """
    pid.add_patient(assembly.require_one("PID"), assembly)
    assembly.require("ORC")
    al1.add_allergies(assembly.message.all("AL1"), assembly)
    return pv1.mention_encounter(assembly)


def numbers_of(order: Order, assembly: Assembly) -> tuple[orc.OrderNumbers, tuple[str, str]]:
    """Return the numbers of *order* and the one that names its prescription.

    Raises:
        MalformedError: code 101, ORC-2 and ORC-3 are not valued.
    """
    numbers = orc.numbers(order.orc, None)
    if numbers.key is None:
        raise assembly.missing(order.orc, 2, "Send the placer order number in ORC-2.")
    return numbers, numbers.key


def add_order(order: Order, encounter: str | None, assembly: Assembly) -> str:
    """Add the MedicationRequest of *order*; return its reference.

    Raises:
        MalformedError: as :func:`translate`.
    """
    if not order.orc.get(1).strip():
        raise assembly.missing(order.orc, 1, "Say in ORC-1 what is to be done with the order (table 0119).")
    found = [part for part in parts(order) if part.head.name in {"RXO", "RXE"}]
    status = orc.medication_status(order.orc, assembly)
    state(order, order.orc.get(1).strip().upper(), assembly)
    if not found:
        if order.orc.get(1).strip().upper() == "NW":
            name = "RXE" if assembly.event.startswith("RDE") else "RXO"
            raise MalformedError(
                f"A new prescription has no {name} behind its ORC.",
                where=where(order.orc),
                remedy=f"Send {name} behind the ORC of each prescription.",
                code=100,
            )
        # A cancellation or a hold names the prescription alone.
        _, key = numbers_of(order, assembly)
        identity = assembly.ctx.id("MedicationRequest", *key)
        resource: Json = {"resourceType": "MedicationRequest", "id": identity, **({"status": status} if status else {})}
        return assembly.upsert(resource, guard="demographics", update_only=True)
    request = prescription(order, found, encounter, assembly)
    if status:
        request["status"] = status
    intent = "original-order" if found[-1].head.name == "RXO" else "order"
    return assembly.upsert(request, guard="demographics", defaults={"status": "active", "intent": intent})


def state(order: Order, control: str, assembly: Assembly) -> None:
    """Say that the message has *order*, with *control* as what it commands, so that it can be judged and answered.

    Raises:
        MalformedError: code 101, the order number is not valued.
    """
    numbers, key = numbers_of(order, assembly)
    assembly.workflow_events.append(
        WorkflowEvent(
            kind=f"prescription.{control}",
            focus=(f"MedicationRequest/{assembly.ctx.id('MedicationRequest', *key)}",),
            placer_number=numbers.placer,
            filler_number=numbers.filler,
        )
    )


def prescription(order: Order, found: list[Part], encounter: str | None, assembly: Assembly) -> Json:
    """Return the MedicationRequest that *found* (RXO and RXE of *order*) describe, without its status and intent.

    Raises:
        MalformedError: code 101, the order number or the medicine is not valued.
    """
    numbers, key = numbers_of(order, assembly)
    part = found[-1]
    encoded = part.head.name == "RXE"
    head = part.head
    code = _code(head, 2 if encoded else 1, encoded=encoded, assembly=assembly)
    request: Json = {
        "resourceType": "MedicationRequest",
        "id": assembly.ctx.id("MedicationRequest", *key),
        "identifier": orc.identifiers(numbers, assembly),
        "medicationCodeableConcept": code,
        "subject": pid.patient_reference(assembly),
    }
    number = head.get(15).strip() if encoded else ""
    if number:
        request["identifier"].append({"system": assembly.ctx.system("prescription"), "value": number})
    timings = [*part.timings, *order.timings]
    priority = orc.priority(order.orc, None, assembly, timings)
    if priority:
        request["priority"] = priority
    if numbers.group:
        request["groupIdentifier"] = convert.order_identifier(
            assembly.ctx, "placer-group", "PGN", numbers.group, order.orc.get(4, 2)
        )
    form, strength, unit, volume = (6, 25, 26, (33, 34)) if encoded else (5, 18, 19, (25, 26))
    request.update(
        rxc.product(
            code,
            assembly,
            form=convert.concept(head.field(form), Place(assembly, head, form)),
            strength=rxc.quantity(head, strength, unit, assembly),
            volume=rxc.quantity(head, *volume, assembly),
            components=part.components,
        )
    )
    if encounter:
        request["encounter"] = {"reference": encounter}
    request.update(_who_and_when(order, head, encoded=encoded, assembly=assembly))
    reason = 27 if encoded else 20
    reasons = convert.concepts(head.field(reason), Place(assembly, head, reason))
    if reasons:
        request["reasonCode"] = reasons
    remarks = [*nte.notes([*order.notes, *part.notes])]
    if encoded and (special := _words(head, 21)):
        remarks.append({"text": special})
    if remarks:
        request["note"] = remarks
    schedules = tq1.schedules(timings, assembly)
    for segment, number_of_field in ((head if encoded else None, 1), (order.orc, 7)):
        if not schedules and segment is not None:
            schedules = tq1.from_tq(segment, number_of_field, assembly)
    request["dosageInstruction"] = _dosages(part, schedules, encoded=encoded, assembly=assembly)
    if not any(request["dosageInstruction"]):
        del request["dosageInstruction"]
    request.update(_dispense(head, encoded=encoded, assembly=assembly))
    return request


def _code(head: Segment, number: int, *, encoded: bool, assembly: Assembly) -> Json:
    code = convert.concept(head.field(number), Place(assembly, head, number))
    if code is None and not encoded:
        # Without RXO-1 the order stands in words in RXO-6 (chapter 4.14.1.1).
        words = _words(head, 6)
        code = {"text": words} if words else None
    if code is None:
        raise assembly.missing(head, number, "Say which medicine it is.")
    extra = convert.concepts(head.field(31), Place(assembly, head, 31)) if encoded else []
    for one in extra:
        code["coding"] = [
            *code.get("coding", []),
            *(c for c in one.get("coding", []) if c not in code.get("coding", [])),
        ]
    if not code.get("coding"):
        code.pop("coding", None)
    return code


def _words(segment: Segment, number: int) -> str:
    """The texts of a repeating CE or CWE, each its second component or what stands alone."""
    found = []
    for repetition in segment.field(number).repetitions:
        if not repetition.is_null:
            found.append(
                repetition.component(2).strip() or repetition.component(9).strip() or repetition.component(1).strip()
            )
    return "；".join(one for one in found if one)


def _who_and_when(order: Order, head: Segment, *, encoded: bool, assembly: Assembly) -> Json:
    made: Json = {}
    if order.orc.get(1).strip().upper() == "NW":
        ordered = convert.moment(order.orc.field(9), Place(assembly, order.orc, 9))
        if ordered:
            made["authoredOn"] = ordered
    if encoded and (first := convert.moment(head.field(32), Place(assembly, head, 32))):
        made["authoredOn"] = first
    for segment, number in ((order.orc, 12), (head, 13 if encoded else 14)):
        people = convert.practitioners(segment.field(number), Place(assembly, segment, number))
        if people:
            made["requester"] = people[0]
            break
    return made


def _dosages(part: Part, schedules: list[tq1.Schedule], *, encoded: bool, assembly: Assembly) -> list[Json]:
    """One Dosage for each time statement (one for none): they follow one another or go together."""
    head = part.head
    low, high, unit = (3, 4, 5) if encoded else (2, 3, 4)
    common: Json = rxr.instructed_route(part.routes, assembly)
    dose: Json = dose_of(head, low, high, unit, assembly)
    rate = rxc.quantity(head, 23, 24, assembly) if encoded else rxc.quantity(head, 21, 22, assembly)
    if rate:
        dose["rateQuantity"] = rate
    daily = _daily(head) if encoded else None
    if daily:
        common["maxDosePerPeriod"] = daily
    words = _words(head, 7) or ("" if encoded else _words(head, 6))
    made: list[Json] = []
    for number, schedule in enumerate(schedules or [None], start=1):
        dosage: Json = {"sequence": number} if len(schedules) > 1 else {}
        text = "；".join(one for one in (words, schedule.text if schedule else "") if one)
        if text:
            dosage["text"] = text
        given = dose
        if schedule is not None:
            if schedule.condition:
                dosage["additionalInstruction"] = [{"text": schedule.condition}]
            timing = schedule.timing()
            if timing:
                dosage["timing"] = timing
            if schedule.as_needed:
                dosage["asNeededBoolean"] = True
            if schedule.quantity and not {"doseQuantity", "doseRange"} & dose.keys():
                given = {**dose, "doseQuantity": schedule.quantity}
        dosage.update(common)
        if given:
            dosage["doseAndRate"] = [given]
        made.append(dosage)
    return made


def dose_of(segment: Segment, low: int, high: int, unit: int, assembly: Assembly) -> Json:
    """Return ``doseQuantity``, or ``doseRange`` where the most differs from the least.

    v2-to-FHIR makes a Range of a single amount too, which reads as "at least".
    """
    least, most = rxc.quantity(segment, low, unit, assembly), rxc.quantity(segment, high, unit, assembly)
    if least and most and least["value"] < most["value"]:
        return {"doseRange": {"low": least, "high": most}}
    amount = least or most
    return {"doseQuantity": amount} if amount else {}


def _daily(head: Segment) -> Json | None:
    value = datatypes.nm_value(head.get(19))
    if value is None:
        return None
    unit = head.get(19, 2, 2).strip() or head.get(19, 2).strip()
    day = {"value": 1, "unit": "d", "system": _UCUM, "code": "d"}
    return {"numerator": {"value": value, **({"unit": unit} if unit else {})}, "denominator": day}


def _dispense(head: Segment, *, encoded: bool, assembly: Assembly) -> Json:
    amount, unit, refills = (10, 11, 12) if encoded else (11, 12, 13)
    made: Json = {}
    quantity = rxc.quantity(head, amount, unit, assembly)
    if quantity:
        made["quantity"] = quantity
    repeats = head.get(refills).strip()
    if repeats.isascii() and repeats.isdigit() and len(repeats) < 10:
        made["numberOfRepeatsAllowed"] = int(repeats)
    found: Json = {"dispenseRequest": made} if made else {}
    substitution = "" if encoded else head.get(9).strip().upper()
    if substitution:
        coding = {"system": "http://terminology.hl7.org/CodeSystem/v2-0161", "code": substitution}
        found["substitution"] = {"allowedCodeableConcept": {"coding": [coding]}}
    return found
