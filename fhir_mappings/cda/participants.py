"""Those who wrote, signed, keep and cared: author, (legal)Authenticator, custodian, encompassingEncounter (CDA R2 4.2.2, 4.2.3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fhir_mappings.cda import datatypes
from fhir_mappings.cda.document import attribute, below, child, children, text_of
from fhir_mappings.hl7v2.context import MappingContext
from fhir_mappings.hl7v2.cx import kind_concept
from fhir_mappings.identifiers import RESIDENT_ID, canonical_system
from fhir_mappings.markup import Element

Json = dict[str, Any]

#: WS/T 364: numbers of medical staff and of authors, each hospital's own.
_STAFF = frozenset({"urn:oid:2.16.156.10011.1.4", "urn:oid:2.16.156.10011.1.7"})
_ACT_CODE = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
_NULL_FLAVOR = "http://terminology.hl7.org/CodeSystem/v3-NullFlavor"
#: 家庭关系代码 (GB/T 4761), by which an agent's signature says who signs; and the root of departments.
_FAMILY = "2.16.156.10011.2.3.3.8"
_DEPARTMENT = "2.16.156.10011.1.26"
#: 患者类型代码 of WS/T 500.
_PATIENT_TYPE = "2.16.156.10011.2.3.1.271"
_CLASSES = {"1": ("AMB", "ambulatory"), "2": ("EMER", "emergency"), "3": ("IMP", "inpatient encounter")}


class People:
    """The persons that a document names; each numbered one is stated once."""

    def __init__(self, ctx: MappingContext, custodian: Iterable[tuple[str, str]]) -> None:
        self._ctx = ctx
        self._home = frozenset(custodian)
        self.resources: dict[str, Json] = {}

    def reference(self, entity: Element | None) -> Json | None:
        """Return the Reference to an assignedAuthor or assignedEntity, or ``None`` where nobody is named.

        A number is a member of this hospital's staff only where the document does not say that the person belongs to
        another house; of others only the name is kept, as their numbers mean nothing here.
        """
        named = datatypes.name(child(entity, "assignedPerson", "name"))
        display = named["text"] if named else text_of(child(entity, "assignedAuthoringDevice", "softwareName"))
        reference: Json = {"display": display} if display else {}
        code = next(
            (
                found[1]
                for element in children(entity, "id")
                if (found := datatypes.ii(element)) and found[1] and canonical_system(found[0]) in _STAFF
            ),
            "",
        )
        if code and self._at_home(child(entity, "representedOrganization")):
            practitioner: Json = {
                "resourceType": "Practitioner",
                "id": self._ctx.id("Practitioner", "practitioner", code),
                "identifier": [
                    {
                        "type": kind_concept("practitioner", ""),
                        "system": self._ctx.system("practitioner"),
                        "value": code,
                    }
                ],
            }
            if named:
                practitioner["name"] = [named]
            self.resources.setdefault(practitioner["id"], practitioner)
            reference = {"reference": f"Practitioner/{practitioner['id']}", **reference}
        return reference or None

    def _at_home(self, organization: Element | None) -> bool:
        stated = {found for one in children(organization, "id") if (found := datatypes.ii(one)) and found[1]}
        return not stated or not self._home or bool(stated & self._home)


def custodian_numbers(root: Element) -> list[tuple[str, str]]:
    """Return the numbers (root, extension) of the institution that keeps the document."""
    organization = child(root, "custodian", "assignedCustodian", "representedCustodianOrganization")
    return [found for one in children(organization, "id") if (found := datatypes.ii(one)) and found[1]]


def custodian(root: Element) -> Json | None:
    """Return the Reference to the institution that keeps the document, by its own number and name."""
    organization = child(root, "custodian", "assignedCustodian", "representedCustodianOrganization")
    made: Json = {"type": "Organization"}
    numbers = custodian_numbers(root)
    if numbers:
        made["identifier"] = datatypes.identifier(*numbers[0])
    named = text_of(child(organization, "name"))
    if named:
        made["display"] = named
    return made if len(made) > 1 else None


def attesters(root: Element, people: People, ctx: MappingContext) -> list[Json]:
    """Return Composition.attester: the legal authenticator first, then everyone else who signed."""
    made: list[Json] = []
    for name, mode in (("legalAuthenticator", "legal"), ("authenticator", "professional")):
        for element in children(root, name):
            party = people.reference(child(element, "assignedEntity"))
            if party is None:
                continue
            one: Json = {"mode": mode}
            entity = child(element, "assignedEntity")
            if _signs_for_the_patient(entity):
                one["mode"] = "personal"
            role = datatypes.concept(child(entity, "code"), ctx)
            if role:
                one["extension"] = [{"url": f"{ctx.base}/StructureDefinition/cda-role", "valueCodeableConcept": role}]
            signed = datatypes.moment(child(element, "time"), ctx)
            if signed:
                one["time"] = signed
            made.append({**one, "party": party})
    return made


def _signs_for_the_patient(entity: Element | None) -> bool:
    """Return whether this is the patient or a relative, as on a consent: a resident number or a family relation names them."""
    numbers = {canonical_system(attribute(one, "root")) for one in children(entity, "id")}
    return RESIDENT_ID in numbers or attribute(child(entity, "code"), "codeSystem") == _FAMILY


def informants(root: Element, ctx: MappingContext) -> list[Json]:
    """Return extensions ``cda-informant``: who told the history (CDA R2 section 4.2.2.9), by name and relation."""
    made: list[Json] = []
    for element in children(root, "informant"):
        entity = child(element, "relatedEntity") or child(element, "assignedEntity")
        person = child(entity, "relationshipHolder") or child(entity, "assignedPerson")
        named = datatypes.name(child(person, "name"))
        relation = datatypes.concept(child(entity, "code"), ctx)
        parts: list[Json] = [{"url": "name", "valueString": named["text"]}] if named else []
        parts += [{"url": "relationship", "valueCodeableConcept": relation}] if relation else []
        if parts:
            made.append({"url": f"{ctx.base}/StructureDefinition/cda-informant", "extension": parts})
    return made


def contacts(root: Element, ctx: MappingContext) -> list[Json]:
    """Return Patient.contact: the participants that are relatives or to be told (CDA R2 section 4.2.2.11, ``ECON``, ``NOK``)."""
    made: list[Json] = []
    for element in children(root, "participant"):
        entity = child(element, "associatedEntity")
        if attribute(entity, "classCode") not in {"ECON", "NOK", "AGNT"}:
            continue
        named = datatypes.name(child(entity, "associatedPerson", "name"))
        phones = [one for given in children(entity, "telecom") if (one := datatypes.telecom(given))]
        relation = datatypes.concept(child(entity, "code"), ctx)
        if named or phones:
            made.append(
                {
                    **({"relationship": [relation]} if relation else {}),
                    **({"name": named} if named else {}),
                    **({"telecom": phones} if phones else {}),
                }
            )
    return made


def events(root: Element, ctx: MappingContext) -> list[Json]:
    """Return Composition.event: the services that the document is about (documentationOf/serviceEvent)."""
    made: list[Json] = []
    for element in children(root, "documentationOf"):
        service = child(element, "serviceEvent")
        code = datatypes.concept(child(service, "code"), ctx)
        lasted = datatypes.period(child(service, "effectiveTime"), ctx)
        if code or lasted:
            made.append({**({"code": [code]} if code else {}), **({"period": lasted} if lasted else {})})
    return made


def department(root: Element) -> str:
    """Return the name of the department (科室, root .26 of WS/T 364) where the patient is, or that asks; empty if unsaid."""
    places = (
        child(root, "componentOf", "encompassingEncounter", "location"),
        child(root, "recordTarget", "patientRole", "providerOrganization"),
    )
    for place in places:
        for one in [] if place is None else [place, *below(place)]:
            if any(attribute(number, "root") == _DEPARTMENT for number in children(one, "id")):
                named = text_of(child(one, "name"))
                if named:
                    return named
    return ""


def encounter(root: Element, patient_id: str, ctx: MappingContext) -> Json | None:
    """Return the Encounter of the document, or ``None`` where its visit has no number.

    It has the key of PV1-19, so the ADT of the same visit is the same Encounter, whatever comes first.
    """
    visit = child(root, "componentOf", "encompassingEncounter")
    found = next((one for element in children(visit, "id") if (one := datatypes.ii(element)) and one[1]), None)
    if found is None:
        return None
    number = found[1]
    made: Json = {
        "resourceType": "Encounter",
        "id": ctx.id("Encounter", "visit", number),
        "identifier": [{"type": kind_concept("visit", ""), "system": ctx.system("visit"), "value": number}],
        "status": "unknown",
        "class": _class(child(visit, "code")),
        "subject": {"reference": f"Patient/{patient_id}"},
        "serviceProvider": {
            "type": "Organization",
            "identifier": {"system": f"{ctx.base}/NamingSystem/member", "value": ctx.institution},
        },
    }
    lasted = period(root, ctx)
    if lasted:
        made["period"] = lasted
        made["status"] = "finished" if "end" in lasted else "unknown"
    return made


def period(root: Element, ctx: MappingContext) -> Json | None:
    """Return the time of the visit that the document belongs to."""
    return datatypes.period(child(root, "componentOf", "encompassingEncounter", "effectiveTime"), ctx)


def _class(element: Element | None) -> Json:
    code = attribute(element, "code")
    if attribute(element, "codeSystem") == _PATIENT_TYPE and code in _CLASSES:
        target, display = _CLASSES[code]
        return {"system": _ACT_CODE, "code": target, "display": display}
    if attribute(element, "codeSystem") == "2.16.840.1.113883.5.4" and code:
        return {"system": _ACT_CODE, "code": code}
    return {"system": _NULL_FLAVOR, "code": "UNK", "display": "unknown"}
