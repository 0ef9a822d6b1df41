"""Earlier studies for a reading that was accepted: fetched from the requester's archive, and shown to the reader by the Task.

An institution asks for it with ``on=acceptance`` in the setting ``priors`` of its archive's Endpoint. The request is a delivery
to that archive, so it is tried again, listed and replayed like any other, and the Task waits for none of it. What is fetched is
the institution's own and nobody else sees it; with ``show=task`` each study becomes an input of the Task once it is complete, by
the event ``add-priors`` of the workflow table, which shows it for as long as the Task shows its other images.

A request is good while the Task is in a state that reads, and only for the patient of the Task: both are asked again when it
leaves, as may be days later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from fhir_mappings.json import dumps, loads
from hub import workflows
from hub.access import UNRESTRICTED
from hub.actor import HUB
from hub.clock import Clock
from hub.delivery import lane_name
from hub.directory import Directory
from hub.instances import persons_of
from hub.ports import AuditLine, Delivery, MemberEndpoint, NewDelivery, StudyKey, Tx
from hub.priors import Pulled, Rule
from hub.workflows.remote_reading import PRIORS
from hub.workflows.task import referred

log = structlog.get_logger("hub.priors")

#: ``NewDelivery.kind`` of a request.
KIND = "priors"
#: Most requests of one patient that are looked at when a study is complete.
_REQUESTS = 100

Json = dict[str, Any]
#: Moves the Task of a number by an event, with inputs.
Move = Callable[[str, str, tuple[Json, ...]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorRequest:
    """What one delivery asks its archive for.

    Attributes:
        apart: the studies of the Task itself, which are no earlier ones.
    """

    PatientID: str
    issuer: str
    rule: Rule
    apart: frozenset[str]


class PriorRequests:
    """What workflow effects, the sender and completed studies call, each in its transaction."""

    def __init__(self, directory: Directory, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock

    def accepted(self, tx: Tx, task: Mapping[str, Any], state: str, *, correlation_id: str) -> None:
        """Queue the requests of a Task that is in *state* now, once in its life."""
        requester = workflows.parties_of(task).get("requester", "")
        to = self._archive(requester) if state in PRIORS.states else None
        if to is None or tx.outbox.deliveries({"task_id": task["id"], "kind": KIND}, limit=1):
            return
        numbers = {(one["PatientID"], one["IssuerOfPatientID"]): one["patient_id"] for one in _studies(tx, task)}
        for (number, issuer), patient in sorted(numbers.items()):
            if number:
                tx.outbox.enqueue(
                    NewDelivery(
                        destination=to.id,
                        lane=lane_name(to.id, patient, slot=KIND),
                        kind=KIND,
                        payload=dumps({"PatientID": number, "IssuerOfPatientID": issuer}),
                        owner=requester,
                        control_id=task["id"],
                        content_type="application/json",
                        correlation_id=correlation_id,
                        task_id=task["id"],
                        patient_id=patient,
                    )
                )

    def wanted(self, tx: Tx, delivery: Delivery, endpoint: MemberEndpoint) -> PriorRequest | None:
        """Return what *delivery* asks *endpoint* for; where nothing is wanted any more it is skipped, with an audit line."""
        stored = tx.records.get("Task", delivery.task_id, UNRESTRICTED)
        task = loads(stored.body) if stored is not None and not stored.deleted else None
        rule = rule_of(endpoint)
        why = ""
        if task is None or not _reads(task):
            why = "该阅片已不在进行中 / the reading is not going on."
        elif not rule.on_acceptance or workflows.parties_of(task).get("requester") != endpoint.member:
            why = "该档案不再要求调取 / its archive's setting asks for nothing."
        else:
            asked = loads(delivery.payload)
            studies = list(_studies(tx, task))
            if any(
                (one["PatientID"], one["IssuerOfPatientID"]) == (asked["PatientID"], asked["IssuerOfPatientID"])
                for one in studies
            ):
                return PriorRequest(
                    PatientID=asked["PatientID"],
                    issuer=asked["IssuerOfPatientID"],
                    rule=rule,
                    apart=frozenset(one["StudyInstanceUID"] for one in studies),
                )
            why = "该号已不属于此任务的患者 / the number is not of the Task's patient any more."
        self._skip(tx, delivery, why)
        return None

    def fetched(self, tx: Tx, delivery: Delivery, ack: bytes, move: Move) -> None:
        """Show the Task what is complete of the studies that *ack* names; the others follow when they are."""
        _lock(tx, delivery.owner, delivery.patient_id)
        for uid in _shown(ack):
            study = tx.imaging.study(StudyKey(owner=delivery.owner, StudyInstanceUID=uid))
            if study is not None and study["state"] == "complete":
                move(delivery.task_id, PRIORS.event, (_input(study["resource_id"]),))

    def completed(self, tx: Tx, owner: str, imaging_study: Mapping[str, Any], move: Move) -> None:
        """Show a study that has just become complete to the Tasks for which it was fetched."""
        study = tx.imaging.study_by_resource(owner, str(imaging_study["id"]))
        if study is None:
            return
        criteria = {"patient_id": study["patient_id"], "kind": KIND, "owner": owner}
        if not tx.outbox.deliveries(criteria, limit=1):
            return
        _lock(tx, owner, study["patient_id"])
        for one in tx.outbox.deliveries(criteria, limit=_REQUESTS):
            if study["StudyInstanceUID"] in _shown(one.ack or b""):
                move(one.task_id, PRIORS.event, (_input(study["resource_id"]),))

    # --- parts -----------------------------------------------------------------------------------------------

    def _archive(self, member: str) -> MemberEndpoint | None:
        points = [
            one
            for one in self._directory.endpoints(member, "dicom")
            if one.active and one.address and rule_of(one).on_acceptance
        ]
        return min(points, key=lambda one: one.id, default=None)

    def _skip(self, tx: Tx, delivery: Delivery, why: str) -> None:
        now = self._clock()
        tx.outbox.skip(delivery.id, now=now, reason=why)
        tx.audit.write(
            AuditLine(
                type="delivery",
                action="E",
                subtype="priors-not-asked",
                actor=HUB,
                recorded_at=now,
                patients=((delivery.owner, delivery.patient_id),),
                entities=(f"Task/{delivery.task_id}",),
                correlation_id=delivery.correlation_id,
                detail=f"delivery {delivery.id} to {delivery.destination}",
            )
        )
        log.info("priors_not_asked", destination=delivery.destination, delivery=delivery.id)


def rule_of(endpoint: MemberEndpoint) -> Rule:
    """Return what the setting ``priors`` of *endpoint* asks for."""
    return Rule.of(str(endpoint.settings.get("priors", "")))


def acknowledgement(pulled: list[Pulled], *, shown: bool) -> bytes:
    """Return what is kept of a fetch; *shown* = the Task is to show the studies."""
    studies = [
        {
            "study": one.StudyInstanceUID,
            "present": one.present,
            "fetched": one.fetched,
            "missing": one.missing,
            **({"why": one.why} if one.why else {}),
        }
        for one in pulled
    ]
    return dumps({"shown": shown, "studies": studies})


def _shown(ack: bytes) -> frozenset[str]:
    said: Json = loads(ack) if ack else {}
    return frozenset(str(one["study"]) for one in said.get("studies", ()) if said.get("shown"))


def _reads(task: Mapping[str, Any]) -> bool:
    workflow = workflows.workflow_for(task)
    return (
        workflow is not None
        and workflow.code == PRIORS.workflow
        and workflows.state_of(workflow, task) in PRIORS.states
    )


def _studies(tx: Tx, task: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the requester's studies in Task.input that are of the patient of the Task."""
    requester = workflows.parties_of(task).get("requester", "")
    persons = persons_of(tx, task)
    for reference in referred(task, "input"):
        kind, _, id_ = reference.partition("/")
        study = tx.imaging.study_by_resource(requester, id_) if kind == "ImagingStudy" else None
        if study is not None and f"Patient/{study['patient_id']}" in persons:
            yield study


def _input(resource_id: str) -> Json:
    return {
        "type": {"text": "既往影像 / earlier study"},
        "valueReference": {"reference": f"ImagingStudy/{resource_id}"},
    }


def _lock(tx: Tx, owner: str, patient: str) -> None:
    # A study may become complete while the end of its fetch is written down; one of the two must see the other.
    tx.records.lock_condition(f"{KIND}|{owner}|{patient}")
