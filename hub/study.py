"""A study that has gone quiet becomes an ImagingStudy and finds its order.

An order is matched by the Study Instance UID that the worklist gave out for it, then by accession number (0008,0050);
where the modality did not send one, by patient, date and modality, and only when exactly one order fits. Everything else becomes a work item: a Task with code ``unmatched-study``
that the owner's desk settles. A later order is held against the studies that still wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fhir_mappings.dicom import order as orders
from fhir_mappings.dicom.imaging_study import (
    MAX_LISTED,
    charset_provenance,
    imaging_study,
    patient_stub,
    study_date,
    study_identifier,
    wado_endpoint,
    within,
)
from fhir_mappings.dicom.instance import InstanceHeader
from fhir_mappings.dicom.worklist import order_id, study_uid
from fhir_mappings.identifiers import resource_id
from fhir_mappings.json import loads
from hub import availability
from hub.access import UNRESTRICTED, Scope
from hub.actor import HUB, Actor
from hub.clock import instant
from hub.errors import Category, HubError
from hub.performed_step import PerformedSteps, missing
from hub.ports import AuditLine, Grant, NewVersion, ObjectRef, Stored, StudyKey, Tx
from hub.routing import Router

if TYPE_CHECKING:
    from hub.boot import Services

#: How far the study's date may lie from the day an order is planned for, either way (our choice; no standard sets it).
AROUND_PLANNED = timedelta(days=3)
#: How long after an order without a planned day was written its study may follow; a day before allows for late entry.
AFTER_WRITTEN = timedelta(days=7)
BEFORE_WRITTEN = timedelta(days=1)

UNMATCHED = "unmatched-study"
CONFLICT = "imaging-conflict"
INCOMPLETE = "incomplete-study"
_DISPLAY = {
    UNMATCHED: "待匹配申请单的检查 (study without an order)",
    INCOMPLETE: "影像未到齐的检查 (study with images missing)",
    CONFLICT: "同一影像标识内容不同 (image sent again with other bytes)",
}

#: Orders that images may still belong to (https://hl7.org/fhir/R4/valueset-request-status.html).
_OPEN_ORDERS = frozenset({"active", "completed", "on-hold", "unknown"})
#: Kinds of numbers tried against (0008,0050), best first: Chinese modalities often send the order's own number.
_NUMBER_KINDS = ("accession", "filler-order", "placer-order")


class StudyCompletion:
    """Makes and keeps the ImagingStudy of a study."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @cached_property
    def _router(self) -> Router:
        return Router(self._services.settings, self._services.directory, self._services.clock)

    @property
    def _base(self) -> str:
        return self._services.settings.base_url

    def complete(self, tx: Tx, key: StudyKey) -> dict[str, Any] | None:
        """Count the study, write its ImagingStudy and what belongs to it, match it to an order; returns the resource.

        What is new in it is queued for where its owner's rules and open work send it. Nothing is written for a study
        that has no current instance. Repeating it changes nothing.
        """
        now = self._services.clock()
        tx.imaging.deletions.enforce(key)
        study = tx.imaging.refresh_study(key)
        if not study["NumberOfStudyRelatedInstances"]:
            self._withdraw(tx, key, study)
            return None
        patient = self._patient(tx, study)
        resource = self._imaging_study(tx, study, patient)
        expected = self._steps.expected(tx, key)
        if expected.procedures:
            resource["procedureReference"] = {"reference": f"Procedure/{expected.procedures[0]}"}
        order: Stored | None = None
        match = study["match"]
        if match in {"", "unmatched"} and not resource.get("basedOn"):
            order, how = self._find_order(tx, study)
            match = how
            if order is not None:
                resource["basedOn"] = [{"reference": f"ServiceRequest/{order.id}"}]
        elif not match:
            match = "manual"
        versions = [NewVersion(resource=resource, owner=key.owner)]
        if study["charset_flagged"] or (not study["charset_declared"] and study["charset_used"] not in {"", "ascii"}):
            versions.append(NewVersion(resource=self._provenance(tx, study, patient), owner=key.owner))
        tx.records.put_many(versions)
        tx.imaging.set_study_state(key, "complete", match=match, counted_at=now)
        study = {**study, "state": "complete", "match": match}
        self._work_item(tx, study, patient, UNMATCHED, wanted=match == "unmatched")
        absent = missing(tx, key, expected) if expected.instances else frozenset()
        said = f"{len(expected.instances) - len(absent)} / {len(expected.instances)}"
        self._work_item(tx, study, patient, INCOMPLETE, wanted=bool(absent), note=f"已到影像 (images here): {said}")
        self._services.tasks.on_study_complete(tx, key.owner, resource, correlation_id=study["correlation_id"])
        # After the workflows, which may just have opened a grant.
        self._router.completed(tx, study)
        availability.announce(tx, self._services, study)
        return resource

    def recount(self, tx: Tx, key: StudyKey) -> None:
        """Let the study's counts and its ImagingStudy follow what has just been marked deleted or brought back.

        An ImagingStudy of which nothing is shown is ``entered-in-error`` and lists no series
        (https://hl7.org/fhir/R4/valueset-imagingstudy-status.html). A study that is still being received gets its
        ImagingStudy when it is complete.
        """
        before = tx.imaging.study(key)
        study = tx.imaging.refresh_study(key)
        if not study["NumberOfStudyRelatedInstances"]:
            self._withdraw(tx, key, study)
            return
        stored = tx.records.get("ImagingStudy", study["resource_id"], UNRESTRICTED)
        if stored is None or stored.deleted:
            if before is not None and before["state"] == "empty":
                tx.imaging.reopen(key)
            return
        if before is not None and before["state"] == "empty":
            tx.imaging.set_study_state(key, "complete", counted_at=self._services.clock())
        resource = self._imaging_study(tx, study, self._patient(tx, study))
        tx.records.put_many([NewVersion(resource=resource, owner=key.owner)])

    def _withdraw(self, tx: Tx, key: StudyKey, study: Mapping[str, Any]) -> None:
        """Show nothing of a study that has no current instance, and ask nobody to work on it."""
        tx.imaging.set_study_state(key, "empty", counted_at=self._services.clock())
        for code in (UNMATCHED, INCOMPLETE):
            self._work_item(tx, study, "", code, wanted=False)
        stored = tx.records.get("ImagingStudy", study["resource_id"], UNRESTRICTED)
        if stored is None or stored.deleted:
            return
        resource = loads(stored.body)
        resource |= {"status": "entered-in-error", "numberOfSeries": 0, "numberOfInstances": 0}
        for element in ("series", "modality"):
            resource.pop(element, None)
        tx.records.put_many([NewVersion(resource=resource, owner=key.owner)])

    def not_before(self, tx: Tx, key: StudyKey, latest: datetime) -> datetime:
        """Return the moment before which the study is not to be completed; *latest* is its newest instance's arrival.

        A quiet time decides where the modality says nothing. Where its performed procedure steps do, the study is ready
        as soon as all that they made is here, and waits, for a bounded while, for what is not.
        """
        settings = self._services.settings
        expected = self._steps.expected(tx, key)
        if expected.open_since is None and not expected.instances:
            return latest + timedelta(seconds=settings.study_quiet_s)
        if expected.open_since is None and not missing(tx, key, expected):
            return latest
        return max(latest, expected.open_since or latest) + timedelta(seconds=settings.step_wait_s)

    # --- parts -----------------------------------------------------------------------------------------------

    @cached_property
    def _steps(self) -> PerformedSteps:
        return PerformedSteps(self._services)

    def _patient(self, tx: Tx, study: Mapping[str, Any]) -> str:
        """Return the reference to the sender's Patient, made from the header when ADT has not told of it."""
        reference = f"Patient/{study['patient_id']}"
        if tx.records.get("Patient", study["patient_id"], UNRESTRICTED) is None:
            tx.records.lock_condition(reference)
            stub = patient_stub(study, id=study["patient_id"], institution=study["owner"], base=self._base)
            tx.records.put_many([NewVersion(resource=stub, owner=study["owner"])])
        return reference

    def _endpoint(self, tx: Tx, owner: str) -> str:
        id_ = resource_id(owner, "dicom-web", "Endpoint", owner)
        endpoint = wado_endpoint(
            id=id_,
            institution=owner,
            address=f"{self._services.settings.public()}/dicom-web",
            organization=_organization(tx, owner),
        )
        tx.records.put_many([NewVersion(resource=endpoint, owner=owner, visibility="consortium")])
        return f"Endpoint/{id_}"

    def _imaging_study(self, tx: Tx, study: Mapping[str, Any], patient: str) -> dict[str, Any]:
        owner = study["owner"]
        key = StudyKey(owner=owner, StudyInstanceUID=study["StudyInstanceUID"])
        listed = study["NumberOfStudyRelatedInstances"] <= MAX_LISTED
        made = imaging_study(
            study,
            tx.imaging.series_of(key),
            tx.imaging.instances_of(key) if listed else (),
            id=study["resource_id"],
            patient=patient,
            endpoint=self._endpoint(tx, owner),
            institution=owner,
            time_zone=self._services.settings.time_zone,
            base=self._base,
        )
        current = tx.records.get("ImagingStudy", study["resource_id"], UNRESTRICTED)
        if current is None or current.deleted:
            return made
        # What people and workflows have added (basedOn, reasonCode, note) outlives late instances.
        kept = {name: value for name, value in loads(current.body).items() if name not in made and name != "meta"}
        return {**made, **kept}

    def _provenance(self, tx: Tx, study: Mapping[str, Any], patient: str) -> dict[str, Any]:
        id_ = resource_id(study["owner"], "charset-repair", "Provenance", study["StudyInstanceUID"])
        stored = tx.records.get("Provenance", id_, UNRESTRICTED)
        recorded = loads(stored.body)["recorded"] if stored is not None else instant(self._services.clock())
        return charset_provenance(
            study,
            id=id_,
            target=f"ImagingStudy/{study['resource_id']}",
            patient=patient,
            recorded=recorded,
            base=self._base,
        )

    # --- matching --------------------------------------------------------------------------------------------

    def _find_order(self, tx: Tx, study: Mapping[str, Any]) -> tuple[Stored | None, str]:
        """Return the one order the study belongs to and how it was found, or ``(None, "unmatched")``."""
        owner = study["owner"]
        planned = self._planned(tx, study)
        if planned is not None:
            return planned, "study-uid"
        number = study["AccessionNumber"].strip()
        if number:
            found = [
                (stored, body)
                for stored in tx.records.by_identifier("ServiceRequest", None, number, UNRESTRICTED, owner=owner)
                if (body := loads(stored.body)).get("status") in _OPEN_ORDERS
            ]
            for kind in _NUMBER_KINDS:
                fitting = [stored for stored, body in found if orders.is_numbered(body, number, kind)]
                if len(fitting) == 1:
                    return fitting[0], "accession"
                if fitting:
                    return None, "unmatched"
        # The order may name the survivor of a merge and the images the dead record, or the other way about.
        fitting = [
            stored
            for record in tx.records.one_person(study["patient_id"])
            for stored in tx.records.referring("ServiceRequest", "subject", f"Patient/{record}", UNRESTRICTED)
            if stored.owner == owner and self._fits(loads(stored.body), study)
        ]
        return (fitting[0], "patient-date-modality") if len(fitting) == 1 else (None, "unmatched")

    def _planned(self, tx: Tx, study: Mapping[str, Any]) -> Stored | None:
        """Return the order of the study's patient that the study's UID was given out for."""
        owner, uid = study["owner"], study["StudyInstanceUID"]
        found = tx.records.by_identifier("ServiceRequest", "urn:dicom:uid", f"urn:oid:{uid}", UNRESTRICTED, owner=owner)
        made_of = order_id(uid)
        stored = tx.records.get("ServiceRequest", made_of, UNRESTRICTED) if made_of is not None else None
        for one in [*found, *([stored] if stored is not None and not stored.deleted else [])]:
            order = loads(one.body)
            named = one.owner == owner and order.get("status") in _OPEN_ORDERS and study_uid(order) == uid
            if named and (order.get("subject") or {}).get("reference") == f"Patient/{study['patient_id']}":
                return one
        return None

    def _fits(self, order: Mapping[str, Any], study: Mapping[str, Any]) -> bool:
        """Return whether an order of the same patient agrees with the study in status, date and modality."""
        day = study_date(study)
        if order.get("status") not in _OPEN_ORDERS or day is None:
            return False
        accession = orders.accession(order)
        if accession and study["AccessionNumber"] and accession != study["AccessionNumber"]:
            return False
        planned, written = orders.days(order, self._services.settings.time_zone)
        if planned is not None:
            timely = within(day, planned, before=AROUND_PLANNED, after=AROUND_PLANNED)
        else:
            timely = written is not None and within(day, written, before=BEFORE_WRITTEN, after=AFTER_WRITTEN)
        asked = orders.modalities(order)
        sent = {code for code in study["ModalitiesInStudy"].split("\\") if code}
        return timely and any(orders.modality_group(code) & asked for code in sent)

    def match_later(self, tx: Tx, service_request: Mapping[str, Any], *, owner: str) -> list[str]:
        """Hold a stored order against the studies that wait; returns the ids of ImagingStudies now based on an order."""
        subject = str((service_request.get("subject") or {}).get("reference", ""))
        patient = subject.removeprefix("Patient/") if subject.startswith("Patient/") else ""
        matched = []
        for study in tx.imaging.unmatched(owner, patient_id=patient, accessions=orders.numbers(service_request)):
            order, how = self._find_order(tx, study)
            if order is not None:
                self._link(tx, study, order.id, how)
                matched.append(study["resource_id"])
        return matched

    def settle(self, tx: Tx, key: StudyKey, service_request_id: str | None, actor: Actor) -> None:
        """Link the study to an order of its owner, or record that it has none."""
        study = tx.imaging.study(key)
        if study is None or study["state"] != "complete" or actor.institution not in {key.owner, HUB.institution}:
            raise HubError(Category.NOT_FOUND, "There is no such complete study.", where=key.StudyInstanceUID)
        if service_request_id is not None:
            order = tx.records.get("ServiceRequest", service_request_id, Scope(institution=key.owner))
            if order is None or order.deleted or order.owner != key.owner:
                raise HubError(
                    Category.NOT_FOUND,
                    "The institution has no such order.",
                    where=f"ServiceRequest/{service_request_id}",
                    remedy="Name an order of the institution that sent the images.",
                )
        self._link(tx, study, service_request_id, "manual" if service_request_id else "none")
        tx.audit.write(
            AuditLine(
                type="rest",
                action="U",
                subtype="settle-study",
                actor=actor,
                recorded_at=self._services.clock(),
                patients=((key.owner, study["patient_id"]),),
                entities=(f"ImagingStudy/{study['resource_id']}",),
            )
        )

    def _link(self, tx: Tx, study: Mapping[str, Any], order_id: str | None, how: str) -> None:
        stored = tx.records.get("ImagingStudy", study["resource_id"], UNRESTRICTED)
        if stored is not None and not stored.deleted:
            resource = loads(stored.body)
            if order_id is None:
                resource.pop("basedOn", None)
            else:
                resource["basedOn"] = [{"reference": f"ServiceRequest/{order_id}"}]
            tx.records.put_many([NewVersion(resource=resource, owner=study["owner"])])
            self._services.tasks.on_study_complete(tx, study["owner"], resource, correlation_id=study["correlation_id"])
        key = StudyKey(owner=study["owner"], StudyInstanceUID=study["StudyInstanceUID"])
        tx.imaging.set_study_state(key, study["state"], match=how)
        self._work_item(tx, study, f"Patient/{study['patient_id']}", UNMATCHED, wanted=how == "unmatched")

    # --- work items ------------------------------------------------------------------------------------------

    def _work_item(
        self, tx: Tx, study: Mapping[str, Any], patient: str, code: str, *, wanted: bool, note: str = ""
    ) -> None:
        """Open the study's work item of kind *code* while it is *wanted*, and close the one that is open when it is not."""
        owner = study["owner"]
        id_ = resource_id(owner, code, "Task", study["StudyInstanceUID"])
        stored = tx.records.get("Task", id_, UNRESTRICTED)
        now = instant(self._services.clock())
        before = loads(stored.body) if stored is not None and not stored.deleted else None
        if not wanted:
            if before is not None and before["status"] != "completed":
                tx.records.put_many(
                    [NewVersion(resource=before | {"status": "completed", "lastModified": now}, owner=owner)]
                )
            return
        if before is not None and before["status"] != "completed" and _note(before) == note:
            return
        task = _task(id_, code, self._base, now, owner=_organization(tx, owner))
        task["focus"] = {"reference": f"ImagingStudy/{study['resource_id']}"}
        task["for"] = {"reference": patient}
        if note:
            task["note"] = [{"text": note}]
        tx.records.put_many([NewVersion(resource=task, owner=owner)])


