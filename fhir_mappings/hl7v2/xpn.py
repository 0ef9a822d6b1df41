"""XPN as FHIR HumanName, XCN and NDL as Practitioner: HL7 v2 chapter 2A, v2-to-FHIR maps XPN[HumanName], XCN[Practitioner].

Every function returns ``None`` where the value is absent; nothing here fails on what a sender wrote.
"""

from __future__ import annotations

from typing import Any

from fhir_mappings.hl7v2.context import MappingContext
from fhir_mappings.hl7v2.cx import kind_concept
from fhir_mappings.hl7v2.tokenizer import Repetition
from fhir_mappings.names import Representation, human_name
from fhir_mappings.text import has_han

Json = dict[str, Any]

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
    if ctx.dialect.name_form == "whole-or-pinyin" and family and given and has_han(given) != has_han(family):
        # Nobody has a family name in one script and a given name in the other: it is one name, written twice.
        in_han, in_latin = (given, family) if has_han(given) else (family, given)
        han = human_name(text=in_han, use=use, representation="IDE")
        pinyin = human_name(text=in_latin, use=use, representation="ABC")
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
        "identifier": [{"type": kind_concept("practitioner", ""), "system": system, "value": code}],
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
