"""The Modality Worklist: imaging orders that wait for a modality of the asking institution (PS3.4 annex K).

An order is on the list of the institution that is to do it: the one that its performer names, else the one that wrote it.
It leaves the list when it is no longer active, and when a complete study or a completed performed step is based on it.
Orders come page by page, with the asker's scope and an audit line for each page, as answers of queries do (:mod:`hub.query`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from pydicom.datadict import keyword_for_tag

from fhir_mappings.dicom.worklist import Around, item, modality
from fhir_mappings.identifiers import spellings
from fhir_mappings.json import loads
from hub.access import Scope, scope_of
from hub.actor import Actor
from hub.attribute_matching import Match, fits, parse_as
from hub.identity_numbers import fulfils
from hub.ports import AuditLine, Stored, Tx
from hub.search import Query, parse
from hub.search.values import escape
from hub.wanted_attributes import selected, supported

if TYPE_CHECKING:
    from hub.boot import Services

Json = dict[str, Any]

#: Orders that are looked at, completed and matched together.
PAGE_ORDERS = 100
_MANY = 1000
_STEP, _STATION, _DAY, _HOUR, _MODALITY = "00400100", "00400001", "00400002", "00400003", "00080060"
_PATIENT_ID = ("00100020",)
#: Keys that an index of the orders answers.
_IDENTIFIERS: Mapping[tuple[str, ...], str] = {
    ("00080050",): "identifier",
    ("00402016",): "identifier",
    _PATIENT_ID: "patient.identifier",
}
_PREGNANCY = "http://loinc.org|82810-3"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Key:
    """One key of the query: where it stands, and what it asks."""

    path: tuple[str, ...]
    match: Match


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What an identifier asks.

    Attributes:
        moments: the first and the last moment, as digits, where a day and an hour are one span (PS3.4 table K.6-1).
        wanted: what is to be returned, as it was asked.
        partly: some key is not supported; the answers say so (PS3.4 table K.4-1, FF01).
    """

    keys: tuple[_Key, ...]
    wanted: Mapping[str, Json]
    days: tuple[str, str] = ("", "")
    moments: tuple[str, str] | None = None
    station: str = ""
    modality: str = ""
    partly: bool = False


def read_identifier(attributes: Mapping[str, Json], *, fuzzy: bool = False) -> Asked:
    """Return what *attributes*, an identifier as DICOM JSON, asks.

    Raises:
        HubError: incorrect when a value is malformed.
    """
    keys = list(_keys(attributes, (), fuzzy=fuzzy))
    found = {key.path: key.match for key in keys}
    asked = Asked(keys=tuple(keys), wanted=attributes, partly=not supported(attributes, TEMPLATE))
    day, hour = found.get((_STEP, _DAY)), found.get((_STEP, _HOUR))
    if day is not None:
        low, high = day.values
        asked = replace(asked, days=(low, high))
        if hour is not None and low != high:
            # A span from moment to moment, not these hours of each day.
            start, end = hour.values
            asked = replace(
                asked,
                keys=tuple(key for key in keys if key.path not in {(_STEP, _DAY), (_STEP, _HOUR)}),
                moments=(
                    low + (start[:6].ljust(6, "0") if low else ""),
                    high + (end[:6].ljust(6, "9") if high else ""),
                ),
            )
    station, kind = found.get((_STEP, _STATION)), found.get((_STEP, _MODALITY))
    return replace(asked, station=_single(station), modality=_single(kind))


def _single(match: Match | None) -> str:
    return match.values[0] if match is not None and match.kind == "any" and len(match.values) == 1 else ""


def _keys(attributes: Mapping[str, Json], path: tuple[str, ...], *, fuzzy: bool) -> Iterator[_Key]:
    for tag, element in attributes.items():
        values = [value for value in element.get("Value") or () if value is not None]
        if element.get("vr") == "SQ":
            for inner in values:
                yield from _keys(inner, (*path, tag), fuzzy=fuzzy)
            continue
        texts = ["\\".join(map(str, values))] if values and not isinstance(values[0], dict) else []
        for value in values:
            if isinstance(value, dict):
                texts += [str(group) for group in value.values() if group]
        for text in texts:
            keyword = keyword_for_tag(int(tag, 16)) or tag
            match = parse_as(keyword, str(element["vr"]), text, fuzzy=fuzzy)
            if match is not None:
                yield _Key(path=(*path, tag), match=match)


