"""Fair turns and quotas at the MLLP door, counted in messages and never in time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from contextlib import ExitStack

import pytest

from adapters.mllp.frames import encode_frame
from adapters.mllp.turns import OverQuota, Turns
from hub.certificates import Line
from hub.intake_policy import IntakePolicy
from hub.shares import Share
from tests.support.mllp import PATIENCE_S, Peer, door, limits


class Named:
    """Members by the first two letters of the message, with policies as the test says."""

    def __init__(self, **policies: IntakePolicy) -> None:
        self.policies = policies
        self.full: set[str] = set()
        self.told: list[tuple[str, str, str]] = []
        self._asked = 0
        self._changed = threading.Condition()

    def known(self, raw: bytes, peer: str, line: Line) -> Share | None:
        with self._changed:
            self._asked += 1
            self._changed.notify_all()
        key = raw[:2].decode()
        return Share(key=key, policy=self.policies.get(key, IntakePolicy()), day_is_full=key in self.full)

    def of(self, raw: bytes, peer: str, line: Line) -> Share:
        raise AssertionError("known without asking")

    def refuse(self, raw: bytes, peer: str, line: Line, quota: str) -> bytes | None:
        return None if b"quiet" in raw else f"AE:{quota}".encode()

    def tell(self, share: Share, quota: str, outcome: str) -> None:
        self.told.append((share.key, quota, outcome))

    def until_asked(self, times: int) -> None:
        """Return when the door has asked that often, so that so many messages wait or are in hand."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._asked >= times, PATIENCE_S)


class Core:
    """Answers when it is let; remembers the order of what it was handed."""

    def __init__(self, *, held: bool) -> None:
        self.received: list[bytes] = []
        self.go = threading.Event()
        if not held:
            self.go.set()

    def receive(self, raw: bytes, peer: str, *, line: Line) -> bytes | None:
        self.received.append(raw)
        assert self.go.wait(PATIENCE_S)
        return b"ACK:" + raw

    def refuse(self, head: bytes, peer: str, reason: str) -> bytes | None:
        raise AssertionError(reason)


FLOODING, EACH = 40, 50


def test_a_member_that_floods_delays_another_by_one_message_more_than_is_in_hand() -> None:
    core, members = Core(held=True), Named()
    with ExitStack() as stack:
        running = stack.enter_context(door(core, limits(), members=members, workers=2))
        flood = [stack.enter_context(Peer(running.address)) for _ in range(FLOODING)]
        for number, peer in enumerate(flood):
            # Two thousand messages are on their way, forty of them whole at the door.
            peer.send(b"".join(encode_frame(b"QH %d.%d" % (number, n)) for n in range(EACH)))
        members.until_asked(FLOODING)
        quiet = stack.enter_context(Peer(running.address))
        quiet.send(encode_frame(b"KN"))
        members.until_asked(FLOODING + 1)
        core.go.set()
        assert quiet.answer() == b"ACK:KN"
        before = core.received.index(b"KN")
        # Two were in hand, and each of the two slots may have gone to QH once more before KN's turn.
        assert before <= 4, core.received[: before + 1]
        for peer in flood:
            assert [peer.answer() for _ in range(EACH)][-1] is not None
        assert len(core.received) == FLOODING * EACH + 1


def test_members_that_wait_are_served_by_their_weights() -> None:
    core = Core(held=True)
    members = Named(KN=IntakePolicy(weight=3))
    with ExitStack() as stack:
        running = stack.enter_context(door(core, limits(), members=members, workers=1))
        peers = []
        for name in (b"YL", *(b"QH",) * 12, *(b"KN",) * 12):
            peer = stack.enter_context(Peer(running.address))
            peer.send(encode_frame(name))
            peers.append(peer)
            members.until_asked(len(peers))
        core.go.set()
        for peer in peers:
            assert peer.answer() is not None
    # The first was in hand before the others came.
    assert core.received[1:17].count(b"KN") == 12


def test_over_a_quota_a_sender_is_told_so_if_its_setting_says_it_and_the_connection_goes_on() -> None:
    core, members = Core(held=False), Named(KN=IntakePolicy(refuse=True))
    with door(core, limits(), members=members) as running, Peer(running.address) as peer:
        members.full.add("KN")
        peer.send(encode_frame(b"KN 1"))
        assert peer.answer() == b"AE:bytes-per-day"
        members.full.clear()
        peer.send(encode_frame(b"KN 1"))
        assert peer.answer() == b"ACK:KN 1"
    assert members.told == [("KN", "bytes-per-day", "refused")]
    assert core.received == [b"KN 1"]


