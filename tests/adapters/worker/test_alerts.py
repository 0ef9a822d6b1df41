"""An alert is told once when it starts and once when it clears."""

from __future__ import annotations

import threading
from dataclasses import replace

from structlog.testing import capture_logs

from adapters.ops import metrics
from adapters.worker.alerts import AlertLoop
from fhir_mappings.json import loads
from hub.access import UNRESTRICTED
from hub.boot import Services
from hub.ports import MemberEndpoint, NewDelivery, Uploaded, Waiting
from tests.support.hub import SetClock, register

KN = MemberEndpoint(id="KN/mllp", member="KN", kind="mllp", address="127.0.0.1:1")


def communications(services: Services) -> list[dict[str, object]]:
    found = services.database.read(lambda tx: tx.records.history("Communication", None, UNRESTRICTED, count=50))
    return sorted((loads(one.body) for one in found), key=lambda one: str(one["sent"]))


def test_an_old_delivery_alerts_once_and_clears_once(hub_services: Services, set_clock: SetClock) -> None:
    register(hub_services, KN)
    delivery = NewDelivery(destination="KN/mllp", lane="KN/mllp|p", kind="mllp", payload=b"m", owner="KN")
    one = hub_services.database.write(lambda tx: tx.outbox.enqueue(delivery))
    loop = AlertLoop(hub_services)
    loop.turn()
    assert communications(hub_services) == []
    set_clock.forward(hub_services.settings.queue_alert_s + 1)
    loop.turn()
    set_clock.forward(60)
    loop.turn()
    [told] = communications(hub_services)
    assert told["recipient"] == [{"reference": "Organization/org-yy"}]
    assert [alert["key"] for alert in hub_services.database.read(lambda tx: tx.alerts.all())] == ["queue|KN/mllp"]
    hub_services.database.write(lambda tx: tx.outbox.skip(one, now=hub_services.clock(), reason="test"))
    loop.turn()
    loop.turn()
    first, cleared = communications(hub_services)
    assert cleared["inResponseTo"] == [{"reference": f"Communication/{first['id']}"}]
    assert hub_services.database.read(lambda tx: tx.alerts.all()) == []


def test_a_second_alert_of_the_same_queue_is_a_new_message(sqlite_services: Services, set_clock: SetClock) -> None:
    register(sqlite_services, KN)
    loop = AlertLoop(sqlite_services)
    for _ in range(2):
        delivery = NewDelivery(destination="KN/mllp", lane="KN/mllp|p", kind="mllp", payload=b"m", owner="KN")
        one = sqlite_services.database.write(lambda tx, d=delivery: tx.outbox.enqueue(d))
        set_clock.forward(sqlite_services.settings.queue_alert_s + 1)
        loop.turn()
        sqlite_services.database.write(lambda tx, n=one: tx.outbox.skip(n, now=sqlite_services.clock(), reason="t"))
        set_clock.forward(1)
        loop.turn()
    assert len(communications(sqlite_services)) == 4


def test_an_alert_is_in_the_log_and_in_the_metrics_until_it_clears(
    sqlite_services: Services, set_clock: SetClock
) -> None:
    register(sqlite_services, KN)
    delivery = NewDelivery(destination="KN/mllp", lane="KN/mllp|p", kind="mllp", payload=b"m", owner="KN")
    one = sqlite_services.database.write(lambda tx: tx.outbox.enqueue(delivery))
    set_clock.forward(sqlite_services.settings.queue_alert_s + 1)
    loop = AlertLoop(sqlite_services)
    opened = 'hub_alert{key="queue|KN/mllp"} 1.0'

    with capture_logs() as logged:
        loop.turn()
        during = metrics.render(sqlite_services).decode()
        loop.turn()
        sqlite_services.database.write(lambda tx: tx.outbox.skip(one, now=sqlite_services.clock(), reason="test"))
        loop.turn()
        after = metrics.render(sqlite_services).decode()

    told = [(line["event"], line["log_level"], line["key"]) for line in logged if line["event"].startswith("alert_")]
    assert told == [
        ("alert_started", "error", "queue|KN/mllp"),
        ("alert_cleared", "warning", "queue|KN/mllp"),
    ]
    assert opened in during.splitlines()
    assert opened not in after.splitlines()


class Uploading:
    """A store behind which S3 is away; only what the alert asks."""

    oldest_s = 0.0

    def waiting(self, *, max_age_s: float = 0.0) -> Waiting:
        return Waiting(count=1, size=1, oldest_s=self.oldest_s)

    def upload(self, stop: threading.Event) -> Uploaded:
        return Uploaded()

    def reachable(self) -> None: ...


def test_an_object_that_waits_too_long_for_s3_alerts_once_and_clears_once(sqlite_services: Services) -> None:
    register(sqlite_services, KN)
    store = Uploading()
    services = replace(sqlite_services, objects=store)  # type: ignore[arg-type]
    loop = AlertLoop(services)
    loop.turn()
    assert communications(services) == []
    store.oldest_s = services.settings.objects_upload_alert_s + 1
    loop.turn()
    loop.turn()
    [told] = communications(services)
    assert "S3" in str(told["payload"])
    # Another node, on which nothing waits, leaves the alert of this one alone.
    elsewhere = services.settings.model_copy(update={"node_name": "other", "database_url": "postgresql://x/y"})
    AlertLoop(replace(sqlite_services, settings=elsewhere)).turn()
    assert [alert["key"] for alert in services.database.read(lambda tx: tx.alerts.all())] == ["uploads|objects"]
    store.oldest_s = 0.0
    loop.turn()
    assert services.database.read(lambda tx: tx.alerts.all()) == []
    assert len(communications(services)) == 2
