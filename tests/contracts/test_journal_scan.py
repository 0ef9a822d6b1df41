"""What every journal must do when entries are looked at one by one, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hub.ports import Look, NewEntry
from storage.sql import journal_scan
from storage.sql.database import SqlDatabase

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)


def append(database: SqlDatabase, **more: Any) -> int:
    body = more.get("body", b"")
    values: dict[str, Any] = {
        "door": "mllp",
        "institution": "KN",
        "peer": "10.0.0.1",
        "correlation_id": "c1",
        "message_type": "ADT^A01",
        "digest": "00",
        "size": len(body or b""),
        "received_at": NOW,
    }
    return database.write(lambda tx: tx.journal.append(NewEntry(**{**values, **more})))


def scan(database: SqlDatabase, look: Look, limit: int = 9, before: int | None = None, **criteria: str) -> Any:
    return database.read(lambda tx: tx.journal.scan(criteria, look, limit=limit, before_seq=before))


def numbers(database: SqlDatabase, look: Look, **criteria: str) -> list[int]:
    return [one.seq for one in scan(database, look, **criteria).entries]


@pytest.mark.parametrize("charset", ["utf-8", "gb18030", "big5", "utf-16-le", "utf-16-be"])
def test_words_are_found_in_the_character_set_they_came_in(database: SqlDatabase, charset: str) -> None:
    wanted = append(database, body="PID|||1||王小明".encode(charset))
    append(database, body="PID|||1||李小紅".encode(charset))

    assert numbers(database, Look(text="王小")) == [wanted]
    assert numbers(database, Look(text="趙")) == []


def test_bytes_that_like_and_quotes_would_trip_over_are_only_bytes(database: SqlDatabase) -> None:
    wanted = append(database, body=b"NTE|1||100% o'clock_\\T\\ \x00|")
    append(database, body=b"NTE|1||100x oxclockx")

    for text in ("100%", "o'clock_", "\\T\\", "\x00|"):
        assert numbers(database, Look(text=text)) == [wanted], text


def test_a_body_that_is_an_object_may_hold_any_words_and_an_image_holds_none(database: SqlDatabase) -> None:
    large = append(database, body=None, size=99_999)
    for door in ("dimse", "stow"):
        append(database, door=door, body=None)

    assert numbers(database, Look(text="王小明")) == [large]


def test_flags_are_whole_words_and_outcomes_parts(database: SqlDatabase) -> None:
    flagged = append(database, flags="charset-doubtful control-id-reuse", outcome="Patient 未找到 / not found")
    append(database, flags="control-id", outcome="ok")
    append(database)

    assert numbers(database, Look(flag="control-id-reuse")) == [flagged]
    assert numbers(database, Look(flag="charset")) == []
    assert numbers(database, Look(flag="%")) == []
    assert numbers(database, Look(outcome="NOT FOUND")) == numbers(database, Look(outcome="未找到")) == [flagged]
    assert numbers(database, Look(outcome="_")) == []


def test_the_time_of_processing_bounds_what_was_processed(database: SqlDatabase) -> None:
    waiting = append(database, state="received")
    done = append(database)
    entry = database.read(lambda tx: tx.journal.get(done))
    assert entry is not None
    finished = entry.finished_at
    assert finished is not None
    moment = timedelta(microseconds=1)

    assert numbers(database, Look(finished_since=finished)) == [done]
    assert numbers(database, Look(finished_since=finished + moment)) == []
    assert numbers(database, Look(finished_until=finished + moment)) == [done]
    assert numbers(database, Look(finished_until=finished)) == []
    assert waiting < done


def test_words_join_with_what_indexes_tell(database: SqlDatabase) -> None:
    body = "王小明".encode()
    wanted = append(database, body=body, visit="v1", received_at=NOW + timedelta(days=1))
    append(database, body=body, visit="v2")
    append(database, body=body, institution="QH", visit="v1")

    assert numbers(database, Look(text="王小明"), visit="v1", institution="KN") == [wanted]
    assert numbers(database, Look(text="王小明"), since=(NOW + timedelta(hours=1)).isoformat()) == [wanted]
    assert numbers(database, Look(text="王小明"), since=(NOW + timedelta(days=9)).isoformat()) == []


def test_a_scan_goes_on_where_the_one_before_it_stopped(database: SqlDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [append(database, body=b"needle" if number % 5 == 0 else b"hay") for number in range(20)][::5]
    monkeypatch.setattr(journal_scan, "_PAGE", 2)
    monkeypatch.setattr(journal_scan, "MOST_ROWS", 6)

    found, before, scans = [], None, 0
    while scans == 0 or before is not None:
        scanned = scan(database, Look(text="needle"), before=before)
        found += [one.seq for one in scanned.entries]
        before, scans = scanned.next, scans + 1

    assert found == wanted[::-1]
    assert scans == 4


def test_a_scan_ends_at_its_limit_and_at_its_bytes(database: SqlDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = (append(database, body=b"needle" * 10) for _ in range(3))

    limited = scan(database, Look(text="needle"), limit=1)
    monkeypatch.setattr(journal_scan, "_PAGE", 1)
    monkeypatch.setattr(journal_scan, "MOST_BYTES", 100)
    heavy = scan(database, Look(text="needle"))

    assert ([one.seq for one in limited.entries], limited.next) == ([third], third)
    assert ([one.seq for one in heavy.entries], heavy.next) == ([third, second], second)
    assert [one.seq for one in scan(database, Look(text="needle"), before=second).entries] == [first]
