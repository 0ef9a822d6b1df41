"""PID-18 and GT1: the account of a visit and who answers for it (HL7 v2 chapters 3.4.2.18 and 6.5.5).

v2-to-FHIR: PID[Account]; for GT1 it has no map, so its fields follow NK1[RelatedPerson].
"""

from __future__ import annotations

from typing import Any

from fhir_mappings.hl7v2 import datatypes
from fhir_mappings.hl7v2.assembly import Assembly, Row, fill
from fhir_mappings.hl7v2.segments import convert, nk1, pid
from fhir_mappings.hl7v2.tokenizer import Field, Segment

GUARANTOR_ROWS: tuple[Row, ...] = (
    Row(3, "name*", convert.names),
    Row(11, "relationship*", nk1.relationship),
    Row(5, "address*", convert.addresses),
    Row(6, "telecom*", convert.telecoms),
    Row(7, "telecom*", convert.work_telecoms, "-"),
    Row(8, "birthDate", convert.date),
    Row(9, "gender", nk1.gender),
    Row(13, "period.start", convert.date),
    Row(14, "period.end", convert.date),
    Row(2, "identifier*", convert.identifiers, "-"),
)


def account_id(content: Field, assembly: Assembly) -> str | None:
    """Return the FHIR id of the account that a CX names (PID-18, MRG-3), or ``None`` without a number."""
    number = content.component(1).strip()
    return assembly.ctx.id("Account", "account", number) if number else None


def account(content: Field, assembly: Assembly) -> dict[str, Any] | None:
    """Return the Account that a CX names, or ``None`` without a number; its patient is the message's."""
    identity = account_id(content, assembly)
    if identity is None:
        return None
    return {
        "resourceType": "Account",
        "id": identity,
        "identifier": [datatypes.cx_identifier(content.first, assembly.ctx, kind="account")],
        "subject": [pid.patient_reference(assembly)],
        "owner": convert.institution(assembly.ctx.institution, assembly.ctx),
    }


def add_account(assembly: Assembly) -> str | None:
    """Add the Account of PID-18 with the guarantors of GT1, and these as RelatedPersons; return its reference."""
    segment = assembly.message.first("PID")
    made = account(segment.field(18), assembly) if segment is not None else None
    guarantors = [party for one in assembly.message.all("GT1") if (party := _guarantor(one, assembly))]
    if made is None:
        return None
    if guarantors:
        made["guarantor"] = guarantors
    return assembly.upsert(made, guard="demographics", defaults={"status": "active"})


def _guarantor(segment: Segment, assembly: Assembly) -> dict[str, Any] | None:
    if convert.first(segment, 11).upper() in {"SEL", "SELF"}:
        return {"party": pid.patient_reference(assembly)}
    filled = fill(GUARANTOR_ROWS, segment, assembly)
    names = filled.elements.get("name")
    if not names:
        # GT1-21: a guarantor that is an organisation has a name there.
        name = convert.first(segment, 21)
        return {"party": {"type": "Organization", "display": name}} if name else None
    key = f"{assembly.patient_id}|{convert.first(segment, 2) or names[0].get('text', '')}"
    reference = assembly.upsert(
        {
            "resourceType": "RelatedPerson",
            "id": assembly.ctx.id("RelatedPerson", "GT1", key),
            "active": True,
            **filled.elements,
            "patient": pid.patient_reference(assembly),
        },
        cleared=filled.open_clears(),
        guard="demographics",
    )
    return {"party": {"reference": reference}}
