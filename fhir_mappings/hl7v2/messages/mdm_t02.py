"""MDM^T01 to T11: documents (HL7 v2 chapter 9.5) as FHIR DocumentReference. v2-to-FHIR: MDM_T02, TXA[DocumentReference].

T05/T06 add to a document, T09/T10 replace it, T03/T04 change its status, T07/T08 edit it and T11 withdraws it.
"""

from __future__ import annotations

import base64
from typing import Any

from fhir_mappings.hl7v2.assembly import Assembly, Place, Row, fill
from fhir_mappings.hl7v2.base import Attachment, WorkflowEvent
from fhir_mappings.hl7v2.segments import cda, convert, ed, obx, obx_value, pid, pv1
from fhir_mappings.hl7v2.tokenizer import Field, Segment

_APPENDS = frozenset({"T05", "T06"})
_REPLACES = frozenset({"T09", "T10"})
_MAPPED = frozenset({"MSH", "SFT", "EVN", "PID", "PV1", "ORC", "OBR", "TQ1", "NTE", "TXA", "OBX"})


def _completion(content: Field, place: Place) -> str | None:
    mapped = place.mapped("document_status", content.component(1))
    return mapped.target if mapped else None


def _availability(content: Field, place: Place) -> str | None:
    """TXA-19: v2-to-FHIR keeps CA, OB and UN as alternate codes only; a cancelled document must not look current."""
    mapped = place.mapped("document_availability", content.component(1))
    return mapped.target if mapped else None


