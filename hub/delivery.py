"""What to do after an attempt to deliver: a pure decision, obeyed by the worker (DESIGN rule 8).

A partner that cannot be reached may be away for days, so that never counts towards giving up. A partner that refuses
this very content will refuse it again, so the delivery becomes a dead letter at once. Anything else that the partner
answered is tried again a few times. Waits grow as ``first * 2^n`` up to ``longest``, with full jitter, so that lanes
that failed together do not come back together (M. Brooker, "Exponential Backoff And Jitter").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from hub.config import Settings
from hub.ports import MemberEndpoint, NewDelivery, SendResult

#: The slot of messages and images.
MAIN = ""
#: Work at a destination that may wait long for an answer, or is wanted by another program behind the same address. Each has
#: a slot of its own: it goes in its own order, beside the others, and none of it delays images.
SLOTS = ("availability", "commitment", "commitment-request", "priors", "workitem-event")


def lane_name(destination: str, key: str, *, slot: str = MAIN) -> str:
    """Return the name of the lane of *key* (a patient, or what must go in order) at *destination*."""
    return f"{destination}|{slot}|{key}" if slot else f"{destination}|{key}"


def slot_of(delivery: NewDelivery) -> str:
    """Return the slot of its destination that *delivery* takes, which its lane tells."""
    for slot in SLOTS:
        if delivery.lane.startswith(lane_name(delivery.destination, "", slot=slot)):
            return slot
    return MAIN


class Outcome(Enum):
    """What became of an attempt."""

    #: The partner has it and said so.
    SENT = "sent"
    #: Another attempt follows.
    RETRY = "retry"
    #: Somebody must look: the lane is parked until the delivery is replayed or skipped.
    DEAD = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The decision; ``wait_s`` is the time until the next attempt when there is one."""

    outcome: Outcome
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How patient the hub is.

    Attributes:
        first_s: longest wait after the first failure.
        longest_s: longest wait of all.
        attempts: attempts that reached the partner before a delivery is given up.
    """

    first_s: float
    longest_s: float
    attempts: int

    @classmethod
    def of(cls, settings: Settings) -> RetryPolicy:
        """Return the policy that *settings* give."""
        return cls(first_s=settings.retry_first_s, longest_s=settings.retry_longest_s, attempts=settings.retry_attempts)

    def wait_s(self, failures: int, rng: Callable[[], float]) -> float:
        """Return the wait after *failures* earlier failures in a row; *rng* gives a number in [0, 1)."""
        ceiling = min(self.longest_s, self.first_s * 2.0 ** min(failures, 62))
        # A floor of a tenth keeps an unlucky draw from turning the wait into a busy loop.
        return ceiling * (0.1 + 0.9 * rng())

    def judge(self, result: SendResult, *, attempts: int, failures: int, rng: Callable[[], float]) -> Verdict:
        """Return what to do after *result*.

        Args:
            attempts: earlier attempts at this delivery that the partner answered.
            failures: earlier connection failures of the destination in a row.
        """
        if not result.error:
            return Verdict(outcome=Outcome.SENT)
        if not result.reached:
            return Verdict(outcome=Outcome.RETRY, wait_s=self.wait_s(failures, rng))
        if result.permanent or attempts + 1 >= self.attempts:
            return Verdict(outcome=Outcome.DEAD)
        return Verdict(outcome=Outcome.RETRY, wait_s=self.wait_s(attempts, rng))


def asks_for(endpoint: MemberEndpoint, name: str) -> bool:
    """Return whether the member's *endpoint* has the setting *name* switched on (``push``, ``message``)."""
    # A valueBoolean of the Endpoint comes as a truth value, a valueString as a text.
    return str(endpoint.settings.get(name)).lower() == "true"
