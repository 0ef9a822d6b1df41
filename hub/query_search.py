"""Searches of the Query/Retrieve service: what is asked in, matches out, a page at a time (PS3.4 section C.4.1.2).

What is returned is what was asked, from the columns of the index and, for what those do not hold, from the stored header of
the first instance.

Each page is one look at the database with the asker's scope, and its audit line is durable before anyone sees it. No
transaction is held between two pages, so a slow reader holds nothing, and one who cancels stops the search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydicom.datadict import dictionary_VR, keyword_for_tag

from fhir_mappings.json import loads
from fhir_mappings.text import has_han
from hub.access import scope_of
from hub.actor import Actor
from hub.attribute_matching import Match
from hub.identity_numbers import joined
from hub.ports import AuditLine, InstanceRow, Tx
from hub.query import (
    ALWAYS,
    AVAILABILITY,
    COLUMNS,
    COUNTS,
    INDEX_LEVELS,
    LEVEL,
    LEVELS,
    RETRIEVE_AE,
    UNIQUE,
    Asked,
    Json,
    QueryLevel,
    spans,
    tag_of,
)
from hub.sequence_matching import matching

if TYPE_CHECKING:
    from hub.boot import Services

#: Rows that are read, audited and sent before the next are looked for.
PAGE_ROWS = 200
_MANY = 100_000
_RELATED = ("related_studies", "related_series", "related_instances")
_NAME, _ID, _ISSUER = tag_of("PatientName"), tag_of("PatientID"), tag_of("IssuerOfPatientID")
_MODALITIES, _CLASSES = tag_of("ModalitiesInStudy"), tag_of("SOPClassesInStudy")


@dataclass(slots=True)
class Search:
    """One query in progress."""

    services: Services
    actor: Actor
    asked: Asked
    subtype: str = "C-FIND"
    correlation_id: str = ""
    _seen: set[str] = field(default_factory=set)

    def pages(self) -> Iterator[list[Json]]:
        """Yield the answers, page by page, each as DICOM JSON; the audit line of a page is durable when it comes.

        A query without an answer is audited too. Where several institutions hold a study the asker's own copy is
        meant, else the first in scope.

        Raises:
            HubError: when the database cannot be asked, or a key inside a sequence leaves too many candidates.
        """
        reader = {"PATIENT": self._patients, "STUDY": self._studies, "SERIES": self._series, "IMAGE": self._images}
        owner = self._copy()
        said = False
        for keys, matches in spans(self.asked):
            extra = self._inside(keys, owner)
            if extra is not None and not extra:
                continue
            for rows in self._rows(reader[self.asked.level], [*matches, *(extra or ())], owner):
                self._audit(rows, matches)
                said = True
                new = [one for one in rows if self._new(one)]
                if new:
                    yield self.services.identity.in_own_numbers(
                        self.actor,
                        [self._answer(one) for one in new],
                        [(one.study["owner"], one.study["patient_id"]) for one in new],
                        matches,
                    )
        if not said:
            self._audit([], next(iter(spans(self.asked)))[1])

    def _copy(self) -> str | None:
        """Return whose copy of the study is meant, where a query below the study names one."""
        named = [value for keyword, value in self.asked.keys if keyword == "StudyInstanceUID"]
        if self.asked.level not in {"SERIES", "IMAGE"} or len(named) != 1 or set(named[0]) & set("\\,"):
            return None
        copy = self.services.imaging.copy_of(self.actor, named[0].strip())
        return copy.owner if copy is not None else None

    def _inside(self, keys: Sequence[tuple[str, str]], owner: str | None) -> list[Match] | None:
        """Return the match that keys inside sequences come down to; empty when nothing fulfils them."""
        if not self.asked.inside:
            return None
        level = INDEX_LEVELS[self.asked.level]
        found = matching(self.services, self.actor, level, keys, self.asked.inside, owner=owner, fuzzy=self.asked.fuzzy)
        if not found:
            return []
        uids = tuple(sorted({uid for _, uid in found}))
        return [Match(keyword=UNIQUE[self.asked.level], vr="UI", kind="any", values=uids)]

    def _rows(
        self,
        read: Callable[[Tx, Sequence[Match], Any, str | None], list[_Row]],
        matches: Sequence[Match],
        owner: str | None,
    ) -> Iterator[list[_Row]]:
        last: Any = None
        while True:
            rows = self.services.database.read(lambda tx, last=last: read(tx, matches, last, owner))  # type: ignore[misc]
            if rows:
                yield rows
            if len(rows) < PAGE_ROWS:
                return
            last = rows[-1].place

    def _patients(self, tx: Tx, matches: Sequence[Match], last: Any, _owner: str | None) -> list[_Row]:
        after = last["patient_id"] if last is not None else None
        found = tx.imaging.patients(scope_of(self.actor), matches, limit=PAGE_ROWS, after=after)
        rows = [_Row(place=row, study=row, patient=row) for row in found]
        return self._with_headers(tx, self._joined(tx, rows, matches))

    def _joined(self, tx: Tx, rows: list[_Row], matches: Sequence[Match]) -> list[_Row]:
        """Let what answers under one number of the asker's be one patient, counted together."""
        persons = joined(tx, self.actor, [row.study["patient_id"] for row in rows], matches)
        present: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
        for person in persons.values():
            if person.own not in present:
                number = Match(keyword="PatientID", vr="LO", kind="any", values=person.numbers)
                studies = tx.imaging.studies(scope_of(self.actor), [*matches, number], limit=_MANY)
                present[person.own] = [one for one in studies if one["patient_id"] in {*person.own, *person.others}]
        for row in rows:
            if row.study["patient_id"] not in persons:
                continue
            person = persons[row.study["patient_id"]]
            studies = present[person.own]
            first = person.first({one["patient_id"] for one in studies})
            if row.study["patient_id"] == first:
                together = [one for one in studies if one["patient_id"] in {first, *person.others}]
                row.patient = {
                    **row.patient,
                    "related_studies": len(together),
                    "related_series": sum(one["NumberOfStudyRelatedSeries"] for one in together),
                    "related_instances": sum(one["NumberOfStudyRelatedInstances"] for one in together),
                }
            else:
                row.twin = row.study["patient_id"] in person.others
        return rows

    def _studies(self, tx: Tx, matches: Sequence[Match], last: Any, owner: str | None) -> list[_Row]:
        scope = scope_of(self.actor)
        found = tx.imaging.studies(scope, matches, limit=PAGE_ROWS, owner=owner, after=last)
        rows = [_Row(place=row, study=row) for row in found]
        foreign = [row.study["StudyInstanceUID"] for row in rows if row.study["owner"] != self.actor.institution]
        if foreign:
            uids = Match(keyword="StudyInstanceUID", vr="UI", kind="any", values=tuple(foreign))
            own = {
                row["StudyInstanceUID"]
                for row in tx.imaging.studies(scope, [*matches, uids], limit=_MANY, owner=self.actor.institution)
            }
            for row in rows:
                row.twin = row.study["owner"] != self.actor.institution and row.study["StudyInstanceUID"] in own
        return self._with_headers(tx, self._with_patients(tx, rows, matches))

    def _series(self, tx: Tx, matches: Sequence[Match], last: Any, owner: str | None) -> list[_Row]:
        found = tx.imaging.series(scope_of(self.actor), matches, limit=PAGE_ROWS, owner=owner, after=last)
        rows = [_Row(place=row, study=row["study"], series=row) for row in found]
        if self._beyond_columns():
            keys = [
                (row.study["owner"], row.study["StudyInstanceUID"], row.series["SeriesInstanceUID"]) for row in rows
            ]
            headers = tx.imaging.first_attributes(keys)
            for row, key in zip(rows, keys, strict=True):
                row.header = loads(headers.get(key, b"{}"))
        return self._with_patients(tx, rows, matches)

    def _images(self, tx: Tx, matches: Sequence[Match], last: Any, owner: str | None) -> list[_Row]:
        scope = scope_of(self.actor)
        found = tx.imaging.instances(
            scope, matches, limit=PAGE_ROWS, owner=owner, after=last, attributes=self._beyond_columns()
        )
        values = tuple(dict.fromkeys(row.SeriesInstanceUID for row in found))
        uids = Match(keyword="SeriesInstanceUID", vr="UI", kind="any", values=values)
        series = {
            (row["owner"], row["StudyInstanceUID"], row["SeriesInstanceUID"]): row
            for row in (tx.imaging.series(scope, [uids], limit=_MANY, owner=owner) if found else ())
        }
        rows = []
        for one in found:
            of = series[(one.owner, one.StudyInstanceUID, one.SeriesInstanceUID)]
            header = loads(one.attributes) if one.attributes else {}
            rows.append(_Row(place=one, study=of["study"], series=of, image=one, header=header))
        return self._with_patients(tx, rows, matches)

    def _with_patients(self, tx: Tx, rows: list[_Row], matches: Sequence[Match]) -> list[_Row]:
        """Count the studies of the patients of *rows* where the answers are to say it."""
        if rows and not self.asked.wanted.keys().isdisjoint(map(tag_of, COUNTS["PATIENT"])):
            persons = joined(tx, self.actor, [row.study["patient_id"] for row in rows], matches)
            given = [row.study["PatientID"] for row in rows if row.study["PatientID"]]
            numbers = tuple(dict.fromkeys([*given, *(one for person in persons.values() for one in person.numbers)]))
            match = Match(keyword="PatientID", vr="LO", kind="any", values=numbers)
            scope = scope_of(self.actor)
            found = tx.imaging.patients(scope, [match], limit=_MANY) if numbers else ()
            counted = {row["patient_id"]: row for row in found}
            for row in rows:
                id_ = row.study["patient_id"]
                row.patient = counted.get(id_, {})
                if id_ in persons:
                    shared = {persons[id_].first(counted), *persons[id_].others}
                    together = [counted[one] for one in shared & counted.keys()] if id_ in shared else [row.patient]
                    row.patient = {name: sum(one[name] for one in together) for name in _RELATED}
        return rows

    def _with_headers(self, tx: Tx, rows: list[_Row]) -> list[_Row]:
        if rows and self._beyond_columns():
            keys = [(row.study["owner"], row.study["StudyInstanceUID"]) for row in rows]
            headers = tx.imaging.study_attributes(keys)
            for row, key in zip(rows, keys, strict=True):
                row.header = loads(headers.get(key, b"{}"))
        return rows

    def _beyond_columns(self) -> bool:
        """Return whether something is asked that the index has no column for on this level and above."""
        reached = LEVELS[: LEVELS.index(self.asked.level) + 1]
        known = ALWAYS.union(*(COLUMNS[level] for level in reached))
        return not self.asked.wanted.keys() <= known

    def _new(self, row: _Row) -> bool:
        """Return whether *row* is not a second copy of what was answered already."""
        if self.asked.level == "PATIENT":
            return not row.twin
        uid = row.image.SOPInstanceUID if row.image else (row.series or row.study)[UNIQUE[self.asked.level]]
        if row.twin or uid in self._seen:
            return False
        self._seen.add(uid)
        return True

    def _audit(self, rows: Sequence[_Row], matches: Sequence[Match]) -> None:
        parts = [
            f"{match.keyword}={'***' if match.vr == 'PN' else chr(92).join(match.values[:5])}" for match in matches
        ]
        line = AuditLine(
            type="dicom",
            action="E",
            subtype=self.subtype,
            actor=self.actor,
            recorded_at=self.services.clock(),
            patients=tuple(sorted({(row.study["owner"], row.study["patient_id"]) for row in rows})),
            query=f"{self.asked.level.lower()}?{'&'.join(parts)}",
            count=len(rows),
            correlation_id=self.correlation_id,
        )
        self.services.database.write(lambda tx: tx.audit.write(line))

    # --- answers -------------------------------------------------------------------------------------------------

    def _answer(self, row: _Row) -> Json:
        found: Json = {
            LEVEL: {"vr": "CS", "Value": [self.asked.level]},
            RETRIEVE_AE: {"vr": "AE", "Value": [self.services.settings.ae_title]},
        }
        for tag, element in self.asked.wanted.items():
            if tag == AVAILABILITY:
                found[tag] = {"vr": "CS", "Value": ["ONLINE"]}
            elif tag not in found:
                found[tag] = self._element(row, tag, element)
        # The unique key is in every answer, and a number of another institution never stands without its issuer.
        unique = tag_of(UNIQUE[self.asked.level])
        if unique not in found:
            found[unique] = self._element(row, unique, {})
        issuer = row.study["IssuerOfPatientID"] or row.study["owner"]
        if _ID in found and row.study["PatientID"] and issuer != self.actor.institution:
            found[_ISSUER] = _value("LO", issuer)
        return found

    def _element(self, row: _Row, tag: str, asked: Mapping[str, Any]) -> Json:
        if tag == _NAME:
            return person_name(row.study["PatientName"], row.study["PatientNamePinyin"])
        if tag == _ISSUER:
            issuer = row.study["IssuerOfPatientID"] or row.study["owner"]
            return _value("LO", issuer if row.study["PatientID"] else "")
        if tag in {_MODALITIES, _CLASSES}:
            keyword, vr = COLUMNS["STUDY"][tag]
            codes = [code for code in row.study[keyword].split("\\") if code]
            return {"vr": vr, "Value": codes} if codes else {"vr": vr}
        for level in LEVELS:
            if tag in COLUMNS[level] and (source := row.source(level)) is not None:
                keyword, vr = COLUMNS[level][tag]
                return _value(vr, source(keyword))
        element = row.header.get(tag)
        if element is not None and "BulkDataURI" not in element:
            return _inner(element, asked)
        vr = str(asked.get("vr") or "UN")
        if vr == "UN" and keyword_for_tag(int(tag, 16)):
            vr = dictionary_VR(int(tag, 16)).partition(" ")[0]
        return {"vr": vr}


