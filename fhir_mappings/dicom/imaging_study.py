"""The imaging index as FHIR: ImagingStudy (https://hl7.org/fhir/R4/imagingstudy.html) and what belongs to it.

The element mapping is that of the R4 page's DICOM table: Study Instance UID (0020,000D) as an identifier of system
``urn:dicom:uid``, Accession Number (0008,0050) as an ACSN identifier, series and instances by their UIDs. A Patient made
from an image header is a stub that says so in ``meta.tag``; the hospital's ADT fills it in later under the same id.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from fhir_mappings.identifiers import CANONICAL_BASE, naming_system
from fhir_mappings.text import has_han

DCM = "http://dicom.nema.org/resources/ontology/DCM"
STUDY_UID_SYSTEM = "urn:dicom:uid"
ORIGIN = f"{CANONICAL_BASE}/CodeSystem/origin"
_V2_0203 = "http://terminology.hl7.org/CodeSystem/v2-0203"
_REPRESENTATION = "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation"

#: Instances that are listed one by one; above, a series keeps its count alone and DICOMweb gives the list.
MAX_LISTED = 5000

_TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d)?([0-5]\d|60)?(?:\.(\d{1,6}))?")
_SEX = {"M": "male", "F": "female", "O": "other"}


class Instance(Protocol):
    """What is read of an instance row."""

    @property
    def SeriesInstanceUID(self) -> str: ...
    @property
    def SOPInstanceUID(self) -> str: ...
    @property
    def SOPClassUID(self) -> str: ...
    @property
    def InstanceNumber(self) -> str: ...


def imaging_study(
    study: Mapping[str, Any],
    series: Sequence[Mapping[str, Any]],
    instances: Sequence[Instance],
    *,
    id: str,
    patient: str,
    endpoint: str,
    institution: str,
    time_zone: str,
    base: str = CANONICAL_BASE,
) -> dict[str, Any]:
    """Return the ImagingStudy of *study*; rows are those of the imaging index, by DICOM keyword.

    Args:
        patient: reference to the sender's Patient; *endpoint*: reference to the DICOMweb Endpoint.
        time_zone: zone of the modality's clock, for dates that come with a time (PS3.3 C.12.1.1.8 is rarely sent).
    """
    resource: dict[str, Any] = {
        "resourceType": "ImagingStudy",
        "id": id,
        "extension": [
            {"url": f"{base}/StructureDefinition/viewer", "valueUri": viewer_path(study["StudyInstanceUID"])}
        ],
        "identifier": [study_identifier(study["StudyInstanceUID"])],
        "status": "available",
        "subject": {"reference": patient},
        "endpoint": [{"reference": endpoint}],
        "numberOfSeries": study["NumberOfStudyRelatedSeries"],
        "numberOfInstances": study["NumberOfStudyRelatedInstances"],
    }
    if study["AccessionNumber"]:
        resource["identifier"].append(
            {
                "type": {"coding": [{"system": _V2_0203, "code": "ACSN", "display": "Accession ID"}]},
                "system": naming_system(institution, "accession", base=base),
                "value": study["AccessionNumber"],
            }
        )
    modalities = [code for code in study["ModalitiesInStudy"].split("\\") if code]
    if modalities:
        resource["modality"] = [_modality(code) for code in modalities]
    started = moment(study["StudyDate"], study["StudyTime"], time_zone)
    if started:
        resource["started"] = started
    if study["ReferringPhysicianName"]:
        resource["referrer"] = {"display": display_name(study["ReferringPhysicianName"])}
    if study["StudyDescription"]:
        resource["description"] = study["StudyDescription"]
    listed = len(instances) <= MAX_LISTED
    resource["series"] = [
        _series(row, [one for one in instances if one.SeriesInstanceUID == row["SeriesInstanceUID"]], time_zone, listed)
        for row in series
    ]
    return resource


def viewer_path(StudyInstanceUID: str) -> str:
    """Return where the study is looked at in a browser, on the hub that serves the resource."""
    return f"/viewer/viewer?StudyInstanceUIDs={StudyInstanceUID}"


def study_identifier(StudyInstanceUID: str) -> dict[str, str]:
    """Return the Identifier of a Study Instance UID (https://hl7.org/fhir/R4/imagingstudy.html#notes)."""
    return {"system": STUDY_UID_SYSTEM, "value": f"urn:oid:{StudyInstanceUID}"}


def _series(row: Mapping[str, Any], instances: Sequence[Instance], time_zone: str, listed: bool) -> dict[str, Any]:
    series: dict[str, Any] = {"uid": row["SeriesInstanceUID"]}
    number = _unsigned(row["SeriesNumber"])
    if number is not None:
        series["number"] = number
    # ImagingStudy.series.modality is required; a series without one is "other" in the DICOM list.
    series["modality"] = _modality(row["Modality"] or "OT")
    if row["SeriesDescription"]:
        series["description"] = row["SeriesDescription"]
    series["numberOfInstances"] = row["NumberOfSeriesRelatedInstances"]
    if row["BodyPartExamined"]:
        series["bodySite"] = {"display": row["BodyPartExamined"]}
    started = moment(row["SeriesDate"], row["SeriesTime"], time_zone)
    if started:
        series["started"] = started
    if listed and instances:
        series["instance"] = [_instance(one) for one in instances]
    return series


def _instance(one: Instance) -> dict[str, Any]:
    instance: dict[str, Any] = {
        "uid": one.SOPInstanceUID,
        "sopClass": {"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{one.SOPClassUID}"},
    }
    number = _unsigned(one.InstanceNumber)
    if number is not None:
        instance["number"] = number
    return instance


def patient_stub(study: Mapping[str, Any], *, id: str, institution: str, base: str = CANONICAL_BASE) -> dict[str, Any]:
    """Return a minimal Patient from the demographics of an image header."""
    patient: dict[str, Any] = {
        "resourceType": "Patient",
        "id": id,
        "meta": {
            "tag": [{"system": ORIGIN, "code": "dicom-header", "display": "来自影像文件头 (from an image header)"}]
        },
    }
    if study["PatientID"]:
        patient["identifier"] = [
            {
                "type": {"coding": [{"system": _V2_0203, "code": "PI"}], "text": "患者编号"},
                "system": naming_system(institution, "patient-id", base=base),
                "value": study["PatientID"].strip(),
            }
        ]
    names = _names(study["PatientName"], study["PatientNamePinyin"])
    if names:
        patient["name"] = names
    sex = _SEX.get(study["PatientSex"].strip().upper())
    if sex:
        patient["gender"] = sex
    born = _date(study["PatientBirthDate"])
    if born is not None:
        patient["birthDate"] = born.isoformat()
    return patient


def _names(name: str, alphabetic: str) -> list[dict[str, Any]]:
    names = []
    for value in dict.fromkeys((name, alphabetic)):
        if not display_name(value):
            continue
        made: dict[str, Any] = {"text": display_name(value)}
        parts = [part.strip() for part in value.split("^")]
        if len(parts) > 1 and parts[0]:
            made["family"] = parts[0]
            given = [part for part in parts[1:3] if part]
            if given:
                made["given"] = given
        made["extension"] = [{"url": _REPRESENTATION, "valueCode": "IDE" if has_han(value) else "ABC"}]
        names.append(made)
    return names


def display_name(value: str) -> str:
    """Return a DICOM person name (PS3.5 section 6.2.1) as people write it: Han without gaps, other scripts with them."""
    group = next((part for part in value.split("=") if part.strip("^ ")), "")
    parts = [part.strip() for part in group.split("^")[:3] if part.strip()]
    return ("" if has_han(group) else " ").join(parts)


def wado_endpoint(*, id: str, institution: str, address: str, organization: str | None) -> dict[str, Any]:
    """Return the Endpoint where an institution's studies are read by DICOMweb."""
    endpoint: dict[str, Any] = {
        "resourceType": "Endpoint",
        "id": id,
        "status": "active",
        "connectionType": {
            "system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type",
            "code": "dicom-wado-rs",
        },
        "name": f"{institution} 影像 DICOMweb",
        "payloadType": [{"text": "DICOM"}],
        "payloadMimeType": ["application/dicom", "application/dicom+json"],
        "address": address,
    }
    if organization:
        endpoint["managingOrganization"] = {"reference": organization}
    return endpoint


def charset_provenance(
    study: Mapping[str, Any], *, id: str, target: str, patient: str, recorded: str, base: str = CANONICAL_BASE
) -> dict[str, Any]:
    """Return the Provenance that says how the text of a study was read against what its headers declare."""
    declared = study["charset_declared"] or "(absent)"
    return {
        "resourceType": "Provenance",
        "id": id,
        "target": [{"reference": target}, {"reference": patient}],
        "recorded": recorded,
        "activity": {
            "coding": [
                {
                    "system": f"{base}/CodeSystem/repair",
                    "code": "charset",
                    "display": "字符集修正 (character set repaired)",
                }
            ],
            "text": (
                f"(0008,0005) {declared}; read as {study['charset_used']} on the evidence of {study['charset_evidence']}"
                + ("; flagged for a person to check" if study["charset_flagged"] else "")
            ),
        },
        "agent": [
            {
                "type": {
                    "coding": [
                        {
                            "system": "http://terminology.hl7.org/CodeSystem/provenance-participant-type",
                            "code": "assembler",
                        }
                    ]
                },
                "who": {"display": "医协枢纽 Yixie Hub"},
            }
        ],
        "entity": [{"role": "source", "what": {"identifier": study_identifier(study["StudyInstanceUID"])}}],
    }


def moment(da: str, tm: str, time_zone: str) -> str:
    """Return DICOM date and time as a FHIR dateTime; the date alone where the time is unusable, or ``""``."""
    day = _date(da)
    if day is None:
        return ""
    found = _TIME.fullmatch(tm.strip())
    if found is None or found[2] is None:
        return day.isoformat()
    # A leap second has no place in FHIR's examples of time; it is the last second of its minute.
    second = min(int(found[3] or 0), 59)
    micros = int((found[4] or "").ljust(6, "0"))
    clock = time(int(found[1]), int(found[2]), second, micros, tzinfo=ZoneInfo(time_zone))
    return datetime.combine(day, clock).isoformat(timespec="milliseconds" if micros else "seconds")


def _date(da: str) -> date | None:
    text = da.strip().replace(".", "")
    if len(text) != 8 or not text.isdigit():
        return None
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return None


def study_date(study: Mapping[str, Any]) -> date | None:
    """Return the date of the study, or ``None`` where the header has none that exists."""
    return _date(study["StudyDate"])


def within(day: date, start: date, *, before: timedelta, after: timedelta) -> bool:
    """Return whether *day* lies from *before* the *start* to *after* it."""
    return start - before <= day <= start + after


def _modality(code: str) -> dict[str, str]:
    return {"system": DCM, "code": code.strip()}


def _unsigned(text: str) -> int | None:
    try:
        number = int(text)
    except ValueError:
        return None
    return number if 0 <= number < 1 << 31 else None
