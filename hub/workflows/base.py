"""What a workflow looks at when it judges a move: the actor, the Task with what it refers to, and what came with the event.

A workflow is a FHIR R4 Task (https://hl7.org/fhir/R4/task.html) whose moves are declared as data
(:mod:`hub.workflows.table`). Conditions are named functions of a :class:`Case`; there is no expression language.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

BASE = "https://yixiehub.example/fhir"
WORKFLOW_SYSTEM = f"{BASE}/CodeSystem/workflow"

Resource = Mapping[str, Any]

#: Task.status values after which the work itself is over (https://hl7.org/fhir/R4/valueset-task-status.html).
ENDED = frozenset({"completed", "rejected", "cancelled", "failed"})


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
