"""From a workflow's ``Send`` to a delivery in the partner's own protocol, dialect and character set.

The message is built inside the transaction that moves the Task, so that what the partner gets is exactly the state that
was decided; the outbox carries it from there. A partner without an endpoint works in the portal or by FHIR and reads
the Task there, so nothing is sent.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import structlog

from fhir_mappings.hl7v2.charset import encode_for
from fhir_mappings.hl7v2.context import Dialect
from fhir_mappings.hl7v2.outbound.orm_o01 import orm_o01
from fhir_mappings.hl7v2.outbound.oru_r01 import OutboundAttachment, oru_r01
from fhir_mappings.hl7v2.outbound.referral import ref_i12, rri_i12
from fhir_mappings.hl7v2.outbound.target import OutboundTarget
from fhir_mappings.json import dumps, loads
from hub import workflows
from hub.access import UNRESTRICTED
from hub.clock import Clock
from hub.config import Settings
from hub.directory import Directory
from hub.errors import Category, HubError
from hub.ports import MemberEndpoint, NewDelivery, ObjectStore, Tx
from hub.workflows.base import BASE
from hub.workflows.task import plain, recorded, reference_in, workflow_code

if TYPE_CHECKING:
    from fhir_mappings.report_pdf import ReportPage

log = structlog.get_logger("hub.dispatch")

Json = dict[str, Any]

#: Extension of Binary.data that names the stored object.
OBJECT_DIGEST = f"{BASE}/StructureDefinition/object-digest"
#: A message larger than this is not built; 16 MiB is the usual cap of MLLP receivers.
MAX_ATTACHMENT_BYTES = 12 << 20
_SEX = {"male": "男", "female": "女"}


class Dispatcher:
    """Builds messages and puts them into the outbox."""

    def __init__(self, settings: Settings, directory: Directory, objects: ObjectStore, clock: Clock) -> None:
        self._settings = settings
        self._directory = directory
        self._objects = objects
        self._clock = clock

    def send(self, tx: Tx, effect: workflows.Send, task: Json, *, correlation_id: str) -> None:
        """Queue the message of *effect* for the institution it names, by the first way that institution can be reached."""
        endpoint = self._directory.reach(effect.institution, "mllp", "fhir")
        if endpoint is None:
            log.info("no_endpoint", institution=effect.institution, message=effect.message, task=task["id"])
            return
        patient = _get(tx, plain(reference_in(task.get("for"))))
        control_id = f"YX{secrets.token_hex(8).upper()}"
        if endpoint.kind == "fhir":
            kind, content_type, payload = "fhir", "application/fhir+json", self._bundle(tx, effect, task)
        else:
            kind, content_type = "mllp", "x-application/hl7-v2+er7"
            dialect = self._directory.dialect(endpoint)
            text = self._message(tx, effect, task, patient or {}, endpoint, dialect, control_id)
            if text is None:
                return
            payload = encode_for(text, dialect.charset_out)
        group = str(task.get("groupIdentifier", {}).get("value", "")) or correlation_id
        patient_id = str((patient or {}).get("id", ""))
        tx.outbox.enqueue(
            NewDelivery(
                destination=endpoint.id,
                lane=f"{endpoint.id}|{patient_id}",
                kind=kind,
                payload=payload,
                owner=effect.institution,
                control_id=control_id,
                content_type=content_type,
                correlation_id=group,
                task_id=task["id"],
                patient_id=patient_id,
                on_ack="deliver" if effect.message == "oru_r01" else "",
            )
        )

    # --- HL7 v2 ----------------------------------------------------------------------------------------------

    def _message(
        self,
        tx: Tx,
        effect: workflows.Send,
        task: Json,
        patient: Json,
        endpoint: MemberEndpoint,
        dialect: Dialect,
        control_id: str,
    ) -> str | None:
        now = self._clock()
        target = OutboundTarget(
            institution=endpoint.member,
            application=endpoint.sending_application or "HIS",
            facility=endpoint.sending_facility,
            dialect=dialect,
            sending_application=self._settings.sending_application,
            sending_facility=self._settings.sending_facility,
        )
        request = _get(tx, plain(reference_in(task.get("focus")))) or {}
        match effect.message:
            case "oru_r01":
                return self._result(tx, effect, task, patient, request, target, control_id, now)
            case "orm_o01":
                return orm_o01(
                    request,
                    patient=patient,
                    target=target,
                    control_id=control_id,
                    now=now,
                    control=effect.control or "NW",
                    conditions=_all(tx, request.get("reasonReference", ())),
                    practitioners=self._people(tx, request),
                    reason=_text(task.get("statusReason")),
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
                    conditions=_all(tx, request.get("reasonReference", ())),
                    practitioners=self._people(tx, request),
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
                    reason=_text(task.get("statusReason")),
                    note=str((task.get("note") or [{}])[-1].get("text", "")),
                    practitioners=self._people(tx, request),
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
        report = _get(tx, effect.reference)
        if report is None:
            log.warning("no_report_to_send", task=task["id"])
            return None
        report = self._signed(task, report)
        observations = _all(tx, report.get("result", ()))
        people = self._people(tx, report)
        attachments = self._attachments(tx, report)
        if not attachments and workflow_code(task) == "remote-reading":
            from fhir_mappings.report_pdf import render

            page = _page(self._directory, task, report, observations, patient, request, people)
            attachments = [OutboundAttachment(title="报告", content_type="application/pdf", data=render(page))]
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
        )

    @staticmethod
    def _signed(task: Json, report: Json) -> Json:
        """Return *report* with the signatories that the workflow recorded, where the report itself names none."""
        writer, reviewer = recorded(task, "writer")[1], recorded(task, "reviewer")[1]
        made = {**report}
        if reviewer and not made.get("resultsInterpreter"):
            made["resultsInterpreter"] = [{"reference": reviewer}]
        if writer and not any(reference_in(one) == writer for one in made.get("performer", ())):
            made["performer"] = [*made.get("performer", ()), {"reference": writer}]
        return made

    def _people(self, tx: Tx, resource: Json) -> dict[str, Json]:
        wanted: set[str] = set()
        for element in ("requester", "performer", "resultsInterpreter"):
            value = resource.get(element, ())
            for one in value if isinstance(value, list) else (value,):
                reference = plain(reference_in(one))
                if reference is not None:
                    wanted.add(reference)
        found: dict[str, Json] = {}
        for reference in wanted:
            person = _get(tx, reference)
            if person is not None and person["resourceType"] == "PractitionerRole":
                identifiers = person.get("identifier", [])
                whole = _get(tx, plain(reference_in(person.get("practitioner"))))
                person = {**(whole or {}), "identifier": identifiers} if whole is not None else None
            if person is not None:
                found[reference] = person
        return found

    def _attachments(self, tx: Tx, report: Json) -> list[OutboundAttachment]:
        found: list[OutboundAttachment] = []
        room = MAX_ATTACHMENT_BYTES
        for form in report.get("presentedForm", ()):
            data = self._bytes(tx, form)
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

    def _bytes(self, tx: Tx, form: Mapping[str, Any]) -> bytes | None:
        if "data" in form:
            return base64.b64decode(form["data"])
        binary = _get(tx, plain(str(form.get("url", ""))))
        if binary is None:
            return None
        if "data" in binary:
            return base64.b64decode(binary["data"])
        for extension in binary.get("_data", {}).get("extension", ()):
            if extension.get("url") == OBJECT_DIGEST:
                return self._objects.read(str(extension["valueString"]))
        return None

    # --- FHIR ------------------------------------------------------------------------------------------------

    @staticmethod
    def _bundle(tx: Tx, effect: workflows.Send, task: Json) -> bytes:
        resources = [task]
        for reference in (plain(reference_in(task.get("focus"))), effect.reference or None):
            resource = _get(tx, reference)
            if resource is not None:
                resources += [*_all(tx, resource.get("result", ())), resource]
        entries = [
            {
                "resource": {key: value for key, value in one.items() if key != "meta"},
                "request": {"method": "PUT", "url": f"{one['resourceType']}/{one['id']}"},
            }
            for one in resources
        ]
        return dumps({"resourceType": "Bundle", "type": "transaction", "entry": entries})


def _get(tx: Tx, reference: str | None) -> Json | None:
    if not reference:
        return None
    kind, _, id_ = reference.partition("/")
    stored = tx.records.get(kind, id_, UNRESTRICTED)
    return None if stored is None or stored.deleted else loads(stored.body)


def _all(tx: Tx, references: Sequence[Mapping[str, Any]]) -> list[Json]:
    wanted = [one for one in (plain(reference_in(item)) for item in references) if one is not None]
    pairs = [(kind, id_) for kind, _, id_ in (one.partition("/") for one in wanted)]
    found = tx.records.get_many(pairs, UNRESTRICTED)
    return [loads(found[pair].body) for pair in pairs if pair in found and not found[pair].deleted]


def _text(concept: Any) -> str:
    if not isinstance(concept, dict):
        return ""
    shown = [str(coding.get("display", "")) for coding in concept.get("coding", ())]
    return str(concept.get("text", "")) or next((one for one in shown if one), "")


def _asked_by(tx: Tx, task: Json) -> str:
    """Return MSH-10 of the referral message that started *task*; empty when it did not come as a message."""
    group = str(task.get("groupIdentifier", {}).get("value", ""))
    for entry in tx.journal.by_correlation(group) if group else ():
        if entry.message_type.startswith("REF"):
            return entry.control_id
    return ""


def _page(
    directory: Directory,
    task: Json,
    report: Json,
    observations: Sequence[Json],
    patient: Json,
    request: Json,
    people: Mapping[str, Json],
) -> ReportPage:
    from fhir_mappings.report_pdf import ReportPage

    def person(references: Sequence[Mapping[str, Any]]) -> str:
        names = [
            str((people.get(reference_in(one), {}).get("name") or [{}])[0].get("text", ""))
            or str(one.get("display", ""))
            for one in references
        ]
        return "、".join(name for name in names if name)

    owner = directory.member(recorded(task, "owner")[0])
    writer, reviewer = recorded(task, "writer")[1], report.get("resultsInterpreter", [])
    identifiers = {item.get("value", "") for item in request.get("identifier", ())}
    sections = [(_text(one.get("code")), str(one["valueString"])) for one in observations if "valueString" in one]
    if report.get("conclusion"):
        sections.append(("诊断提示 Impression", str(report["conclusion"])))
    corrected = report.get("status") in {"amended", "corrected", "appended"}
    return ReportPage(
        institution=owner.name if owner is not None else "",
        title="远程影像诊断报告（修订） Amended report" if corrected else "远程影像诊断报告 Remote reading report",
        facts=[
            ("姓名 Name", str((patient.get("name") or [{}])[0].get("text", ""))),
            ("性别 Sex", _SEX.get(str(patient.get("gender", "")), "未知")),
            ("出生日期 Birth date", str(patient.get("birthDate", ""))),
            ("申请单号 Order", "、".join(sorted(one for one in identifiers if one))),
            ("检查项目 Examination", _text(request.get("code")) or _text(report.get("code"))),
            ("签发时间 Issued", str(report.get("issued", ""))),
        ],
        sections=sections,
        signatures=[
            f"报告医师 Written by：{person([{'reference': writer}] if writer else [])}",
            f"审核医师 Verified by：{person(reviewer)}",
        ],
        footer="本报告供申请机构医师参考，诊疗决定权由申请机构承担。The requesting institution decides on treatment.",
    )
