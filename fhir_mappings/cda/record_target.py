"""recordTarget: the patient of a clinical document as FHIR Patient (CDA R2 section 4.2.3.1, WS/T 500 文档记录对象).

Numbers keep the business keys of :mod:`fhir_mappings.hl7v2.segments.pid`, so that a document and the ADT of the same hospital
meet in one record: the numbers of WS/T 364 (``.1.11`` outpatient, ``.1.12`` inpatient) are the sender's own, the numbers of
a person come last, and a root that only the hospital knows may be named in its dialect (``cx_types``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fhir_mappings import codes
from fhir_mappings.cda import datatypes
from fhir_mappings.cda.document import attribute, child, children
from fhir_mappings.errors import MalformedError
from fhir_mappings.hl7v2.context import MappingContext
from fhir_mappings.hl7v2.cx import kind_concept, national_id_identifier
from fhir_mappings.identifiers import (
    HEALTH_CARD,
    HEALTH_RECORD,
    INSURANCE_CARD,
    RESIDENT_ID,
    canonical_system,
    check_resident_id,
    patient_key,
)
from fhir_mappings.markup import Element

Json = dict[str, Any]

#: 病案号 of WS/T 364: the hospital's number of the whole record, behind the number of the visit by which its feed knows the patient.
_RECORD_NUMBER = "urn:oid:2.16.156.10011.1.13"
_OWN = {"urn:oid:2.16.156.10011.1.11": "outpatient-no", "urn:oid:2.16.156.10011.1.12": "inpatient-no"}
_PERSONAL = {
    RESIDENT_ID: "resident-id",
    HEALTH_CARD: "health-card",
    INSURANCE_CARD: "insurance-card",
    HEALTH_RECORD: "health-record",
}
#: Which number names the record, best first; those of a person stand behind all others.
_RANK = ("patient-id", "inpatient-no", "outpatient-no", "record-no")
_GB_2261_1 = "2.16.156.10011.2.3.3.4"
_SEX = {"1": "male", "2": "female", "0": "unknown", "9": "unknown"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordTarget:
    """Who the document is about.

    Attributes:
        resource: the Patient, ``id`` set.
        own_numbers: identifiers (system, value) that the hospital itself gave out, by which it may know the patient already.
        resident_ids: valid resident identity numbers that the document states.
        other_numbers: Identifiers that stand with the patient and are those of a prescription, an order, a consent.
    """

    resource: Json
    own_numbers: tuple[tuple[str, str], ...]
    resident_ids: frozenset[str]
    other_numbers: tuple[Json, ...] = ()


def record_target(root: Element, ctx: MappingContext) -> RecordTarget:
    """Return the patient of the document.

    Raises:
        MalformedError: there is no patient or more than one (100), or no number of the patient (101).
    """
    targets = children(root, "recordTarget")
    if len(targets) != 1:
        raise MalformedError(
            f"文书应只有一名患者 / A document is about one patient, and this one has {len(targets)}.",
            where="/ClinicalDocument/recordTarget",
            remedy="Send a document for each patient.",
            code=100,
        )
    role = child(targets[0], "patientRole")
    person = child(role, "patient")
    ranked: list[tuple[int, str, str]] = []
    others: list[Json] = []
    identifiers: list[Json] = []
    own: list[tuple[str, str]] = []
    residents: set[str] = set()
    seen: set[tuple[str, str, str]] = set()
    for element in (*children(role, "id"), *children(person, "id")):
        found = datatypes.ii(element)
        if found is None or not found[1]:
            continue
        if _of_something_else(found[0], ctx):
            others.append(datatypes.identifier(*found))
            continue
        kind, authority, made = _number(*found, ctx)
        # One by one among all before it would cost the square of what a document may hold.
        if (kind, made["system"], made["value"]) in seen:
            continue
        seen.add((kind, made["system"], made["value"]))
        identifiers.append(made)
        if kind == "resident-id":
            checked = check_resident_id(found[1])
            if checked.status == "ok":
                residents.add(checked.value)
        elif kind in _RANK:
            own.append((made["system"], made["value"]))
        rank = _RANK.index(kind) if kind in _RANK else len(_RANK)
        ranked.append((rank, authority, made["value"]))
    if not ranked:
        raise MalformedError(
            "文书没有患者号码 / The document has no number of the patient.",
            where="/ClinicalDocument/recordTarget/patientRole/id",
            remedy="Send the hospital's inpatient or outpatient number, root 2.16.156.10011.1.12 or .11.",
            code=101,
        )
    _, authority, value = min(ranked, key=lambda one: one[0])
    resource: Json = {
        "resourceType": "Patient",
        "id": ctx.id("Patient", authority, patient_key(value)),
        "active": True,
        "identifier": identifiers,
        **_demographics(role, person, ctx),
        "managingOrganization": {
            "type": "Organization",
            "identifier": {"system": f"{ctx.base}/NamingSystem/member", "value": ctx.institution},
        },
    }
    return RecordTarget(
        resource=resource, own_numbers=tuple(own), resident_ids=frozenset(residents), other_numbers=tuple(others)
    )


def _of_something_else(root: str, ctx: MappingContext) -> bool:
    """Return whether WS/T 364 gives *root* to another thing than a patient: WS/T 500 writes 处方编号 (.20), 知情同意书编号 (.34),
    电子申请单编号 (.24), 标本号 (.14) and 报告单号 (.32) beside the numbers of the patient.
    """
    uri = canonical_system(root)
    known = uri in _OWN or uri in _PERSONAL or uri == _RECORD_NUMBER or root in ctx.dialect.cx_types
    return uri.startswith(f"urn:oid:{datatypes.WST_364}") and not known


def _number(root: str, extension: str, ctx: MappingContext) -> tuple[str, str, Json]:
    """Return (kind, authority for ids, Identifier) of one number."""
    uri = canonical_system(root)
    if uri == RESIDENT_ID:
        made = national_id_identifier(extension, ctx)
        assert made is not None
        return "resident-id", "resident-id", made
    kind = _OWN.get(uri) or ctx.dialect.cx_types.get(root, "")
    if kind:
        concept = kind_concept(kind, "")
        return kind, kind, {**({"type": concept} if concept else {}), "system": ctx.system(kind), "value": extension}
    kind = "record-no" if uri == _RECORD_NUMBER else _PERSONAL.get(uri, "patient-id")
    concept = {"text": "病案号"} if kind == "record-no" else kind_concept(kind, "")
    made = {**({"type": concept} if concept else {}), **datatypes.identifier(root, extension)}
    if kind in {"health-card", "insurance-card"}:
        return kind, kind, made
    return kind, made["system"], made


def _demographics(role: Element | None, person: Element | None, ctx: MappingContext) -> Json:
    made: Json = {}
    names = [one for element in children(person, "name") if (one := datatypes.name(element))]
    if names:
        made["name"] = names
    phones = [one for element in children(role, "telecom") if (one := datatypes.telecom(element))]
    if phones:
        made["telecom"] = phones
    sex = child(person, "administrativeGenderCode")
    written = attribute(sex, "code")
    if attribute(sex, "codeSystem") in {_GB_2261_1, ""} and written.lstrip("0") in {"1", "2", "9"}:
        made["gender"] = _SEX[written.lstrip("0")]
    elif written == "0":
        made["gender"] = "unknown"
    elif (mapped := codes.lookup("administrative_sex", written)) is not None:
        made["gender"] = mapped.target
    born = datatypes.moment(child(person, "birthTime"), ctx)
    if born:
        made["birthDate"] = born[:10]
    homes = [one for element in children(role, "addr") if (one := datatypes.address(element))]
    if homes:
        made["address"] = homes
    marital = datatypes.concept(child(person, "maritalStatusCode"), ctx)
    if marital:
        made["maritalStatus"] = marital
    group = datatypes.concept(child(person, "ethnicGroupCode"), ctx)
    if group:
        made["extension"] = [{"url": f"{ctx.base}/StructureDefinition/ethnic-group", "valueCodeableConcept": group}]
    return made
