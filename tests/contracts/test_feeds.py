"""What the journal must tell of one feed, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hub.feeds import feed_of
from hub.ports import MemberEndpoint, NewEntry
from hub.ports.feeds import Feed
from storage.sql.database import SqlDatabase

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
FEED = Feed(institution="KN", doors=("mllp", "hl7-http"), sending_facility="KNYY")


def append(database: SqlDatabase, **more: Any) -> int:
    values: dict[str, Any] = {
        "door": "mllp",
        "institution": "KN",
        "peer": "10.0.0.1",
        "correlation_id": "c1",
        "message_type": "ADT^A01",
        "digest": "00",
        "size": 3,
        "sending_application": "HIS",
        "sending_facility": "KNYY",
        "received_at": NOW,
        **more,
    }
    return database.write(lambda tx: tx.journal.append(NewEntry(**values)))


def test_the_last_of_a_feed_are_told_newest_first_and_what_became_of_them(database: SqlDatabase) -> None:
    append(database)
    refused = append(database, state="refused", outcome="no PID", door="hl7-http")
    failed = append(database, state="failed", received_at=NOW + timedelta(seconds=1))

    found = database.read(lambda tx: tx.feeds.recent(FEED, limit=2))

    assert [(one.seq, one.state, one.outcome) for one in found] == [
        (failed, "failed", ""),
        (refused, "refused", "no PID"),
    ]
    assert found[0].received_at == NOW + timedelta(seconds=1)


def test_what_waits_is_told_by_door_and_sender_and_since_when(database: SqlDatabase) -> None:
    append(database)
    append(database, state="refused")
    later = append(database, state="received", received_at=NOW + timedelta(seconds=5))
    append(database, state="received")
    append(database, state="received", sending_application="LIS")
    found = {(one.door, one.sending_application): one for one in database.read(lambda tx: tx.feeds.waiting())}
    assert {key: (one.count, one.oldest_at) for key, one in found.items()} == {
        ("mllp", "HIS"): (2, NOW),
        ("mllp", "LIS"): (1, NOW),
    }
    database.write(lambda tx: tx.journal.finish(later, state="done"))
    assert sum(one.count for one in database.read(lambda tx: tx.feeds.waiting())) == 2


def test_an_arrival_that_is_done_tells_when(database: SqlDatabase) -> None:
    append(database, state="received")
    append(database)
    done, waits = database.read(lambda tx: tx.feeds.recent(FEED, limit=2))
    assert done.finished_at is not None
    assert waits.finished_at is None


@pytest.mark.parametrize(
    "other",
    [{"institution": "YL"}, {"sending_facility": "KNYY2"}, {"sending_facility": ""}, {"door": "fhir"}],
    ids=lambda other: next(iter(other)),
)
def test_what_another_sends_is_no_part_of_a_feed(database: SqlDatabase, other: dict[str, str]) -> None:
    append(database, **other)

    assert database.read(lambda tx: tx.feeds.recent(FEED, limit=9)) == []
    assert not database.read(lambda tx: tx.feeds.any_between(FEED, None, NOW + timedelta(days=1)))


def test_a_span_has_its_first_moment_and_not_its_last(database: SqlDatabase) -> None:
    append(database, institution="YL", received_at=NOW - timedelta(hours=3))
    append(database)
    append(database, institution="YL", received_at=NOW + timedelta(hours=3))

    def between(start: float, end: float) -> bool:
        since, until = NOW + timedelta(seconds=start), NOW + timedelta(seconds=end)
        return database.read(lambda tx: tx.feeds.any_between(FEED, since, until))

    assert between(0, 1)
    assert between(-5, 5)
    assert not between(-5, 0)
    assert not between(1, 5)
    assert not between(100_000, 200_000)
    assert database.read(lambda tx: tx.feeds.any_between(FEED, None, NOW + timedelta(seconds=1)))
    assert not database.read(lambda tx: tx.feeds.any_between(FEED, None, NOW))


def test_a_feed_is_told_by_the_names_that_its_endpoint_writes() -> None:
    def feed(**more: Any) -> Feed | None:
        return feed_of(MemberEndpoint(**{"id": "KN/x", "member": "KN", "kind": "mllp", **more}))

    assert feed() is None, "an endpoint that is only sent to"
    v2 = feed(sending_facility="KNYY")
    assert v2 is not None
    assert v2.sending_facility == "KNYY"
    images = feed(kind="dicom", ae_title="KN_PACS")
    assert images is not None
    assert (images.doors, images.sending_application) == (("dimse",), "KN_PACS")
