"""What a workflow decision makes happen, carried out in the transaction that stores the Task."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from fhir_mappings.identifiers import resource_id
from fhir_mappings.json import loads
from hub import workflows
from hub.access import UNRESTRICTED
from hub.acknowledge import refused
from hub.clock import Clock, instant
from hub.config import Settings
from hub.directory import Directory
from hub.dispatch import LEAVES, PART_OF_WORK, Dispatcher, references
from hub.dispatch.news import News
from hub.errors import HubError
from hub.ports import Grant, NewVersion, ObjectStore, Stored, Timer, Tx
from hub.prior_requests import PriorRequests
from hub.routing import Router
from hub.workflows.base import BASE, ENDED, WORKFLOW_SYSTEM
from hub.workflows.remote_reading import PRIORS, SEND_STUDIES
from hub.workflows.task import plain, reference_in, referred, workflow_code

Json = dict[str, Any]

#: Steps from the Task to the last thing its partner may see: input -> report -> result -> specimen.
_CLOSURE_STEPS = 3
_CLOSURE_MAX = 2000


class Effects:
    """Carries out the effects of decisions."""

    def __init__(self, settings: Settings, directory: Directory, objects: ObjectStore, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock
        self._dispatcher = Dispatcher(settings, directory, objects, clock)
        self._router = Router(settings, directory, clock)
        self._priors = PriorRequests(directory, clock)
        self._news = News(settings, directory, objects, clock)

    def carry_out(
        self,
        tx: Tx,
        decision: workflows.Decision,
        task: Json,
        *,
        correlation_id: str,
        start: Callable[[Tx, Json], object],
    ) -> None:
        """Carry out all effects of *decision*, whose Task is stored as *task*, in the table's order.

        Args:
            start: starts a further Task that a table of its own rules.
        """
        now = self._clock()
        grants: list[workflows.OpenGrant] = []
        before = _live(tx, task["id"], now) if self._news.listeners() else None
        self._open_for_receivers(tx, decision, task, now)
        for effect in decision.effects:
            match effect:
                case workflows.SetStatus(reference=reference, status=status):
                    self._set_status(tx, reference, status, correlation_id)
                case workflows.Send():
                    self._dispatcher.send(tx, effect, task, correlation_id=correlation_id)
                case workflows.Notify():
                    self._notify(tx, effect, decision, task, now)
                case workflows.Sign():
                    self._sign(tx, effect, task, now)
                case workflows.CreateTask():
                    self._create_task(tx, effect, task, now, start)
                case workflows.EndTask(code=code, status=status):
                    self._end_tasks(tx, task, code, status)
                case workflows.OpenGrant():
                    # Grants wait until the end, so that they cover what the other effects have just made.
                    grants.append(effect)
                case workflows.CloseGrant(institution=grantee, until=until, scope=reach):
                    tx.grants.close(
                        task["id"], grantee=grantee, until=until or now, patient_record=reach == "patient-record"
                    )
                case workflows.StartTimer(name=name, event=event, due=due):
                    payload = {"task": task["id"], "event": event, "correlation": correlation_id}
                    tx.timers.set(Timer(kind="workflow", key=f"{task['id']}|{name}", due_at=due, payload=payload))
                case workflows.CancelTimer(name=name):
                    tx.timers.cancel("workflow", f"{task['id']}|{name}")
        if any(isinstance(one, workflows.Sign) for one in decision.effects) and not grants:
            grants = self._standing(decision, task)
        for grant in grants:
            self._open(tx, grant, task, now)
        if before is not None:
            new = [grant for key, grant in _live(tx, task["id"], now).items() if key not in before]
            self._news.opened(tx, new, correlation_id=correlation_id)
        self._studies(tx, decision, task, correlation_id)

    def answer(self, tx: Tx, task: Json, control: str, error: HubError | None = None, *, correlation_id: str) -> bool:
        """Tell the requester of *task*, as the answer *control* (ORC-1) to its message, what became of its command.

        *error* is why it is refused. Returns whether that is told; one who reads no such answers must hear of a refusal in
        the acknowledgement.
        """
        answer = workflows.Send(
            message="orr_o02",
            to_role="requester",
            control=control,
            institution=workflows.parties_of(task).get("requester", ""),
        )
        if error is None:
            return self._dispatcher.send(tx, answer, task, correlation_id=correlation_id)
        return self._dispatcher.send(
            tx, answer, task, correlation_id=correlation_id, reason=error.message, errors=refused(error).errors
        )

    # --- studies ---------------------------------------------------------------------------------------------

    def _studies(self, tx: Tx, decision: workflows.Decision, task: Json, correlation_id: str) -> None:
        """Send the studies that the new state sends, and keep back those whose grant has just ended."""
        if any(isinstance(one, workflows.CloseGrant) for one in decision.effects):
            self._router.withdraw(tx, task["id"])
        workflow = workflows.WORKFLOWS[decision.workflow]
        group = str(task.get("groupIdentifier", {}).get("value", "")) or correlation_id
        if workflow.code == PRIORS.workflow:
            self._priors.accepted(tx, task, decision.new_state, correlation_id=group)
        for one in SEND_STUDIES if workflow.code == "remote-reading" else ():
            institution = workflows.parties_of(task).get(workflow.roles[one.role].party, "")
            if institution and decision.new_state in one.states:
                self._router.push(
                    tx, list(referred(task, "input")), institution, task_id=task["id"], correlation_id=group
                )

    # --- grants ----------------------------------------------------------------------------------------------

    def _open_for_receivers(self, tx: Tx, decision: workflows.Decision, task: Json, now: datetime) -> None:
        """Open first what a receiver by FHIR is to see, because what it is sent is cut to what it may see."""
        receivers = {one.institution for one in decision.effects if isinstance(one, workflows.Send)}
        receivers = {one for one in receivers if self._dispatcher.sends_resources(one)}
        if receivers:
            opened = [one for one in decision.effects if isinstance(one, workflows.OpenGrant)]
            for grant in [*opened, *self._standing(decision, task)]:
                if grant.institution in receivers:
                    self._open(tx, grant, task, now)

    @staticmethod
    def _standing(decision: workflows.Decision, task: Json) -> list[workflows.OpenGrant]:
        """Return the views that stay open in the new state, to be computed anew because the work has grown."""
        workflow = workflows.WORKFLOWS[decision.workflow]
        parties = workflows.parties_of(task)
        return [
            workflows.OpenGrant(role=view.role, scope=view.scope, institution=institution, task=f"Task/{task['id']}")
            for view in workflow.visibility
            if decision.new_state in view.states
            and view.scope == "task-closure"
            and (institution := parties.get(workflow.roles[view.role].party, ""))
        ]

    def _open(self, tx: Tx, effect: workflows.OpenGrant, task: Json, now: datetime) -> None:
        grantee = effect.institution
        if effect.scope == "patient-record":
            patient = plain(reference_in(task.get("for")))
            if patient and patient.startswith("Patient/"):
                tx.grants.open(
                    Grant(
                        grantee=grantee,
                        target_type="patient-record",
                        target_id=patient.removeprefix("Patient/"),
                        task_id=task["id"],
                    ),
                    now=now,
                )
            return
        for reference, owner in self._closure(tx, task).items():
            if owner != grantee:
                kind, _, id_ = reference.partition("/")
                tx.grants.open(Grant(grantee=grantee, target_type=kind, target_id=id_, task_id=task["id"]), now=now)

    def _closure(self, tx: Tx, task: Json) -> dict[str, str]:
        """Return everything that belongs to the work, as reference -> owner institution."""
        parties = set(workflows.parties_of(task).values())
        found: dict[str, str] = {}
        # The engine has proved whose these are; from here on an institution opens only what is its own: a reference
        # to another institution's resource, wherever a partner may have put it, opens nothing.
        wanted: dict[str, str | None] = dict.fromkeys({f"Task/{task['id']}", *workflows.references(task)})
        for _ in range(_CLOSURE_STEPS):
            following: dict[str, str | None] = {}
            for stored in _load(tx, set(wanted) - set(found)):
                reference = f"{stored.type}/{stored.id}"
                referrer = wanted[reference]
                if (
                    stored.visibility == "consortium"
                    or stored.owner not in parties
                    or referrer not in {None, stored.owner}
                ):
                    continue
                found[reference] = stored.owner
                if stored.type not in LEAVES:
                    for one in references(loads(stored.body)):
                        if one.partition("/")[0] in PART_OF_WORK:
                            following.setdefault(one, stored.owner)
            wanted = following
            if not wanted or len(found) > _CLOSURE_MAX:
                break
        for output in referred(task, "output"):
            for stored in tx.records.referring("Provenance", "target", output, UNRESTRICTED):
                if stored.owner in parties:
                    found[f"Provenance/{stored.id}"] = stored.owner
        return found

    # --- resources -------------------------------------------------------------------------------------------

    def _set_status(self, tx: Tx, reference: str, status: str, correlation_id: str) -> None:
        stored = _one(tx, reference)
        if stored is None:
            return
        resource = loads(stored.body)
        if resource.get("status") != status:
            tx.records.put_many([NewVersion(resource={**resource, "status": status}, owner=stored.owner)])
            if stored.type == "Appointment":
                # Of reports and documents partners are told when they are stored; a booking ends by the workflow alone.
                self._news.changed(tx, [reference], origin=stored.owner, correlation_id=correlation_id)

    def _notify(
        self, tx: Tx, effect: workflows.Notify, decision: workflows.Decision, task: Json, now: datetime
    ) -> None:
        member = self._directory.member(effect.institution)
        if member is None:
            return
        key = f"{task['id']}|{task['meta']['versionId']}|{decision.event}|{effect.role}"
        communication: Json = {
            "resourceType": "Communication",
            "id": resource_id(effect.institution, "workflow", "Communication", key),
            "status": "completed",
            "category": [{"coding": [{"system": f"{BASE}/CodeSystem/communication-category", "code": "workflow"}]}],
            "about": [{"reference": f"Task/{task['id']}"}],
            "sent": instant(now),
            "recipient": [{"reference": f"Organization/{member.organization_id}"}],
            "payload": [{"contentString": effect.text_zh}, {"contentString": effect.text_en}],
        }
        tx.records.put_many([NewVersion(resource=communication, owner=effect.institution)])

    def _sign(self, tx: Tx, effect: workflows.Sign, task: Json, now: datetime) -> None:
        stored = _one(tx, effect.reference)
        member = self._directory.member(effect.institution)
        if stored is None or member is None:
            return
        who = {"reference": effect.practitioner}
        provenance: Json = {
            "resourceType": "Provenance",
            "id": resource_id(
                effect.institution,
                "signature",
                "Provenance",
                f"{effect.reference}|{stored.version}|{effect.purpose}|{effect.practitioner}",
            ),
            "target": [{"reference": f"{effect.reference}/_history/{stored.version}"}],
            "recorded": instant(now),
            "agent": [
                {
                    "type": {
                        "coding": [
                            {
                                "system": "http://terminology.hl7.org/CodeSystem/provenance-participant-type",
                                "code": "author" if effect.role == "writer" else "verifier",
                            }
                        ]
                    },
                    "who": who,
                    "onBehalfOf": {"reference": f"Organization/{member.organization_id}"},
                }
            ],
            "entity": [{"role": "source", "what": {"reference": f"Task/{task['id']}"}}],
            "signature": [
                {
                    "type": [{"system": "urn:iso-astm:E1762-95:2013", "code": effect.purpose}],
                    "when": instant(now),
                    "who": who,
                }
            ],
        }
        tx.records.put_many([NewVersion(resource=provenance, owner=effect.institution)])

    @staticmethod
    def _end_tasks(tx: Tx, task: Json, code: str, status: str) -> None:
        for stored in tx.records.referring("Task", "part-of", f"Task/{task['id']}", UNRESTRICTED):
            further = loads(stored.body)
            if workflow_code(further) == code and further.get("status") not in ENDED:
                tx.records.put_many([NewVersion(resource={**further, "status": status}, owner=stored.owner)])

    def _create_task(
        self, tx: Tx, effect: workflows.CreateTask, task: Json, now: datetime, start: Callable[[Tx, Json], object]
    ) -> None:
        owner, requester = self._directory.member(effect.owner), self._directory.member(effect.requester)
        if owner is None or requester is None:
            return
        id_ = resource_id(effect.requester, "workflow", "Task", effect.key)
        if tx.records.get("Task", id_, UNRESTRICTED) is not None:
            return
        further: Json = {
            "resourceType": "Task",
            "id": id_,
            "status": "requested",
            "intent": "order",
            "priority": effect.priority,
            "code": {"coding": [{"system": WORKFLOW_SYSTEM, "code": effect.code}]},
            "authoredOn": instant(now),
            "requester": {"reference": f"Organization/{requester.organization_id}"},
            "owner": {"reference": f"Organization/{owner.organization_id}"},
            "partOf": [{"reference": effect.part_of}],
        }
        if effect.focus:
            further["focus"] = {"reference": effect.focus}
        if effect.patient:
            further["for"] = {"reference": effect.patient}
        elif "for" in task:
            further["for"] = task["for"]
        if workflows.workflow_for(further) is not None:
            start(tx, further)
            return
        tx.records.put_many([NewVersion(resource=further, owner=effect.requester, expected_version=0)])
        if effect.owner != effect.requester:
            tx.grants.open(Grant(grantee=effect.owner, target_type="Task", target_id=id_, task_id=task["id"]), now=now)


def _live(tx: Tx, task_id: str, now: datetime) -> dict[tuple[str, str, str], Grant]:
    """Return the grants of the Task that are open, by whom they are for and what they open."""
    return {
        (one.grantee, one.target_type, one.target_id): one
        for one in tx.grants.of_task(task_id)
        if one.until is None or one.until > now
    }


def _one(tx: Tx, reference: str) -> Stored | None:
    kind, _, id_ = reference.partition("/")
    stored = tx.records.get(kind, id_, UNRESTRICTED)
    return None if stored is None or stored.deleted else stored


def _load(tx: Tx, references: Iterable[str]) -> list[Stored]:
    pairs = [(kind, id_) for kind, _, id_ in (one.partition("/") for one in sorted(references))]
    return [one for one in tx.records.get_many(pairs, UNRESTRICTED).values() if not one.deleted]
