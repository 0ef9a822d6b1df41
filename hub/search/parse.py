"""A FHIR search query as a typed value (https://hl7.org/fhir/R4/search.html).

Unknown parameters are refused unless the client asked for lenient handling; then they are listed in ``Query.ignored``
and left out of the self link. A modifier, prefix or control the hub does not have is always refused: ignoring it would
change the meaning of a parameter that was understood.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal, cast

from fhir_mappings.definitions.search_parameters import SearchParameter, search_parameters
from fhir_mappings.definitions.structures import elements, resource_types
from hub.errors import Category, HubError
from hub.search.ast import Chain, ChainTarget, Filter, Has, Include, ParameterKind, PlainFilter, Query, Sort
from hub.search.values import Context, incorrect, printable, read, split, unsupported

DEFAULT_COUNT: Final = 50
MAX_COUNT: Final = 500
MAX_OFFSET: Final = 1_000_000
#: Parameters of one query.
MAX_PARAMETERS: Final = 50
MAX_SORT_KEYS: Final = 8
MAX_CURSOR_CHARS: Final = 1_024
#: Controls of the HTTP answer, which the door reads; they are no part of the search.
DOOR_CONTROLS: Final = frozenset({"_format", "_pretty"})


@dataclass(slots=True)
class _Parts:
    """What has been read so far."""

    resource_type: str
    context: Context
    filters: list[Filter] = field(default_factory=list)
    includes: list[Include] = field(default_factory=list)
    controls: dict[str, str] = field(default_factory=dict)
    pairs: list[tuple[str, str]] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def parse(
    resource_type: str,
    pairs: Sequence[tuple[str, str]],
    *,
    lenient: bool = False,
    base_urls: Sequence[str] = (),
    now: datetime | None = None,
) -> Query:
    """Return the query that *pairs* (decoded names and values, in order) ask of *resource_type*.

    Args:
        lenient: ``Prefer: handling=lenient``: unknown parameters are reported instead of refused.
        base_urls: the hub's own FHIR bases, so that absolute references to itself are recognised.
        now: the instant approximate dates are measured from; the present one if absent.

    Raises:
        HubError: incorrect or unsupported, naming the parameter, never its value.
    """
    if resource_type not in resource_types():
        raise HubError(
            Category.UNSUPPORTED,
            "This is not a resource type of FHIR R4.",
            where="URL",
            issue_code="not-supported",
            status=404,
        )
    if len(pairs) > MAX_PARAMETERS:
        raise HubError(Category.INCORRECT, f"The query has more than {MAX_PARAMETERS} parameters.", where="query")
    parts = _Parts(resource_type, Context(base_urls=tuple(base_urls), now=now or datetime.now(UTC)))
    for name, value in pairs:
        try:
            used = _one(parts, name, value)
        except _UnknownParameterError as error:
            if not lenient:
                raise error.as_hub_error() from error
            used = False
            parts.ignored.append(printable(name))
        if used:
            parts.pairs.append((name, value))
    return _query(parts)


class _UnknownParameterError(Exception):
    def __init__(self, resource_type: str, name: str) -> None:
        super().__init__(name)
        self.resource_type = resource_type
        self.name = name

    def as_hub_error(self) -> HubError:
        known = ", ".join(sorted(search_parameters(self.resource_type)))
        return unsupported(
            f"{self.resource_type} has no search parameter {printable(self.name)} here.",
            self.name,
            f"Supported: {known}. With Prefer: handling=lenient unknown parameters are ignored.",
        )


def _one(parts: _Parts, name: str, value: str) -> bool:
    """Read one pair; return whether it belongs in the self link."""
    head = name.partition(":")[0]
    if head in DOOR_CONTROLS:
        return False
    if head in {"_include", "_revinclude"}:
        parts.includes.append(_include(parts.resource_type, name, value))
    elif name in _CONTROLS:
        if name in parts.controls:
            raise incorrect("It may be given once.", name)
        parts.controls[name] = value
    elif head == "_has":
        parts.filters.append(_has(parts, name, value))
    elif "." in name:
        parts.filters.append(_chain(parts, name, value))
    else:
        parts.filters.append(_plain(parts.resource_type, name, value, parts.context))
    return True


def _parameter(resource_type: str, code: str, name: str) -> SearchParameter:
    parameter = search_parameters(resource_type).get(code)
    if parameter is None:
        raise _UnknownParameterError(resource_type, name)
    return parameter


def _plain(resource_type: str, name: str, value: str, context: Context) -> PlainFilter:
    code, _, modifier = name.partition(":")
    return read(_parameter(resource_type, code, name), modifier, value, context)


def _chain(parts: _Parts, name: str, value: str) -> Chain:
    head, _, rest = name.partition(".")
    code, _, narrowed = head.partition(":")
    parameter = _parameter(parts.resource_type, code, name)
    if parameter.type != "reference":
        raise incorrect(f"{code} is not a reference, so nothing can follow it.", name)
    if "." in rest or rest.startswith("_has"):
        raise unsupported("Chains go one step only.", name, "Search the other type first.")
    candidates = parameter.targets
    if narrowed:
        if narrowed not in resource_types() or (candidates and narrowed not in candidates):
            raise incorrect(f"{code} does not refer to such a type.", name)
        candidates = (narrowed,)
    if not candidates:
        raise incorrect(f"{code} may refer to any type.", name, f"Say which: {code}:Patient.{rest}")
    inner = rest.partition(":")[0]
    knowing = [target for target in candidates if inner in search_parameters(target)]
    if not knowing:
        raise _UnknownParameterError(candidates[0], inner)
    targets: list[ChainTarget] = []
    failure: HubError | None = None
    for target in knowing:
        try:
            targets.append(ChainTarget(resource_type=target, filter=_plain(target, rest, value, parts.context)))
        except HubError as error:
            # The name may mean another kind of parameter for another type; one reading that fits is enough.
            failure = error
    if failure is not None and not targets:
        raise failure
    return Chain(param=parameter.rows, targets=tuple(targets))


def _has(parts: _Parts, name: str, value: str) -> Has:
    pieces = name.split(":")
    if len(pieces) not in {4, 5} or "_has" in pieces[1:] or "." in pieces[3]:
        raise unsupported("Expected _has:Type:reference:parameter, one step only.", name)
    _, source, code, *inner = pieces
    if source not in resource_types():
        raise incorrect("The type after _has is not a resource type of FHIR R4.", name)
    reference = _parameter(source, code, code)
    if reference.type != "reference" or (reference.targets and parts.resource_type not in reference.targets):
        raise incorrect(f"{source}.{printable(code)} does not refer to {parts.resource_type}.", name)
    return Has(resource_type=source, param=reference.rows, filter=_plain(source, ":".join(inner), value, parts.context))


def _include(resource_type: str, name: str, value: str) -> Include:
    head, _, modifier = name.partition(":")
    reverse = head == "_revinclude"
    if modifier:
        raise unsupported(
            f"{head} with a modifier (:iterate, :recurse) is not supported.",
            name,
            "Ask for the next step in a search of its own.",
        )
    if value == "*" and not reverse:
        return Include(source_type=resource_type, param="*")
    pieces = value.split(":")
    if len(pieces) not in {2, 3} or pieces[0] not in resource_types():
        raise incorrect("Expected Type:parameter or Type:parameter:TargetType.", head)
    source, code = pieces[:2]
    target = pieces[2] if len(pieces) == 3 else None
    if target is not None and target not in resource_types():
        raise incorrect("The target type is not a resource type of FHIR R4.", head)
    if not reverse and source != resource_type:
        raise incorrect(f"_include starts from the type that is searched, {resource_type}.", head)
    if reverse and target not in {None, resource_type}:
        raise incorrect(f"_revinclude leads to the type that is searched, {resource_type}.", head)
    if code == "*":
        return Include(source_type=source, param="*", target_type=target, reverse=reverse)
    parameter = search_parameters(source).get(code)
    if parameter is None or parameter.type != "reference":
        raise incorrect(f"{source} has no such reference parameter.", head)
    pointed = resource_type if reverse else target
    if pointed is not None and parameter.targets and pointed not in parameter.targets:
        raise incorrect(f"{source}.{code} does not refer to {pointed}.", head)
    return Include(source_type=source, param=parameter.rows, target_type=target, reverse=reverse)


# --- controls --------------------------------------------------------------------------------------------------------

_CONTROLS: Final = frozenset({"_sort", "_count", "_total", "_summary", "_elements", "_cursor", "_offset"})
_TOTALS: Final = ("none", "estimate", "accurate")
_SUMMARIES: Final = ("true", "text", "data", "count", "false")


def _query(parts: _Parts) -> Query:
    controls = parts.controls
    summary = _one_of(controls, "_summary", _SUMMARIES)
    total = _one_of(controls, "_total", _TOTALS)
    elements_wanted = _elements(parts.resource_type, controls)
    if summary not in {None, "false"} and elements_wanted:
        raise incorrect("_summary and _elements exclude each other.", "_elements")
    count = min(_whole(controls, "_count", DEFAULT_COUNT), MAX_COUNT)
    if summary == "count":
        count = 0
    cursor = controls.get("_cursor")
    if cursor is not None and (not 0 < len(cursor) <= MAX_CURSOR_CHARS or "_offset" in controls):
        raise incorrect("The cursor is not one that a next link of the hub gave.", "_cursor")
    offset = _whole(controls, "_offset", 0)
    if offset > MAX_OFFSET:
        raise incorrect(f"It may be {MAX_OFFSET} at most.", "_offset", "Follow the next links instead.")
    # The self link says what was done: a page size above the limit was not.
    pairs = tuple(
        (name, str(count) if name == "_count" and value != str(count) and summary != "count" else value)
        for name, value in parts.pairs
    )
    return Query(
        resource_type=parts.resource_type,
        filters=tuple(parts.filters),
        includes=tuple(dict.fromkeys(parts.includes)),
        sort=_sort(parts.resource_type, controls),
        count=count,
        cursor=cursor,
        offset=offset,
        total=cast("Literal['none', 'estimate', 'accurate']", total or "none"),
        summary=cast("Literal['true', 'text', 'data', 'count', 'false'] | None", summary),
        elements=elements_wanted,
        pairs=pairs,
        ignored=tuple(dict.fromkeys(parts.ignored)),
    )


def _one_of(controls: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str | None:
    value = controls.get(name)
    if value is not None and value not in allowed:
        raise incorrect(f"Expected {', '.join(allowed)}.", name)
    return value


def _whole(controls: Mapping[str, str], name: str, default: int) -> int:
    value = controls.get(name)
    if value is None:
        return default
    if not (value.isascii() and value.isdigit() and len(value) <= 9):
        raise incorrect("Expected a whole number.", name)
    return int(value)


def _sort(resource_type: str, controls: Mapping[str, str]) -> tuple[Sort, ...]:
    if "_sort" not in controls:
        return ()
    keys = split(controls["_sort"], ",")
    if len(keys) > MAX_SORT_KEYS:
        raise incorrect(f"More than {MAX_SORT_KEYS} sort keys.", "_sort")
    found: dict[str, Sort] = {}
    for key in keys:
        parameter = search_parameters(resource_type).get(key.removeprefix("-"))
        if parameter is None:
            known = ", ".join(sorted(search_parameters(resource_type)))
            raise incorrect(
                f"{resource_type} cannot be sorted by {printable(key.removeprefix('-'))}.",
                "_sort",
                f"Supported: {known}.",
            )
        sort = Sort(param=parameter.rows, kind=cast("ParameterKind", parameter.type), descending=key.startswith("-"))
        found.setdefault(sort.param, sort)
    return tuple(found.values())


def _elements(resource_type: str, controls: Mapping[str, str]) -> tuple[str, ...]:
    if "_elements" not in controls:
        return ()
    known = {element.choice.removesuffix("[x]") or element.name for element in elements(resource_type).values()}
    names = tuple(dict.fromkeys(part.removeprefix(f"{resource_type}.") for part in controls["_elements"].split(",")))
    for name in names:
        if name not in known:
            raise incorrect(f"{resource_type} has no element {printable(name)}.", "_elements")
    return names
