"""The rows a FHIR resource contributes to the search index, one small tuple type per search parameter type.

https://hl7.org/fhir/R4/search.html#ptypes. A row never repeats the resource's own id: the store adds it. Parameters
that live in columns of the record itself (``_id``, ``_lastUpdated``) have no rows.

How a search value S compares with a row T (https://hl7.org/fhir/R4/search.html#prefix):

======= ======================================== ========================================
prefix  dates, both half-open ``[low, high)``    numbers and quantities, T closed
======= ======================================== ========================================
``eq``  ``T.low >= S.low and T.high <= S.high``  ``T.low >= S.low and T.high < S.high``
``ne``  not ``eq``                               not ``eq``
``gt``  ``T.high > S.high``                      ``T.high > S.value``
``lt``  ``T.low < S.low``                        ``T.low < S.value``
``ge``  ``T.high > S.high or eq``                ``T.high >= S.value``
``le``  ``T.low < S.low or eq``                  ``T.low <= S.value``
``sa``  ``T.low >= S.high``                      ``T.low > S.value``
``eb``  ``T.high <= S.low``                      ``T.high < S.value``
``ap``  ``T.low < S.high and T.high > S.low``    ``T.low < S.high and T.high >= S.low``
======= ======================================== ========================================

The implicit precision of a number belongs to the search value (``5.4`` asks for ``[5.35, 5.45)``), so a plain stored
number has ``low == high``; only a Range or a comparator widens a row. An absent bound is infinite. The search side
widens ``ap`` itself, so that its ``low`` and ``high`` are compared as they stand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

#: The earliest instant a row can carry, 0001-01-01T00:00:00Z, also used for an absent start of a Period.
DATE_MIN_US: Final = -62_135_596_800_000_000
#: One past the latest instant a row can carry, 10000-01-01T00:00:00Z, also used for an absent end of a Period.
DATE_MAX_US: Final = 253_402_300_800_000_000

#: What a string row holds: the folded text itself, its full pinyin, or its pinyin initials.
StringKind = Literal["text", "pinyin", "initials"]


class TokenRow(NamedTuple):
    """A coded value.

    ``system`` is empty when the value has none. ``text`` is the folded display, text or type text for ``:text``; a row
    may carry text alone, with an empty ``code``. An Identifier with a type adds a row whose ``param`` ends in
    ``:of-type``, whose ``system`` and ``code`` are the type's system and ``typecode|value``.
    """

    param: str
    system: str
    code: str
    text: str


class StringRow(NamedTuple):
    """A text value: ``value`` is folded for matching, ``exact`` is as written (empty for pinyin kinds)."""

    param: str
    kind: StringKind
    value: str
    exact: str


class ReferenceRow(NamedTuple):
    """A reference.

    A relative reference fills ``target_type`` and ``target_id``; an absolute one fills ``url`` too (the door strips its
    own base before it stores); a canonical fills ``url`` without its version; a logical reference fills the identifier
    columns, and ``target_type`` when Reference.type says so. Absent columns are empty.
    """

    param: str
    target_type: str
    target_id: str
    url: str
    identifier_system: str
    identifier_value: str


class DateRow(NamedTuple):
    """A half-open range of instants in microseconds since 1970-01-01T00:00:00Z, as wide as the value's precision."""

    param: str
    low_us: int
    high_us: int


class NumberRow(NamedTuple):
    """A closed range; a plain number has ``low == high``."""

    param: str
    low: float
    high: float


class QuantityRow(NamedTuple):
    """A closed range with its unit: a coded unit fills ``system`` and ``code``; ``unit`` is the unit as shown."""

    param: str
    low: float
    high: float
    system: str
    code: str
    unit: str


class UriRow(NamedTuple):
    """A URI, exactly as written."""

    param: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexRows:
    """Everything one resource contributes to the index; each list is free of duplicates."""

    tokens: list[TokenRow] = field(default_factory=list)
    strings: list[StringRow] = field(default_factory=list)
    references: list[ReferenceRow] = field(default_factory=list)
    dates: list[DateRow] = field(default_factory=list)
    numbers: list[NumberRow] = field(default_factory=list)
    quantities: list[QuantityRow] = field(default_factory=list)
    uris: list[UriRow] = field(default_factory=list)
