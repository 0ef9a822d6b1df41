"""What every journal must do when entries have run out of their time, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from hub.ports import NewDelivery, NewEntry
from storage.sql.database import SqlDatabase

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
DOORS = ("mllp", "hl7-view")


def append(database: SqlDatabase, **more: Any) -> int:
    values: dict[str, Any] = {
        "door": "mllp",
        "institution": "KN",
        "peer": "10.0.0.1",
        "correlation_id": "",
        "message_type": "ADT^A01",
        "digest": "00",
        "size": 3,
        "received_at": NOW,
    }
    return database.write(lambda tx: tx.journal.append(NewEntry(**{**values, **more})))


def old(database: SqlDatabase, above: int = 0, limit: int = 99) -> dict[int, str]:
    before = NOW + timedelta(days=1)
    found = database.read(lambda tx: tx.journal.old("KN", doors=DOORS, before=before, above=above, limit=limit))
    return {one.seq: one.why_kept for one in found}


def test_what_is_old_is_of_one_institution_some_doors_and_a_time(database: SqlDatabase) -> None:
    wanted = [append(database), append(database, state="refused")]
    append(database, institution="QH")
    append(database, door="dimse")
    append(database, received_at=NOW + timedelta(days=2))

    assert old(database) == dict.fromkeys(wanted, "")
    assert list(old(database, above=wanted[0])) == wanted[1:]
    assert list(old(database, limit=1)) == wanted[:1]


def test_what_work_refers_to_is_kept(database: SqlDatabase) -> None:
    kept = {append(database, state=state): "open" for state in ("received", "failed")}
    for state in ("pending", "sent"):
        seq = append(database, correlation_id=state)
        delivery = NewDelivery(
            destination="YL/mllp", lane="YL/mllp|p", kind="mllp", payload=b"x", owner="KN", correlation_id=state
        )
        number = database.write(lambda tx, one=delivery: tx.outbox.enqueue(one))
        kept[seq] = "delivery" if state == "pending" else ""
        if state == "sent":
            database.write(lambda tx, one=number: tx.outbox.skip(one, now=NOW, reason="x"))
    append(database, institution="QH")

    assert old(database) == kept


def test_the_last_row_of_a_view_and_of_the_journal_are_kept(database: SqlDatabase) -> None:
    first, second = (append(database, door="hl7-view", peer="view/kn-ris") for _ in range(2))
    other = append(database, door="hl7-view", peer="view/kn-lis")
    last = append(database)

    assert old(database) == {first: "", second: "mark", other: "mark", last: "mark"}


def test_removal_is_by_number_and_a_number_is_not_given_again(database: SqlDatabase) -> None:
    numbers = [append(database) for _ in range(4)]

    assert database.write(lambda tx: tx.journal.remove([*numbers[:3], 999_999])) == 3
    assert database.write(lambda tx: tx.journal.remove([])) == 0

    assert database.read(lambda tx: tx.journal.get(numbers[0])) is None
    assert append(database) > numbers[3]


def _rows(database: SqlDatabase, count: int) -> list[int]:
    body = bytes(range(256)) * 8
    return [append(database, body=body) for _ in range(count)]


def test_a_sqlite_file_shrinks_by_what_is_removed(sqlite_database: SqlDatabase) -> None:
    numbers = _rows(sqlite_database, 600)

    def pages(name: str) -> int:
        with sqlite_database.engine.connect() as connection:
            return int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())

    full = pages("page_count")
    sqlite_database.write(lambda tx: tx.journal.remove(numbers[:500]))
    freed = pages("freelist_count")
    steps = 1
    while sqlite_database.write(lambda tx: tx.journal.reclaim()):
        steps += 1

    assert 200 < freed < 1024
    assert pages("freelist_count") == 0
    assert pages("page_count") <= full - freed
    assert steps == 1
    assert sqlite_database.read(lambda tx: tx.journal.get(numbers[-1])) is not None


def test_a_postgresql_table_takes_new_rows_into_the_room_of_removed_ones(postgres: Any) -> None:
    from tests.support.databases import opened

    with opened(postgres.migrated_database()) as database:

        def size() -> int:
            with database.engine.connect() as connection:
                return int(connection.exec_driver_sql("SELECT pg_relation_size('journal')").scalar_one())

        numbers = _rows(database, 600)
        full = size()
        database.write(lambda tx: tx.journal.remove(numbers[:500]))
        assert database.write(lambda tx: tx.journal.reclaim()) is False
        # What autovacuum does by itself in the background.
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("VACUUM journal"))
        _rows(database, 500)

        assert size() <= full


@pytest.mark.parametrize("count", [25_000])
def test_more_rows_than_one_statement_takes_are_removed(sqlite_database: SqlDatabase, count: int) -> None:
    numbers = range(10, 10 + count)

    assert sqlite_database.write(lambda tx: tx.journal.remove(numbers)) == 0
