"""Data types of CDA as FHIR elements: II, CD, TS, PN, AD, TEL, PQ (HL7 Version 3 Data Types, Release 1).

Every function returns ``None`` or an empty value where nothing is said (``nullFlavor``); nothing here fails on what was sent.
"""

from __future__ import annotations

import re
from typing import Any

from fhir_mappings.cda.document import attribute, child, children, text_of, type_of
from fhir_mappings.hl7v2.context import MappingContext
from fhir_mappings.hl7v2.datatypes import dtm_datetime
from fhir_mappings.hl7v2.quantities import nm_value
from fhir_mappings.identifiers import canonical_system, is_uuid
from fhir_mappings.markup import Element
from fhir_mappings.names import human_name

Json = dict[str, Any]

#: Code systems that FHIR calls by a URL of its own (http://hl7.org/fhir/R4/terminologies-systems.html).
_SYSTEMS = {
    "2.16.840.1.113883.6.1": "http://loinc.org",
    "2.16.840.1.113883.6.96": "http://snomed.info/sct",
    "2.16.840.1.113883.6.8": "http://unitsofmeasure.org",
    "2.16.840.1.113883.5.25": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality",
    "2.16.840.1.113883.5.83": "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation",
    "2.16.840.1.113883.5.4": "http://terminology.hl7.org/CodeSystem/v3-ActCode",
}
_OID = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")
#: What stands in a template where there is no value.
_NOTHING = frozenset({"", "-", "--", "/", "无", "N/A"})
#: What systems write where a number, a name, an address or a phone is unknown. A value or a code may be ``NA``: sodium.
_NOBODY = _NOTHING | {"NA", "null", "NULL"}
#: Roots of WS/T 364: they name a kind of number, never one thing by themselves.
WST_364 = "2.16.156.10011.1."


def ii(element: Element | None) -> tuple[str, str] | None:
    """Return (root, extension) of an II, or ``None`` where it names nothing; the extension is empty where the root is unique."""
    root, extension = attribute(element, "root"), attribute(element, "extension")
    if attribute(element, "nullFlavor") or not root or (extension and extension in _NOBODY):
        return None
    if not extension and root.startswith(WST_364):
        return None
    return root, extension


def identifier(root: str, extension: str) -> Json:
    """Return the Identifier of an II (https://hl7.org/fhir/R4/datatypes.html#Identifier); a bare root is the value itself."""
    if extension:
        return {"system": system(root), "value": extension}
    value = f"urn:uuid:{root.lower()}" if is_uuid(root) else f"urn:oid:{root}" if _OID.fullmatch(root) else root
    return {"system": "urn:ietf:rfc:3986", "value": value}


def system(root: str) -> str:
    """Return the URI of an II.root or CD.codeSystem."""
    if is_uuid(root):
        return f"urn:uuid:{root.lower()}"
    return _SYSTEMS.get(root) or canonical_system(root)


def coding(element: Element | None, ctx: MappingContext) -> Json | None:
    """Return the Coding of a CD, CE or CV; a code without a code system is the sender's own."""
    code = attribute(element, "code")
    if attribute(element, "nullFlavor") or code in _NOTHING:
        return None
    root = attribute(element, "codeSystem")
    made: Json = {"system": system(root) if root else ctx.code_system("")}
    if version := attribute(element, "codeSystemVersion"):
        made["version"] = version
    made["code"] = " ".join(code.split())
    if display := attribute(element, "displayName"):
        made["display"] = display
    return made


def concept(element: Element | None, ctx: MappingContext) -> Json | None:
    """Return the CodeableConcept of a CD with its translations, or of its words alone."""
    if element is None:
        return None
    codings = [made for one in (element, *children(element, "translation")) if (made := coding(one, ctx))]
    found: Json = {"coding": codings} if codings else {}
    text = text_of(child(element, "originalText")) or ("" if codings else attribute(element, "displayName"))
    if text:
        found["text"] = text
    return found or None


def moment(element: Element | None, ctx: MappingContext) -> str | None:
    """Return the dateTime of a TS, or of the beginning of an IVL_TS; without an offset it is in the sender's zone."""
    value = attribute(element, "value") or attribute(child(element, "low"), "value")
    return dtm_datetime(value, ctx) if value else None


def period(element: Element | None, ctx: MappingContext) -> Json | None:
    """Return the Period of an IVL_TS; of a moment alone only its start is known."""
    start, end = moment(element, ctx), moment(child(element, "high"), ctx)
    made = {**({"start": start} if start else {}), **({"end": end} if end else {})}
    return made or None


