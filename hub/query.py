"""The Query/Retrieve information models, and what an identifier asks of one (PS3.4 annex C).

An identifier asks for one level. Which keys may be matched there, and what they mean, is what QIDO-RS has too
(:mod:`hub.attribute_matching`); :mod:`hub.query_search` finds the answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydicom.datadict import keyword_for_tag, tag_for_keyword

from hub.attribute_matching import INSTANCE_KEYS, SERIES_KEYS, STUDY_KEYS, Level, Match, combined, parse
from hub.errors import Category, HubError
from hub.sequence_matching import SequenceKey

Json = dict[str, Any]
QueryLevel = Literal["PATIENT", "STUDY", "SERIES", "IMAGE"]

INDEX_LEVELS: Mapping[QueryLevel, Level] = {
    "PATIENT": "study",
    "STUDY": "study",
    "SERIES": "series",
    "IMAGE": "instance",
}
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


def tag_of(keyword: str) -> str:
    """Return the tag of *keyword* as eight hex digits."""
    return f"{tag_for_keyword(keyword):08X}"


#: Attributes that are the same in every instance of a study, beside those of the patient (PS3.3 C.7.2).
STUDY_TAGS = frozenset(
    map(
        tag_of,
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
        tag_of,
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

LEVEL, RETRIEVE_AE, AVAILABILITY = "00080052", "00080054", "00080056"
_ZONE = tag_of("TimezoneOffsetFromUTC")
#: What every answer can say, whatever the level.
ALWAYS = frozenset({LEVEL, RETRIEVE_AE, AVAILABILITY})


def _columns(level: QueryLevel) -> Mapping[str, tuple[str, str]]:
    """Return tag -> (keyword, VR) of what the index answers on *level* itself."""
    own: dict[str, str] = dict(COUNTS[level])
    if level == "PATIENT":
        own |= {name: STUDY_KEYS[name] for name in PATIENT_KEYS}
    elif level == "STUDY":
        own |= {name: vr for name, vr in STUDY_KEYS.items() if name not in PATIENT_KEYS}
    else:
        own |= SERIES_KEYS if level == "SERIES" else INSTANCE_KEYS
    return {tag_of(name): (name, vr) for name, vr in own.items()}


COLUMNS: Mapping[QueryLevel, Mapping[str, tuple[str, str]]] = {level: _columns(level) for level in INDEX_LEVELS}
LEVELS: tuple[QueryLevel, ...] = ("PATIENT", "STUDY", "SERIES", "IMAGE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A Query/Retrieve information model (PS3.4 section C.3)."""

    name: str
    levels: tuple[QueryLevel, ...]


PATIENT_ROOT = Model(name="Patient Root", levels=LEVELS)
STUDY_ROOT = Model(name="Study Root", levels=LEVELS[1:])
PATIENT_STUDY_ONLY = Model(name="Patient/Study Only", levels=LEVELS[:2])


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
        if tag in ALWAYS:
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
    for _ in spans(asked):
        # Said before anything is looked for.
        pass
    return asked


def _level(attributes: Mapping[str, Json], model: Model) -> QueryLevel:
    said = "".join(_texts(attributes.get(LEVEL, {}))).strip()
    for level in model.levels:
        if level == said:
            return level
    raise mismatch(
        f"{model.name} has no such Query/Retrieve Level." if said else "Query/Retrieve Level is missing.",
        "QueryRetrieveLevel",
        f"Ask for {', '.join(model.levels)}.",
    )


def _one_value(attributes: Mapping[str, Json], keyword: str, level: QueryLevel) -> None:
    values = [value.strip() for value in _texts(attributes.get(tag_of(keyword), {}))]
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
    reached = LEVELS[: LEVELS.index(level) + 1]
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


def spans(asked: Asked) -> Iterator[tuple[list[tuple[str, str]], list[Match]]]:
    """Yield (keys, matches) of the queries whose answers, one behind the other, are what is asked."""
    level = INDEX_LEVELS[asked.level]
    for keys in combined(asked.keys) if asked.combined else [list(asked.keys)]:
        found = [parse(name, value, level=level, fuzzy=asked.fuzzy) for name, value in keys]
        yield keys, [match for match in found if match is not None]
