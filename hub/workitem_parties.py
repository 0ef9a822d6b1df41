"""Whom a workitem is about, and which institutions are to do it (PS3.3 section B.26.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fhir_mappings.dicom import workitem as mapping
from fhir_mappings.dicom.imaging_study import patient_stub
from fhir_mappings.dicom.performed_step import first
from hub.access import UNRESTRICTED
from hub.imaging_ids import number_record_id
from hub.ports import NewVersion, Tx

if TYPE_CHECKING:
    from hub.boot import Services


def performers(services: Services, attributes: Mapping[str, Any]) -> frozenset[str]:
    """Return the institutions that are to do it: by AE title of a station, by code or name of an organization."""
    directory = services.directory
    found = set()
    for station in mapping.stations(attributes):
        members = {one.member for one in directory.all_endpoints() if one.kind == "dicom" and one.ae_title == station}
        # A title that several institutions use names none of them.
        found |= members if len(members) == 1 else set()
    for name in mapping.organizations(attributes):
        members = {one.code for one in directory.members() if one.active and name in {one.code, one.name}}
        found |= members if len(members) == 1 else set()
    return frozenset(found)


def organization(services: Services, code: str) -> str | None:
    """Return the reference to the Organization of the member *code*; ``None`` when there is no such member."""
    member = services.directory.member(code)
    return f"Organization/{member.organization_id}" if member is not None else None


def patient(services: Services, tx: Tx, owner: str, attributes: Mapping[str, Any]) -> str:
    """Return the id of the owner's Patient, made as a stub when nothing has told of it; empty for work on nobody."""
    number, issuer = (first(attributes, tag).strip() for tag in ("00100020", "00100021"))
    if not number:
        return ""
    id_ = number_record_id(owner, number, issuer)
    if tx.records.get("Patient", id_, UNRESTRICTED) is None:
        tx.records.lock_condition(f"Patient/{id_}")
        names = attributes.get("00100010", {}).get("Value") or [{}]
        row = {
            "PatientID": number,
            "PatientName": first(attributes, "00100010"),
            "PatientNamePinyin": str((names[0] or {}).get("Alphabetic", "")),
            "PatientSex": first(attributes, "00100040"),
            "PatientBirthDate": first(attributes, "00100030"),
        }
        stub = patient_stub(row, id=id_, institution=owner, base=services.settings.base_url)
        tx.records.put_many([NewVersion(resource=stub, owner=owner)])
    return id_
