"""What waits for a partner is told of by its age, its depth and its dead letters, each by itself."""

from __future__ import annotations

from dataclasses import replace

from hub.boot import Services
from hub.ports import NewDelivery
from tests.adapters.worker.alerts.conftest import KN, Turn, told
from tests.support.hub import SetClock, register


def enqueue(services: Services, count: int) -> list[int]:
    """Put *count* deliveries for KN into the queue, each for another patient."""
    return [
        services.database.write(
            lambda tx, n=number: tx.outbox.enqueue(
                NewDelivery(destination="KN/mllp", lane=f"KN/mllp|{n}", kind="mllp", payload=b"m", owner="KN")
            )
        )
        for number in range(count)
    ]


def skip(services: Services, *ids: int) -> None:
    for one in ids:
        services.database.write(lambda tx, n=one: tx.outbox.skip(n, now=services.clock(), reason="test"))


def test_a_deep_queue_is_told_before_it_is_old_and_clears_when_half_of_it_is_gone(
    sqlite_services: Services, turn: Turn
) -> None:
    register(sqlite_services, replace(KN, settings={"alerts": "queue-depth=4"}))
    ids = enqueue(sqlite_services, 4)
    assert turn() == []
    ids += enqueue(sqlite_services, 1)
    assert turn() == ["depth|KN/mllp"]
    skip(sqlite_services, *ids[:2])
    assert turn() == ["depth|KN/mllp"], "three of four are not well under the limit"
    skip(sqlite_services, ids[2])
    assert turn() == []
    assert len(told(sqlite_services)) == 2


def test_the_age_of_one_member_has_its_own_limit(sqlite_services: Services, set_clock: SetClock, turn: Turn) -> None:
    register(sqlite_services, replace(KN, settings={"alerts": "queue-age-s=7200"}))
    enqueue(sqlite_services, 1)
    set_clock.forward(sqlite_services.settings.queue_alert_s * 2)
    assert turn() == []
    set_clock.forward(7200)
    assert turn() == ["queue|KN/mllp"]


def test_a_dead_letter_is_told_until_somebody_decides(
    sqlite_services: Services, set_clock: SetClock, turn: Turn
) -> None:
    register(sqlite_services, KN)
    [one] = enqueue(sqlite_services, 1)

    def refused() -> None:
        [(lane, epoch, delivery)] = sqlite_services.database.write(
            lambda tx: tx.outbox.lease("w", now=set_clock.now, lease_s=60, limit=9)
        )
        sqlite_services.database.write(
            lambda tx: tx.outbox.failed(lane, epoch, delivery.id, error="AR", next_at=None, now=set_clock.now)
        )

    refused()
    assert turn() == ["dead|KN/mllp"]
    assert turn() == ["dead|KN/mllp"]
    skip(sqlite_services, one)
    assert turn() == []
    assert len(told(sqlite_services)) == 2
