"""``$validate`` (https://hl7.org/fhir/R4/resource-operation-validate.html): our structural check, then the R4B models.

R4B is R4 in all but a few types that R4 has under other names; those are judged by the structural check alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from fhir_mappings.definitions.check import Issue, check
from fhir_mappings.definitions.structures import resource_types

#: The model library reads a whole resource recursively; more findings help nobody.
MAX_FINDINGS = 50


def validate(resource: Mapping[str, Any], type: str | None) -> list[Issue]:
    """Return what is wrong with *resource*, without repeating its values; empty when it is valid."""
    findings = check(resource, resource_type=type)
    if findings:
        return findings
    return _by_model(resource)


def _by_model(resource: Mapping[str, Any]) -> list[Issue]:
    from fhir.resources.R4B import get_fhir_model_class

    name = resource["resourceType"]
    try:
        model = get_fhir_model_class(name)
    except (KeyError, LookupError, ImportError):
        known = name in resource_types()
        return (
            [
                Issue(
                    severity="information",
                    code="not-supported",
                    expression=name,
                    diagnostics="Checked structurally only.",
                )
            ]
            if known
            else []
        )
    try:
        model.model_validate(resource)
    except ValidationError as error:
        found = []
        for one in error.errors(include_url=False, include_context=False, include_input=False)[:MAX_FINDINGS]:
            place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in one["loc"])
            found.append(
                Issue(
                    severity="error",
                    code="invalid",
                    expression=f"{name}{place}",
                    diagnostics=f"The R4B model refuses this element ({one['type']}).",
                )
            )
        return found
    return []
