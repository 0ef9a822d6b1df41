"""The order behind a result, as ORU and OUL tell it (HL7 v2 chapters 7.3.1, 4.5.1): a stand-in for one that never came.

Many hospitals send results and no orders. What OBR and ORC of the result say of the order is then all that there is, so
it is kept; where the order came by itself the stand-in leaves it alone, but for one thing: its work is done when its
report is final (ORC-1 RE).
"""

from __future__ import annotations

from typing import Any

from fhir_mappings.hl7v2.assembly import Assembly, Place, fill
from fhir_mappings.hl7v2.base import Upsert
from fhir_mappings.hl7v2.messages.result_groups import Group
from fhir_mappings.hl7v2.segments import convert, obr, obx, orc, pid
from fhir_mappings.hl7v2.tokenizer import Segment

#: Of OBR, what a result says about the order as the order itself would; times and numbers in it are of the result.
_ORDERED = frozenset({"code", "reasonCode", "category"})
_DONE = frozenset({"final", "corrected", "amended", "appended"})


def stand_in(group: Group, numbers: orc.OrderNumbers, encounter: str | None, assembly: Assembly) -> str | None:
    """Add the order of *group* for the case that it never came by itself; return its reference, ``None`` without a number.

    It is done unless :func:`reported` says otherwise of a report.
    """
    if numbers.key is None:
        return None
    elements = fill(obr.REQUEST_ROWS, group.obr, assembly).elements
    request: dict[str, Any] = {
        "resourceType": "ServiceRequest",
        "id": assembly.ctx.id("ServiceRequest", *numbers.key),
        "identifier": orc.identifiers(numbers, assembly),
        "status": "completed",
        "intent": "order",
        **{name: value for name, value in elements.items() if name in _ORDERED},
        "subject": pid.patient_reference(assembly),
    }
    if encounter:
        request["encounter"] = {"reference": encounter}
    who = requester(group.orc, group.obr, assembly)
    if who:
        request["requester"] = who
    return assembly.intern(request)


def requester(around: Segment | None, request: Segment | None, assembly: Assembly) -> dict[str, Any] | None:
    """Return who ordered: ORC-12, else OBR-16, which says the same."""
    for segment, number in ((around, 12), (request, 16)):
        if segment is None or segment.field(number).is_absent:
            continue
        found = convert.practitioners(segment.field(number), Place(assembly, segment, number))
        if found:
            return found[0]
    return None


def reported(request: str, group: Group, numbers: orc.OrderNumbers, status: str, assembly: Assembly) -> None:
    """Say what the report of *group* in *status* means for the orders under its number, of which *request* is the first.

    A final one ends the order for its own service, if that came by itself; one that is not takes back that the work of the
    stand-in is done. ORC-5 (table 0038) has the last word where it is valued: A and IP mean that more is to come.
    """
    order_status = group.orc.get(5).strip().upper() if group.orc is not None else ""
    if status in _DONE and order_status in {"", "CM"}:
        assembly.endings += _endings(group, numbers, assembly)
    else:
        assembly.interned[request].resource["status"] = "active"


def _endings(group: Group, numbers: orc.OrderNumbers, assembly: Assembly) -> list[Upsert]:
    """Changes that end the stored order for the service of *group*: the first one under the number, or a further one."""
    concept = convert.concept(group.obr.field(4), Place(assembly, group.obr, 4))
    made: list[Upsert] = []
    for key in (numbers.key, numbers.repeated_key(obx.code_of(group.obr.field(4)))):
        if key is not None and concept is not None:
            identity = assembly.ctx.id("ServiceRequest", *key)
            ended = {"resourceType": "ServiceRequest", "id": identity, "status": "completed", "code": concept}
            made.append(Upsert(resource=ended, create_only=True, update_only=True))
    return made
