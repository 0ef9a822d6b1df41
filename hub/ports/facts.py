"""Small facts that the hub keeps of its own work, one text each."""

from __future__ import annotations

from typing import Protocol


class Facts(Protocol):
    """Facts by name; the room that keeps one begins its name (``view KN-ris``)."""

    def get(self, name: str) -> str | None:
        """Return the fact, ``None`` when there is none."""
        ...

    def keep(self, name: str, value: str) -> None:
        """Make *value* the fact of that name."""
        ...
