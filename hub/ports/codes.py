"""Codes of members that nothing standard stands beside: the work queue of whoever maps them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A code met in messages since it was last written down.

    Attributes:
        count: messages it was met in.
        seq: number of the newest of them in the journal.
    """

    institution: str
    system: str
    code: str
    count: int
    seq: int
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmappedItem:
    """One item of the queue.

    Attributes:
        count: messages it was met in; a process writes what it has counted once a minute.
        first_seq: number of the first message with it, where looking for messages may stop.
        sample_seq: number of a late message with it, to be looked at by who may.
    """

    institution: str
    system: str
    code: str
    first_seen: datetime
    last_seen: datetime
    count: int
    first_seq: int
    sample_seq: int


class UnmappedCodes(Protocol):
    def seen(self, sightings: Sequence[Sighting]) -> None:
        """Add *sightings* to their items, making those that are new."""
        ...

    def items(self, institution: str | None, *, limit: int) -> Sequence[UnmappedItem]:
        """Return the items of *institution*, or of all, those met most often first."""
        ...

    def number(self, institution: str) -> int:
        """Return how many items *institution* has."""
        ...

    def settle(self, items: Sequence[UnmappedItem]) -> None:
        """Take *items* off the queue."""
        ...
