"""ConceptMaps of the sample consortium's members."""

from __future__ import annotations

from typing import Any

LOINC = "http://loinc.org"
UCUM = "http://unitsofmeasure.org"
SEX = "http://hl7.org/fhir/administrative-gender"


def local(member: str, name: str = "local") -> str:
    """Return the URI of a code system of *member*; ``table/unit`` and the like are names too."""
    return f"https://yixiehub.example/fhir/CodeSystem/{member}/{name}"


def concept_map(id_: str, source: str, target: str, **elements: str) -> dict[str, Any]:
    """Return an active ConceptMap of *elements*, each equivalent to its target."""
    return {
        "resourceType": "ConceptMap",
        "id": id_,
        "status": "active",
        "group": [
            {
                "source": source,
                "target": target,
                "element": [
                    {"code": code, "target": [{"code": to, "equivalence": "equivalent"}]}
                    for code, to in elements.items()
                ],
            }
        ],
    }
