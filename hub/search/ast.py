"""A FHIR search as a typed value: what the stores translate to SQL, and nothing else.

https://hl7.org/fhir/R4/search.html. Filters of one query are joined by AND; the values inside one filter by OR. How a
value compares with an index row is fixed in :mod:`fhir_mappings.definitions.index_rows`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

#: The seven kinds of index rows, and with them the tables a filter or a sort key reads.
ParameterKind = Literal["token", "string", "reference", "date", "number", "quantity", "uri"]
#: Comparison prefixes of ordered parameters; no prefix means ``eq``.
Prefix = Literal["eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ids:
    """``_id``: the logical id is one of these."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenValue:
    """``code`` = any system (``system is None``); ``|code`` = no system (``""``); ``system|`` = any code (``None``)."""

    system: str | None
    code: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A coded parameter.

    Modifiers: ``not`` (the resource has no row with any of the values, so resources without the element match too),
    ``text`` (a row's ``text`` starts with a folded value, which is in ``code``), ``of-type`` (rows whose ``param`` is
    ``<param>:of-type``; the values already hold the row's ``system`` and ``typecode|value``).
    """

    param: str
    modifier: Literal["", "not", "text", "of-type"] = ""
    values: tuple[TokenValue, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StringValue:
    """``folded`` for matching by start or inside; ``exact`` as the client wrote it."""

    folded: str
    exact: str


@dataclass(frozen=True, slots=True, kw_only=True)
class String:
    """A text parameter.

    No modifier: a row of any kind (text, pinyin, initials) starts with ``folded``. ``contains``: a ``text`` or
    ``pinyin`` row has it anywhere. ``exact``: a ``text`` row's ``exact`` equals ``exact``.
    """

    param: str
    modifier: Literal["", "exact", "contains"] = ""
    values: tuple[StringValue, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceValue:
    """One of: type and id (``target_type`` is ``None`` when the client left it open), an absolute or canonical URL, or
    an identifier (``:identifier``).
    """

    target_type: str | None = None
    target_id: str | None = None
    url: str | None = None
    identifier: TokenValue | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A reference parameter; ``target_types`` are the types the parameter may point at, after ``:[type]``."""

    param: str
    target_types: tuple[str, ...]
    values: tuple[ReferenceValue, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DateValue:
    """The half-open range the written precision covers, in microseconds since the epoch, UTC."""

    prefix: Prefix
    low_us: int
    high_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Date:
    """A date parameter; ``_lastUpdated`` too, which the store compares with its own column."""

    param: str
    values: tuple[DateValue, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberValue:
    """``value`` as written and the range ``[low, high)`` of its implicit precision (for ``ap``, ten percent more)."""

    prefix: Prefix
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A number parameter."""

    param: str
    values: tuple[NumberValue, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantityValue:
    """A number with a unit.

    ``system`` and ``code`` as in :class:`TokenValue`. When ``system is None`` and ``code`` is set, ``code`` matches
    the row's ``code`` or ``unit``; when both are ``None`` any unit matches.
    """

    prefix: Prefix
    value: float
    low: float
    high: float
    system: str | None
    code: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """A quantity parameter."""

    param: str
    values: tuple[QuantityValue, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Uri:
    """A URI parameter: equal, ``below`` (starts with the value) or ``above`` (the value starts with the row)."""

    param: str
    modifier: Literal["", "below", "above"] = ""
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """``:missing``: the resource has no row of this parameter (``missing``) or at least one (not ``missing``)."""

    param: str
    kind: ParameterKind
    missing: bool


#: A filter that looks at the rows of one resource only.
PlainFilter = Ids | Token | String | Reference | Date | Number | Quantity | Uri | Missing


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainTarget:
    """What the resource at the other end must fulfil, for one possible type of it."""

    resource_type: str
    filter: PlainFilter


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """``subject:Patient.name=x``: a reference of this resource leads to one that fulfils any of the targets."""

    param: str
    targets: tuple[ChainTarget, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Has:
    """``_has:Observation:patient:code=x``: a resource of ``resource_type`` points here by ``param`` and fulfils it."""

    resource_type: str
    param: str
    filter: PlainFilter


Filter = PlainFilter | Chain | Has


@dataclass(frozen=True, slots=True, kw_only=True)
class Include:
    """``_include`` (``reverse`` false) or ``_revinclude``: follow ``param`` of ``source_type``.

    ``param`` is ``*`` for every reference parameter. ``target_type`` limits what is followed, ``None`` = any type.
    """

    source_type: str
    param: str
    target_type: str | None = None
    reverse: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sort:
    """One sort key; ``_id`` and ``_lastUpdated`` are columns (kinds ``token`` and ``date``)."""

    param: str
    kind: ParameterKind
    descending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A whole search.

    Attributes:
        resource_type: the type searched.
        filters: joined by AND.
        includes: ``_include`` and ``_revinclude``.
        sort: keys in order; the store appends the id so that the order is total.
        count: page size; 0 asks for the number alone.
        cursor: opaque position the store gave in an earlier ``next`` link (``_cursor``).
        offset: rows to pass over (``_offset``), 0 with a cursor.
        total: ``none``, ``estimate`` or ``accurate``.
        summary: ``_summary`` value, or ``None``.
        elements: ``_elements``, empty = all.
        pairs: the parameters that were understood, as received, for the self link.
        ignored: parameter names that lenient handling passed over.
    """

    resource_type: str
    filters: tuple[Filter, ...] = ()
    includes: tuple[Include, ...] = ()
    sort: tuple[Sort, ...] = ()
    count: int
    cursor: str | None = None
    offset: int = 0
    total: Literal["none", "estimate", "accurate"] = "none"
    summary: Literal["true", "text", "data", "count", "false"] | None = None
    elements: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()

    def to_self_link(self, base: str = "", *, cursor: str | None = None) -> str:
        """Return the URL of this search, made only of parameters that were used; with *cursor*, of the page there."""
        pairs = [pair for pair in self.pairs if cursor is None or pair[0] not in {"_cursor", "_offset"}]
        if cursor is not None:
            pairs.append(("_cursor", cursor))
        text = "&".join(f"{quote(name, safe=':._-')}={quote(value, safe=':/|,._-$')}" for name, value in pairs)
        root = f"{base.rstrip('/')}/{self.resource_type}" if base else self.resource_type
        return f"{root}?{text}" if text else root
