"""The patient a resource belongs to (https://hl7.org/fhir/R4/compartmentdefinition-patient.html)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec

from fhir_mappings.definitions.extract import references
from fhir_mappings.definitions.search_parameters import search_parameters
from fhir_mappings.definitions.structures import read_data

#: Where a type has several links to patients, the ones that say whose record it is come first.
_SUBJECT_FIRST = ("patient", "subject", "beneficiary", "individual", "policy-holder")


@cache
def _file() -> Mapping[str, tuple[str, ...]]:
    return msgspec.json.decode(read_data("patient_compartment.json.gz"), type=dict[str, tuple[str, ...]])


@cache
def patient_parameters(resource_type: str) -> tuple[str, ...]:
    """Return the search parameters that put a resource of this type into a patient's compartment, subject first."""
    known = search_parameters(resource_type)
    listed = [code for code in _file().get(resource_type, ()) if code in known]
    return tuple(sorted(listed, key=lambda code: _SUBJECT_FIRST.index(code) if code in _SUBJECT_FIRST else 99))


def patients_of(resource: Mapping[str, Any]) -> tuple[str, ...]:
    """Return ``Patient/<id>`` of every patient whose compartment holds *resource*, the subject first."""
    resource_type = resource["resourceType"]
    if resource_type == "Patient":
        return (f"Patient/{resource['id']}",) if resource.get("id") else ()
    found: dict[str, None] = {}
    for code in patient_parameters(resource_type):
        for row in references(resource, code):
            if row.target_type == "Patient" and row.target_id and not row.url:
                found[f"Patient/{row.target_id}"] = None
    return tuple(found)


def patient_of(resource: Mapping[str, Any]) -> str | None:
    """Return ``Patient/<id>`` of the patient whose record *resource* is part of, or ``None``.

    A Patient is its own. Where the standard names several links (a performer may be a patient too), the subject wins.
    """
    return next(iter(patients_of(resource)), None)
