"""Workflows started and moved by what HL7 v2 messages ask and report (DESIGN rule 7).

A :class:`~fhir_mappings.hl7v2.base.WorkflowEvent` becomes a new Task or an event of the tables, under the same judge as
every other path. :mod:`hub.relink` says which Tasks an event is about, :mod:`hub.commands` what a command means that no
table has an open event for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import structlog

from fhir_mappings.hl7v2.base import Issue, Translation, Upsert, WorkflowEvent
from fhir_mappings.identifiers import resource_id
from fhir_mappings.json import loads
from hub import commands, relink, workflows
from hub.access import UNRESTRICTED
from hub.actor import Actor
from hub.directory import Directory
from hub.errors import HubError
from hub.instances import Instances
from hub.ports import Tx
from hub.workflows.base import BASE, WORKFLOW_SYSTEM
from hub.workflows.task import newest, plain, reference_in

if TYPE_CHECKING:
    from hub.tasks import TaskService

log = structlog.get_logger("hub.message_events")

Json = dict[str, Any]

#: Kinds of v2 workflow events that any table acts on; a message may state dozens of others.
_LISTENED = frozenset(
    kind
    for workflow in workflows.WORKFLOWS.values()
    for transition in workflow.transitions
    for kind in transition.messages
)


#: Kinds that v2 senders state without a reason, though a table may demand one.
_WITHOUT_REASON = frozenset(
    {
        *("report.corrected", "referral.rejected", "referral.cancelled"),
        *("order.cancel", "order.rejected", "order.cancelled"),
        "referral.status-rejected",
    }
)

#: Answers that leave the Task where it stands, and the words in which its notes keep them.
_NOTES = {
    "referral.change-accepted": "接收方已接受修改 / The recipient takes the change",
    "referral.change-refused": "接收方未接受修改 / The recipient does not take the change",
    "referral.cancellation-refused": "接收方不同意撤回 / The recipient does not agree to the cancellation",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriedOut:
    """What a message did to Tasks.

    Attributes:
        tasks: references of those that were started or moved.
        issues: why a result or an answer that was kept moved no Task; for the journal, without patient data.
    """

    tasks: tuple[str, ...] = ()
    issues: tuple[Issue, ...] = ()


class MessageEvents:
    """Carries the workflow events of messages to the Tasks they are about."""

    def __init__(self, tasks: TaskService, directory: Directory, instances: Instances) -> None:
        self._tasks = tasks
        self._directory = directory
        self._instances = instances

    def carry_out(self, tx: Tx, translation: Translation, *, actor: Actor, correlation_id: str) -> CarriedOut:
        """Move workflows by what a v2 message asks or reports.

        Raises:
            HubError: the message commands what the table of its Task does not take now; a result raises nothing.
        """
        touched: list[str] = []
        issues: list[Issue] = []
        for event in translation.workflow_events:
            if event.kind in commands.UNRULED:
                for stored in relink.tasks_of(tx, event, actor.institution):
                    log.info("request_changed_without_step", task=stored.id, workflow_event=event.kind)
            if event.kind not in _LISTENED:
                continue
            if event.kind in {"referral.requested", "order.new"}:
                started = self._start(tx, event, translation, actor, correlation_id)
                if started:
                    touched.append(started)
                    continue
            touched += self._move(tx, event, actor, correlation_id, issues)
        return CarriedOut(tasks=tuple(touched), issues=tuple(issues))

    def without_refused_changes(
        self, tx: Tx, translation: Translation, *, actor: Actor, correlation_id: str
    ) -> Translation:
        """Return *translation* without the changes of orders that their tables do not take now, each answered with why.

        Judged before anything is stored, because a change is made of the request itself. What is taken leaves the status of
        the request to its table: an order that is changed while it is held stays held.

        Raises:
            HubError: its sender reads no answers to orders, or is not who placed the order; the message is refused whole.
        """
        dropped: set[str] = set()
        ruled: set[str] = set()
        events: list[WorkflowEvent] = []
        issues: list[Issue] = []
        for event in translation.workflow_events:
            found = self._judged(tx, event, actor) if event.kind in commands.ORDER_CHANGES else []
            focuses = {plain(reference_in(task.get("focus"))) or "" for task, _ in found}
            if not found or any(why is None for _, why in found):
                ruled |= focuses
                events.append(event)
                continue
            task, why = found[0]
            assert why is not None
            answer = commands.ORDER_CHANGES[event.kind]
            is_own = workflows.parties_of(task).get("requester") == actor.institution
            if not is_own or not self._tasks.answer(tx, task, answer, why, correlation_id=correlation_id):
                raise why
            dropped |= focuses
            issues.append(Issue(severity="warning", code="business-rule", message=why.message, where=why.where))
        if not dropped and not ruled:
            return translation
        changes = [one for one in translation.changes if not (isinstance(one, Upsert) and one.reference in dropped)]
        return replace(
            translation,
            changes=tuple(
                replace(one, resource={name: value for name, value in one.resource.items() if name != "status"})
                if isinstance(one, Upsert) and one.reference in ruled
                else one
                for one in changes
            ),
            workflow_events=tuple(events),
            issues=(*translation.issues, *issues),
        )

    def _judged(self, tx: Tx, event: WorkflowEvent, actor: Actor) -> list[tuple[Json, HubError | None]]:
        """Return the Tasks whose tables know *event*, each with why it does not take it; ``None`` where it does."""
        found: list[tuple[Json, HubError | None]] = []
        party = self._tasks.party(actor)
        for stored in relink.tasks_of(tx, event, actor.institution):
            task = loads(stored.body)
            workflow = workflows.workflow_for(task)
            if workflow is None or not commands.concerns(workflow, event.kind):
                continue
            instance = self._instances.instance(tx, task, (), workflows.Inputs())
            is_open = workflows.event_for_message(workflow, instance, event.kind, party) is not None
            if is_open or commands.is_fulfilled(workflow, instance, event.kind, party):
                found.append((task, None))
            else:
                found.append((task, commands.refusal(workflow, instance, event.kind, party, stored.id)))
        return found

    def _start(
        self, tx: Tx, event: WorkflowEvent, translation: Translation, actor: Actor, correlation_id: str
    ) -> str | None:
        receiver = self._directory.facility_member(event.receiver)
        request = next((one for one in event.focus if one.startswith("ServiceRequest/")), None)
        if receiver is None or receiver == actor.institution or request is None:
            return None
        code = "referral" if event.kind == "referral.requested" else "lab-outsourcing"
        member, asker = self._directory.member(receiver), self._directory.member(actor.institution)
        if member is None or asker is None or (code == "lab-outsourcing" and "lab" not in member.entitlements):
            return None
        task_id = resource_id(actor.institution, "workflow", "Task", f"{code}|{request}")
        if tx.records.get("Task", task_id, UNRESTRICTED) is not None:
            return None
        stored = tx.records.get("ServiceRequest", request.partition("/")[2], UNRESTRICTED)
        body = loads(stored.body) if stored is not None else {}
        task: Json = {
            "resourceType": "Task",
            "id": task_id,
            "status": "requested",
            "intent": "order",
            "priority": body.get("priority", "routine"),
            "code": {"coding": [{"system": WORKFLOW_SYSTEM, "code": code}]},
            "focus": {"reference": request},
            "for": body.get("subject", {"reference": f"Patient/{translation.patient_id}"}),
            "requester": {"reference": f"Organization/{asker.organization_id}"},
            "owner": {"reference": f"Organization/{member.organization_id}"},
        }
        if event.placer_number:
            system = f"{BASE}/NamingSystem/{actor.institution}/placer-order"
            task["identifier"] = [{"system": system, "value": event.placer_number}]
        person = self._directory.practitioner(receiver, event.performer) if event.performer else None
        if person is not None:
            task["owner"] = {"reference": f"PractitionerRole/{person.role_id}"}
        supporting = [plain(reference_in(one)) for one in body.get("supportingInfo", ())] + [
            plain(reference_in(one)) for one in body.get("specimen", ())
        ]
        inputs = [
            {"type": {"text": "附件"}, "valueReference": {"reference": one}} for one in supporting if one is not None
        ]
        if inputs:
            task["input"] = inputs
        self._tasks.create(tx, task, actor, correlation_id=correlation_id, by_message=True)
        return f"Task/{task_id}"

    def _move(self, tx: Tx, event: WorkflowEvent, actor: Actor, correlation_id: str, issues: list[Issue]) -> list[str]:
        reports = [one for one in event.focus if one.startswith("DiagnosticReport/")]
        bookings = [one for one in event.focus if one.startswith("Appointment/")]
        moved: list[str] = []
        refused: list[tuple[Json, HubError]] = []
        fulfilled = False
        for stored in relink.tasks_of(tx, event, actor.institution):
            task = loads(stored.body)
            workflow = workflows.workflow_for(task)
            if workflow is None or not commands.concerns(workflow, event.kind):
                continue
            outputs = [
                {"type": {"text": name}, "valueReference": {"reference": one}}
                for name, found in (("报告", reports), ("预约", bookings))
                for one in found
            ]
            given = workflows.Inputs(outputs=tuple(outputs))
            instance = self._instances.instance(tx, task, (), given)
            party = self._tasks.party(actor)
            if commands.is_command(event.kind) and commands.is_fulfilled(workflow, instance, event.kind, party):
                log.info("command_fulfilled_already", task=stored.id, workflow_event=event.kind)
                fulfilled = True
                if event.kind == "order.hold":
                    # The other changes are made again; who asks twice for what stands already is answered twice as well.
                    self._tasks.answer(tx, task, "HR", correlation_id=correlation_id)
                continue
            name = workflows.event_for_message(workflow, instance, event.kind, party)
            if name is None:
                log.info("message_event_not_open", task=stored.id, workflow_event=event.kind)
                if commands.is_command(event.kind):
                    refused.append((task, commands.refusal(workflow, instance, event.kind, party, stored.id)))
                continue
            if (reports and newest(task, "output", "DiagnosticReport") in reports) or (
                bookings and newest(task, "output", "Appointment") in bookings
            ):
                outputs = []
            try:
                self._tasks.transition(
                    tx,
                    stored.id,
                    name,
                    actor,
                    outputs=outputs,
                    reason=_reason(event),
                    note=_note(event),
                    correlation_id=correlation_id,
                    by_message=True,
                )
            except HubError as error:
                if not event.kind.startswith(("report.", *commands.ANSWERS)) or error.transient:
                    raise
                # What reports is kept whatever the table says of it; the judge has written nothing yet when it refuses.
                log.warning("report_kept_without_move", task=stored.id, workflow_event=name, why=error.message)
                # Its sender was told that it is taken, and the one who waits for it gets nothing: the journal says why.
                message = f"Kept, but it does not move Task/{stored.id} by '{name}': {error.message}"
                issues.append(Issue(severity="warning", code="business-rule", message=message, where=event.kind))
                continue
            moved.append(f"Task/{stored.id}")
        if refused and not moved and not fulfilled:
            # One request may have several Tasks, of which the ended ones take nothing more.
            task, why = refused[0]
            asked_by = workflows.parties_of(task).get("requester")
            if event.kind != "order.cancel" or asked_by != actor.institution:
                raise why
            # Other orders of the same message may be cancelled, so where its sender reads answers each has its own.
            if not self._tasks.answer(tx, task, "UC", why, correlation_id=correlation_id):
                raise why
        return moved


def _note(event: WorkflowEvent) -> str:
    """Return what the notes of the Task say of *event*; empty for one whose step says it."""
    words = _NOTES.get(event.kind, "")
    return f"{words}: {event.reason}" if words and event.reason else words


def _reason(event: WorkflowEvent) -> Json | None:
    if event.kind in _NOTES:
        # The reason that a Task shows is why it stands where it stands, and such an answer leaves it there.
        return None
    if event.reason:
        return {"text": event.reason}
    # A table may demand a reason where a v2 message has no field that carries one; the message itself is the reason.
    return {"text": f"HL7 v2 {event.kind}"} if event.kind in _WITHOUT_REASON else None
