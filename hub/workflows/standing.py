"""Where a Task stands in its workflow, whose it is, and which events are open to whom.

Task state machine: https://hl7.org/fhir/R4/task.html#statemachine. What an event requires is in ``lacking.py``.
"""

from __future__ import annotations

from hub.errors import Category, HubError
from hub.workflows.base import Actor, Inputs, Instance, Resource
from hub.workflows.table import Workflow
from hub.workflows.task import code_in, plain, recorded, reference_in, referred


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
