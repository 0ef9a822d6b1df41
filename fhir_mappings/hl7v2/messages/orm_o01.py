"""ORM^O01, OML^O21/O33/O35, OMG^O19, OMI^O23: orders (HL7 v2 chapters 4.4 and 4.13) as FHIR ServiceRequest.

v2-to-FHIR: ORM_O01, OML_O21. The Task that moves an order between institutions is the workflow's; this message only says
what was ordered and, as a :class:`~fhir_mappings.hl7v2.base.WorkflowEvent`, what ORC-1 asks for.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from fhir_mappings.errors import MalformedError, UnsupportedError
from fhir_mappings.hl7v2.assembly import Assembly, Place, fill, put, where
from fhir_mappings.hl7v2.base import WorkflowEvent
from fhir_mappings.hl7v2.messages import omp_o09, oru_r01, reported_order
from fhir_mappings.hl7v2.messages.order_groups import Order, orders
from fhir_mappings.hl7v2.segments import al1, convert, dg1, ipc, nte, obr, obx, orc, pid, pv1, spm, tq1
from fhir_mappings.hl7v2.tokenizer import Segment

_MAPPED = frozenset(
    {
        *(
            "MSH",
            "SFT",
            "PID",
            "PD1",
            "PV1",
            "PV2",
            "IN1",
            "IN2",
            "AL1",
            "ORC",
            "OBR",
            "NTE",
            "DG1",
            "OBX",
            "SPM",
            "SAC",
        ),
        *("TQ1", "TQ2", "IPC", "RXO", "RXE", "RXR", "RXC", "RQD", "RQ1", "ODS", "ODT"),
    }
)


def translate(assembly: Assembly, trigger: str) -> None:
    """Add the orders of the message.

    Raises:
        MalformedError: PID or ORC is missing, or a second PID names another patient (100), or ORC-1, the order number or
            OBR-4 is not valued (101).
        UnsupportedError: every order is of a kind without mapping, such as diets (200).
    """
    message = assembly.message
    groups = orders(assembly, trigger)
    if any(order.priors for order in groups):
        _require_one_patient(assembly)
        pid.add_patient(assembly.require("PID"), assembly)
    else:
        pid.add_patient(assembly.require_one("PID"), assembly)
    assembly.require("ORC")
    encounter = pv1.mention_encounter(assembly)
    al1.add_allergies(message.all("AL1"), assembly)
    mapped = 0
    seen: Counter[tuple[str, str]] = Counter()
    for order in groups:
        if order.obr is None and order.pharmacy:
            omp_o09.add_order(order, encounter, assembly)
        elif order.obr is None and order.detail is not None:
            assembly.skip(order.detail)
            continue
        else:
            _order(order, encounter, seen, assembly)
        mapped += 1
    if not mapped:
        raise UnsupportedError(
            "The orders of this message are of a kind that has no mapping here.",
            where=where(assembly.require("ORC")),
            remedy="Send orders for services (ORC with OBR), and prescriptions as OMP^O09 or RDE^O11.",
            code=200,
        )
    for segment in message.segments:
        if segment.name not in _MAPPED:
            assembly.skip(segment)


def _require_one_patient(assembly: Assembly) -> None:
    """Earlier results may name the patient again; whoever else stands there would get this patient's orders."""
    first, *others = assembly.message.all("PID")
    for other in others:
        if pid.patient_id(other, assembly) != pid.patient_id(first, assembly):
            raise MalformedError(
                f"{assembly.event} is about one patient, and a second PID names another.",
                where=where(other, 3),
                remedy="Send a message for each patient.",
                code=100,
            )


def _order(order: Order, encounter: str | None, seen: Counter[tuple[str, str]], assembly: Assembly) -> None:
    control = order.orc.get(1).strip().upper()
    if not control:
        raise assembly.missing(order.orc, 1, "Say in ORC-1 what is to be done with the order (table 0119).")
    numbers = orc.numbers(order.orc, order.obr)
    if numbers.key is None:
        raise assembly.missing(order.orc, 2, "Send the placer order number in ORC-2.")
    seen[numbers.key] += 1
    identity = request_id(numbers, order.obr if seen[numbers.key] > 1 else None, assembly)
    request, cleared = _request(order, control, numbers, identity, assembly)
    if encounter:
        request["encounter"] = {"reference": encounter}
    conditions = dg1.add_conditions(order.diagnoses, assembly, encounter=encounter, scope=identity)
    if conditions:
        request["reasonReference"] = [{"reference": reference} for reference, _ in conditions]
    if order.obr is not None:
        specimens = spm.add_specimens(order.samples, order.obr, assembly, order_key=numbers.key[1])
        if specimens:
            request["specimen"] = [{"reference": reference} for reference in specimens]
        supporting = _supporting(order, numbers, encounter, assembly)
        supporting += oru_r01.add_prior_results(order.priors, assembly)
        if supporting:
            request["supportingInfo"] = [{"reference": reference} for reference in supporting]
    # An order that somebody only numbers or echoes is not known to be anything else.
    reference = assembly.upsert(request, cleared=cleared, guard="demographics", defaults={"status": "active"})
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
    key = numbers.key if repeated is None else numbers.repeated_key(obx.code_of(repeated.field(4)))
    assert key is not None
    return assembly.ctx.id("ServiceRequest", *key)


