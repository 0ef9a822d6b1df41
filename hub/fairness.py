"""Whose turn it is, and how much of a quota is left: pure arithmetic, for doors and for the worker.

Start-time fair queueing (P. Goyal, H. Vin, H. Cheng, "Start-time Fair Queuing", SIGCOMM 1996): what waits is tagged with
the virtual time at which its sender's share allows it to begin, and the lowest tag goes first. A sender that asks for much
pushes its own tags ahead and nobody else's; a sender that was silent begins at the present and gains no credit by it. So
whoever asks for one thing waits for at most one of each other sender's of equal weight and cost, however many they have.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """What waits, given out by the weight of its sender. Not for use by several threads at once."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, float, T]] = []
        self._ends: dict[str, float] = {}
        self._now = 0.0
        self._number = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, key: str, item: T, *, weight: float = 1.0, cost: float = 1.0) -> None:
        """Let *item* of the sender *key* wait; what costs more counts for more of the sender's share."""
        start = max(self._now, self._ends.get(key, 0.0))
        self._ends[key] = start + cost / weight
        self._number += 1
        heapq.heappush(self._heap, (start, self._number, self._ends[key], item))

    def take(self) -> T:
        """Return whose turn it is; raises IndexError when nothing waits."""
        start, _, _, item = heapq.heappop(self._heap)
        self._now = max(self._now, start)
        if len(self._ends) > 2 * len(self._heap) + 64:
            # Whoever's share ends in the past begins at the present again, so nothing is lost by forgetting it.
            self._ends = {key: end for key, end in self._ends.items() if end > self._now}
        return item


def interleaved(queues: Mapping[str, Sequence[T]], weights: Mapping[str, float], limit: int) -> list[T]:
    """Return up to *limit* of what waits in *queues*, each in its own order, taken by the weights of their keys."""
    fair: FairQueue[T] = FairQueue()
    for key in sorted(queues):
        for one in queues[key]:
            fair.add(key, one, weight=weights.get(key, 1.0))
    return [fair.take() for _ in range(min(limit, len(fair)))]


def shares(weights: Mapping[str, float], limit: int) -> dict[str, int]:
    """Return how many of *limit* each key may have, at least one each."""
    whole = sum(weights.values())
    return {key: max(1, math.ceil(limit * weight / whole)) for key, weight in weights.items()}


class Allowance:
    """A quota per minute as a bucket: full it holds one minute's worth, and it fills at the quota's rate.

    What is taken may exceed what is there and is then owed, so that callers that ask, take and wait come in the order in
    which they asked. Half a full bucket lets anything through, so that what is larger than a minute's worth gets its turn.
    """

    def __init__(self, per_minute: float, now_s: float, *, left: float | None = None) -> None:
        self._rate = per_minute / 60.0
        self._most = float(per_minute)
        self._left = self._most if left is None else min(left, self._most)
        self._at = now_s

    @property
    def state(self) -> tuple[float, float]:
        """What is left, and when that was looked at; with these another one goes on from here."""
        return self._left, self._at

    def wait_s(self, amount: float, now_s: float) -> float:
        """Return the seconds to wait before *amount* may be used."""
        self._left = min(self._most, self._left + max(0.0, now_s - self._at) * self._rate)
        self._at = max(self._at, now_s)
        return max(0.0, (min(amount, self._most / 2) - self._left) / self._rate)

    def take(self, amount: float) -> None:
        """Take *amount*, whether it is there or will be owed."""
        self._left -= amount

    def give_back(self, amount: float) -> None:
        """Take back what was taken and not used."""
        self._left = min(self._most, self._left + amount)
