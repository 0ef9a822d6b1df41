"""Queries of the Query/Retrieve information models: identifiers in, matches out, a page at a time (PS3.4 annex C).

An identifier asks for one level. Which keys may be matched there, and what they mean, is what QIDO-RS has too
(:mod:`hub.attribute_matching`); what is returned is what was asked, from the columns of the index and, for what those do
not hold, from the stored header of the first instance.

Each page is one look at the database with the asker's scope, and its audit line is durable before anyone sees it. No
transaction is held between two pages, so a slow reader holds nothing, and one who cancels stops the search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from fhir_mappings.json import loads
from fhir_mappings.text import has_han
from hub.access import scope_of
from hub.actor import Actor
from hub.attribute_matching import INSTANCE_KEYS, SERIES_KEYS, STUDY_KEYS, Level, Match, combined, parse
from hub.errors import Category, HubError
from hub.ports import AuditLine, InstanceRow, Tx
from hub.sequence_matching import SequenceKey, matching

if TYPE_CHECKING:
    from hub.boot import Services

Json = dict[str, Any]
QueryLevel = Literal["PATIENT", "STUDY", "SERIES", "IMAGE"]

#: Rows that are read, audited and sent before the next are looked for.
PAGE_ROWS = 200
_MANY = 100_000

_BELOW: Mapping[QueryLevel, Level] = {"PATIENT": "study", "STUDY": "study", "SERIES": "series", "IMAGE": "instance"}
#: The unique key of each level (PS3.4 tables C.6-1 to C.6-5).
UNIQUE: Mapping[QueryLevel, str] = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}

PATIENT_KEYS = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex")
#: What else the columns of the index answer, by level. Nothing is matched by these.
COUNTS: Mapping[QueryLevel, Mapping[str, str]] = {
    "PATIENT": {
        "NumberOfPatientRelatedStudies": "IS",
        "NumberOfPatientRelatedSeries": "IS",
        "NumberOfPatientRelatedInstances": "IS",
    },
    "STUDY": {"NumberOfStudyRelatedSeries": "IS", "NumberOfStudyRelatedInstances": "IS"},
    "SERIES": {"NumberOfSeriesRelatedInstances": "IS"},
    "IMAGE": {
        "NumberOfFrames": "IS",
        "Rows": "US",
        "Columns": "US",
        "BitsAllocated": "US",
        "AvailableTransferSyntaxUID": "UI",
    },
}


def _tag(keyword: str) -> str:
    return f"{tag_for_keyword(keyword):08X}"


#: Attributes that are the same in every instance of a study, beside those of the patient (PS3.3 C.7.2).
STUDY_TAGS = frozenset(
    map(
        _tag,
        (
            "AccessionNumber", "AdmissionID", "AdmittingDiagnosesCodeSequence", "AdmittingDiagnosesDescription",
            "ConsultingPhysicianName", "IssuerOfAccessionNumberSequence", "NameOfPhysiciansReadingStudy",
            "PhysiciansOfRecord", "ProcedureCodeSequence", "ReasonForPerformedProcedureCodeSequence",
            "ReferencedStudySequence", "ReferringPhysicianIdentificationSequence", "ReferringPhysicianName",
            "RequestedProcedureCodeSequence", "RequestedProcedureDescription", "RequestingPhysician",
            "RequestingService", "ServiceEpisodeDescription", "ServiceEpisodeID", "StudyDate", "StudyDescription",
            "StudyID", "StudyInstanceUID", "StudyTime", "TimezoneOffsetFromUTC",
        ),
    )
)  # fmt: skip
#: Attributes that are the same in every instance of a series (PS3.3 C.7.3, C.7.5).
SERIES_TAGS = frozenset(
    map(
        _tag,
        (
            "BodyPartExamined", "DeviceSerialNumber", "FrameOfReferenceUID", "InstitutionAddress",
            "InstitutionName", "InstitutionalDepartmentName", "Laterality", "Manufacturer", "ManufacturerModelName",
            "Modality", "OperatorsName", "PatientPosition", "PerformedProcedureStepDescription",
            "PerformedProcedureStepEndDate", "PerformedProcedureStepEndTime", "PerformedProcedureStepID",
            "PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime", "PerformedStationAETitle",
            "PerformingPhysicianIdentificationSequence", "PerformingPhysicianName", "PositionReferenceIndicator",
            "PresentationIntentType", "ProtocolName", "ReferencedPerformedProcedureStepSequence",
            "RequestAttributesSequence", "SeriesDate", "SeriesDescription", "SeriesDescriptionCodeSequence",
            "SeriesInstanceUID", "SeriesNumber", "SeriesTime", "SoftwareVersions", "StationName",
        ),
    )
)  # fmt: skip

_LEVEL, _RETRIEVE_AE, _AVAILABILITY = "00080052", "00080054", "00080056"
_NAME, _ID, _ISSUER = _tag("PatientName"), _tag("PatientID"), _tag("IssuerOfPatientID")
_MODALITIES, _CLASSES, _STUDY_UID = _tag("ModalitiesInStudy"), _tag("SOPClassesInStudy"), _tag("StudyInstanceUID")
_ZONE = _tag("TimezoneOffsetFromUTC")
#: What every answer can say, whatever the level.
_ALWAYS = frozenset({_LEVEL, _RETRIEVE_AE, _AVAILABILITY})


def _columns(level: QueryLevel) -> Mapping[str, tuple[str, str]]:
    """Return tag -> (keyword, VR) of what the index answers on *level* itself."""
    own: dict[str, str] = dict(COUNTS[level])
    if level == "PATIENT":
        own |= {name: STUDY_KEYS[name] for name in PATIENT_KEYS}
    elif level == "STUDY":
        own |= {name: vr for name, vr in STUDY_KEYS.items() if name not in PATIENT_KEYS}
    else:
        own |= SERIES_KEYS if level == "SERIES" else INSTANCE_KEYS
    return {_tag(name): (name, vr) for name, vr in own.items()}


COLUMNS: Mapping[QueryLevel, Mapping[str, tuple[str, str]]] = {level: _columns(level) for level in _BELOW}
_ORDER: tuple[QueryLevel, ...] = ("PATIENT", "STUDY", "SERIES", "IMAGE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A Query/Retrieve information model (PS3.4 section C.3)."""

    name: str
    levels: tuple[QueryLevel, ...]


