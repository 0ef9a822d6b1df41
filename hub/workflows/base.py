"""What a workflow is made of: roles, states, transitions, timers, visibility, and the checks a table must pass.

A workflow is a FHIR R4 Task (https://hl7.org/fhir/R4/task.html) whose moves are declared as data. Conditions are named
functions; there is no expression language. Every value here is frozen: a table is read once, when the hub starts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

BASE = "https://yixiehub.example/fhir"
WORKFLOW_SYSTEM = f"{BASE}/CodeSystem/workflow"

Resource = Mapping[str, Any]
PartyName = Literal["requester", "owner", "hub"]
Scope = Literal["task-closure", "patient-record"]

#: Task.status values after which the work itself is over (https://hl7.org/fhir/R4/valueset-task-status.html).
ENDED = frozenset({"completed", "rejected", "cancelled", "failed"})


# --- What the caller hands in -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who asks for a move.

    Attributes:
        institution: code of the institution on whose behalf the actor works; ``""`` only for the hub itself.
        practitioner: canonical reference of the person (``Practitioner/x``): one person has one, whatever role they act in.
        reference: what Task.owner shows when this actor takes the work (``PractitionerRole/x``); else *practitioner*.
        roles: function codes at that institution, of :data:`hub.actor.ROLES`.
        hub: the hub's own clock and delivery worker. No door may ever set this from what a peer sent.
    """

    institution: str
    practitioner: str | None = None
    reference: str = ""
    roles: frozenset[str] = frozenset()
    hub: bool = False


#: Functions of those who work for an institution: its people and its systems, not its patients or auditors.
STAFF = frozenset({"system", "doctor", "physician", "nurse", "desk", "writer", "reviewer", "lab", "admin"})

