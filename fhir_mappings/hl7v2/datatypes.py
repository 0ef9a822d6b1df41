"""HL7 v2 data types as pieces of FHIR R4: chapter 2A of v2.5.1, and the data type maps of v2-to-FHIR
(http://hl7.org/fhir/uv/v2mappings). Numbers and times have their own file, ``quantities``.

Every function returns ``None`` where the value is absent or cannot be said in FHIR; the caller knows the field's place
and reports it there. Nothing here fails on what a sender wrote.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

from fhir_mappings.hl7v2.context import MappingContext
from fhir_mappings.hl7v2.quantities import (
    dtm_date,
    dtm_datetime,
    dtm_instant,
    nm_quantity,
    nm_value,
    reference_range,
    sn_value,
)
from fhir_mappings.hl7v2.tokenizer import Repetition
from fhir_mappings.identifiers import (
    HEALTH_CARD,
    INSURANCE_CARD,
    RESIDENT_ID,
    canonical_system,
    check_resident_id,
    is_uuid,
    patient_key,
)
from fhir_mappings.names import Representation, human_name
from fhir_mappings.text import has_han

__all__ = [
    "cwe_codeable_concept",
    "cx_identifier",
    "cx_key",
    "dtm_date",
    "dtm_datetime",
    "dtm_instant",
    "ei_identifier",
    "hd_system",
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

_V2_0203 = "http://terminology.hl7.org/CodeSystem/v2-0203"
_OID = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")

#: Kind of number -> (code of table 0203, Chinese name).
_KINDS: dict[str, tuple[str, str]] = {
    "patient-id": ("PI", "患者编号"),
    "inpatient-no": ("", "住院号"),
    "outpatient-no": ("", "门诊号"),
    "master-patient-id": ("", "主索引号"),
    "visit": ("VN", "就诊号"),
    "account": ("AN", "账户号"),
    "resident-id": ("NI", "居民身份证"),
    "health-card": ("HC", "健康卡"),
    "insurance-card": ("", "社保卡"),
    "passport": ("PPN", "护照"),
    "driving-licence": ("DL", "驾驶证"),
    "birth-certificate": ("BCT", "出生医学证明"),
    "placer-order": ("PLAC", "申请单号"),
    "filler-order": ("FILL", "执行单号"),
    "accession": ("ACSN", "检查号"),
    "practitioner": ("EI", "工号"),
}
#: Numbers that mean the same in every hospital.
_NATIONAL = {"resident-id": RESIDENT_ID, "health-card": HEALTH_CARD, "insurance-card": INSURANCE_CARD}
_KIND_OF_SYSTEM = {system: kind for kind, system in _NATIONAL.items()}


# --- Identifiers: CX, EI, HD -----------------------------------------------------------------------------------------


def hd_system(namespace: str, universal: str, universal_type: str, kind: str, ctx: MappingContext) -> str:
    """Return the identifier system that an HD means for numbers of *kind*; a universal id wins over a local name."""
    universal = universal.strip()
    if universal:
        if _OID.fullmatch(universal):
            return canonical_system(universal)
        if is_uuid(universal):
            return f"urn:uuid:{universal.lower()}"
        if universal.startswith(("http://", "https://", "urn:")):
            return canonical_system(universal)
        # A universal id of an unknown kind (DNS, a local word) is only as good as the institution that wrote it.
        return ctx.system(kind, f"{universal_type.strip().lower() or 'id'}:{universal}")
    return ctx.system(kind, namespace)


def cx_kind(repetition: Repetition, ctx: MappingContext) -> str:
    """Return the kind of number of a CX by the dialect's table; an unknown type is a kind of its own."""
    system = canonical_system(repetition.component(4, 2))
    if system in _KIND_OF_SYSTEM:
        return _KIND_OF_SYSTEM[system]
    written = repetition.component(5).strip()
    if not written:
        return ctx.dialect.default_cx_kind
    return ctx.dialect.cx_types.get(written) or quote(written.lower(), safe="")


def cx_key(repetition: Repetition, ctx: MappingContext) -> tuple[str, str, str] | None:
    """Return (kind, authority, value) of a CX for making ids, or ``None`` without a value.

    The authority of the sender's own numbers is the kind itself, so that the DICOM door finds the same patient.
    """
    value = repetition.component(1).strip()
    if not value or repetition.is_null:
        return None
    kind = cx_kind(repetition, ctx)
    namespace, universal = repetition.component(4), repetition.component(4, 2)
    if not universal and ctx.owner(namespace) == ctx.institution:
        return kind, kind, value
    return kind, hd_system(namespace, universal, repetition.component(4, 3), kind, ctx), value


