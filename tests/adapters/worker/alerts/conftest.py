"""Alerts of a hub whose clock moves only when told to."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from adapters.worker.alerts import AlertLoop
from fhir_mappings.json import loads
from hub.access import UNRESTRICTED
from hub.boot import Services
from hub.ports import MemberEndpoint, NewEntry

KN = MemberEndpoint(id="KN/mllp", member="KN", kind="mllp", address="127.0.0.1:1", sending_facility="KNYY")

Turn = Callable[[], list[str]]


@pytest.fixture
def turn(sqlite_services: Services) -> Turn:
    """Let the loop look once, and return the keys of the alerts that are open then."""
    loop = AlertLoop(sqlite_services)

    def one() -> list[str]:
        loop.turn()
        return sorted(alert["key"] for alert in sqlite_services.database.read(lambda tx: tx.alerts.all()))

    return one


def told(services: Services) -> list[str]:
    """Return the texts of all messages to the operator."""
    found = services.database.read(lambda tx: tx.records.history("Communication", None, UNRESTRICTED, count=200))
    return [loads(one.body)["payload"][0]["contentString"] for one in found]


def receive(services: Services, at: datetime, *, state: str = "done", outcome: str = "", **more: Any) -> None:
    """Write down that KN sent a message at that time."""
    values: dict[str, Any] = {
        "door": "mllp",
        "institution": "KN",
        "peer": "10.0.0.1",
        "correlation_id": "c",
        "message_type": "ADT^A01",
        "digest": "00",
        "size": 1,
        "sending_facility": "KNYY",
        **more,
    }
    entry = NewEntry(received_at=at, state=state, outcome=outcome, **values)
    services.database.write(lambda tx: tx.journal.append(entry))
