"""PRB: a problem of the problem list (HL7 v2 chapter 12.3.1) as FHIR Condition. v2-to-FHIR has no map for it."""

from __future__ import annotations

from typing import Any

from fhir_mappings.hl7v2.assembly import Assembly, Place, Row, fill
from fhir_mappings.hl7v2.segments import convert, nte, pid
from fhir_mappings.hl7v2.tokenizer import Field, Segment

Json = dict[str, Any]

_CLINICAL = "http://terminology.hl7.org/CodeSystem/condition-clinical"
_VERIFICATION = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
_CATEGORY = "http://terminology.hl7.org/CodeSystem/condition-category"


def _moment(element: str) -> Any:
    def converter(content: Field, place: Place) -> Json | None:
        made = convert.moment(content, place)
        return {element: made} if made else None

    return converter


def _instance(content: Field, place: Place) -> Json | None:
    value = content.component(1).strip()
    return {"system": place.ctx.system("problem", content.component(2)), "value": value} if value else None


def _onset_text(content: Field, _place: Place) -> Json | None:
    text = content.text().strip()
    return {"onsetString": text} if text else None


#: PRB-16 stands behind PRB-17, because a date says more than the words about it.
ROWS: tuple[Row, ...] = (
    Row(4, "identifier*", _instance, "-"),
    Row(3, "code", convert.concept, "-"),
    Row(7, "recordedDate", convert.moment),
    Row(9, "", _moment("abatementDateTime"), "abatement[x]"),
    Row(17, "", _onset_text, "onset[x]"),
    Row(16, "", _moment("onsetDateTime"), "onset[x]"),
)


def _coded(segment: Segment, number: int, table: str, assembly: Assembly) -> str:
    """Look a status up by its code, else by its text: no table of HL7 lists them, systems write what they like."""
    place = Place(assembly, segment, number)
    code, text = segment.get(number).strip(), segment.get(number, 2).strip()
    if not (code or text):
        return ""
    found = place.mapped(table, code) if code else None
    if found is None and text:
        found = place.mapped(table, text)
    return found.target if found else ""


def add_problem(
    segment: Segment, notes: list[Segment], encounter: str | None, assembly: Assembly, *, deletes: bool
) -> str:
    """Add the Condition of one PRB and return its reference; *deletes* is the event that takes problems off the list.

    Raises:
        MalformedError: code 101, PRB-3 and PRB-4 are not valued.
    """
    filled = fill(ROWS, segment, assembly)
    elements = filled.elements
    if "onsetDateTime" in elements:
        elements.pop("onsetString", None)
    number = segment.get(4).strip() or convert.code_of(segment.field(3)) or convert.text_of(segment.field(3))
    if not number or "code" not in elements:
        raise assembly.missing(segment, 3, "Say in PRB-3 which problem it is, and in PRB-4 its number.")
    # Without PRB-4 the same problem told again is the same entry of this patient's list.
    key = number if segment.get(4).strip() else f"{assembly.patient_id}|{number}"
    deleted = segment.get(1).strip().upper() == "DE" or (deletes and not segment.get(1).strip())
    resource: Json = {
        "resourceType": "Condition",
        "id": assembly.ctx.id("Condition", "problem", key),
        **elements,
        "category": [{"coding": [{"system": _CATEGORY, "code": "problem-list-item"}]}],
        "subject": pid.patient_reference(assembly),
    }
    cleared = filled.open_clears()
    if deleted:
        # con-5: what was never so has no clinical status.
        resource["verificationStatus"] = {"coding": [{"system": _VERIFICATION, "code": "entered-in-error"}]}
        cleared |= {"clinicalStatus"}
    else:
        confirmed = _coded(segment, 13, "problem_confirmation", assembly) or "confirmed"
        resource["verificationStatus"] = {"coding": [{"system": _VERIFICATION, "code": confirmed}]}
        clinical = _coded(segment, 14, "problem_life_cycle", assembly) or "active"
        if any(name.startswith("abatement") for name in resource) and clinical in {"active", "recurrence", "relapse"}:
            # con-4: what has an end is over.
            clinical = "resolved"
        resource["clinicalStatus"] = {"coding": [{"system": _CLINICAL, "code": clinical}]}
        if clinical in {"active", "recurrence", "relapse"}:
            cleared |= {"abatement[x]"}
    if encounter:
        resource["encounter"] = {"reference": encounter}
    remarks = nte.notes(notes)
    if remarks:
        resource["note"] = remarks
    return assembly.upsert(resource, cleared=cleared, guard="demographics")