def _security(content: Field, _place: Place) -> list[dict[str, Any]]:
    code = content.component(1).strip().upper()
    return [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0272", "code": code}]}] if code else []


def _authenticator(content: Field, place: Place) -> dict[str, Any] | None:
    found = convert.practitioners(content, place)
    return found[0] if found else None


ROWS: tuple[Row, ...] = (
    Row(
        16,
        "identifier*",
        lambda content, place: {"system": place.ctx.system("document-file"), "value": content.text().strip()},
        "-",
    ),
    Row(2, "type", convert.concept),
    Row(6, "date", convert.instant),
    Row(4, "date", convert.instant),
    Row(9, "author*", convert.practitioners),
    Row(10, "authenticator", _authenticator),
    Row(17, "docStatus", _completion),
    Row(18, "securityLabel*", _security),
    Row(19, "status", _availability),
    Row(25, "description", lambda content, _place: content.text().strip()),
)


def document_id(number: str, assembly: Assembly) -> str:
    """Return the id of the document with *number* (TXA-12, TXA-13)."""
    return assembly.ctx.id("DocumentReference", "document", number)


def translate(assembly: Assembly, trigger: str) -> None:
    """Add the document.

    Raises:
        MalformedError: PID or TXA is missing (100), TXA-12 is not valued, or the parent of an addendum or a replacement is
            not named (101), or content cannot be decoded (102).
    """
    message = assembly.message
    pid.add_patient(assembly.require_one("PID"), assembly)
    encounter = pv1.mention_encounter(assembly)
    segment = assembly.require("TXA")
    number = segment.get(12).strip()
    if not number:
        raise assembly.missing(segment, 12, "Send the document's own number in TXA-12.")
    identity = document_id(number, assembly)
    filled = fill(ROWS, segment, assembly)
    document: dict[str, Any] = {
        "resourceType": "DocumentReference",
        "id": identity,
        "masterIdentifier": {
            "system": assembly.ctx.system("document", segment.get(12, 2)),
            "value": number,
        },
        "status": "current",
        **filled.elements,
        "subject": pid.patient_reference(assembly),
    }
    if trigger == "T11":
        document["status"] = "entered-in-error"
    relations = _relations(segment, trigger, identity, assembly)
    if relations:
        document["relatesTo"] = relations
    content, clinical = _content(f"DocumentReference/{identity}", encounter, assembly)
    if content:
        document["content"] = content
    related = _orders(segment, assembly)
    context: dict[str, Any] = {}
    if encounter:
        context["encounter"] = [{"reference": encounter}]
    if related:
        context["related"] = related
    if context:
        document["context"] = context
    for one in clinical:
        cda.complete(document, one, filled.cleared, assembly)
    reference = assembly.upsert(
        document,
        cleared=filled.open_clears(),
        guard="demographics",
        defaults={"content": [{"attachment": {"title": segment.get(25).strip() or number}}]},
    )
    for item in message.segments:
        if item.name not in _MAPPED:
            assembly.skip(item)
    assembly.workflow_events.append(
        WorkflowEvent(
            kind="document.withdrawn" if trigger == "T11" else "document.received",
            focus=(reference,),
            placer_number=segment.get(14).strip(),
            filler_number=segment.get(15).strip(),
            receiver=message.get("MSH-6").strip(),
        )
    )


def _relations(segment: Segment, trigger: str, identity: str, assembly: Assembly) -> list[dict[str, Any]]:
    if trigger not in _APPENDS | _REPLACES:
        return []
    parent = segment.get(13).strip()
    if not parent:
        raise assembly.missing(segment, 13, "Name the document that this one adds to or replaces in TXA-13.")
    target = document_id(parent, assembly)
    if target == identity:
        # Some systems keep the number when they replace; then the new version of the record is the replacement.
        return []
    if trigger in _REPLACES:
        assembly.upsert({"resourceType": "DocumentReference", "id": target, "status": "superseded"}, update_only=True)
    return [
        {
            "code": "replaces" if trigger in _REPLACES else "appends",
            "target": {
                "reference": f"DocumentReference/{target}",
                "identifier": {"system": assembly.ctx.system("document", segment.get(13, 2)), "value": parent},
            },
        }
    ]


def _orders(segment: Segment, assembly: Assembly) -> list[dict[str, Any]]:
    """TXA-14 and TXA-15 by their identifiers: the order may never have come through here."""
    return [
        {
            "type": "ServiceRequest",
            "identifier": convert.order_identifier(assembly.ctx, kind, code, value, segment.get(number, 2)),
        }
        for number, kind, code in ((14, "placer-order", "PLAC"), (15, "filler-order", "FILL"))
        if (value := segment.get(number).strip())
    ]


def _content(document: str, encounter: str | None, assembly: Assembly) -> tuple[list[dict[str, Any]], list[cda.Inside]]:
    """The OBX in order: text lines as one plain attachment, each encapsulated object as one of its own.

    A clinical document is followed by what it carries inside. Returned with those that are clinical documents.
    """
    lines: list[str] = []
    attachments: list[dict[str, Any]] = []
    clinical: list[cda.Inside] = []
    textual: Segment | None = None
    for segment in assembly.message.all("OBX"):
        kind = segment.get(2).strip().upper()
        if kind == "ED":
            made = ed.attachment(segment, document, assembly)
            kept = assembly.changes[-1]
            assert isinstance(kept, Attachment)
            attachments.append({"attachment": made})
            if cda.is_document(kept.data) and (found := cda.read(kept.data, segment, document, encounter, assembly)):
                clinical.append(found)
                attachments += [{"attachment": one} for one in found.clinical.inside]
        elif kind == "RP":
            pointer = ed.pointer(segment, assembly)
            if pointer:
                attachments.append({"attachment": pointer})
        elif kind in obx_value.TEXT_TYPES:
            textual = textual or segment
            lines += [item.text() for item in segment.field(5).repetitions]
        else:
            Place(assembly, segment, 5).warn(
                f"{obx.observation_code(segment)[:20]} is neither text nor a document; it was left out.",
                code="not-supported",
            )
    text = "\n".join(lines).strip("\n")
    if text.strip():
        raw = text.encode("utf-8")
        content_type = "text/plain; charset=utf-8"
        if textual is not None and cda.is_document(raw):
            # Some systems put the XML itself where text stands.
            content_type = f"{cda.CONTENT_TYPE}; charset=utf-8"
            if found := cda.read(raw, textual, document, encounter, assembly):
                clinical.append(found)
                attachments += [{"attachment": one} for one in found.clinical.inside]
        data = base64.b64encode(raw).decode()
        attachments.insert(0, {"attachment": {"contentType": content_type, "data": data}})
    return attachments, clinical
