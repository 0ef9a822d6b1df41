"""What a workflow table must satisfy before the hub starts with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from hub.actor import ROLES
from hub.errors import Category, HubError
from hub.workflows import codes, submission
from hub.workflows.base import ENDED
from hub.workflows.effect_kinds import CreateTask, EndTask, Notify, Send, Sign, TableEffect, flat
from hub.workflows.table import Transition, Workflow

MESSAGES = frozenset({"oru_r01", "orm_o01", "orr_o02", "ref_i12", "ref_i13", "ref_i14", "rri_i12"})


def faults(workflow: Workflow) -> tuple[str, ...]:
    """Return everything that is wrong with a table, one sentence each; an empty tuple if it can be run."""
    return tuple(
        fault for check in (_codes, _names, _service, _effects, _timers, _moves, _paths) for fault in check(workflow)
    )


def check(workflow: Workflow) -> Workflow:
    """Return *workflow* if it can be run; HubError FAULT with everything that is wrong with it otherwise."""
    found = faults(workflow)
    if found:
        file = f"hub/workflows/{workflow.code.replace('-', '_')}.py"
        raise HubError(
            Category.FAULT,
            f"流程表 {workflow.code} 不能运行 / The workflow table {workflow.code} cannot be run: {' '.join(found)}",
            where=file,
            remedy="请修改该表后再启动枢纽 / Mend this table, then start the hub again.",
        )
    return workflow


def _codes(workflow: Workflow) -> Iterator[str]:
    if not codes.is_known("workflow", workflow.code):
        yield "its code is not in the CodeSystem workflow."
    for name, state in workflow.states.items():
        if not codes.is_known(workflow.steps, state.business_status):
            yield f"state {name!r} has the businessStatus {state.business_status!r}, unknown to {workflow.steps}."
        if state.terminal != (state.task_status in ENDED):
            yield f"state {name!r} must be terminal exactly if its Task.status ends the work."
    pairs = Counter((s.task_status, s.business_status) for s in workflow.states.values())
    for pair, count in pairs.items():
        if count > 1:
            yield f"{count} states share status and businessStatus {pair}."
    for transition in workflow.transitions:
        if transition.reasons and transition.reasons not in codes.REASONS:
            yield f"event {transition.event!r} uses the undeclared reason list {transition.reasons!r}."
        for effect in flat(transition.effects):
            if isinstance(effect, CreateTask | EndTask) and not codes.is_known("workflow", effect.code):
                yield f"event {transition.event!r} speaks of a Task of the unknown code {effect.code!r}."


def _names(workflow: Workflow) -> Iterator[str]:
    if workflow.initial not in workflow.states:
        yield f"the initial state {workflow.initial!r} is not declared."
    submits = [t for t in workflow.leaving(workflow.initial) if t.event == workflow.submit]
    if not any(t.to in workflow.states and workflow.states[t.to].task_status == "requested" for t in submits if t.to):
        yield f"the event {workflow.submit!r} must lead from {workflow.initial!r} to a state with status requested."
    for name, declared in workflow.roles.items():
        unknown = declared.functions - ROLES
        if unknown:
            yield f"role {name!r} needs the unknown function {min(unknown)!r}."
    for transition in workflow.transitions:
        for state in (*transition.sources, *((transition.to,) if transition.to else ())):
            if state not in workflow.states:
                yield f"event {transition.event!r} names the undeclared state {state!r}."
        for role in transition.by:
            if role not in workflow.roles:
                yield f"event {transition.event!r} names the undeclared role {role!r}."
        if not transition.by:
            yield f"event {transition.event!r} is open to nobody."
    for view in workflow.visibility:
        if view.role not in workflow.roles:
            yield f"visibility names the undeclared role {view.role!r}."
        yield from (f"visibility names the undeclared state {s!r}." for s in view.states if s not in workflow.states)
    for edit in workflow.edits:
        if edit.role not in workflow.roles:
            yield f"edits name the undeclared role {edit.role!r}."
        yield from (f"edits name the undeclared state {s!r}." for s in edit.states if s not in workflow.states)


def _service(workflow: Workflow) -> Iterator[str]:
    if not workflow.service and any(submission.service_is_on in t.guards for t in workflow.transitions):
        yield "a guard asks for the service of the owner, and the table does not name it."


def _effects(workflow: Workflow) -> Iterator[str]:
    for transition in workflow.transitions:
        for effect in flat(transition.effects):
            yield from (
                f"an effect of {transition.event!r} names the undeclared role {role!r}."
                for role in _roles(effect)
                if role not in workflow.roles
            )
            if isinstance(effect, Send) and effect.message not in MESSAGES:
                yield f"event {transition.event!r} sends the undeclared message {effect.message!r}."


def _roles(effect: TableEffect) -> tuple[str, ...]:
    match effect:
        case Send(to_role=role) | Notify(role=role) | Sign(role=role):
            return (role,)
        case CreateTask(owner_role=owner, requester_role=requester):
            return (owner, requester)
        case _:
            return ()


def _timers(workflow: Workflow) -> Iterator[str]:
    names = [timer.name for timer in workflow.timers]
    yield from (f"timer {name!r} is declared twice." for name, count in Counter(names).items() if count > 1)
    for timer in workflow.timers:
        for state in timer.states:
            if state not in workflow.states:
                yield f"timer {timer.name!r} names the undeclared state {state!r}."
            elif not any(t.event == timer.event and "hub" in t.by for t in workflow.leaving(state)):
                yield f"timer {timer.name!r} fires {timer.event!r}, which the hub cannot cause in state {state!r}."
    for transition in workflow.transitions:
        yield from (
            f"event {transition.event!r} restarts the undeclared timer {name!r}."
            for name in transition.restarts
            if name not in names
        )


def _moves(workflow: Workflow) -> Iterator[str]:
    seen = Counter((state, t.event) for t in workflow.transitions for state in t.sources)
    for (state, event), count in seen.items():
        if count > 1:
            yield f"event {event!r} is declared {count} times for state {state!r}."
    for transition in workflow.transitions:
        for state in transition.sources:
            if state in workflow.states and workflow.states[state].terminal != transition.after_end:
                yield f"event {transition.event!r} in state {state!r} must say after_end exactly if the state is terminal."
        target = workflow.states.get(transition.to or "")
        if transition.after_end and target is not None and not target.terminal:
            yield f"event {transition.event!r} reopens work that is over."


def _paths(workflow: Workflow) -> Iterator[str]:
    reached = _reach(workflow.transitions, {workflow.initial})
    yield from (f"state {name!r} cannot be reached." for name in workflow.states if name not in reached)
    for name, state in workflow.states.items():
        if not state.terminal and not any(
            workflow.states[end].terminal for end in _reach(workflow.transitions, {name}) if end in workflow.states
        ):
            yield f"state {name!r} is a dead end: no event leads from it to an end of the work."


def _reach(transitions: tuple[Transition, ...], found: set[str]) -> set[str]:
    found = set(found)
    while True:
        more = {t.to for t in transitions if t.to and found.intersection(t.sources)} - found
        if not more:
            return found
        found |= more