def _request(
    order: Order, control: str, numbers: orc.OrderNumbers, identity: str, assembly: Assembly
) -> tuple[dict[str, Any], frozenset[str]]:
    """Return the ServiceRequest and the elements that the order nulls with ``""``."""
    elements: dict[str, Any] = {}
    cleared = _nulled(order)
    if order.obr is not None:
        if order.obr.field(4).is_absent:
            raise assembly.missing(order.obr, 4, "Say in OBR-4 which service is ordered.")
        described = fill(obr.REQUEST_ROWS, order.obr, assembly)
        elements = described.elements
        cleared |= described.open_clears()
    placed = fill(orc.REQUEST_ROWS, order.orc, assembly)
    around = placed.elements
    cleared |= placed.open_clears()
    request: dict[str, Any] = {
        "resourceType": "ServiceRequest",
        "id": identity,
        "identifier": orc.identifiers(numbers, assembly)
        + obr.study_identifiers(
            order.obr, assembly, ipc=order.procedures[0] if order.procedures else None, zds=order.zds
        )
        + ipc.numbers(order.procedures, assembly),
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
    priority = orc.priority(order.orc, order.obr, assembly, order.timings)
    if priority:
        request["priority"] = priority
    # ORC-14 and OBR-17 are one number to call, ORC-33 and OBR-53 one number of the order; the OBR's is the older place.
    for path, values in around.items():
        if isinstance(values, list):
            for value in values:
                put(elements, f"{path}*", value)
        else:
            elements[path] = values
    request["identifier"] += [one for one in elements.pop("identifier", []) if one not in request["identifier"]]
    request.update(elements)
    remarks = nte.notes(order.notes)
    _add_timing(request, order, remarks, assembly)
    _add_procedures(request, order, assembly)
    request["subject"] = pid.patient_reference(assembly)
    ordered = convert.moment(order.orc.field(9), Place(assembly, order.orc, 9))
    if control == "NW" and ordered:
        request["authoredOn"] = ordered
    requester = reported_order.requester(order.orc, order.obr, assembly)
    if requester:
        request["requester"] = requester
    if remarks:
        request["note"] = remarks
    # Two fields may say the same; what one of them states, the null of the other does not take away.
    stated = {f"extension:{one['url'].rpartition('/')[2]}" for one in request.get("extension", ())}
    if "security" in request.get("meta", {}):
        stated.add("meta.security")
    return request, cleared - stated - request.keys()


#: What is read of more than one segment: element -> fields, of which one that is null is enough where none is valued.
_NULLABLE: tuple[tuple[str, str, int], ...] = (
    ("requisition", "ORC", 4),
    ("occurrence[x]", "ORC", 7),
    ("requester", "ORC", 12),
    ("priority", "OBR", 5),
    ("requester", "OBR", 16),
    ("occurrence[x]", "OBR", 27),
    ("quantityQuantity", "TQ1", 2),
    ("occurrence[x]", "TQ1", 3),
    ("occurrence[x]", "TQ1", 7),
    ("priority", "TQ1", 9),
)


def _nulled(order: Order) -> frozenset[str]:
    segments = {"ORC": [order.orc], "OBR": [order.obr] if order.obr is not None else [], "TQ1": order.timings}
    return frozenset(
        element for element, name, number in _NULLABLE if any(one.field(number).is_null for one in segments[name])
    )


def _add_timing(request: dict[str, Any], order: Order, remarks: list[dict[str, Any]], assembly: Assembly) -> None:
    """TQ1, else the TQ of ORC-7 and OBR-27 that v2.5 put in its place; what the filler scheduled (OBR-36) wins."""
    found = tq1.schedules(order.timings, assembly)
    for segment, number in ((order.orc, 7), (order.obr, 27)):
        if not found and segment is not None:
            found = tq1.from_tq(segment, number, assembly)
    if not found:
        return
    first = next((one for one in found if one.occurrence()), found[0])
    if first.repeats or not any(name.startswith("occurrence") for name in request):
        occurrence = first.occurrence()
        if occurrence:
            for name in [name for name in request if name.startswith("occurrence")]:
                del request[name]
            request.update(occurrence)
    # One of the service is what every order asks for; only another number says something.
    if first.quantity and first.quantity["value"] != 1:
        request["quantityQuantity"] = first.quantity
    remarks += [{"text": text} for one in found for text in (one.condition, one.text) if text]


def _add_procedures(request: dict[str, Any], order: Order, assembly: Assembly) -> None:
    for name, made in (
        ("orderDetail", ipc.details(order.procedures, assembly)),
        ("locationCode", ipc.location(order.procedures, assembly)),
        ("extension", ipc.stations(order.procedures, assembly)),
    ):
        if made:
            request[name] = [*request.get(name, []), *made]


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
    for observed in order.observations:
        if observed.segment.get(2).strip().upper() in {"ED", "RP"}:
            assembly.skip(observed.segment)
        else:
            obx.add_observation(observed.segment, [], observed.notes, results, assembly)
    return results.references
