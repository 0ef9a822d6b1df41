"""Watches what members send: how much of it goes wrong, and feeds that have fallen silent.

A broken feed is quiet from the hub's side: nothing waits and nothing fails. What is usual is learned from the journal,
which every node shares and a restart does not lose.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from adapters.worker.alerts.watcher import OfKind, passes
from hub.alert_limits import AlertLimits
from hub.boot import Services
from hub.feeds import feed_of
from hub.ports import MemberEndpoint, Tx
from hub.ports.feeds import Feed

#: Messages over which shares are taken, and fewer than which say nothing yet.
WINDOW, LEAST = 200, 20
#: Older messages than this are no news.
RECENT = timedelta(days=1)
#: Words of the finding about a code without a row (:meth:`fhir_mappings.hl7v2.assembly.Place.mapped`).
UNMAPPED = "has no row in the map"
#: Weeks with which a silence is compared. One of four may have been quiet too: a holiday, or an outage of its own.
WEEKS, WEEKS_LEAST = 4, 2
#: A shorter silence is never told; a longer one is judged by its last day.
SHORTEST, LONGEST = timedelta(minutes=30), timedelta(days=1)
_WEEK = timedelta(days=7)


class Feeds(OfKind):
    """Alerts ``errors|KN/mllp``, ``unmapped|KN/mllp`` and ``idle|KN/mllp``."""

    kinds = ("errors", "unmapped", "idle")
    every_s = 60.0

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        # While the hub was away nobody could send, so no silence is counted from before it began to listen.
        self._listening_since = services.clock()

    def look(self, now: datetime, known: Mapping[str, datetime]) -> Mapping[str, str]:
        """Return the feeds that go wrong or have fallen silent."""
        found: dict[str, str] = {}
        for endpoint in self._services.directory.all_endpoints():
            feed = feed_of(endpoint)
            if feed is not None:
                limits = AlertLimits.of(self._services.settings, endpoint.settings)
                found.update(self._wrong(endpoint, feed, limits, now, known))
        return found

    def _wrong(
        self, endpoint: MemberEndpoint, feed: Feed, limits: AlertLimits, now: datetime, known: Mapping[str, datetime]
    ) -> Iterator[tuple[str, str]]:
        database, name = self._services.database, endpoint.id
        errors, unmapped, idle = (f"{kind}|{name}" for kind in self.kinds)
        last = database.read(lambda tx: tx.feeds.recent(feed, limit=WINDOW))
        settled = [one for one in last if one.state != "received" and now - one.received_at <= RECENT]
        count = len(settled)
        if count >= LEAST:
            failed = 100 * sum(one.state in {"refused", "failed"} for one in settled) / count
            if passes(failed, limits.error_percent, opened=errors in known):
                yield errors, _errors(name, limits.error_percent, count)
            lost = 100 * sum(UNMAPPED in one.outcome for one in settled) / count
            if passes(lost, limits.unmapped_percent, opened=unmapped in known):
                yield unmapped, _unmapped(name, limits.unmapped_percent, count)
        if limits.idle_factor and database.read(
            lambda tx: self._is_silent(tx, feed, limits.idle_factor, now, known.get(idle))
        ):
            yield idle, _idle(name, limits.idle_factor)

    def _is_silent(self, tx: Tx, feed: Feed, factor: int, now: datetime, opened_at: datetime | None) -> bool:
        """Return whether *feed* says nothing at a time of the week when it usually does; what is told lasts to a message."""
        last = tx.feeds.recent(feed, limit=1)
        if not last:
            return False
        if opened_at is not None:
            return last[0].received_at <= opened_at
        silence = now - max(last[0].received_at, self._listening_since)
        # The end of a weekend's silence is told by a short span: that of the whole one says that silence is usual.
        span = SHORTEST
        while span <= min(silence, LONGEST):
            if _was_busy(tx, feed, factor, now - span, now):
                return True
            span *= 2
        return False


def _was_busy(tx: Tx, feed: Feed, factor: int, start: datetime, end: datetime) -> bool:
    """Return whether, in the same span of the weeks before, no gap was longer than a *factor*-th of it.

    The span is cut into *factor* parts, and each must have had a message; a part without one, as at night, says that such a
    silence is usual. A feed that is younger than the weeks compared is not judged.
    """
    part = (end - start) / factor
    compared = quiet = 0
    for week in range(1, WEEKS + 1):
        before = start - week * _WEEK
        if not tx.feeds.any_between(feed, None, before):
            break
        compared += 1
        if not all(
            tx.feeds.any_between(feed, before + number * part, before + (number + 1) * part) for number in range(factor)
        ):
            quiet += 1
            if quiet > 1:
                return False
    return compared >= WEEKS_LEAST and quiet <= (compared == WEEKS)


def _errors(name: str, limit: int, count: int) -> str:
    return (
        f"接口 {name}：最近 {count} 条消息中超过 {limit}% 被拒绝或失败；见 `hub messages list`。"
        f" / {name}: more than {limit}% of its last {count} messages were refused or failed; see `hub messages list`."
    )


def _unmapped(name: str, limit: int, count: int) -> str:
    return (
        f"接口 {name}：最近 {count} 条消息中超过 {limit}% 含未映射的代码。"
        f" / {name}: more than {limit}% of its last {count} messages hold codes that no map has."
    )


def _idle(name: str, factor: int) -> str:
    return (
        f"接口 {name}：沉默时间已超过平时间隔的 {factor} 倍；请检查对方系统和网络。"
        f" / {name}: silent for more than {factor} times its usual gap; look at its system and network."
    )
