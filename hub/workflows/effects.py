"""From the declared effects of a transition to the ones the caller carries out: institutions, references and times filled in.

Grants and timers are not written on transitions: they follow from which states show what and which states are timed,
so no way out of a state can forget to end them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

from hub.workflows.base import Case
from hub.workflows.effect_kinds import (
    CancelTimer,
    CloseGrant,
    CreateTask,
    Effect,
    EndTask,
    Notify,
    OpenGrant,
    Send,
    SetStatus,
    Sign,
    StartTimer,
    TableEffect,
    When,
    flat,
)
from hub.workflows.table import Transition, Workflow
from hub.workflows.task import instant, newest, plain, reference_in

#: What counts as the result of work; the newest one is the one a transition speaks of.
REPORTS = ("DiagnosticReport", "Composition")


def resolve(
    workflow: Workflow, transition: Transition | None, case: Case, old: str, new: str, *, grew: bool
) -> tuple[Effect, ...]:
    """Return all effects of a move from *old* (``""`` at creation) to *new*; *grew* = inputs or outputs were added."""
    found: list[Effect] = []
    if transition is not None:
        found.extend(_declared(workflow, transition, transition.effects, case))
    if workflow.states[new].terminal and not (old and workflow.states[old].terminal):
        found.extend(
            EndTask(code=code, status="cancelled", part_of=_task_reference(case)) for code in _asides(workflow)
        )
    found.extend(_grants(workflow, case, old, new, grew))
    found.extend(_timers(workflow, transition, case, old, new))
    return tuple(found)


def _asides(workflow: Workflow) -> list[str]:
    """Return the codes of further Tasks that are pointless once this work is over."""
    made = {e.code for t in workflow.transitions for e in flat(t.effects) if isinstance(e, CreateTask)}
    return sorted(made & {"abort", "escalation", "upload-full-record"})


def _institution(workflow: Workflow, role: str, case: Case) -> str:
    party = workflow.roles[role].party
    return "" if party == "hub" else case.parties.get(party, "")


def _task_reference(case: Case) -> str:
    return f"Task/{case.task['id']}" if case.task.get("id") else ""


def _declared(
    workflow: Workflow, transition: Transition, effects: tuple[TableEffect, ...], case: Case
) -> Iterator[Effect]:
    report = newest(case.task, "output", *REPORTS)
    focus = plain(reference_in(case.task.get("focus"))) or ""
    for effect in effects:
        match effect:
            case When(condition=condition, effects=inner):
                if condition(case):
                    yield from _declared(workflow, transition, inner, case)
            case SetStatus(resource_type=kind):
                is_focus = focus.partition("/")[0] == kind
                reference = focus if is_focus else newest(case.task, "output", kind) or newest(case.task, "input", kind)
                if reference:
                    yield replace(effect, reference=reference)
            case Send():
                yield replace(effect, institution=_institution(workflow, effect.to_role, case), reference=report)
            case Notify():
                yield replace(
                    effect,
                    institution=_institution(workflow, effect.role, case),
                    text_zh=f"{workflow.title_zh}：{transition.title_zh}",
                    text_en=f"{workflow.title_en}: {transition.title_en}",
                )
            case Sign():
                # A system that passes on a signed report does not sign it; its signatories are in the report.
                if case.actor.practitioner:
                    yield replace(
                        effect,
                        practitioner=case.actor.practitioner,
                        institution=case.actor.institution,
                        reference=report,
                    )
            case CreateTask():
                yield _further(workflow, transition, effect, case, focus, report)
            case EndTask():
                yield replace(effect, part_of=_task_reference(case))


def _further(
    workflow: Workflow, transition: Transition, effect: CreateTask, case: Case, focus: str, report: str
) -> CreateTask:
    this = _task_reference(case)
    proposal = newest(case.task, "output", "ServiceRequest")
    patient = plain(reference_in(case.task.get("for"))) or ""
    if effect.about == "proposal" and proposal in case.resources:
        patient = plain(reference_in(case.resources[proposal].resource.get("subject"))) or ""
    what = effect.key_from(case) if effect.key_from else f"{transition.event}|{instant(case.now)}"
    return replace(
        effect,
        key_from=None,
        owner=_institution(workflow, effect.owner_role, case),
        requester=_institution(workflow, effect.requester_role, case),
        focus={"task": this, "request": focus, "report": report, "proposal": proposal}[effect.about],
        patient=patient,
        part_of=this,
        key=f"{this}|{effect.code}|{what}",
    )


def _grants(workflow: Workflow, case: Case, old: str, new: str, grew: bool) -> Iterator[Effect]:
    completed = workflow.states[new].task_status == "completed"
    for view in workflow.visibility:
        institution = _institution(workflow, view.role, case)
        if not institution:
            continue
        was, is_now = old in view.states, new in view.states
        task = _task_reference(case)
        if is_now and (grew or not was):
            yield OpenGrant(role=view.role, scope=view.scope, institution=institution, task=task)
        elif was and not is_now:
            stays = timedelta(days=view.after_days if completed else 0)
            yield CloseGrant(
                role=view.role, scope=view.scope, institution=institution, task=task, until=case.now + stays
            )


def _timers(workflow: Workflow, transition: Transition | None, case: Case, old: str, new: str) -> Iterator[Effect]:
    restarts = transition.restarts if transition is not None else ()
    for timer in workflow.timers:
        was, is_now = old in timer.states, new in timer.states
        if is_now and (not was or timer.name in restarts):
            due = timer.due(case)
            if due is not None:
                yield StartTimer(name=timer.name, event=timer.event, due=due)
            elif was:
                yield CancelTimer(name=timer.name)
        elif was and not is_now:
            yield CancelTimer(name=timer.name)
