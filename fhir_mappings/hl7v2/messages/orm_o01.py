"""ORM^O01: orders (HL7 v2 chapter 4.4.1) as FHIR ServiceRequest. v2-to-FHIR: ORM_O01.

The Task that moves an order between institutions is the workflow's; this message only says what was ordered and, as a
:class:`~fhir_mappings.hl7v2.base.WorkflowEvent`, what ORC-1 asks for.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from fhir_mappings.errors import UnsupportedError
from fhir_mappings.hl7v2.assembly import Assembly, Place, fill, where
from fhir_mappings.hl7v2.base import WorkflowEvent
from fhir_mappings.hl7v2.segments import al1, convert, dg1, nte, obr, obx, orc, pid, pv1, spm
from fhir_mappings.hl7v2.tokenizer import Segment

_DETAIL_ELSEWHERE = frozenset({"RQD", "RQ1", "RXO", "RXE", "ODS", "ODT"})
_MAPPED = frozenset(
    {"MSH", "PID", "PV1", "PV2", "AL1", "ORC", "OBR", "NTE", "DG1", "OBX", "SPM", "TQ1", "IPC", "IN1", "IN2", "SFT"}
)


@dataclass(slots=True)
class Order:
    """One ORC with what follows it until the next."""

    orc: Segment
    obr: Segment | None = None
    detail: Segment | None = None
    notes: list[Segment] = field(default_factory=list)
    diagnoses: list[Segment] = field(default_factory=list)
    observations: list[Segment] = field(default_factory=list)
    specimens: list[Segment] = field(default_factory=list)


def orders(assembly: Assembly) -> list[Order]:
    """Return the order groups; a second OBR under one ORC is an order of its own with the same control."""
    made: list[Order] = []
    for segment in assembly.message.segments:
        if segment.name == "ORC":
            made.append(Order(orc=segment))
            continue
        if not made:
            continue
        order = made[-1]
        if segment.name == "OBR":
            if order.obr is not None:
                order = Order(orc=order.orc)
                made.append(order)
            order.obr = segment
        elif segment.name in _DETAIL_ELSEWHERE:
            order.detail = segment
        elif segment.name == "NTE":
            order.notes.append(segment)
        elif segment.name == "DG1":
            order.diagnoses.append(segment)
        elif segment.name == "OBX":
            order.observations.append(segment)
        elif segment.name == "SPM":
            order.specimens.append(segment)
    return made


def translate(assembly: Assembly, _trigger: str) -> None:
    """Add the orders of the message.

    Raises:
        MalformedError: PID or ORC is missing (100), or ORC-1, the order number or OBR-4 is not valued (101).
        UnsupportedError: every order is of a kind without mapping, such as pharmacy (200).
    """
    message = assembly.message
    pid.add_patient(assembly.require_one("PID"), assembly)
    assembly.require("ORC")
    encounter = pv1.mention_encounter(assembly)
    al1.add_allergies(message.all("AL1"), assembly)
    mapped = 0
    seen: Counter[tuple[str, str]] = Counter()
    for order in orders(assembly):
        if order.obr is None and order.detail is not None:
            assembly.skip(order.detail)
            continue
        mapped += 1
        _order(order, encounter, seen, assembly)
    if not mapped:
        raise UnsupportedError(
            "The orders of this message are of a kind that has no mapping here.",
            where=where(assembly.require("ORC")),
            remedy="Send orders for services (ORC with OBR).",
            code=200,
        )
    for segment in message.segments:
        if segment.name not in _MAPPED:
            assembly.skip(segment)


def _order(order: Order, encounter: str | None, seen: Counter[tuple[str, str]], assembly: Assembly) -> None:
    control = order.orc.get(1).strip().upper()
    if not control:
        raise assembly.missing(order.orc, 1, "Say in ORC-1 what is to be done with the order (table 0119).")
    numbers = orc.numbers(order.orc, order.obr)
    if numbers.key is None:
        raise assembly.missing(order.orc, 2, "Send the placer order number in ORC-2.")
    seen[numbers.key] += 1
    identity = request_id(numbers, order.obr if seen[numbers.key] > 1 else None, assembly)
    request = _request(order, control, numbers, identity, assembly)
    if encounter:
        request["encounter"] = {"reference": encounter}
    conditions = dg1.add_conditions(order.diagnoses, assembly, encounter=encounter, scope=identity)
    if conditions:
        request["reasonReference"] = [{"reference": reference} for reference, _ in conditions]
    if order.obr is not None:
        specimens = spm.add_specimens(order.specimens, order.obr, assembly, order_key=numbers.key[1])
        if specimens:
            request["specimen"] = [{"reference": reference} for reference in specimens]
        supporting = _supporting(order, numbers, encounter, assembly)
        if supporting:
            request["supportingInfo"] = [{"reference": reference} for reference in supporting]
    # An order that somebody only numbers or echoes is not known to be anything else.
    reference = assembly.upsert(request, guard="demographics", defaults={"status": "active"})
    event = orc.CONTROL_EVENTS.get(control)
    if event is None:
        return
    assembly.workflow_events.append(
        WorkflowEvent(
            kind=event,
            focus=(reference,),
            placer_number=numbers.placer,
            filler_number=numbers.filler,
            receiver=assembly.message.get("MSH-6").strip(),
            reason=order.orc.get(16, 2).strip() or order.orc.get(16).strip(),
        )
    )


def request_id(numbers: orc.OrderNumbers, repeated: Segment | None, assembly: Assembly) -> str:
    """Return the id of the ServiceRequest: the order number names it.

    Some systems send several OBR under one number; from the second on (*repeated*) OBR-4 tells them apart.
    """
    assert numbers.key is not None
    authority, number = numbers.key
    if repeated is not None:
        number = f"{number}|{obx.code_of(repeated.field(4))}"
    return assembly.ctx.id("ServiceRequest", authority, number)


def _request(
    order: Order, control: str, numbers: orc.OrderNumbers, identity: str, assembly: Assembly
) -> dict[str, Any]:
    elements: dict[str, Any] = {}
    if order.obr is not None:
        if order.obr.field(4).is_absent:
            raise assembly.missing(order.obr, 4, "Say in OBR-4 which service is ordered.")
        elements = fill(obr.REQUEST_ROWS, order.obr, assembly).elements
    request: dict[str, Any] = {
        "resourceType": "ServiceRequest",
        "id": identity,
        "identifier": orc.identifiers(numbers, assembly) + obr.study_identifiers(order.obr, assembly),
    }
    if numbers.group:
        request["requisition"] = convert.order_identifier(
            assembly.ctx, "placer-group", "PGN", numbers.group, order.orc.get(4, 2)
        )
    status = orc.request_status(order.orc, assembly)
    if status:
        request["status"] = status
    # OBR-11 A is an add-on, which R4 has no intent for (v2-to-FHIR names one that came later).
    reflex = order.obr is not None and order.obr.get(11).strip().upper() == "G"
    request["intent"] = "reflex-order" if reflex else "order"
    priority = orc.priority(order.orc, order.obr, assembly)
    if priority:
        request["priority"] = priority
    request.update(elements)
    request["subject"] = pid.patient_reference(assembly)
    ordered = convert.moment(order.orc.field(9), Place(assembly, order.orc, 9))
    if control == "NW" and ordered:
        request["authoredOn"] = ordered
    requester = _requester(order, assembly)
    if requester:
        request["requester"] = requester
    remarks = nte.notes(order.notes)
    if remarks:
        request["note"] = remarks
    return request


def _requester(order: Order, assembly: Assembly) -> dict[str, Any] | None:
    for segment, number in ((order.orc, 12), (order.obr, 16)):
        if segment is None or segment.field(number).is_absent:
            continue
        found = convert.practitioners(segment.field(number), Place(assembly, segment, number))
        if found:
            return found[0]
    return None


def _supporting(order: Order, numbers: orc.OrderNumbers, encounter: str | None, assembly: Assembly) -> list[str]:
    """OBX under an order are what the filler should know (creatinine before contrast), not its results."""
    assert numbers.key is not None
    assert order.obr is not None
    results = obx.Results(
        key=(numbers.key[0], f"{numbers.key[1]}|supporting"),
        service=obx.code_of(order.obr.field(4)),
        status_default="final",
        effective={},
        encounter=encounter,
    )
    for segment in order.observations:
        if segment.get(2).strip().upper() in {"ED", "RP"}:
            assembly.skip(segment)
        else:
            obx.add_observation(segment, [], [], results, assembly)
    return results.references
