"""DocumentReference as MDM^T02, T06, T08 and T10 with its content, and T11 without (HL7 v2 chapter 9.6)."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from fhir_mappings import text as text_rule
from fhir_mappings.hl7v2.builder import FieldValue, MessageBuilder, Repeat, RepetitionValue
from fhir_mappings.hl7v2.outbound import fields
from fhir_mappings.hl7v2.outbound.adt import evn, no_visit
from fhir_mappings.hl7v2.outbound.target import OutboundTarget, start

Json = Mapping[str, Any]

Event = Literal["T02", "T06", "T08", "T10", "T11"]

#: DocumentReference.docStatus -> TXA-17, table 0271; a document that says nothing of it is documented and no more.
_COMPLETION = {"preliminary": "IP", "final": "AU", "amended": "AU"}
#: DocumentReference.status -> TXA-19, table 0273.
_AVAILABILITY = {"current": "AV", "superseded": "OB", "entered-in-error": "CA"}
_CONFIDENTIALITY = "/v2-0272"


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentPart:
    """One attachment of a document.

    Attributes:
        data: its bytes; ``None`` where the message only says where they are.
        url: where they can be fetched.
    """

    title: str
    content_type: str
    data: bytes | None = None
    url: str = ""


def mdm_t02(
    document: Json,
    *,
    patient: Json,
    target: OutboundTarget,
    control_id: str,
    now: datetime,
    event: Event = "T02",
    parts: Sequence[DocumentPart] = (),
    practitioners: Mapping[str, Json] | None = None,
) -> str:
    """Return the document as text; the caller encodes it in the receiver's character set.

    Plain text becomes FT, other content ED with the bytes inside, and a part without bytes RP, which says where they
    are: what does not fit is named, and never left out. *practitioners* are keyed by their reference.
    """
    people = practitioners or {}
    structure = "MDM_T01" if event == "T11" else "MDM_T02"
    builder = start(target, f"MDM^{event}^{structure}", control_id=control_id, now=now)
    evn(builder, event, now, target)
    builder.segment("PID", fields.pid(patient, target))
    no_visit(builder)
    builder.segment("TXA", _txa(document, parts, people, target))
    if event != "T11":
        for ordinal, part in enumerate(parts, start=1):
            _obx(builder, ordinal, part, document, target)
    return builder.to_text()


def _txa(
    document: Json, parts: Sequence[DocumentPart], people: Mapping[str, Json], target: OutboundTarget
) -> dict[int, FieldValue]:
    kinds: list[Json] = list(document.get("type", {}).get("coding", []))
    authors: list[RepetitionValue] = [
        found for one in document.get("author", []) if (found := fields.xcn(one, people)) is not None
    ]
    security = [
        str(coding.get("code", ""))
        for label in document.get("securityLabel", [])
        for coding in label.get("coding", [])
        if str(coding.get("system", "")).endswith(_CONFIDENTIALITY)
    ]
    file_names: list[Json] = list(document.get("identifier", []))
    related: list[Json] = [one.get("identifier", {}) for one in document.get("context", {}).get("related", [])]
    placer = fields.number(related, "placer-order", target) or fields.typed_number(related, "PLAC")
    return {
        1: "1",
        # TXA-2 is a code alone until v2.6; its words stand in OBX-3.
        2: str(kinds[0].get("code", "")) if kinds else str(document.get("type", {}).get("text", "")),
        3: _presentation(parts),
        4: fields.time(document.get("date"), target),
        9: Repeat(authors) if authors else None,
        10: fields.xcn(document.get("authenticator"), people),
        12: number_of(document, target),
        13: _parent(document, target),
        14: placer,
        15: fields.typed_number(related, "FILL"),
        16: str(file_names[0].get("value", "")) if file_names else "",
        17: _COMPLETION.get(str(document.get("docStatus", "")), "DO"),
        18: security[0] if security else "",
        19: _AVAILABILITY.get(str(document.get("status", "")), ""),
    }


def number_of(document: Json, target: OutboundTarget) -> RepetitionValue:
    """Return EI of the document (TXA-12): its own number with the owner, else the hub's id under the hub's name."""
    return _ei(document.get("masterIdentifier", {}), target) or [str(document["id"]), target.sending_application]


def _ei(identifier: Json, target: OutboundTarget) -> RepetitionValue | None:
    value = str(identifier.get("value", ""))
    if not value:
        return None
    system = str(identifier.get("system", ""))
    owner = fields.owner_of(system, target)
    if owner is None:
        return [value, "", system, "URI"] if system else [value, target.sending_application]
    return value if owner == target.institution else [value, owner]


def _parent(document: Json, target: OutboundTarget) -> FieldValue:
    for relation in document.get("relatesTo", []):
        parent = relation.get("target", {})
        named = _ei(parent.get("identifier", {}), target)
        if named is not None:
            return named
        if parent.get("reference"):
            return [str(parent["reference"]).rpartition("/")[2], target.sending_application]
    return None


def _presentation(parts: Sequence[DocumentPart]) -> str:
    """Return TXA-3 of table 0191 for what the first part is."""
    kind = parts[0].content_type.partition("/")[0] if parts else ""
    return {"text": "TX", "image": "IM", "audio": "AU", "application": "AP"}.get(kind, "TX" if not kind else "AP")


def _obx(builder: MessageBuilder, ordinal: int, part: DocumentPart, document: Json, target: OutboundTarget) -> None:
    kind, _, subtype = part.content_type.partition(";")[0].partition("/")
    named = document.get("type", {})
    words = part.title or str(named.get("text", "")) or str(document.get("description", ""))
    observation: FieldValue = fields.concept(named, target) if named.get("coding") else ["DOC", words, "L"]
    values: dict[int, FieldValue] = {1: str(ordinal), 3: observation, 11: "F"}
    if part.data is None:
        values[2] = "RP"
        values[5] = [part.url, target.sending_application, kind, subtype]
    elif kind == "text":
        values[2] = "FT"
        values[5] = text_rule.decode(part.data).text
    else:
        values[2] = "ED"
        values[5] = ["", kind, subtype, "Base64", base64.b64encode(part.data).decode()]
    builder.segment("OBX", values)
