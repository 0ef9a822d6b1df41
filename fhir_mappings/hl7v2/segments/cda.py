"""A clinical document (HL7 CDA R2) inside OBX-5 of an MDM: its sections as a Composition of the message's patient.

The message says whose document it is and which one (PID, TXA); the document adds its sections, what it carries inside, and
whatever its header says and the message does not. One that speaks of another person than PID is refused with the message
where resident identity numbers say so; where only other numbers or the birth date differ, the message decides and a warning
tells it. One that cannot be read stays an attachment, with a warning.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from fhir_mappings.cda.document import is_document
from fhir_mappings.cda.translate import CONTENT_TYPE, Clinical, translate
from fhir_mappings.errors import MalformedError, MappingError
from fhir_mappings.hl7v2.assembly import Assembly, Place, where
from fhir_mappings.hl7v2.base import Upsert
from fhir_mappings.hl7v2.tokenizer import Segment
from fhir_mappings.identifiers import RESIDENT_ID, check_resident_id, patient_key

Json = dict[str, Any]

__all__ = ["CONTENT_TYPE", "Inside", "complete", "is_document", "read"]

#: What the document's header may add to a DocumentReference that the message says nothing of, in the order of FHIR.
_COMPLETED = ("docStatus", "type", "date", "author", "authenticator", "custodian", "description", "securityLabel")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """A clinical document that was read.

    Attributes:
        composition: its Composition, of the message's patient and visit.
        clinical: all that it says.
        encounter: reference of its visit; empty where the message names one, or where the patients may differ.
        agrees: nothing in it speaks of another patient than PID's.
    """

    composition: Json
    clinical: Clinical
    encounter: str
    agrees: bool


def read(data: bytes, segment: Segment, keeper: str, encounter: str | None, assembly: Assembly) -> Inside | None:
    """Add the Composition of the document *data* that stood in *segment* and the bytes that it carries inside.

    *keeper* is the message's DocumentReference. Returns ``None`` where the document cannot be read.

    Raises:
        MalformedError: code 204, the document is about a person with another resident identity number than PID's.
    """
    try:
        clinical = translate(data, assembly.ctx, keeper=keeper)
    except MappingError as error:
        Place(assembly, segment, 5).warn(
            f"The clinical document in OBX-5 was kept unread: {error.message} ({error.where}).", code="structure"
        )
        return None
    agrees = _same_patient(clinical, segment, assembly)
    for person in clinical.people:
        assembly.intern(person)
    visit = clinical.visit if agrees and not encounter else None
    stated = ""
    if visit:
        patient = {"reference": f"Patient/{assembly.patient_id}"}
        stated = assembly.intern({**visit, "subject": patient})
    made = {key: value for key, value in clinical.composition.items() if key != "encounter"}
    made["subject"] = {"reference": f"Patient/{assembly.patient_id}"}
    if encounter or stated:
        made["encounter"] = {"reference": encounter or stated}
    assembly.upsert(made, guard="demographics")
    assembly.changes.extend(clinical.parts)
    assembly.issues.extend(clinical.translation.issues)
    return Inside(composition=made, clinical=clinical, encounter=stated, agrees=agrees)


def complete(document: Json, inside: Inside, cleared: Collection[str], assembly: Assembly) -> None:
    """Add to *document*, the message's DocumentReference, what *inside* says and the message does not.

    What the message says or nulls (*cleared*) stays as it says; numbers are united, so that the document is found by its own.
    """
    own = inside.clinical.document
    for name in _COMPLETED:
        if name not in document and name not in cleared and (said := _said(name, own, assembly)):
            document[name] = said
    numbers = [own["masterIdentifier"], *own.get("identifier", [])]
    known = [document["masterIdentifier"], *document.get("identifier", [])]
    if added := [one for one in numbers if one not in known]:
        document["identifier"] = [*document.get("identifier", []), *added]
    document.setdefault("context", {}).setdefault("related", []).append(
        {"reference": f"Composition/{inside.composition['id']}"}
    )
    if not inside.agrees:
        # Its visit, its parents and the numbers of its patient may be another patient's.
        return
    context = document["context"]
    if inside.encounter:
        context.setdefault("encounter", [{"reference": inside.encounter}])
    for name in ("period", "practiceSetting"):
        if name in own["context"]:
            context.setdefault(name, own["context"][name])
    context["related"] += [one for one in own["context"]["related"] if "identifier" in one]
    _relate(document, own, assembly)


def _said(name: str, own: Json, assembly: Assembly) -> Any:
    if name != "author":
        return own.get(name)
    # A Composition must have an author, so its keeper stands in for one; a DocumentReference need not have any.
    stand_ins = (own.get("custodian"), {"display": assembly.ctx.institution})
    return [one for one in own["author"] if one not in stand_ins]


def _relate(document: Json, own: Json, assembly: Assembly) -> None:
    """Add the document's own relations; TXA-13 with the same meaning names the same parent by the message's number."""
    if document["status"] == "entered-in-error":
        return
    told = {one["code"] for one in document.get("relatesTo", [])}
    for one in own.get("relatesTo", []):
        if one["code"] in told:
            continue
        document.setdefault("relatesTo", []).append(one)
        if one["code"] == "replaces":
            parent = one["target"]["reference"].partition("/")[2]
            assembly.upsert(
                {"resourceType": "DocumentReference", "id": parent, "status": "superseded"}, update_only=True
            )


# --- whose document ----------------------------------------------------------------------------------------------


def _same_patient(clinical: Clinical, segment: Segment, assembly: Assembly) -> bool:
    """Return whether the document speaks of PID's patient as far as both say; what differs is told by a warning.

    Raises:
        MalformedError: code 204, the resident identity numbers are of two persons.
    """
    patient = next(_patients(assembly), {})
    stated, known = clinical.target.resident_ids, _resident_ids(patient)
    if stated and known:
        if stated & known:
            return True
        raise MalformedError(
            "OBX-5 中文书的患者与 PID 不符 / The document in OBX-5 is about another person than PID.",
            where=where(segment, 5),
            remedy="Send each document with the PID of its own patient.",
            code=204,
        )
    differing = list(_differences(clinical, patient))
    if differing:
        Place(assembly, segment, 5).warn(
            f"The document names another patient than PID by {' and '.join(differing)}; it was filed for PID's patient."
            " Find out whose it is, and send the message again with the right PID.",
            code="conflict",
        )
    return not differing


def _differences(clinical: Clinical, patient: Json) -> Iterator[str]:
    numbers: dict[str, set[str]] = {}
    for one in patient.get("identifier", []):
        numbers.setdefault(str(one.get("system", "")), set()).add(patient_key(str(one.get("value", ""))))
    shared = [(system, patient_key(value)) for system, value in clinical.target.own_numbers if system in numbers]
    if shared and not any(value in numbers[system] for system, value in shared):
        yield "number"
    born, known = clinical.target.resource.get("birthDate", ""), patient.get("birthDate", "")
    # Of two precisions the coarser one may still be the same day.
    if born and known and not born.startswith(known) and not known.startswith(born):
        yield "birth date"


def _patients(assembly: Assembly) -> Iterator[Json]:
    for change in assembly.changes:
        if isinstance(change, Upsert) and change.resource["resourceType"] == "Patient":
            yield change.resource


def _resident_ids(patient: Json) -> frozenset[str]:
    checked = [
        check_resident_id(str(one.get("value", "")))
        for one in patient.get("identifier", [])
        if one.get("system") == RESIDENT_ID
    ]
    return frozenset(one.value for one in checked if one.status == "ok")
