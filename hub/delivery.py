"""What to do after an attempt to deliver: a pure decision, obeyed by the worker (DESIGN rule 8).

A partner that cannot be reached may be away for days, so that never counts towards giving up, unless it answers everything
but this delivery. A partner that refuses
this very content will refuse it again, so the delivery becomes a dead letter at once. Anything else that the partner
answered is tried again a few times. Waits grow as ``first * 2^n`` up to ``longest``, with full jitter, so that lanes
that failed together do not come back together (M. Brooker, "Exponential Backoff And Jitter"). An endpoint may say
otherwise for itself (``retry``), and also after how long its partner has no more use for a delivery.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any

from hub.config import Settings
from hub.ports import MemberEndpoint, NewDelivery, SendResult

#: The slot of messages and images.
MAIN = ""
#: Work at a destination that may wait long for an answer, or is wanted by another program behind the same address. Each has
#: a slot of its own: it goes in its own order, beside the others, and none of it delays images.
SLOTS = ("availability", "commitment", "commitment-request", "priors", "workitem-event")
#: Parts of an endpoint's ``retry``, and the most that each may say: a day, a thousand times, ten years.
_RETRY = {"first-s": 86_400, "longest-s": 86_400, "attempts": 1000, "max-age-s": 315_360_000}
#: Most connections to one endpoint: no more lanes of a slot are leased at once.
MOST_CONNECTIONS = 8


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
    """The decision.

    Attributes:
        wait_s: until the next attempt, when there is one.
        rest_s: how long the whole destination rests, which was not reached.
    """

    outcome: Outcome
    wait_s: float = 0.0
    rest_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How patient the hub is.

    Attributes:
        first_s: longest wait after the first failure.
        longest_s: longest wait of all.
        attempts: attempts that reached the partner before a delivery is given up.
        max_age_s: age from which a delivery that fails once more is given up; ``None`` for never.
    """

    first_s: float
    longest_s: float
    attempts: int
    max_age_s: float | None = None

    @classmethod
    def of(cls, settings: Settings, endpoint: MemberEndpoint | None = None) -> RetryPolicy:
        """Return the policy that *settings* give, with what *endpoint* says of itself laid over it."""
        policy = cls(
            first_s=settings.retry_first_s, longest_s=settings.retry_longest_s, attempts=settings.retry_attempts
        )
        said = retry_rule(str(endpoint.settings.get("retry", ""))) if endpoint is not None else {}
        return replace(policy, **said)  # type: ignore[arg-type]

    def wait_s(self, failures: int, rng: Callable[[], float]) -> float:
        """Return the wait after *failures* earlier failures in a row; *rng* gives a number in [0, 1)."""
        ceiling = min(self.longest_s, self.first_s * 2.0 ** min(failures, 62))
        # A floor of a tenth keeps an unlucky draw from turning the wait into a busy loop.
        return ceiling * (0.1 + 0.9 * rng())

    def judge(
        self,
        result: SendResult,
        *,
        attempts: int,
        failures: int,
        rng: Callable[[], float],
        age_s: float = 0.0,
        alone: int = 0,
    ) -> Verdict:
        """Return what to do after *result*.

        Args:
            alone: how often this delivery found nobody before although others, meanwhile, were answered. Then it is not
                the partner that is away but the message that it does not survive, and such attempts do count.
            age_s: time since the delivery was queued.
            attempts: earlier attempts at this delivery that the partner answered.
            failures: earlier connection failures of the destination in a row.
        """
        if result.awaits_s:
            return Verdict(outcome=Outcome.RETRY, wait_s=result.awaits_s)
        if not result.error:
            return Verdict(outcome=Outcome.SENT)
        too_old = self.max_age_s is not None and age_s >= self.max_age_s
        if not result.reached:
            rest_s = self.wait_s(failures, rng)
            if too_old or alone + 1 >= self.attempts:
                return Verdict(outcome=Outcome.DEAD, rest_s=rest_s)
            return Verdict(outcome=Outcome.RETRY, wait_s=max(rest_s, self.wait_s(alone, rng)), rest_s=rest_s)
        if result.permanent or too_old or attempts + 1 >= self.attempts:
            return Verdict(outcome=Outcome.DEAD)
        return Verdict(outcome=Outcome.RETRY, wait_s=self.wait_s(attempts, rng))


def retry_rule(text: str) -> dict[str, float | int]:
    """Return what a ``retry`` setting like ``first-s=5 longest-s=600 attempts=8 max-age-s=259200`` says.

    Raises:
        ValueError: with the part that is no use.
    """
    said: dict[str, float | int] = {}
    for part in text.split():
        name, _, value = part.partition("=")
        most = _RETRY.get(name, 0)
        number = int(value) if value.isascii() and value.isdigit() else 0
        if not 1 <= number <= most or name.replace("-", "_") in said:
            raise ValueError(part)
        said[name.replace("-", "_")] = number
    if said.get("first_s", 0) > said.get("longest_s", _RETRY["longest-s"]):
        raise ValueError(text)
    return said


def is_retry_rule(text: str) -> bool:
    """Return whether *text* is a rule that :func:`retry_rule` reads, and says something."""
    try:
        return bool(retry_rule(text))
    except ValueError:
        return False


def connections_of(endpoint: MemberEndpoint | None) -> int:
    """Return how many messages may be in flight to *endpoint* at once, each of another lane."""
    return int(endpoint.settings.get("connections", 1)) if endpoint is not None else 1


def circuit(destination: Mapping[str, Any], now: datetime) -> str:
    """Return the state of the circuit breaker of *destination* (:meth:`hub.ports.Outbox.destinations`).

    ``closed``: it was reached last time. ``open``: it was not, and rests. ``half-open``: its time is over, and one lane of a
    slot is tried before the others.
    """
    if not destination["failures"]:
        return "closed"
    until = destination["open_until"]
    return "open" if until is not None and until > now else "half-open"


def asks_for(endpoint: MemberEndpoint, name: str) -> bool:
    """Return whether the member's *endpoint* has the setting *name* switched on (``push``, ``message``)."""
    # A valueBoolean of the Endpoint comes as a truth value, a valueString as a text.
    return str(endpoint.settings.get(name)).lower() == "true"
