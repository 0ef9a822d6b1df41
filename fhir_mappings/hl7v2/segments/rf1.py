"""RF1 and PRD: a referral and its parties (HL7 v2 chapter 11.8.1, 11.8.3) as FHIR ServiceRequest.

v2-to-FHIR has no REF map. The rows follow the v2 mappings of FHIR's own ServiceRequest page
(https://hl7.org/fhir/R4/servicerequest-mappings.html#v2) and note where the Microsoft FHIR converter differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fhir_mappings.hl7v2 import datatypes
from fhir_mappings.hl7v2.assembly import Assembly, Place, Row
from fhir_mappings.hl7v2.segments import convert
from fhir_mappings.hl7v2.tokenizer import Field, Segment


def _priority(content: Field, place: Place) -> str | None:
    mapped = place.mapped("priority", convert.code_of(content))
    return mapped.target if mapped else None


def _numbers(kind: str, code: str) -> Any:
    def convert_field(content: Field, place: Place) -> list[dict[str, Any]]:
        value = content.component(1).strip()
        if not value:
            return []
        return [convert.order_identifier(place.ctx, kind, code, value, content.component(2).strip())]

    return convert_field


ROWS: tuple[Row, ...] = (
    Row(6, "identifier*", _numbers("referral", "PLAC"), "-"),
    Row(11, "identifier*", _numbers("referral-filler", "FILL"), "-"),
    Row(2, "priority", _priority),
    # Referral type and category: Microsoft puts RF1-5 into locationCode, but table 0284 also says "walk-in" and "telephone".
    Row(3, "category*", convert.concepts),
    Row(5, "category*", convert.concepts, "-"),
    Row(7, "occurrencePeriod.start", convert.moment, "occurrence[x]"),
    Row(8, "occurrencePeriod.end", convert.moment, "occurrence[x]"),
    Row(10, "reasonCode*", convert.concepts),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """One PRD: who refers or is referred to.

    Attributes:
        role: PRD-1, ``RP`` the referring and ``RT`` the referred-to provider.
        reference: the person, for ``requester`` or ``performer``.
        institution: code of the institution as the sender wrote it; empty when PRD does not name one.
        institution_name: its name, when there is one.
        code: the person's number as the sender wrote it.
        department: name of the department.
    """

    role: str
    reference: dict[str, Any]
    institution: str
    institution_name: str
    code: str
    department: str


def party(segment: Segment, assembly: Assembly) -> Party:
    """Return the party that PRD names.

    PRD-7 is a number with its type in component 2, where Chinese members write the institution's code; PRD-10 names the
    organisation since v2.6, and before that the facility stands in PRD-4.
    """
    code = segment.get(7).strip()
    institution = segment.get(10, 3).strip() or segment.get(7, 2).strip() or segment.get(10).strip()
    names = convert.names(segment.field(2), Place(assembly, segment, 2))
    reference: dict[str, Any] = {"type": "Practitioner"}
    if code:
        owner = institution or assembly.ctx.institution
        reference["identifier"] = {"system": staff_system(owner, assembly), "value": code}
    if names:
        reference["display"] = names[0]["text"]
    return Party(
        role=segment.get(1).strip().upper(),
        reference=reference if len(reference) > 1 else {},
        institution=institution,
        institution_name=segment.get(10).strip() or segment.get(4, 4).strip(),
        code=code,
        department=segment.get(4).strip(),
    )


def staff_system(owner: str, assembly: Assembly) -> str:
    """The identifier system of the staff numbers of institution *owner*."""
    return datatypes.hd_system(owner, "", "", "practitioner", assembly.ctx)
