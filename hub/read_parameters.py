"""Parameters of FHIR reads that are no search: paging, moments, summaries (https://hl7.org/fhir/R4/http.html#read)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import quote

from fhir_mappings.definitions.dates import range_us
from fhir_mappings.errors import MalformedError
from hub.clock import from_us
from hub.errors import Category, HubError
from hub.search import DEFAULT_COUNT, MAX_COUNT, parse

Pairs = Sequence[tuple[str, str]]

#: Search parameters whose values never enter the audit trail: they are words about a person.
_PRIVATE = re.compile(
    r"name|address|phone|email|telecom|family|given|phonetic|identifier|text|:contains|:exact", re.IGNORECASE
)


def controls(pairs: Pairs, allowed: set[str], *, lenient: bool = False) -> dict[str, str]:
    """Return the parameters *allowed*, each given once; raises HubError for others, which *lenient* leaves out."""
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in {"_format", "_pretty"}:
            continue
        if name not in allowed:
            if lenient:
                continue
            raise HubError(
                Category.UNSUPPORTED,
                "An unknown parameter.",
                where="query",
                remedy=f"Supported here: {', '.join(sorted(allowed))}.",
                status=400,
                issue_code="not-supported",
            )
        if name in found:
            raise HubError(Category.INCORRECT, "It may be given once.", where=name)
        found[name] = value
    return found


def shape(type: str, pairs: Pairs) -> tuple[str | None, tuple[str, ...]]:
    """Return ``_summary`` and ``_elements`` of a read."""
    given = controls(pairs, {"_summary", "_elements"})
    if not given:
        return None, ()
    query = parse(type, list(given.items()))
    if query.summary in {"true", "count"}:
        raise HubError(Category.UNSUPPORTED, "A read takes _summary=text or data.", where="_summary", status=400)
    return query.summary, query.elements


def count_of(given: dict[str, str]) -> int:
    """Return ``_count`` within its bounds; raises HubError(incorrect) for what is no whole number."""
    value = given.get("_count", str(DEFAULT_COUNT))
    if not (value.isascii() and value.isdigit() and len(value) <= 9):
        raise HubError(Category.INCORRECT, "Expected a whole number.", where="_count")
    return max(1, min(int(value), MAX_COUNT))


def moment_of(text: str, where: str) -> datetime:
    """Return an instant; raises HubError(incorrect), naming *where*."""
    try:
        found = datetime.fromisoformat(text.replace(" ", "+"))
    except ValueError as error:
        raise HubError(Category.INCORRECT, "Expected an instant with a time zone.", where=where) from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def position_of(text: str) -> tuple[datetime, str]:
    """Return where a page of a history begins; raises HubError(incorrect) for a link that is none of this hub."""
    moment, _, key = text.partition(".")
    if not re.fullmatch(r"\d{1,17}", moment) or not re.fullmatch(r"[A-Za-z]+/[A-Za-z0-9\-.]{1,64}/\d{1,9}", key):
        raise HubError(Category.INCORRECT, "The page link is not one of this hub.", where="_before")
    return from_us(int(moment)), key


def date_bounds(value: str) -> dict[str, str]:
    """Return ``since`` and ``until`` of a date parameter (https://hl7.org/fhir/R4/search.html#date)."""
    prefix, text = (value[:2], value[2:]) if value[:2].isalpha() else ("eq", value)
    try:
        low, high = range_us(text.replace(" ", "+"))
    except MalformedError as error:
        raise HubError(Category.INCORRECT, error.message, where="date", remedy=error.remedy) from error
    bounds = {
        "eq": {"since": low, "until": high},
        "ge": {"since": low},
        "gt": {"since": high},
        "sa": {"since": high},
        "le": {"until": high},
        "lt": {"until": low},
        "eb": {"until": low},
    }.get(prefix)
    if bounds is None:
        raise HubError(Category.UNSUPPORTED, "Use eq, ge, gt, le, lt, sa or eb.", where="date", status=400)
    return {name: from_us(moment).isoformat() for name, moment in bounds.items()}


def url_of(url: str, pairs: Sequence[tuple[str, str]]) -> str:
    """Return *url* with its query."""
    text = "&".join(f"{name}={quote(value, safe=':/|,._-$')}" for name, value in pairs)
    return f"{url}?{text}" if text else url


def query_text(type: str, pairs: Pairs) -> str:
    """Return the query as the audit trail keeps it: values that describe a person are left out."""
    shown = [f"{name}=" if _PRIVATE.search(name) else f"{name}={value}" for name, value in pairs]
    return f"{type}?{'&'.join(shown)}"