PATIENT_ROOT = Model(name="Patient Root", levels=_ORDER)
STUDY_ROOT = Model(name="Study Root", levels=_ORDER[1:])
PATIENT_STUDY_ONLY = Model(name="Patient/Study Only", levels=_ORDER[:2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What an identifier asks.

    Attributes:
        keys: (keyword, value) to match by the index.
        inside: keys inside sequences.
        wanted: what is to be returned, as it was asked: tag -> element.
        partly: some key is returned but not matched, or neither; the answers say so (PS3.4 table C.4-1, FF01).
        combined: dates and times are matched as moments.
    """

    level: QueryLevel
    keys: tuple[tuple[str, str], ...]
    inside: tuple[SequenceKey, ...]
    wanted: Mapping[str, Json]
    partly: bool
    fuzzy: bool = False
    combined: bool = False


def mismatch(message: str, keyword: str, remedy: str = "") -> HubError:
    """Return the error of an identifier that does not fit its information model."""
    return HubError(Category.CONFLICT, message, where=keyword, remedy=remedy)


def read_identifier(
    attributes: Mapping[str, Json],
    model: Model,
    *,
    relational: bool = False,
    fuzzy: bool = False,
    moments: bool = False,
) -> Asked:
    """Return what *attributes*, an identifier as DICOM JSON, asks of *model* (PS3.4 sections C.4.1.2, C.4.1.3).

    Raises:
        HubError: conflict when it does not fit the model; incorrect when a value is malformed.
    """
    level = _level(attributes, model)
    above = model.levels[: model.levels.index(level)]
    if not relational:
        for one in above:
            _one_value(attributes, UNIQUE[one], level)
    keys: list[tuple[str, str]] = []
    inside: list[SequenceKey] = []
    wanted: dict[str, Json] = {}
    partly = False
    matched = _matched(level)
    for tag, element in attributes.items():
        if tag in _ALWAYS:
            wanted[tag] = element
            continue
        if not belongs(level, tag):
            # Not supported for existence: it is not returned (PS3.4 section C.2.2.1.3).
            partly = True
            continue
        wanted[tag] = element
        keyword = keyword_for_tag(int(tag, 16))
        if element.get("vr") == "SQ":
            within = list(_within(element, (tag,), keyword))
            inside += within if level != "PATIENT" else ()
            partly = partly or (bool(within) and level == "PATIENT")
        elif keyword in matched:
            keys += [(keyword, value) for value in _texts(element)]
        elif any(set(value.strip()) - {"*"} for value in _texts(element)) and tag != _ZONE:
            partly = True
    asked = Asked(
        level=level,
        keys=tuple(keys),
        inside=tuple(inside),
        wanted=wanted,
        partly=partly,
        fuzzy=fuzzy,
        combined=moments,
    )
    for _ in _spans(asked):
        # Said before anything is looked for.
        pass
    return asked


def _level(attributes: Mapping[str, Json], model: Model) -> QueryLevel:
    said = "".join(_texts(attributes.get(_LEVEL, {}))).strip()
    for level in model.levels:
        if level == said:
            return level
    raise mismatch(
        f"{model.name} has no such Query/Retrieve Level." if said else "Query/Retrieve Level is missing.",
        "QueryRetrieveLevel",
        f"Ask for {', '.join(model.levels)}.",
    )


def _one_value(attributes: Mapping[str, Json], keyword: str, level: QueryLevel) -> None:
    values = [value.strip() for value in _texts(attributes.get(_tag(keyword), {}))]
    if len(values) != 1 or not values[0] or set(values[0]) & set("\\*?"):
        raise mismatch(
            f"A query for {level} names one {keyword}.", keyword, "Negotiate relational queries, or name the one."
        )


def _matched(level: QueryLevel) -> frozenset[str]:
    if level == "PATIENT":
        return frozenset(PATIENT_KEYS)
    keys = set(STUDY_KEYS)
    if level != "STUDY":
        keys |= SERIES_KEYS.keys()
    if level == "IMAGE":
        keys |= INSTANCE_KEYS.keys()
    return frozenset(keys)


def belongs(level: QueryLevel, tag: str) -> bool:
    """Return whether *level* or one above it has the attribute, so that an answer can hold it."""
    if level == "IMAGE":
        return bool(keyword_for_tag(int(tag, 16))) or int(tag[:4], 16) % 2 == 1
    if tag.startswith("0010"):
        return True
    reached = _ORDER[: _ORDER.index(level) + 1]
    if any(tag in COLUMNS[one] for one in reached):
        return True
    return (level != "PATIENT" and tag in STUDY_TAGS) or (level == "SERIES" and tag in SERIES_TAGS)


def _texts(element: Mapping[str, Any]) -> list[str]:
    """Return the value as it is matched: one text, or for a name one for each of its groups."""
    values = [value for value in element.get("Value") or () if value is not None]
    if values and isinstance(values[0], dict):
        # The groups of a name are one condition each: all of them are the same person's.
        return [str(group) for group in values[0].values() if group]
    return ["\\".join(map(str, values))] if values else []


def _within(element: Mapping[str, Any], path: tuple[str, ...], name: str) -> Iterator[SequenceKey]:
    for item in element.get("Value") or ():
        for tag, inner in item.items() if isinstance(item, dict) else ():
            keyword = f"{name}.{keyword_for_tag(int(tag, 16)) or tag}"
            if inner.get("vr") == "SQ":
                yield from _within(inner, (*path, tag), keyword)
            else:
                for value in _texts(inner):
                    yield SequenceKey(path=(*path, tag), name=keyword, vr=str(inner["vr"]), value=value)


def _spans(asked: Asked) -> Iterator[tuple[list[tuple[str, str]], list[Match]]]:
    """Yield (keys, matches) of the queries whose answers, one behind the other, are what is asked."""
    level = _BELOW[asked.level]
    for keys in combined(asked.keys) if asked.combined else [list(asked.keys)]:
        found = [parse(name, value, level=level, fuzzy=asked.fuzzy) for name, value in keys]
        yield keys, [match for match in found if match is not None]


# --- finding -----------------------------------------------------------------------------------------------------


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
        for keys, matches in _spans(self.asked):
            extra = self._inside(keys, owner)
            if extra is not None and not extra:
                continue
            for rows in self._rows(reader[self.asked.level], [*matches, *(extra or ())], owner):
                self._audit(rows, matches)
                said = True
                answers = [self._answer(one) for one in rows if self._new(one)]
                if answers:
                    yield answers
        if not said:
            self._audit([], next(iter(_spans(self.asked)))[1])

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
        level = _BELOW[self.asked.level]
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
        return self._with_headers(tx, [_Row(place=row, study=row, patient=row) for row in found])

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
        return self._with_headers(tx, self._with_patients(tx, rows))

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
        return self._with_patients(tx, rows)

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
        return self._with_patients(tx, rows)

    def _with_patients(self, tx: Tx, rows: list[_Row]) -> list[_Row]:
        """Count the studies of the patients of *rows* where the answers are to say it."""
        if rows and not self.asked.wanted.keys().isdisjoint(map(_tag, COUNTS["PATIENT"])):
            numbers = tuple(dict.fromkeys(row.study["PatientID"] for row in rows if row.study["PatientID"]))
            match = Match(keyword="PatientID", vr="LO", kind="any", values=numbers)
            scope = scope_of(self.actor)
            found = tx.imaging.patients(scope, [match], limit=_MANY) if numbers else ()
            counted = {row["patient_id"]: row for row in found}
            for row in rows:
                row.patient = counted.get(row.study["patient_id"], {})
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
        reached = _ORDER[: _ORDER.index(self.asked.level) + 1]
        known = _ALWAYS.union(*(COLUMNS[level] for level in reached))
        return not self.asked.wanted.keys() <= known

    def _new(self, row: _Row) -> bool:
        """Return whether *row* is not a second copy of what was answered already."""
        if self.asked.level == "PATIENT":
            return True
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
            _LEVEL: {"vr": "CS", "Value": [self.asked.level]},
            _RETRIEVE_AE: {"vr": "AE", "Value": [self.services.settings.ae_title]},
        }
        for tag, element in self.asked.wanted.items():
            if tag == _AVAILABILITY:
                found[tag] = {"vr": "CS", "Value": ["ONLINE"]}
            elif tag not in found:
                found[tag] = self._element(row, tag, element)
        # The unique key is in every answer, and a number of another institution never stands without its issuer.
        unique = _tag(UNIQUE[self.asked.level])
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
        for level in _ORDER:
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
        twin: the asker's own copy of the same study matches too.
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
