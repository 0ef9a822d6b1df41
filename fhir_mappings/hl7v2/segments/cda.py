"""A clinical document (HL7 CDA R2) inside OBX-5 of an MDM: its sections as a Composition of the message's patient.

The message says whose document it is and which one (PID, TXA); the document adds its sections and who signed. One that speaks of
another person than PID is refused with the message. One that cannot be read stays an attachment, with a warning.
"""

from __future__ import annotations

from typing import Any

from fhir_mappings.cda.document import is_document
from fhir_mappings.cda.translate import CONTENT_TYPE, translate
from fhir_mappings.errors import MalformedError, MappingError
from fhir_mappings.hl7v2.assembly import Assembly, Place, where
from fhir_mappings.hl7v2.base import Upsert
from fhir_mappings.hl7v2.tokenizer import Segment
from fhir_mappings.identifiers import RESIDENT_ID, check_resident_id

Json = dict[str, Any]

__all__ = ["CONTENT_TYPE", "composition", "is_document"]


def composition(data: bytes, segment: Segment, encounter: str | None, assembly: Assembly) -> Json | None:
    """Add the Composition of the document *data* that stood in *segment*, and return it; ``None`` where it cannot be read.

    Raises:
        MalformedError: code 204, the document is about a person with another resident identity number than PID's.
    """
    try:
        clinical = translate(data, assembly.ctx)
    except MappingError as error:
        Place(assembly, segment, 5).warn(
            f"The clinical document in OBX-5 was kept unread: {error.message} ({error.where}).", code="structure"
        )
        return None
    stated = clinical.target.resident_ids
    known = _resident_ids(assembly)
    if stated and known and not stated & known:
        raise MalformedError(
            "OBX-5 中文书的患者与 PID 不符 / The document in OBX-5 is about another person than PID.",
            where=where(segment, 5),
            remedy="Send each document with the PID of its own patient.",
            code=204,
        )
    for person in clinical.people:
        assembly.intern(person)
    made = {key: value for key, value in clinical.composition.items() if key != "encounter"}
    made["subject"] = {"reference": f"Patient/{assembly.patient_id}"}
    if encounter:
        made["encounter"] = {"reference": encounter}
    assembly.upsert(made, guard="demographics")
    assembly.issues.extend(clinical.translation.issues)
    return made


def _resident_ids(assembly: Assembly) -> frozenset[str]:
    checked = [
        check_resident_id(str(one.get("value", "")))
        for change in assembly.changes
        if isinstance(change, Upsert) and change.resource["resourceType"] == "Patient"
        for one in change.resource.get("identifier", [])
        if one.get("system") == RESIDENT_ID
    ]
    return frozenset(one.value for one in checked if one.status == "ok")
