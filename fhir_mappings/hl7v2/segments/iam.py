"""IAM: allergies with action codes (HL7 v2 chapter 3.4.7, ADT^A60) as FHIR AllergyIntolerance.

v2-to-FHIR: IAM[AllergyIntolerance]. Unlike AL1 it is no list of all there are: each segment says by IAM-6 what becomes of
one allergy (table 0206), so nothing is retired by silence.
"""

from __future__ import annotations

from typing import Any

from fhir_mappings.hl7v2 import datatypes
from fhir_mappings.hl7v2.assembly import Assembly, Place, Row, fill
from fhir_mappings.hl7v2.segments import al1, convert, pid
from fhir_mappings.hl7v2.tokenizer import Field, Segment

_VERIFICATION = "http://terminology.hl7.org/CodeSystem/allergyintolerance-verification"

#: IAM-17 (table 0438) -> (verification status, clinical status); the map of v2-to-FHIR has no rows of its own.
_STATES = {
    "C": ("confirmed", "active"),
    "I": ("confirmed", "inactive"),
    "U": ("unconfirmed", "active"),
    "P": ("unconfirmed", "active"),
    "S": ("unconfirmed", "active"),
    "D": ("unconfirmed", "active"),
    "E": ("entered-in-error", ""),
}


def _identifier(content: Field, place: Place) -> dict[str, Any] | None:
    return datatypes.ei_identifier(content.first, place.ctx, "allergy")


def _onset_text(content: Field, _place: Place) -> dict[str, Any] | None:
    text = content.text().strip()
    return {"onsetString": text} if text else None


def _onset(content: Field, place: Place) -> dict[str, Any] | None:
    moment = convert.moment(content, place)
    return {"onsetDateTime": moment} if moment else None


def _reporter(content: Field, place: Place) -> dict[str, Any] | None:
    """IAM-14 gives a name without a number, which names nobody to refer to; it stays a display."""
    name = convert.name_text(content, place)
    return {"display": name} if name else None


ROWS: tuple[Row, ...] = (
    Row(7, "identifier*", _identifier, "-"),
    *(row for row in al1.ROWS if row.number != 6),
    Row(11, "", _onset, "onset[x]"),
    Row(13, "recordedDate", convert.moment),
    Row(14, "asserter", _reporter),
)


def add_allergies(segments: list[Segment], assembly: Assembly) -> None:
    """Add what each IAM says of one allergy: A and U state it, D withdraws it, X is there only to be named."""
    for segment in segments:
        substance = convert.first(segment, 3) or convert.text_of(segment.field(3))
        number = convert.first(segment, 7)
        if not (substance or number):
            Place(assembly, segment, 3).warn("The allergy names no substance; it was left out.", code="required")
            continue
        action = convert.first(segment, 6).upper()
        if action not in {"", "A", "U", "D", "X"}:
            Place(assembly, segment, 6).warn(
                "The action code is none of A, U, D and X (table 0206); the allergy was left out.", code="code-invalid"
            )
            continue
        filled = fill(ROWS, segment, assembly)
        if segment.field(11).is_absent:
            fill((Row(12, "", _onset_text, "onset[x]"),), segment, assembly, into=filled)
        # Without a number of its own it is the allergy that AL1 would name alike.
        list_key, key = ("IAM", number) if number else ("AL1", substance)
        resource: dict[str, Any] = {
            "resourceType": "AllergyIntolerance",
            "id": assembly.ctx.id("AllergyIntolerance", list_key, f"{assembly.patient_id}|{key}"),
            **filled.elements,
            **_state(segment, action, assembly),
            "patient": pid.patient_reference(assembly),
        }
        if action == "X":
            assembly.intern(resource)
            continue
        cleared = filled.open_clears()
        # ait-2: what was entered in error has no clinical status.
        gone = frozenset({"clinicalStatus"}) if "clinicalStatus" not in resource else frozenset()
        assembly.upsert(resource, cleared=cleared | gone, guard="demographics")


def _state(segment: Segment, action: str, assembly: Assembly) -> dict[str, Any]:
    stated = convert.first(segment, 17).upper()
    if stated and stated not in _STATES:
        Place(assembly, segment, 17).warn(
            "The clinical status has no row in table 0438; the allergy counts as active.", code="code-invalid"
        )
    verification, clinical = ("entered-in-error", "") if action == "D" else _STATES.get(stated, ("", "active"))
    made: dict[str, Any] = {}
    if clinical:
        made["clinicalStatus"] = {"coding": [{"system": al1.CLINICAL, "code": clinical}]}
    if verification:
        made["verificationStatus"] = {"coding": [{"system": _VERIFICATION, "code": verification}]}
    return made
