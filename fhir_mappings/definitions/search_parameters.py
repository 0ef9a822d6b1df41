"""The search parameters of R4 per resource type (https://hl7.org/fhir/R4/searchparameter-registry.html).

A parameter is offered only when its expression can be indexed; the rest is listed by :func:`unsupported` with the
reason, and belongs in no CapabilityStatement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

import msgspec

from fhir_mappings.definitions import paths
from fhir_mappings.definitions.structures import read_data, resource_types
from fhir_mappings.errors import UnsupportedError

#: ``Patient.deceased`` is the one parameter computed from more than a path; extract.py has a rule of its own for it.
DECEASED: Final = "Patient.deceased.exists() and Patient.deceased != false"
#: Parameters that ask for the same rows under another name: names are indexed by sound (pinyin) anyway.
_SAME_ROWS: Final = {"phonetic": "name"}
#: Parameters that are columns of the record itself and have no index rows.
COLUMNS: Final = frozenset({"_id", "_lastUpdated"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchParameter:
    """One search parameter of one resource type.

    Attributes:
        code: the name in a query.
        type: ``token``, ``string``, ``reference``, ``date``, ``number``, ``quantity`` or ``uri``.
        expression: FHIRPath, the part for this resource type.
        targets: types a reference may point at, empty = any.
        definition: canonical URL of the SearchParameter.
        rows: the ``param`` of its index rows; differs from ``code`` only where two parameters share their rows.
    """

    code: str
    type: str
    expression: str
    targets: tuple[str, ...]
    definition: str
    rows: str


@cache
def _file() -> dict[str, msgspec.Raw]:
    return msgspec.json.decode(read_data("search_parameters.json.gz"), type=dict[str, msgspec.Raw])


@cache
def _all(resource_type: str) -> Mapping[str, tuple[SearchParameter, str]]:
    """Return every parameter with the reason why it is not supported (empty when it is)."""
    if resource_type not in resource_types():
        raise UnsupportedError(f"{resource_type} is not a resource type of FHIR R4.", where="resource type")
    found: dict[str, tuple[SearchParameter, str]] = {}
    for base in ("Resource", "DomainResource", resource_type):
        rows: dict[str, tuple[str, str, str, tuple[str, ...]]] = {}
        if base in _file():
            rows = msgspec.json.decode(_file()[base], type=dict[str, tuple[str, str, str, tuple[str, ...]]])
        for code, (identity, kind, expression, targets) in rows.items():
            parameter = SearchParameter(
                code=code,
                type=kind,
                expression=expression.replace("Resource.", f"{resource_type}.") if base == "Resource" else expression,
                targets=targets,
                definition=f"http://hl7.org/fhir/SearchParameter/{identity}",
                rows=_SAME_ROWS.get(code, code),
            )
            found[code] = (parameter, _reason(parameter))
    return found


def _reason(parameter: SearchParameter) -> str:
    if parameter.type in {"composite", "special"}:
        return f"Parameters of type {parameter.type} are not indexed."
    if not parameter.expression:
        return "The standard gives no expression for it."
    if parameter.expression == DECEASED:
        return ""
    try:
        paths.parse(parameter.expression)
    except UnsupportedError as error:
        return error.message
    return ""


@cache
def search_parameters(resource_type: str) -> Mapping[str, SearchParameter]:
    """Return the supported parameters of a type by code, those of every resource (``_id``, ``_tag``, ...) included.

    Raises:
        UnsupportedError: *resource_type* is not a resource type of R4.
    """
    return {code: parameter for code, (parameter, reason) in _all(resource_type).items() if not reason}


@cache
def unsupported(resource_type: str) -> Mapping[str, str]:
    """Return the parameters of R4 that are not supported for a type, with the reason.

    Raises:
        UnsupportedError: *resource_type* is not a resource type of R4.
    """
    return {code: reason for code, (_, reason) in _all(resource_type).items() if reason}
