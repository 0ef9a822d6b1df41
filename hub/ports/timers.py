"""Deadlines and leases that live in the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Timer:
    kind: str
    key: str
    due_at: datetime
    payload: Mapping[str, Any]


class Timers(Protocol):
    """Deadlines kept in the database; each fires once, whichever node takes it. Leases end at theirs."""

    def set(self, timer: Timer, *, earliest_wins: bool = False) -> None:
        """Set or move the timer (kind, key)."""
        ...

    def cancel(self, kind: str, key: str) -> None: ...
    def due(self, now: datetime, *, limit: int, kind: str = "", beside: str = "") -> Sequence[Timer]:
        """Return timers that are due, soonest first: those of *kind*, or all but those of the kind *beside*."""
        ...

    def take(self, timer: Timer) -> bool:
        """Remove the timer inside this transaction; ``False`` when another node has already taken it."""
        ...

    def lease(self, name: str, holder: str, *, now: datetime, lease_s: float) -> int | None:
        """Take the right to do *name*, which one node at a time has, for *lease_s*.

        Returns the epoch to work under, ``None`` while another *holder* has it. Who holds it already gets a new epoch,
        so that what it did before it was started anew cannot go on.
        """
        ...

    def leased(self, name: str, *, now: datetime) -> str:
        """Return who has the right to do *name* now, or an empty text."""
        ...

    def hold(self, name: str, epoch: int, *, now: datetime, lease_s: float) -> bool:
        """Keep the right for *lease_s* more, and for sure until this transaction ends; ``False`` when it passed on."""
        ...

    def beside(self, name: str) -> None:
        """Keep whoever has the right to do *name* out of its next transaction until this one ends.

        For one piece of that work done out of turn, by a command: called first in the transaction, it waits for the
        transaction in which the holder may be, and so sees what that did. The right stays where it is.
        """
        ...

    def release(self, name: str, epoch: int) -> None:
        """Give the right back, if it has not passed on."""
        ...
