"""How far a job is, and what came of its instances."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

Json = dict[str, Any]

#: Instances that the Task names of those that were left out; the manifest has all.
NAMED: Final = 100


@dataclass(slots=True)
class Run:
    """The job in hand: its instances, how far it is, and what came of them."""

    job: str = ""
    plan: list[Json] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    left: list[str] = field(default_factory=list)

    @property
    def at(self) -> int:
        return self.spans[-1][1] if self.spans else 0

    def add(self, span: tuple[int, int], record: Sequence[Json]) -> None:
        """Count one step."""
        self.spans.append(span)
        for planned, one in zip(self.plan[span[0] : span[1]], record, strict=True):
            what = next(name for name in ("file", "left_out", "failed") if name in one)
            self.counts["done" if what == "file" else what] += 1
            if what != "file":
                self.counts[f"reason|{one[what]}"] += 1
                if len(self.left) < NAMED:
                    self.left.append(planned["instance"])

    @property
    def reasons(self) -> dict[str, int]:
        """How many instances were left out or failed for each reason."""
        return {name.partition("|")[2]: count for name, count in self.counts.items() if name.startswith("reason|")}