@dataclass(slots=True)
class Worklist:
    """One query of the worklist in progress."""

    services: Services
    actor: Actor
    asked: Asked
    calling_ae: str
    correlation_id: str = ""
    _seen: set[str] = field(default_factory=set)

    def pages(self) -> Iterator[list[Json]]:
        """Yield the items, page by page; the audit line of a page is durable when it comes.

        Raises:
            HubError: when the database cannot be asked.
        """
        scope, said = scope_of(self.actor), False
        for query in self._queries():
            following: str | None = None
            while True:
                asked = replace(query, cursor=following)
                items, patients, following = self.services.database.read(
                    lambda tx, asked=asked: self._page(tx, asked, scope)  # type: ignore[misc]
                )
                if items:
                    self._audit(patients, len(items))
                    said = True
                    yield [selected(one, self.asked.wanted) for one in items]
                if following is None:
                    break
        if not said:
            self._audit((), 0)

    def _queries(self) -> Iterator[Query]:
        """Yield the searches whose orders are candidates: planned in the days asked for, and else written then."""
        pairs = [("status", "active"), ("_sort", "_id"), ("_count", str(PAGE_ORDERS))]
        for key in self.asked.keys:
            name, value = _IDENTIFIERS.get(key.path), _single(key.match)
            if name is not None and value:
                spelt = spellings(value) if key.path == _PATIENT_ID else [value]
                pairs.append((name, ",".join(map(escape, spelt))))
        low, high = (_day(text, by) for text, by in zip(self.asked.days, (-1, 1), strict=True))
        bounds = [prefix + day for prefix, day in (("ge", low), ("le", high)) if day]
        found = [pairs]
        if bounds:
            planned = [("occurrence", bound) for bound in bounds]
            written = [("occurrence:missing", "true"), *(("authored", bound) for bound in bounds)]
            found = [[*pairs, *planned], [*pairs, *written]]
        for one in found:
            yield parse("ServiceRequest", one, base_urls=[self.services.settings.base_url])

    def _page(self, tx: Tx, query: Query, scope: Scope) -> tuple[list[Json], tuple[tuple[str, str], ...], str | None]:
        """Return the items of one page of orders, whose they are, and where the next page begins."""
        page = tx.records.search(query, scope)
        candidates: dict[str, tuple[Stored, Json]] = {}
        for stored in page.matches:
            body = loads(stored.body)
            if (
                stored.id not in self._seen
                and modality(body)
                and self._performer(stored, body) == self.actor.institution
            ):
                candidates[stored.id] = stored, body
        self._seen.update(candidates)
        for done in self._done(tx, candidates, scope):
            candidates.pop(done, None)
        items: list[Json] = []
        patients: set[tuple[str, str]] = set()
        around = self._around(tx, candidates, scope)
        for id_, (stored, body) in candidates.items():
            made = item(body, around[id_])
            if self._matches(made):
                items.append(made)
                patients.add((stored.owner, stored.patient_id))
        return items, tuple(sorted(patients)), page.next_cursor

    def _performer(self, stored: Stored, order: Json) -> str:
        """Return the institution that is to do *order*."""
        members = naming(self.services.settings.base_url)
        for performer in order.get("performer") or ():
            known = self.services.directory.resolve(str(performer.get("reference", "")))
            if known is not None:
                return known[0]
            identifier = performer.get("identifier") or {}
            if identifier.get("system") == members:
                return str(identifier.get("value", ""))
        return stored.owner

    def _done(self, tx: Tx, candidates: Mapping[str, Any], scope: Scope) -> set[str]:
        """Return the ids of orders that a complete study or a completed performed step is based on."""
        if not candidates:
            return set()
        wanted = ",".join(f"ServiceRequest/{id_}" for id_ in candidates)
        found: set[str] = set()
        for kind, parameter, status in (
            ("ImagingStudy", "basedon", "available"),
            ("Procedure", "based-on", "completed"),
        ):
            for one in self._search(tx, kind, [(parameter, wanted), ("status", status)], scope):
                references = (str(based.get("reference", "")) for based in loads(one.body).get("basedOn") or ())
                found.update(reference.removeprefix("ServiceRequest/") for reference in references)
        return found

    def _search(self, tx: Tx, kind: str, pairs: list[tuple[str, str]], scope: Scope) -> Iterator[Stored]:
        query = parse(kind, [*pairs, ("_count", str(_MANY))], base_urls=[self.services.settings.base_url])
        following: str | None = None
        while True:
            page = tx.records.search(replace(query, cursor=following), scope)
            yield from page.matches
            following = page.next_cursor
            if following is None:
                return

    def _around(self, tx: Tx, candidates: Mapping[str, tuple[Stored, Json]], scope: Scope) -> dict[str, Around]:
        """Return what belongs to each order, fetched for all of them together."""
        named = {id_: _references(body) for id_, (_, body) in candidates.items()}
        references = {one for each in named.values() for one in each.values()}
        found = {
            ref: loads(one.body)
            for ref, one in tx.records.get_many(sorted(references), scope).items()
            if not one.deleted
        }
        allergies: dict[str, list[Json]] = {}
        pregnancies: dict[str, Json] = {}
        women = ",".join(
            sorted(
                f"Patient/{id_}"
                for kind, id_ in found
                if kind == "Patient" and found[kind, id_].get("gender") != "male"
            )
        )
        everyone = ",".join(sorted(f"Patient/{id_}" for kind, id_ in found if kind == "Patient"))
        if everyone and self._wants("00102110"):
            pairs = [("patient", everyone), ("clinical-status", "active")]
            for one in self._search(tx, "AllergyIntolerance", pairs, scope):
                body = loads(one.body)
                allergies.setdefault(str(body["patient"]["reference"]), []).append(body)
        if women and self._wants("001021C0"):
            # The newest comes last.
            pairs = [("patient", women), ("code", _PREGNANCY), ("_sort", "date")]
            for one in self._search(tx, "Observation", pairs, scope):
                body = loads(one.body)
                pregnancies[str(body["subject"]["reference"])] = body
        settings = self.services.settings
        made = {}
        for id_, (stored, _) in candidates.items():
            refs = named[id_]
            patient = refs.get("subject")
            whom = f"Patient/{patient[1]}" if patient else ""
            made[id_] = Around(
                institution=self.actor.institution,
                owner=stored.owner,
                # An order that is given to no station may be done at any, so it is the asker's.
                station=self.asked.station or self.calling_ae,
                modality=self.asked.modality,
                time_zone=settings.time_zone,
                base=settings.base_url,
                patient=found.get(patient) if patient else None,
                encounter=found.get(refs.get("encounter", ("", ""))),
                requester=found.get(refs.get("requester", ("", ""))),
                performer=found.get(refs.get("performer", ("", ""))),
                allergies=allergies.get(whom, ()),
                pregnancy=pregnancies.get(whom),
            )
        return made

    def _wants(self, tag: str) -> bool:
        return tag in self.asked.wanted

    def _matches(self, made: Json) -> bool:
        if not all(_fits(key, made) for key in self.asked.keys):
            return False
        if self.asked.moments is None:
            return True
        low, high = self.asked.moments
        day, hour = ("".join(_values(made, (_STEP, tag))) for tag in (_DAY, _HOUR))
        moment = day + hour[:6].ljust(6, "0")
        return bool(day) and (not low or moment >= low) and (not high or moment <= high)

    def _audit(self, patients: tuple[tuple[str, str], ...], count: int) -> None:
        parts = [
            f"{key.match.keyword}={'***' if key.match.vr == 'PN' else chr(92).join(key.match.values[:5])}"
            for key in self.asked.keys
        ]
        line = AuditLine(
            type="dicom",
            action="E",
            subtype="MWL C-FIND",
            actor=self.actor,
            recorded_at=self.services.clock(),
            patients=patients,
            query=f"worklist?{'&'.join(parts)}",
            count=count,
            correlation_id=self.correlation_id,
        )
        self.services.database.write(lambda tx: tx.audit.write(line))


