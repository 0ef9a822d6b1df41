"""PID: the patient (HL7 v2 chapter 3.4.2) as FHIR Patient. v2-to-FHIR: PID[Patient], PD1[Patient]."""

from __future__ import annotations

from typing import Any

from fhir_mappings.hl7v2 import datatypes
from fhir_mappings.hl7v2.assembly import Assembly, Filled, Place, Row, fill, put
from fhir_mappings.hl7v2.segments import convert, pd1, rol
from fhir_mappings.hl7v2.segments.z import fill_z
from fhir_mappings.hl7v2.tokenizer import Field, Segment
from fhir_mappings.identifiers import check_resident_id

_FHIR = "http://hl7.org/fhir/StructureDefinition"

#: Which of a patient's numbers names the record, best first; any other number of the hospital's own comes after these.
_KEY_KINDS = ("patient-id", "inpatient-no", "outpatient-no")
#: Numbers that name the person and not the record come last of all: they are mistyped, shared by mother and infant, and
#: would join records that the hospital keeps apart.
_PERSONAL = frozenset(
    {
        "resident-id",
        "health-card",
        "insurance-card",
        "passport",
        "driving-licence",
        "birth-certificate",
        "master-patient-id",
    }
)


def _gender(content: Field, place: Place) -> str | None:
    mapped = place.mapped("administrative_sex", convert.code_of(content))
    return mapped.target if mapped else None


def _birth(content: Field, place: Place) -> dict[str, Any] | None:
    date = convert.date(content, place)
    if date is None:
        return None
    born: dict[str, Any] = {"birthDate": date}
    raw = datatypes.as_dtm(content.repetitions[0].component(1), place.ctx)
    # Chinese HIS pad the day with zeros to fourteen digits; only a time that says something becomes birthTime.
    if len(raw) >= 12 and raw[8:].strip("0") and raw[8:12].isdigit():
        moment = datatypes.dtm_datetime(raw, place.ctx)
        if moment and "T" in moment:
            born["_birthDate"] = {"extension": [{"url": f"{_FHIR}/patient-birthTime", "valueDateTime": moment}]}
    return born


def _marital(content: Field, place: Place) -> dict[str, Any] | None:
    concept = convert.concept(content, place)
    mapped = place.mapped("marital_status", convert.code_of(content))
    if mapped is None:
        return concept
    return {"coding": [mapped.coding()], **({"text": convert.text_of(content)} if convert.text_of(content) else {})}


def _ethnicity(content: Field, place: Place) -> dict[str, Any] | None:
    """PID-22: the v2-to-FHIR row leaves it to the realm; here it is the Chinese ethnic group of GB/T 3304."""
    code = convert.code_of(content)
    concept: dict[str, Any] = {}
    if code.isdigit():
        concept["coding"] = [{"system": "urn:oid:2.16.156.10011.2.3.3.3", "code": code.zfill(2)}]
        if convert.text_of(content):
            concept["coding"][0]["display"] = convert.text_of(content)
    text = convert.text_of(content) or ("" if code.isdigit() else code)
    if text:
        concept["text"] = text
    if not concept:
        return None
    return {"url": f"{place.ctx.base}/StructureDefinition/ethnic-group", "valueCodeableConcept": concept}


def _mothers_name(content: Field, place: Place) -> dict[str, Any] | None:
    name = convert.name_text(content, place)
    return {"url": f"{_FHIR}/patient-mothersMaidenName", "valueString": name} if name else None


def _citizenship(content: Field, place: Place) -> dict[str, Any] | None:
    concept = convert.concept(content, place)
    if concept is None:
        return None
    url = f"{_FHIR}/patient-{'nationality' if place.number == 28 else 'citizenship'}"
    return {"url": url, "extension": [{"url": "code", "valueCodeableConcept": concept}]}


def _religion(content: Field, place: Place) -> dict[str, Any] | None:
    concept = convert.concept(content, place)
    return {"url": f"{_FHIR}/patient-religion", "valueCodeableConcept": concept} if concept else None


def _driving_licence(content: Field, place: Place) -> dict[str, Any] | None:
    """PID-20: a DLN, whose first component is the number."""
    return datatypes.cx_identifier(content.first, place.ctx, kind="driving-licence")


def _birth_place(content: Field, _place: Place) -> dict[str, Any] | None:
    text = content.repetitions[0].component(1)
    return {"url": f"{_FHIR}/patient-birthPlace", "valueAddress": {"text": text}} if text else None


def _patient_number(content: Field, place: Place) -> dict[str, Any] | None:
    """PID-2: withdrawn in v2.7 but the master number of many Chinese HIS."""
    return datatypes.patient_number_identifier(content.repetitions[0], place.ctx)


def _language(content: Field, place: Place) -> list[dict[str, Any]] | None:
    concept = convert.concept(content, place)
    return [{"language": concept, "preferred": True}] if concept else None


def _multiple_birth(content: Field, _place: Place) -> dict[str, Any] | None:
    value = content.repetitions[0].component(1).upper()
    return {"multipleBirthBoolean": value == "Y"} if value in {"Y", "N"} else None


def _birth_order(content: Field, place: Place) -> dict[str, Any] | None:
    value = content.repetitions[0].component(1)
    if not value.isdigit():
        place.warn("The birth order is not a number; it was left out.")
        return None
    return {"multipleBirthInteger": int(value)}


