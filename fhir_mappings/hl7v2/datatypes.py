"""HL7 v2 data types as pieces of FHIR R4: chapter 2A of v2.5.1, and the data type maps of v2-to-FHIR
(http://hl7.org/fhir/uv/v2mappings). This is the one module to import; codes (CWE) and places (PL) are here, numbers
of people and orders in ``cx``, names in ``xpn``, contacts in ``xtn``, times and quantities in ``quantities``.

Every function returns ``None`` where the value is absent or cannot be said in FHIR; the caller knows the field's place
and reports it there. Nothing here fails on what a sender wrote.
"""

from __future__ import annotations

from typing import Any

from fhir_mappings.hl7v2.context import MappingContext
from fhir_mappings.hl7v2.cx import (
    cx_identifier,
    cx_key,
    cx_kind,
    ei_identifier,
    hd_system,
    kind_concept,
    national_id_identifier,
    patient_number_identifier,
    visit_identifier,
)
from fhir_mappings.hl7v2.quantities import (
    as_dtm,
    dtm_date,
    dtm_datetime,
    dtm_instant,
    is_separated,
    nm_quantity,
    nm_value,
    reference_range,
    sn_value,
    unit_of,
)
from fhir_mappings.hl7v2.tokenizer import Repetition
from fhir_mappings.hl7v2.xpn import (
    ndl_practitioner,
    ndl_practitioner_ref,
    xcn_practitioner,
    xcn_practitioner_ref,
    xpn_human_name,
    xpn_human_names,
)
from fhir_mappings.hl7v2.xtn import xad_address, xtn_contact_point, xtn_contact_points
from fhir_mappings.identifiers import patient_key
from fhir_mappings.text import has_han

__all__ = [
    "as_dtm",
    "cwe_codeable_concept",
    "cx_identifier",
    "cx_key",
    "cx_kind",
    "dtm_date",
    "dtm_datetime",
    "dtm_instant",
    "ei_identifier",
    "hd_system",
    "is_separated",
    "kind_concept",
    "national_id_identifier",
    "ndl_practitioner",
    "ndl_practitioner_ref",
    "nm_quantity",
    "nm_value",
    "patient_key",
    "patient_number_identifier",
    "pl_locations",
    "pl_reference",
    "reference_range",
    "sn_value",
    "unit_of",
    "visit_identifier",
    "xad_address",
    "xcn_practitioner",
    "xcn_practitioner_ref",
    "xpn_human_name",
    "xpn_human_names",
    "xtn_contact_point",
    "xtn_contact_points",
]

Json = dict[str, Any]


def cwe_codeable_concept(repetition: Repetition, ctx: MappingContext, *, local: str = "") -> Json | None:
    """Return the CodeableConcept of a CWE, CE or a bare code.

    The first and the alternate triplet become one Coding each; a code without a system is the sender's own, in the
    code system *local* where the field has one. A Chinese word in the place of the code is text, not a code.
    """
    if repetition.is_null:
        return None
    codings: list[Json] = []
    texts = [repetition.component(9).strip()]
    for first in (1, 4, 10):
        code, text, system = (repetition.component(first + place).strip() for place in range(3))
        if code and has_han(code) and not system and not text:
            text, code = code, ""
        texts.append(text)
        if not code:
            continue
        coding: Json = {"system": ctx.code_system(system or local)}
        version = repetition.component({1: 7, 4: 8, 10: 13}[first]).strip()
        if version:
            coding["version"] = version
        coding["code"] = code
        if text:
            coding["display"] = text
        if coding not in codings:
            codings.append(coding)
    concept: Json = {"coding": codings} if codings else {}
    text = next((item for item in texts if item), "")
    if text:
        concept["text"] = text
    return concept or None


#: Component of PL -> (v3 or FHIR physical type code), from the largest place to the smallest.
_PLACES = ((4, "si"), (7, "bu"), (1, "wa"), (8, "lvl"), (2, "ro"), (3, "bd"))
_PHYSICAL_TYPE = "http://terminology.hl7.org/CodeSystem/location-physical-type"


def pl_locations(repetition: Repetition, ctx: MappingContext) -> list[Json]:
    """Return the Locations of a PL from the largest to the smallest, each ``partOf`` the one before; often empty.

    A dialect that writes the department in PL.4 and PL.5 gets the department as the largest place.
    """
    if repetition.is_null:
        return []
    department = ctx.dialect.location_form == "ward-department"
    chain: list[Json] = []
    path = ""
    for number, physical in _PLACES:
        value = repetition.component(number).strip()
        if not value:
            continue
        name = value
        if number == 4 and department:
            name = repetition.component(5).strip() or repetition.component(4, 2).strip() or value
            physical = "area"
        path = f"{path}/{physical}:{value}"
        location: Json = {
            "resourceType": "Location",
            "id": ctx.id("Location", "location", path),
            "identifier": [{"system": ctx.system("location"), "value": path.lstrip("/")}],
            "name": name,
            "mode": "instance",
            "physicalType": {"coding": [{"system": _PHYSICAL_TYPE, "code": physical}]},
        }
        if chain:
            location["partOf"] = {"reference": f"Location/{chain[-1]['id']}"}
        chain.append(location)
    return chain


def pl_reference(repetition: Repetition, ctx: MappingContext) -> Json | None:
    """Return the Reference to the smallest place of a PL, its display from the largest to the smallest."""
    chain = pl_locations(repetition, ctx)
    if not chain:
        return None
    return {"reference": f"Location/{chain[-1]['id']}", "display": " ".join(location["name"] for location in chain)}
