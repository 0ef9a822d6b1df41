"""The workflows the hub runs: one declarative table per file, all checked when this package is imported.

A new workflow is one new file with a ``WORKFLOW``, its steps in ``codes.py`` and a line here.
"""

from __future__ import annotations

from collections.abc import Mapping

from hub.workflows import lab_outsourcing, referral, remote_reading
from hub.workflows.acting import acting
from hub.workflows.base import (
    HUB_ACTOR,
    Actor,
    CancelTimer,
    CloseGrant,
    CreateTask,
    Decision,
    Earlier,
    Effect,
    EndTask,
    Finding,
    Held,
    Inputs,
    Instance,
    Known,
    Notify,
    OpenGrant,
    Party,
    Resource,
    Send,
    SetStatus,
    Sign,
    StartTimer,
    Workflow,
)
from hub.workflows.checks import check
from hub.workflows.codes import code_systems
from hub.workflows.engine import allowed_events, event_for_message, judge, parties_of, references, start, state_of
from hub.workflows.task import workflow_code
from hub.workflows.update import judge_update

#: Task.code to table. The hub does not start with a table that cannot be run.
WORKFLOWS: Mapping[str, Workflow] = {
    module.WORKFLOW.code: check(module.WORKFLOW) for module in (remote_reading, referral, lab_outsourcing)
}


def workflow_for(task: Resource) -> Workflow | None:
    """Return the table that Task.code names, or ``None`` for a Task that no table rules."""
    return WORKFLOWS.get(workflow_code(task))


__all__ = [
    "HUB_ACTOR",
    "WORKFLOWS",
    "Actor",
    "CancelTimer",
    "CloseGrant",
    "CreateTask",
    "Decision",
    "Earlier",
    "Effect",
    "EndTask",
    "Finding",
    "Held",
    "Inputs",
    "Instance",
    "Known",
    "Notify",
    "OpenGrant",
    "Party",
    "Send",
    "SetStatus",
    "Sign",
    "StartTimer",
    "Workflow",
    "acting",
    "allowed_events",
    "code_systems",
    "event_for_message",
    "judge",
    "judge_update",
    "parties_of",
    "references",
    "start",
    "state_of",
    "workflow_for",
]
