"""What every journal must do, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from fhir_mappings.dicom.instance import InstanceHeader
from hub.errors import Category, HubError
from hub.ports import NewEntry, ObjectRef, Tx
from storage.sql.database import SqlDatabase

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)


def entry(**more: Any) -> NewEntry:
    values: dict[str, Any] = {
        "door": "mllp",
        "institution": "KN",
        "peer": "10.0.0.1",
        "correlation_id": "c1",
        "message_type": "ADT^A01",
        "digest": "00",
        "size": 3,
        "received_at": NOW,
    }
    return NewEntry(**{**values, **more})


def append(database: SqlDatabase, **more: Any) -> int:
    return database.write(lambda tx: tx.journal.append(entry(**more)))


def test_an_entry_reads_back_whole(database: SqlDatabase) -> None:
    given = entry(
        body=b"MSH\xd6\xa3\x00",
        sending_application="HIS",
        sending_facility="KNYY",
        control_id="1",
        version="2.4",
        charset="gb18030",
        state="done",
        outcome="ok",
        ack=b"\xff",
        flags="dup",
        patient_id="p1",
        placer="a",
        filler="b",
        accession="c",
        visit="d",
    )
    seq = database.write(lambda tx: tx.journal.append(given))

    found = database.read(lambda tx: tx.journal.get(seq))

    assert found is not None
    assert {name: getattr(found, name) for name in NewEntry.__dataclass_fields__} == {
        name: getattr(given, name) for name in NewEntry.__dataclass_fields__
    }
    assert found.finished_at is not None


def test_numbers_grow_in_the_order_of_arrival(database: SqlDatabase) -> None:
    numbers = [append(database, control_id=str(number)) for number in range(3)]

    assert numbers == sorted(set(numbers))
    assert database.read(lambda tx: tx.journal.get(numbers[-1] + 1)) is None


def test_a_message_is_found_by_sender_and_control_id_only(database: SqlDatabase) -> None:
    sender = {"sending_application": "HIS", "sending_facility": "KNYY", "control_id": "7"}
    first = append(database, **sender)
    append(database, **{**sender, "institution": "QH"})
    append(database, **{**sender, "control_id": "8"})
    second = append(database, **sender)

    found = database.read(lambda tx: tx.journal.find_message(institution="KN", **sender))

    assert [one.seq for one in found] == [first, second]


def test_what_is_received_is_pending_until_it_is_finished(database: SqlDatabase) -> None:
    first, second = append(database, state="received"), append(database, state="received")
    append(database, state="received", door="http")
    append(database)

    before = database.read(lambda tx: tx.journal.pending(door="mllp", limit=9))
    database.write(lambda tx: tx.journal.finish(first, state="done", outcome="x", ack=b"AA", patient_id="p1"))
    after = database.read(lambda tx: tx.journal.pending(door="mllp", limit=9))
    done = database.read(lambda tx: tx.journal.get(first))

    assert [one.seq for one in before] == [first, second]
    assert [one.finished_at for one in before] == [None, None]
    assert [one.seq for one in after] == [second]
    assert (done.state, done.outcome, done.ack, done.patient_id) == ("done", "x", b"AA", "p1")
    assert done.finished_at is not None


def test_finishing_keeps_the_acknowledgement_and_patient_that_are_not_given(database: SqlDatabase) -> None:
    seq = append(database, state="received", ack=b"CA", patient_id="p1")

    database.write(lambda tx: tx.journal.finish(seq, state="failed"))
    one = database.read(lambda tx: tx.journal.get(seq))

    assert (one.state, one.ack, one.patient_id) == ("failed", b"CA", "p1")


def test_a_failed_entry_can_wait_once_more(database: SqlDatabase) -> None:
    seq = append(database, state="failed")

    database.write(lambda tx: tx.journal.finish(seq, state="received"))

    assert [
        (one.seq, one.finished_at) for one in database.read(lambda tx: tx.journal.pending(door="mllp", limit=9))
    ] == [(seq, None)]


def test_finishing_what_does_not_exist_is_not_found(database: SqlDatabase) -> None:
    with pytest.raises(HubError) as caught:
        database.write(lambda tx: tx.journal.finish(12345, state="done"))

    assert caught.value.category is Category.NOT_FOUND


@pytest.mark.parametrize("column", ["patient_id", "placer", "filler", "accession", "visit", "control_id", "digest"])
def test_entries_are_found_by_each_key(database: SqlDatabase, column: str) -> None:
    wanted = append(database, **{column: "k1"})
    append(database, **{column: "k2"})
    append(database)

    found = database.read(lambda tx: tx.journal.search({column: "k1"}, limit=9))

    assert [one.seq for one in found] == [wanted]


def test_search_joins_criteria_and_pages_backwards(database: SqlDatabase) -> None:
    numbers = [append(database, received_at=NOW + timedelta(hours=hour), state="failed") for hour in range(5)]
    append(database, received_at=NOW, institution="QH", state="failed")
    criteria = {
        "institution": "KN",
        "state": "failed",
        "since": (NOW + timedelta(hours=1)).isoformat(),
        "until": (NOW + timedelta(hours=4)).isoformat(),
    }

    first = database.read(lambda tx: tx.journal.search(criteria, limit=2))
    second = database.read(lambda tx: tx.journal.search(criteria, limit=2, before_seq=first[-1].seq))

    assert [one.seq for one in (*first, *second)] == [numbers[3], numbers[2], numbers[1]]


def test_entries_whose_times_do_not_follow_their_numbers_are_found_by_time(database: SqlDatabase) -> None:
    """Nodes write with clocks of their own, and a message that took long to arrive is numbered after a later one."""
    minutes = (10, 0, 50, 20, 40, 70, 30, 60)
    numbers = {minute: append(database, received_at=NOW + timedelta(minutes=minute)) for minute in minutes}

    def found(limit: int = 9, **moments: int) -> list[int]:
        times = {name: (NOW + timedelta(minutes=minute)).isoformat() for name, minute in moments.items()}
        return [one.seq for one in database.read(lambda tx: tx.journal.search(times, limit=limit))]

    def of(low: int, high: int) -> list[int]:
        return sorted((number for minute, number in numbers.items() if low <= minute < high), reverse=True)

    assert found(since=30) == of(30, 99)
    assert found(until=30) == of(0, 30)
    assert found(since=20, until=60) == of(20, 60)
    assert found(since=20, until=60, limit=2) == of(20, 60)[:2]
    assert found(since=71) == found(until=0) == found(since=31, until=40) == []


def test_a_time_joins_with_keys_and_with_values_that_many_share(database: SqlDatabase) -> None:
    for hour in range(4):
        append(database, received_at=NOW + timedelta(hours=hour), control_id=str(hour % 2), door="fhir")
    times = {"since": (NOW + timedelta(hours=1)).isoformat(), "until": (NOW + timedelta(hours=3)).isoformat()}

    def found(**criteria: str) -> list[str]:
        entries = database.read(lambda tx: tx.journal.search({**criteria, **times}, limit=9))
        return [one.control_id for one in entries]

    assert found(door="fhir") == ["0", "1"]
    assert found(control_id="1", institution="KN") == ["1"]
    assert found(state="done", door="mllp") == []


def test_a_digest_finds_a_new_image_and_everything_else_that_has_those_bytes(database: SqlDatabase) -> None:
    digest = "ab" * 32
    header = InstanceHeader(
        StudyInstanceUID="1.2",
        SeriesInstanceUID="1.2.1",
        SOPInstanceUID="1.2.1.1",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.2",
        TransferSyntaxUID="1.2.840.10008.1.2.1",
    )
    image = {"door": "dimse", "control_id": header.SOPInstanceUID, "digest": digest}

    def receive(tx: Any) -> list[int]:
        tx.imaging.add("KN", header, ObjectRef(digest=digest, size=3), NOW, "p1", "c1", resource_id="s1")
        tx.journal.append(entry(**{**image, "digest": "00"}, outcome="conflict"))
        return [
            tx.journal.append(entry(**image, outcome="new")),
            tx.journal.append(entry(**image, outcome="duplicate")),
            tx.journal.append(entry(digest=digest, control_id="7")),
        ]

    wanted = database.write(receive)

    def found(**criteria: str) -> list[int]:
        return [one.seq for one in database.read(lambda tx: tx.journal.search(criteria, limit=9))]

    assert found(digest=digest) == found(digest=digest, institution="KN") == wanted[::-1]
    assert found(digest=digest, institution="QH") == []
    assert found(digest=digest, control_id="7") == [wanted[2]]
    assert found(digest="cd" * 32) == []


def test_an_empty_key_finds_what_has_none(database: SqlDatabase) -> None:
    append(database, patient_id="p1")
    without = append(database)

    assert [one.seq for one in database.read(lambda tx: tx.journal.search({"patient_id": ""}, limit=9))] == [without]


def test_an_unknown_criterion_is_refused(database: SqlDatabase) -> None:
    with pytest.raises(HubError) as caught:
        database.read(lambda tx: tx.journal.search({"body": "x"}, limit=1))

    assert caught.value.category is Category.INCORRECT


def test_one_correlation_id_is_listed_oldest_first(database: SqlDatabase) -> None:
    numbers = [append(database, correlation_id="way") for _ in range(3)]
    append(database)

    assert [one.seq for one in database.read(lambda tx: tx.journal.by_correlation("way"))] == numbers


def test_who_has_messages_waiting_is_known_and_each_senders_come_oldest_first(database: SqlDatabase) -> None:
    first = append(database, state="received", institution="QH")
    second = append(database, state="received", institution="KN")
    third = append(database, state="received", institution="QH", door="hl7-http")
    append(database, state="received", institution="QH", door="fhir")
    append(database, state="done", institution="YL")

    def read(tx: Tx) -> tuple[list[str], list[int], list[int], list[int]]:
        doors = ("mllp", "hl7-http")
        return (
            list(tx.journal.senders_waiting()),
            [one.seq for one in tx.journal.pending_from("QH", doors=doors, limit=9)],
            [one.seq for one in tx.journal.pending_from("QH", doors=doors, limit=1)],
            [one.seq for one in tx.journal.pending_from("KN", doors=doors, limit=9)],
        )

    assert database.read(read) == (["KN", "QH"], [first, third], [first], [second])


def test_the_bytes_that_an_institution_sent_since_a_moment_are_summed(database: SqlDatabase) -> None:
    append(database, size=5, received_at=NOW - timedelta(hours=3))
    append(database, size=7, received_at=NOW)
    append(database, size=13, institution="QH")
    append(database, size=11, received_at=NOW + timedelta(hours=2))

    def of(institution: str, since: datetime) -> int:
        return database.read(lambda tx: tx.journal.received_bytes(institution, since=since))

    assert (of("KN", NOW), of("KN", NOW - timedelta(days=1)), of("QH", NOW), of("YL", NOW)) == (18, 23, 13, 0)
    assert of("KN", NOW + timedelta(days=1)) == 0


def test_what_failed_tells_its_flags_once_each_without_its_bytes(database: SqlDatabase) -> None:
    first, second = (append(database, state="failed", flags="stored key:a", body=b"MSH") for _ in range(2))
    append(database, state="failed", flags="stored key:b")
    append(database, state="received", flags="stored key:c")
    append(database, state="done", flags="stored key:a")
    asked: list[str] = []

    def read(tx: Tx) -> tuple[set[str], list[int], list[int]]:
        engine = tx.connection.engine  # type: ignore[attr-defined]
        listener = ("before_cursor_execute", lambda *given: asked.append(given[2]))
        sa.event.listen(engine, *listener)
        try:
            flags = set(tx.journal.failed_flags())
            return flags, list(tx.journal.failed_with(["stored key:a"])), list(tx.journal.failed_with([]))
        finally:
            sa.event.remove(engine, *listener)

    assert database.read(read) == ({"stored key:a", "stored key:b"}, [first, second], [])
    assert asked
    assert not any("body" in statement for statement in asked)
