"""Counting, for whoever wants to count: doors and stores name what happened, the process decides where it goes.

Nothing is counted until a sink is set (:mod:`adapters.ops.metrics` sets one in each process of ``hub serve``).
"""

from __future__ import annotations

from typing import Protocol


class Sink(Protocol):
    """Keeps counts."""

    def count(self, name: str, amount: float, labels: dict[str, str]) -> None: ...
    def observe(self, name: str, seconds: float, labels: dict[str, str]) -> None: ...


_sink: Sink | None = None


def set_sink(sink: Sink | None) -> None:
    """Send all counts of this process to *sink* from now on."""
    global _sink
    _sink = sink


def counts() -> bool:
    """Return whether anybody counts; who must look something up for a label asks first."""
    return _sink is not None


def count(name: str, amount: float = 1, **labels: str) -> None:
    """Add *amount* to the counter *name*; labels are few and never hold patient data."""
    if _sink is not None:
        _sink.count(name, amount, labels)


def observe(name: str, seconds: float, **labels: str) -> None:
    """Record a duration."""
    if _sink is not None:
        _sink.observe(name, seconds, labels)
