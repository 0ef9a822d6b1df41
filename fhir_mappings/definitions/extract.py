"""The index rows of a resource, for every supported R4 search parameter (https://hl7.org/fhir/R4/search.html).

The expressions of a type are compiled once into one tree of member names, so a resource is walked once and only along
members that it has and that some parameter wants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from fhir_mappings.definitions import paths
from fhir_mappings.definitions.index_rows import IndexRows, ReferenceRow, TokenRow
from fhir_mappings.definitions.row_writers import Writer, boolean_token, writer_for
from fhir_mappings.definitions.search_parameters import COLUMNS, DECEASED, SearchParameter, search_parameters
from fhir_mappings.definitions.structures import Element, elements, is_type
from fhir_mappings.errors import UnsupportedError

__all__ = ["IndexRows", "extract", "references"]


@dataclass(slots=True)
class _Node:
    """A place in a resource: what is written for a value here, and where the paths go on."""

    writers: list[Writer] = field(default_factory=list)
    members: dict[str, _Node] = field(default_factory=dict)
    #: Paths that go on only where a member equals a literal: ``telecom.where(system='phone')``.
    guarded: list[tuple[str, str, _Node]] = field(default_factory=list)


def extract(resource: Mapping[str, Any]) -> IndexRows:
    """Return the index rows of *resource*, which has passed :func:`fhir_mappings.definitions.check.check`.

    Raises:
        UnsupportedError: ``resourceType`` is not a type of R4.
        MalformedError: a date is not a date.
    """
    resource_type = resource["resourceType"]
    rows = IndexRows()
    _walk(_tree(resource_type), resource, rows)
    if resource_type == "Patient":
        rows.tokens.append(_deceased(resource))
    return IndexRows(
        tokens=list(dict.fromkeys(rows.tokens)),
        strings=list(dict.fromkeys(rows.strings)),
        references=list(dict.fromkeys(rows.references)),
        dates=list(dict.fromkeys(rows.dates)),
        numbers=list(dict.fromkeys(rows.numbers)),
        quantities=list(dict.fromkeys(rows.quantities)),
        uris=list(dict.fromkeys(rows.uris)),
    )


def references(resource: Mapping[str, Any], code: str) -> list[ReferenceRow]:
    """Return the rows of one reference parameter of *resource*.

    Raises:
        KeyError: the type has no such parameter.
    """
    rows = IndexRows()
    _walk(_tree(resource["resourceType"], code), resource, rows)
    return rows.references


def _deceased(resource: Mapping[str, Any]) -> TokenRow:
    dead = "deceasedDateTime" in resource or resource.get("deceasedBoolean") is True
    return boolean_token("deceased", dead)


def _walk(node: _Node, value: Any, rows: IndexRows) -> None:
    # Depth is bounded by the longest search expression, not by the input.
    for write in node.writers:
        write(value, rows)
    for name, child in node.members.items():
        found = value.get(name)
        if found is None:
            continue
        if type(found) is list:
            for item in found:
                if item is not None:
                    _walk(child, item, rows)
        else:
            _walk(child, found, rows)
    for name, literal, child in node.guarded:
        if value.get(name) == literal:
            _walk(child, value, rows)


@cache
def _tree(resource_type: str, only: str = "") -> _Node:
    root = _Node()
    parameters = search_parameters(resource_type)
    for parameter in (parameters[only],) if only else parameters.values():
        if parameter.code in COLUMNS or parameter.expression == DECEASED or parameter.rows != parameter.code:
            continue
        for path in paths.parse(parameter.expression):
            _graft(root, resource_type, path, parameter)
    return root


def _graft(root: _Node, resource_type: str, path: paths.Path, parameter: SearchParameter) -> None:
    """Add one path of a parameter to the tree."""
    # Several places at once: a choice goes on under one JSON name per type.
    places: list[tuple[_Node, str, Element | None]] = [(root, resource_type, None)]
    resolves_to = ""
    for step in path.steps:
        if isinstance(step, paths.Member):
            places = [after for place in places for after in _member(place, step.name)]
            if not places:
                raise UnsupportedError(f"{parameter.definition}: {step.name} is not an element.", where="expression")
        elif isinstance(step, paths.OfType):
            places = [place for place in places if place[1] == step.type]
        elif isinstance(step, paths.ResolvesTo):
            resolves_to = step.type
        else:
            places = [(_guard(node, step), type_name, element) for node, type_name, element in places]
    for node, _, element in places:
        if element is not None and (writer := writer_for(parameter, element, resolves_to)) is not None:
            node.writers.append(writer)


def _member(place: tuple[_Node, str, Element | None], name: str) -> list[tuple[_Node, str, Element | None]]:
    node, type_name, _ = place
    if not is_type(type_name):
        return []
    return [
        (node.members.setdefault(element.name, _Node()), element.type, element)
        for element in elements(type_name).values()
        if name in (element.name, element.choice.removesuffix("[x]"))
    ]


def _guard(node: _Node, step: paths.WhereEquals) -> _Node:
    for name, literal, child in node.guarded:
        if (name, literal) == (step.name, step.literal):
            return child
    child = _Node()
    node.guarded.append((step.name, step.literal, child))
    return child
