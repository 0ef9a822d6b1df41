"""References inside a resource: found, made relative to the hub, rewritten (https://hl7.org/fhir/R4/references.html)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fhir_mappings.definitions.structures import resource_types

LOCAL = re.compile(r"([A-Z][A-Za-z]+)/([A-Za-z0-9\-.]{1,64})(?:/_history/([A-Za-z0-9\-.]{1,64}))?", re.ASCII)
CONDITIONAL = re.compile(r"([A-Z][A-Za-z]+)\?(\S+)", re.ASCII)
#: Elements beside Reference.reference whose text may be the temporary URL of another entry of the same Bundle.
_LINKS = frozenset({"url", "uri", "valueUri", "valueUrl", "valueUuid", "valueOid"})


@dataclass(frozen=True, slots=True)
class Found:
    """A literal reference and the object that holds it, so that it can be rewritten in place."""

    holder: dict[str, Any]
    text: str
    where: str


def literal(resource: dict[str, Any]) -> Iterator[Found]:
    """Yield every literal reference in *resource* with its place as a FHIRPath; fragments (``#id``) are left out."""
    stack: list[tuple[Any, str]] = [(resource, str(resource.get("resourceType", "")))]
    while stack:
        value, where = stack.pop()
        if isinstance(value, dict):
            for name, item in value.items():
                if name == "reference" and isinstance(item, str):
                    if not item.startswith("#"):
                        yield Found(value, item, f"{where}.reference")
                elif isinstance(item, (dict, list)):
                    stack.append((item, f"{where}.{name}"))
        else:
            stack.extend(
                (item, f"{where}[{index}]") for index, item in enumerate(value) if isinstance(item, (dict, list))
            )


def make_relative(resource: dict[str, Any], bases: Sequence[str]) -> None:
    """Cut the hub's own address off absolute references, so that they stay true when the address changes."""
    for found in literal(resource):
        short = relative(found.text, bases)
        if short != found.text:
            found.holder["reference"] = short


def relative(text: str, bases: Sequence[str]) -> str:
    """Return *text* below one of *bases* as ``Type/id``; any other text as it is."""
    for base in bases:
        if text.startswith(f"{base}/") and LOCAL.fullmatch(text[len(base) + 1 :]):
            return text[len(base) + 1 :]
    return text


def rewrite(resource: dict[str, Any], change: Callable[[str, str], str | None]) -> None:
    """Replace references and links for which *change* (text, where) returns another text."""
    for found in list(literal(resource)):
        new = change(found.text, found.where)
        if new is not None:
            found.holder["reference"] = new
    stack: list[Any] = [resource]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack.extend(value)
        elif isinstance(value, dict):
            for name, item in value.items():
                if name in _LINKS and isinstance(item, str) and item.startswith("urn:"):
                    new = change(item, "")
                    if new is not None:
                        value[name] = new
                elif isinstance(item, (dict, list)):
                    stack.append(item)


def targets(resource: dict[str, Any]) -> dict[tuple[str, str, str], str]:
    """Return (type, id, version or "") of every resource of the hub that *resource* refers to, with the place."""
    found: dict[tuple[str, str, str], str] = {}
    for one in literal(resource):
        match = LOCAL.fullmatch(one.text)
        if match and match[1] in resource_types():
            found.setdefault((match[1], match[2], match[3] or ""), one.where)
    return found
