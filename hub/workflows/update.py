"""Ordinary updates of a Task (PUT, PATCH, transaction) read as events of its workflow.

https://hl7.org/fhir/R4/http.html#update. The stored Task stays the base: an update can only say which event it means,
add to the lists, and change the elements that the table lets its sender change.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from datetime import datetime
from typing import Any

from hub.errors import Category, HubError
from hub.workflows.base import Actor, Inputs, Instance, Party, Resource
from hub.workflows.effects import resolve
from hub.workflows.engine import case_of, judge
from hub.workflows.refusals import refusal, refuse_foreign, refused
from hub.workflows.standing import allowed_events, parties_of, roles_of, state_of
from hub.workflows.table import Decision, Transition, Workflow
from hub.workflows.task import code_in, instant, record, reference_in

#: Elements that say what the work is and whose; they never change.
IMMUTABLE = (
    "id", "resourceType", "code", "intent", "requester", "focus", "for", "identifier", "basedOn", "groupIdentifier",
    "partOf", "authoredOn", "encounter", "instantiatesCanonical", "instantiatesUri", "extension", "modifierExtension",
)  # fmt: skip
#: Elements that the hub writes itself; what an update says of them is not taken.
_OURS = frozenset({"meta", "text", "lastModified", "executionPeriod"})
#: Elements that mean an event.
_EVENT = frozenset({"status", "businessStatus", "statusReason", "input", "output", "note", "owner"})


def judge_update(
    workflow: Workflow,
    instance: Instance,
    new_task: Resource,
    actor: Actor,
    now: datetime,
    *,
    owner: Party | None = None,
) -> Decision:
    """Judge an update of the stored Task by the same table that judges events.

    A changed status or businessStatus is taken for the one event that leads there; an unchanged one for an edit.

    Args:
        workflow: the table of the stored Task.
        instance: the stored Task, and as resources what it and *new_task* refer to (``standing.references`` of both).
        new_task: the Task as the sender wants it; the caller has checked its structure.
        actor: who sends it.
        now: with a time zone.
        owner: what ``new_task.owner`` was resolved to, when it differs from the stored one.

    Raises:
        HubError: INCORRECT (422) for a change that nobody or not this sender may make, CONFLICT (409) for a move that
            is not open now. Both name the allowed events.
    """
    old_task = instance.task
    state = state_of(workflow, old_task)
    changed = {k for k in {*old_task, *new_task} if old_task.get(k) != new_task.get(k)} - _OURS
    fixed = sorted(changed.intersection(IMMUTABLE))
    if fixed:
        raise refusal(
            f"These elements of a Task never change: {', '.join(fixed)}.",
            where=f"Task.{fixed[0]}",
            remedy="Send them as they were read; start another Task for other work.",
        )
    editable = _editable(workflow, instance, actor, state)
    if "input" in changed and "input" in editable and state == workflow.initial:
        added_inputs: tuple[Resource, ...] = ()
        refuse_foreign(instance, actor, "input", tuple(new_task.get("input") or ()), tuple(old_task.get("input") or ()))
    else:
        added_inputs = _added(old_task, new_task, "input")
    added_outputs = _added(old_task, new_task, "output")
    notes = _added(old_task, new_task, "note")
    if any(
        reference_in(note.get("authorReference")) not in ("", actor.practitioner, actor.reference) for note in notes
    ):
        raise refusal("A note is written in the own name.", where="Task.note.authorReference")
    edits = (changed - _EVENT) | ({"input"} if "input" in changed and not added_inputs else set())
    redirects = "owner" in changed and "owner" in editable and state == workflow.initial
    base = _edited(workflow, instance, new_task, edits | ({"owner"} if redirects else set()), editable, owner, actor)

    meant = _meant(workflow, base, new_task, actor, state, changed, assigning="owner" in changed and not redirects)
    if meant is None:
        foreign = {"statusReason"} & changed | ({"owner"} & changed if not redirects else set())
        foreign |= {n for n, extra in (("input", added_inputs), ("output", added_outputs)) if extra} - editable
        if foreign:
            raise refused(
                Category.INCORRECT,
                f"These elements cannot change while the Task stays {state!r}: {', '.join(sorted(foreign))}.",
                allowed_events(workflow, instance, actor),
                where=f"Task.{min(foreign)}",
            )
        if notes and not roles_of(workflow, instance, actor):
            raise refusal("Only a party of the Task adds notes.", where="Task.note")
        return _edit(workflow, base, actor, state, added_inputs, added_outputs, notes, now)

    inputs = Inputs(
        reason=new_task.get("statusReason") if "statusReason" in changed else None,
        inputs=added_inputs,
        outputs=added_outputs,
        assignee=None if redirects else owner,
    )
    decision = _first_that_holds(workflow, base, meant, actor, inputs, now)
    if notes:
        decision.task["note"] = [*(decision.task.get("note") or ()), *notes]
    return decision


def _added(old: Resource, new: Resource, element: str) -> tuple[Resource, ...]:
    before, after = list(old.get(element) or ()), list(new.get(element) or ())
    if any(entry not in after for entry in before):
        raise refusal(
            f"Entries of Task.{element} are added, never changed or taken away.",
            where=f"Task.{element}",
            remedy="Send the stored entries as they were read, followed by the new ones.",
        )
    return tuple(entry for entry in after if entry not in before)


def _editable(workflow: Workflow, instance: Instance, actor: Actor, state: str) -> frozenset[str]:
    held = roles_of(workflow, instance, actor)
    found: set[str] = set()
    for edit in workflow.edits:
        if edit.role in held and state in edit.states:
            found |= edit.elements
    return frozenset(found)


def _edited(
    workflow: Workflow,
    instance: Instance,
    new_task: Resource,
    edits: set[str],
    editable: frozenset[str],
    owner: Party | None,
    actor: Actor,
) -> Instance:
    """Return the instance with the permitted edits applied to its Task."""
    refused_edits = sorted(edits - editable)
    if refused_edits:
        raise refused(
            Category.INCORRECT,
            f"These elements are not this sender's to change now: {', '.join(refused_edits)}.",
            allowed_events(workflow, instance, actor),
            where=f"Task.{refused_edits[0]}",
        )
    if not edits:
        return instance
    task: dict[str, Any] = deepcopy(dict(instance.task))
    for element in edits:
        if element in new_task:
            task[element] = deepcopy(new_task[element])
        else:
            task.pop(element, None)
    parties = dict(instance.parties or parties_of(instance.task))
    if "owner" in edits:
        reference = reference_in(new_task.get("owner"))
        if reference and (owner is None or owner.reference != reference):
            raise refusal("Task.owner does not name a member of the consortium.", where="Task.owner")
        parties["owner"] = owner.institution if owner is not None else ""
        record(task, "owner", parties["owner"], reference)
    return replace(instance, task=task, parties=parties)


def _meant(
    workflow: Workflow,
    instance: Instance,
    new_task: Resource,
    actor: Actor,
    state: str,
    changed: set[str],
    *,
    assigning: bool,
) -> tuple[Transition, ...] | None:
    """Return the transitions that the update may mean, or ``None`` when it does not move the Task."""
    moves = "status" in changed or "businessStatus" in changed
    if not moves and not assigning:
        return None
    status = new_task.get("status")
    step = code_in(new_task.get("businessStatus"), workflow.steps_system)
    same_step = "businessStatus" not in changed or not step
    same_state = not moves or (
        status == workflow.states[state].task_status and step == workflow.states[state].business_status
    )
    if same_state and not assigning:
        return None
    held = roles_of(workflow, instance, actor)
    found = []
    for transition in workflow.leaving(state):
        target = workflow.states[transition.to or state]
        fits = (
            transition.assigns == "assignee" and (transition.to or state) == state
            if same_state
            else transition.to is not None
            and transition.to != state
            and target.task_status == status
            and (same_step or target.business_status == step)
            and (not assigning or transition.assigns != "")
        )
        if fits and held.intersection(transition.by):
            found.append(transition)
    if not found:
        raise refused(
            Category.CONFLICT,
            f"No event open to this sender leads from {state!r} to status {status!r} with businessStatus {step!r}.",
            allowed_events(workflow, instance, actor),
            where="Task.status",
        )
    targets = {transition.to for transition in found}
    if len(targets) > 1:
        raise refused(
            Category.INCORRECT,
            f"Status {status!r} alone does not say which step is meant.",
            allowed_events(workflow, instance, actor),
            where="Task.businessStatus",
        )
    # An update that names a new owner means the event that assigns; one that does not means another, where there is one.
    return tuple(sorted(found, key=lambda t: (t.assigns == "assignee") is not assigning))


def _first_that_holds(
    workflow: Workflow, instance: Instance, meant: tuple[Transition, ...], actor: Actor, inputs: Inputs, now: datetime
) -> Decision:
    first: HubError | None = None
    for transition in meant:
        try:
            return judge(workflow, instance, transition.event, actor, inputs, now)
        except HubError as error:
            first = first or error
    assert first is not None
    raise first


def _edit(
    workflow: Workflow,
    instance: Instance,
    actor: Actor,
    state: str,
    inputs: tuple[Resource, ...],
    outputs: tuple[Resource, ...],
    notes: tuple[Resource, ...],
    now: datetime,
) -> Decision:
    task: dict[str, Any] = deepcopy(dict(instance.task))
    for element, entries in (("input", inputs), ("output", outputs)):
        refuse_foreign(instance, actor, element, entries, ())
        if entries:
            task[element] = [*(task.get(element) or ()), *entries]
    if notes:
        task["note"] = [*(task.get("note") or ()), *notes]
    task["lastModified"] = instant(now)
    case = case_of(workflow, instance, task, state, actor, Inputs(), now)
    return Decision(
        workflow=workflow.code,
        event="",
        title_zh="修改",
        title_en="Edit",
        old_state=state,
        new_state=state,
        task=task,
        effects=resolve(workflow, None, case, state, state, grew=bool(inputs or outputs)),
    )
