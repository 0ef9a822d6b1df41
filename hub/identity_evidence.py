"""What suggests that two Patients are one person: strong identifiers that agree, with what must agree beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fhir_mappings.identifiers import HEALTH_CARD, RESIDENT_ID, canonical_system, check_resident_id
from fhir_mappings.text import fold, full_pinyin, has_han


def strong(patient: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (system, value) of the identifiers of *patient* that may suggest a link."""
    found = []
    for one in patient.get("identifier", ()):
        system, value = canonical_system(str(one.get("system", ""))), str(one.get("value", "")).strip()
        if (system == RESIDENT_ID and check_resident_id(value).status == "ok") or (system == HEALTH_CARD and value):
            found.append((system, value))
    return found


def spellings(system: str, value: str) -> list[str]:
    """Return the ways in which the same number may be stored: with X or x, with 18 digits or the 15 of before 1999."""
    if system != RESIDENT_ID:
        return [value]
    number = check_resident_id(value).value
    old = [f"{number[:6]}{number[8:17]}"] if number[6:8] == "19" else []
    return list(dict.fromkeys([value, number, number.lower(), *old]))


def agree(system: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return what suggests that two Patients with the same identifier of *system* are one person; empty where nothing does."""
    born, also = one.get("birthDate"), other.get("birthDate")
    if system == HEALTH_CARD:
        return "" if born and also and born != also else "health-card"
    return "resident-id" if born and born == also and names(one) & names(other) else ""


def names(patient: Mapping[str, Any]) -> frozenset[str]:
    """Return how the names of *patient* may be written: folded, in pinyin, with their parts in either order."""
    ways: set[str] = set()
    for name in patient.get("name", ()):
        given = "".join(str(one) for one in name.get("given", ()) if one)
        family = str(name.get("family", ""))
        for text in (str(name.get("text", "")), family + given, given + family):
            whole = fold(re.sub(r"[\s^=,·]+", "", text))
            if whole:
                ways |= {whole, full_pinyin(whole)} if has_han(whole) else {whole}
    return frozenset(ways)


def replaced(patient: Mapping[str, Any]) -> bool:
    """Return whether *patient* was merged into another one."""
    return any(one.get("type") == "replaced-by" for one in patient.get("link", ()))
