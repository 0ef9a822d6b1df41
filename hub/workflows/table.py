"""What a workflow is made of: roles, states, transitions, timers, visibility; and the decision that a table leads to.

Every value here is frozen: a table is read once, when the hub starts, and :mod:`hub.workflows.checks` says whether it holds
together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hub.workflows.base import BASE, Due, Guard
from hub.workflows.effect_kinds import Effect, Scope, TableEffect

PartyName = Literal["requester", "owner", "hub"]

#: Functions of those who work for an institution: its people and its systems, not its patients or auditors.
STAFF = frozenset({"system", "doctor", "physician", "nurse", "desk", "writer", "reviewer", "lab", "admin"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """Who a role is.

    Attributes:
        party: institution of Task.requester or Task.owner as recorded at the start, or the hub itself.
        functions: function codes (:data:`hub.actor.ROLES`) of which the actor needs one.
        person: a named person must act, not an institution's system.
    """

    title_zh: str
    title_en: str
    party: PartyName
    functions: frozenset[str] = STAFF
    person: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A Task.status with its businessStatus; the pair is unique in a workflow."""

    task_status: str
    business_status: str
    terminal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Require:
    """An entry of Task.input or Task.output that refers to one of *types*; *fresh* = it must come with this event."""

    element: Literal["input", "output"]
    types: tuple[str, ...]
    fresh: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One event, where it may happen, who may do it, what must be there and what follows.

    Attributes:
        to: state after the event, or ``None`` to stay.
        reasons: name of the reason list (a CodeSystem of ours); given = a reason is required.
        guards: all must hold, else 422.
        advice: findings that are reported but do not stop the move.
        assigns: ``assignee`` takes ``inputs.assignee`` as Task.owner, ``actor`` takes the actor, ``pool`` gives the
            Task back to the institution.
        records: name under which the acting person is remembered in the Task (``writer``).
        marks, clears: flags that the Task carries until cleared (``cancel-asked``).
        restarts: timers that start anew although the state stays within their states.
        messages: kinds of inbound v2 workflow events that mean this event.
        after_end: may happen although the work is over (corrections).
    """

    event: str
    title_zh: str
    title_en: str
    sources: tuple[str, ...]
    to: str | None
    by: tuple[str, ...]
    require: tuple[Require, ...] = ()
    reasons: str = ""
    guards: tuple[Guard, ...] = ()
    advice: tuple[Guard, ...] = ()
    effects: tuple[TableEffect, ...] = ()
    assigns: Literal["", "assignee", "actor", "pool"] = ""
    records: str = ""
    marks: tuple[str, ...] = ()
    clears: tuple[str, ...] = ()
    restarts: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()
    after_end: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Timer:
    """Runs while the Task is in one of *states*; fires *event* as the hub."""

    name: str
    title_zh: str
    title_en: str
    states: tuple[str, ...]
    event: str
    due: Due


@dataclass(frozen=True, slots=True, kw_only=True)
class Visibility:
    """What the institution of *role* may see while the Task is in one of *states*.

    ``task-closure`` = the Task, its focus, inputs and outputs, their Patient in the minimal view, ImagingStudy with
    its DICOM study. ``patient-record`` = the patient's record at the institution of the other party.

    Attributes:
        after_days: how long the view stays, read-only, once the work is completed; any other end closes it at once.
    """

    role: str
    states: tuple[str, ...]
    scope: Scope
    after_days: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """Task elements that *role* may change by an ordinary update while the state stays."""

    role: str
    states: tuple[str, ...]
    elements: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """A whole table.

    Attributes:
        code: Task.code in the ``workflow`` CodeSystem.
        steps: name of the CodeSystem of Task.businessStatus.
        initial: state of a Task that is created with status draft.
        submit: the event that a Task created with status requested stands for.
        service: category of the HealthcareService that an institution needs to be asked for this work.
    """

    code: str
    version: str
    title_zh: str
    title_en: str
    steps: str
    initial: str
    submit: str
    service: str
    roles: Mapping[str, Role]
    states: Mapping[str, State]
    transitions: tuple[Transition, ...]
    timers: tuple[Timer, ...] = ()
    visibility: tuple[Visibility, ...] = ()
    edits: tuple[Edit, ...] = ()

    @property
    def canonical(self) -> str:
        """Value of Task.instantiatesCanonical for work that runs by this table."""
        return f"{BASE}/ActivityDefinition/{self.code}|{self.version}"

    @property
    def steps_system(self) -> str:
        """CodeSystem of Task.businessStatus."""
        return f"{BASE}/CodeSystem/{self.steps}"

    def sends_from(self, state: str) -> bool:
        """Return whether the work may be sent to its owner from *state*."""
        return any(t.event == self.submit for t in self.leaving(state))

    def leaving(self, state: str) -> tuple[Transition, ...]:
        """Return the transitions that start in *state*, in table order."""
        return tuple(t for t in self.transitions if state in t.sources)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something worth telling that did not stop a move."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A move that was judged and found right; nothing is stored yet.

    Attributes:
        event: the event that happened; ``""`` for a draft that was created or an edit that moved nothing.
        old_state: name of the state before, ``""`` at creation.
        task: the Task to store.
        effects: to be carried out in the transaction that stores the Task.
        warnings: advice to pass back to the sender.
    """

    workflow: str
    event: str
    title_zh: str
    title_en: str
    old_state: str
    new_state: str
    task: dict[str, Any]
    effects: tuple[Effect, ...] = ()
    warnings: tuple[Finding, ...] = ()
