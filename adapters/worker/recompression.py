"""Keeps images compressed without loss, as their member's policy says, while the hub has nothing better to do.

Theory of operation. A turn does one object, if the hub is idle: nothing was received, sent or retrieved for a while. The
thread asks the kernel to come last, and the processes that encode inherit that; a rest after each object keeps the rate.
Of the nodes of one database the one that has the lease works, and begins each of its commits with it.

First come originals whose time beside their packed form is over, then the index, row by row, from where the last turn
stopped. What is refused is written down with the reason, so that it is not tried again.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from hub import metrics
from hub.errors import Category, HubError
from hub.ports import ObjectRef, Tx
from hub.ports.packing import NotPackableError, Packing, PackingStore
from hub.recompression import LEASE, RETRIED, SETTING, Policy

if TYPE_CHECKING:
    from hub.boot import Services

log = structlog.get_logger("adapters.worker.recompression")

LEASE_S = 300.0
#: Rows of the index looked at in one turn.
SPAN = 2_000
#: Originals that are removed in one turn.
BATCH = 50
#: Wait when the hub is not idle, and when the whole index has been looked at.
BUSY_S = 5.0
DONE_S = 600.0
#: What the codec failed at is tried again after this.
RETRY = timedelta(days=7)
#: Kindest to all others.
_NICE = 19


class RecompressionLoop:
    """Packs one object after the other."""

    def __init__(
        self,
        services: Services,
        store: PackingStore,
        stop: threading.Event,
        *,
        come_last: Callable[[], None] | None = None,
    ) -> None:
        self._services = services
        self._store = store
        self._stop = stop
        self._found: deque[tuple[ObjectRef, str]] = deque()
        #: How far the index of each member has been looked at.
        self._after: dict[str, int] = {}
        self._come_last: Callable[[], None] | None = come_last or _come_last

    def turn(self) -> float:
        """Do one object, if there is one and the hub is idle; returns the seconds until the next.

        Raises:
            HubError: transient, when the stores cannot work now.
        """
        policies = self._policies()
        now, settings = self._services.clock(), self._services.settings
        before = now - timedelta(seconds=settings.recompression_keep_s)
        waiting = self._services.database.read(lambda tx: tx.packings.unsettled(before=before, limit=BATCH))
        if not policies and not waiting:
            return self._rest_s()
        since = now - timedelta(seconds=settings.recompression_idle_s)
        if self._services.database.read(lambda tx: tx.packings.busy(now=now, since=since)):
            return min(BUSY_S, settings.recompression_idle_s or BUSY_S)
        epoch = self._services.database.write(
            lambda tx: tx.timers.lease(LEASE, self._services.node, now=now, lease_s=LEASE_S)
        )
        if epoch is None:
            return BUSY_S
        try:
            return self._work(policies, waiting, epoch)
        finally:
            # Given back after each object, so that a backup need not wait for longer.
            self._services.database.write(lambda tx: tx.timers.release(LEASE, epoch))

    def _work(self, policies: Mapping[str, Policy], waiting: Sequence[Packing], epoch: int) -> float:
        if self._come_last is not None:
            self._come_last()
            self._come_last = None
        if waiting:
            settled = sum(self._settle(one, epoch) for one in waiting)
            return 0.0 if settled else BUSY_S
        if not self._found and not self._look(policies):
            return 0.0 if self._after else self._rest_s()
        ref, syntax = self._found.popleft()
        began_s = time.monotonic()
        self._pack(ref, syntax, epoch)
        return max(0.0, ref.size / self._services.settings.recompression_bytes_per_s - (time.monotonic() - began_s))

    def _rest_s(self) -> float:
        """Return how long to wait after the whole index was looked at."""
        return min(DONE_S, max(1.0, 20 * self._services.settings.recompression_idle_s))

    def _policies(self) -> dict[str, Policy]:
        found: dict[str, Policy] = {}
        for member in self._services.directory.members():
            policy = Policy.of(str(member.settings.get(SETTING, "")))
            if policy is not None:
                found[member.code] = policy
        return found

    def _look(self, policies: Mapping[str, Policy]) -> bool:
        """Fill the queue from the next stretch of a member's index; returns whether there is anything in it.

        When all members are through, the places are forgotten, and the next look begins at the start.
        """
        open_to = [code for code in policies if self._after.get(code, 0) >= 0]
        if not open_to:
            self._after = {}
            return False
        code = open_to[0]
        policy, now = policies[code], self._services.clock()
        found = self._services.database.read(
            lambda tx: tx.packings.candidates(
                code,
                syntax=policy.syntax,
                modalities=policy.modalities,
                received_before=now - timedelta(days=policy.after_days),
                retry_before=now - RETRY,
                after=self._after.get(code, 0),
                span=SPAN,
            )
        )
        self._after[code] = -1 if found.upto is None else found.upto
        self._found.extend((one, policy.syntax) for one in found.objects)
        return bool(self._found)

    def _pack(self, ref: ObjectRef, syntax: str, epoch: int) -> None:
        refused = Packing(digest=ref.digest, size=ref.size, packed=None, syntax=syntax, at=self._services.clock())
        try:
            original, packed = self._store.pack(ref.digest, syntax, self._stop)
        except NotPackableError as error:
            metrics.count("packings", outcome=error.reason)
            log.info("object_not_packed", digest=ref.digest, reason=error.reason)
            self._write(replace(refused, reason=error.reason), epoch)
            return
        except HubError as error:
            if error.category is Category.NOT_FOUND:
                # Removed since, or it still waits on another node for its upload.
                return
            if error.category is Category.INTERRUPTED and self._stop.is_set():
                self._found.appendleft((ref, syntax))
                return
            raise
        made = replace(refused, size=original.size, packed=packed, at=self._services.clock())
        if self._write(made, epoch):
            metrics.count("packings", outcome="packed")
            log.info("object_packed", digest=ref.digest, size=original.size, packed_size=packed.size)

    def _settle(self, packing: Packing, epoch: int) -> bool:
        """Remove one original whose packed form has proved itself again; returns whether it is gone."""
        if self._stop.is_set() or packing.packed is None or not self._holds(epoch):
            return False
        try:
            gone = self._store.settle(packing, idle_s=self._services.settings.recompression_keep_s)
        except NotPackableError as error:
            # The original is there still; it is packed anew when the codec or the disk is well again.
            log.warning("packed_form_damaged", digest=packing.digest)
            metrics.count("packings", outcome=error.reason)
            self._write(replace(packing, packed=None, reason=RETRIED[0], at=self._services.clock()), epoch)
            return False
        except HubError as error:
            if error.transient:
                raise
            log.error("packed_object_damaged", digest=packing.digest, error=error.message)  # noqa: TRY400 - no fault of ours
            gone = False
        # One that was put again, or whose packed form S3 does not have yet, has its time once more.
        now = self._services.clock()
        if not self._write(replace(packing, settled=gone, at=now), epoch):
            return False
        if gone:
            metrics.count("packed_bytes_saved", packing.size - packing.packed.size)
        return gone

    def _holds(self, epoch: int) -> bool:
        return self._under(epoch, lambda _: None)

    def _write(self, packing: Packing, epoch: int) -> bool:
        return self._under(epoch, lambda tx: tx.packings.record(packing))

    def _under(self, epoch: int, work: Callable[[Tx], None]) -> bool:
        """Do *work* in a commit that the lease covers; returns whether this node still has it."""

        def held(tx: Tx) -> bool:
            if not tx.timers.hold(LEASE, epoch, now=self._services.clock(), lease_s=LEASE_S):
                return False
            work(tx)
            return True

        return self._services.database.write(held)


def _come_last() -> None:
    """Let every other thread go before this one and before the processes that it starts (nice(2))."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