def name(element: Element | None) -> Json | None:
    """Return the HumanName of a PN: its parts where there are any, else its text as a whole."""
    if element is None or attribute(element, "nullFlavor"):
        return None
    family = text_of(child(element, "family"))
    given = [text_of(one) for one in children(element, "given")]
    if family or given:
        return human_name(family=family, given=given, prefix=text_of(child(element, "prefix")))
    written = text_of(element)
    return None if written in _NOBODY else human_name(text=written)


def address(element: Element) -> Json | None:
    """Return the Address of an AD; the parts of a Chinese address are written from the largest to the smallest."""
    text = "".join(text_of(one) for one in element.children) or text_of(element)
    if attribute(element, "nullFlavor") or text in _NOBODY:
        return None
    made: Json = {"use": "work" if attribute(element, "use").startswith("WP") else "home", "text": text}
    for part, target in (("state", "state"), ("city", "city"), ("county", "district"), ("postalCode", "postalCode")):
        if value := text_of(child(element, part)):
            made[target] = value
    return made


def telecom(element: Element) -> Json | None:
    """Return the ContactPoint of a TEL; WS/T 500 writes the bare number where the standard has a URL."""
    scheme, colon, number = attribute(element, "value").partition(":")
    value = number if colon else scheme
    if attribute(element, "nullFlavor") or value in _NOBODY:
        return None
    return {"system": "email" if scheme.lower() == "mailto" else "phone", "value": value}


def quantity(element: Element) -> Json | None:
    """Return the Quantity of a PQ, every digit kept; a unit in Chinese is no UCUM code."""
    number, unit = nm_value(attribute(element, "value")), attribute(element, "unit")
    if number is None:
        return None
    made: Json = {"value": number}
    if unit and unit != "1":
        made["unit"] = unit
        if unit.isascii():
            made |= {"system": "http://unitsofmeasure.org", "code": unit}
    return made


def value(element: Element, ctx: MappingContext) -> Json | None:
    """Return ``{"value[x]": ...}`` of an observation's value by its data type; an unreadable one stays text."""
    made: tuple[str, Any]
    match type_of(element) or ("PQ" if attribute(element, "unit") else ""):
        case "PQ":
            made = "valueQuantity", quantity(element)
        case "CD" | "CE" | "CV" | "CS" | "CO":
            made = "valueCodeableConcept", concept(element, ctx)
        case "TS":
            made = "valueDateTime", moment(element, ctx)
        case "BL":
            made = "valueBoolean", {"true": True, "false": False}.get(attribute(element, "value"))
        case "MO":
            # The currency is written in words, and FHIR wants a code of ISO 4217; so an amount stays text.
            made = "valueString", " ".join(attribute(element, one) for one in ("value", "currency")).strip() or None
        case "INT" | "REAL":
            made = "valueDecimal", nm_value(attribute(element, "value"))
        case _:
            made = "valueString", None
    if made[1] is not None:
        return {made[0]: made[1]}
    written = in_words(element)
    # 特殊情况：无 says that there was nothing special; as a code, a number or a name the same word says nothing.
    return None if written in _NOTHING - {"无"} else {"valueString": written}


def is_media(element: Element) -> bool:
    """Return whether *element* is an ED that carries bytes in Base64."""
    return attribute(element, "representation") == "B64"


def in_words(element: Element) -> str:
    """Return a value in words: its text, its name, its number, or its two ends; empty where it says nothing."""
    plain = text_of(element) or attribute(element, "displayName") or attribute(element, "value")
    if plain:
        return plain
    low, high = child(element, "low"), child(element, "high")
    numbers = [attribute(one, "value") for one in (low, high)]
    # Apart from its number, as in 3.5 10*9/L; a unit that both ends share stands once.
    units = dict.fromkeys(unit for one in (low, high) if (unit := attribute(one, "unit")))
    if len(units) > 1:
        numbers = [
            f"{number} {attribute(one, 'unit')}".strip() for number, one in zip(numbers, (low, high), strict=True)
        ]
        units = {}
    return " ".join(["–".join(numbers), *units]) if any(numbers) else ""


def shown(made: Json) -> str:
    """Return a value of :func:`value` in words, for a narrative."""
    kind, content = next(iter(made.items()))
    if kind == "valueQuantity":
        return f"{content['value']} {content.get('unit', '')}".strip()
    if kind == "valueCodeableConcept":
        return label(content)
    if kind == "valueBoolean":
        return "是" if content else "否"
    return str(content)


def label(made: Json) -> str:
    """Return a CodeableConcept in words."""
    codings = made.get("coding", [])
    return str(made.get("text") or next((one["display"] for one in codings if "display" in one), "")) or str(
        codings[0]["code"] if codings else ""
    )
