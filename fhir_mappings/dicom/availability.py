"""The data set of an Instance Availability Notification, read and told as a FHIR Basic (PS3.4 table R.3.2-1).

The Basic says of a study how many instances are where and how soon they can be had; the notice itself is in the journal.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from fhir_mappings.dicom import commitment, identifier
from fhir_mappings.dicom.imaging_study import study_identifier
from fhir_mappings.dicom.performed_step import first, items
from fhir_mappings.dicom.scanner import ScanLimits, valid_uid
from fhir_mappings.errors import MalformedError
from fhir_mappings.identifiers import CANONICAL_BASE, naming_system

Json = dict[str, Any]

#: The longest notice, and the most instances of one; as of storage commitment, which names the same.
MAX_BYTES, MAX_INSTANCES = commitment.MAX_BYTES, commitment.MAX_REFERENCES
_LIMITS = ScanLimits(
    depth=4,
    items=MAX_INSTANCES,
    elements=8 * MAX_INSTANCES,
    element_bytes=MAX_BYTES,
    held_bytes=64 << 10,
    held_total_bytes=MAX_BYTES,
)
#: Defined terms of Instance Availability (0008,0056), PS3.3 C.4.23.1.1.
AVAILABILITIES = ("ONLINE", "NEARLINE", "OFFLINE", "UNAVAILABLE")
EXTENSION = f"{CANONICAL_BASE}/StructureDefinition/instance-availability"
_STUDY, _SERIES_SEQUENCE, _SERIES, _SOPS = "0020000D", "00081115", "0020000E", "00081199"
_CLASS, _INSTANCE, _AVAILABILITY, _AE = "00081150", "00081155", "00080056", "00080054"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What a partner says of a study.

    Attributes:
        instances: availability and Retrieve AE Title of each instance, by its UID.
    """

    StudyInstanceUID: str
    instances: dict[str, tuple[str, str]]


def read(data: bytes, transfer_syntax: str, *, charset_override: str | None = None) -> Notice:
    """Return the notice in *data*.

    Raises:
        MalformedError: it breaks the standard or a limit, or lacks what table R.3.2-1 demands.
    """
    found = identifier.read(data, transfer_syntax, charset_override=charset_override, limits=_LIMITS).attributes
    instances: dict[str, tuple[str, str]] = {}
    for series in items(found, _SERIES_SEQUENCE):
        _uid(series, _SERIES)
        for one in items(series, _SOPS):
            _uid(one, _CLASS)
            availability, title = first(one, _AVAILABILITY).strip(), first(one, _AE).strip()
            if availability not in AVAILABILITIES:
                raise MalformedError("Instance Availability is none of the defined terms.", where="(0008,0056)")
            if not title:
                raise MalformedError("Retrieve AE Title is missing.", where="(0008,0054)")
            instances[_uid(one, _INSTANCE)] = availability, title
    if not instances:
        raise MalformedError("The notice tells of no instance.", where="(0008,1115)")
    return Notice(StudyInstanceUID=_uid(found, _STUDY), instances=instances)


def basic(notice: Notice, *, id: str, SOPInstanceUID: str, institution: str, study: str, here: int, now: str) -> Json:
    """Return the notice as a Basic.

    Args:
        study: the ImagingStudy, where the hub has it; else empty.
        here: how many of its instances the hub has.
        now: when it came.
    """
    counts = Counter(availability for availability, _ in notice.instances.values())
    told = [{"url": one.lower(), "valueInteger": counts[one]} for one in AVAILABILITIES if counts[one]]
    titles = sorted({title for _, title in notice.instances.values()})
    made: Json = {
        "resourceType": "Basic",
        "id": id,
        "identifier": [
            study_identifier(notice.StudyInstanceUID),
            {"system": naming_system(institution, "availability-notice"), "value": SOPInstanceUID},
        ],
        "code": {"text": "影像可用性通知 / Instance Availability Notification"},
        "created": now[:10],
        "extension": [
            {
                "url": EXTENSION,
                "extension": [
                    {"url": "received", "valueInstant": now},
                    {"url": "instances", "valueInteger": len(notice.instances)},
                    {"url": "here", "valueInteger": here},
                    *told,
                    *({"url": "retrieve-ae", "valueString": one} for one in titles),
                ],
            }
        ],
    }
    if study:
        made["subject"] = {"reference": study}
    return made


def _uid(attributes: Json, tag: str) -> str:
    value = first(attributes, tag)
    if not valid_uid(value):
        raise MalformedError("A UID is missing or malformed.", where=f"({tag[:4]},{tag[4:]})")
    return value
