"""The workflows the hub runs: one declarative table per file, all checked at the first use of any.

A new workflow is one new file with a ``WORKFLOW``, its steps in ``codes.py`` and a line here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hub.workflows import lab_outsourcing, referral, remote_reading
from hub.workflows.acting import acting
from hub.workflows.base import HUB_ACTOR, Actor, Earlier, Held, Inputs, Instance, Known, Party, Resource
from hub.workflows.checks import check
from hub.workflows.codes import code_systems
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
)
from hub.workflows.engine import judge, start
from hub.workflows.standing import allowed_events, event_for_message, parties_of, references, state_of
from hub.workflows.table import Decision, Finding, Workflow
from hub.workflows.task import workflow_code
from hub.workflows.update import judge_update


class _Tables(Mapping[str, Workflow]):
    """Task.code to table; whoever first asks for one meets the faults of all.

    Checked then and not at the import, so that a table that cannot be run stops the hub with a sentence, and does not
    stop a command that moves no Task (``hub members list``, ``hub --help``).
    """

    def __init__(self, tables: Sequence[Workflow]) -> None:
        self._tables = tables
        self._checked: dict[str, Workflow] | None = None

    def _by_code(self) -> dict[str, Workflow]:
        if self._checked is None:
            self._checked = {workflow.code: check(workflow) for workflow in self._tables}
        return self._checked

    def __getitem__(self, code: str) -> Workflow:
        return self._by_code()[code]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_code())

    def __len__(self) -> int:
        return len(self._by_code())


#: Task.code to table. The hub does not start with a table that cannot be run: using this raises HubError(fault) then.
WORKFLOWS: Mapping[str, Workflow] = _Tables([module.WORKFLOW for module in (remote_reading, referral, lab_outsourcing)])


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
