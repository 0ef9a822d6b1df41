"""Prometheus metrics of all processes (https://prometheus.io/docs/instrumenting/exposition_formats/).

Counters live in files that the processes of one hub share, so whichever HTTP process is scraped answers for all. What
the database knows better (queues, alerts, waiting messages) is asked at the scrape.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, multiprocess
from prometheus_client.core import GaugeMetricFamily

from adapters import _tls
from hub import __version__, metrics
from hub.delivery import circuit
from hub.errors import HubError
from hub.feed_figures import Backlog, backlogs
from hub.feeds import IMAGE_DOORS, V2_DOORS, feed_of
from hub.ports import UploadingStore
from hub.presented_certificates import presented

if TYPE_CHECKING:
    from hub.boot import Services

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: Seconds; from an answer out of memory to a partner's slow acknowledgement.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

#: A count of what waits for its upload may be this old; it gets older by itself where counting takes long.
WAITING_AGE_S = 1.0

#: The value of ``hub_queue_circuit``.
CIRCUIT = {"closed": 0.0, "half-open": 0.5, "open": 1.0}

#: Counters and durations that may be counted: name -> (help, labels).
COUNTERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "feed_processed": (
        "Messages stored before and now processed, by endpoint and what became of them.",
        ("feed", "state"),
    ),
    "feed_received": (
        "HL7 v2 messages by endpoint: done, refused, failed, received (stored, processed later) or repeated.",
        ("feed", "state"),
    ),
    "received": ("Arrivals written to the journal, before their commit.", ("door", "state")),
    "deliveries": ("Attempts to deliver, by what became of them.", ("destination", "outcome")),
    "messages_unfit": ("Messages that do not keep to the standard or their profile.", ("institution", "level")),
    "over_quota": (
        "Messages beyond a member's quota: slowed, refused, or closed without an answer.",
        ("member", "quota", "outcome"),
    ),
    "event_channels": ("WebSockets that ended, by why; those open now are hub_event_channels_open.", ("kind", "why")),
    "channel_events": ("Events for WebSockets: sent, withheld from who may not see, or dropped.", ("kind", "outcome")),
    "websockets_stalled": ("WebSockets that were dropped because their peer did not read.", ()),
    "timers": ("Timers that fired.", ("kind", "outcome")),
    "log_events": ("Logged events.", ("event", "level")),
    "http_requests": ("HTTP requests.", ("area", "method", "status")),
    "objects_swept": ("Orphaned objects removed.", ()),
    "objects_damaged": ("Objects found damaged by the nightly re-reading.", ()),
    "object_reads": ("Objects opened, by where the copy was: spool, cache or s3.", ("tier",)),
    "packings": ("Objects looked at for lossless recompression: packed, or why not.", ("outcome",)),
    "packed_bytes_saved": ("Bytes of originals removed, less those of their packed forms.", ()),
    "pixel_asked": ("Pixel jobs asked for; those not yet in hub_pixel_jobs wait or run.", ("work",)),
    "pixel_jobs": ("Pixel jobs ended: done, refused, killed by a limit, busy or failed.", ("work", "outcome")),
    "uploads": ("Attempts to upload an object from the spool to S3.", ("outcome",)),
}
DURATIONS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "pixel_job": ("Time of a pixel job in its child process.", ("work",)),
    "pixel_wait": ("Time that pixel jobs waited for a free child process.", ()),
    "delivery": ("Time from sending to the partner's answer.", ("kind",)),
    "feed_commit": ("Time from the arrival of a message to the commit of what it says, by endpoint.", ("feed",)),
    "http_request": ("Time to answer an HTTP request.", ("area",)),
    "queue_to_ack": ("Time from queueing a delivery to its acknowledgement.", ("destination",)),
}
#: Seconds of what may have waited for its turn, or for a partner that was away: up to a day.
WAITED = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
_BUCKETS: Mapping[str, tuple[float, ...]] = {"feed_commit": WAITED, "queue_to_ack": WAITED}


class PrometheusSink:
    """The :class:`hub.metrics.Sink` that keeps Prometheus counters; unknown names are an error of the programmer."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._counters = {
            name: Counter(f"hub_{name}", text, labels, registry=registry) for name, (text, labels) in COUNTERS.items()
        }
        self._durations = {
            name: Histogram(f"hub_{name}_seconds", text, labels, buckets=_BUCKETS.get(name, BUCKETS), registry=registry)
            for name, (text, labels) in DURATIONS.items()
        }
        self._children: dict[tuple[Any, ...], Any] = {}

    def count(self, name: str, amount: float, labels: dict[str, str]) -> None:
        """Add *amount* to the counter *name*."""
        self._child(self._counters, name, labels).inc(amount)

    def observe(self, name: str, seconds: float, labels: dict[str, str]) -> None:
        """Record a duration."""
        self._child(self._durations, name, labels).observe(seconds)

    def _child(self, family: Mapping[str, Any], name: str, labels: dict[str, str]) -> Any:
        # Looked up by what the caller gave: the library checks and orders the labels anew each time, under a lock.
        key = (name, *labels.items())
        found = self._children.get(key)
        if found is None:
            one = family[name]
            found = self._children[key] = one.labels(**labels) if labels else one
        return found


_lock = threading.Lock()
_registry: CollectorRegistry | None = None


def install() -> CollectorRegistry:
    """Count what this process does from here on; returns its registry, the same one each time."""
    global _registry
    with _lock:
        if _registry is None:
            _registry = CollectorRegistry()
            metrics.set_sink(PrometheusSink(_registry))
        return _registry


