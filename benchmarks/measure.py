"""What a measurement is: its spread over rounds, its peer, its target, and the row of the table it becomes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Minimum, median and maximum over the rounds of one measurement."""

    low: float
    median: float
    high: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of *values*, which must not be empty."""
        return cls(low=min(values), median=statistics.median(values), high=max(values), rounds=len(values))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile of *values* (``0.99`` = p99)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is to be reached; every bound that is set must hold.

    Attributes:
        ratio: how many times better than the peer.
    """

    at_least: float | None = None
    at_most: float | None = None
    ratio: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        key: short stable name, by which the smoke test and the README find the row.
        more_is_better: whether a larger value is the better one; decides how the ratio is read.
        counted: ``False`` for a row at a smaller size than its target is stated for, which therefore decides nothing.
    """

    key: str
    work: str
    unit: str
    hub: Spread
    more_is_better: bool
    peer: Spread | None = None
    peer_name: str = ""
    target: Target = Target()
    counted: bool = True
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times better than the peer the hub is, by medians."""
        if self.peer is None or self.peer.median <= 0 or self.hub.median <= 0:
            return None
        quotient = self.hub.median / self.peer.median
        return quotient if self.more_is_better else 1 / quotient

    @property
    def reached(self) -> bool | None:
        """Whether the median fulfils the target; ``None`` where none is set or the peer it names was not there."""
        bounds: list[bool] = []
        if self.target.at_least is not None:
            bounds.append(self.hub.median >= self.target.at_least)
        if self.target.at_most is not None:
            bounds.append(self.hub.median <= self.target.at_most)
        if self.target.ratio is not None:
            if self.ratio is None:
                return False if bounds and not all(bounds) else None
            bounds.append(self.ratio >= self.target.ratio)
        return all(bounds) if bounds else None

    def as_json(self) -> dict[str, Any]:
        """Return the row for ``latest.json``, with what is derived from it."""
        return {**asdict(self), "ratio": self.ratio, "reached": self.reached}


def row_from(value: dict[str, Any]) -> Row:
    """Return the row that :meth:`Row.as_json` wrote."""
    known = {name: value[name] for name in Row.__dataclass_fields__}
    known["hub"] = Spread(**known["hub"])
    known["peer"] = Spread(**known["peer"]) if known["peer"] else None
    known["target"] = Target(**known["target"])
    return Row(**known)
