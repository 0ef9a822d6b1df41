"""Reads the header of a SOP Instance for the index (PS3.10 section 7, PS3.3)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, BinaryIO

from fhir_mappings.dicom.charset import PersonNameText, TextDecoder, choose_decoder, person_name, read_text
from fhir_mappings.dicom.elements import PIXEL_DATA, Element, Scan
from fhir_mappings.dicom.instance import InstanceHeader
from fhir_mappings.dicom.json_model import UTF8_LABEL, JsonModel, text_values
from fhir_mappings.dicom.scanner import LIMITS, ScanLimits, integer_string, scan, uid_text

_TEXT = {
    "PatientID": 0x00100020,
    "IssuerOfPatientID": 0x00100021,
    "PatientBirthDate": 0x00100030,
    "PatientSex": 0x00100040,
    "StudyDate": 0x00080020,
    "StudyTime": 0x00080030,
    "StudyID": 0x00200010,
    "StudyDescription": 0x00081030,
    "AccessionNumber": 0x00080050,
    "Modality": 0x00080060,
    "SeriesNumber": 0x00200011,
    "SeriesDescription": 0x0008103E,
    "SeriesDate": 0x00080021,
    "SeriesTime": 0x00080031,
    "BodyPartExamined": 0x00180015,
    "PerformedProcedureStepStartDate": 0x00400244,
    "PerformedProcedureStepStartTime": 0x00400245,
    "InstanceNumber": 0x00200013,
}
_UIDS = {
    "StudyInstanceUID": 0x0020000D,
    "SeriesInstanceUID": 0x0020000E,
    "SOPInstanceUID": 0x00080018,
    "SOPClassUID": 0x00080016,
}
_US = {"Rows": 0x00280010, "Columns": 0x00280011, "BitsAllocated": 0x00280100}
#: Longer text is not worth remembering; an LO has 64 characters at most.
_REMEMBERED_BYTES = 128


def read_header(
    stream: BinaryIO,
    transfer_syntax: str | None = None,
    *,
    charset_override: str | None = None,
    limits: ScanLimits = LIMITS,
) -> InstanceHeader:
    """Return the header of the object in *stream*, having proved the whole object complete.

    Args:
        stream: seekable; a Part 10 file, or a bare data set when *transfer_syntax* is given.
        charset_override: the character set an operator set for this sender.

    Raises:
        MalformedError: as :func:`fhir_mappings.dicom.scanner.scan`.
    """
    return header_of(scan(stream, transfer_syntax, limits=limits), charset_override=charset_override)


def header_of(scanned: Scan, *, charset_override: str | None = None) -> InstanceHeader:
    """Return the header of a scanned object; never fails on text."""
    top = scanned.top
    labels = _raw(top, 0x00080005).decode("ascii", "replace").strip(" \0")
    decoder = choose_decoder(
        text_values(scanned.dataset),
        [label.strip(" \0") for label in labels.split("\\")] if labels else [],
        override=charset_override,
    )
    columns: dict[str, Any] = {}
    for name, tag in _US.items():
        raw = _raw(top, tag)
        columns[name] = int.from_bytes(raw, "little" if scanned.little_endian else "big") if len(raw) == 2 else None
    for name, tag in _UIDS.items():
        columns[name] = uid_text(_raw(top, tag))
    for name, tag in _TEXT.items():
        columns[name] = _first(decoder, _raw(top, tag))
    signed = _raw(top, 0x00280103).strip(b"\0") == b"\x01"
    members = JsonModel(decoder.codec, decoder.initial, little_endian=scanned.little_endian, signed=signed).members(
        scanned.dataset
    )
    if decoder.codec != "ascii" and 0x00080005 not in top and not decoder.declared:
        members.insert(0, UTF8_LABEL)
    patient = _name(decoder, _raw(top, 0x00100010))
    referring = _name(decoder, _raw(top, 0x00080090))
    pixels = top.get(PIXEL_DATA)
    evidence = f"{decoder.evidence}, against the label" if decoder.disagrees else str(decoder.evidence)
    return InstanceHeader(
        **columns,
        TransferSyntaxUID=scanned.TransferSyntaxUID,
        PatientName=patient.ideographic or patient.alphabetic or patient.phonetic,
        PatientNamePinyin=patient.alphabetic,
        ReferringPhysicianName=referring.ideographic or referring.alphabetic,
        NumberOfFrames=integer_string(_raw(top, 0x00280008)),
        attributes=b"{" + b",".join(members) + b"}",
        charset_declared=decoder.declared,
        charset_used=decoder.codec,
        charset_evidence=evidence,
        charset_flagged=decoder.flagged or decoder.disagrees,
        pixel_offset=pixels.offset if pixels is not None and not scanned.deflated else None,
    )


def _raw(top: dict[int, Element], tag: int) -> bytes:
    element = top.get(tag)
    return element.value if element is not None and isinstance(element.value, bytes) else b""


def _first(decoder: TextDecoder, raw: bytes) -> str:
    """Return the first of the values, without padding."""
    if not raw:
        return ""
    read = _read_first if len(raw) <= _REMEMBERED_BYTES else _read_first.__wrapped__
    return read(raw, decoder.codec, decoder.initial)


# The objects of a series share nearly all of their text.
@lru_cache(maxsize=1024)
def _read_first(raw: bytes, codec: str, initial: str) -> str:
    return read_text(raw, codec, initial).split("\\", 1)[0].strip(" \0")


def _name(decoder: TextDecoder, raw: bytes) -> PersonNameText:
    text = _first(decoder, raw)
    return _short_name(text) if len(text) <= _REMEMBERED_BYTES else person_name(text)


_short_name = lru_cache(maxsize=256)(person_name)
