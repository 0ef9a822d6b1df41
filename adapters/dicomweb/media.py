"""A DICOMDIR for the files of a study (PS3.3 annex F, PS3.10 section 8): what a disc or a stick needs to be read elsewhere.

Patient, study, series and objects are four levels of records, joined by their places in the file. A record says where it
lies only in numbers of fixed length, so all are written first and joined when their lengths are known; what is held is some
hundred bytes for each object, never a file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid5

from adapters.dicomweb.directory_records import Json, record, record_type
from fhir_mappings.dicom.identifier import write
from fhir_mappings.dicom.implementation import IMPLEMENTATION_CLASS_UID
from fhir_mappings.identifiers import NAMESPACE
from fhir_mappings.json import loads
from hub.ports import InstanceRow

#: The name that every reader looks for (PS3.10 section 8.6).
NAME = "DICOMDIR"
_DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
#: A directory is always in it (PS3.10 section 8.6).
_EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
_ITEM = struct.Struct("<HHI")


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file of the set.

    Attributes:
        name: its path, steps of at most eight of ``A-Z 0-9 _`` joined by ``/`` (PS3.10 sections 8.2 and 8.5).
        row: the object in it, with its header.
        syntax: the transfer syntax that the file is in.
    """

    name: str
    row: InstanceRow
    syntax: str


@dataclass(slots=True)
class _Record:
    """A record that is written but for its two places; *below* are the records of the next level."""

    data: bytes
    below: list[_Record] = field(default_factory=list)
    place: int = 0


def directory(files: Iterable[File]) -> bytes:
    """Return a DICOMDIR of *files*, those of one study, whose series stand together.

    A file whose class has no type of record (a private one without an image) is not in it; such files may lie beside those
    that are (PS3.10 section 8.6). The same files make the same bytes.
    """
    patients: list[_Record] = []
    series: dict[str, _Record] = {}
    said = []
    for one in files:
        header: Json = loads(one.row.attributes)
        said.append(f"{one.name}|{one.row.digest}|{one.syntax}")
        kind = record_type(one.row.SOPClassUID, header)
        if kind is None:
            continue
        if not patients:
            patient = _Record(_written("PATIENT", record("PATIENT", header, 1)))
            patient.below.append(_Record(_written("STUDY", record("STUDY", header, 1))))
            patients.append(patient)
        (study,) = patients[0].below
        group = series.get(one.row.SeriesInstanceUID)
        if group is None:
            group = _Record(_written("SERIES", record("SERIES", header, len(series) + 1)))
            series[one.row.SeriesInstanceUID] = group
            study.below.append(group)
        keys = record(kind, header, len(group.below) + 1)
        group.below.append(_Record(_written(kind, keys, one)))
    return _file(patients, uuid5(NAMESPACE, "\n".join(said)))


def _written(kind: str, keys: Json, file: File | None = None) -> bytes:
    """Return a record as an item whose places are zero (PS3.3 table F.3-3)."""
    head: dict[str, Any] = {
        "00041400": {"vr": "UL", "Value": [0]},
        "00041410": {"vr": "US", "Value": [0xFFFF]},
        "00041420": {"vr": "UL", "Value": [0]},
        "00041430": {"vr": "CS", "Value": [kind]},
    }
    if file is not None:
        head["00041500"] = {"vr": "CS", "Value": file.name.split("/")}
        head["00041510"] = {"vr": "UI", "Value": [file.row.SOPClassUID]}
        head["00041511"] = {"vr": "UI", "Value": [file.row.SOPInstanceUID]}
        head["00041512"] = {"vr": "UI", "Value": [file.syntax]}
    content = write({**head, **keys}, _EXPLICIT_LITTLE)
    return _ITEM.pack(0xFFFE, 0xE000, len(content)) + content


#: Where the two places stand in a record: behind the item's head, an element of 12 bytes and one of 10.
_NEXT, _LOWER = 8 + 8, 8 + 12 + 10 + 8
#: Length of what stands before the first record in the data set: an empty CS, two UL, a US, and the head of the sequence.
_BEFORE = 8 + 12 + 12 + 10 + 12


def _file(patients: list[_Record], identity: UUID) -> bytes:
    meta = _meta(f"2.25.{identity.int}")
    order = list(_walked(patients))
    place = len(meta) + _BEFORE
    for one in order:
        one.place = place
        place += len(one.data)
    joined = {id(one): following for group in _groups(patients) for one, following in _pairs(group)}
    parts = []
    for one in order:
        parts.append(one.data[:_NEXT] + struct.pack("<I", joined[id(one)]) + one.data[_NEXT + 4 : _LOWER])
        parts.append(struct.pack("<I", one.below[0].place if one.below else 0) + one.data[_LOWER + 4 :])
    first, last = (patients[0].place, patients[-1].place) if patients else (0, 0)
    # File-set ID, the first and last record of the root, consistency (PS3.3 tables F.3-2 and F.3-3).
    before = write(
        {
            "00041130": {"vr": "CS"},
            "00041200": {"vr": "UL", "Value": [first]},
            "00041202": {"vr": "UL", "Value": [last]},
            "00041212": {"vr": "US", "Value": [0]},
        },
        _EXPLICIT_LITTLE,
    )
    records = b"".join(parts)
    sequence = struct.pack("<HH2sHI", 0x0004, 0x1220, b"SQ", 0, len(records))
    return b"".join((meta, before, sequence, records))


def _walked(group: Sequence[_Record]) -> Iterable[_Record]:
    for one in group:
        yield one
        yield from _walked(one.below)


def _groups(group: list[_Record]) -> Iterable[list[_Record]]:
    yield group
    for one in group:
        if one.below:
            yield from _groups(one.below)


def _pairs(group: list[_Record]) -> Iterable[tuple[_Record, int]]:
    """Yield each record of a level with the place of the one behind it, 0 for the last."""
    for one, following in zip(group, [*group[1:], None], strict=True):
        yield one, following.place if following is not None else 0


def _meta(SOPInstanceUID: str) -> bytes:
    """Return preamble and File Meta Information (PS3.10 table 7.1-1)."""
    content = write(
        {
            "00020001": {"vr": "OB", "InlineBinary": "AAE="},
            "00020002": {"vr": "UI", "Value": [_DIRECTORY_CLASS]},
            "00020003": {"vr": "UI", "Value": [SOPInstanceUID]},
            "00020010": {"vr": "UI", "Value": [_EXPLICIT_LITTLE]},
            "00020012": {"vr": "UI", "Value": [IMPLEMENTATION_CLASS_UID]},
        },
        _EXPLICIT_LITTLE,
    )
    length = write({"00020000": {"vr": "UL", "Value": [len(content)]}}, _EXPLICIT_LITTLE)
    return b"\0" * 128 + b"DICM" + length + content
