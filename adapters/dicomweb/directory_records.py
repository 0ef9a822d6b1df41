"""What a directory record of a file set says of its object (PS3.3 annex F, sections F.4 and F.5).

The values are those of the index, in DICOM JSON: character sets that a sender mislabelled are put right there, so a directory
shows a name as the portal shows it. What a record must have (type 1) and the object lacks gets a stand-in, as DCMTK's
``dcmmkdir --invent`` gives one, because readers refuse whole discs for the want of a Study ID; the objects stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

Json = dict[str, Any]
#: A key of a record: its tag, its VR and its type; of type 1C is what is there when the object has it.
Key = tuple[str, str, Literal["1", "1C", "2"]]

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_NUMBER: Key = ("00200013", "IS", "1")
_CONTENT: tuple[Key, ...] = (("00080023", "DA", "1"), ("00080033", "TM", "1"))
#: Content Identification Macro (PS3.3 table 10-12).
_LABELLED: tuple[Key, ...] = (_NUMBER, ("00700080", "CS", "1"), ("00700081", "LO", "2"), ("00700084", "PN", "2"))
_CONCEPT: tuple[Key, ...] = (("0040A043", "SQ", "1"), ("0040A730", "SQ", "1C"))

#: Record type -> keys (PS3.3 sections F.5.1 to F.5.45). Of a patient, birth date and sex are told too: of two with one name
#: the reader of a disc must find the right one, and any record may have more keys than it must (section F.4).
KEYS: Mapping[str, Sequence[Key]] = {
    "PATIENT": (
        ("00100010", "PN", "2"),
        ("00100020", "LO", "1"),
        ("00100030", "DA", "1C"),
        ("00100040", "CS", "1C"),
    ),
    "STUDY": (
        ("00080020", "DA", "1"),
        ("00080030", "TM", "1"),
        ("00080050", "SH", "2"),
        ("00081030", "LO", "2"),
        ("0020000D", "UI", "1"),
        ("00200010", "SH", "1"),
    ),
    "SERIES": (
        ("00080060", "CS", "1"),
        ("0008103E", "LO", "1C"),
        ("0020000E", "UI", "1"),
        ("00200011", "IS", "1"),
    ),
    "IMAGE": (_NUMBER, ("00280008", "IS", "1C")),
    "RT DOSE": (_NUMBER, ("3004000A", "CS", "1")),
    "RT STRUCTURE SET": (_NUMBER, ("30060002", "SH", "1"), ("30060008", "DA", "2"), ("30060009", "TM", "2")),
    "RT PLAN": (_NUMBER, ("300A0002", "SH", "1"), ("300A0006", "DA", "2"), ("300A0007", "TM", "2")),
    "RT TREAT RECORD": (_NUMBER, ("30080250", "DA", "2"), ("30080251", "TM", "2")),
    "PRESENTATION": (
        *_LABELLED,
        ("00700082", "DA", "1"),
        ("00700083", "TM", "1"),
        ("00081115", "SQ", "1C"),
        ("00700402", "SQ", "1C"),
    ),
    "WAVEFORM": (_NUMBER, *_CONTENT),
    "SR DOCUMENT": (
        _NUMBER,
        *_CONTENT,
        *_CONCEPT,
        ("0040A030", "DT", "1C"),
        ("0040A491", "CS", "1"),
        ("0040A493", "CS", "1"),
    ),
    "KEY OBJECT DOC": (_NUMBER, *_CONTENT, *_CONCEPT),
    "SPECTROSCOPY": (
        _NUMBER,
        *_CONTENT,
        ("00080008", "CS", "1"),
        ("00089092", "SQ", "1C"),
        ("00280008", "IS", "1"),
        ("00280010", "US", "1"),
        ("00280011", "US", "1"),
        ("00289001", "UL", "1"),
        ("00289002", "UL", "1"),
    ),
    "RAW DATA": (_NUMBER, *_CONTENT),
    "REGISTRATION": (*_LABELLED, *_CONTENT),
    "FIDUCIAL": (*_LABELLED, *_CONTENT),
    "ENCAP DOC": (
        ("00080023", "DA", "2"),
        ("00080033", "TM", "2"),
        _NUMBER,
        ("0040A043", "SQ", "2"),
        ("0040E001", "ST", "1C"),
        ("00420010", "ST", "2"),
        ("00420012", "LO", "1"),
    ),
    "VALUE MAP": (*_LABELLED, *_CONTENT),
    "STEREOMETRIC": (),
    "PLAN": (),
    "MEASUREMENT": (*_LABELLED, *_CONTENT),
    "SURFACE": (*_LABELLED, *_CONTENT),
    "SURFACE SCAN": _CONTENT,
    "TRACT": (*_LABELLED, *_CONTENT),
    "ASSESSMENT": (_NUMBER, ("00080012", "DA", "1"), ("00080013", "TM", "2")),
    "RADIOTHERAPY": (_NUMBER, ("30100033", "SH", "1C"), ("30100034", "LO", "1C"), ("00700081", "LO", "2"), ("00700084", "PN", "2")),
}  # fmt: skip

#: SOP classes below :data:`_STORAGE` whose objects are no images -> record type (PS3.3 table F.4-1). A dot at the end means
#: all classes that begin so; the longest beginning counts.
_TYPES: Mapping[str, str] = {
    "4.2": "SPECTROSCOPY",
    "9.": "WAVEFORM",
    "11.": "PRESENTATION",
    "66": "RAW DATA",
    "66.1": "REGISTRATION",
    "66.2": "FIDUCIAL",
    "66.3": "REGISTRATION",
    "66.5": "SURFACE",
    "66.6": "TRACT",
    "67": "VALUE MAP",
    "68.": "SURFACE SCAN",
    "77.1.5.3": "STEREOMETRIC",
    "78.": "MEASUREMENT",
    "78.6": "SR DOCUMENT",
    "79.1": "SR DOCUMENT",
    "80.1": "MEASUREMENT",
    "88.": "SR DOCUMENT",
    "88.59": "KEY OBJECT DOC",
    "90.1": "ASSESSMENT",
    "104.": "ENCAP DOC",
    "131": "PRESENTATION",
    "481.2": "RT DOSE",
    "481.3": "RT STRUCTURE SET",
    "481.4": "RT TREAT RECORD",
    "481.5": "RT PLAN",
    "481.6": "RT TREAT RECORD",
    "481.7": "RT TREAT RECORD",
    "481.8": "RT PLAN",
    "481.9": "RT TREAT RECORD",
}
#: Modality of the second generation's radiotherapy objects, which are many classes (PS3.3 table F.4-1).
_MODALITIES = {"RTINTENT": "RADIOTHERAPY", "RTSEGANN": "RADIOTHERAPY", "RTRAD": "RADIOTHERAPY", "PLAN": "PLAN"}

#: Dates and times of an object, in the order in which one stands in for another that is missing.
_DATES = ("00080020", "00080021", "00080023", "00080022", "00080012")
_TIMES = ("00080030", "00080031", "00080033", "00080032", "00080013")
#: Types of content items that a record repeats: those that modify the title (PS3.3 sections F.5.25, F.5.27).
_MODIFIER = "HAS CONCEPT MOD"
_CONTENT_ITEMS = "0040A730"


def record_type(SOPClassUID: str, header: Mapping[str, Any]) -> str | None:
    """Return the type of the record of an object; ``None`` for a private class without an image, which has none."""
    found = _MODALITIES.get(_first(header, "00080060"))
    if found is not None:
        return found
    rest = SOPClassUID.removeprefix(_STORAGE)
    if rest != SOPClassUID:
        steps = [rest, *(rest[: place + 1] for place in range(len(rest) - 1, 0, -1) if rest[place] == ".")]
        found = next((_TYPES[step] for step in steps if step in _TYPES), None)
    if found is None and (rest != SOPClassUID or header.get("00280010", {}).get("Value")):
        found = "IMAGE"
    return found


def record(kind: str, header: Mapping[str, Any], number: int) -> Json:
    """Return the keys of a record of type *kind* as DICOM JSON.

    Args:
        number: the place of the object among those beside it, from 1 on, which stands in for a number that it lacks.
    """
    made: Json = {}
    for tag, vr, needed in KEYS[kind]:
        values = [value for value in header.get(tag, {}).get("Value") or () if value is not None]
        if tag == _CONTENT_ITEMS:
            values = [item for item in values if _first(item, "0040A010") == _MODIFIER]
        if not any(value != "" for value in values):
            values = _stand_in(tag, kind, header, number) if needed == "1" else []
        if values or needed != "1C":
            made[tag] = {"vr": vr, "Value": values} if values else {"vr": vr}
    return made


def _stand_in(tag: str, kind: str, header: Mapping[str, Any], number: int) -> list[Any]:
    """Return what stands for a value that the object should have; nothing where any value would say what may be untrue."""
    match tag:
        case "00200013" | "00200011" | "00200010":
            return [str(number)]
        case "00080020" | "00080023" | "00700082" | "00080012":
            return [next((text for one in _DATES if (text := _first(header, one))), "19000101")]
        case "00080030" | "00080033" | "00700083":
            return [next((text for one in _TIMES if (text := _first(header, one))), "000000")]
        case "00100020":
            # A number that no other patient has on any disc.
            return [_first(header, "0020000D")]
        case "00080060":
            return ["OT"]
        case "00700080":
            return [kind]
        case "0040A491":
            return ["PARTIAL"]
        case "0040A493":
            return ["UNVERIFIED"]
        case _:
            return []


def _first(header: Mapping[str, Any], tag: str) -> str:
    values = header.get(tag, {}).get("Value") or ()
    return str(values[0]) if values and values[0] is not None else ""
