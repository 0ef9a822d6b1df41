"""FHIR elements as HL7 v2 fields in the words of one receiver: PID, CX, XPN, CE, NDL, XCN and times."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

from fhir_mappings.hl7v2.builder import ComponentValue, FieldValue, Repeat, RepetitionValue
from fhir_mappings.hl7v2.outbound.target import OutboundTarget
from fhir_mappings.identifiers import HEALTH_CARD, INSURANCE_CARD, RESIDENT_ID
from fhir_mappings.text import has_han

Json = Mapping[str, Any]

#: Kind of number -> CX.5, the Chinese word first and table 0203 second; inpatient and outpatient numbers have no code there.
_CX_TYPES = {
    "patient-id": ("IDCard", "PI"),
    "inpatient-no": ("PatientNO", "PatientNO"),
    "outpatient-no": ("Outpatient", "Outpatient"),
    "visit": ("", "VN"),
    "resident-id": ("IdentifyNO", "NI"),
    "health-card": ("HealthCard", "HC"),
    "insurance-card": ("SSCard", "SS"),
}
_NATIONAL = {RESIDENT_ID: "resident-id", HEALTH_CARD: "health-card", INSURANCE_CARD: "insurance-card"}
_LEAP_SECOND = re.compile(r"(T[0-9]{2}:[0-9]{2}):60")
_SEX = {"male": "M", "female": "F", "other": "O", "unknown": "U"}


def time(value: str | None, target: OutboundTarget) -> str:
    """Return a FHIR date, dateTime or instant as DTM in the receiver's time zone.

    An offset is written only where the moment would be lost without it: in the hour that a zone has twice, and where the
    receiver's calendar ends.
    """
    if not value:
        return ""
    if "T" not in value:
        return value.replace("-", "")
    # FHIR allows the leap second, which datetime does not know (https://hl7.org/fhir/R4/datatypes.html#dateTime).
    moment = datetime.fromisoformat(_LEAP_SECOND.sub(r"\1:59", value))
    try:
        local = moment.astimezone(target.dialect.zone)
    except OverflowError:
        return _digits(moment) + moment.strftime("%z")
    twice = local.replace(fold=0).utcoffset() != local.replace(fold=1).utcoffset()
    return _digits(local) + (local.strftime("%z")[:5] if twice else "")


def _digits(moment: datetime) -> str:
    # strftime writes years before 1000 with fewer digits on some systems.
    return f"{moment.year:04}{moment.strftime('%m%d%H%M%S')}"


def nm(value: Any) -> str:
    """Return NM: the digits as they are: 6.90 does not become 6.9, and no exponent that NM forbids."""
    if isinstance(value, Decimal):
        return format(value, "f")
    return "" if value is None else str(value)


def date(value: str | None) -> str:
    """Return a FHIR date as DT."""
    return (value or "")[:10].replace("-", "")


def _domain(system: str, target: OutboundTarget) -> tuple[str, str]:
    """(owner, kind) of one of our identifier systems; national numbers have no owner."""
    if system in _NATIONAL:
        return "", _NATIONAL[system]
    prefix = f"{target.base}/NamingSystem/"
    if not system.startswith(prefix):
        return "?", ""
    owner, _, kind = system[len(prefix) :].partition("/")
    return owner, kind


def owner_of(system: str, target: OutboundTarget) -> str | None:
    """Return the institution whose numbers stand under *system*; ``None`` for a system that is none of the hub's."""
    owner, kind = _domain(system, target)
    return owner if owner and kind else None


def number(identifiers: Sequence[Json], kind: str, target: OutboundTarget) -> str:
    """Return the number of *kind* that the receiver itself gave out; empty when there is none."""
    for identifier in identifiers:
        if _domain(str(identifier.get("system", "")), target) == (target.institution, kind):
            return str(identifier.get("value", ""))
    return ""


def typed_number(identifiers: Sequence[Json], code: str) -> str:
    """Return the number whose type has *code* of table 0203 (PLAC, FILL, ACSN), whoever gave it out."""
    for identifier in identifiers:
        if any(coding.get("code") == code for coding in identifier.get("type", {}).get("coding", [])):
            return str(identifier.get("value", ""))
    return ""


def placer_number(request: Json | None, target: OutboundTarget, kind: str = "placer-order") -> str:
    """Return the receiver's own number of the order, else the placer's number as it stands."""
    found = request.get("identifier", []) if request else []
    return number(found, kind, target) or typed_number(found, "PLAC")


def filler_number(resource: Json, request: Json | None) -> str:
    """Return the filler's number of a report or order; the resource id where nobody gave one."""
    for source in (resource, request or {}):
        found = typed_number(source.get("identifier", []), "FILL")
        if found:
            return found
    return str(resource["id"])


