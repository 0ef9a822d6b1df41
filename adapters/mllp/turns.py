"""Whose message the listener hands to the core next: quotas first, then turns by weight.

One event loop owns it, so nothing here is locked. What waits here is one whole message of a connection that is not read
meanwhile, so a sender beyond its quota is held back by TCP and keeps the rest itself (:mod:`hub.intake_policy`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol

from hub.arrival import address_of
from hub.certificates import Line
from hub.fairness import FairQueue
from hub.intake_policy import IntakePolicy
from hub.quotas import Buckets, Minutes, Permit, Wanted, give_back, settle, wanted_of
from hub.shares import Share

#: So many bytes of a message cost as much as another message.
COST_BYTES = 1 << 16
#: Accounts kept before those of strangers are forgotten.
_ACCOUNTS = 1024


class Members(Protocol):
    """What the listener needs of :class:`hub.shares.Shares`."""

    def known(self, raw: bytes, peer: str, line: Line) -> Share | None:
        """Return the share that *raw* counts for if that is known without waiting."""
        ...

    def of(self, raw: bytes, peer: str, line: Line) -> Share:
        """Return the share that *raw* counts for; may wait for the database."""
        ...

    def refuse(self, raw: bytes, peer: str, line: Line, quota: str) -> bytes | None:
        """Return what is answered to *raw*, which is over *quota*; ``None`` when its sender wants no answer."""
        ...

    def tell(self, share: Share, quota: str, outcome: str) -> None:
        """Count what became of a message over *quota*."""
        ...


class ByAddress:
    """The :class:`Members` of a listener without a directory: every address is a stranger of its own."""

    def known(self, raw: bytes, peer: str, line: Line) -> Share | None:  # noqa: ARG002 - the port names them
        """Return the share of the address."""
        return Share(key=f"?{address_of(peer)}", policy=IntakePolicy())

    def of(self, raw: bytes, peer: str, line: Line) -> Share:  # noqa: ARG002 - the port names them
        """Return the share of the address."""
        return Share(key=f"?{address_of(peer)}", policy=IntakePolicy())

    def refuse(self, raw: bytes, peer: str, line: Line, quota: str) -> bytes | None:  # noqa: ARG002 - as above
        """Never called: without a member there is no quota."""
        raise AssertionError(quota)

    def tell(self, share: Share, quota: str, outcome: str) -> None:  # noqa: ARG002 - as above
        """Never called, either."""
        raise AssertionError(quota)


class OverQuota(Exception):  # noqa: N818 - a turn of events, not an error of the hub
    """The member has gone beyond a quota.

    Attributes:
        quota: its name, as the setting says it.
        refuse: whether the sender is told, rather than the connection closed without an acknowledgement.
    """

    def __init__(self, quota: str, *, refuse: bool) -> None:
        super().__init__(quota)
        self.quota = quota
        self.refuse = refuse


class _Account:
    """What one member has in hand."""

    def __init__(self) -> None:
        self.in_hand = 0
        self.changed = asyncio.Event()


class _Own:
    """The :class:`hub.quotas.Minutes` of a listener that shares them with no other door."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._buckets: dict[str, Buckets] = {}

    def ask(self, member: str, wanted: Sequence[Wanted], *, patience_s: float) -> Permit:
        """See the port."""
        return settle(self._buckets.setdefault(member, {}), wanted, now_s=self._seconds(), patience_s=patience_s)

    def give_back(self, member: str, wanted: Sequence[Wanted]) -> None:
        """See the port."""
        give_back(self._buckets.get(member, {}), wanted)


class Turns:
    """A number of slots, given to who waits by the weight of its member."""

    def __init__(
        self,
        slots: int,
        *,
        patience_s: float,
        minutes: Minutes | None = None,
        seconds: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._minutes = minutes if minutes is not None else _Own(seconds)
        self._sleep = sleep
        self._free = slots
        self._patience_s = patience_s
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue()
        self._accounts: dict[str, _Account] = {}

    async def within_quota(self, share: Share, size: int, messages: int = 1) -> bool:
        """Return once the member may send so many *messages* of *size* bytes in all, and whether it had to wait for that.

        Raises:
            OverQuota: it may not now, and either is to be told so or would wait longer than senders do.
        """
        policy = share.policy
        if share.day_is_full:
            raise OverQuota("bytes-per-day", refuse=policy.refuse)
        wanted = wanted_of(share, messages=messages, size=size)
        if not wanted:
            return False
        permit = self._minutes.ask(share.key, wanted, patience_s=0.0 if policy.refuse else self._patience_s)
        if permit.over:
            raise OverQuota(permit.over, refuse=policy.refuse)
        if permit.wait_s <= 0:
            return False
        try:
            await self._sleep(permit.wait_s)
        except asyncio.CancelledError:
            self._minutes.give_back(share.key, wanted)
            raise
        return True

    async def connection_free(self, share: Share) -> bool:
        """Return once fewer of the member's connections have a message in hand than it may, and whether it had to wait.

        Raises:
            OverQuota: as :meth:`within_quota`.
        """
        limit, account = share.policy.connections, self._account(share.key)
        if limit is None or account.in_hand < limit:
            return False
        if share.policy.refuse:
            raise OverQuota("connections", refuse=True)
        try:
            async with asyncio.timeout(self._patience_s):
                while account.in_hand >= limit:
                    account.changed.clear()
                    await account.changed.wait()
        except TimeoutError:
            raise OverQuota("connections", refuse=False) from None
        return True

    @contextlib.asynccontextmanager
    async def turn(self, share: Share, size: int) -> AsyncIterator[None]:
        """Hold one of the slots, having waited for the member's turn."""
        account = self._account(share.key)
        account.in_hand += 1
        try:
            await self._enter(share, 1.0 + size / COST_BYTES)
            try:
                yield
            finally:
                self._leave()
        finally:
            account.in_hand -= 1
            account.changed.set()

    async def _enter(self, share: Share, cost: float) -> None:
        if self._free and not len(self._waiting):
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(share.key, turn, weight=share.policy.weight, cost=cost)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()
            raise

    def _leave(self) -> None:
        while len(self._waiting):
            turn = self._waiting.take()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _account(self, key: str) -> _Account:
        found = self._accounts.get(key)
        if found is None:
            if len(self._accounts) >= _ACCOUNTS:
                # Strangers have no quota, so nothing is lost with what is not in use; members are fewer by far.
                self._accounts = {
                    name: one for name, one in self._accounts.items() if one.in_hand or not name.startswith("?")
                }
            found = self._accounts[key] = _Account()
        return found
