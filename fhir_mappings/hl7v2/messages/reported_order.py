"""The order behind a result, as ORU and OUL tell it (HL7 v2 chapters 7.3.1, 4.5.1): a stand-in for one that never came.

Many hospitals send results and no orders. What OBR and ORC of the result say of the order is then all that there is, so
it is kept; where the order came by itself the stand-in leaves it alone, but for one thing: its work is done when its
report is final (ORC-1 RE).
"""

from __future__ import annotations

from typing import Any

from fhir_mappings.hl7v2.assembly import Assembly, Place, fill
from fhir_mappings.hl7v2.messages.result_groups import Group
from fhir_mappings.hl7v2.segments import convert, obr, orc, pid
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


def reported(request: str, around: Segment | None, status: str, assembly: Assembly) -> None:
    """Take back that the work of the stand-in *request* is done, where a report under its number says so by *status*.

    ORC-5 (table 0038) has the last word where it is valued: A and IP mean that more is to come.
    """
    order_status = around.get(5).strip().upper() if around is not None else ""
    if status in _DONE and order_status in {"", "CM"}:
        return
    assembly.interned[request].resource["status"] = "active"
