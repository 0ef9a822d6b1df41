"""Issued reports and documents as the v2 messages that carry them: ORU^R01, and MDM^T02, T06, T08, T10 and T11."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, cast

from fhir_mappings.hl7v2.outbound.mdm_t02 import DocumentPart, Event, mdm_t02
from fhir_mappings.hl7v2.outbound.oru_r01 import oru_r01
from fhir_mappings.hl7v2.outbound.target import OutboundTarget
from fhir_mappings.json import loads
from hub import workflows
from hub.access import UNRESTRICTED, Scope
from hub.clock import Clock
from hub.config import Settings
from hub.directory import Directory
from hub.dispatch.related import MAX_ATTACHMENT_BYTES, all_of, bytes_of, people_of
from hub.dispatch.v2 import V2Messages
from hub.ports import ObjectStore, Tx
from hub.workflows.effect_kinds import Send, flat
from hub.workflows.task import plain, reference_in

Json = dict[str, Any]

#: DiagnosticReport.status of a report that others may act on.
_ISSUED = frozenset({"final", "amended", "corrected", "appended"})
_RELATED: Mapping[str, Event] = {"replaces": "T10", "appends": "T06"}
#: Workflows that send the report of their request by themselves.
_SENDS_REPORTS = frozenset(
    workflow.code
    for workflow in workflows.WORKFLOWS.values()
    for transition in workflow.transitions
    for effect in flat(transition.effects)
    if isinstance(effect, Send) and effect.message == "oru_r01"
)


class Documents:
    """Says which event a report or document is, and builds its message."""

    def __init__(self, settings: Settings, directory: Directory, objects: ObjectStore, clock: Clock) -> None:
        self.v2 = V2Messages(settings, directory, objects, clock)
        self._settings = settings
        self._objects = objects
        self._clock = clock

    def event(self, body: Json, known: Json | None, wanted: Collection[str]) -> str | None:
        """Return the event of *wanted* that says what became of *body*; *known* is what its reader has of it.

        A new document that adds to or replaces another is a new one to a reader that does not ask for more.
        """
        if body["resourceType"] == "DiagnosticReport":
            issued = is_issued(body) or (known is not None and body.get("status") == "entered-in-error")
            return "ORU^R01" if issued and "ORU^R01" in wanted else None
        if not is_issued(body):
            withdrawn = known is not None and body.get("status") == "entered-in-error"
            return "MDM^T11" if withdrawn and "MDM^T11" in wanted else None
        if known is not None:
            return "MDM^T08" if "MDM^T08" in wanted else None
        related = [_RELATED[one["code"]] for one in body.get("relatesTo", ()) if one.get("code") in _RELATED]
        return next((f"MDM^{one}" for one in (*related, "T02") if f"MDM^{one}" in wanted), None)

    @staticmethod
    def is_sent_by_workflow(tx: Tx, body: Json, institution: str) -> bool:
        """Return whether *institution* gets the report *body* by a workflow that it is a party of."""
        if body["resourceType"] != "DiagnosticReport":
            return False
        for based_on in body.get("basedOn", ()):
            request = plain(reference_in(based_on))
            for stored in tx.records.referring("Task", "focus", request, UNRESTRICTED) if request else ():
                task = loads(stored.body)
                workflow = workflows.workflow_for(task)
                told = workflow is not None and workflow.code in _SENDS_REPORTS
                if told and institution in workflows.parties_of(task).values():
                    return True
        return False

    def message(
        self, tx: Tx, body: Json, *, event: str, patient: Json, target: OutboundTarget, control_id: str, owner: str
    ) -> str:
        """Return the message of *event* about *body*, of which the receiver sees what its grants open."""
        now = self._clock()
        if event == "ORU^R01":
            scope = Scope(institution=target.institution)
            requests = all_of(tx, body.get("basedOn", ()), scope)
            request = next((one for one in requests if one["resourceType"] == "ServiceRequest"), None)
            return oru_r01(
                body,
                patient=patient,
                target=target,
                control_id=control_id,
                now=now,
                observations=all_of(tx, body.get("result", ()), scope),
                request=request,
                practitioners={**people_of(tx, request or {}), **people_of(tx, body)},
                attachments=self.v2.attachments(tx, body, owner=owner),
                specimens=all_of(tx, body.get("specimen", ()), scope),
            )
        return mdm_t02(
            body,
            patient=patient,
            target=target,
            control_id=control_id,
            now=now,
            event=cast("Event", event.partition("^")[2]),
            parts=self._parts(tx, body, owner),
            practitioners=people_of(tx, body),
        )

    def _parts(self, tx: Tx, body: Json, owner: str) -> list[DocumentPart]:
        made: list[DocumentPart] = []
        room = MAX_ATTACHMENT_BYTES
        for content in body.get("content", ()):
            attachment = content.get("attachment", {})
            data = bytes_of(tx, self._objects, attachment, owner=owner)
            if data is not None and len(data) > room:
                data = None
            url = str(attachment.get("url", ""))
            part = DocumentPart(
                title=str(attachment.get("title", "")),
                content_type=str(attachment.get("contentType", "application/octet-stream")),
                data=data,
                url=f"{self._settings.public()}/fhir/{url}" if plain(url) else url,
            )
            if data is None and not url and attachment.get("title"):
                # Some write a document's whole text where its title belongs.
                part = DocumentPart(title="", content_type="text/plain", data=str(attachment["title"]).encode())
            room -= len(data or b"")
            made.append(part)
        return made


def is_issued(body: Mapping[str, Any]) -> bool:
    """Return whether others may act on the report or document: no draft, and not taken back."""
    if body["resourceType"] == "DiagnosticReport":
        return body.get("status") in _ISSUED
    return body.get("status") == "current" and body.get("docStatus") not in {"preliminary", "entered-in-error"}


def same_content(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two versions differ in nothing but their stamps."""
    return {**one, "meta": None} == {**other, "meta": None}
