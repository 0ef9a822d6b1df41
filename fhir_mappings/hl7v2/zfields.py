"""Where the fields of a sender's own segments go: HL7 v2 chapter 2.11 leaves Z-segments to the parties.

A member's dialect holds a table from a place (``ZPI-3``, ``ZPI-3.2``) to an element of FHIR R4
(``Patient.maritalStatus``, ``Encounter.hospitalization.destination.display``). What FHIR has no element for becomes an
extension of the hub's own: ``Patient.extension(blood-group).valueString``. A code that FHIR fixes needs the map that
translates it: ``Patient.gender:administrative_sex``. The element's type decides how the field is read, and the table is
judged against the definitions of FHIR R4 when it is configured, so that no message meets a row that cannot work.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from fhir_mappings import codes
from fhir_mappings.definitions import structures

#: Resource types whose translation looks for such fields.
RESOURCE_TYPES = frozenset({"Patient", "Encounter"})

#: Types that are written from one component of a field.
SIMPLE = frozenset(
    {
        "string",
        "markdown",
        "code",
        "uri",
        "boolean",
        "integer",
        "positiveInt",
        "unsignedInt",
        "decimal",
        "date",
        "dateTime",
        "instant",
    }
)
#: Types that are written from a whole field.
COMPLEX = frozenset({"CodeableConcept", "Identifier", "HumanName", "Address", "ContactPoint"})

#: Elements that say whose a resource is and where it stands; the hub keeps them by its own rules.
_RESERVED = frozenset({"id", "resourceType", "meta", "active", "status", "subject", "link", "managingOrganization"})

_PLACE = re.compile(r"(Z[A-Z0-9]{2})-([1-9][0-9]{0,2})(?:\.([1-9][0-9]?))?")
_TARGET = re.compile(
    r"(?P<type>[A-Z][A-Za-z]+)"
    r"(?:\.extension\((?P<name>[a-z0-9]+(?:-[a-z0-9]+)*)\))?"
    r"(?P<path>(?:\.[a-z][A-Za-z0-9]*)+)"
    r"(?::(?P<map>[a-z][a-z0-9_]*))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ZField:
    """One row of the table.

    Attributes:
        component: of the field; 0 for the whole field.
        element: path as a row of a segment table writes it (``name*`` adds to a list); of an extension its ``value``.
        kind: FHIR type of the element.
        extension: name of the extension, empty for an element of FHIR's own.
        map: code map for a ``code``, empty for none.
    """

    segment: str
    number: int
    component: int
    resource_type: str
    element: str
    kind: str
    extension: str = ""
    map: str = ""


@lru_cache(maxsize=1024)
def z_field(place: str, target: str) -> ZField:
    """Return the row from *place* to *target*.

    Raises:
        ValueError: one of them cannot be read, or FHIR has no such element, or the hub does not write it.
    """
    where = _PLACE.fullmatch(place)
    if where is None:
        raise ValueError(f"{place!r} is no field of a Z-segment such as ZPI-3 or ZPI-3.2.")
    what = _TARGET.fullmatch(target)
    if what is None:
        raise ValueError(f"{target!r} is no element such as Patient.maritalStatus.")
    kind = what["type"]
    if kind not in RESOURCE_TYPES:
        raise ValueError(f"{target!r}: Z-fields are read into {', '.join(sorted(RESOURCE_TYPES))} only.")
    path = what["path"].removeprefix(".").split(".")
    if what["name"]:
        element, found = _walk("Extension", path, target)
        if len(path) != 1 or not path[0].startswith("value"):
            raise ValueError(f"{target!r}: an extension has one value, for example valueString.")
    else:
        if path[0] in _RESERVED:
            raise ValueError(f"{target!r}: {path[0]} is kept by the hub's own rules.")
        element, found = _walk(kind, path, target)
    component = int(where[3] or 0)
    if found.type not in SIMPLE and (found.type not in COMPLEX or component):
        one = "a component" if component else "a field"
        raise ValueError(f"{target!r} is of the type {found.type}, which is not written from {one}.")
    _check_map(found, what["map"] or "", target)
    return ZField(
        segment=where[1],
        number=int(where[2]),
        component=component,
        resource_type=kind,
        element=element,
        kind=found.type,
        extension=what["name"] or "",
        map=what["map"] or "",
    )


def _walk(type_name: str, path: list[str], target: str) -> tuple[str, structures.Element]:
    written: list[str] = []
    found: structures.Element | None = None
    for name in path:
        if found is not None:
            if found.many:
                raise ValueError(f"{target!r}: {found.name} repeats, so nothing says which of its values is meant.")
            if not structures.is_type(found.type):
                raise ValueError(f"{target!r}: {found.name} is of the type {found.type} and has no {name}.")
            type_name = found.type
        found = structures.elements(type_name).get(name)
        if found is None:
            raise ValueError(f"{target!r}: {type_name} has no element {name}.")
        written.append(f"{name}*" if found.many else name)
    assert found is not None
    return ".".join(written), found


def _check_map(found: structures.Element, name: str, target: str) -> None:
    if name:
        try:
            codes.table(name)
        except FileNotFoundError:
            raise ValueError(f"{target!r}: there is no code map {name}.") from None
        if found.type != "code":
            raise ValueError(f"{target!r}: a code map is for elements of the type code, and this is {found.type}.")
    elif found.type == "code" and found.value_set:
        raise ValueError(f"{target!r} takes the codes of FHIR only; name the code map behind a colon.")


def table(text: str) -> dict[str, str]:
    """Return the table that a setting writes as ``ZPI-3=Patient.maritalStatus ZPI-4=...``, judged row by row.

    Raises:
        ValueError: a row cannot be read or cannot work, or a place stands twice.
    """
    made: dict[str, str] = {}
    for row in text.split():
        place, equals, target = row.partition("=")
        if not equals:
            raise ValueError(f"{row!r} is no row such as ZPI-3=Patient.maritalStatus.")
        if place in made:
            raise ValueError(f"{place} stands twice.")
        z_field(place, target)
        made[place] = target
    return made


def is_table(text: str) -> bool:
    """Return whether *text* is a table as :func:`table` reads it, with at least one row."""
    try:
        return bool(table(text))
    except ValueError:
        return False


def rows_for(z_fields: Mapping[str, str], resource_type: str) -> list[ZField]:
    """Return the rows of a dialect's table that write into *resource_type*."""
    rows = (z_field(place, target) for place, target in z_fields.items())
    return [row for row in rows if row.resource_type == resource_type]
