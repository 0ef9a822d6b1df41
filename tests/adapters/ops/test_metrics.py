"""Metrics: what processes counted and what the database knows, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from adapters import _tls
from adapters.ops import metrics as ops
from hub import metrics
from hub.boot import Services
from hub.certificates import Certificate, Line
from hub.clock import utc_now
from hub.ports import MemberEndpoint, NewDelivery, NewEntry
from tests.support.certificates import Authority
from tests.support.hub import SetClock, register


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(ops, "_registry", None)
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    yield
    metrics.set_sink(None)


def value(services: Services, line: str) -> float:
    """Return the value of the sample that starts with *line*."""
    [found] = [one for one in ops.render(services).decode().splitlines() if one.startswith(line + " ")]
    return float(found.rpartition(" ")[2])


def test_an_arrival_is_counted_by_door_and_state(sqlite_services: Services) -> None:
    ops.install()
    entry = NewEntry(
        door="mllp",
        institution="KN",
        peer="",
        correlation_id="c",
        message_type="ADT^A01",
        digest="0" * 64,
        size=1,
        received_at=utc_now(),
        body=b"x",
    )
    sqlite_services.database.write(lambda tx: tx.journal.append(entry))
    assert value(sqlite_services, 'hub_received_total{door="mllp",state="done"}') == 1


def test_a_feed_shows_what_waits_and_how_long_its_messages_took(sqlite_services: Services, set_clock: SetClock) -> None:
    ops.install()
    stored = MemberEndpoint(id="KN/mllp", member="KN", kind="mllp", sending_facility="KNYY", settings={"ack": "stored"})
    register(sqlite_services, stored, MemberEndpoint(id="QH/mllp", member="QH", kind="mllp", sending_facility="QHYY"))
    for facility in ("KNYY", "QHYY"):
        body = f"MSH|^~\\&|HIS|{facility}|YIXIE|HUB|20250611083000||ADT^A01|1|P|2.4\rEVN|A01|20250611083000\rPID|1||P1||LI^SI||19800101|M\rPV1|1|I|||||||||||||||||V1\r"
        sqlite_services.messages.receive(body.encode(), "10.0.0.1:1")
    set_clock.forward(42)
    assert value(sqlite_services, 'hub_feed_received_total{feed="KN/mllp",state="received"}') == 1
    assert value(sqlite_services, 'hub_feed_waiting{feed="KN/mllp"}') == 1
    assert value(sqlite_services, 'hub_feed_oldest_seconds{feed="KN/mllp"}') == 42
    assert value(sqlite_services, 'hub_feed_waiting{feed="QH/mllp"}') == 0
    assert value(sqlite_services, 'hub_feed_oldest_seconds{feed="QH/mllp"}') == 0
    assert value(sqlite_services, 'hub_journal_waiting{door="mllp"}') == 1
    assert value(sqlite_services, 'hub_feed_commit_seconds_count{feed="QH/mllp"}') == 1
    sqlite_services.messages.process_pending(10)
    assert value(sqlite_services, 'hub_feed_waiting{feed="KN/mllp"}') == 0
    assert value(sqlite_services, 'hub_feed_processed_total{feed="KN/mllp",state="done"}') == 1
    assert value(sqlite_services, 'hub_feed_commit_seconds_bucket{feed="KN/mllp",le="30.0"}') == 0
    assert value(sqlite_services, 'hub_feed_commit_seconds_bucket{feed="KN/mllp",le="60.0"}') == 1


def test_a_queue_shows_its_depth_and_the_age_of_its_oldest(sqlite_services: Services, set_clock: SetClock) -> None:
    register(sqlite_services, MemberEndpoint(id="KN/mllp", member="KN", kind="mllp", address="h:1"))
    delivery = NewDelivery(destination="KN/mllp", lane="KN/mllp|p", kind="mllp", payload=b"m", owner="KN")
    sqlite_services.database.write(lambda tx: tx.outbox.enqueue(delivery))
    set_clock.forward(42)
    assert value(sqlite_services, 'hub_queue_depth{destination="KN/mllp"}') == 1
    assert value(sqlite_services, 'hub_queue_oldest_seconds{destination="KN/mllp"}') == 42


def test_a_name_that_was_not_declared_is_an_error() -> None:
    sink = ops.PrometheusSink(CollectorRegistry())
    with pytest.raises(KeyError):
        sink.count("nonsense", 1, {})


def test_nothing_is_counted_until_a_process_wants_to() -> None:
    metrics.count("nonsense")
    metrics.observe("nonsense", 1.0)


def test_the_ends_of_certificates_are_told_in_seconds(
    sqlite_services: Services, set_clock: SetClock, tmp_path: Path
) -> None:
    certificate, _, _ = Authority(tmp_path).issue("hub.example")
    settings = sqlite_services.settings.model_copy(update={"tls_certificate": certificate})
    services = replace(sqlite_services, settings=settings)
    register(services, MemberEndpoint(id="KN/dicom", member="KN", kind="dicom", ae_title="KN_PACS"))
    shown = Certificate("ab" * 32, frozenset(), set_clock.now + timedelta(hours=2))
    services.presented_certificates.note("KN/dicom", Line(True, shown))
    set_clock.forward(3 * 3600)
    assert value(services, 'hub_certificate_seconds{of="KN/dicom"}') == -3600
    ends = _tls.end_of(certificate)
    assert value(services, 'hub_certificate_seconds{of="certificate"}') == (ends - set_clock.now).total_seconds()
