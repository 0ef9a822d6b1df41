"""REF^I12, I13, I14: a referral, its change and its cancellation (HL7 v2 chapter 11.5) as FHIR ServiceRequest.

The answer, acceptance or refusal, is RRI and comes from the workflow that the event of this message starts or moves.
"""

from __future__ import annotations

from typing import Any

from fhir_mappings.hl7v2.assembly import Assembly, Place, fill
from fhir_mappings.hl7v2.base import WorkflowEvent
from fhir_mappings.hl7v2.segments import al1, convert, dg1, ed, nte, obx, pid, pv1, rf1
from fhir_mappings.hl7v2.tokenizer import Segment

_EVENTS = {"I12": "referral.requested", "I13": "referral.modified", "I14": "referral.cancelled"}
_MAPPED = frozenset(
    {"MSH", "SFT", "RF1", "PRD", "CTD", "PID", "NK1", "DG1", "AL1", "OBR", "OBX", "NTE", "PV1", "PV2", "IN1"}
)
_REFERRAL = {"system": "http://snomed.info/sct", "code": "3457005", "display": "Patient referral"}


def translate(assembly: Assembly, trigger: str) -> None:
    """Add the referral.

    Raises:
        MalformedError: RF1, PRD or PID is missing (100), or RF1-6 or PID-3 is not valued (101).
    """
    message = assembly.message
    segment = assembly.require("RF1")
    assembly.require("PRD")
    number = segment.get(6).strip()
    if not number:
        raise assembly.missing(segment, 6, "Send the referral's own number in RF1-6.")
    pid.add_patient(assembly.require_one("PID"), assembly)
    encounter = pv1.mention_encounter(assembly)
    identity = assembly.ctx.id("ServiceRequest", "referral", number)
    parties = [rf1.party(item, assembly) for item in message.all("PRD")]
    receiver = next((item for item in parties if item.role == "RT"), None)
    request = _request(segment, identity, trigger, parties, assembly)
    cleared = request.pop("_cleared")
    if encounter:
        request["encounter"] = {"reference": encounter}
    al1.add_allergies(message.all("AL1"), assembly)
    conditions = dg1.add_conditions(message.all("DG1"), assembly, encounter=encounter, scope=identity)
    if conditions:
        request["reasonReference"] = [{"reference": reference} for reference, _ in conditions]
    supporting = _supporting(message.all("OBX"), number, identity, encounter, assembly)
    if supporting:
        request["supportingInfo"] = [{"reference": reference} for reference in supporting]
    reference = assembly.upsert(request, cleared=cleared, guard="demographics", defaults={"status": "active"})
    for item in message.segments:
        if item.name not in _MAPPED:
            assembly.skip(item)
    assembly.workflow_events.append(
        WorkflowEvent(
            kind=_EVENTS[trigger],
            focus=(reference,),
            placer_number=number,
            filler_number=segment.get(11).strip(),
            receiver=(receiver.institution or receiver.institution_name) if receiver else message.get("MSH-6").strip(),
            performer=receiver.code if receiver else "",
            reason=segment.get(10, 2).strip() or segment.get(10).strip(),
        )
    )


def _status(segment: Segment, trigger: str, assembly: Assembly) -> str | None:
    """RF1-1 by table 0283; the event wins, because I14 takes the referral back whatever RF1-1 still says."""
    if trigger == "I14":
        return "revoked"
    code = segment.get(1).strip()
    if not code:
        return "active" if trigger == "I12" else None
    mapped = Place(assembly, segment, 1).mapped("referral_status", code)
    return mapped.target if mapped else None


def _authored(segment: Segment, assembly: Assembly) -> str | None:
    """RF1-9, the process date; a date later than the message is somebody's deadline and not when it was written."""
    place = Place(assembly, segment, 9)
    written = convert.moment(segment.field(9), place)
    header = assembly.message.segments[0]
    sent = convert.moment(header.field(7), Place(assembly, header, 7))
    if written and sent and written > sent:
        place.warn("The process date is later than the message; the message's own time was taken.")
        return sent
    return written or sent


def _request(
    segment: Segment, identity: str, trigger: str, parties: list[rf1.Party], assembly: Assembly
) -> dict[str, Any]:
    filled = fill(rf1.ROWS, segment, assembly)
    request: dict[str, Any] = {
        "resourceType": "ServiceRequest",
        "id": identity,
        "identifier": filled.elements.pop("identifier", []),
    }
    status = _status(segment, trigger, assembly)
    if status:
        request["status"] = status
    request["intent"] = "order"
    elements = filled.elements
    elements["category"] = [{"coding": [_REFERRAL], "text": "转诊 Referral"}, *elements.get("category", [])]
    request.update(elements)
    request["subject"] = pid.patient_reference(assembly)
    authored = _authored(segment, assembly)
    if authored and trigger == "I12":
        request["authoredOn"] = authored
    performers: list[dict[str, Any]] = []
    for item in parties:
        if item.role == "RP" and item.reference:
            request["requester"] = item.reference
        elif item.role == "RT":
            if item.reference:
                performers.append(item.reference)
            if item.institution:
                performers.append(convert.institution(item.institution, assembly.ctx, item.institution_name))
            elif item.institution_name:
                performers.append({"type": "Organization", "display": item.institution_name})
            if item.department:
                request["performerType"] = {"text": item.department}
    if performers:
        request["performer"] = performers
    texts = nte.notes(assembly.message.all("NTE"))
    remark = segment.get(24).strip()
    if remark:
        texts.append({"text": remark})
    if texts:
        request["note"] = texts
    request["_cleared"] = filled.open_clears()
    return request


def _supporting(
    segments: list[Segment], number: str, identity: str, encounter: str | None, assembly: Assembly
) -> list[str]:
    """OBX under a referral are its attachments: findings as Observations, documents as DocumentReferences."""
    results = obx.Results(
        key=("referral", number), service="", status_default="final", effective={}, encounter=encounter
    )
    documents: list[str] = []
    for ordinal, segment in enumerate(segments, start=1):
        kind = segment.get(2).strip().upper()
        if kind == "ED":
            documents.append(_document(segment, f"{identity}|{ordinal}", f"ServiceRequest/{identity}", assembly))
        elif kind == "RP":
            assembly.skip(segment)
        else:
            obx.add_observation(segment, [], [], results, assembly)
    return results.references + documents


def _document(segment: Segment, key: str, request: str, assembly: Assembly) -> str:
    identity = assembly.ctx.id("DocumentReference", "referral", key)
    attachment = ed.attachment(segment, f"DocumentReference/{identity}", assembly)
    document: dict[str, Any] = {
        "resourceType": "DocumentReference",
        "id": identity,
        "status": "current",
        "type": convert.concept(segment.field(3), Place(assembly, segment, 3)) or {"text": "附件 Attachment"},
        "subject": pid.patient_reference(assembly),
        "content": [{"attachment": attachment}],
        "context": {"related": [{"reference": request}]},
    }
    return assembly.upsert(document, guard="demographics")
