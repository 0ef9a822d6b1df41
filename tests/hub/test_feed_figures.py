"""Figures of a feed: what came and what became of it, what waits, and how long it takes; by endpoints that are registered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from hub import feed_figures, metrics
from hub.boot import Services
from hub.ports import MemberEndpoint, NewDelivery
from tests.support.hub import SetClock, register

KN = MemberEndpoint(id="KN/mllp", member="KN", kind="mllp", sending_facility="KNYY", address="127.0.0.1:1")
STORED = MemberEndpoint(
    id="QH/mllp", member="QH", kind="mllp", sending_facility="QHYY", settings={"ack": "stored"}
)  # fmt: skip
NARROW = MemberEndpoint(
    id="KN/lis", member="KN", kind="mllp", sending_application="LIS", sending_facility="KNYY"
)  # fmt: skip


class Counts:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.counted: Counter[tuple[str, ...]] = Counter()
        self.observed: list[tuple[str, float, str]] = []

    def count(self, name: str, amount: float, labels: dict[str, str]) -> None:
        self.counted[name, *labels.values()] += int(amount)

    def observe(self, name: str, seconds: float, labels: dict[str, str]) -> None:
        self.observed.append((name, seconds, "|".join(labels.values())))

    def feeds(self) -> dict[tuple[str, ...], int]:
        return {key: number for key, number in self.counted.items() if key[0].startswith("feed_")}

    def commits(self) -> list[tuple[float, str]]:
        return [(seconds, feed) for name, seconds, feed in self.observed if name == "feed_commit"]


@pytest.fixture
def counts() -> Iterator[Counts]:
    sink = Counts()
    metrics.set_sink(sink)
    yield sink
    metrics.set_sink(None)


def message(number: int, *, facility: str = "KNYY", application: str = "HIS", pid: str = "P1") -> bytes:
    return (
        f"MSH|^~\\&|{application}|{facility}|YIXIE|HUB|20250611083000||ADT^A01|{number}|P|2.4\r"
        f"EVN|A01|20250611083000\rPID|1||{pid}||LI^SI||19800101|M\rPV1|1|I|||||||||||||||||V{number}\r"
    ).encode()


def broken(number: int) -> bytes:
    return f"MSH|^~\\&|HIS|KNYY|YIXIE|HUB|20250611083000||ZZZ^Z99|{number}|P|2.4\r".encode()


def test_a_feed_is_counted_by_what_became_of_its_messages_once_each(hub_services: Services, counts: Counts) -> None:
    register(hub_services, KN)
    for body in (message(1), message(2), message(2), broken(3)):
        hub_services.messages.receive(body, "10.0.0.1:1")
    assert counts.feeds() == {
        ("feed_received", "KN/mllp", "done"): 2,
        ("feed_received", "KN/mllp", "repeated"): 1,
        ("feed_received", "KN/mllp", "refused"): 1,
    }
    assert [feed for _, feed in counts.commits()] == ["KN/mllp"] * 2


def test_who_is_no_member_makes_no_label(sqlite_services: Services, counts: Counts) -> None:
    register(sqlite_services, KN)
    sqlite_services.messages.receive(message(1, facility="NOBODY"), "10.0.0.1:1")
    assert counts.feeds() == {}


def test_what_is_stored_first_counts_again_when_it_is_processed_and_its_time_is_from_its_arrival(
    sqlite_services: Services, counts: Counts, set_clock: SetClock
) -> None:
    register(sqlite_services, STORED)
    sqlite_services.messages.receive(message(1, facility="QHYY"), "10.0.0.1:1")
    assert counts.feeds() == {("feed_received", "QH/mllp", "received"): 1}
    assert counts.commits() == []
    set_clock.forward(90)
    sqlite_services.messages.process_pending(10)
    assert counts.feeds()["feed_processed", "QH/mllp", "done"] == 1
    ((seconds, feed),) = counts.commits()
    assert (seconds, feed) == (90.0, "QH/mllp")


def enqueue(services: Services, patient: str) -> int:
    new = NewDelivery(destination="KN/mllp", lane=f"KN/mllp|{patient}", kind="mllp", payload=b"m", owner="KN")
    return services.database.write(lambda tx: tx.outbox.enqueue(new))


def test_figures_of_a_feed_tell_what_came_what_waits_and_what_is_queued(
    hub_services: Services, set_clock: SetClock
) -> None:
    register(hub_services, KN, STORED)
    for body in (message(1), message(2), broken(3)):
        hub_services.messages.receive(body, "10.0.0.1:1")
    hub_services.messages.receive(message(4, facility="QHYY"), "10.0.0.1:1")
    for patient in ("a", "b"):
        enqueue(hub_services, patient)
    set_clock.forward(8)
    [(lane, epoch, delivery)] = hub_services.database.write(
        lambda tx: tx.outbox.lease("w", now=set_clock.now, lease_s=60, limit=1)
    )
    hub_services.database.write(
        lambda tx: tx.outbox.succeeded(
            lane, epoch, delivery.id, ack=b"AA", now=delivery.created_at + timedelta(seconds=3)
        )
    )
    set_clock.forward(2)

    found = feed_figures.traffic(hub_services, KN, last=10)
    assert {name: found[name] for name in ("received", "applied", "refused", "failed", "waiting")} == {
        "received": 3, "applied": 2, "refused": 1, "failed": 0, "waiting": 0,
    }  # fmt: skip
    assert set(found["commit_s"]) == {"p50", "p95", "p99"}
    assert (found["queued"], found["queued_dead"], found["acknowledged"]) == (1, 0, 1)
    assert found["acknowledge_s"] == {"p50": 3.0, "p95": 3.0, "p99": 3.0}

    other = feed_figures.traffic(hub_services, STORED, last=10)
    assert (other["waiting"], other["waiting_oldest_s"]) == (1, 10.0)
    assert (other["queued"], other["queued_oldest_s"], other["commit_s"]) == (0, 0.0, {})


def test_what_waits_belongs_to_the_endpoint_that_says_most_of_its_sender(sqlite_services: Services) -> None:
    register(sqlite_services, *(replace(one, settings={"ack": "stored"}) for one in (KN, NARROW)))
    for number, application in enumerate(("HIS", "LIS", "LIS")):
        sqlite_services.messages.receive(message(number, application=application), "10.0.0.1:1")
    waiting = sqlite_services.database.read(lambda tx: tx.feeds.waiting())
    found = feed_figures.backlogs(sqlite_services.directory, waiting)
    assert {name: one.count for name, one in found.items()} == {"KN/mllp": 1, "KN/lis": 2}


def test_percentiles_are_values_that_were_met() -> None:
    assert feed_figures.percentiles([float(n) for n in range(1, 101)]) == {"p50": 50.0, "p95": 95.0, "p99": 99.0}
    assert feed_figures.percentiles([2.0]) == {"p50": 2.0, "p95": 2.0, "p99": 2.0}
    assert feed_figures.percentiles([]) == {}