def _note(task: Mapping[str, Any]) -> str:
    return str((task.get("note") or [{}])[0].get("text", ""))


def raise_conflict(tx: Tx, services: Services, owner: str, header: InstanceHeader, ref: ObjectRef) -> None:
    """Raise, once for a SOP Instance UID, the work item that says that other bytes came under it.

    The Task is the operator's and the sender sees it too; it names the instance and holds no patient data.
    """
    id_ = resource_id(owner, CONFLICT, "Task", header.SOPInstanceUID)
    if tx.records.get("Task", id_, UNRESTRICTED) is not None:
        return
    now = services.clock()
    task = _task(id_, CONFLICT, services.settings.base_url, instant(now), owner=_organization(tx, HUB.institution))
    requester = _organization(tx, owner)
    if requester:
        task["requester"] = {"reference": requester}
    task["focus"] = {"identifier": study_identifier(header.SOPInstanceUID)}
    task["input"] = [
        {"type": {"text": "后到文件摘要 (SHA-256 of the later bytes)"}, "valueString": ref.digest},
        {"type": {"text": "检查 (Study Instance UID)"}, "valueString": header.StudyInstanceUID},
        {"type": {"text": "来源机构 (institution)"}, "valueString": owner},
    ]
    tx.records.put_many([NewVersion(resource=task, owner=HUB.institution)])
    if owner != HUB.institution:
        tx.grants.open(Grant(grantee=owner, target_type="Task", target_id=id_, task_id=id_), now=now)


def _task(id_: str, code: str, base: str, now: str, *, owner: str | None) -> dict[str, Any]:
    task: dict[str, Any] = {
        "resourceType": "Task",
        "id": id_,
        "status": "requested",
        "intent": "order",
        "code": {"coding": [{"system": f"{base}/CodeSystem/work-item", "code": code, "display": _DISPLAY[code]}]},
        "authoredOn": now,
        "lastModified": now,
    }
    if owner:
        task["owner"] = {"reference": owner}
    return task


def _organization(tx: Tx, code: str) -> str | None:
    member = tx.members.get(code)
    return f"Organization/{member.organization_id}" if member is not None else None