def _death_moment(content: Field, place: Place) -> dict[str, Any] | None:
    moment = convert.moment(content, place)
    return {"deceasedDateTime": moment} if moment else None


def _death(content: Field, _place: Place) -> dict[str, Any] | None:
    value = content.repetitions[0].component(1).upper()
    return {"deceasedBoolean": value == "Y"} if value in {"Y", "N"} else None


ROWS: tuple[Row, ...] = (
    Row(3, "identifier*", convert.identifiers, "-"),
    Row(2, "identifier*", _patient_number, "-"),
    Row(4, "identifier*", convert.identifiers, "-"),
    Row(19, "identifier*", convert.national_id, "-"),
    Row(20, "identifier*", _driving_licence, "-"),
    Row(5, "name*", convert.names),
    Row(6, "extension*", _mothers_name, "extension:patient-mothersMaidenName"),
    Row(7, "", _birth, "birthDate"),
    Row(8, "gender", _gender),
    Row(9, "name*", convert.aliases, "-"),
    Row(11, "address*", convert.addresses),
    Row(13, "telecom*", convert.telecoms),
    # The use "work" comes from the field and not from XTN-2, which Chinese feeds leave empty.
    Row(14, "telecom*", convert.work_telecoms, "-"),
    Row(15, "communication", _language),
    Row(16, "maritalStatus", _marital),
    Row(17, "extension*", _religion, "extension:patient-religion"),
    Row(22, "extension*", _ethnicity, "extension:ethnic-group"),
    Row(23, "extension*", _birth_place, "extension:patient-birthPlace"),
    Row(24, "", _multiple_birth, "multipleBirth[x]"),
    Row(25, "", _birth_order, "-"),
    Row(26, "extension*", _citizenship, "extension:patient-citizenship"),
    Row(28, "extension*", _citizenship, "extension:patient-nationality"),
    Row(30, "", _death, "deceased[x]"),
    Row(29, "", _death_moment, "deceased[x]"),
    Row(40, "telecom*", convert.telecoms, "-"),
)


def patient_reference(assembly: Assembly) -> dict[str, str]:
    """The patient of the message as a Reference."""
    return {"reference": f"Patient/{assembly.patient_id}"}


def patient_id(segment: Segment, assembly: Assembly) -> str:
    """Return the FHIR id of the patient that PID names.

    Raises:
        MalformedError: code 101, neither PID-3 nor PID-2 holds a number of the sender's.
    """
    found = number_id(segment.field(3), assembly)
    if found is None:
        second = segment.field(2)
        if not second.is_absent and not second.is_null and second.repetitions[0].component(1).strip():
            found = assembly.ctx.id("Patient", "patient-id", datatypes.patient_key(second.repetitions[0].component(1)))
    if found is None:
        raise assembly.missing(segment, 3, "Send the hospital's own number of the patient in PID-3.")
    return found


def number_id(content: Field, assembly: Assembly, second: str = "") -> str | None:
    """Return the FHIR id that the best of the CX repetitions names (PID-3, MRG-1), or ``None`` without any number.

    *second* is PID-2, which counts as the hospital's own patient number behind one that PID-3 calls so.
    """
    ranked: list[tuple[int, str, str]] = []
    for repetition in content.repetitions:
        key = datatypes.cx_key(repetition, assembly.ctx)
        if key is None:
            continue
        kind, authority, value = key
        if kind in _KEY_KINDS:
            rank = _KEY_KINDS.index(kind)
        else:
            rank = len(_KEY_KINDS) + (kind in _PERSONAL)
        if kind == "resident-id":
            value = check_resident_id(value).value
        ranked.append((rank, authority, value))
    if second:
        ranked.append((0, "patient-id", second))
    if not ranked:
        return None
    # min() takes the first of equals: of two numbers of one kind the sender's first counts.
    _, authority, value = min(ranked, key=lambda item: item[0])
    return assembly.ctx.id("Patient", authority, datatypes.patient_key(value))


def patient(segment: Segment, assembly: Assembly) -> Filled:
    """Return the elements of the Patient that PID describes; ``id`` is set and the assembly knows the patient."""
    assembly.patient_id = patient_id(segment, assembly)
    filled = fill(ROWS, segment, assembly)
    for said, bare in (("deceasedDateTime", "deceasedBoolean"), ("multipleBirthInteger", "multipleBirthBoolean")):
        # A choice of types has one value: the moment or the place says more than the yes beside it.
        if said in filled.elements:
            filled.elements.pop(bare, None)
    second = assembly.message.first("PD1")
    if second is not None:
        fill(pd1.ROWS, second, assembly, into=filled)
    doctors = rol.general_practitioners(assembly)
    if doctors:
        put(filled.elements, "generalPractitioner*", doctors)
    fill_z("Patient", assembly.message.segments, assembly, filled)
    filled.elements = {
        "resourceType": "Patient",
        "id": assembly.patient_id,
        **filled.elements,
        "managingOrganization": convert.institution(assembly.ctx.institution, assembly.ctx),
    }
    return filled


def add_patient(segment: Segment, assembly: Assembly) -> str:
    """Add the Patient of PID as a change guarded by the age of the message; return its id."""
    filled = patient(segment, assembly)
    assembly.upsert(filled.elements, cleared=filled.open_clears(), guard="demographics", defaults={"active": True})
    assert assembly.patient_id is not None
    return assembly.patient_id