@pytest.mark.parametrize(("refuse", "text"), [(False, b"KN 1"), (True, b"KN quiet")])
def test_over_a_quota_a_message_that_nobody_may_be_told_of_is_left_unacknowledged(refuse: bool, text: bytes) -> None:
    core, members = Core(held=False), Named(KN=IntakePolicy(refuse=refuse))
    members.full.add("KN")
    with door(core, limits(), members=members) as running, Peer(running.address) as peer:
        peer.send(encode_frame(text))
        assert peer.answer() is None
    assert members.told == [("KN", "bytes-per-day", "refused" if refuse else "closed")]
    assert core.received == []


def test_beyond_its_connections_a_member_waits_for_its_own_and_nobody_elses() -> None:
    core, members = Core(held=True), Named(QH=IntakePolicy(connections=1))
    with ExitStack() as stack:
        running = stack.enter_context(door(core, limits(), members=members, workers=8))
        peers = [stack.enter_context(Peer(running.address)) for _ in range(4)]
        for number, peer in enumerate(peers[:3]):
            peer.send(encode_frame(b"QH %d" % number))
        members.until_asked(3)
        peers[3].send(encode_frame(b"KN"))
        members.until_asked(4)
        core.go.set()
        assert peers[3].answer() == b"ACK:KN"
        assert sorted(peer.answer() or b"" for peer in peers[:3]) == [b"ACK:QH 0", b"ACK:QH 1", b"ACK:QH 2"]
    assert [told for told in members.told if told[0] == "KN"] == []
    assert members.told.count(("QH", "connections", "slowed")) == 2


# --- quotas by the minute, under a clock of the test's ---------------------------------------------------------------


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, wait_s: float) -> None:
        self.slept.append(round(wait_s, 6))
        self.now += wait_s


def turns(clock: Clock, *, patience_s: float = 30.0) -> Turns:
    return Turns(1, patience_s=patience_s, seconds=clock, sleep=clock.sleep)


def ran(work: Awaitable[object]) -> None:
    async def main() -> None:
        await work

    asyncio.run(main())


def test_beyond_its_messages_a_member_is_slowed_to_its_rate() -> None:
    clock = Clock()
    share = Share(key="KN", policy=IntakePolicy(messages_per_minute=60))

    async def work() -> None:
        gate = turns(clock)
        waited = [await gate.within_quota(share, 100) for _ in range(63)]
        assert waited == [False] * 60 + [True] * 3

    ran(work())
    assert clock.slept == pytest.approx([1.0, 1.0, 1.0])


def test_beyond_its_bytes_a_member_is_slowed_and_others_are_not() -> None:
    clock = Clock()
    share = Share(key="KN", policy=IntakePolicy(bytes_per_minute=6000))
    other = Share(key="QH", policy=IntakePolicy(bytes_per_minute=6000))

    async def work() -> None:
        gate = turns(clock)
        assert not await gate.within_quota(share, 6000)
        assert await gate.within_quota(share, 1000)
        assert not await gate.within_quota(other, 1000)

    ran(work())
    assert clock.slept == pytest.approx([10.0])


def test_a_wait_longer_than_senders_wait_is_none() -> None:
    clock = Clock()
    share = Share(key="KN", policy=IntakePolicy(bytes_per_minute=6000))

    async def work() -> None:
        gate = turns(clock)
        await gate.within_quota(share, 12_000)
        with pytest.raises(OverQuota) as caught:
            await gate.within_quota(share, 1000)
        assert (caught.value.quota, caught.value.refuse) == ("bytes-per-minute", False)
        clock.now += 70.0
        assert not await gate.within_quota(share, 1000)

    ran(work())
    assert clock.slept == []


def test_a_member_that_is_to_be_told_does_not_wait() -> None:
    clock = Clock()
    share = Share(key="KN", policy=IntakePolicy(messages_per_minute=2, refuse=True))

    async def work() -> None:
        gate = turns(clock)
        assert not await gate.within_quota(share, 1)
        assert not await gate.within_quota(share, 1)
        with pytest.raises(OverQuota) as caught:
            await gate.within_quota(share, 1)
        assert (caught.value.quota, caught.value.refuse) == ("messages-per-minute", True)
        clock.now += 30.0
        # A refusal costs nothing of the quota.
        assert not await gate.within_quota(share, 1)

    ran(work())
    assert clock.slept == []
