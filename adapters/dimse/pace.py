"""Objects that leave no faster than their receiver's line may carry (:mod:`hub.line_rate`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from adapters.dimse.recode import Fragments
from hub.line_rate import SETTING, LineRate
from hub.ports import MemberEndpoint

if TYPE_CHECKING:
    from hub.boot import Services

#: A fragment is no shorter than this, whatever the rate; the command sets beside it would outweigh it.
_LEAST_BYTES = 4096


class Pacer:
    """Holds fragments back, so that over any stretch no more than so many bytes a second leave, but for one fragment.

    Args:
        rate: bytes a second from now on, or ``None`` for no limit; asked once for each instance.
        clock: monotonic seconds.
        wait: waits that many seconds.
    """

    def __init__(
        self,
        rate: Callable[[], int | None],
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._wait = wait
        #: When the line has carried what was sent.
        self._free_at = clock()

    def paced(self, fragments: Fragments) -> Fragments:
        """Return *fragments* at the rate that holds when they are taken; none takes the line for more than a second."""

        def taken(size: int) -> Iterator[bytes]:
            rate = self._rate()
            if rate is None:
                yield from fragments(size)
                return
            for piece in fragments(min(size, max(rate, _LEAST_BYTES) & ~1)):
                ahead = self._free_at - self._clock()
                if ahead > 0:
                    self._wait(ahead)
                self._free_at = max(self._free_at, self._clock()) + len(piece) / rate
                yield piece

        return taken


def pacer_to(
    services: Services,
    endpoint: MemberEndpoint,
    *,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
) -> Pacer:
    """Return what holds instances back on their way to *endpoint*, by its setting and its member's time zone."""

    def rate() -> int | None:
        rule = endpoint.settings.get(SETTING)
        if rule is None:
            return None
        member = services.directory.member(endpoint.member)
        zone = (member.settings if member is not None else {}).get("time-zone", services.settings.time_zone)
        return LineRate.of(str(rule)).bytes_per_s(services.clock(), ZoneInfo(str(zone)))

    return Pacer(rate, clock=clock, wait=wait)
