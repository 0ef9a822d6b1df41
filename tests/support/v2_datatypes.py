"""What each component of a data type reaches in FHIR: the twin of :mod:`tests.support.v2_reach` for HL7 v2 chapter 2A."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache

from tests.fhir_mappings.hl7v2.golden import context
from tests.support.v2_reach import EVERY_FIELD, translated

#: Data type map -> (message, segment, field, where its elements stand, values that hold every component between them).
CARRIERS: Mapping[str, tuple[str, str, int, str, tuple[str, ...]]] = {
    "CX[Identifier]": (
        *("adt_a01", "PID", 3, "Patient.identifier"),
        ("H1^1^M11^YLYY&1.2.3&ISO^HC^县医院^20200101^20300101^JUR^AG", "600123^^^院内&1.2.3&ISO^MR"),
    ),
    "XPN[HumanName]": (
        *("adt_a01", "PID", 5, "Patient.name"),
        ("欧阳&von&欧&阳&x^明月^中^Jr^Dr^PhD^L^A^上下文^20200101^G^20200101^20300101^教授^小名",),
    ),
    "XAD[Address]": (
        *("adt_a01", "PID", 11, "Patient.address"),
        (
            "健康路9号&健康路&9^2栋^云岭市^云南^990001^CHN^H^附近^示范区^T1^A^20200101&20300101^20200101^20300101^^^^^转交",
            "健康路9号^^云岭市^^990001^CHN^M",
        ),
    ),
    "XTN[ContactPoint]": (
        *("adt_a01", "PID", 13, "Patient.telecom"),
        (
            "^PRN^FX^a@b.cn^86^871^1234567^99^文字^+^1^^20200101^20300101^^^^1",
            "08711234567^PRN^PH",
            "^PRN^PH^^^^^^^^^08711234567",
        ),
    ),
    "CWE[CodeableConcept]": (
        *("oru_r01", "OBX", 3, "Observation.code"),
        ("K^血钾^LN^K1^钾^I10^2.1^2.2^原文^K2^钾二^L2^2.3^1.2.3",),
    ),
}


@lru_cache(maxsize=1)
def reach() -> Mapping[tuple[str, int], frozenset[str]]:
    """Return (map, component) -> paths below the carrier's elements; the component is emptied, or another where required."""
    found: dict[tuple[str, int], set[str]] = {}
    for name, (message, segment, number, root, values) in CARRIERS.items():
        lines = (EVERY_FIELD / f"{message}.hl7").read_text("utf-8").split("\n")
        index = next(i for i, line in enumerate(lines) if line.startswith(f"{segment}|"))
        for value in values:
            parts = value.split("^")
            whole = _with(lines, index, number, parts)
            assert whole is not None
            for place in range(len(parts)):
                made = (_with(lines, index, number, [*parts[:place], one, *parts[place + 1 :]]) for one in ("", "Z9"))
                half = next((one for one in made if one is not None), whole)
                paths = {re.sub(r":[^.]*", "", path) for path, _ in (whole - half) + (half - whole)}
                below = {path[len(root) + 1 :] for path in paths if path.startswith(f"{root}.")}
                found.setdefault((name, place + 1), set()).update(below)
    return {key: frozenset(paths) for key, paths in found.items()}


def _with(lines: list[str], index: int, number: int, parts: list[str]) -> Counter[tuple[str, str]] | None:
    cells = lines[index].split("|")
    line = "|".join([*cells[:number], "^".join(parts), *cells[number + 1 :]])
    return translated("\r".join([*lines[:index], line, *lines[index + 1 :]]), context("YL"))
