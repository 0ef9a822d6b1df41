"""A workflow's ``Send`` as an HL7 v2 message in the words of the partner that is to get it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, cast

import structlog

from fhir_mappings.hl7v2.ack import AckError
from fhir_mappings.hl7v2.context import Dialect
from fhir_mappings.hl7v2.outbound.order_forms import Form, OrderedStudy, ordered_study
from fhir_mappings.hl7v2.outbound.orm_o01 import orm_o01
from fhir_mappings.hl7v2.outbound.orr_o02 import Answer, orr_o02
from fhir_mappings.hl7v2.outbound.oru_r01 import OutboundAttachment, oru_r01
from fhir_mappings.hl7v2.outbound.referral import ref_i12, rri_i12
from fhir_mappings.hl7v2.outbound.target import OutboundTarget
from fhir_mappings.json import loads
from hub import workflows
from hub.access import UNRESTRICTED
from hub.clock import Clock
from hub.config import Settings
from hub.directory import Directory
from hub.dispatch.order_answers import Asked
from hub.dispatch.related import MAX_ATTACHMENT_BYTES, all_of, bytes_of, get, people_of, text_of
from hub.dispatch.report import page, signed
from hub.errors import Category, HubError
from hub.ports import MemberEndpoint, ObjectStore, Tx
from hub.v2_out import acknowledgements_of
from hub.workflows.task import plain, recorded, reference_in, referred, workflow_code

log = structlog.get_logger("hub.dispatch")

Json = dict[str, Any]


class V2Messages:
    """Builds the messages that workflow tables send."""

    def __init__(self, settings: Settings, directory: Directory, objects: ObjectStore, clock: Clock) -> None:
        self._settings = settings
        self._directory = directory
        self._objects = objects
        self._clock = clock

    def target(self, endpoint: MemberEndpoint, dialect: Dialect) -> OutboundTarget:
        """Return whom a message to *endpoint* is for, and how it is to be written."""
        return OutboundTarget(
            institution=endpoint.member,
            application=endpoint.sending_application or "HIS",
            facility=endpoint.sending_facility,
            dialect=dialect,
            acknowledgements=acknowledgements_of(endpoint),
            sending_application=self._settings.sending_application,
            sending_facility=self._settings.sending_facility,
        )

    def message(
        self,
        tx: Tx,
        effect: workflows.Send,
        task: Json,
        patient: Json,
        endpoint: MemberEndpoint,
        dialect: Dialect,
        control_id: str,
        asked: Asked | None = None,
        reason: str = "",
        errors: Sequence[AckError] = (),
    ) -> str | None:
        """Return the message of *effect* as text, or ``None`` when there is nothing to be sent.

        *asked* is the received message that an answer to an order is about, *reason* and *errors* why it is refused.
        """
        now = self._clock()
        target = self.target(endpoint, dialect)
        request = get(tx, plain(reference_in(task.get("focus")))) or {}
        match effect.message:
            case "oru_r01":
                return self._result(tx, effect, task, patient, request, target, control_id, now)
            case "orm_o01":
                imaging = workflow_code(task) == "remote-reading"
                return orm_o01(
                    request,
                    patient=patient,
                    target=target,
                    control_id=control_id,
                    now=now,
                    control=effect.control or "NW",
                    conditions=all_of(tx, request.get("reasonReference", ())),
                    practitioners=people_of(tx, request),
                    reason=text_of(task.get("statusReason")),
                    form=order_form(endpoint, imaging=imaging),
                    studies=_studies(tx, task) if imaging else (),
                    specimens=() if imaging else specimens_of(tx, request, task),
                    with_zds=endpoint.settings.get("zds") is True,
                )
            case "orr_o02" if asked is not None:
                return orr_o02(
                    request,
                    answer=cast("Answer", asked.answer),
                    asked_by=asked.event,
                    original_control_id=asked.control_id,
                    original_version=asked.version,
                    procedures=asked.procedures,
                    specimens=asked.specimens,
                    patient=patient,
                    target=target,
                    control_id=control_id,
                    now=now,
                    reason=reason or (text_of(task.get("statusReason")) if effect.control.startswith("U") else ""),
                    errors=errors,
                )
            case "ref_i12" | "ref_i13" | "ref_i14":
                event: Literal["I12", "I13", "I14"] = {"ref_i12": "I12", "ref_i13": "I13", "ref_i14": "I14"}[
                    effect.message
                ]  # type: ignore[assignment]
                return ref_i12(
                    request,
                    patient=patient,
                    target=target,
                    control_id=control_id,
                    now=now,
                    sender=recorded(task, "requester")[0],
                    event=event,
                    conditions=all_of(tx, request.get("reasonReference", ())),
                    practitioners=people_of(tx, request),
                )
            case "rri_i12":
                return rri_i12(
                    request,
                    answer=effect.control if effect.control in {"A", "R", "P", "E"} else "P",  # type: ignore[arg-type]
                    original_control_id=_asked_by(tx, task),
                    patient=patient,
                    target=target,
                    control_id=control_id,
                    now=now,
                    sender=recorded(task, "requester")[0],
                    reason=text_of(task.get("statusReason")),
                    note=str((task.get("note") or [{}])[-1].get("text", "")),
                    practitioners=people_of(tx, request),
                )
            case other:
                raise HubError(
                    Category.FAULT,
                    f"The workflow sends a message {other!r} that no builder makes.",
                    where="hub.dispatch",
                )

    def _result(
        self,
        tx: Tx,
        effect: workflows.Send,
        task: Json,
        patient: Json,
        request: Json,
        target: OutboundTarget,
        control_id: str,
        now: datetime,
    ) -> str | None:
        report = get(tx, effect.reference)
        if report is None:
            log.warning("no_report_to_send", task=task["id"])
            return None
        report = signed(task, report)
        observations = all_of(tx, report.get("result", ()))
        people = {**people_of(tx, request), **people_of(tx, report)}
        attachments = self.attachments(tx, report)
        if not attachments and workflow_code(task) == "remote-reading":
            from fhir_mappings.report_pdf import render

            made = page(self._directory, task, report, observations, patient, request, people)
            attachments = [OutboundAttachment(title="报告", content_type="application/pdf", data=render(made))]
        return oru_r01(
            report,
            patient=patient,
            target=target,
            control_id=control_id,
            now=now,
            observations=observations,
            request=request,
            practitioners=people,
            attachments=attachments,
            specimens=specimens_of(tx, report, task),
        )

    def attachments(self, tx: Tx, report: Json, *, owner: str = "") -> list[OutboundAttachment]:
        """Return the documents of *report* that go inside a message, while there is room."""
        found: list[OutboundAttachment] = []
        room = MAX_ATTACHMENT_BYTES
        for form in report.get("presentedForm", ()):
            data = bytes_of(tx, self._objects, form, owner=owner)
            if data is None or form.get("contentType", "").startswith("text/"):
                continue
            room -= len(data)
            if room < 0:
                log.warning("attachment_left_out", report=report.get("id"), size=len(data))
                break
            found.append(
                OutboundAttachment(
                    title=str(form.get("title", "报告")),
                    content_type=str(form.get("contentType", "application/pdf")),
                    data=data,
                )
            )
        return found


def order_form(endpoint: MemberEndpoint, *, imaging: bool) -> Form:
    """Return the message in which *endpoint* takes orders for imaging, or for laboratory work."""
    return cast("Form", str(endpoint.settings.get("imaging-orders" if imaging else "lab-orders", "ORM^O01")).upper())


def specimens_of(tx: Tx, resource: Json, task: Json) -> list[Json]:
    """Return the Specimens that *resource*, the request or a report of *task*, names and a party of *task* owns.

    Somebody else's specimen is no part of the work, whoever wrote a reference to it.
    """
    parties = set(workflows.parties_of(task).values())
    found: list[Json] = []
    for reference in (plain(reference_in(one)) for one in resource.get("specimen", ())):
        kind, _, id_ = (reference or "").partition("/")
        stored = tx.records.get(kind, id_, UNRESTRICTED) if kind == "Specimen" else None
        if stored is not None and not stored.deleted and stored.owner in parties:
            found.append(loads(stored.body))
    return found


def _studies(tx: Tx, task: Json) -> list[OrderedStudy]:
    """Return the studies that *task* hands over."""
    found = [get(tx, one) for one in referred(task, "input") if one.startswith("ImagingStudy/")]
    return [made for one in found if one is not None and (made := ordered_study(one)) is not None]


def _asked_by(tx: Tx, task: Json) -> str:
    """Return MSH-10 of the referral message that started *task*; empty when it did not come as a message."""
    group = str(task.get("groupIdentifier", {}).get("value", ""))
    for entry in tx.journal.by_correlation(group) if group else ():
        if entry.message_type.startswith("REF"):
            return entry.control_id
    return ""
