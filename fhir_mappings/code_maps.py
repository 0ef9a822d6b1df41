"""A sender's own codes beside the standard's: FHIR ConceptMaps (https://hl7.org/fhir/R4/conceptmap.html), compiled.

A map speaks of one institution's local code systems, the URIs that :meth:`MappingContext.code_system` makes. What it
says joins the sender's coding and never takes its place. Three kinds of source are known:

``{base}/CodeSystem/KN/local``            CWE.3 empty or ``L``; other local systems by their own name
``{base}/CodeSystem/KN/table/NAME``       an HL7 table that a CSV of :mod:`fhir_mappings.codes` reads (sex, flags, states)
``{base}/CodeSystem/KN/table/unit``       units as written in OBX-6, to UCUM

Only an equivalence that makes the target true of every use of the source code is applied: ``equal``, ``equivalent``,
``wider``, ``subsumes``. ``unmatched`` and ``disjoint`` settle that there is no target.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any, NamedTuple

from fhir_mappings import codes
from fhir_mappings.errors import MalformedError
from fhir_mappings.identifiers import CANONICAL_BASE

Json = dict[str, Any]

UCUM = "http://unitsofmeasure.org"
#: Name of the table that stands for units.
UNIT = "unit"
#: The target holds wherever the source does.
APPLIED = frozenset({"equal", "equivalent", "wider", "subsumes"})
#: There is no target, and somebody has looked.
WITHOUT_TARGET = frozenset({"unmatched", "disjoint"})
#: Tables of what the protocol says, in which no sender has words of its own.
_NOT_THE_SENDERS = frozenset({"encounter_event", "order_control"})
_MEMBER = re.compile(r"[A-Za-z0-9_-]{1,64}")


class UnmappedCode(NamedTuple):
    """A code of the sender's that nothing standard stands beside."""

    system: str
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeMaps:
    """All maps of one institution.

    Attributes:
        codings: (system, code) of the sender -> Codings that join it; empty where there is none to add, or where what
            joins it stands in the other two.
        tables: name of a CSV table -> code of the sender -> what it means.
        units: unit as the sender writes it -> UCUM code; empty where there is none.
    """

    codings: Mapping[tuple[str, str], tuple[Json, ...]] = field(default_factory=dict)
    tables: Mapping[str, Mapping[str, codes.MappedCode]] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)

    def knows(self, gap: UnmappedCode) -> bool:
        """Return whether a map speaks of the code, be it to say that there is nothing for it."""
        return gap in self.codings


NO_MAPS = CodeMaps()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One element of a ConceptMap with the targets that are applied."""

    institution: str
    system: str
    table: str
    code: str
    targets: tuple[Json, ...]


def table_system(institution: str, table: str, *, base: str = CANONICAL_BASE) -> str:
    """Return the code system URI of what *institution* writes in the places that *table* reads."""
    return f"{base}/CodeSystem/{institution}/table/{table}"


@cache
def tables() -> frozenset[str]:
    """Return the names of the tables that a sender may have codes of its own for, :data:`UNIT` among them."""
    files = (item.name for item in resources.files(codes.__package__ or "").iterdir())
    found = {name.removesuffix(".csv") for name in files if name.endswith(".csv")}
    return frozenset(found - _NOT_THE_SENDERS | {UNIT})


def institution_of(system: str, *, base: str = CANONICAL_BASE) -> str:
    """Return the institution whose code system *system* is; empty for everybody else's."""
    prefix = f"{base}/CodeSystem/"
    owner, slash, rest = system.removeprefix(prefix).partition("/") if system.startswith(prefix) else ("", "", "")
    return owner if slash and rest and _MEMBER.fullmatch(owner) else ""


def rows(resource: Mapping[str, Any], *, base: str = CANONICAL_BASE) -> Iterator[Row]:
    """Yield what the ConceptMap *resource* says of senders' codes; groups over other code systems say nothing here.

    Raises:
        MalformedError: a group over a sender's codes says what a translation cannot do; names the element.
    """
    for number, group in enumerate(resource.get("group", ())):
        source = str(group.get("source", ""))
        institution = institution_of(source, base=base)
        if not institution:
            continue
        place = f"ConceptMap.group[{number}]"
        yield from _group(group, institution, source, place)


def _group(group: Mapping[str, Any], institution: str, source: str, place: str) -> Iterator[Row]:
    table = source.rpartition("/table/")[2] if "/table/" in source else ""
    target = str(group.get("target", ""))
    if table and table not in tables():
        raise _wrong("There is no such table.", f"{place}.source", f"Use one of {', '.join(sorted(tables()))}.")
    if "unmapped" in group:
        raise _wrong("A rule for all other codes would be a guess.", f"{place}.unmapped", "List each code.")
    if table == UNIT and target not in {"", UCUM}:
        raise _wrong("Units are mapped to UCUM.", f"{place}.target", f"Write {UCUM}.")
    for position, element in enumerate(group.get("element", ())):
        where = f"{place}.element[{position}]"
        code = str(element.get("code", "")).strip()
        if not code:
            raise _wrong("An element without a code maps nothing.", f"{where}.code", "Give the sender's code.")
        targets = []
        for item in element.get("target", ()):
            if item.get("dependsOn") or item.get("product"):
                raise _wrong(
                    "A target that depends on another field cannot be applied.", where, "Map each code by itself."
                )
            relation = str(item.get("equivalence", ""))
            if relation in WITHOUT_TARGET:
                continue
            if not target or not item.get("code"):
                raise _wrong("A target needs a code system and a code.", where, "Give group.target and target.code.")
            coding = {"system": target, "code": str(item["code"])}
            if group.get("targetVersion"):
                coding["version"] = str(group["targetVersion"])
            if item.get("display"):
                coding["display"] = str(item["display"])
            if table and table != UNIT:
                _meaning(table, coding, where)
            if relation in APPLIED:
                targets.append(coding)
        yield Row(institution=institution, system=source, table=table, code=code, targets=tuple(targets))


