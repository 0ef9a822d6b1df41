"""What every watcher has: a name for its alerts, a pace, and one question.

A watcher is one file beside this one and one line of :data:`adapters.worker.alerts.WATCHERS`. It tells what is wrong now;
when people are told is no affair of its own (:mod:`adapters.worker.alerts.telling`). To keep a value that trembles around
its limit from telling each time, a watcher opens at one limit and clears at a lower one: it is given what is open.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from hub.boot import Services

#: An open alert clears when the value is back under this share of what opened it.
CLEARS_AT = 0.5


class Watcher(Protocol):
    """Looks after one kind of trouble.

    Attributes:
        every_s: seconds between two looks.
    """

    every_s: float

    def owns(self, key: str) -> bool:
        """Return whether the alert *key* is for this watcher to clear; those of other nodes are not."""
        ...

    def look(self, now: datetime, known: Mapping[str, datetime]) -> Mapping[str, str]:
        """Return what is wrong, as a text in Chinese and English by key; never patient data.

        Args:
            known: the open alerts that it owns: when each opened, by key.

        Raises:
            HubError: transient, when the stores cannot work now; nothing is cleared then.
        """
        ...


class OfKind:
    """A watcher whose keys are ``kind|subject``."""

    kinds: tuple[str, ...] = ()
    every_s = 0.0

    def __init__(self, services: Services) -> None:
        self._services = services

    def owns(self, key: str) -> bool:
        """Return whether *key* is of one of its kinds."""
        return key.partition("|")[0] in self.kinds


def passes(value: float, limit: float, *, opened: bool) -> bool:
    """Return whether *value* is worth an alert: above *limit*, or not yet well below it once it is *opened*."""
    return limit > 0 and value > (limit * CLEARS_AT if opened else limit)
