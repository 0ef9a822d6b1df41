"""Random resources that R4 allows, built from the distilled definitions."""

from __future__ import annotations

import random
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from fhir_mappings.definitions.structures import PRIMITIVES, Element, elements, resource_types, value_set

SAMPLES: dict[str, Any] = {
    "base64Binary": "AAEC",
    "boolean": True,
    "canonical": "http://x.example/c",
    "code": "zh",
    "date": "2025-06-11",
    "dateTime": "2025-06-11T09:30:00+08:00",
    "decimal": Decimal("6.90"),
    "id": "a-1",
    "instant": "2025-06-11T09:30:00Z",
    "integer": 3,
    "markdown": "文",
    "oid": "urn:oid:1.2.3",
    "positiveInt": 2,
    "string": "康宁",
    "time": "09:30:00",
    "unsignedInt": 0,
    "uri": "urn:x:1",
    "url": "https://x.example/",
    "uuid": "urn:uuid:8e1f0000-0000-4000-8000-000000000001",
    "xhtml": '<div xmlns="http://www.w3.org/1999/xhtml">文</div>',
}
#: Left out: they nest without end, or hold whole resources.
SKIPPED = {"contained", "extension", "modifierExtension"}
#: Open value sets of codes.
OPEN = {"currencies": "CNY", "mimetypes": "text/plain"}


def generate(type_name: str, rng: random.Random, *, depth: int = 3, fullness: float = 0.3) -> dict[str, Any]:
    """Return a value of *type_name*: what is mandatory, and other elements with probability *fullness*."""
    if type_name == "Extension":
        return {"url": "urn:x:e", "valueString": "x"}
    found: dict[str, Any] = {"resourceType": type_name} if type_name in resource_types() else {}
    chosen: set[str] = set()
    listed = list(elements(type_name).values())
    rng.shuffle(listed)
    for element in listed:
        if element.name in SKIPPED or element.type == "Resource" or (element.choice and element.choice in chosen):
            continue
        if element.choice and element.type == "Meta":
            # R4 lists Meta among the open types; the R4B models leave it out.
            continue
        if not element.min and (depth <= 0 or rng.random() > fullness):
            continue
        chosen.add(element.choice)
        value = _value(element, rng, depth - 1, fullness)
        found[element.name] = [value] if element.many else value
    return found or {"id": "e1"}


def _value(element: Element, rng: random.Random, depth: int, fullness: float) -> Any:
    codes = value_set(element.value_set) if element.value_set else None
    if element.name == "id":
        return "a-1"
    if element.type in PRIMITIVES:
        if codes:
            return rng.choice(sorted(set().union(*codes.values())))
        return OPEN.get(element.value_set, SAMPLES[element.type])
    if element.type == "Reference":
        return {"reference": f"{rng.choice(element.targets or ('Patient',))}/a1"}
    if codes and element.type in {"Coding", "CodeableConcept"}:
        system = rng.choice(sorted(codes))
        coding = {"system": system, "code": rng.choice(sorted(codes[system]))}
        return coding if element.type == "Coding" else {"coding": [coding]}
    return generate(element.type, rng, depth=depth, fullness=fullness)


@pytest.fixture
def make_resource() -> Callable[..., dict[str, Any]]:
    """Return the generator: ``make_resource(type_name, rng, depth=3, fullness=0.3)``."""
    return generate