#: Timers that fire and acknowledgements that are stored move a Task as this actor.
HUB_ACTOR = Actor(institution="", hub=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """A person or institution that a reference (``Organization/x``, ``PractitionerRole/x``) was resolved to."""

    reference: str
    institution: str
    practitioner: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A resource as the hub holds it, with the institution that owns the row."""

    resource: Resource
    institution: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """Another Task about the same patient, with what its focus names."""

    task: Resource
    request: Resource | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the hub knows beside the Task when it may be sent; found by index, and empty in every other state.

    Attributes:
        agreements: the directory's OrganizationAffiliations between requester and owner, in either direction.
        services: the directory's HealthcareServices that the owner provides.
        earlier: Tasks of the same workflow about the same patient.
        by_message: the request came as an HL7 v2 message, which no person stands ready to complete.
    """

    agreements: tuple[Resource, ...] = ()
    services: tuple[Resource, ...] = ()
    earlier: tuple[Earlier, ...] = ()
    by_message: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One running piece of work, loaded by the caller in the transaction that will store the decision.

    Attributes:
        task: the stored FHIR Task.
        request: what Task.focus names (ServiceRequest), if it names one.
        parties: ``requester`` and ``owner`` to institution codes; empty means "as recorded in the Task at its start".
        resources: what Task and inputs refer to, by ``Type/id``, and the Observations in ``result`` of such reports.
        known: what the checks before sending ask for; the caller fills it while ``Workflow.sends_from`` the state.
        persons: the Patients that its institution's merges join with Task.for, by reference.
    """

    task: Resource
    request: Resource | None = None
    parties: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, Held] = field(default_factory=dict)
    known: Known = field(default_factory=Known)
    persons: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What comes with an event.

    Attributes:
        reason: CodeableConcept for Task.statusReason.
        note: free text for Task.note.
        inputs: entries to add to Task.input.
        outputs: entries to add to Task.output.
        assignee: who is to do the work, resolved by the caller, for events that assign.
        expected_at: when the patient or specimen is expected, for events that promise a time.
    """

    reason: Resource | None = None
    note: str = ""
    inputs: tuple[Resource, ...] = ()
    outputs: tuple[Resource, ...] = ()
    assignee: Party | None = None
    expected_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """All that a named condition may look at: the Task as it would be after the move, and who moves it.

    Attributes:
        old: name of the state before the move.
        task: the Task with the event's inputs and outputs already added.
        service: ``Workflow.service`` of the table.
    """

    old: str
    task: Resource
    request: Resource | None
    parties: Mapping[str, str]
    actor: Actor
    inputs: Inputs
    resources: Mapping[str, Held]
    now: datetime
    service: str = ""
    known: Known = field(default_factory=Known)
    persons: frozenset[str] = frozenset()


#: Returns what is wrong, without patient data and Chinese first, or ``None``.
Guard = Callable[[Case], str | None]
Condition = Callable[[Case], bool]
#: Returns when a timer is due, or ``None`` when this case has no such deadline.
Due = Callable[[Case], datetime | None]


# --- Effects: what the caller does in the same transaction ------------------------------------------------------
# In a table the fields marked "resolved" are left empty; in a Decision the engine has filled them.


@dataclass(frozen=True, slots=True, kw_only=True)
class SetStatus:
    """Set ``status`` of Task.focus (``ServiceRequest``) or of the newest output of that type. *reference* is resolved."""

    resource_type: str
    status: str
    reference: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenGrant:
    """Let *institution* (resolved) see *scope* of *task*; opening again recomputes the closure, and is harmless."""

    role: str
    scope: Scope
    institution: str = ""
    task: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseGrant:
    """End that grant at *until* (resolved; equal to now when it ends at once)."""

    role: str
    scope: Scope
    institution: str = ""
    task: str = ""
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTimer:
    """Fire *event* as :data:`HUB_ACTOR` at *due*; starting a running timer moves it."""

    name: str
    event: str
    due: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelTimer:
    """Forget the timer; forgetting one that is not there is harmless."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Send a message to the institution of *role*, by whatever endpoint it has.

    Attributes:
        message: ``oru_r01``, ``orm_o01``, ``orr_o02``, ``ref_i12``, ``ref_i13``, ``ref_i14`` or ``rri_i12``.
        control: ORC-1 of an order or the answer to one, RF1-1 of a referral (HL7 table 0283), OBR-25 of a result.
        reference: the report to send (resolved), if the message carries one.
    """

    message: str
    to_role: str
    control: str = ""
    institution: str = ""
    reference: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notify:
    """Write a Communication to the institution of *role*; texts (resolved) are the transition's titles."""

    role: str
    institution: str = ""
    text_zh: str = ""
    text_en: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """Write a Provenance with a signature of the acting person over the current version of *reference* (resolved).

    Attributes:
        purpose: code of ``urn:iso-astm:E1762-95:2013``.
    """

    role: str
    purpose: str
    practitioner: str = ""
    institution: str = ""
    reference: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateTask:
    """Create a further Task (status requested, partOf this one) unless one with the same *key* (resolved) exists.

    Attributes:
        code: a code that has a table of its own (``referral``) is begun by ``engine.start`` as ``HUB_ACTOR``.
        about: what its focus is: this Task, this Task's focus, its newest report, or the ServiceRequest in its output.
        patient: what its ``for`` is (resolved).
        key_from: names what makes two such Tasks the same one; without it every move makes its own.
    """

    code: str
    owner_role: str
    requester_role: str
    priority: str = "routine"
    about: Literal["task", "request", "report", "proposal"] = "task"
    key_from: Callable[[Case], str] | None = None
    owner: str = ""
    requester: str = ""
    focus: str = ""
    patient: str = ""
    part_of: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndTask:
    """Give every open Task of *code* that is partOf *part_of* (resolved) that *status*."""

    code: str
    status: str
    part_of: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class When:
    """Effects of a transition that hold only if a named condition does. Never appears in a Decision."""

    condition: Condition
    effects: tuple[TableEffect, ...]


Effect = SetStatus | OpenGrant | CloseGrant | StartTimer | CancelTimer | Send | Notify | Sign | CreateTask | EndTask
TableEffect = SetStatus | Send | Notify | Sign | CreateTask | EndTask | When


# --- The table ----------------------------------------------------------------------------------------------------


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


def flat(effects: tuple[TableEffect, ...]) -> tuple[TableEffect, ...]:
    """Return *effects* with those inside ``When`` beside the others, for checks and diagrams."""
    found: list[TableEffect] = []
    for effect in effects:
        found.extend(flat(effect.effects) if isinstance(effect, When) else (effect,))
    return tuple(found)
