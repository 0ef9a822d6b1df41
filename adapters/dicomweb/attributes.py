"""Rows of the imaging index as DICOM JSON (PS3.18 annex F), with the attributes that a search must return.

Required and optional attributes are those of PS3.18 tables 10.6.3-3 (studies), -4 (series) and -5 (instances). What the
index has no column for comes from the stored header of the first instance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from fhir_mappings.text import has_han
from hub.attribute_matching import Level
from hub.errors import Category, HubError
from hub.ports import InstanceRow

Json = dict[str, Any]
#: Tags from the outermost sequence to an attribute, each as eight hex digits.
Path = tuple[str, ...]

_STUDY_COLUMNS = (
    "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientName", "PatientID", "PatientBirthDate",
    "PatientSex", "StudyInstanceUID", "StudyID",
)  # fmt: skip
_SERIES_COLUMNS = (
    "Modality", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber", "SeriesDate", "SeriesTime", "BodyPartExamined",
    "PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime",
)  # fmt: skip
_INSTANCE_COLUMNS = (
    "SOPClassUID", "SOPInstanceUID", "InstanceNumber", "Rows", "Columns", "BitsAllocated", "NumberOfFrames",
)  # fmt: skip
_VR = {
    "StudyDate": "DA", "StudyTime": "TM", "AccessionNumber": "SH", "ReferringPhysicianName": "PN", "PatientName": "PN",
    "PatientID": "LO", "PatientBirthDate": "DA", "PatientSex": "CS", "StudyInstanceUID": "UI", "StudyID": "SH",
    "Modality": "CS", "SeriesDescription": "LO", "SeriesInstanceUID": "UI", "SeriesNumber": "IS", "SeriesDate": "DA",
    "SeriesTime": "TM", "BodyPartExamined": "CS", "PerformedProcedureStepStartDate": "DA",
    "PerformedProcedureStepStartTime": "TM", "SOPClassUID": "UI", "SOPInstanceUID": "UI", "InstanceNumber": "IS",
    "Rows": "US", "Columns": "US", "BitsAllocated": "US", "NumberOfFrames": "IS",
}  # fmt: skip
_TAG = {keyword: f"{tag_for_keyword(keyword):08X}" for keyword in _VR}

#: Attributes of the patient and study modules and of the series modules, which are the same in every instance.
_STUDY_TAGS = frozenset(
    [
        "00080020",
        "00080030",
        "00080050",
        "00080051",
        "00080090",
        "00080096",
        "0008009C",
        "00080201",
        "00081030",
        "00081032",
        "00081048",
        "00081060",
        "00081080",
        "00081084",
        "00081110",
        "0020000D",
        "00200010",
        "00321032",
        "00321033",
        "00321060",
        "00321064",
        "00380010",
        "00380500",
    ]
)
_SERIES_TAGS = frozenset(
    [
        "00080021",
        "00080031",
        "00080060",
        "00080068",
        "00080070",
        "00080080",
        "00080081",
        "0008103E",
        "0008103F",
        "00081010",
        "00081040",
        "00081050",
        "00081052",
        "00081070",
        "00081090",
        "00081111",
        "00180015",
        "00181000",
        "00181020",
        "00181030",
        "00185100",
        "0020000E",
        "00200011",
        "00200052",
        "00200060",
        "00201040",
        "00400244",
        "00400245",
        "00400250",
        "00400251",
        "00400253",
        "00400254",
        "00400260",
        "00400275",
    ]
)
#: Attributes that the hub derives and returns where they belong.
_DERIVED = frozenset({"00080005", "00080056", "00080061", "00080062", "00081190", "00201206", "00201208", "00201209"})
_TIMEZONE, _REQUEST_ATTRIBUTES = "00080201", "00400275"
_REQUEST_KEYS = ("00400009", "00401001")
#: What a search returns of the requests of a series in any case (PS3.18 table 10.6.3-4).
REQUEST_PATHS: tuple[Path, ...] = tuple((_REQUEST_ATTRIBUTES, tag) for tag in _REQUEST_KEYS)


def tag_of(name: str) -> str:
    """Return the tag, as eight hex digits, that *name* means: a keyword or a tag.

    Raises:
        HubError: incorrect when it is neither.
    """
    first = name.strip()
    if len(first) == 8 and all(char in "0123456789abcdefABCDEF" for char in first):
        return first.upper()
    tag = tag_for_keyword(first)
    if tag is None:
        raise HubError(
            Category.INCORRECT,
            "The query names an attribute that DICOM does not have.",
            where=first[:64],
            remedy="Use a DICOM keyword such as PatientID, or a tag such as 00100020.",
        )
    return f"{tag:08X}"


def path_of(name: str) -> tuple[str, ...]:
    """Return the tags of a dotted path, such as ``00400275.00400009`` or their keywords (PS3.18 section 8.3.4.1).

    Raises:
        HubError: incorrect as :func:`tag_of`, or when a step but the last is no sequence.
    """
    steps = tuple(tag_of(step) for step in name.split("."))
    for step in steps[:-1]:
        # A private sequence has no entry in the dictionary, and is taken at its word.
        if not int(step[3], 16) & 1 and vr_of(step) != "SQ":
            raise HubError(
                Category.INCORRECT,
                "Only a sequence can hold another attribute.",
                where=name[:128],
                remedy="Write SEQUENCE.ATTRIBUTE, by keywords or tags.",
            )
    return steps


def vr_of(tag: str) -> str:
    """Return the value representation that the data dictionary gives *tag*; ``""`` where it has none."""
    try:
        return str(dictionary_VR(int(tag, 16)))
    except KeyError:
        return ""


def keyword_of(name: str) -> str:
    """Return the DICOM keyword that *name* means; raises HubError(incorrect) as :func:`tag_of`."""
    tag = tag_of(name)
    keyword = keyword_for_tag(int(tag, 16))
    if not keyword:
        raise HubError(
            Category.INCORRECT,
            "Private and unknown attributes cannot be matched.",
            where=tag,
            remedy="Use an attribute of the DICOM data dictionary.",
        )
    return keyword


def study(row: Mapping[str, Any], url: str) -> Json:
    """Return the study attributes of a study row."""
    found: Json = {"00080005": _value("CS", "ISO_IR 192"), "00080056": _value("CS", "ONLINE")}
    for keyword in _STUDY_COLUMNS:
        _put(found, keyword, row[keyword])
    found["00100010"] = person_name(row["PatientName"], row["PatientNamePinyin"])
    modalities = [code for code in row["ModalitiesInStudy"].split("\\") if code]
    found["00080061"] = {"vr": "CS", "Value": modalities} if modalities else {"vr": "CS"}
    classes = [code for code in row["SOPClassesInStudy"].split("\\") if code]
    if classes:
        found["00080062"] = {"vr": "UI", "Value": classes}
    for tag, keyword, vr in (("00081030", "StudyDescription", "LO"), ("00100021", "IssuerOfPatientID", "LO")):
        if row[keyword]:
            found[tag] = _value(vr, row[keyword])
    found["00081190"] = _value("UR", url)
    found["00201206"] = _value("IS", row["NumberOfStudyRelatedSeries"])
    found["00201208"] = _value("IS", row["NumberOfStudyRelatedInstances"])
    return found


def series(row: Mapping[str, Any], url: str, header: Mapping[str, Any]) -> Json:
    """Return the series attributes of a series row, with what its first *header* adds."""
    found: Json = {"00080005": _value("CS", "ISO_IR 192"), "0020000D": _value("UI", row["StudyInstanceUID"])}
    for keyword in _SERIES_COLUMNS:
        _put(found, keyword, row[keyword])
    found["00081190"] = _value("UR", url)
    found["00201209"] = _value("IS", row["NumberOfSeriesRelatedInstances"])
    if _TIMEZONE in header:
        found[_TIMEZONE] = header[_TIMEZONE]
    requests = header.get(_REQUEST_ATTRIBUTES, {}).get("Value")
    if requests:
        found[_REQUEST_ATTRIBUTES] = {
            "vr": "SQ",
            "Value": [{tag: item[tag] for tag in _REQUEST_KEYS if tag in item} for item in requests],
        }
    return found


def instance(row: InstanceRow, url: str, header: Mapping[str, Any]) -> Json:
    """Return the instance attributes of an instance row."""
    found: Json = {
        "00080005": _value("CS", "ISO_IR 192"),
        "00080056": _value("CS", "ONLINE"),
        "0020000D": _value("UI", row.StudyInstanceUID),
        "0020000E": _value("UI", row.SeriesInstanceUID),
        "00081190": _value("UR", url),
        "00083002": _value("UI", row.TransferSyntaxUID),
    }
    for keyword in _INSTANCE_COLUMNS:
        value = getattr(row, keyword)
        if value not in (None, ""):
            _put(found, keyword, value)
    if _TIMEZONE in header:
        found[_TIMEZONE] = header[_TIMEZONE]
    return found


def beyond(level: Level, header: Mapping[str, Any], wanted: Iterable[Path], *, everything: bool) -> Json:
    """Return what ``includefield`` asks of *header* that belongs to *level*; bulk stays out of searches.

    A path into a sequence returns its items with what was asked of them alone, unless the sequence itself was asked for.
    """
    paths = sorted((tag,) for tag in header) if everything else sorted(set(wanted), key=len)
    found: Json = {}
    for path in paths:
        if belongs(level, path[0]):
            _take(header, found, path)
    return found


def _take(source: Mapping[str, Any], found: Json, path: Path) -> None:
    """Copy what stands at *path* in *source* to the same place in *found*."""
    tag = path[0]
    element = source.get(tag)
    if element is None or "BulkDataURI" in element:
        return
    if len(path) == 1:
        found[tag] = without_bulk(element)
        return
    items = element.get("Value") or ()
    if tag not in found:
        found[tag] = {"vr": "SQ", "Value": [{} for _ in items]} if items else {"vr": "SQ"}
    for item, copy in zip(items, found[tag].get("Value", ()), strict=False):
        _take(item, copy, path[1:])


def without_bulk(element: Json) -> Json:
    """Return *element* without the bulk data that its items refer to: those addresses belong to metadata."""
    if element["vr"] != "SQ" or "Value" not in element:
        return element
    return {
        "vr": "SQ",
        "Value": [
            {tag: without_bulk(one) for tag, one in (item or {}).items() if "BulkDataURI" not in one}
            for item in element["Value"]
        ],
    }


def belongs(level: Level, tag: str) -> bool:
    """Return whether the attribute is the same for everything on *level*, so that a search there may return it."""
    if level == "instance" or tag.startswith("0010") or tag in _STUDY_TAGS or tag in _DERIVED:
        return True
    return level == "series" and tag in _SERIES_TAGS


def parents(header: Mapping[str, Any]) -> Json:
    """Return the study and series attributes of *header*, for searches that are not inside one study."""
    tags = {_TAG[keyword] for keyword in (*_STUDY_COLUMNS, *_SERIES_COLUMNS)}
    return {tag: header[tag] for tag in sorted(tags) if tag in header}


def person_name(name: str, alphabetic: str) -> Json:
    """Return a person name element; *name* is the ideographic group where there is one."""
    if not name:
        return {"vr": "PN"}
    if has_han(name) and alphabetic and alphabetic != name:
        return {"vr": "PN", "Value": [{"Alphabetic": alphabetic, "Ideographic": name}]}
    return {"vr": "PN", "Value": [{"Alphabetic": name}]}


def _put(found: Json, keyword: str, value: Any) -> None:
    vr = _VR[keyword]
    if vr == "PN":
        found[_TAG[keyword]] = person_name(value, "")
        return
    if vr == "IS" and isinstance(value, str):
        try:
            value = int(value) if value else ""
        except ValueError:
            # A number string that is none is handed on as it came.
            pass
    found[_TAG[keyword]] = _value(vr, value)


def _value(vr: str, value: Any) -> Json:
    return {"vr": vr} if value in ("", None) else {"vr": vr, "Value": [value]}
