"""What the metrics tell of event channels: how many are open, why they ended, and what became of their events."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY, CollectorRegistry

from adapters.dicomweb import event_channel
from adapters.http.websocket import GuardedWebSocket
from adapters.ops.metrics import PrometheusSink
from hub import metrics, workitem_channel
from hub.ports.channels import NewChannelEvent
from tests.adapters.dicomweb.test_event_channel import PATH, Hub, brief, hub

__all__ = ["hub"]


@pytest.fixture
def registry() -> Iterator[CollectorRegistry]:
    one = CollectorRegistry()
    metrics.set_sink(PrometheusSink(one))
    yield one
    metrics.set_sink(None)


def ended(registry: CollectorRegistry, why: str) -> float | None:
    return registry.get_sample_value("hub_event_channels_total", {"kind": "workitems", "why": why})


def events(registry: CollectorRegistry, outcome: str) -> float | None:
    return registry.get_sample_value("hub_channel_events_total", {"kind": "workitems", "outcome": outcome})


def opened() -> float:
    return REGISTRY.get_sample_value("hub_event_channels_open", {"kind": "workitems"}) or 0.0


def event(hub: Hub, number: int, size: int = 10) -> NewChannelEvent:
    return NewChannelEvent(
        institution="KN",
        ae_title="KN_PACS",
        owner="KN",
        task_id="t",
        patient_id="",
        item=f"1.{number}",
        payload=workitem_channel.payload(3, {"00741006": {"vr": "ST", "Value": ["x" * size]}}),
        correlation_id="",
        created_at=hub.services.clock(),
    )


def place_is_free(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Return once no channel of KN is held any more but the one that this opens: what ended before has been counted."""
    monkeypatch.setattr(event_channel, "CHANNELS_OF_MEMBER", 1)
    while (again := hub.dial(PATH, hub.token())).status != 101:
        again.close()


def test_channels_are_counted_while_open_and_by_why_they_ended(
    hub: Hub, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = opened()
    first = hub.opened()
    second = hub.opened()
    assert first.closed() == event_channel.TAKEN_OVER
    hub.services.database.write(lambda tx: workitem_channel.tell(tx, event(hub, 1)))
    assert brief(second.told())[0] == 3
    second.close()
    place_is_free(hub, monkeypatch)
    assert opened() == before + 1
    assert (ended(registry, "taken-over"), events(registry, "sent")) == (1, 1)
    assert (ended(registry, "left") or 0) + (ended(registry, "lost") or 0) == 1


def test_events_that_are_too_many_are_counted_as_dropped(
    hub: Hub, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workitem_channel, "KEPT", 2)
    for number in range(5):
        hub.services.database.write(lambda tx, number=number: workitem_channel.tell(tx, event(hub, number)))
    assert events(registry, "dropped") == 3


def test_a_peer_that_does_not_read_is_counted(
    hub: Hub, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GuardedWebSocket, "stall_s", 0.2)
    monkeypatch.setattr(GuardedWebSocket, "linger_s", 0.1)
    for number in range(60):
        hub.services.database.write(lambda tx, number=number: workitem_channel.tell(tx, event(hub, number, 300_000)))
    assert hub.dial(PATH, hub.token(), receive_buffer=4096).status == 101
    place_is_free(hub, monkeypatch)
    assert registry.get_sample_value("hub_websockets_stalled_total") == 1
