"""PR1: procedures of a visit (HL7 v2 chapter 6.5.4) as FHIR Procedure. v2-to-FHIR: PR1[Procedure]."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from fhir_mappings.hl7v2 import datatypes
from fhir_mappings.hl7v2.assembly import Assembly, Convert, Place, Row, fill
from fhir_mappings.hl7v2.segments import convert, pid
from fhir_mappings.hl7v2.tokenizer import Field, Segment

_SNOMED = "http://snomed.info/sct"


def _performers(function: str, display: str) -> Convert:
    def convert_field(content: Field, place: Place) -> list[dict[str, Any]]:
        coded = {"function": {"coding": [{"system": _SNOMED, "code": function, "display": display}]}}
        return [
            {**(coded if function else {}), "actor": reference} for reference in convert.practitioners(content, place)
        ]

    return convert_field


def _identifier(content: Field, place: Place) -> dict[str, Any] | None:
    return datatypes.ei_identifier(content.first, place.ctx, "procedure")


def _part_of(content: Field, place: Place) -> dict[str, Any] | None:
    """PR1-25: the procedure that this one is part of, by its PR1-19."""
    number = _identifier(content, place)
    return {"type": "Procedure", "identifier": number} if number else None


def _code(content: Field, place: Place) -> dict[str, Any] | None:
    """PR1-3, in the scheme of PR1-2 where it names none itself (ICD-9-CM-3 in Chinese feeds)."""
    made = convert.concept(content, place)
    scheme = place.segment.get(2).strip()
    if made and scheme and made.get("coding") and not content.component(3).strip():
        made["coding"][0]["system"] = place.ctx.code_system(scheme)
    return made


def _performed(content: Field, place: Place) -> dict[str, Any] | None:
    moment = convert.moment(content, place)
    if moment is None:
        return None
    start = datatypes.dtm_instant(content.component(1).strip(), place.ctx) if "T" in moment else None
    minutes = datatypes.nm_value(place.segment.get(7)) if place.segment.get(7).strip() else None
    if start is None or minutes is None or not 0 < minutes <= 100_000:
        return {"performedDateTime": moment}
    end = (start + timedelta(minutes=float(minutes))).isoformat(timespec="seconds")
    return {"performedPeriod": {"start": moment, "end": end}}


ROWS: tuple[Row, ...] = (
    Row(19, "identifier*", _identifier, "-"),
    Row(3, "code", _code),
    # PR1-4 was the only text before v2.3 and still is in Chinese feeds that leave PR1-3 empty.
    Row(4, "code.text", lambda content, _place: content.repetitions[0].component(1), "-"),
    Row(6, "category", convert.concept),
    Row(5, "", _performed, "performed[x]"),
    Row(8, "performer*", _performers("88189002", "Anesthesiologist"), "-"),
    Row(11, "performer*", _performers("304292004", "Surgeon"), "performer"),
    Row(12, "performer*", _performers("", ""), "-"),
    Row(15, "reasonCode*", convert.concepts),
    Row(23, "location", convert.location),
    Row(25, "partOf*", _part_of),
)


def add_procedures(segments: list[Segment], assembly: Assembly, *, encounter: str | None) -> None:
    """Add a Procedure for each PR1 that names one; PR1-20 D says that it was entered in error.

    PR1 is no list of all there are: hospitals send the procedure that was just done, so silence retires nothing.
    """
    for segment in segments:
        filled = fill(ROWS, segment, assembly)
        code = filled.elements.get("code")
        if not code:
            Place(assembly, segment, 3).warn(
                "The procedure has neither a code nor a text; it was left out.", code="required"
            )
            continue
        number = convert.first(segment, 19)
        what = convert.first(segment, 3) or code.get("text", "")
        key = number or f"{encounter or ''}|{what}|{convert.first(segment, 5)}"
        resource: dict[str, Any] = {
            "resourceType": "Procedure",
            "id": assembly.ctx.id("Procedure", "PR1", f"{assembly.patient_id}|{key}"),
            **filled.elements,
            "status": _status(segment, assembly),
            "subject": pid.patient_reference(assembly),
        }
        if encounter:
            resource["encounter"] = {"reference": encounter}
        assembly.upsert(resource, cleared=filled.open_clears(), guard="demographics")


def _status(segment: Segment, assembly: Assembly) -> str:
    """The v2-to-FHIR map leaves the status to the context: an ADT tells what was done, once its time is past."""
    if convert.first(segment, 20).upper() == "D":
        return "entered-in-error"
    text = convert.first(segment, 5)
    done = datatypes.dtm_instant(text, assembly.ctx) if text else None
    return "completed" if done is not None and done <= assembly.asserted_at else "unknown"
