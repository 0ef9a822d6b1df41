"""DG1: diagnoses (HL7 v2 chapter 6.5.2) as FHIR Condition. v2-to-FHIR: DG1[Condition], DG1[Encounter]."""

from __future__ import annotations

from typing import Any

from fhir_mappings.hl7v2.assembly import Assembly, Place, Row, fill
from fhir_mappings.hl7v2.segments import convert, pid
from fhir_mappings.hl7v2.tokenizer import Field, Segment

_VERIFICATION = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
_CATEGORY = "http://terminology.hl7.org/CodeSystem/condition-category"


def _onset(content: Field, place: Place) -> dict[str, Any] | None:
    moment = convert.moment(content, place)
    return {"onsetDateTime": moment} if moment else None


def _identifier(content: Field, place: Place) -> dict[str, Any] | None:
    value = content.repetitions[0].component(1).strip()
    return {"system": convert.system(place.ctx, "diagnosis"), "value": value} if value else None


def _asserter(content: Field, place: Place) -> dict[str, Any] | None:
    found = convert.practitioners(content, place)
    return found[0] if found else None


def _due_to(content: Field, place: Place) -> dict[str, Any] | None:
    """DG1-22: the diagnosis that this one came of, by its DG1-20."""
    number = _identifier(content, place)
    url = "http://hl7.org/fhir/StructureDefinition/condition-dueTo"
    return {"url": url, "valueReference": {"type": "Condition", "identifier": number}} if number else None


ROWS: tuple[Row, ...] = (
    Row(20, "identifier*", _identifier, "-"),
    Row(3, "code", convert.diagnosis),
    # DG1-4 was the only text before v2.4 and still is in Chinese feeds that leave DG1-3 empty.
    Row(4, "code.text", lambda content, _place: content.repetitions[0].component(1), "-"),
    Row(5, "", _onset, "onset[x]"),
    Row(16, "asserter", _asserter),
    Row(19, "recordedDate", convert.moment),
    Row(22, "extension*", _due_to, "extension:condition-dueTo"),
)


def add_conditions(
    segments: list[Segment], assembly: Assembly, *, encounter: str | None, scope: str, source_key: str = ""
) -> list[tuple[str, Segment]]:
    """Add a Condition for each DG1; return the references with their segments, in order.

    *scope* keeps the diagnoses of one visit or order apart from those of the next: the same code in two visits is two
    Conditions, the same code sent again for the same visit is one. *source_key* marks them as one list that a later
    list of the same key replaces; the diagnoses of an order are no such list.
    """
    made: list[tuple[str, Segment]] = []
    for segment in segments:
        filled = fill(ROWS, segment, assembly)
        code = filled.elements.get("code")
        if not code:
            place = Place(assembly, segment, 3)
            place.warn("The diagnosis has neither a code nor a text; it was left out.", code="required")
            continue
        number = convert.first(segment, 20) or convert.first(segment, 3) or code.get("text", "")
        identity = assembly.ctx.id("Condition", "diagnosis", f"{assembly.patient_id}|{scope}|{number}")
        deleted = convert.first(segment, 21) == "D"
        status = "entered-in-error" if deleted else ("provisional" if convert.first(segment, 6) == "W" else "confirmed")
        resource: dict[str, Any] = {
            "resourceType": "Condition",
            "id": identity,
            **({"meta": convert.segment_tag(source_key, assembly.ctx)} if source_key else {}),
            **filled.elements,
            "verificationStatus": {"coding": [{"system": _VERIFICATION, "code": status}]},
            "category": [{"coding": [{"system": _CATEGORY, "code": "encounter-diagnosis"}]}],
            "subject": pid.patient_reference(assembly),
        }
        if not deleted:
            # con-4: a Condition that is not entered-in-error states its clinical status; v2 has no field for it.
            resource["clinicalStatus"] = {
                "coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "active"}]
            }
        if encounter:
            resource["encounter"] = {"reference": encounter}
        made.append((assembly.upsert(resource, cleared=filled.open_clears(), guard="demographics"), segment))
    return made


def encounter_diagnoses(made: list[tuple[str, Segment]], assembly: Assembly) -> list[dict[str, Any]]:
    """Return ``Encounter.diagnosis`` for the Conditions of a visit: use from DG1-6, rank from DG1-15."""
    found: list[dict[str, Any]] = []
    for reference, segment in made:
        entry: dict[str, Any] = {"condition": {"reference": reference}}
        role = convert.first(segment, 6)
        if role and role != "W":
            mapped = Place(assembly, segment, 6).mapped("diagnosis_role", role)
            if mapped:
                entry["use"] = {"coding": [mapped.coding()]}
        rank = convert.first(segment, 15)
        if rank.isdigit() and int(rank) > 0:
            entry["rank"] = int(rank)
        found.append(entry)
    return found