def cx_identifier(repetition: Repetition, ctx: MappingContext, *, kind: str | None = None) -> Json | None:
    """Return the Identifier of a CX; *kind* says what the number is where the field fixes it (PV1-19 is a visit)."""
    value = repetition.component(1).strip()
    if not value or repetition.is_null:
        return None
    written = repetition.component(5).strip()
    kind = kind or cx_kind(repetition, ctx)
    if kind == "resident-id":
        return national_id_identifier(value, ctx)
    identifier: Json = {}
    concept = _kind_concept(kind, written)
    if concept:
        identifier["type"] = concept
    identifier["system"] = _NATIONAL.get(kind) or hd_system(
        repetition.component(4), repetition.component(4, 2), repetition.component(4, 3), kind, ctx
    )
    identifier["value"] = value
    start, end = dtm_date(repetition.component(7)), dtm_date(repetition.component(8))
    if start or end:
        identifier["period"] = {**({"start": start} if start else {}), **({"end": end} if end else {})}
    return identifier


def national_id_identifier(value: str, ctx: MappingContext, *, sex: str | None = None) -> Json | None:
    """Return the Identifier of a resident identity number; its check is recorded, a wrong one is kept."""
    if not value.strip():
        return None
    checked = check_resident_id(value, sex=sex)
    extensions: list[Json] = [
        {"url": f"{ctx.base}/StructureDefinition/identifier-validation", "valueCode": checked.status}
    ]
    if checked.value != value.strip():
        extensions.append({"url": f"{ctx.base}/StructureDefinition/identifier-as-sent", "valueString": value.strip()})
    return {
        "extension": extensions,
        "type": _kind_concept("resident-id", ""),
        "system": RESIDENT_ID,
        "value": checked.value,
    }


def patient_number_identifier(repetition: Repetition, ctx: MappingContext) -> Json | None:
    """Return the Identifier of PID-2: the hospital's own patient number whatever its CX type says."""
    value = repetition.component(1).strip()
    if not value or repetition.is_null:
        return None
    return {"type": _kind_concept("patient-id", ""), "system": ctx.system("patient-id"), "value": value}


def visit_identifier(repetition: Repetition, ctx: MappingContext) -> Json:
    """Return the Identifier of a visit number (PV1-19) that is valued; its type is VN whatever its CX type says."""
    system = hd_system(repetition.component(4), repetition.component(4, 2), repetition.component(4, 3), "visit", ctx)
    return {"type": _kind_concept("visit", ""), "system": system, "value": repetition.component(1).strip()}


def ei_identifier(repetition: Repetition, ctx: MappingContext, kind: str) -> Json | None:
    """Return the Identifier of an EI of *kind* (``placer-order``, ``filler-order``, ``accession``, ``visit``, ...)."""
    value = repetition.component(1).strip()
    if not value or repetition.is_null:
        return None
    system = hd_system(repetition.component(2), repetition.component(3), repetition.component(4), kind, ctx)
    concept = _kind_concept(kind, "")
    return {**({"type": concept} if concept else {}), "system": system, "value": value}


def _kind_concept(kind: str, written: str) -> Json:
    code, text = _KINDS.get(kind, ("", ""))
    concept: Json = {"coding": [{"system": _V2_0203, "code": code}]} if code else {}
    if text or written:
        concept["text"] = text or written
    return concept


# --- People: XPN, XCN, NDL -------------------------------------------------------------------------------------------

#: HL7 table 0200 -> FHIR NameUse, the rows that v2-to-FHIR maps (concept map NameType).
_NAME_USE = {
    "L": "official",
    "R": "official",
    "D": "usual",
    "M": "maiden",
    "N": "nickname",
    "MSK": "anonymous",
    "NAV": "temp",
    "TEMP": "temp",
    "BAD": "old",
}
#: HL7 table 0465 -> iso21090 EN representation.
_NAME_REPRESENTATION: dict[str, Representation] = {"A": "ABC", "I": "IDE", "P": "SYL"}


