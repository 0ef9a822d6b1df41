"""From a workflow's ``Send`` to a delivery in the partner's own protocol, dialect and character set.

The message is built inside the transaction that moves the Task, so that what the partner gets is exactly the state that
was decided; the outbox carries it from there. A partner without an endpoint works in the portal or by FHIR and reads
the Task there, so nothing is sent.

By FHIR goes a transaction (https://hl7.org/fhir/R4/http.html#transaction) of PUTs under the hub's ids, or, where the
partner's Endpoint asks for it, a message (https://hl7.org/fhir/R4/messaging.html). It holds what belongs to the work as
far as the receiver may see it; a reference to anything else names it by an identifier, so that no server has to follow it.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
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
from hub.access import UNRESTRICTED, Scope
from hub.clock import Clock, instant
from hub.config import Settings
from hub.delivery import asks_for
from hub.directory import Directory
from hub.errors import Category, HubError
from hub.ports import MemberEndpoint, NewDelivery, ObjectStore, Stored, Tx
from hub.references import literal
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
#: What a request, report or document may refer to and still be part of the same piece of work.
PART_OF_WORK = frozenset(
    {
        "Binary",
        "Condition",
        "DiagnosticReport",
        "DocumentReference",
        "Endpoint",
        "ImagingStudy",
        "Location",
        "Media",
        "Observation",
        "Organization",
        "Patient",
        "Practitioner",
        "PractitionerRole",
        "ServiceRequest",
        "Specimen",
    }
)
#: What is part of the work but leads no further.
LEAVES = frozenset({"Patient", "Practitioner", "PractitionerRole", "Organization", "Endpoint", "Location", "Task"})
#: Steps from the Task to the last resource that goes with it: input -> report -> result -> specimen.
_STEPS = 4
#: Kinds of endpoints that take resources.
_BY_FHIR = ("fhir", "fhir-message")
#: References that a receiver needs the target of, although every member may read it at the hub.
_NEEDED = frozenset({"Endpoint"})
_MESSAGE_EVENTS = "http://terminology.hl7.org/CodeSystem/v2-0003"
_SEX = {"male": "男", "female": "女"}


class Dispatcher:
    """Builds messages and puts them into the outbox."""

    def __init__(self, settings: Settings, directory: Directory, objects: ObjectStore, clock: Clock) -> None:
        self._settings = settings
        self._directory = directory
        self._objects = objects
        self._clock = clock

    def _endpoint(self, institution: str) -> MemberEndpoint | None:
        return self._directory.reach(institution, "mllp", *_BY_FHIR)

    def sends_resources(self, institution: str) -> bool:
        """Return whether *institution* is reached by FHIR, so that it is sent what it may see."""
        endpoint = self._endpoint(institution)
        return endpoint is not None and endpoint.kind in _BY_FHIR

    def send(self, tx: Tx, effect: workflows.Send, task: Json, *, correlation_id: str) -> None:
        """Queue the message of *effect* for the institution it names, by the first way that institution can be reached."""
        endpoint = self._endpoint(effect.institution)
        if endpoint is None:
            log.info("no_endpoint", institution=effect.institution, message=effect.message, task=task["id"])
            return
        patient = _get(tx, plain(reference_in(task.get("for"))))
        control_id = f"YX{secrets.token_hex(8).upper()}"
        if endpoint.kind in _BY_FHIR:
            kind, content_type = "fhir", "application/fhir+json"
            payload = self._bundle(tx, effect, task, endpoint, control_id)
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

    def _bundle(self, tx: Tx, effect: workflows.Send, task: Json, endpoint: MemberEndpoint, control_id: str) -> bytes:
        """Return the transaction, or the message, that tells the receiver of the new state."""
        resources = self._shared(tx, effect, task)
        base = f"{self._settings.public()}/fhir"
        entries: list[Json] = [
            {"fullUrl": f"{base}/{one['resourceType']}/{one['id']}", "resource": one} for one in resources
        ]
        if endpoint.kind == "fhir" and not asks_for(endpoint, "message"):
            for entry, one in zip(entries, resources, strict=True):
                entry["request"] = {"method": "PUT", "url": f"{one['resourceType']}/{one['id']}"}
            return dumps({"resourceType": "Bundle", "type": "transaction", "entry": entries})
        focus = [f"{one['resourceType']}/{one['id']}" for one in resources]
        focus = [one for one in focus if one in {f"Task/{task['id']}", effect.reference}]
        header = self._header(tx, effect, task, endpoint, control_id, focus)
        entries.insert(0, {"fullUrl": f"{base}/MessageHeader/{control_id}", "resource": header})
        return dumps(
            {
                "resourceType": "Bundle",
                "id": control_id,
                "type": "message",
                "timestamp": instant(self._clock()),
                "entry": entries,
            }
        )

    def _header(
        self,
        tx: Tx,
        effect: workflows.Send,
        task: Json,
        endpoint: MemberEndpoint,
        control_id: str,
        focus: Sequence[str],
    ) -> Json:
        """Return the MessageHeader; its id is what the answer must name (https://hl7.org/fhir/R4/messageheader.html)."""
        header: Json = {
            "resourceType": "MessageHeader",
            "id": control_id,
            # The event of the v2 message that says the same (HL7 table 0003).
            "eventCoding": {"system": _MESSAGE_EVENTS, "code": effect.message.rpartition("_")[2].upper()},
            "destination": [{"name": endpoint.id, "endpoint": endpoint.address}],
            "source": {"name": self._settings.sending_application, "endpoint": f"{self._settings.public()}/fhir"},
            "focus": [{"reference": one} for one in focus],
        }
        receiver = self._directory.member(effect.institution)
        if receiver is not None:
            header["destination"][0]["receiver"] = self._pointer(
                tx, f"Organization/{receiver.organization_id}", UNRESTRICTED
            )
        others = [code for code in workflows.parties_of(task).values() if code != effect.institution]
        sender = self._directory.member(others[0]) if others else None
        if sender is not None:
            # The other party of the work speaks and answers for what is said; the hub passes it on.
            who = self._pointer(tx, f"Organization/{sender.organization_id}", UNRESTRICTED)
            header |= {"sender": who, "responsible": who}
        return header

    def _shared(self, tx: Tx, effect: workflows.Send, task: Json) -> list[Json]:
        """Return the Task and what belongs to it, as far as the receiver may see it, ready for another server."""
        scope = Scope(institution=effect.institution)
        found: dict[str, Stored] = {}
        bodies: dict[str, Json] = {f"Task/{task['id']}": task}
        wanted = {effect.reference} - {""} | set(_followed(task))
        for _ in range(_STEPS):
            pairs = [(kind, id_) for kind, _, id_ in (one.partition("/") for one in sorted(wanted - bodies.keys()))]
            wanted = set()
            for stored in tx.records.get_many(pairs, scope).values():
                if stored.deleted or (stored.visibility == "consortium" and stored.type not in _NEEDED):
                    continue
                reference = f"{stored.type}/{stored.id}"
                found[reference], bodies[reference] = stored, loads(stored.body)
                wanted |= set(_followed(bodies[reference]))
            if not wanted:
                break
        if effect.reference in bodies and effect.reference.startswith("DiagnosticReport/"):
            bodies[effect.reference] = self._signed(task, bodies[effect.reference])
        made = []
        for reference, body in bodies.items():
            stored_or_none = found.get(reference)
            owner = stored_or_none.owner if stored_or_none is not None else ""
            made.append(self._for_elsewhere(tx, body, scope, owner=owner, beside=bodies.keys()))
        return made

    def _for_elsewhere(self, tx: Tx, body: Json, scope: Scope, *, owner: str, beside: Collection[str]) -> Json:
        """Return a copy of *body* whose references and attachments do not depend on the hub's own store."""
        copy: Json = loads(dumps(body))
        meta = {name: value for name, value in copy.pop("meta", {}).items() if name in {"profile", "security", "tag"}}
        if meta:
            copy["meta"] = meta
        for found in list(literal(copy)):
            target = plain(found.text)
            if target is not None and target not in beside:
                given = dict(found.holder)
                found.holder.clear()
                found.holder.update(self._pointer(tx, target, scope, given))
        self._inline(tx, copy, scope, owner)
        return copy

    def _pointer(self, tx: Tx, reference: str, scope: Scope, given: Mapping[str, Any] | None = None) -> Json:
        """Return a logical reference (https://hl7.org/fhir/R4/references.html#logical) to *reference*.

        What *scope* may see is named by its business identifier, else by its address at the hub; the rest by its type alone.
        """
        kind, _, id_ = reference.partition("/")
        made: Json = {name: value for name, value in (given or {}).items() if name in {"identifier", "display"}}
        made["type"] = kind
        stored = tx.records.get(kind, id_, scope)
        if stored is None or stored.deleted:
            made.setdefault("display", "未共享 (not shared)")
            return made
        body = loads(stored.body)
        identifiers = body.get("identifier", ())
        identifiers = identifiers if isinstance(identifiers, list) else [identifiers]
        whole = [one for one in identifiers if one.get("system") and one.get("value")]
        if whole:
            made.setdefault("identifier", {"system": whole[0]["system"], "value": whole[0]["value"]})
        # An address is an identifier too (https://hl7.org/fhir/R4/identifier-registry.html), which no server has to follow.
        made.setdefault(
            "identifier", {"system": "urn:ietf:rfc:3986", "value": f"{self._settings.public()}/fhir/{reference}"}
        )
        if isinstance(body.get("name"), str):
            made.setdefault("display", body["name"])
        return made

    def _inline(self, tx: Tx, resource: Json, scope: Scope, owner: str) -> None:
        """Put the bytes of Binary resources into the attachments that name them, while there is room."""
        room = MAX_ATTACHMENT_BYTES
        stack: list[Any] = [resource]
        while stack:
            value = stack.pop()
            if isinstance(value, list):
                stack.extend(value)
                continue
            if not isinstance(value, dict):
                continue
            stack.extend(value.values())
            target = plain(str(value.get("url", "")))
            if target is None or not target.startswith("Binary/"):
                continue
            id_ = target.partition("/")[2]
            stored = tx.records.get("Binary", id_, UNRESTRICTED)
            # An attachment goes with the document of the same institution; another's must be open by itself.
            open_ = stored is not None and (stored.owner == owner or tx.records.get("Binary", id_, scope) is not None)
            data = self._bytes(tx, {"url": target}) if open_ else None
            value["url"] = f"{self._settings.public()}/fhir/{target}"
            if data is not None and len(data) <= room:
                room -= len(data)
                del value["url"]
                value["data"] = base64.b64encode(data).decode()
        if resource["resourceType"] == "Binary" and "data" not in resource:
            data = self._bytes(tx, {"url": f"Binary/{resource['id']}"})
            resource.pop("_data", None)
            if data is not None and len(data) <= room:
                resource["data"] = base64.b64encode(data).decode()


def references(value: Any) -> set[str]:
    """Return ``Type/id`` of every literal reference inside *value*."""
    found: set[str] = set()
    stack = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, dict):
            reference = one.get("reference")
            if isinstance(reference, str) and (target := plain(reference)):
                found.add(target)
            stack.extend(one.values())
        elif isinstance(one, list):
            stack.extend(one)
    return found


def _followed(resource: Json) -> Iterator[str]:
    if resource["resourceType"] in LEAVES - {"Task"}:
        return
    for one in references(resource):
        if one.partition("/")[0] in PART_OF_WORK:
            yield one


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
