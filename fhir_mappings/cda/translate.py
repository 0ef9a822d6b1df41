"""A clinical document as what it asserts: DocumentReference, Composition, Patient, Encounter, Practitioner, and its bytes.

HL7 CDA R2 section 4.2 (header); the document types are those of WS/T 500-2016. The result is a
:class:`fhir_mappings.hl7v2.base.Translation`, so the hub applies a document as it applies a message: applying it twice
changes nothing, an older version never overwrites a newer one. A document copies what was known of patient and visit when it was
written, so it makes these where there are none and changes nothing where there are.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Any

from fhir_mappings.cda import datatypes, participants, types
from fhir_mappings.cda import media as embedded
from fhir_mappings.cda.document import attribute, child, children, read, text_of
from fhir_mappings.cda.record_target import RecordTarget, record_target
from fhir_mappings.cda.sections import Sections
from fhir_mappings.errors import MalformedError
from fhir_mappings.hl7v2.base import Attachment, Change, Issue, Translation, Upsert, WorkflowEvent
from fhir_mappings.hl7v2.context import MappingContext
from fhir_mappings.hl7v2.datatypes import dtm_datetime
from fhir_mappings.hl7v2.quantities import dtm_instant
from fhir_mappings.markup import Element
from fhir_mappings.media_types import media_type

Json = dict[str, Any]

CONTENT_TYPE = "application/xml"
_RELATIONS = {"RPLC": "replaces", "APND": "appends", "XFRM": "transforms"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Clinical:
    """A document read.

    Attributes:
        translation: what it asserts when it comes by itself.
        reference: its ``DocumentReference/id``.
        composition: its Composition.
        people: the Practitioners it names.
        target: its patient.
        document: its DocumentReference.
        visit: its Encounter.
        inside: Attachments of what it carries inside: pictures, and a body that is not XML.
        parts: the changes that keep the bytes of *inside*.
    """

    translation: Translation
    reference: str
    composition: Json
    people: tuple[Json, ...]
    target: RecordTarget
    document: Json
    visit: Json | None
    inside: tuple[Json, ...]
    parts: tuple[Change, ...]


def translate(raw: bytes, ctx: MappingContext, *, keeper: str = "") -> Clinical:
    """Return what the clinical document *raw* says. Pure and repeatable.

    *keeper* is the DocumentReference (``DocumentReference/id``) that its bytes belong to, where that is not its own.

    Raises:
        MalformedError: it cannot be read (102), or lacks a part of the header that it must have (100, 101).
        UnsupportedError: it is no clinical document (200).
    """
    root = read(raw)
    key = _number(child(root, "id"), "/ClinicalDocument/id")
    reference = f"DocumentReference/{document_id(key, ctx)}"
    issues: list[Issue] = []
    target = record_target(root, ctx)
    if told := participants.contacts(root, ctx):
        target.resource["contact"] = told
    subject = {"reference": f"Patient/{target.resource['id']}"}
    kind = _type(root, ctx, issues)
    people = participants.People(ctx, participants.custodian_numbers(root))
    visit = participants.encounter(root, target.resource["id"], ctx)
    composition = _composition(root, key, kind, people, ctx, issues)
    composition |= {"subject": subject, **({"encounter": {"reference": f"Encounter/{visit['id']}"}} if visit else {})}
    original, copies = _attachments(raw, root, keeper or reference, ctx, issues)
    document = _document(root, reference, composition, target, visit, ctx)
    document["content"] = [{"attachment": one} for one in (original, *copies[1])]
    changes: list[Change] = [Upsert(resource=target.resource, create_only=True)]
    changes += [Upsert(resource=one, create_only=True) for one in ([visit] if visit else [])]
    changes += [Upsert(resource=one, create_only=True) for one in people.resources.values()]
    changes += copies[0]
    changes += [
        Upsert(resource={"resourceType": "DocumentReference", "id": parent, "status": "superseded"}, update_only=True)
        for code, parent, _ in parents(root, ctx)
        if code == "replaces" and f"DocumentReference/{parent}" != reference
    ]
    changes += [Upsert(resource=one, guard="demographics") for one in (composition, document)]
    written = attribute(child(root, "effectiveTime"), "value")
    asserted_at = dtm_instant(written, ctx) if len(written) >= 12 else None
    code = kind["coding"][0]["code"] if kind.get("coding") else ""
    translation = Translation(
        event=f"CDA {code}".strip(),
        asserted_at=asserted_at or ctx.received_at,
        changes=tuple(changes),
        patient_id=target.resource["id"],
        issues=tuple(issues),
        workflow_events=(WorkflowEvent(kind="document.received", focus=(reference,), placer_number=_order(root)),),
    )
    return Clinical(
        translation=translation,
        reference=reference,
        composition=composition,
        people=tuple(people.resources.values()),
        target=target,
        document=document,
        visit=visit,
        inside=tuple(copies[1]),
        parts=tuple(copies[0][1:]),
    )


def document_id(key: tuple[str, str], ctx: MappingContext) -> str:
    """Return the id of the DocumentReference of the document that the sender calls *key* (root, extension)."""
    return ctx.id("DocumentReference", "cda", "|".join(key))


def parents(root: Element, ctx: MappingContext) -> list[tuple[str, str, Json]]:
    """Return (FHIR relation, id of the DocumentReference, Identifier) of each document that this one relates to."""
    found: list[tuple[str, str, Json]] = []
    for related in children(root, "relatedDocument"):
        code = _RELATIONS.get(attribute(related, "typeCode"))
        if code is None:
            raise MalformedError(
                "relatedDocument 的 typeCode 无法识别 / relatedDocument has no known typeCode.",
                where="/ClinicalDocument/relatedDocument/@typeCode",
                remedy=f"Send one of {', '.join(_RELATIONS)}.",
                code=103,
            )
        key = datatypes.ii(child(related, "parentDocument", "id"))
        if key is None:
            # WS/T 500 prints the element with an empty id in every template; it relates to nothing.
            continue
        found.append((code, document_id(key, ctx), datatypes.identifier(*key)))
    return found


def _number(element: Element | None, where: str) -> tuple[str, str]:
    found = datatypes.ii(element)
    if found is None:
        raise MalformedError(
            "文书没有标识 / The document is not identified.",
            where=where,
            remedy="Send the document's own id: a root, and an extension where the root is not unique by itself.",
            code=101,
        )
    return found


def _type(root: Element, ctx: MappingContext, issues: list[Issue]) -> Json:
    """Return the document type; of WS/T 500 documents the template says it too."""
    made = datatypes.concept(child(root, "code"), ctx) or {}
    code = child(root, "code")
    stated = attribute(code, "code").upper() if attribute(code, "codeSystem") == types.SYSTEM else ""
    written = [attribute(template, name) for template in children(root, "templateId") for name in ("root", "extension")]
    implied = next((found for one in written if (found := types.of_template(one))), "")
    if stated and implied and stated != implied:
        issues.append(
            Issue(
                severity="warning",
                code="conflict",
                message="templateId belongs to another document type than code, which decides.",
                where="/ClinicalDocument/templateId",
            )
        )
    known = types.coding(stated or implied)
    if known is not None and (stated or not made.get("coding")):
        made = {"coding": [known], **({"text": made["text"]} if "text" in made else {})}
    if not made:
        raise MalformedError(
            "文书类型缺失 / The document does not say what kind of document it is.",
            where="/ClinicalDocument/code",
            remedy=f"Send C0001 to C0053 with the code system {types.SYSTEM}, or a LOINC code.",
            code=101,
        )
    return made


def _composition(
    root: Element,
    key: tuple[str, str],
    kind: Json,
    people: participants.People,
    ctx: MappingContext,
    issues: list[Issue],
) -> Json:
    written = attribute(child(root, "effectiveTime"), "value")
    date = dtm_datetime(written, ctx) if written else None
    if date is None:
        raise MalformedError(
            "文书没有有效的生效时间 / The document has no readable effectiveTime.",
            where="/ClinicalDocument/effectiveTime/@value",
            remedy="Send YYYYMMDDHHMMSS, with or without an offset.",
            code=101 if not written else 102,
        )
    authors = [
        one for element in children(root, "author") if (one := people.reference(child(element, "assignedAuthor")))
    ]
    signed = participants.attesters(root, people, ctx)
    kept_by = participants.custodian(root)
    title = text_of(child(root, "title")) or datatypes.label(kind)
    made: Json = {
        "resourceType": "Composition",
        "id": ctx.id("Composition", "cda", "|".join(key)),
        "identifier": datatypes.identifier(*key),
        # CDA has no status; what nobody has signed yet is a draft that was shared (CDA R2 section 4.2.2).
        "status": "final" if signed else "preliminary",
        "type": kind,
        "date": date,
        # FHIR wants an author; where the document names none, its keeper answers for it.
        "author": authors or [kept_by or {"display": ctx.institution}],
        "title": title,
    }
    secret = datatypes.coding(child(root, "confidentialityCode"), ctx)
    if secret and secret["code"] in {"U", "L", "M", "N", "R", "V"}:
        made["confidentiality"] = secret["code"]
    if signed:
        made["attester"] = signed
    if kept_by:
        made["custodian"] = kept_by
    related = [{"code": code, "targetIdentifier": number} for code, _, number in parents(root, ctx)]
    if related:
        made["relatesTo"] = related
    if told := participants.informants(root, ctx):
        made["extension"] = told
    if done := participants.events(root, ctx):
        made["event"] = done
    # What has no name, or could not be decoded, is no attachment that a text could name.
    shown = frozenset(one.name for one in embedded.of(root) if one.name and one.data is not None)
    turning = Sections(ctx, media=shown)
    sections = turning.of(root)
    issues += turning.issues
    if sections:
        made["section"] = sections
    return made


def _document(
    root: Element, reference: str, composition: Json, target: RecordTarget, visit: Json | None, ctx: MappingContext
) -> Json:
    kind, id_ = reference.split("/")
    made: Json = {
        "resourceType": kind,
        "id": id_,
        "masterIdentifier": composition["identifier"],
        "status": "current",
        "docStatus": composition["status"],
        "type": composition["type"],
        "subject": {"reference": f"Patient/{target.resource['id']}"},
        "author": composition["author"],
        "description": composition["title"],
    }
    if "T" in composition["date"]:
        made["date"] = composition["date"]
    series = datatypes.ii(child(root, "setId"))
    if series:
        made["identifier"] = [datatypes.identifier(*series)]
    if composition.get("attester"):
        made["authenticator"] = composition["attester"][0]["party"]
    if "custodian" in composition:
        made["custodian"] = composition["custodian"]
    related = [
        {"code": code, "target": {"reference": f"DocumentReference/{parent}", "identifier": number}}
        for code, parent, number in parents(root, ctx)
        if parent != id_
    ]
    if related:
        made["relatesTo"] = related
    secret = datatypes.coding(child(root, "confidentialityCode"), ctx)
    if secret:
        made["securityLabel"] = [{"coding": [secret]}]
    context: Json = {}
    if visit:
        context["encounter"] = [{"reference": f"Encounter/{visit['id']}"}]
    lasted = participants.period(root, ctx)
    if lasted:
        context["period"] = lasted
    if where := participants.department(root):
        context["practiceSetting"] = {"text": where}
    context["related"] = [
        {"reference": f"Composition/{composition['id']}"},
        *({"identifier": number} for number in target.other_numbers),
    ]
    made["context"] = context
    return made


def _order(root: Element) -> str:
    """The number of the order that the document answers (电子申请单编号)."""
    found = datatypes.ii(child(root, "inFulfillmentOf", "order", "id"))
    return found[1] if found else ""


def _attachments(
    raw: bytes, root: Element, context: str, ctx: MappingContext, issues: list[Issue]
) -> tuple[Json, tuple[list[Change], list[Json]]]:
    """Return the Attachment of the original, the changes that keep all bytes, and Attachments of what it carries inside."""
    title = text_of(child(root, "title"))
    changes: list[Change] = []
    original = keep(raw, CONTENT_TYPE, context, ctx, changes, title)
    inside: list[Json] = []
    body = child(root, "component", "nonXMLBody", "text")
    if body is not None:
        if attribute(body, "representation") == "B64":
            try:
                data = base64.b64decode("".join(body.text.split()), validate=True)
            except (ValueError, binascii.Error) as error:
                raise MalformedError(
                    "The body cannot be decoded as Base64.",
                    where="/ClinicalDocument/component/nonXMLBody/text",
                    remedy="Send the content in Base64, with representation B64.",
                    code=102,
                ) from error
            inside.append(
                keep(data, attribute(body, "mediaType") or "application/octet-stream", context, ctx, changes, title)
            )
        elif body.children:
            # A reference leads to the sender's own network; the hub fetches nothing.
            issues.append(
                Issue(
                    severity="warning",
                    code="not-supported",
                    message="The body is a reference to another place, which is not fetched.",
                    where="/ClinicalDocument/component/nonXMLBody/text",
                )
            )
        elif body.text.strip():
            data = body.text.encode("utf-8")
            inside.append(keep(data, attribute(body, "mediaType") or "text/plain", context, ctx, changes, title))
    for picture in embedded.of(root):
        if picture.data is None:
            issues.append(
                Issue(
                    severity="warning",
                    code="invalid",
                    message="A picture inside a section cannot be decoded as Base64; it stands in the original alone.",
                    where="/ClinicalDocument/component/structuredBody",
                )
            )
        else:
            inside.append(keep(picture.data, picture.media_type, context, ctx, changes, picture.name or title))
    return original, (changes, inside)


def keep(
    data: bytes, content_type: str, context: str, ctx: MappingContext, changes: list[Change], title: str = ""
) -> Json:
    """Add *data* to *changes* as bytes to keep, and return the Attachment that points at them.

    The digest is part of the id, so that a corrected document is a new object and the old one stays what it was.
    """
    content_type = media_type(content_type)
    digest = hashlib.sha256(data).hexdigest()
    identity = ctx.id("Binary", "attachment", f"{context}|{digest}")
    changes.append(Attachment(binary_id=identity, content_type=content_type, data=data, context=context))
    made: Json = {
        "contentType": content_type,
        "url": f"Binary/{identity}",
        "size": len(data),
        "hash": base64.b64encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode(),
    }
    if title:
        made["title"] = title
    return made
