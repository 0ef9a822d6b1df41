"""Quotas by the minute, which count at every door through which a member's HL7 v2 messages and documents come.

The setting is a member's ``intake`` (:mod:`hub.intake_policy`), the arithmetic :class:`hub.fairness.Allowance`. What is left of a
quota is one number for all processes of a node (:class:`Minutes`), so a member has no second one at another door. How a door
holds a sender back is its own: MLLP does not read on, HTTP answers 429 (RFC 6585 section 4), files and rows stay where they are.
"""

from __future__ import annotations

import math
import re
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol
from zoneinfo import ZoneInfo

from hub.errors import Category, HubError
from hub.fairness import Allowance
from hub.shares import Share, Shares

if TYPE_CHECKING:
    from hub.boot import Services

#: What is left of the quotas of one member, by name: the quota as it was, and its bucket. A changed quota begins anew.
Buckets = MutableMapping[str, tuple[int, Allowance]]
#: Longest time that a door which asks again by itself rests; a quota may have been raised meanwhile.
LONGEST_REST_S = 60.0
#: Where a message begins in a file, a batch or an envelope.
_MESSAGE = re.compile(rb"(?:\A|[\r\n>\[;])MSH[^A-Za-z0-9\s]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """So much of one quota."""

    quota: str
    per_minute: int
    amount: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """The answer to what is wanted.

    Attributes:
        wait_s: seconds after which it may be used; or, when it was not given, after which it is worth asking again.
        over: the quota for which it was not given; empty when it was.
    """

    wait_s: float = 0.0
    over: str = ""


class Minutes(Protocol):
    """What is left of the quotas of all members. Safe for several threads."""

    def ask(self, member: str, wanted: Sequence[Wanted], *, patience_s: float) -> Permit:
        """Take all that is *wanted*, or nothing where that meant to wait for longer than *patience_s*."""
        ...

    def give_back(self, member: str, wanted: Sequence[Wanted]) -> None:
        """Take back what was given and not used."""
        ...


def settle(buckets: Buckets, wanted: Sequence[Wanted], *, now_s: float, patience_s: float) -> Permit:
    """Take what is *wanted* from *buckets*, as :meth:`Minutes.ask` says."""
    for gone in buckets.keys() - {one.quota for one in wanted}:
        del buckets[gone]
    wait_s = 0.0
    for one in wanted:
        known = buckets.get(one.quota)
        if known is None or known[0] != one.per_minute:
            known = buckets[one.quota] = (one.per_minute, Allowance(one.per_minute, now_s))
        needed_s = known[1].wait_s(one.amount, now_s)
        if needed_s > patience_s:
            return Permit(wait_s=needed_s, over=one.quota)
        wait_s = max(wait_s, needed_s)
    for one in wanted:
        buckets[one.quota][1].take(one.amount)
    return Permit(wait_s=wait_s)


def give_back(buckets: Buckets, wanted: Sequence[Wanted]) -> None:
    """Take back what was given and not used; of a quota that is no more there is nothing to give back."""
    for one in wanted:
        if one.quota in buckets:
            buckets[one.quota][1].give_back(one.amount)


def wanted_of(share: Share, *, messages: int, size: int) -> list[Wanted]:
    """Return what so many messages of so many bytes in all want of the member's quotas; nothing where it has none."""
    policy = share.policy
    return [
        Wanted(quota=quota, per_minute=per_minute, amount=float(amount))
        for quota, per_minute, amount in (
            ("messages-per-minute", policy.messages_per_minute, messages),
            ("bytes-per-minute", policy.bytes_per_minute, size),
        )
        if per_minute is not None
    ]


def messages_in(raw: bytes) -> int:
    """Return how many messages *raw* counts for: as many as begin in it, and at least one."""
    return max(1, sum(1 for _ in _MESSAGE.finditer(raw)))


class OverQuotaError(HubError):
    """The member has gone beyond *quota*; nothing was kept, and after *wait_s* it is worth trying again (429)."""

    def __init__(self, quota: str, wait_s: float) -> None:
        super().__init__(
            Category.BUSY,
            f"已超出本成员的配额 {quota} / Over this member's quota of {quota}; nothing was kept.",
            remedy=f"Send it again after {math.ceil(wait_s)} s, or ask the operator for a higher quota.",
            status=429,
        )
        self.quota = quota
        self.retry_after_s = max(1, math.ceil(wait_s))


class Gate:
    """Where a door that knows the member already asks before it hands anything to the core."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._shares = Shares(services)

    def wait_s(self, member: str, raw: bytes, *, messages: int | None = None) -> tuple[float, str]:
        """Return 0 once *raw* was counted for *member*; else how long to wait before asking again, and the quota.

        Args:
            messages: how many it counts for, where that is not to be read from it.
        """
        share = self._shares.of_member(member)
        if share.day_is_full:
            return self._to_midnight_s(), "bytes-per-day"
        number = messages_in(raw) if messages is None else messages
        wanted = wanted_of(share, messages=number, size=len(raw))
        if not wanted:
            return 0.0, ""
        permit = self._services.minutes.ask(share.key, wanted, patience_s=0.0)
        return (permit.wait_s, permit.over) if permit.over else (0.0, "")

    def rest_s(self, member: str, raw: bytes) -> float:
        """Return 0 once *raw* was counted for *member*; else after how long a door asks again that can wait by itself."""
        wait_s, quota = self.wait_s(member, raw)
        if quota:
            self._shares.tell(self._shares.of_member(member), quota, "slowed")
        return min(wait_s, LONGEST_REST_S) if quota else 0.0

    def check(self, member: str, raw: bytes, *, messages: int | None = None) -> None:
        """Return once *raw* was counted for *member*.

        Raises:
            OverQuotaError: it may not be taken now, and was not counted.
        """
        wait_s, quota = self.wait_s(member, raw, messages=messages)
        if quota:
            self._shares.tell(self._shares.of_member(member), quota, "refused")
            raise OverQuotaError(quota, wait_s)

    def _to_midnight_s(self) -> float:
        zone = ZoneInfo(self._services.settings.time_zone)
        now = self._services.clock().astimezone(zone)
        tomorrow = datetime(now.year, now.month, now.day, tzinfo=zone) + timedelta(days=1)
        return max(1.0, (tomorrow - now).total_seconds())
