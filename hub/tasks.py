"""The workflow tables applied to stored Tasks: every path that moves a Task ends here (DESIGN rule 7).

FHIR create, update, patch, transaction and ``$transition``, HL7 v2 messages, timers and stored acknowledgements load the
same instance, ask the same judge (:mod:`hub.workflows`) and carry out the same effects (:mod:`hub.effects`), all inside
the caller's transaction: the new Task, the grants, the timers and the outgoing messages become durable together or not
at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import structlog

from fhir_mappings.hl7v2.base import Translation
from fhir_mappings.json import loads
from hub import relink, workflows
from hub.access import UNRESTRICTED, scope_of
from hub.actor import HUB, Actor
from hub.clock import Clock
from hub.config import Settings
from hub.directory import Directory
from hub.effects import Effects
from hub.errors import Category, HubError
from hub.instances import Instances, focus_of, persons_of
from hub.message_events import CarriedOut, MessageEvents
from hub.ports import AuditLine, Delivery, NewVersion, ObjectStore, Stored, Timer, Tx
from hub.prior_requests import Move, PriorRequests
from hub.workflows.acting import acting
from hub.workflows.base import BASE, WORKFLOW_SYSTEM
from hub.workflows.task import plain, reference_in, referred

log = structlog.get_logger("hub.tasks")

Json = dict[str, Any]

#: DiagnosticReport.status of a report that others may act on.
_ISSUED = frozenset({"final", "amended", "corrected", "appended"})


class TaskService:
    """Moves Tasks by their tables."""

    def __init__(self, settings: Settings, directory: Directory, objects: ObjectStore, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock
        self._effects = Effects(settings, directory, objects, clock)
        self._instances = Instances(directory, clock)
        self._messages = MessageEvents(self, directory, self._instances)
        self._priors = PriorRequests(directory, clock)

    @staticmethod
    def rules(task: Mapping[str, Any]) -> bool:
        """Return whether a workflow table rules *task*; other Tasks are ordinary resources."""
        return workflows.workflow_for(task) is not None

    def party(self, actor: Actor) -> workflows.Actor:
        """Return *actor* as the tables know them: the person by one reference whatever role they act in."""
        if actor is HUB:
            return workflows.HUB_ACTOR
        person = (
            None if actor.practitioner is None else self._directory.practitioner(actor.institution, actor.practitioner)
        )
        if actor.practitioner is not None and person is None:
            raise HubError(
                Category.FORBIDDEN,
                "The person of this token is no longer active at the institution.",
                where="practitioner",
                remedy="Ask the operator to import the PractitionerRole again.",
            )
        return acting(actor, person)

    # --- the ways in -----------------------------------------------------------------------------------------

    def create(self, tx: Tx, task: Json, actor: Actor, *, correlation_id: str, by_message: bool = False) -> Stored:
        """Judge and store a new Task; it must have its id. *by_message* = an HL7 v2 message asks for the work.

        Raises:
            HubError: 422 with what is missing; forbidden in another institution's name.
        """
        workflow = workflows.workflow_for(task)
        assert workflow is not None
        parties: dict[str, str] = {}
        for party in ("requester", "owner"):
            reference = reference_in(task.get(party))
            found = self._directory.resolve(plain(reference) or "")
            if found is None:
                raise HubError(
                    Category.INCORRECT,
                    f"Task.{party} does not name a member or one of its people.",
                    where=f"Task.{party}",
                    remedy="Use Organization/… or PractitionerRole/… of the directory.",
                    status=422,
                )
            parties[party] = found[0]
        # The case keeps the id under which it came in, so that its last delivery can be traced to its first byte.
        task = {**task}
        task.setdefault("groupIdentifier", {"system": f"{BASE}/NamingSystem/correlation", "value": correlation_id})
        request = focus_of(tx, task)
        sends = task.get("status") == "requested"
        decision = workflows.start(
            workflow,
            task,
            request,
            self.party(actor),
            self._clock(),
            parties=parties,
            resources=self._instances.held(tx, task, None, consents=request if sends else None),
            known=self._instances.known(tx, workflow, task, parties, by_message=by_message) if sends else None,
            persons=persons_of(tx, task),
        )
        return self._keep(
            tx, decision, actor, owner=parties["requester"], expected_version=0, correlation_id=correlation_id
        )

    def update(
        self, tx: Tx, old: Stored, new_task: Json, actor: Actor, *, expected_version: int | None, correlation_id: str
    ) -> Stored:
        """Judge and store an ordinary update of a Task (PUT, PATCH, transaction).

        Raises:
            HubError: 409 or 422 naming the allowed events; 412 when *expected_version* is not the current one.
        """
        task = loads(old.body)
        workflow = workflows.workflow_for(task)
        assert workflow is not None
        _expect(old, expected_version)
        # A reader gets the Task with the hub's own stamp; sending it back must not count as a change.
        changed_owner = reference_in(new_task.get("owner")) != reference_in(task.get("owner"))
        owner = self._party(reference_in(new_task.get("owner"))) if changed_owner else None
        decision = workflows.judge_update(
            workflow,
            self._instances.instance(tx, task, (new_task,), sent_to=owner.institution if owner is not None else ""),
            new_task,
            self.party(actor),
            self._clock(),
            owner=owner,
        )
        return self._keep(
            tx, decision, actor, owner=old.owner, expected_version=old.version, correlation_id=correlation_id
        )

    def transition(
        self,
        tx: Tx,
        task_id: str,
        event: str,
        actor: Actor,
        *,
        reason: Json | None = None,
        note: str = "",
        inputs: Sequence[Json] = (),
        outputs: Sequence[Json] = (),
        assignee: str | None = None,
        expected_at: datetime | None = None,
        expected_version: int | None = None,
        correlation_id: str = "",
        by_message: bool = False,
    ) -> Stored:
        """Judge and store one event; *by_message* = an HL7 v2 message states it.

        Raises:
            HubError: not-found for a Task out of the actor's reach; 409 or 422 naming the allowed events.
        """
        old = tx.records.get("Task", task_id, UNRESTRICTED if actor is HUB else scope_of(actor))
        if old is None or old.deleted:
            raise HubError(Category.NOT_FOUND, "There is no such Task.", where=f"Task/{task_id}")
        _expect(old, expected_version)
        task = loads(old.body)
        workflow = workflows.workflow_for(task)
        if workflow is None:
            raise HubError(
                Category.INCORRECT,
                "No workflow table rules this Task.",
                where="Task.code",
                remedy=f"Only Tasks with a code of {WORKFLOW_SYSTEM} can be moved by events: {', '.join(workflows.WORKFLOWS)}.",
                status=422,
            )
        given = workflows.Inputs(
            reason=reason,
            note=note,
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            assignee=None if assignee is None else self._party(assignee),
            expected_at=expected_at,
        )
        instance = self._instances.instance(tx, task, (), given, by_message=by_message)
        decision = workflows.judge(workflow, instance, event, self.party(actor), given, self._clock())
        return self._keep(
            tx, decision, actor, owner=old.owner, expected_version=old.version, correlation_id=correlation_id
        )

    def allowed(self, tx: Tx, task: Json, actor: Actor) -> tuple[str, ...]:
        """Return the events that *actor* may cause now."""
        workflow = workflows.workflow_for(task)
        if workflow is None:
            return ()
        return workflows.allowed_events(workflow, self._instances.instance(tx, task, ()), self.party(actor))

    def refuse_shortcut(self, tx: Tx, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        """Refuse an update that would make a report final past the review of a reading that is still open.

        Raises:
            HubError: 409; the reviewer's event makes the report final.
        """
        if new.get("status") == old.get("status") or new.get("status") not in _ISSUED:
            return
        report = f"DiagnosticReport/{old['id']}"
        for based_on in old.get("basedOn", ()):
            request = plain(reference_in(based_on))
            for stored in tx.records.referring("Task", "focus", request, UNRESTRICTED) if request else ():
                task = loads(stored.body)
                workflow = workflows.workflow_for(task)
                if workflow is None or report not in set(referred(task, "output")):
                    continue
                if not workflow.states[workflows.state_of(workflow, task)].terminal:
                    raise HubError(
                        Category.CONFLICT,
                        "The report belongs to a reading that has not been reviewed yet.",
                        where="DiagnosticReport.status",
                        remedy=f"Move Task/{stored.id} by its events; the reviewer's event makes the report final.",
                        issue_code="business-rule",
                    )

    # --- what happens by itself ------------------------------------------------------------------------------

    def on_timer(self, tx: Tx, timer: Timer) -> None:
        """Fire the event of a workflow timer that is due, unless the Task has moved on meanwhile."""
        self._as_hub(
            tx, str(timer.payload["task"]), str(timer.payload["event"]), str(timer.payload.get("correlation", ""))
        )

    def on_delivered(self, tx: Tx, delivery: Delivery) -> None:
        """Move the Task whose result the partner has just acknowledged."""
        if delivery.task_id and delivery.on_ack:
            self._as_hub(tx, delivery.task_id, delivery.on_ack, delivery.correlation_id)

    def on_priors(self, tx: Tx, delivery: Delivery, ack: bytes) -> None:
        """Let the Task for which earlier studies were fetched show them."""
        self._priors.fetched(tx, delivery, ack, self._mover(tx, delivery.correlation_id))

    def _mover(self, tx: Tx, correlation_id: str) -> Move:
        return lambda task, event, inputs: self._as_hub(tx, task, event, correlation_id, inputs=inputs)

    def on_study_complete(self, tx: Tx, owner: str, imaging_study: Json, *, correlation_id: str = "") -> None:
        """Let Tasks that wait for images of the study's order go on, and those for which it was fetched show it."""
        self._priors.completed(tx, owner, imaging_study, self._mover(tx, correlation_id))
        for based_on in imaging_study.get("basedOn", ()):
            reference = plain(reference_in(based_on))
            if reference is None:
                continue
            for stored in tx.records.referring("Task", "focus", reference, UNRESTRICTED):
                task = loads(stored.body)
                workflow = workflows.workflow_for(task)
                if stored.owner != owner or workflow is None or workflow.code != "remote-reading":
                    continue
                if workflows.state_of(workflow, task) == "images-incomplete":
                    study = {
                        "type": {"text": "影像"},
                        "valueReference": {"reference": f"ImagingStudy/{imaging_study['id']}"},
                    }
                    self._as_hub(tx, stored.id, "resupply", correlation_id, inputs=(study,))

    def _as_hub(self, tx: Tx, task_id: str, event: str, correlation_id: str, inputs: Sequence[Json] = ()) -> None:
        try:
            self.transition(tx, task_id, event, HUB, inputs=inputs, correlation_id=correlation_id)
        except HubError as error:
            if error.category not in {Category.CONFLICT, Category.NOT_FOUND, Category.INCORRECT}:
                raise
            # The table said no: a person was faster than the clock or the acknowledgement.
            log.info("event_not_open", task=task_id, workflow_event=event, why=error.message)

    # --- HL7 v2 ----------------------------------------------------------------------------------------------

    def relinked(self, tx: Tx, translation: Translation, actor: Actor, *, correlation_id: str) -> Translation:
        """Return *translation* as it may be applied.

        A partner's answer is tied to the request it answers, at the institution that asked, and the status of a request
        whose work goes on is left to the workflow. A change of an order whose work has begun is refused.

        Raises:
            HubError: a change is refused, and its sender reads no answers to orders.
        """
        found = relink.relinked(tx, translation, actor.institution)
        found = self._messages.without_refused_changes(tx, found, actor=actor, correlation_id=correlation_id)
        return relink.left_to_workflow(tx, found, actor.institution)

    def on_message_events(self, tx: Tx, translation: Translation, *, actor: Actor, correlation_id: str) -> CarriedOut:
        """Move workflows by what a v2 message asks or reports.

        Raises:
            HubError: the message commands what the table of its Task does not take now; a result raises nothing.
        """
        return self._messages.carry_out(tx, translation, actor=actor, correlation_id=correlation_id)

    def answer(self, tx: Tx, task: Json, control: str, error: HubError | None = None, *, correlation_id: str) -> bool:
        """Answer a command about the order of *task*; see :meth:`hub.effects.Effects.answer`."""
        return self._effects.answer(tx, task, control, error, correlation_id=correlation_id)

    # --- loading and keeping ---------------------------------------------------------------------------------

    def _party(self, reference: str) -> workflows.Party:
        found = self._directory.resolve(plain(reference) or "")
        if found is None:
            raise HubError(
                Category.INCORRECT,
                "The person or institution named is not in the directory.",
                where="assignee",
                remedy="Use Organization/… or PractitionerRole/… of the directory.",
                status=422,
            )
        return workflows.Party(reference=reference, institution=found[0], practitioner=found[1])

    def _keep(
        self,
        tx: Tx,
        decision: workflows.Decision,
        actor: Actor,
        *,
        owner: str,
        expected_version: int,
        correlation_id: str,
    ) -> Stored:
        [stored] = tx.records.put_many(
            [NewVersion(resource=decision.task, owner=owner, expected_version=expected_version)]
        )
        self._effects.carry_out(
            tx,
            decision,
            loads(stored.body),
            correlation_id=correlation_id,
            start=lambda inner, further: self.create(inner, further, HUB, correlation_id=correlation_id),
        )
        patient = plain(reference_in(decision.task.get("for"))) or ""
        tx.audit.write(
            AuditLine(
                type="workflow",
                action="C" if decision.old_state == "" else "U",
                subtype=decision.event or "edit",
                actor=actor,
                recorded_at=self._clock(),
                patients=((owner, patient.removeprefix("Patient/")),) if patient.startswith("Patient/") else (),
                entities=(f"Task/{stored.id}",),
                correlation_id=correlation_id,
                detail=f"{decision.old_state or 'new'} -> {decision.new_state}",
            )
        )
        return tx.records.get("Task", stored.id, UNRESTRICTED) or stored


def _expect(old: Stored, expected_version: int | None) -> None:
    if expected_version is not None and expected_version != old.version:
        raise HubError(
            Category.CONFLICT,
            f"The version asked for is not the current one, which is {old.version}.",
            where=f"Task/{old.id}",
            remedy="Read the Task again and decide anew.",
            status=412,
        )
