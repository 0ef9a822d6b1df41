"""Where a referral stands, asked for by HL7 v2 (REF^I15, answered by RRI^I15; chapter 11.5.5). DESIGN rules 4, 5 and 12.

Both sides of a referral may ask, as long as its Task is in their reach; for everybody else there is no such referral. The
asker names the referral by its number and its patient, and hears nothing that the answers to the referral itself do not
tell it, so that this question, unlike the others, needs no setting of its feed. :mod:`hub.query_answers` says how
questions are answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Literal

from fhir_mappings.hl7v2.ack import AckError
from fhir_mappings.hl7v2.outbound.referral import Answer
from fhir_mappings.hl7v2.outbound.target import OutboundTarget
from fhir_mappings.hl7v2.queries import ref_i15
from fhir_mappings.hl7v2.queries.ref_i15 import ReferralQuestion, ReferralResponse
from fhir_mappings.json import loads
from hub import workflows
from hub.access import Scope, scope_of
from hub.arrival import Arrival
from hub.dispatch.related import people_of, text_of
from hub.errors import Category, HubError
from hub.ports import Stored, Tx
from hub.query_answers import Owners, QueryAnswers
from hub.workflows.codes import concept
from hub.workflows.task import plain, reference_in, workflow_code

Json = dict[str, Any]

#: Task.status to RF1-1 (table 0283). What came to nothing without a refusal is no longer in force: E.
_STANDING: Mapping[str, Answer] = {
    "draft": "P",
    "requested": "P",
    "received": "P",
    "on-hold": "P",
    "accepted": "A",
    "in-progress": "A",
    "completed": "A",
    "rejected": "R",
    "cancelled": "E",
    "failed": "E",
}


class ReferralQueries(QueryAnswers[ReferralResponse]):
    """Answers questions for referrals; safe for many threads."""

    def _found(
        self,
        arrival: Arrival,
        target: OutboundTarget,  # noqa: ARG002 - how the answer is written changes nothing of what is found
    ) -> tuple[ReferralResponse | None, Owners, int | None]:
        assert arrival.message is not None
        work = partial(_answer, question=ref_i15.read(arrival.message), scope=scope_of(arrival.actor))
        response, owners = self._services.database.read(work)
        return response, owners, 1

    def _refusal(self, status: Literal["AE", "AR"], errors: Sequence[AckError]) -> ReferralResponse:
        return ref_i15.response_of(status, errors)

    def _text(
        self, arrival: Arrival, response: ReferralResponse, target: OutboundTarget, control_id: str, now: datetime
    ) -> str:
        assert arrival.message is not None
        return ref_i15.build(arrival.message, response, target=target, control_id=control_id, now=now)


def _answer(tx: Tx, *, question: ReferralQuestion, scope: Scope) -> tuple[ReferralResponse, Owners]:
    found = {
        task.id: (task, body, request)
        for number in (question.placer, question.filler)
        if number
        for request in tx.records.by_identifier("ServiceRequest", None, number, scope)
        if not request.deleted
        for task, body in _referrals(tx, request, question, scope)
    }
    if not found:
        raise HubError(
            Category.NOT_FOUND,
            "未查到转诊 / No referral of this number and patient is known to this sender.",
            where="RF1-6",
            remedy="Send the number of a referral that you made or received, as it was sent, with its patient in PID-3.",
            code=204,
        )
    if len({request.id for _, _, request in found.values()}) > 1:
        raise HubError(
            Category.INCORRECT,
            "该编号有多个转诊 / Several referrals carry these numbers.",
            where="RF1-6",
            remedy="Send in RF1-6 the number of the side that referred, and in RF1-11 no other referral's.",
            code=204,
        )
    # A request may have been sent again after it was refused; the last word on it counts.
    _, body, request = max(found.values(), key=lambda one: (one[0].last_updated, one[0].id))
    kind, _, id_ = (plain(reference_in(body.get("for"))) or "").partition("/")
    patient = tx.records.get(kind, id_, scope) if kind == "Patient" else None
    if patient is None or patient.deleted:
        raise HubError(
            Category.NOT_FOUND,
            "未查到转诊 / No referral of this number and patient is known to this sender.",
            where="RF1-6",
            remedy="Ask the operator why the patient of this referral is not in reach.",
            code=204,
        )
    order = loads(request.body)
    response = ReferralResponse(
        status="AA",
        request=order,
        patient=loads(patient.body),
        answer=_STANDING[str(body["status"])],
        sender=workflows.parties_of(body).get("requester", ""),
        reason=text_of(body.get("statusReason")),
        step=_step(body),
        practitioners=people_of(tx, order),
    )
    return response, ((patient.owner, patient.id),)


def _referrals(tx: Tx, request: Stored, question: ReferralQuestion, scope: Scope) -> list[tuple[Stored, Json]]:
    """Return the referral Tasks of *request* that the asker takes part in and whose patient it names."""
    found = []
    for stored in tx.records.referring("Task", "focus", f"ServiceRequest/{request.id}", scope):
        task = loads(stored.body)
        parties = workflows.parties_of(task)
        if workflow_code(task) != "referral" or scope.institution not in parties.values():
            continue
        # Who received a referral may know its patient by a number that the other side has never heard of.
        if parties.get("requester") == scope.institution and not _names(tx, task, question.patients, scope):
            continue
        found.append((stored, task))
    return found


def _names(tx: Tx, task: Json, numbers: Sequence[str], scope: Scope) -> bool:
    """Return whether one of *numbers* is the asker's number of the patient of *task*, under any merge."""
    patient = (plain(reference_in(task.get("for"))) or "").removeprefix("Patient/")
    same = {patient, *tx.records.one_person(patient)}
    return any(
        one.id in same
        for number in numbers
        for one in tx.records.by_identifier("Patient", None, number, scope, owner=scope.institution)
    )


def _step(task: Json) -> str:
    workflow = workflows.workflow_for(task)
    assert workflow is not None
    step = workflow.states[workflows.state_of(workflow, task)].business_status
    return f"{concept(workflow.steps, step).get('display', '')} {step}".strip()
