"""The judge of every move of a Task: PUT, PATCH, transaction, ``$transition``, HL7 v2 and the portal ask the same questions.

Pure: it reads what the caller loaded and returns what the caller has to store and do. Task state machine:
https://hl7.org/fhir/R4/task.html#statemachine. How ordinary updates are read is in ``update.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from datetime import datetime
from typing import Any

from hub.errors import Category, HubError
from hub.workflows import codes
from hub.workflows.base import ENDED, WORKFLOW_SYSTEM, Actor, Case, Held, Inputs, Instance, Known, Resource
from hub.workflows.effects import resolve
from hub.workflows.lacking import lacking
from hub.workflows.refusals import refusal, refuse_foreign, refuse_foreign_subject, refused
from hub.workflows.standing import allowed_events, parties_of, state_of
from hub.workflows.table import Decision, Finding, Transition, Workflow
from hub.workflows.task import (
    OWN_EXTENSIONS,
    add_entries,
    code_in,
    instant,
    record,
    recorded,
    reference_in,
    set_advice,
    set_expected_at,
    set_marks,
)


def start(
    workflow: Workflow,
    task: Resource,
    request: Resource | None,
    actor: Actor,
    now: datetime,
    *,
    parties: Mapping[str, str],
    resources: Mapping[str, Held],
    known: Known | None = None,
    persons: frozenset[str] = frozenset(),
) -> Decision:
    """Judge the creation of a Task; it must have its id already.

    Args:
        workflow: the table that Task.code names.
        task: with status ``draft`` or ``requested``.
        request: what Task.focus names.
        actor: who creates it; must act for the requester.
        now: with a time zone.
        parties: the institutions that Task.requester and Task.owner were resolved to.
        resources: see :func:`~hub.workflows.standing.references`.
        known: what the checks before sending ask for, when the status is ``requested``.
        persons: as :class:`~hub.workflows.base.Instance` has it.

    Raises:
        HubError: INCORRECT (422) for another status or something missing, FORBIDDEN for another institution's name.
    """
    initial = workflow.states[workflow.initial]
    if task.get("status") not in ("draft", "requested"):
        raise refusal("A Task is created with status draft or requested.", where="Task.status")
    if any(e.get("url") in OWN_EXTENSIONS for e in task.get("extension") or ()):
        raise refusal("The hub alone writes the extensions that record parties and flags.", where="Task.extension")
    if not task.get("id"):
        raise HubError(Category.FAULT, "A Task must have its id before its start is judged.", where="Task.id")
    if not actor.hub and parties.get("requester") != actor.institution:
        raise HubError(
            Category.FORBIDDEN,
            "Task.requester is not of the institution that sends the Task.",
            where="Task.requester",
            remedy="Name the own Organization or a PractitionerRole of it.",
        )
    made: dict[str, Any] = deepcopy(dict(task))
    for party in ("requester", "owner"):
        record(made, party, parties.get(party, ""), reference_in(task.get(party)))
    code = dict(made.get("code") or {})
    foreign = [coding for coding in code.get("coding") or () if coding.get("system") != WORKFLOW_SYSTEM]
    made["code"] = {**code, "coding": [codes.concept("workflow", workflow.code), *foreign]}
    made["instantiatesCanonical"] = workflow.canonical
    made.setdefault("authoredOn", instant(now))
    submitting = task["status"] == "requested"
    step = code_in(task.get("businessStatus"), workflow.steps_system)
    after = _submit(workflow).to if submitting else workflow.initial
    assert after is not None
    if step and step != workflow.states[after].business_status:
        raise refusal(
            f"A Task created with status {task['status']} cannot have the businessStatus {step!r}.",
            where="Task.businessStatus",
            remedy="Leave it out; the hub sets it.",
        )
    made["status"] = initial.task_status
    made["businessStatus"] = {"coding": [codes.concept(workflow.steps, initial.business_status)]}
    instance = Instance(
        task=made,
        request=request,
        parties=dict(parties),
        resources=resources,
        known=known or Known(),
        persons=persons,
    )
    if not actor.hub:
        refuse_foreign(instance, actor, "input", tuple(made.get("input") or ()), ())
        if made.get("output"):
            raise refusal("A new Task has no output yet.", where="Task.output")
        refuse_foreign_subject(made, instance, parties["requester"])
    if submitting:
        # A reason that comes with the new Task belongs to its being sent, such as why there is no consent yet.
        given = Inputs(reason=made.get("statusReason"))
        return _move(workflow, instance, _submit(workflow), actor, given, now, old="")
    case = case_of(workflow, instance, made, workflow.initial, actor, Inputs(), now)
    made["lastModified"] = instant(now)
    return Decision(
        workflow=workflow.code,
        event="",
        title_zh="建立草稿",
        title_en="Create draft",
        old_state="",
        new_state=workflow.initial,
        task=made,
        effects=resolve(workflow, None, case, "", workflow.initial, grew=False),
    )


def judge(workflow: Workflow, instance: Instance, event: str, actor: Actor, inputs: Inputs, now: datetime) -> Decision:
    """Judge one event.

    Returns:
        The decision; nothing is durable until the caller has stored it.

    Raises:
        HubError: CONFLICT (409) when the event is not open to this actor in this state, INCORRECT (422) when there is
            no such event or something is missing. Both name the events that are allowed.
    """
    old = state_of(workflow, instance.task)
    allowed = allowed_events(workflow, instance, actor)
    transition = next((t for t in workflow.leaving(old) if t.event == event), None)
    if transition is None or event not in allowed:
        known = any(t.event == event for t in workflow.transitions)
        raise refused(
            Category.CONFLICT if known else Category.INCORRECT,
            f"当前状态 {old!r} 不允许该发送方执行 {event!r}。 "
            f"The event {event!r} is not open to this sender while the Task is {old!r}."
            if known
            else f"此流程没有事件 {event!r}。 The workflow {workflow.code} has no event {event!r}.",
            allowed,
        )
    return _move(workflow, instance, transition, actor, inputs, now, old=old)


def _move(
    workflow: Workflow,
    instance: Instance,
    transition: Transition,
    actor: Actor,
    inputs: Inputs,
    now: datetime,
    *,
    old: str,
) -> Decision:
    new = transition.to or old
    task: dict[str, Any] = deepcopy(dict(instance.task))
    if not actor.hub:
        for element, entries in (("input", inputs.inputs), ("output", inputs.outputs)):
            refuse_foreign(instance, actor, element, entries, tuple(task.get(element) or ()))
    fresh = {
        "input": add_entries(task, "input", inputs.inputs),
        "output": add_entries(task, "output", inputs.outputs),
    }
    case = case_of(workflow, instance, task, old, actor, inputs, now)
    problems = lacking(workflow, transition, case, fresh)
    if problems:
        raise refused(
            Category.INCORRECT,
            f"缺少内容，不能执行 {transition.event!r}。 The event {transition.event!r} lacks something: {' '.join(problems)}",
            allowed_events(workflow, instance, actor),
            tuple(problems),
            where="Task",
        )
    warnings = tuple(
        Finding(code=check.__name__, message=text) for check in transition.advice if (text := check(case)) is not None
    )
    if transition.advice:
        set_advice(task, ((finding.code, finding.message) for finding in warnings))
    _assign(task, transition, case)
    if transition.records:
        record(task, transition.records, actor.institution, actor.practitioner or "")
    set_marks(task, transition.marks, transition.clears)
    if inputs.expected_at is not None:
        set_expected_at(task, inputs.expected_at)
    if inputs.note:
        note: dict[str, Any] = {"time": instant(now), "text": inputs.note}
        if actor.practitioner:
            note["authorReference"] = {"reference": actor.practitioner}
        task["note"] = [*(task.get("note") or ()), note]
    _enter(workflow, task, new, old, inputs, now)
    return Decision(
        workflow=workflow.code,
        event=transition.event,
        title_zh=transition.title_zh,
        title_en=transition.title_en,
        old_state=old,
        new_state=new,
        task=task,
        effects=resolve(workflow, transition, case, old, new, grew=any(fresh.values())),
        warnings=warnings,
    )


def _enter(workflow: Workflow, task: dict[str, Any], new: str, old: str, inputs: Inputs, now: datetime) -> None:
    state = workflow.states[new]
    task["status"] = state.task_status
    task["businessStatus"] = {"coding": [codes.concept(workflow.steps, state.business_status)]}
    task["lastModified"] = instant(now)
    if inputs.reason is not None:
        task["statusReason"] = dict(inputs.reason)
    elif new != old:
        # A reason belongs to the move that gave it, so that a resumed Task does not show why it once was held.
        task.pop("statusReason", None)
    period = dict(task.get("executionPeriod") or {})
    if state.task_status == "in-progress":
        period.setdefault("start", instant(now))
    if state.task_status in ENDED:
        period.setdefault("end", instant(now))
    if period:
        task["executionPeriod"] = period


def _assign(task: dict[str, Any], transition: Transition, case: Case) -> None:
    if transition.assigns == "assignee":
        party = case.inputs.assignee
        assert party is not None
        task["owner"] = {"reference": party.reference}
        record(task, "assignee", party.institution, party.practitioner or "")
    elif transition.assigns == "actor":
        task["owner"] = {"reference": case.actor.reference or case.actor.practitioner or ""}
        record(task, "assignee", case.actor.institution, case.actor.practitioner or "")
    elif transition.assigns == "pool":
        desk = recorded(task, "owner")[1]
        if desk:
            task["owner"] = {"reference": desk}
        record(task, "assignee", "", "")


def case_of(
    workflow: Workflow, instance: Instance, task: Resource, old: str, actor: Actor, inputs: Inputs, now: datetime
) -> Case:
    """Return what named conditions see."""
    return Case(
        old=old,
        task=task,
        request=instance.request,
        parties=instance.parties or parties_of(instance.task),
        actor=actor,
        inputs=inputs,
        resources=instance.resources,
        now=now,
        service=workflow.service,
        known=instance.known,
        persons=instance.persons,
    )


def _submit(workflow: Workflow) -> Transition:
    return next(t for t in workflow.leaving(workflow.initial) if t.event == workflow.submit)
