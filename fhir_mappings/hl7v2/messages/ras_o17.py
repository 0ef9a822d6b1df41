"""RAS^O17 (RAS^O01 before v2.4): medicines given (HL7 v2 chapter 4.13.12) as FHIR MedicationAdministration.

v2-to-FHIR: ORC[MedicationAdministration]; for RXA it has a map to Immunization only, whose rows are read alike.
"""

from __future__ import annotations

from typing import Any

from fhir_mappings.hl7v2.assembly import Assembly, Place
from fhir_mappings.hl7v2.messages import omp_o09, rds_o13
from fhir_mappings.hl7v2.messages.order_groups import Order, orders
from fhir_mappings.hl7v2.segments import convert, nte, obx, orc, pid, rxa, rxc, rxr

Json = dict[str, Any]

_MAPPED = omp_o09.MAPPED | {"RXA", "OBX"}


def translate(assembly: Assembly, _trigger: str) -> None:
    """Add the administrations of the message.

    Raises:
        MalformedError: PID, ORC or RXA is missing (100), or the order number, RXA-3 or RXA-5 is not valued (101).
    """
    encounter = omp_o09.add_head(assembly)
    assembly.require("RXA")
    for order in orders(assembly):
        omp_o09.state(order, "reported", assembly)
        request = ""
        found = omp_o09.parts(order)
        # A route that stands once behind several RXA is that of all of them.
        routes = next((part.routes for part in reversed(found) if part.head.name == "RXA" and part.routes), [])
        for part in found:
            if part.head.name != "RXA":
                continue
            request = request or rds_o13.known_prescription(order, part.head, 5, encounter, assembly)
            part.routes = part.routes or routes
            _administration(order, part, request, encounter, assembly)
        _observations(order, encounter, assembly)
    for segment in assembly.message.segments:
        if segment.name not in _MAPPED:
            assembly.skip(segment)


def _administration(order: Order, part: omp_o09.Part, request: str, encounter: str | None, assembly: Assembly) -> None:
    head = part.head
    code = convert.concept(head.field(5), Place(assembly, head, 5))
    if code is None:
        raise assembly.missing(head, 5, "Say in RXA-5 what was given.")
    start = convert.moment(head.field(3), Place(assembly, head, 3))
    if not start:
        raise assembly.missing(head, 3, "Say in RXA-3 when it was given.")
    end = convert.moment(head.field(4), Place(assembly, head, 4))
    numbers = orc.numbers(order.orc, None)
    resource: Json = {
        "resourceType": "MedicationAdministration",
        "id": assembly.ctx.id("MedicationAdministration", *rxa.key(head, order.orc, code, assembly)),
        "identifier": orc.identifiers(numbers, assembly),
        "status": rxa.status(head, assembly),
        "medicationCodeableConcept": code,
        "subject": pid.patient_reference(assembly),
        "request": {"reference": request},
    }
    if end and end != start:
        resource["effectivePeriod"] = {"start": start, "end": end}
    else:
        resource["effectiveDateTime"] = start
    if encounter:
        resource["context"] = {"reference": encounter}
    performers = rxa.performers(head, order.orc, assembly)
    if performers:
        resource["performer"] = performers
    resource.update(rxa.reasons(head, assembly))
    dosage = rxr.route(part.routes, assembly)
    dose = rxa.amount(head, assembly)
    if dose:
        dosage["dose"] = dose
    rate, unit = head.get(12).strip(), convert.text_of(head.field(7)) or head.get(7).strip()
    if rate:
        dosage["text"] = " ".join(one for one in (head.get(6).strip(), unit, "/", rate) if one)
    # mad-1: a Dosage says a dose or a rate; the route alone says nothing of what was given.
    if "dose" in dosage:
        resource["dosage"] = dosage
    texts = [*rxa.note_texts(head), *(one["text"] for one in nte.notes(part.notes))]
    if "dose" not in dosage and dosage.get("route"):
        texts.append(str(dosage["route"].get("text") or dosage["route"]["coding"][0]["code"]))
    if texts:
        resource["note"] = [{"text": text} for text in texts]
    resource.update(
        rxc.product(
            code,
            assembly,
            form=convert.concept(head.field(8), Place(assembly, head, 8)),
            strength=rxc.quantity(head, 13, 14, assembly),
            components=part.components,
            lot=head.get(15).strip(),
            expires=convert.moment(head.field(16), Place(assembly, head, 16)) or "",
            manufacturer=head.get(17, 2).strip() or head.get(17).strip(),
        )
    )
    assembly.upsert(resource, guard="demographics")


def _observations(order: Order, encounter: str | None, assembly: Assembly) -> None:
    """OBX behind an RXA are what was measured for it (a blood pressure, a pain score)."""
    _, (authority, number) = omp_o09.numbers_of(order, assembly)
    when = next((one.get(3).strip() for one in order.pharmacy if one.name == "RXA"), "")
    results = obx.Results(
        key=(authority, f"{number}|administration|{when}"),
        service="administration",
        status_default="final",
        effective={},
        encounter=encounter,
    )
    for observed in order.observations:
        if observed.segment.get(2).strip().upper() in {"ED", "RP"}:
            assembly.skip(observed.segment)
        else:
            obx.add_observation(observed.segment, [], observed.notes, results, assembly)
