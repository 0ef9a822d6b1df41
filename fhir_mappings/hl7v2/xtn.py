"""XTN as FHIR ContactPoint and XAD as Address: HL7 v2 chapter 2A, v2-to-FHIR maps XTN[ContactPoint], XAD[Address].

Every function returns ``None`` or nothing where the value is absent; nothing here fails on what a sender wrote.
"""

from __future__ import annotations

from typing import Any

from fhir_mappings.hl7v2.context import MappingContext
from fhir_mappings.hl7v2.tokenizer import Repetition
from fhir_mappings.text import has_han

Json = dict[str, Any]

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
