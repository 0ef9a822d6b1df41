"""ORR^O02, ORL^O22/O34/O36, ORG^O20, ORI^O24, ORP^O10, RRE^O12, RRD^O14, RRA^O18 and OSU^O51: what the side that does the
work says to orders (HL7 v2 chapter 4, tables 0119 and 0038). No public map exists for them.

The order belongs to the side that placed it. Its answer moves the workflow of the order, found by ORC-2 and ORC-3; where
both sides are departments of one institution, it changes the status of that institution's own order as well.
"""

from __future__ import annotations

from typing import Any

from fhir_mappings.errors import MalformedError
from fhir_mappings.hl7v2.assembly import Assembly, Place, where
from fhir_mappings.hl7v2.base import Issue, WorkflowEvent
from fhir_mappings.hl7v2.segments import orc, pid
from fhir_mappings.hl7v2.tokenizer import Segment

Json = dict[str, Any]

_FAILED = frozenset({"AE", "AR", "CE", "CR"})
#: Answers to prescriptions, dispenses and administrations; no workflow knows those.
_PHARMACY = frozenset({"ORP", "RRE", "RRD", "RRA"})
#: Those about what was done on a prescription; where the prescription stands they do not say.
_OF_WHAT_WAS_DONE = frozenset({"RRD", "RRA"})
#: The filler's trouble with what it was sent, not the end of the order.
_NOT_OF_THE_ORDER = frozenset({"DE", "UA", "UC", "UD", "UF", "UH", "UX", "UM", "UR"})

#: What was asked is done as it was asked; the side that asked has it so already.
_AS_ASKED = frozenset({"XR", "RQ", "HR", "OR"})


def translate(assembly: Assembly, _trigger: str) -> None:
    """Add what each ORC of the answer says.

    Raises:
        MalformedError: MSA is missing in an answer, or ORC in a message that says what it is about (100); ORC-1 or the
            order number is not valued (101).
    """
    message = assembly.message
    unsolicited = assembly.event.startswith("OSU")
    acknowledgement = None if unsolicited else assembly.require("MSA")
    failed = acknowledgement is not None and acknowledgement.get(1).strip().upper() in _FAILED
    found = message.all("ORC")
    if not found and not failed:
        raise MalformedError(
            f"{assembly.event} names no order.",
            where=f"after segment {len(message.segments)}",
            remedy="Send an ORC with ORC-1 and ORC-2 for each order that the answer is about.",
            code=100,
        )
    if not found and acknowledgement is not None:
        # Which order it was, only MSA-2 says; the sender of the order learns it from its own queue.
        assembly.issues.append(
            Issue(
                severity="warning",
                code="incomplete",
                message="The partner failed to take an order and named none; nothing was changed.",
                where=where(acknowledgement, 1),
            )
        )
    _know_patient(assembly)
    for segment in found:
        _answer(segment, assembly, failed=failed)


def _know_patient(assembly: Assembly) -> None:
    """PID is optional here and only says whose lane the answer belongs to; it changes no record."""
    segment = assembly.message.first("PID")
    if segment is not None and (segment.get(3).strip() or segment.get(2).strip()):
        assembly.patient_id = pid.patient_id(segment, assembly)


def _answer(segment: Segment, assembly: Assembly, *, failed: bool) -> None:
    control = segment.get(1).strip().upper()
    if not control:
        raise assembly.missing(segment, 1, "Say in ORC-1 what became of the order (table 0119).")
    obr = _service(segment, assembly)
    numbers = orc.numbers(segment, obr)
    if numbers.key is None:
        raise assembly.missing(segment, 2, "Return the placer order number in ORC-2.")
    answer = assembly.event.partition("^")[0]
    kind = "MedicationRequest" if answer in _PHARMACY else "ServiceRequest"
    status = None
    if not failed and control not in _NOT_OF_THE_ORDER and answer not in _OF_WHAT_WAS_DONE:
        medicine = kind == "MedicationRequest"
        status = (orc.medication_status if medicine else orc.request_status)(segment, assembly)
    identity = assembly.ctx.id(kind, *numbers.key)
    resource: Json = {
        "resourceType": kind,
        "id": identity,
        "identifier": orc.identifiers(numbers, assembly),
        **({"status": status} if status else {}),
    }
    # Nothing is made of an order that this institution never placed.
    assembly.upsert(resource, guard="demographics", update_only=True)
    if kind == "MedicationRequest":
        return
    event = "order.failed" if failed else orc.CONTROL_EVENTS.get(control)
    if control in _AS_ASKED:
        return
    if event is None or event in {"order.new", "order.cancel", "order.hold", "order.release"}:
        # An answer that repeats the command says nothing of what became of it.
        if event is not None:
            Place(assembly, segment, 1).warn("ORC-1 repeats a command where it should answer one.", code="code-invalid")
        return
    assembly.workflow_events.append(
        WorkflowEvent(
            kind=event,
            focus=(f"{kind}/{identity}",),
            placer_number=numbers.placer,
            filler_number=numbers.filler,
            receiver=assembly.message.get("MSH-6").strip(),
            reason=_reason(segment, assembly),
        )
    )


def _service(segment: Segment, assembly: Assembly) -> Segment | None:
    following = assembly.message.segments[segment.index + 1 : segment.index + 4]
    return next((one for one in following if one.name == "OBR"), None)


def _reason(segment: Segment, assembly: Assembly) -> str:
    """ORC-16, else the notes behind the order."""
    stated = segment.get(16, 2).strip() or segment.get(16).strip()
    notes: list[str] = []
    for other in assembly.message.segments[segment.index + 1 :]:
        if other.name == "ORC":
            break
        if other.name == "NTE":
            notes += [item.text().strip() for item in other.field(3).repetitions]
    return stated or "; ".join(one for one in notes if one)
