"""When a destination that is not reached is left in peace: after so many failures in a row (a circuit breaker that opens).

One failure may be a connection that a firewall dropped, or a partner that starts again; whoever leaves a destination alone
at once delays every patient's messages for it. The count is the worker's own and is for one destination; that its circuit is
open stands in the outbox (:meth:`hub.ports.Outbox.failed`), for all workers. Once it is open, only an answer closes it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Self

from hub.ports import MemberEndpoint

#: Name of the endpoint setting.
SETTING = "breaker"
#: Parts of the setting, and the most that each may say: a thousand failures, a day.
_PARTS = {"failures": 1000, "window-s": 86_400}


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRule:
    """When the circuit of a destination opens.

    Attributes:
        failures: to reach it, in a row.
        window_s: within which they must all have been; failures further apart are no outage.
    """

    failures: int = 3
    window_s: float = 300.0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the rule in a setting like ``failures=3 window-s=300``; what it leaves out is as by default.

        Raises:
            ValueError: with the part that is no use.
        """
        said: dict[str, int] = {}
        for part in text.split():
            name, _, value = part.partition("=")
            number = int(value) if value.isascii() and value.isdigit() else 0
            if not 1 <= number <= _PARTS.get(name, 0) or name in said:
                raise ValueError(part)
            said[name] = number
        default = cls()
        return cls(failures=said.get("failures", default.failures), window_s=said.get("window-s", default.window_s))

    @classmethod
    def of(cls, endpoint: MemberEndpoint | None) -> Self:
        """Return the rule of *endpoint*, whose settings were checked when it was imported."""
        return cls.parse(str(endpoint.settings.get(SETTING, ""))) if endpoint is not None else cls()


def is_breaker_rule(text: str) -> bool:
    """Return whether *text* is a rule and says something."""
    try:
        BreakerRule.parse(text)
    except ValueError:
        return False
    return bool(text.split())


class FailuresInARow:
    """How often each destination was not reached since it last answered. Not for use by several threads at once."""

    def __init__(self) -> None:
        self._failed_at: dict[str, deque[float]] = {}

    def failed(self, destination: str, rule: BreakerRule, now_s: float) -> bool:
        """Count a failure; return whether it opens the circuit."""
        times = self._failed_at.setdefault(destination, deque())
        times.append(now_s)
        while now_s - times[0] > rule.window_s:
            times.popleft()
        while len(times) > rule.failures:
            times.popleft()
        return len(times) >= rule.failures

    def answered(self, destination: str) -> None:
        """Forget the failures of *destination*, which answered."""
        self._failed_at.pop(destination, None)
