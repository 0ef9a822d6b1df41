"""Searching workitems: C-FIND of the Unified Worklist (PS3.4 section CC.2.8) and UPS-RS Search (PS3.18 section 11.9).

Any attribute of an item can be matched. State, UIDs, accession number and patient are looked up in the index of Tasks and
choose the candidates; what stands in no index is held against the candidates one by one, :data:`MAX_CANDIDATES` of them
at most. A question that leaves more is told to name more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from pydicom.datadict import keyword_for_tag

from fhir_mappings.dicom import workitem as mapping
from fhir_mappings.identifiers import spellings
from fhir_mappings.json import loads
from hub.access import scope_of
from hub.actor import Actor
from hub.attribute_matching import Match, fits, parse_as
from hub.errors import Category, HubError
from hub.ports import AuditLine
from hub.search import Query, parse
from hub.search.values import MAX_VALUES, escape

if TYPE_CHECKING:
    from hub.boot import Services

Json = dict[str, Any]
Path = tuple[str, ...]

MAX_CANDIDATES = 5000
#: Items that are looked at, audited and sent before the next are looked for.
PAGE_ITEMS = 200
#: What a search by UPS-RS returns unasked (PS3.4 table CC.2.5-3, return key types 1 and 2), where the item has it.
RETURNED = frozenset(
    {
        "00080016", "00080018", "00100010", "00100020", "00100021", "00100030", "00100040", "00380010", "00380014",
        "0020000D", "00404005", "00404010", "00404011", "00404018", "00404021", "00404025", "00404026", "00404027",
        "00404034", "00404041", "0040A370", "00741000", "00741002", "00741200", "00741202", "00741204", "00741210",
        "00741224",
    }
)  # fmt: skip
_DT = re.compile(r"([0-9]{4}(?:[0-9]{2}){0,5})(?:\.[0-9]{1,6})?([+-](?:0[0-9]|1[0-4])[0-5][0-9])?")
_STATUS = {
    mapping.SCHEDULED: "requested",
    mapping.IN_PROGRESS: "in-progress",
    mapping.COMPLETED: "completed",
    mapping.CANCELED: "cancelled",
}
_PATIENT_ID, _ACCESSION, _STUDY = ("00100020",), (mapping.REQUESTS, "00080050"), ("0020000D",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A range of moments, as fourteen digits of the hub's zone; either may be empty."""

    low: str
    high: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key: where it stands, and what it asks."""

    path: Path
    match: Match | Span
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """An item that matches, and whose it is."""

    attributes: Json
    owner: str
    patient_id: str


def key(path: Path, vr: str, text: str, *, fuzzy: bool, zone: str) -> Key | None:
    """Return the key that *text* asks of the attribute at *path*, ``None`` for universal matching.

    Raises:
        HubError: incorrect when the value is malformed.
    """
    keyword = keyword_for_tag(int(path[-1], 16)) or path[-1]
    found: Match | Span | None
    if vr == "DT":
        found = _span(keyword, text.strip(), zone)
    else:
        found = parse_as(keyword, vr, text, fuzzy=fuzzy)
    return None if found is None else Key(path=path, match=found, text=text)


def keys_of(attributes: Mapping[str, Json], *, zone: str, path: Path = ()) -> Iterator[Key]:
    """Yield the keys of an identifier, an object of the DICOM JSON Model; raises HubError as :func:`key`."""
    for tag, element in attributes.items():
        values = [value for value in element.get("Value") or () if value is not None]
        if element.get("vr") == "SQ":
            for inner in values:
                yield from keys_of(inner, zone=zone, path=(*path, tag))
            continue
        texts = ["\\".join(map(str, values))] if values and not isinstance(values[0], dict) else []
        texts += [str(group) for value in values if isinstance(value, dict) for group in value.values() if group]
        for text in texts:
            found = key((*path, tag), str(element["vr"]), text, fuzzy=False, zone=zone)
            if found is not None:
                yield found


def selected(attributes: Mapping[str, Json], wanted: Mapping[str, Json]) -> Json:
    """Return of an item what is *wanted*, empty where it has none; an empty sequence asks for all of it."""
    found: Json = {}
    for tag, asked in wanted.items():
        element = attributes.get(tag) or {"vr": asked["vr"]}
        inner = next((one for one in asked.get("Value") or () if isinstance(one, dict)), {})
        if asked["vr"] == "SQ" and inner and element["vr"] == "SQ":
            element = {"vr": "SQ", "Value": [selected(one, inner) for one in element.get("Value") or ()]}
        found[tag] = element
    return found


def matches(keys: Iterable[Key], attributes: Mapping[str, Any], zone: str) -> bool:
    """Return whether the item with *attributes* fits all *keys*."""
    for one in keys:
        values = mapping.values(attributes, one.path)
        if isinstance(one.match, Span):
            if not any(_inside(one.match, value, zone) for value in values):
                return False
        elif not fits(one.match, values):
            return False
    return True


class WorkitemSearch:
    """One question in progress."""

    def __init__(
        self,
        services: Services,
        actor: Actor,
        keys: Sequence[Key],
        *,
        subtype: str,
        correlation_id: str,
    ) -> None:
        self._services = services
        self._actor = actor
        self._keys = tuple(keys)
        self._subtype = subtype
        self._correlation_id = correlation_id

    def pages(self) -> Iterator[list[Json]]:
        """Yield what matches, page by page; the audit line of a page is durable when it comes.

        Raises:
            HubError: incorrect when the keys leave too many candidates, also after pages have come.
        """
        said = False
        for hits in self._hits():
            if hits:
                self._audit(hits)
                said = True
                yield [one.attributes for one in hits]
        if not said:
            self._audit([])

    def page(self, *, limit: int, offset: int) -> tuple[list[Json], bool]:
        """Return *limit* matches behind the first *offset*, and whether there are more; audited, and fails as above."""
        found: list[Hit] = []
        for hits in self._hits():
            found += hits
            if len(found) > offset + limit:
                break
        shown = found[offset : offset + limit]
        self._audit(shown)
        return [one.attributes for one in shown], len(found) > offset + limit

    def _hits(self) -> Iterator[list[Hit]]:
        """Yield the matches among each page of candidates."""
        query = self._query()
        scope, seen = scope_of(self._actor), 0
        while query is not None:
            page = self._services.database.read(lambda tx, query=query: tx.records.search(query, scope))  # type: ignore[misc]
            seen += len(page.matches)
            if seen > MAX_CANDIDATES:
                raise HubError(
                    Category.INCORRECT,
                    f"The keys leave more than {MAX_CANDIDATES} workitems to look at.",
                    where="query",
                    remedy="Add the state, the patient, the accession number or a UID.",
                )
            yield [
                Hit(attributes=attributes, owner=one.owner, patient_id=one.patient_id)
                for one in page.matches
                if (attributes := mapping.attributes_of(loads(one.body))) and self._fits(attributes)
            ]
            query = replace(query, cursor=page.next_cursor) if page.next_cursor is not None else None

    def _query(self) -> Query | None:
        """Return the search whose Tasks are the candidates, ``None`` when a key names no state that there is."""
        base = self._services.settings.base_url
        code = f"{mapping.code_system(base)}|{mapping.CODE}"
        pairs = [("code", code), ("_sort", "_id"), ("_count", str(PAGE_ITEMS))]
        for one in self._keys:
            if isinstance(one.match, Span) or one.match.kind != "any":
                continue
            values = one.match.values
            if one.path == (mapping.STATE,):
                states = [_STATUS[value] for value in values if value in _STATUS]
                if not states:
                    return None
                pairs.append(("status", ",".join(states)))
            elif one.path == (mapping.INSTANCE_UID,):
                pairs.append(("identifier", ",".join("|".join(mapping.identifier_of(uid)) for uid in values)))
            elif one.path in {_ACCESSION, _STUDY}:
                pairs.append(("identifier", ",".join(map(escape, values))))
            elif one.path == _PATIENT_ID:
                spelt = list(dict.fromkeys(spelling for value in values for spelling in spellings(value)))
                if len(spelt) <= MAX_VALUES:
                    pairs.append(("patient.identifier", ",".join(map(escape, spelt))))
        return parse("Task", pairs, base_urls=[base])

    def _fits(self, attributes: Json) -> bool:
        return matches(self._keys, attributes, self._services.settings.time_zone)

    def _audit(self, hits: Sequence[Hit]) -> None:
        asked = []
        for one in self._keys:
            name = ".".join(keyword_for_tag(int(tag, 16)) or tag for tag in one.path)
            hidden = isinstance(one.match, Match) and one.match.vr == "PN"
            asked.append(f"{name}={'***' if hidden else one.text[:256]}")
        line = AuditLine(
            type="dicom",
            action="E",
            subtype=self._subtype,
            actor=self._actor,
            recorded_at=self._services.clock(),
            patients=tuple(sorted({(one.owner, one.patient_id) for one in hits if one.patient_id})),
            query=f"workitems?{'&'.join(asked)}",
            count=len(hits),
            correlation_id=self._correlation_id,
        )
        self._services.database.write(lambda tx: tx.audit.write(line))


# --- moments -----------------------------------------------------------------------------------------------------


def _span(keyword: str, text: str, zone: str) -> Span | None:
    """Return the range that a DT key asks for (PS3.4 section C.2.2.2.5); a single value is the range of its precision."""
    if not text or set(text) == {"*"}:
        return None
    ways = [(text, text)] + [(text[:at], text[at + 1 :]) for at, char in enumerate(text) if char == "-"]
    for low, high in ways:
        bounds = [_digits(part, zone, last=last) if part else "" for part, last in ((low, False), (high, True))]
        if any(bounds) and None not in bounds:
            return Span(low=bounds[0] or "", high=bounds[1] or "")
    raise HubError(
        Category.INCORRECT,
        f"The value of {keyword} is neither a moment nor a range.",
        where=keyword,
        remedy="Write 20250611, 202506110830, 20250601-20250630, 20250601- or -20250630.",
    )


def _digits(text: str, zone: str, *, last: bool) -> str | None:
    """Return the first or *last* second of a DT in *zone* as fourteen digits; ``None`` when it is no DT."""
    found = _DT.fullmatch(text)
    if found is None:
        return None
    digits, offset = found[1], found[2]
    # No month has more days than this, and days are compared as text.
    whole = digits + ("99991231235959" if last else "00000101000000")[len(digits) :]
    if offset is None or len(digits) < 10:
        return whole
    minutes = int(offset[1:3]) * 60 + int(offset[3:])
    east = timezone(timedelta(minutes=minutes if offset[0] == "+" else -minutes))
    try:
        moment = datetime.strptime(whole, "%Y%m%d%H%M%S").replace(tzinfo=east)
        return moment.astimezone(ZoneInfo(zone)).strftime("%Y%m%d%H%M%S")
    except (ValueError, OverflowError):
        return None


def _inside(span: Span, value: str, zone: str) -> bool:
    moment = _digits(value.strip(), zone, last=False)
    return moment is not None and (not span.low or moment >= span.low) and (not span.high or moment <= span.high)
