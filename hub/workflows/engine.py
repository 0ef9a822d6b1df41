"""The judge of every move of a Task: PUT, PATCH, transaction, ``$transition``, HL7 v2 and the portal ask the same questions.

Pure: it reads what the caller loaded and returns what the caller has to store and do. Task state machine:
https://hl7.org/fhir/R4/task.html#statemachine. How ordinary updates are read is in ``update.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from datetime import datetime
from typing import Any

from hub.access import DIRECTORY_TYPES
from hub.errors import Category, HubError, Issue
from hub.workflows import codes
from hub.workflows.base import BASE, ENDED, WORKFLOW_SYSTEM, Actor, Case, Held, Inputs, Instance, Known, Resource
from hub.workflows.effects import resolve
from hub.workflows.table import Decision, Finding, Require, Transition, Workflow
from hub.workflows.task import (
    OWN_EXTENSIONS,
    add_entries,
    code_in,
    instant,
    plain,
    record,
    recorded,
    reference_in,
    referred,
    set_advice,
    set_expected_at,
    set_marks,
)


def state_of(workflow: Workflow, task: Resource) -> str:
    """Return the name of the state that Task.status and Task.businessStatus spell; HubError INCORRECT if none does."""
    status = task.get("status")
    step = code_in(task.get("businessStatus"), workflow.steps_system)
    for name, state in workflow.states.items():
        if state.task_status == status and state.business_status == step:
            return name
    raise HubError(
        Category.INCORRECT,
        f"Task.status {status!r} with businessStatus {step!r} is not a state of the workflow {workflow.code}.",
        where="Task.businessStatus",
        remedy=f"Use a code of {workflow.steps_system} with the status that belongs to it.",
        status=422,
    )


def parties_of(task: Resource) -> dict[str, str]:
    """Return ``requester`` and ``owner`` to institution codes as recorded in the Task at its start."""
    return {party: found for party in ("requester", "owner") if (found := recorded(task, party)[0])}


def references(task: Resource, inputs: Inputs | None = None) -> frozenset[str]:
    """Return every ``Type/id`` that the caller should load into ``Instance.resources`` before judging.

    For each DiagnosticReport among them the caller adds the Observations in its ``result``.
    """
    found = {plain(reference_in(task.get("focus"))), plain(reference_in(task.get("for")))}
    found.update(referred(task, "input"), referred(task, "output"))
    requester = plain(reference_in(task.get("requester"))) or ""
    if requester.startswith(("PractitionerRole/", "Practitioner/")):
        found.add(requester)
    if inputs is not None:
        both = {"input": inputs.inputs, "output": inputs.outputs}
        found.update(referred(both, "input"), referred(both, "output"))
    return frozenset(reference for reference in found if reference)


def allowed_events(workflow: Workflow, instance: Instance, actor: Actor) -> tuple[str, ...]:
    """Return the events that *actor* may cause now, in table order; what they require is not asked."""
    held = roles_of(workflow, instance, actor)
    state = state_of(workflow, instance.task)
    return tuple(t.event for t in workflow.leaving(state) if held.intersection(t.by))


def event_for_message(workflow: Workflow, instance: Instance, kind: str, actor: Actor) -> str | None:
    """Return the event that an inbound v2 workflow event (``report.final``) means in the present state, or ``None``.

    ``None`` is the answer to a message that comes too late, such as a preliminary result after the final one.
    """
    held = roles_of(workflow, instance, actor)
    for transition in workflow.leaving(state_of(workflow, instance.task)):
        if kind in transition.messages and held.intersection(transition.by):
            return transition.event
    return None


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
        resources: see :func:`references`.
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
        _refuse_foreign_subject(made, instance, parties["requester"])
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


def roles_of(workflow: Workflow, instance: Instance, actor: Actor) -> frozenset[str]:
    """Return the workflow roles that *actor* fills in *instance*."""
    parties = instance.parties or parties_of(instance.task)
    found = set()
    for name, role in workflow.roles.items():
        if role.party == "hub" or actor.hub:
            fills = role.party == "hub" and actor.hub
        else:
            fills = (
                actor.institution != ""
                and parties.get(role.party) == actor.institution
                and not role.functions.isdisjoint(actor.roles)
                and (not role.person or bool(actor.practitioner))
            )
        if fills:
            found.add(name)
    return frozenset(found)


def refused(
    category: Category, message: str, allowed: tuple[str, ...], problems: tuple[str, ...] = (), where: str = "event"
) -> HubError:
    """Return the error for a move that does not hold, with the events that are allowed instead."""
    listed = ", ".join(allowed) or "none"
    return HubError(
        category,
        message,
        where=where,
        remedy=f"Allowed events: {listed}.",
        issues=[
            *(Issue(severity="error", code="business-rule", message=p, where=where) for p in problems or (message,)),
            Issue(severity="information", code="informational", message=f"Allowed events: {listed}.", where="event"),
        ],
        issue_code="business-rule",
        status=409 if category is Category.CONFLICT else 422,
    )


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
    problems = _problems(workflow, transition, case, fresh)
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


def _problems(
    workflow: Workflow, transition: Transition, case: Case, fresh: Mapping[str, tuple[Resource, ...]]
) -> list[str]:
    found = [text for need in transition.require if (text := _missing(need, case, fresh)) is not None]
    if transition.reasons:
        found.extend(_reason_problems(transition.reasons, case.inputs.reason))
    if transition.event == workflow.submit and not case.parties.get("owner"):
        found.append("须在 Task.owner 中指明承接机构。 Task.owner must name the institution that is to do the work.")
    if transition.assigns == "assignee":
        party = case.inputs.assignee
        if party is None or not party.practitioner:
            found.append("须指派具体人员。 A person must be named as the new Task.owner.")
        elif party.institution != case.parties.get("owner"):
            found.append(
                "所指派人员须属于承接机构。 The new Task.owner must belong to the institution that does the work."
            )
    if not found:
        # Guards may rely on what is required, so they are asked only when it is there.
        found = [text for guard in transition.guards if (text := guard(case)) is not None]
    return found


def _missing(need: Require, case: Case, fresh: Mapping[str, tuple[Resource, ...]]) -> str | None:
    task: Resource = {need.element: fresh[need.element]} if need.fresh else case.task
    present = list(referred(task, need.element))
    if need.types:
        present = [reference for reference in present if reference.partition("/")[0] in need.types]
    elif need.fresh and fresh[need.element]:
        return None
    if present:
        return None
    what = " or ".join(need.types) or "something new"
    zh = f"须{'随本次事件' if need.fresh else ''}在 Task.{need.element} 中提供 {'、'.join(need.types) or '新内容'}。"
    return f"{zh} Task.{need.element} must hold {what}{' that comes with this event' if need.fresh and need.types else ''}."


def _reason_problems(system: str, reason: Resource | None) -> list[str]:
    if reason is None or not (reason.get("text") or reason.get("coding")):
        needed = f"Task.statusReason is required: a code of {BASE}/CodeSystem/{system} or a text."
        return [f"须填写原因。 {needed}"]
    code = code_in(reason, f"{BASE}/CodeSystem/{system}")
    if code and not codes.is_known(system, code):
        return [
            f"原因代码 {code!r} 不在代码表中。 Task.statusReason: {code!r} is not a code of {BASE}/CodeSystem/{system}."
        ]
    return []


def refuse_foreign(
    instance: Instance, actor: Actor, element: str, entries: tuple[Resource, ...], present: tuple[Resource, ...]
) -> None:
    """Refuse entries that name what the sender does not own: naming a resource opens it to the other party."""
    parties = instance.parties or parties_of(instance.task)
    for entry in entries:
        if entry in present:
            continue
        if element == "output" and parties.get("owner") != actor.institution:
            raise refusal("Only the institution that does the work adds to Task.output.", where="Task.output")
        reference = reference_in(entry.get("valueReference"))
        if not reference or reference.startswith("#"):
            continue
        local = plain(reference)
        if local is None:
            raise refusal(
                f"Task.{element} must refer to resources of this hub as Type/id.",
                where=f"Task.{element}.valueReference",
                remedy="Store the resource here first, or give its identifier alone.",
            )
        if local.partition("/")[0] in DIRECTORY_TYPES:
            continue
        held = instance.resources.get(local)
        if held is None or held.institution != actor.institution:
            raise refusal(
                f"{local} in Task.{element} is not a resource of the sender's institution.",
                where=f"Task.{element}.valueReference",
                remedy="Refer to resources that your own institution has stored.",
            )


def _refuse_foreign_subject(task: Resource, instance: Instance, institution: str) -> None:
    for element in ("focus", "for"):
        local = plain(reference_in(task.get(element)))
        held = instance.resources.get(local) if local else None
        if held is None or held.institution != institution:
            raise refusal(
                f"Task.{element} must refer to a resource of the requester's institution.",
                where=f"Task.{element}",
                remedy="Store the resource here first and refer to it as Type/id.",
            )


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


def refusal(message: str, *, where: str, remedy: str = "") -> HubError:
    """Return the error for a Task that breaks a rule which no event can mend."""
    return HubError(Category.INCORRECT, message, where=where, remedy=remedy, issue_code="business-rule", status=422)