def numbers(
    patient: Json, target: OutboundTarget, *, every: bool = False, old: bool = False, national: bool = True
) -> list[RepetitionValue]:
    """Return CX of the numbers of *patient*, never one of another institution without its owner in CX.4.

    Numbers that another institution gave out go along only where the receiver has none of its own, or where *every*
    number is asked for: ``10086`` of one hospital must never be read as ``10086`` of the other. Where nobody gave one
    out, the hub's own id stands for the patient, under the hub's name.

    Args:
        every: the receiver's own numbers and those of others, where a message is about the others.
        old: also numbers that are no longer in use.
        national: also the numbers that mean the same everywhere.
    """
    own: list[RepetitionValue] = []
    foreign: list[RepetitionValue] = []
    shared: list[RepetitionValue] = []
    for identifier in patient.get("identifier", []):
        owner, kind = _domain(str(identifier.get("system", "")), target)
        namespace, _, kind = kind.rpartition("/")
        if (identifier.get("use") == "old" and not old) or kind not in _CX_TYPES or not identifier.get("value"):
            continue
        value, written = str(identifier["value"]), _CX_TYPES[kind][0 if _chinese(target) else 1]
        if not owner:
            shared.append([value, "", "", "", written])
        elif owner == target.institution:
            # A namespace stands in the system of a number only where the receiver wrote it in CX.4 itself.
            own.append([value, "", "", unquote(namespace), written])
        elif not namespace:
            foreign.append([value, "", "", owner, written])
    mine = own + foreign if every else own or foreign
    if not mine and patient.get("id"):
        mine = [[str(patient["id"]), "", "", target.sending_application, "PI"]]
    return mine + shared if national else mine


def _chinese(target: OutboundTarget) -> bool:
    return target.dialect.cx_types.get("IDCard") == "patient-id"


def pid(patient: Json, target: OutboundTarget, *, every: bool = False) -> dict[int, FieldValue]:
    """Return PID with the numbers that the receiver knows the patient by; *every* as in :func:`numbers`.

    Address and telephone stay behind; the receiver has its own.
    """
    fields: dict[int, FieldValue] = {
        1: "1",
        3: Repeat(numbers(patient, target, every=every)),
        5: name(patient.get("name", []), target),
        7: date(patient.get("birthDate")),
        8: _SEX.get(str(patient.get("gender", "")), "U"),
    }
    if _chinese(target):
        fields[2] = number(patient.get("identifier", []), "patient-id", target)
    return fields


def name(names: Sequence[Json], target: OutboundTarget) -> FieldValue:
    """Return XPN: the Chinese name in one piece, or family and given where FHIR has them apart."""
    current = [item for item in names if item.get("use") != "old"] or list(names)
    if not current:
        return None
    chosen = next((item for item in current if has_han(str(item.get("text", "")))), current[0])
    text = str(chosen.get("text", ""))
    if target.dialect.name_form == "whole-or-pinyin" or has_han(text) or not chosen.get("family"):
        return text or str(chosen.get("family", ""))
    return [str(chosen["family"]), *(str(item) for item in chosen.get("given", [])[:2])]


def concept(value: Json | None, target: OutboundTarget) -> FieldValue:
    """Return CE: code, text, system; a standard code and a local one side by side as CE allows.

    Where it is CWE, what was written stands in CWE.9 if no code says just that.
    """
    if not value:
        return None
    components: list[ComponentValue] = []
    text = str(value.get("text", ""))
    for coding in value.get("coding", [])[:2]:
        components += [
            str(coding.get("code", "")),
            str(coding.get("display", "") or text),
            code_system(str(coding.get("system", "")), target),
        ]
    if target.has_cwe and components and text and text not in components:
        components += [""] * (8 - len(components)) + [text]
    return components or ["", text]


def code_system(system: str, target: OutboundTarget) -> str:
    """Return CE.3 for a code system URI: the receiver's word for it, ``L`` for its own codes."""
    prefix = f"{target.base}/CodeSystem/"
    if system.startswith(prefix):
        owner, _, slug = system[len(prefix) :].partition("/")
        if owner == target.institution:
            return "L" if slug == "local" else slug
        # Somebody else's local code: table 0396 writes such tables as 99 and a name.
        return f"99{owner}"[:20]
    for written, uri in target.dialect.code_systems.items():
        if uri == system:
            return written
    tail = system.rpartition("/")[2]
    return f"HL7{tail[3:]}" if tail.startswith("v2-") else tail[:20]


def person(reference: Json | None, practitioners: Mapping[str, Json]) -> tuple[str, str]:
    """(number, name) of the Practitioner a reference names; the display where the resource is not at hand."""
    if not reference:
        return "", ""
    resource = practitioners.get(str(reference.get("reference", "")), {})
    numbers = [item for item in resource.get("identifier", []) if item.get("system") not in _NATIONAL]
    code = str(numbers[0].get("value", "")) if numbers else str(reference.get("identifier", {}).get("value", ""))
    names = resource.get("name", [])
    text = str(names[0].get("text", "")) if names else str(reference.get("display", ""))
    return code, text


def ndl(reference: Json | None, practitioners: Mapping[str, Json]) -> RepetitionValue | None:
    """Return NDL (OBR-32 to OBR-35): number and name as subcomponents of the first component."""
    code, text = person(reference, practitioners)
    return [[code, text]] if code or text else None


def xcn(reference: Json | None, practitioners: Mapping[str, Json]) -> RepetitionValue | None:
    """Return XCN: number and name."""
    code, text = person(reference, practitioners)
    return [code, text] if code or text else None