@dataclass(slots=True)
class _Row:
    """One match, with the rows of the levels above it.

    Attributes:
        place: where the next page goes on, if this is the last one.
        patient: the counts of the patient, where they were asked for.
        twin: the asker's own copy of the same study matches too, or the patient is answered under another record.
    """

    place: Any
    study: Mapping[str, Any]
    patient: Mapping[str, Any] = field(default_factory=dict)
    series: Any = None
    image: InstanceRow | None = None
    header: Json = field(default_factory=dict)
    twin: bool = False

    def source(self, level: QueryLevel) -> Callable[[str], Any] | None:
        """Return what gives the column of a keyword of *level*, or ``None`` where the match is above it."""
        if level == "PATIENT":
            return self._of_patient
        if level == "STUDY":
            return self.study.__getitem__
        if level == "SERIES":
            return None if self.series is None else self.series.__getitem__
        return None if self.image is None else self._of_image

    def _of_patient(self, keyword: str) -> Any:
        if keyword.startswith("NumberOfPatientRelated"):
            return self.patient.get(f"related_{keyword.removeprefix('NumberOfPatientRelated').lower()}")
        return self.study[keyword]

    def _of_image(self, keyword: str) -> Any:
        return getattr(self.image, "TransferSyntaxUID" if keyword == "AvailableTransferSyntaxUID" else keyword)


def person_name(name: str, alphabetic: str) -> Json:
    """Return a person name element; *name* is the ideographic group where there is one."""
    if not name:
        return {"vr": "PN"}
    if has_han(name) and alphabetic and alphabetic != name:
        return {"vr": "PN", "Value": [{"Alphabetic": alphabetic, "Ideographic": name}]}
    return {"vr": "PN", "Value": [{"Alphabetic": name}]}


def _value(vr: str, value: Any) -> Json:
    if value in ("", None):
        return {"vr": vr}
    if vr == "PN":
        return person_name(str(value), "")
    return {"vr": vr, "Value": [value]}


def _inner(element: Json, asked: Mapping[str, Any]) -> Json:
    """Return *element*; of the items of a sequence only what was asked for (PS3.4 section C.2.2.2.6)."""
    items = asked.get("Value") or ()
    wanted = items[0] if element.get("vr") == "SQ" and items and isinstance(items[0], dict) else {}
    if not wanted:
        return element
    found = []
    for item in element.get("Value") or ():
        found.append(
            {tag: _inner(item[tag], inner) if tag in item else {"vr": inner["vr"]} for tag, inner in wanted.items()}
        )
    return {"vr": "SQ", "Value": found}
