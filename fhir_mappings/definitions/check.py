"""The structural check of a FHIR resource in JSON (https://hl7.org/fhir/R4/json.html, .../validation.html).

It proves: known elements, types, cardinality, one type per choice, required bindings, the form of references, ``_name``
siblings, contained resources, and a few invariants of the datatypes. It does not evaluate profiles or terminology beyond
required bindings. Each type is compiled once; findings never repeat values of the resource.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from fhir_mappings.definitions.invariants import INVARIANTS
from fhir_mappings.definitions.primitives import TESTS
from fhir_mappings.definitions.structures import PRIMITIVES, Element, elements, resource_types, value_set

#: Deeper nesting is refused; the scanner in front of the parser has the same limit.
MAX_DEPTH: Final = 64
#: A resource with more findings is not worth the list.
MAX_ISSUES: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """One finding: OperationOutcome severity and issue-type, where (FHIRPath), and what is wrong without the value."""

    severity: str
    code: str
    expression: str
    diagnostics: str


#: A place: the parent place, the element name, the index in an array or -1. Spelled out only for a finding.
_Place = tuple[Any, str, int] | None


class _EnoughError(Exception):
    """Raised inside the walk when the list of findings is full."""


@dataclass(slots=True)
class _Walk:
    """What one check carries along."""

    root: str
    conditional_references: bool
    issues: list[Issue] = field(default_factory=list)
    depth: int = 0
    #: Ids of the contained resources of the resource being walked, and whether it is itself contained.
    contained: frozenset[str] = frozenset()
    inside_contained: bool = False

    def add(self, code: str, place: _Place, diagnostics: str) -> None:
        """Note an error; stops the walk when there are too many."""
        if len(self.issues) >= MAX_ISSUES:
            raise _EnoughError
        self.issues.append(
            Issue(severity="error", code=code, expression=_spell(self.root, place), diagnostics=diagnostics)
        )


_Rule = Callable[[Any, Mapping[str, Any], _Place, _Walk], None]


@dataclass(slots=True)
class _Plan:
    """A compiled type."""

    type: str
    rules: dict[str, _Rule] = field(default_factory=dict)
    #: JSON name -> name in the path, whether it is primitive and an array; for ``_name`` siblings.
    primitives: dict[str, tuple[str, bool]] = field(default_factory=dict)
    #: For each mandatory element: its path name and the JSON names that satisfy it.
    mandatory: list[tuple[str, frozenset[str]]] = field(default_factory=list)
    choices: list[tuple[str, frozenset[str]]] = field(default_factory=list)


def check(
    resource: Mapping[str, Any], *, resource_type: str | None = None, conditional_references: bool = False
) -> list[Issue]:
    """Return what is wrong with *resource*; an empty list means it is structurally valid R4.

    Args:
        resource: the decoded JSON, decimals as ``Decimal`` (:func:`fhir_mappings.json.loads`).
        resource_type: the type the caller expects.
        conditional_references: accept ``Patient?identifier=...`` as a reference, as a transaction may hold.
    """
    if not isinstance(resource, dict):
        return [Issue(severity="error", code="structure", expression="", diagnostics="A resource is a JSON object.")]
    found = resource.get("resourceType")
    walk = _Walk(
        root=found if isinstance(found, str) and found in resource_types() else "Resource",
        conditional_references=conditional_references,
    )
    if resource_type is not None and found != resource_type:
        walk.add("invalid", None, f"Expected a {resource_type}.")
        return walk.issues
    try:
        _resource(resource, None, walk)
    except _EnoughError:
        walk.issues.append(
            Issue(
                severity="error",
                code="too-costly",
                expression=walk.root,
                diagnostics=f"More than {MAX_ISSUES} findings; the rest is not listed.",
            )
        )
    return walk.issues


def _spell(root: str, place: _Place) -> str:
    parts: list[str] = []
    while place is not None:
        place, name, index = place
        parts.append(f"{name}[{index}]" if index >= 0 else name)
    return ".".join([root, *reversed(parts)])


def _resource(value: Any, place: _Place, walk: _Walk) -> None:
    if type(value) is not dict:
        walk.add("structure", place, "A resource is a JSON object.")
        return
    name = value.get("resourceType")
    if type(name) is not str or name not in resource_types():
        walk.add("invalid", place, "resourceType is missing or not a resource type of FHIR R4.")
        return
    before = walk.contained
    if not walk.inside_contained:
        listed = value.get("contained")
        walk.contained = (
            frozenset(str(item["id"]) for item in listed if isinstance(item, dict) and "id" in item)
            if isinstance(listed, list)
            else frozenset()
        )
    _object(_plan(name), value, place, walk)
    walk.contained = before


def _object(plan: _Plan, value: Any, place: _Place, walk: _Walk) -> None:
    if type(value) is not dict:
        walk.add("structure", place, "Expected a JSON object.")
        return
    if not value:
        walk.add("structure", place, "An object may not be empty; leave the element out.")
        return
    walk.depth += 1
    if walk.depth > MAX_DEPTH:
        walk.add("too-costly", place, f"The resource nests deeper than {MAX_DEPTH} levels.")
        walk.depth -= 1
        return
    rules = plan.rules
    for name, item in value.items():
        rule = rules.get(name)
        if rule is not None:
            rule(item, value, place, walk)
        else:
            _other(plan, name, item, value, place, walk)
    for shown, names in plan.mandatory:
        if names.isdisjoint(value):
            walk.add("required", (place, shown, -1), f"{plan.type}.{shown} is required.")
    for shown, names in plan.choices:
        if len(names.intersection(value)) > 1:
            walk.add("structure", (place, shown, -1), f"{plan.type}.{shown}[x] may have one type only.")
    invariant = INVARIANTS.get(plan.type)
    if invariant is not None:
        for key, wording in invariant(value):
            walk.add("invariant", place, f"{key}: {wording}")
    walk.depth -= 1


def _other(plan: _Plan, name: str, item: Any, value: Mapping[str, Any], place: _Place, walk: _Walk) -> None:
    """Judge a member that is no element: ``resourceType``, the ``_name`` sibling of a primitive, or unknown."""
    if name == "resourceType" and plan.type in resource_types():
        return
    if name.startswith("_") and name[1:] in plan.primitives:
        shown, many = plan.primitives[name[1:]]
        _sibling(shown, many, item, value.get(name[1:]), place, walk)
        return
    spelled = name if re.fullmatch(r"[A-Za-z_][\w.-]{0,63}", name, re.ASCII) else "(a name that is none)"
    walk.add("structure", place, f"{plan.type} has no element {spelled}.")


def _sibling(shown: str, many: bool, item: Any, beside: Any, place: _Place, walk: _Walk) -> None:
    if not many:
        _object(_plan("Element"), item, (place, shown, -1), walk)
        return
    if type(item) is not list or not item:
        walk.add("structure", (place, shown, -1), "Expected an array, as long as the values beside it.")
        return
    if type(beside) is list and len(beside) != len(item):
        walk.add("structure", (place, shown, -1), "The array of extensions is not as long as the array of values.")
    if all(part is None for part in item):
        walk.add("structure", (place, shown, -1), "An array may not hold nulls alone.")
    for index, part in enumerate(item):
        if part is not None:
            _object(_plan("Element"), part, (place, shown, index), walk)


@cache
def _plan(type_name: str) -> _Plan:
    plan = _Plan(type_name)
    choices: dict[str, set[str]] = {}
    mandatory: dict[str, set[str]] = {}
    for element in elements(type_name).values():
        shown = element.choice.removesuffix("[x]") or element.name
        plan.rules[element.name] = _rule(type_name, element, shown)
        if element.type in PRIMITIVES:
            plan.primitives[element.name] = (shown, element.many)
        names = {element.name, f"_{element.name}"} if element.type in PRIMITIVES else {element.name}
        if element.min:
            mandatory.setdefault(shown, set()).update(names)
        if element.choice:
            choices.setdefault(shown, set()).add(element.name)
    plan.mandatory = [(shown, frozenset(names)) for shown, names in mandatory.items()]
    plan.choices = [(shown, frozenset(names)) for shown, names in choices.items()]
    return plan


def _rule(owner: str, element: Element, shown: str) -> _Rule:
    if element.type in PRIMITIVES:
        # The standard types Resource.id as a string with the rules of an id.
        kind = "id" if element.name == "id" and owner in resource_types() else element.type
        return _primitive_rule(element, kind, shown)
    return _complex_rule(element, shown)


def _primitive_rule(element: Element, kind: str, shown: str) -> _Rule:
    test = TESTS[kind]
    codes = _codes(element) if kind == "code" else None
    name, sibling = element.name, f"_{element.name}"

    def one(value: Any, place: _Place, walk: _Walk, index: int) -> None:
        wrong = test(value)
        if wrong is not None:
            walk.add("value", (place, shown, index), wrong)
        elif codes is not None and value not in codes:
            walk.add("code-invalid", (place, shown, index), _not_in(element.value_set))

    def single(value: Any, _parent: Mapping[str, Any], place: _Place, walk: _Walk) -> None:
        one(value, place, walk, -1)

    def array(value: Any, parent: Mapping[str, Any], place: _Place, walk: _Walk) -> None:
        if type(value) is not list or not value:
            walk.add("structure", (place, shown, -1), f"{name} is an array with at least one value.")
            return
        for index, item in enumerate(value):
            if item is None:
                beside = parent.get(sibling)
                if type(beside) is not list or index >= len(beside) or beside[index] is None:
                    walk.add("structure", (place, shown, index), "A null needs an extension at the same index.")
            else:
                one(item, place, walk, index)

    return array if element.many else single


def _complex_rule(element: Element, shown: str) -> _Rule:
    judge = _judge(element)

    def single(value: Any, _parent: Mapping[str, Any], place: _Place, walk: _Walk) -> None:
        judge(value, (place, shown, -1), walk)

    def array(value: Any, _parent: Mapping[str, Any], place: _Place, walk: _Walk) -> None:
        if type(value) is not list or not value:
            walk.add("structure", (place, shown, -1), f"{element.name} is an array with at least one value.")
            return
        for index, item in enumerate(value):
            judge(item, (place, shown, index), walk)

    return array if element.many else single


def _judge(element: Element) -> Callable[[Any, _Place, _Walk], None]:
    kind = element.type
    if kind == "Resource":
        return _contained if element.name == "contained" else _resource
    if kind == "Reference":
        return lambda value, place, walk: _reference(value, place, walk, element.targets)
    codings = value_set(element.value_set) if element.value_set and kind in {"Coding", "CodeableConcept"} else None
    if codings is not None:
        return lambda value, place, walk: _coded(value, place, walk, element, codings)
    return lambda value, place, walk: _object(_plan(kind), value, place, walk)


def _contained(value: Any, place: _Place, walk: _Walk) -> None:
    if walk.inside_contained:
        walk.add("structure", place, "A contained resource may not contain others.")
        return
    walk.inside_contained = True
    _resource(value, place, walk)
    walk.inside_contained = False
    if type(value) is dict and "id" not in value:
        walk.add("required", place, "A contained resource needs an id.")


_REFERENCE: Final = re.compile(r"([A-Za-z]+)/[A-Za-z0-9\-.]{1,64}(/_history/[A-Za-z0-9\-.]{1,64})?", re.ASCII)
_ABSOLUTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:\S+", re.ASCII)
_CONDITIONAL: Final = re.compile(r"([A-Za-z]+)\?\S+", re.ASCII)


def _reference(value: Any, place: _Place, walk: _Walk, targets: tuple[str, ...]) -> None:
    _object(_plan("Reference"), value, place, walk)
    text = value.get("reference") if type(value) is dict else None
    if type(text) is not str or not text:
        return
    if text[0] == "#":
        if len(text) > 1 and text[1:] not in walk.contained:
            walk.add("not-found", (place, "reference", -1), "No contained resource has this id.")
        return
    match = _REFERENCE.fullmatch(text) or (_CONDITIONAL.fullmatch(text) if walk.conditional_references else None)
    if match is None:
        if not _ABSOLUTE.fullmatch(text):
            walk.add(
                "value", (place, "reference", -1), "Expected Type/id, an absolute URL, urn:uuid:, urn:oid: or #id."
            )
    elif match[1] not in resource_types():
        walk.add("value", (place, "reference", -1), "The reference names no resource type of FHIR R4.")
    elif targets and match[1] not in targets:
        walk.add("value", (place, "reference", -1), f"Expected a reference to {' or '.join(targets)}.")


def _coded(value: Any, place: _Place, walk: _Walk, element: Element, allowed: Mapping[str, frozenset[str]]) -> None:
    _object(_plan(element.type), value, place, walk)
    if type(value) is not dict:
        return
    codings = value.get("coding", ()) if element.type == "CodeableConcept" else (value,)
    if not isinstance(codings, (list, tuple)):
        return
    for coding in codings:
        if isinstance(coding, dict):
            code = coding.get("code")
            if isinstance(code, str) and code in allowed.get(str(coding.get("system", "")), frozenset()):
                return
    # An extension may say why there is no code (data-absent-reason).
    if "extension" not in value:
        walk.add("code-invalid", place, _not_in(element.value_set))


@cache
def _codes_of(name: str) -> frozenset[str] | None:
    systems = value_set(name)
    return None if systems is None else frozenset().union(*systems.values())


def _codes(element: Element) -> frozenset[str] | None:
    return _codes_of(element.value_set) if element.value_set else None


@cache
def _not_in(name: str) -> str:
    codes = sorted(_codes_of(name) or ())
    listed = ", ".join(codes) if len(codes) <= 20 else f"{', '.join(codes[:20])}, ..."
    return f"The code is not in the required value set {name} ({listed})."
