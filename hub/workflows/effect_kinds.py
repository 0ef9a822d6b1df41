"""What a move brings about, as data: the caller carries it out in the transaction that stores the Task.

In a table the fields marked "resolved" are left empty; in a Decision :mod:`hub.workflows.effects` has filled them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from hub.workflows.base import Case, Condition

Scope = Literal["task-closure", "patient-record"]


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


def flat(effects: tuple[TableEffect, ...]) -> tuple[TableEffect, ...]:
    """Return *effects* with those inside ``When`` beside the others, for checks and diagrams."""
    found: list[TableEffect] = []
    for effect in effects:
        found.extend(flat(effect.effects) if isinstance(effect, When) else (effect,))
    return tuple(found)