class _Stored:
    """What the database knows, asked at the scrape."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterator[Any]:
        now = self._services.clock()
        info = GaugeMetricFamily("hub_version", "Version of the hub.", labels=["version"])
        info.add_metric([__version__], 1)
        yield info
        up = GaugeMetricFamily("hub_stores_up", "Whether the store answers.", labels=["store"])
        for name, store in (("database", self._services.database), ("objects", self._services.objects)):
            try:
                store.healthy()
            except HubError:
                up.add_metric([name], 0)
            else:
                up.add_metric([name], 1)
        yield up
        yield from self._uploads()
        yield self._certificates(now)
        try:
            destinations, alerts, waiting = self._services.database.read(
                lambda tx: (
                    list(tx.outbox.destinations()),
                    list(tx.alerts.all()),
                    tx.feeds.waiting(),
                )
            )
        except HubError:
            return
        depth = GaugeMetricFamily("hub_queue_depth", "Deliveries not yet acknowledged.", labels=["destination"])
        dead = GaugeMetricFamily("hub_queue_dead_letters", "Deliveries that were given up.", labels=["destination"])
        oldest = GaugeMetricFamily("hub_queue_oldest_seconds", "Age of the oldest delivery.", labels=["destination"])
        paused = GaugeMetricFamily("hub_queue_paused", "Whether the destination is paused.", labels=["destination"])
        circuits = GaugeMetricFamily(
            "hub_queue_circuit",
            "Whether the destination was reached last time (0), rests (1), or is tried with one lane (0.5).",
            labels=["destination"],
        )
        for one in destinations:
            labels = [one["destination"]]
            depth.add_metric(labels, one["depth"])
            dead.add_metric(labels, one["dead"])
            age = (now - one["oldest_at"]).total_seconds() if one["oldest_at"] is not None else 0.0
            oldest.add_metric(labels, max(0.0, age))
            paused.add_metric(labels, float(one["paused"]))
            circuits.add_metric(labels, CIRCUIT[circuit(one, now)])
        yield from (depth, dead, oldest, paused, circuits)
        opened = GaugeMetricFamily("hub_alert", "Open alerts, by key.", labels=["key"])
        for alert in alerts:
            opened.add_metric([alert["key"]], 1)
        yield opened
        pending = GaugeMetricFamily("hub_journal_waiting", "Arrivals stored and not yet processed.", labels=["door"])
        for door in (*V2_DOORS, *IMAGE_DOORS, "fhir"):
            pending.add_metric([door], sum(one.count for one in waiting if one.door == door))
        yield pending
        yield from self._feeds(backlogs(self._services.directory, waiting), now)

    def _feeds(self, found: Mapping[str, Backlog], now: datetime) -> Iterator[Any]:
        """What waits of each feed of HL7 v2; 0 for those that are up to date."""
        number = GaugeMetricFamily("hub_feed_waiting", "Messages stored and not yet processed.", labels=["feed"])
        age = GaugeMetricFamily("hub_feed_oldest_seconds", "Age of the oldest message that waits.", labels=["feed"])
        for point in self._services.directory.all_endpoints():
            if point.kind != "mllp" or feed_of(point) is None:
                continue
            one = found.get(point.id)
            number.add_metric([point.id], one.count if one is not None else 0)
            age.add_metric([point.id], max(0.0, (now - one.oldest_at).total_seconds()) if one is not None else 0.0)
        yield from (number, age)

    def _certificates(self, now: datetime) -> Any:
        """How long the certificates last: this node's files, and what members' endpoints show."""
        lasts = GaugeMetricFamily(
            "hub_certificate_seconds",
            "Seconds until the certificate ends, negative afterwards: of a file, or the first of those an endpoint shows.",
            labels=["of"],
        )
        for name, path in _tls.files_of(self._services.settings).items():
            # A file that cannot be read has an alert; it has no end to tell.
            with contextlib.suppress(HubError):
                lasts.add_metric([name], (_tls.end_of(path) - now).total_seconds())
        with contextlib.suppress(HubError):
            endpoints = [one.id for one in self._services.directory.all_endpoints()]
            shown = self._services.database.read(lambda tx: {one: presented(tx, one) for one in endpoints})
            for endpoint, found in shown.items():
                if found:
                    lasts.add_metric([endpoint], (found[0].ends - now).total_seconds())
        return lasts

    def _uploads(self) -> Iterator[Any]:
        """What waits on this node for its upload; nothing when objects are stored at once."""
        if not isinstance(self._services.objects, UploadingStore):
            return
        try:
            waiting = self._services.objects.waiting(max_age_s=WAITING_AGE_S)
        except HubError:
            return
        for name, text, value in (
            ("hub_uploads_waiting", "Objects on this node that S3 does not have yet.", waiting.count),
            ("hub_uploads_waiting_bytes", "Their bytes.", waiting.size),
            ("hub_uploads_oldest_seconds", "How long the oldest of them has waited.", waiting.oldest_s),
        ):
            yield GaugeMetricFamily(name, text, value=value)


def render(services: Services) -> bytes:
    """Return all metrics of the hub in Prometheus' text format."""
    stored = CollectorRegistry()
    stored.register(_Stored(services))
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        counted = CollectorRegistry()
        multiprocess.MultiProcessCollector(counted)  # type: ignore[no-untyped-call]
    else:
        counted = install()
    return generate_latest(counted) + generate_latest(stored)
