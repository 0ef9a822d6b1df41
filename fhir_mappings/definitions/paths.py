"""The part of FHIRPath that R4 search parameters use (http://hl7.org/fhirpath/N1/, https://hl7.org/fhir/R4/fhirpath.html).

That is: member access, ``|``, ``ofType(T)``, ``as(T)``, ``as T``, ``where(resolve() is T)`` and ``where(name='literal')``.
Anything else is refused, so that a parameter is either right or not offered.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from fhir_mappings.errors import UnsupportedError


@dataclass(frozen=True, slots=True)
class Member:
    """``.name``"""

    name: str


@dataclass(frozen=True, slots=True)
class OfType:
    """``.ofType(T)``, ``.as(T)`` or ``as T``"""

    type: str


@dataclass(frozen=True, slots=True)
class ResolvesTo:
    """``.where(resolve() is T)``"""

    type: str


@dataclass(frozen=True, slots=True)
class WhereEquals:
    """``.where(name='literal')``"""

    name: str
    literal: str


Step = Member | OfType | ResolvesTo | WhereEquals

_STEP: Final = re.compile(
    r"""
      \.ofType\((?P<of>\w+)\) | \.as\((?P<as>\w+)\) | \s+as\s+(?P<as_op>\w+)
    | \.where\(\s*resolve\(\)\s+is\s+(?P<resolves>\w+)\s*\)
    | \.where\(\s*(?P<key>\w+)\s*=\s*'(?P<literal>[^']*)'\s*\)
    | \.(?P<member>\w+)(?![\w(])
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Path:
    """One operand of a union: the type it starts from and the steps from there."""

    root: str
    steps: tuple[Step, ...]


def split_union(expression: str) -> list[str]:
    """Return the operands of the top-level ``|``."""
    parts: list[str] = []
    depth = start = 0
    for position, character in enumerate(expression):
        depth += (character == "(") - (character == ")")
        if character == "|" and depth == 0:
            parts.append(expression[start:position])
            start = position + 1
    return [part.strip() for part in [*parts, expression[start:]]]


def parse(expression: str) -> tuple[Path, ...]:
    """Return the operands of *expression*.

    Raises:
        UnsupportedError: it uses more of FHIRPath than this subset.
    """
    return tuple(_operand(part) for part in split_union(expression))


def _operand(text: str) -> Path:
    if text.startswith("("):
        inner, tail = _parenthesis(text)
        head = _operand(inner)
        return Path(head.root, head.steps + _steps(tail))
    match = re.match(r"[A-Z]\w*", text)
    if match is None:
        raise UnsupportedError(f"The expression starts with something other than a type: {text}", where="expression")
    return Path(match.group(), _steps(text[match.end() :]))


def _parenthesis(text: str) -> tuple[str, str]:
    depth = 0
    for position, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return text[1:position].strip(), text[position + 1 :]
    raise UnsupportedError(f"A parenthesis is not closed: {text}", where="expression")


def _steps(text: str) -> tuple[Step, ...]:
    steps: list[Step] = []
    position = 0
    while position < len(text):
        match = _STEP.match(text, position)
        if match is None:
            raise UnsupportedError(f"This FHIRPath is not supported: {text[position:]}", where="expression")
        found = match.groupdict()
        if found["member"]:
            steps.append(Member(found["member"]))
        elif found["resolves"]:
            steps.append(ResolvesTo(found["resolves"]))
        elif found["key"]:
            steps.append(WhereEquals(found["key"], found["literal"]))
        else:
            steps.append(OfType(found["of"] or found["as"] or found["as_op"]))
        position = match.end()
    return tuple(steps)
