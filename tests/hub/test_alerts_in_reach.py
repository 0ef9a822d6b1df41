"""Who sees which alerts: the operator all, a member's administrator those of its own endpoints."""

from __future__ import annotations

from hub.actor import Actor
from hub.boot import Services
from hub.operations import Operations
from tests.support.hub import SetClock

KEYS = ("queue|KN/mllp", "idle|KN/mllp", "errors|QH/mllp", "disk", "certificate|tls-certificate")


def test_an_administrator_sees_what_is_wrong_with_its_own_endpoints(
    sqlite_services: Services, set_clock: SetClock
) -> None:
    for key in KEYS:
        sqlite_services.database.write(lambda tx, k=key: tx.alerts.open(k, detail="x", now=set_clock.now))

    def seen(institution: str, role: str) -> set[str]:
        actor = Actor(institution=institution, roles=frozenset({role}))
        return {one["key"] for one in Operations(sqlite_services).queues(actor)["alerts"]}

    assert seen("YY", "operator") == set(KEYS)
    assert seen("KN", "admin") == {"queue|KN/mllp", "idle|KN/mllp"}
    assert seen("QM", "admin") == set()
