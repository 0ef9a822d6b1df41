"""What members' endpoints send, as the journal tells it: when something came, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """What one endpoint of a member sends: all that is given here, by any of *doors*; an empty name is any."""

    institution: str
    doors: tuple[str, ...]
    sending_application: str = ""
    sending_facility: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """What became of one arrival, without its content."""

    seq: int
    received_at: datetime
    state: str
    outcome: str
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What of one sender is stored and not yet processed; an institution may have several."""

    door: str
    institution: str
    sending_application: str
    sending_facility: str
    count: int
    oldest_at: datetime


class Feeds(Protocol):
    """The journal by feed."""

    def recent(self, feed: Feed, *, limit: int) -> Sequence[Received]:
        """Return when the last arrivals of *feed* came and what became of them, newest first."""
        ...

    def any_between(self, feed: Feed, since: datetime | None, until: datetime) -> bool:
        """Return whether *feed* brought anything from *since* (``None`` = ever) until *until*.

        What came within the same moment as an end of the span may be counted on either side of it.
        """
        ...

    def waiting(self) -> Sequence[Waiting]:
        """Return what is stored and not yet processed, by door and sender; costs as much as waits, not as is stored."""
        ...

    def acknowledged(self, destination: str, *, limit: int) -> Sequence[float]:
        """Return how many seconds passed from queueing to the acknowledgement of the last deliveries to *destination*, newest first."""
        ...
