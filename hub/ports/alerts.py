"""What is wrong now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol


class Alerts(Protocol):
    """What is wrong now; an alert is told once when it opens and once when it clears."""

    def open(self, key: str, *, detail: str, now: datetime) -> bool:
        """Open the alert *key*; ``False`` when it is already open, on whichever node."""
        ...

    def clear(self, key: str) -> Mapping[str, Any] | None:
        """Close the alert and return what it was (``key``, ``opened_at``, ``detail``), or ``None`` when none is open."""
        ...

    def all(self) -> Sequence[Mapping[str, Any]]: ...