def xpn_human_names(repetition: Repetition, ctx: MappingContext) -> list[Json]:
    """Return the HumanNames of one XPN: two where the sender writes the pinyin beside the Chinese name, Han first."""
    if repetition.is_null:
        return []
    parts = [repetition.component(number) for number in range(1, 7)]
    use = _NAME_USE.get(repetition.component(7).strip().upper(), "")
    form = repetition.component(8).strip().upper() or repetition.component(7).strip().upper()
    representation = _NAME_REPRESENTATION.get(form) if repetition.component(8) else None
    return _names(parts, ctx, use=use, representation=representation)


def xpn_human_name(repetition: Repetition, ctx: MappingContext) -> Json | None:
    """Return the first HumanName of one XPN, or ``None``."""
    names = xpn_human_names(repetition, ctx)
    return names[0] if names else None


def _names(
    parts: list[str], ctx: MappingContext, *, use: str = "", representation: Representation | None = None
) -> list[Json]:
    """Return the HumanNames that family, given, more given, suffix, prefix and degree make."""
    family, given, more, suffix, prefix, degree = (part.strip() for part in [*parts, *[""] * 6][:6])
    whole: Json | None
    if ctx.dialect.name_form == "whole-or-pinyin" and family and has_han(given) and not has_han(family):
        han = human_name(text=given, use=use, representation="IDE")
        pinyin = human_name(text=family, use=use, representation="ABC")
        return [name for name in (han, pinyin) if name]
    if bool(family) != bool(given) and has_han(family or given):
        whole = human_name(text=family or given, prefix=prefix, use=use, representation=representation)
    elif family and not given and ctx.dialect.name_form == "whole-or-pinyin":
        whole = human_name(text=family, prefix=prefix, use=use, representation=representation)
    else:
        whole = human_name(
            family=family,
            given=[given, *more.split()],
            prefix=prefix,
            suffix=" ".join(part for part in (suffix, degree) if part),
            use=use,
            representation=representation,
        )
    return [whole] if whole else []


def xcn_practitioner(repetition: Repetition, ctx: MappingContext) -> Json | None:
    """Return the Practitioner of an XCN with a number; a bare name is no resource, only a display."""
    parts = [repetition.component(number) for number in range(2, 8)]
    return _practitioner(repetition.component(1).strip(), parts, _xcn_owner(repetition), ctx)


def xcn_practitioner_ref(repetition: Repetition, ctx: MappingContext) -> Json | None:
    """Return the Reference to the Practitioner of an XCN; display only where there is no number."""
    parts = [repetition.component(number) for number in range(2, 8)]
    return _practitioner_ref(repetition.component(1).strip(), parts, _xcn_owner(repetition), ctx)


def ndl_practitioner(repetition: Repetition, ctx: MappingContext) -> Json | None:
    """Return the Practitioner of an NDL (OBR-32 to OBR-35), whose name is in subcomponents of NDL.1."""
    code, parts = _ndl(repetition)
    return _practitioner(code, parts, "", ctx)


def ndl_practitioner_ref(repetition: Repetition, ctx: MappingContext) -> Json | None:
    """Return the Reference to the Practitioner of an NDL."""
    code, parts = _ndl(repetition)
    return _practitioner_ref(code, parts, "", ctx)


def _xcn_owner(repetition: Repetition) -> str:
    return repetition.component(9)


def _ndl(repetition: Repetition) -> tuple[str, list[str]]:
    subs = [repetition.component(1, sub) for sub in range(2, 8)]
    second = repetition.component(2).strip()
    if not any(subs) and second and not second.isdigit():
        # NDL.2 is a time; senders that put a name there have written an XCN.
        subs = [repetition.component(number) for number in range(2, 8)]
    return repetition.component(1).strip(), subs


def _practitioner(code: str, parts: list[str], namespace: str, ctx: MappingContext) -> Json | None:
    if not code or code == '""':
        return None
    if has_han(code) and not any(parts):
        return None
    system = ctx.system("practitioner", namespace)
    resource: Json = {
        "resourceType": "Practitioner",
        "id": _practitioner_id(code, namespace, ctx),
        "identifier": [{"type": _kind_concept("practitioner", ""), "system": system, "value": code}],
    }
    names = _names(parts, ctx)
    if names:
        resource["name"] = names
    return resource


def _practitioner_ref(code: str, parts: list[str], namespace: str, ctx: MappingContext) -> Json | None:
    names = _names(parts, ctx)
    if has_han(code) and not names:
        return {"display": code}
    reference: Json = {}
    if code:
        reference["reference"] = f"Practitioner/{_practitioner_id(code, namespace, ctx)}"
    if names:
        reference["display"] = names[0]["text"]
    return reference or None


