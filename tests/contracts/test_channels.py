"""What the store of events that wait for a WebSocket must do, on both databases."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from hub.ports.channels import ChannelEvent, NewChannelEvent
from storage.sql.database import SqlDatabase

NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)


def event(item: str, *, institution: str = "KN", ae_title: str = "KN_PACS") -> NewChannelEvent:
    return NewChannelEvent(
        institution=institution,
        ae_title=ae_title,
        owner="KN",
        task_id=f"task {item}",
        patient_id="p",
        item=item,
        payload='{"说明":"一半"}'.encode(),
        correlation_id="c",
        created_at=NOW,
    )


def tell(database: SqlDatabase, *events: NewChannelEvent, keep: int = 100) -> list[int]:
    return [database.write(lambda tx, one=one: tx.channels.tell(one, keep=keep)) for one in events]  # type: ignore[misc]


def waiting(database: SqlDatabase, ae_title: str = "KN_PACS", limit: int = 100) -> Sequence[ChannelEvent]:
    return database.read(lambda tx: tx.channels.waiting("KN", ae_title, limit=limit))


def test_what_waits_for_an_ae_comes_in_order_and_whole_until_it_is_removed(database: SqlDatabase) -> None:
    tell(database, event("1"), event("2"), event("3"), event("9", ae_title="KN_CT"), event("8", institution="QH"))
    found = waiting(database)
    assert [one.item for one in found] == ["1", "2", "3"]
    assert (found[0].payload, found[0].created_at, found[0].task_id) == ('{"说明":"一半"}'.encode(), NOW, "task 1")
    assert [one.item for one in waiting(database, limit=2)] == ["1", "2"]
    for _ in range(2):
        database.write(lambda tx: tx.channels.remove([found[0].id, found[1].id]))
    assert [one.item for one in waiting(database)] == ["3"]
    assert [one.item for one in waiting(database, "KN_CT")] == ["9"]


def test_the_oldest_go_when_too_many_wait_for_one_ae(database: SqlDatabase) -> None:
    tell(database, event("9", ae_title="KN_CT"))
    assert tell(database, *(event(str(number)) for number in range(5)), keep=3) == [0, 0, 0, 1, 1]
    assert [one.item for one in waiting(database)] == ["2", "3", "4"]
    assert [one.item for one in waiting(database, "KN_CT")] == ["9"]
