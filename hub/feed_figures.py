"""What is counted of each feed, and what is told of it: received, applied, refused, failed, waiting, and how long it takes.

Feeds are endpoints of members, so there are as many as the operator registered; who is no member has none and is not
counted here. Counting costs no statement: a counter and a duration once a message is durable. What waits is asked for
when somebody looks, by an index of what waits. Percentiles are of the last messages and deliveries, by nearest rank.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from hub import metrics
from hub.feeds import feed_of
from hub.ports import Entry, MemberEndpoint
from hub.ports.feeds import Waiting

if TYPE_CHECKING:
    from hub.arrival import Arrival
    from hub.boot import Services
    from hub.directory import Directory

Json = dict[str, Any]

#: The percentiles that are told, by name.
PERCENTILES: Mapping[str, float] = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def committed(arrival: Arrival, kept: Sequence[str], services: Services) -> None:
    """Count *arrival*, which is durable, under its feed; *kept* ends with the state of its journal entry, empty for a repetition."""
    if arrival.endpoint is None or not metrics.counts():
        return
    state = kept[-1] if kept else "repeated"
    metrics.count("feed_received", feed=arrival.endpoint.id, state=state)
    if state == "done":
        took = (services.clock() - arrival.received_at).total_seconds()
        metrics.observe("feed_commit", max(0.0, took), feed=arrival.endpoint.id)


def processed(entry: Entry, state: str, services: Services) -> None:
    """Count what became of *entry*, which was stored before and has now been processed for the first time."""
    if not metrics.counts():
        return
    point = point_of(services.directory, entry)
    if point is None:
        return
    metrics.count("feed_processed", feed=point.id, state=state)
    if state == "done":
        took = (services.clock() - entry.received_at).total_seconds()
        metrics.observe("feed_commit", max(0.0, took), feed=point.id)


def point_of(directory: Directory, sent: Entry | Waiting) -> MemberEndpoint | None:
    """Return the endpoint whose feed *sent* is part of; the one that says most of its sender, where several fit."""
    fitting = [
        (bool(feed.sending_application) + bool(feed.sending_facility), point)
        for kind in ("mllp", "dicom")
        for point in directory.endpoints(sent.institution, kind)
        if (feed := feed_of(point)) is not None
        and sent.door in feed.doors
        and feed.sending_application in {"", sent.sending_application}
        and feed.sending_facility in {"", sent.sending_facility}
    ]
    return max(fitting, key=lambda one: one[0])[1] if fitting else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What of one feed is stored and not yet processed: how many, and since when the oldest."""

    count: int
    oldest_at: datetime


def backlogs(directory: Directory, waiting: Iterable[Waiting]) -> Mapping[str, Backlog]:
    """Return what waits of each feed, by endpoint."""
    found: dict[str, Backlog] = {}
    for one in waiting:
        point = point_of(directory, one)
        if point is None:
            continue
        before = found.get(point.id, Backlog(count=0, oldest_at=one.oldest_at))
        found[point.id] = Backlog(count=before.count + one.count, oldest_at=min(before.oldest_at, one.oldest_at))
    return found


def traffic(services: Services, point: MemberEndpoint, *, last: int) -> Json:
    """Return the figures of the *last* messages of *point* and deliveries to it, and of what waits on both sides; no content."""
    feed = feed_of(point)
    assert feed is not None
    now = services.clock()
    received, waiting, queues, acknowledged = services.database.read(
        lambda tx: (
            tx.feeds.recent(feed, limit=last),
            tx.feeds.waiting(),
            [one for one in tx.outbox.destinations() if one["destination"] == point.id],
            tx.feeds.acknowledged(point.id, limit=last),
        )
    )
    states = Counter(one.state for one in received)
    backlog = backlogs(services.directory, waiting).get(point.id)
    applied = [
        (one.finished_at - one.received_at).total_seconds()
        for one in received
        if one.state == "done" and one.finished_at is not None
    ]
    return {
        "received": len(received),
        "applied": states["done"],
        "refused": states["refused"],
        "failed": states["failed"],
        "waiting": 0 if backlog is None else backlog.count,
        "waiting_oldest_s": _age(backlog.oldest_at if backlog else None, now),
        "commit_s": percentiles(applied),
        "queued": sum(one["depth"] for one in queues),
        "queued_dead": sum(one["dead"] for one in queues),
        "queued_oldest_s": _age(next((one["oldest_at"] for one in queues), None), now),
        "acknowledged": len(acknowledged),
        "acknowledge_s": percentiles(acknowledged),
    }


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return the percentiles of *seconds* by nearest rank; none when there are no values.

    >>> percentiles([4.0, 1.0, 2.0, 3.0])
    {'p50': 2.0, 'p95': 4.0, 'p99': 4.0}
    """
    ranked = sorted(seconds)
    return {name: round(ranked[math.ceil(part * len(ranked)) - 1], 6) for name, part in PERCENTILES.items() if ranked}


def _age(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())