def naming(base: str) -> str:
    """Return the identifier system of member codes."""
    return f"{base}/NamingSystem/member"


def _day(text: str, by: int) -> str:
    """Return the date *by* days from *text*; a day of one time zone is parts of two of another."""
    if not text:
        return ""
    try:
        return (date(int(text[:4]), int(text[4:6]), int(text[6:8])) + timedelta(days=by)).isoformat()
    except (ValueError, OverflowError):
        # No day of the calendar; the items are held against the text itself.
        return ""


def _references(order: Json) -> dict[str, tuple[str, str]]:
    found = {}
    for name, kinds in (
        ("subject", ("Patient",)),
        ("encounter", ("Encounter",)),
        ("requester", ("Practitioner",)),
        ("performer", ("Practitioner",)),
    ):
        values: Any = order.get(name) or []
        for value in values if isinstance(values, list) else [values]:
            kind, _, id_ = str(value.get("reference", "")).partition("/")
            if kind in kinds and id_:
                found[name] = kind, id_
                break
    return found


def _fits(key: _Key, made: Json) -> bool:
    values = _values(made, key.path)
    # Zeros before a patient's number make no other number: who scans the card may not write those that the HIS does.
    return any(fulfils(key.match, value) for value in values) if key.path == _PATIENT_ID else fits(key.match, values)


def _values(dataset: Mapping[str, Any], path: Sequence[str]) -> Iterator[str]:
    """Yield the values at *path* in every item, as text."""
    for value in dataset.get(path[0], {}).get("Value") or ():
        if len(path) > 1:
            yield from _values(value, path[1:]) if isinstance(value, dict) else ()
        elif isinstance(value, dict):
            yield from (str(group) for group in value.values())
        elif value is not None:
            yield str(value)


#: An item of an order that says nothing: all that is supported.
TEMPLATE: Json = item(
    {"resourceType": "ServiceRequest", "id": "template"},
    Around(institution="", owner="", station="", time_zone="UTC", base=""),
)