def _practitioner_id(code: str, namespace: str, ctx: MappingContext) -> str:
    owner = ctx.owner(namespace)
    authority = "practitioner" if owner == ctx.institution else ctx.system("practitioner", namespace)
    return ctx.id("Practitioner", authority, code)


# --- Contact: XAD, XTN -----------------------------------------------------------------------------------------------

#: HL7 table 0190 -> FHIR AddressUse and AddressType (concept maps AddressType[Use] and AddressType[Type]).
_ADDRESS_USE = {"H": "home", "O": "work", "B": "work", "C": "temp", "BA": "old", "BI": "billing"}
_ADDRESS_TYPE = {"M": "postal", "SH": "postal"}


def xad_address(repetition: Repetition, ctx: MappingContext) -> Json | None:
    """Return the Address of an XAD; ``text`` runs from the largest unit to the smallest where it is Chinese."""
    del ctx  # every dialect writes XAD alike; the argument keeps the data types uniform
    if repetition.is_null:
        return None
    street, other, city, state, postal, country = (repetition.component(number).strip() for number in range(1, 7))
    kind, district = repetition.component(7).strip().upper(), repetition.component(9).strip()
    address: Json = {}
    if kind in _ADDRESS_USE:
        address["use"] = _ADDRESS_USE[kind]
    if kind in _ADDRESS_TYPE:
        address["type"] = _ADDRESS_TYPE[kind]
    lines = [line for line in (street, other) if line]
    parts = [part for part in (state, city, district, *lines) if part]
    if parts:
        chinese = any(has_han(part) for part in parts)
        address["text"] = (
            "".join(parts) if chinese else ", ".join(part for part in (*lines, district, city, state) if part)
        )
    if lines:
        address["line"] = lines
    for key, value in (
        ("city", city),
        ("district", district),
        ("state", state),
        ("postalCode", postal),
        ("country", country),
    ):
        if value:
            address[key] = value
    return address if parts or postal or country else None


#: HL7 table 0201 -> FHIR ContactPointUse (concept map TelecommunicationUseCode).
_TELECOM_USE = {"PRN": "home", "WPN": "work", "PRS": "mobile"}
#: HL7 table 0202 -> FHIR ContactPointSystem (concept map TelecommunicationEquipmentType); CP is a phone whose use is mobile.
_TELECOM_SYSTEM = {
    "PH": "phone",
    "CP": "phone",
    "FX": "fax",
    "BP": "pager",
    "MD": "other",
    "SAT": "other",
    "TDD": "other",
    "TTY": "other",
}


def xtn_contact_points(repetition: Repetition, ctx: MappingContext, *, use: str = "") -> list[Json]:
    """Return the ContactPoints of an XTN: the number, wherever this sender writes it, and the e-mail address."""
    del ctx  # senders write the number in XTN.1, .5 to .7, .9 or .12 without regard to the dialect
    if repetition.is_null:
        return []
    equipment = repetition.component(3).strip().upper()
    written_use = repetition.component(2).strip().upper()
    points: list[Json] = []
    email = repetition.component(4).strip()
    first = repetition.component(1).strip()
    if not email and "@" in first:
        email, first = first, ""
    country, area, local = (repetition.component(number).strip() for number in (5, 6, 7))
    number = repetition.component(12).strip()
    if not number and local:
        number = f"+{country.lstrip('+')} {area}{local}" if country else f"{area}{local}"
    number = number or first or repetition.component(9).strip()
    if number:
        extension = repetition.component(8).strip()
        point: Json = {
            "system": _TELECOM_SYSTEM.get(equipment, "phone"),
            "value": f"{number} ext. {extension}" if extension else number,
        }
        chosen = use or ("mobile" if equipment == "CP" else _TELECOM_USE.get(written_use, ""))
        if chosen:
            point["use"] = chosen
        points.append(point)
    if email:
        point = {"system": "email", "value": email}
        if use or written_use in _TELECOM_USE:
            point["use"] = use or _TELECOM_USE[written_use]
        points.append(point)
    return points


def xtn_contact_point(repetition: Repetition, ctx: MappingContext, *, use: str = "") -> Json | None:
    """Return the first ContactPoint of an XTN, or ``None``."""
    points = xtn_contact_points(repetition, ctx, use=use)
    return points[0] if points else None


# --- Codes: CWE, CE, CNE, IS -----------------------------------------------------------------------------------------


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


# --- Places: PL ------------------------------------------------------------------------------------------------------

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
