"""What an identifier asks to have returned, sequences and all (PS3.4 sections C.2.2.1.3 and K.2.2.1.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]


def selected(made: Mapping[str, Json], wanted: Mapping[str, Json]) -> Json:
    """Return of *made* what is wanted; an empty sequence, or an empty item, asks for all of it."""
    found: Json = {}
    for tag, asked in wanted.items():
        element = made.get(tag)
        if element is None:
            continue
        inner = (
            next((one for one in asked.get("Value") or () if isinstance(one, dict)), {})
            if asked.get("vr") == "SQ"
            else {}
        )
        if inner and element["vr"] == "SQ":
            element = {"vr": "SQ", "Value": [selected(one, inner) for one in element.get("Value") or ()]}
        found[tag] = element
    return found


def supported(wanted: Mapping[str, Json], known: Mapping[str, Any]) -> bool:
    """Return whether *known*, an answer that has everything, has all of *wanted*."""
    for tag, asked in wanted.items():
        if tag not in known:
            return False
        if asked.get("vr") == "SQ" and known[tag].get("Value"):
            inner = [one for one in asked.get("Value") or () if isinstance(one, dict)]
            if not all(supported(one, known[tag]["Value"][0]) for one in inner):
                return False
    return True
