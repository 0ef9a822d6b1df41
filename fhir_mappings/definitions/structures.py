"""What FHIR 4.0.1 says about the elements of each type (https://hl7.org/fhir/R4/structuredefinition.html).

The table is distilled (see README.md), read once per process and decoded one type at a time.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

#: Types that JSON spells as a string, number or boolean.
PRIMITIVES = frozenset(
    [
        "base64Binary",
        "boolean",
        "canonical",
        "code",
        "date",
        "dateTime",
        "decimal",
        "id",
        "instant",
        "integer",
        "markdown",
        "oid",
        "positiveInt",
        "string",
        "time",
        "unsignedInt",
        "uri",
        "url",
        "uuid",
        "xhtml",
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """One element under the name it has in JSON.

    Attributes:
        name: JSON name; a choice has one Element per type (``valueQuantity``).
        type: primitive, datatype, resource or the path of a backbone element (``Observation.component``).
        min: least number of values; of a choice, of all its types together.
        many: whether the value is an array.
        value_set: key of the required value set, or empty.
        targets: resource types a reference may point at, empty = any.
        choice: the name in the standard (``value[x]``) when this is one of several types, else empty.
    """

    name: str
    type: str
    min: int
    many: bool
    value_set: str = ""
    targets: tuple[str, ...] = ()
    choice: str = ""


class _File(msgspec.Struct):
    resources: tuple[str, ...]
    types: dict[str, msgspec.Raw]
    valueSets: dict[str, msgspec.Raw]


def read_data(name: str) -> bytes:
    """Return the unpacked bytes of the data file *name*."""
    return gzip.decompress((files("fhir_mappings.definitions") / "data" / name).read_bytes())


@cache
def _file() -> _File:
    return msgspec.json.decode(read_data("structures.json.gz"), type=_File)


@cache
def resource_types() -> frozenset[str]:
    """Return the names of the 146 concrete resource types of R4."""
    return frozenset(_file().resources)


def is_type(name: str) -> bool:
    """Return whether *name* has elements of its own: a resource, a datatype or a backbone path."""
    return name in _file().types


@cache
def elements(type_name: str) -> Mapping[str, Element]:
    """Return the elements of a type by JSON name, choices spelled out.

    Raises:
        KeyError: *type_name* is a primitive or unknown.
    """
    found: dict[str, Element] = {}
    rows: dict[str, list[Any]] = msgspec.json.decode(_file().types[type_name])
    for name, row in rows.items():
        least, most, types = row[:3]
        value_set = row[3] if len(row) > 3 else ""
        targets = row[4] if len(row) > 4 else ()
        choice = name if name.endswith("[x]") else ""
        for kind in types:
            spelled = name[:-3] + kind[0].upper() + kind[1:] if choice else name
            found[spelled] = Element(
                name=spelled,
                type=kind,
                min=least,
                many=most != 1,
                value_set=value_set,
                targets=tuple(targets) if kind in {"Reference", "canonical"} else (),
                choice=choice,
            )
    return found


@cache
def value_set(name: str) -> Mapping[str, frozenset[str]] | None:
    """Return the codes of a required value set by system, or ``None`` when the set cannot be listed (MIME types)."""
    raw = _file().valueSets.get(name)
    if raw is None:
        return None
    return {system: frozenset(codes) for system, codes in msgspec.json.decode(raw).items()}


@cache
def system_of(value_set_name: str, code: str) -> str:
    """Return the system that a bare ``code`` of a required value set belongs to, or an empty string."""
    systems = value_set(value_set_name) or {}
    return next((system for system, codes in systems.items() if code in codes), "")
