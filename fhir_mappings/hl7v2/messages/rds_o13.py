"""RDS^O13 (RDS^O01 before v2.4): dispensed medicines (HL7 v2 chapter 4.13.8) as FHIR MedicationDispense.

v2-to-FHIR has no map for RXD. The prescription that the message repeats only fills the place where none was sent before:
the pharmacy's copy does not change what was ordered.
"""

from __future__ import annotations

from typing import Any

from fhir_mappings.hl7v2.assembly import Assembly, Place
from fhir_mappings.hl7v2.messages import omp_o09
from fhir_mappings.hl7v2.messages.order_groups import Order, orders
from fhir_mappings.hl7v2.segments import convert, nte, orc, pid, rxc, rxr
from fhir_mappings.hl7v2.tokenizer import Segment

Json = dict[str, Any]

_MAPPED = omp_o09.MAPPED | {"RXD"}
#: ORC-1 and ORC-5 to MedicationDispense.status; an RXD without such a word was handed over.
_STATUS = {
    **dict.fromkeys(("CA", "OC", "CR"), "cancelled"),
    **dict.fromkeys(("DC", "OD", "DR"), "stopped"),
    **dict.fromkeys(("HD", "OH", "HR"), "on-hold"),
    **dict.fromkeys(("DE", "ER"), "entered-in-error"),
}


def translate(assembly: Assembly, _trigger: str) -> None:
    """Add the dispenses of the message.

    Raises:
        MalformedError: PID, ORC or RXD is missing (100), or the order number or RXD-2 is not valued (101).
    """
    encounter = omp_o09.add_head(assembly)
    assembly.require("RXD")
    for order in orders(assembly):
        omp_o09.state(order, "reported", assembly)
        request = ""
        for part in omp_o09.parts(order):
            if part.head.name == "RXD":
                request = request or known_prescription(order, part.head, 2, encounter, assembly)
                _dispense(order, part, request, encounter, assembly)
    for segment in assembly.message.segments:
        if segment.name not in _MAPPED:
            assembly.skip(segment)


def known_prescription(order: Order, head: Segment, code: int, encounter: str | None, assembly: Assembly) -> str:
    """State the prescription behind *head* for the case that it never came; return its reference.

    *code* is the field of *head* that names the medicine, for a message without RXO and RXE.
    """
    found = [part for part in omp_o09.parts(order) if part.head.name in {"RXO", "RXE"}]
    _, key = omp_o09.numbers_of(order, assembly)
    if found:
        stub = omp_o09.prescription(order, found, encounter, assembly)
        intent = "original-order" if found[-1].head.name == "RXO" else "order"
        return assembly.intern({"status": "active", "intent": intent, **stub})
    medicine = convert.concept(head.field(code), Place(assembly, head, code))
    if medicine is None:
        raise assembly.missing(head, code, "Say which medicine it is.")
    stub = {
        "resourceType": "MedicationRequest",
        "id": assembly.ctx.id("MedicationRequest", *key),
        "identifier": orc.identifiers(orc.numbers(order.orc, None), assembly),
        # Where it stands nobody said.
        "status": "unknown",
        "intent": "order",
        "medicationCodeableConcept": medicine,
        "subject": pid.patient_reference(assembly),
    }
    return assembly.intern(stub)


def _dispense(order: Order, part: omp_o09.Part, request: str, encounter: str | None, assembly: Assembly) -> None:
    head = part.head
    code = convert.concept(head.field(2), Place(assembly, head, 2))
    if code is None:
        raise assembly.missing(head, 2, "Say in RXD-2 which medicine was dispensed.")
    numbers = orc.numbers(order.orc, None)
    authority, number = numbers.filler_key or ("", "")
    # RXD-1 counts the dispenses of one prescription; RXD-7 is the number on the label.
    sub_id = f"{head.get(7).strip()}|{head.get(1).strip()}"
    words = (order.orc.get(5).strip().upper(), order.orc.get(1).strip().upper())
    status = next((_STATUS[word] for word in words if word in _STATUS), "completed")
    resource: Json = {
        "resourceType": "MedicationDispense",
        "id": assembly.ctx.id("MedicationDispense", authority, f"{number}|{sub_id}"),
        "identifier": orc.identifiers(numbers, assembly),
        "status": status,
        "medicationCodeableConcept": code,
        "subject": pid.patient_reference(assembly),
        "authorizingPrescription": [{"reference": request}],
    }
    label = head.get(7).strip()
    if label:
        resource["identifier"].append({"system": assembly.ctx.system("prescription"), "value": label})
    if encounter:
        resource["context"] = {"reference": encounter}
    quantity = rxc.quantity(head, 4, 5, assembly)
    if quantity:
        resource["quantity"] = quantity
    handed = convert.moment(head.field(3), Place(assembly, head, 3))
    if handed:
        resource["whenHandedOver"] = handed
    people = convert.practitioners(head.field(10), Place(assembly, head, 10))
    if people:
        resource["performer"] = [{"actor": one} for one in people]
    place = convert.location(head.field(13), Place(assembly, head, 13))
    if place:
        resource["destination"] = place
    remarks = nte.notes(part.notes)
    for field_number in (9, 15):
        texts = [item.component(2).strip() or item.text().strip() for item in head.field(field_number).repetitions]
        remarks += [{"text": text} for text in texts if text]
    if remarks:
        resource["note"] = remarks
    substitution = head.get(11).strip().upper()
    if substitution:
        coding = {"system": "http://terminology.hl7.org/CodeSystem/v2-0167", "code": substitution}
        resource["substitution"] = {
            # Table 0167: 0 none allowed, N none dispensed; every other code says what took the place of what was ordered.
            "wasSubstituted": substitution not in {"0", "1", "N"},
            "type": {"coding": [coding]},
        }
    dosage = rxr.instructed_route(part.routes, assembly)
    if dosage:
        resource["dosageInstruction"] = [dosage]
    resource.update(
        rxc.product(
            code,
            assembly,
            form=convert.concept(head.field(6), Place(assembly, head, 6)),
            strength=rxc.quantity(head, 16, 17, assembly),
            components=part.components,
            lot=head.get(18).strip(),
            expires=convert.moment(head.field(19), Place(assembly, head, 19)) or "",
            manufacturer=head.get(20, 2).strip() or head.get(20).strip(),
        )
    )
    assembly.upsert(resource, guard="demographics")
