"""The judge of every move of a Task: PUT, PATCH, transaction, ``$transition``, HL7 v2 and the portal ask the same questions.

Pure: it reads what the caller loaded and returns what the caller has to store and do. Task state machine:
https://hl7.org/fhir/R4/task.html#statemachine.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from hub.workflows.base import Actor, Decision, Held, Inputs, Instance, Party, Resource, Workflow


def state_of(workflow: Workflow, task: Resource) -> str:
    """Return the name of the state that Task.status and Task.businessStatus spell; HubError INCORRECT if none."""
    raise NotImplementedError


def parties_of(task: Resource) -> dict[str, str]:
    """Return ``requester`` and ``owner`` to institution codes as recorded in the Task at its start."""
    raise NotImplementedError


def references(task: Resource, inputs: Inputs | None = None) -> frozenset[str]:
    """Return every ``Type/id`` that the caller should load into ``Instance.resources`` before judging."""
    raise NotImplementedError


def allowed_events(workflow: Workflow, instance: Instance, actor: Actor) -> tuple[str, ...]:
    """Return the events that *actor* may cause now, in table order; guards are not asked."""
    raise NotImplementedError


def event_for_message(workflow: Workflow, instance: Instance, kind: str, actor: Actor) -> str | None:
    """Return the event that an inbound v2 workflow event (``report.final``) means in the present state, or ``None``."""
    raise NotImplementedError


def start(
    workflow: Workflow,
    task: Resource,
    request: Resource | None,
    actor: Actor,
    now: datetime,
    *,
    parties: Mapping[str, str],
    resources: Mapping[str, Held],
) -> Decision:
    """Judge the creation of a Task with status draft or requested."""
    raise NotImplementedError


def judge(workflow: Workflow, instance: Instance, event: str, actor: Actor, inputs: Inputs, now: datetime) -> Decision:
    """Judge one event. HubError CONFLICT (409) = not now or not by you, INCORRECT (422) = something is missing."""
    raise NotImplementedError


def judge_update(
    workflow: Workflow,
    instance: Instance,
    new_task: Resource,
    actor: Actor,
    now: datetime,
    *,
    owner: Party | None = None,
) -> Decision:
    """Judge an ordinary update of the stored Task by the same table; *owner* is what a changed Task.owner resolves to."""
    raise NotImplementedError