def _meaning(table: str, coding: Mapping[str, str], where: str) -> codes.MappedCode:
    """Return the row of *table* that means *coding*: only a meaning that the table has fits the element behind it."""
    meanings = {(one.system, one.target): one for one in codes.table(table).values()}
    found = meanings.get((coding["system"], coding["code"]))
    if found is None:
        known = ", ".join(sorted(f"{system}|{code}" for system, code in meanings))
        raise _wrong(f"The table {table} has no such meaning.", where, f"Use one of {known}.")
    return found


def _wrong(message: str, where: str, remedy: str) -> MalformedError:
    return MalformedError(message, where=where, remedy=remedy, code=0)


def compiled(found: Iterable[Mapping[str, Any]], *, base: str = CANONICAL_BASE) -> dict[str, CodeMaps]:
    """Return the maps of each institution that the active ConceptMaps *found* speak of.

    Where two say something of one code, the first is believed for each target system.

    Raises:
        MalformedError: as :func:`rows`.
    """
    codings: dict[str, dict[tuple[str, str], tuple[Json, ...]]] = {}
    own: dict[str, dict[str, dict[str, codes.MappedCode]]] = {}
    units: dict[str, dict[str, str]] = {}
    for resource in found:
        if resource.get("status") != "active":
            continue
        for row in rows(resource, base=base):
            settled = codings.setdefault(row.institution, {})
            if row.table:
                settled.setdefault((row.system, row.code), ())
            if row.table == UNIT:
                code = row.targets[0]["code"] if row.targets else ""
                units.setdefault(row.institution, {}).setdefault(row.code, code)
            elif row.table:
                if row.targets:
                    meaning = _meaning(row.table, row.targets[0], row.system)
                    own.setdefault(row.institution, {}).setdefault(row.table, {}).setdefault(row.code, meaning)
            else:
                known = settled.get((row.system, row.code), ())
                systems = {one["system"] for one in known}
                more = tuple(one for one in row.targets if one["system"] not in systems)
                settled[row.system, row.code] = (*known, *more)
    return {
        institution: CodeMaps(
            codings=MappingProxyType(settled),
            tables=MappingProxyType(own.get(institution, {})),
            units=MappingProxyType(units.get(institution, {})),
        )
        for institution, settled in codings.items()
    }


class Coder:
    """Adds what the maps of one institution know to the resources of one message, and notes what they do not know."""

    def __init__(self, maps: CodeMaps, institution: str, *, base: str = CANONICAL_BASE) -> None:
        self._maps = maps
        self._local = f"{base}/CodeSystem/{institution}/"
        self._unit = table_system(institution, UNIT, base=base)
        self.unmapped: dict[UnmappedCode, None] = {}

    def coded(self, value: Any) -> Any:
        """Return *value* with the mapped codings beside the sender's; the same object where there is none to add."""
        if type(value) is dict:
            made: Json | None = None
            for key, item in value.items():
                if (type(item) is dict or type(item) is list) and key != "meta" and key != "coding":
                    new = self.coded(item)
                    if new is not item:
                        made = {**value} if made is None else made
                        made[key] = new
            if "coding" in value:
                made = self._concept(value, made)
            elif "unit" in value and "value" in value and "code" not in value:
                made = self._quantity(value, made)
            return value if made is None else made
        if type(value) is list:
            new_items = [self.coded(item) if type(item) is dict else item for item in value]
            return new_items if any(a is not b for a, b in zip(new_items, value, strict=True)) else value
        return value

    def _concept(self, value: Json, made: Json | None) -> Json | None:
        codings = value["coding"]
        more: list[Json] = []
        gaps: list[UnmappedCode] = []
        settled = False
        for coding in codings:
            system, code = coding.get("system", ""), coding.get("code", "")
            found = self._maps.codings.get((system, code))
            if found is not None:
                settled = True
                more += [dict(one) for one in found]
            elif system.startswith(self._local):
                gaps.append(UnmappedCode(system, code))
            else:
                settled = True
        if not settled:
            self.unmapped.update(dict.fromkeys(gaps))
        known = {(one.get("system"), one.get("code")) for one in codings}
        more = [one for one in more if (one["system"], one["code"]) not in known]
        return {**(value if made is None else made), "coding": [*codings, *more]} if more else made

    def _quantity(self, value: Json, made: Json | None) -> Json | None:
        found = self._maps.units.get(value["unit"])
        if found is None:
            self.unmapped[UnmappedCode(self._unit, value["unit"])] = None
        if not found:
            return made
        return {**(value if made is None else made), "system": UCUM, "code": found}
