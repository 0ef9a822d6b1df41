"""The way SQLite goes to the queues and to the journal, which must not grow with what was delivered or received."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from hub.ports import NewDelivery, NewEntry, Timer
from storage.sql.database import SqlDatabase
from tests.support.databases import PostgresServer, opened
from tests.support.hub import NOW
from tests.support.plans import full_scans, plan

SINCE = "2025-06-11T00:00:00+00:00"
UNTIL = "2025-06-12T00:00:00+00:00"


def plan_as_bound(database: SqlDatabase, work: Callable[[Any], Any]) -> list[str]:
    """Return the steps of each statement of the Core with its values bound, as they are when the hub runs it.

    A partial index serves a condition that stands in the statement, and not the same condition with a bound value;
    ``plan`` sees the values written out, so it cannot tell the two apart.
    """
    steps: list[str] = []

    def explain(_c: Any, cursor: Any, statement: str, parameters: Any, _x: Any, _many: bool) -> None:
        if statement.lstrip().upper().startswith(("SELECT", "UPDATE", "DELETE", "WITH")):
            steps.extend(row[3] for row in cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters))

    sa.event.listen(database.engine, "before_cursor_execute", explain)
    try:
        database.write(work)
    finally:
        sa.event.remove(database.engine, "before_cursor_execute", explain)
    assert steps
    return steps


@pytest.fixture
def filled(sqlite_database: SqlDatabase) -> SqlDatabase:
    """A database in which most is done: delivered, received and answered."""

    def fill(tx: Any) -> None:
        for number in range(60):
            tx.journal.append(
                NewEntry(
                    door="mllp",
                    institution="KN",
                    peer="",
                    correlation_id=f"c{number}",
                    sending_application="HIS",
                    sending_facility="KNYY",
                    control_id=str(number),
                    message_type="ADT^A01",
                    digest=str(number),
                    size=1,
                    state="done" if number else "received",
                    received_at=NOW,
                )
            )
            lane = f"YL/mllp|p{number % 20}"
            tx.outbox.enqueue(
                NewDelivery(destination="YL/mllp", lane=lane, kind="mllp", payload=b"x", owner="KN", control_id="")
            )
            tx.timers.set(Timer(kind="study", key=str(number), due_at=NOW + timedelta(hours=number), payload={}))

    sqlite_database.write(fill)
    later = NOW + timedelta(days=3650)

    def deliver(tx: Any) -> int:
        leased = tx.outbox.lease("w", now=later, lease_s=60, limit=8)
        return sum(tx.outbox.succeeded(lane, epoch, one.id, ack=b"AA", now=later) for lane, epoch, one in leased)

    while sqlite_database.write(deliver):
        pass
    sqlite_database.write(
        lambda tx: tx.outbox.enqueue(
            NewDelivery(destination="YL/mllp", lane="YL/mllp|p1", kind="mllp", payload=b"x", owner="KN", control_id="")
        )
    )
    return sqlite_database


def test_a_worker_finds_its_lanes_and_their_heads_by_index(filled: SqlDatabase) -> None:
    picked: list[Any] = []
    steps = plan_as_bound(
        filled,
        lambda tx: picked.extend(tx.outbox.lease("w", now=NOW + timedelta(days=3650), lease_s=60, limit=4)),
    )

    assert len(picked) == 1
    # That table has one row for each partner.
    assert full_scans(steps, "outbox", "outbox_lane", "outbox_destination") == ["SCAN outbox_destination"]
    assert any("ix_outbox_lane_due (destination=? AND state=? AND next_at<?)" in step for step in steps)
    assert any("ix_outbox_lane_leased (destination=? AND lease_until>?)" in step for step in steps)
    assert any("outbox USING INDEX ix_outbox_open (lane=?)" in step for step in steps), "the head of a lane"


@pytest.mark.parametrize(
    "report",
    [
        lambda tx, lane, epoch, id_: tx.outbox.succeeded(lane, epoch, id_, ack=b"AA", now=NOW),
        lambda tx, lane, epoch, id_: tx.outbox.failed(lane, epoch, id_, error="x", next_at=NOW, now=NOW),
        lambda tx, lane, epoch, id_: tx.outbox.failed(lane, epoch, id_, error="x", next_at=None, now=NOW),
    ],
    ids=["delivered", "to be tried again", "dead"],
)
def test_a_worker_gives_a_lane_back_without_a_look_at_other_lanes(
    filled: SqlDatabase, report: Callable[[Any, str, int, int], bool]
) -> None:
    [(lane, epoch, head)] = filled.write(
        lambda tx: tx.outbox.lease("w", now=NOW + timedelta(days=3650), lease_s=60, limit=4)
    )
    steps = plan_as_bound(filled, lambda tx: report(tx, lane, epoch, head.id))

    assert full_scans(steps, "outbox", "outbox_lane", "outbox_destination") == []


def test_the_list_of_lanes_reads_what_is_open_and_nothing_that_was_delivered(filled: SqlDatabase) -> None:
    steps = plan_as_bound(filled, lambda tx: tx.outbox.lanes())

    # That index holds the open deliveries alone, and all of them are what is asked for.
    assert full_scans(steps, "outbox", "outbox_lane", "outbox_destination") == [
        "SCAN outbox USING COVERING INDEX ix_outbox_open"
    ]


def test_the_state_of_the_destinations_reads_what_is_open_and_nothing_that_was_delivered(filled: SqlDatabase) -> None:
    steps = plan_as_bound(filled, lambda tx: tx.outbox.destinations())

    # Both tables are small: a row for each lane with something open, and for each partner.
    assert {step.split(" USING ")[0] for step in full_scans(steps, "outbox", "outbox_lane", "outbox_destination")} == {
        "SCAN outbox_lane",
        "SCAN outbox_destination",
    }
    # Payloads lie in the rows, so the index must do.
    assert "SEARCH outbox USING COVERING INDEX ix_outbox_open (lane=?)" in steps


@pytest.mark.parametrize(
    ("criteria", "index"),
    [
        ({"state": "pending"}, "ix_outbox_unsent (state=?)"),
        ({"state": "dead"}, "ix_outbox_unsent (state=?)"),
        ({"state": "skipped"}, "ix_outbox_unsent (state=?)"),
        ({"state": "no such"}, "ix_outbox_unsent (state=?)"),
        ({"state": "dead", "owner": "KN"}, "ix_outbox_unsent (state=?)"),
        ({"state": "dead", "destination": "YL/mllp"}, "ix_outbox_unsent (state=?)"),
        ({"destination": "YL/mllp"}, "ix_outbox_destination (destination=?)"),
        ({"destination": "YL/mllp", "state": "sent"}, "ix_outbox_destination (destination=?)"),
        ({"lane": "YL/mllp|p1"}, "ix_outbox_lane (lane=?)"),
        ({"owner": "KN"}, "ix_outbox_owner (owner=?)"),
        ({"kind": "dimse"}, "ix_outbox_kind (kind=?)"),
        ({"task_id": "t"}, "ix_outbox_task_id (task_id=?)"),
        ({"task_id": "t", "owner": "KN"}, "ix_outbox_task_id (task_id=?)"),
        ({"patient_id": "p", "destination": "YL/mllp"}, "ix_outbox_patient_id (patient_id=?)"),
        ({"control_id": "7", "kind": "mllp"}, "ix_outbox_control_id (control_id=?)"),
        ({"correlation_id": "c", "owner": "KN"}, "ix_outbox_correlation_id (correlation_id=?)"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_deliveries_are_found_by_the_index_of_what_is_asked_for_and_not_sorted(
    filled: SqlDatabase, criteria: dict[str, str], index: str
) -> None:
    steps = plan_as_bound(filled, lambda tx: tx.outbox.deliveries(criteria, limit=50))

    assert steps == [f"SEARCH outbox USING INDEX {index}"]


@pytest.mark.parametrize("criteria", [{}, {"state": "sent"}], ids=["all", "sent"])
def test_deliveries_that_are_nearly_all_are_read_from_the_newest(filled: SqlDatabase, criteria: dict[str, str]) -> None:
    assert plan_as_bound(filled, lambda tx: tx.outbox.deliveries(criteria, limit=50)) == ["SCAN outbox"]


def test_timers_that_are_due_are_found_by_the_moment(filled: SqlDatabase) -> None:
    steps = plan_as_bound(filled, lambda tx: tx.timers.due(NOW, limit=10))

    assert full_scans(steps, "timer") == []
    assert "SEARCH timer USING INDEX ix_timer_due_at (due_at<?)" in steps


def test_a_message_that_came_before_is_found_by_its_sender_and_control_id(filled: SqlDatabase) -> None:
    steps = plan(
        filled,
        lambda tx: tx.journal.find_message(
            institution="KN", sending_application="HIS", sending_facility="KNYY", control_id="7"
        ),
    )

    [step] = steps
    assert "ix_journal_control (control_id=? AND sending_facility=? AND sending_application=?)" in step


def test_messages_that_wait_are_found_without_those_that_are_done(filled: SqlDatabase) -> None:
    steps = plan_as_bound(filled, lambda tx: tx.journal.pending(door="mllp", limit=10))

    # In the order of the index, so that the first ones are read and no more.
    assert steps == ["SEARCH journal USING INDEX ix_journal_pending (door=?)"]


def test_one_senders_waiting_messages_are_found_without_those_of_others(filled: SqlDatabase) -> None:
    steps = plan_as_bound(filled, lambda tx: tx.journal.pending_from("KN", doors=("mllp", "hl7-http"), limit=10))

    assert steps == ["SEARCH journal USING INDEX ix_journal_waiting (institution=?)"]


def test_who_has_messages_waiting_is_found_by_one_look_for_each(filled: SqlDatabase) -> None:
    steps = plan_as_bound(filled, lambda tx: tx.journal.senders_waiting())

    assert all("ix_journal_waiting" in step for step in steps), steps


def test_bytes_of_a_day_are_summed_without_older_entries(filled: SqlDatabase) -> None:
    steps = plan_as_bound(filled, lambda tx: tx.journal.received_bytes("KN", since=NOW))

    assert steps[-1].startswith("SEARCH journal USING "), steps
    assert "seq>?" in steps[-1] or "rowid>?" in steps[-1], steps


@pytest.mark.parametrize(
    ("criteria", "index"),
    [
        ({"state": "failed"}, "ix_journal_open (state=?)"),
        ({"state": "received", "institution": "KN"}, "ix_journal_open (state=?)"),
        ({"institution": "KN"}, "ix_journal_institution (institution=?)"),
        ({"door": "hl7-http"}, "ix_journal_door (door=?)"),
        ({"sending_application": "HIS"}, "ix_journal_sending_application (sending_application=?)"),
        ({"message_type": "ADT^A01"}, "ix_journal_type (message_type=?)"),
        ({"patient_id": "p"}, "ix_journal_patient_id (patient_id=?)"),
        ({"placer": "p"}, "ix_journal_placer (placer=?)"),
        ({"filler": "f"}, "ix_journal_filler (filler=?)"),
        ({"accession": "a"}, "ix_journal_accession (accession=?)"),
        ({"visit": "v"}, "ix_journal_visit (visit=?)"),
        ({"correlation_id": "c"}, "ix_journal_correlation_id (correlation_id=?)"),
        ({"sending_facility": "KNYY"}, "ix_journal_sending_facility (sending_facility=?)"),
        # An administrator always asks for one institution, which must not lead where something rarer is asked for.
        ({"patient_id": "p", "institution": "KN", "door": "mllp"}, "ix_journal_patient_id (patient_id=?)"),
        ({"correlation_id": "c", "institution": "KN", "since": SINCE}, "ix_journal_correlation_id (correlation_id=?)"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_a_search_of_the_journal_goes_by_the_index_of_what_is_asked_for_and_sorts_nothing(
    filled: SqlDatabase, criteria: dict[str, str], index: str
) -> None:
    steps = plan_as_bound(filled, lambda tx: tx.journal.search(criteria, limit=50))

    assert steps == [f"SEARCH journal USING INDEX {index}"]


@pytest.mark.parametrize(
    ("criteria", "columns"),
    [
        ({"control_id": "7"}, "control_id=?"),
        ({"control_id": "7", "institution": "KN", "since": SINCE}, "control_id=?"),
        ({"control_id": "7", "sending_facility": "KNYY"}, "control_id=? AND sending_facility=?"),
    ],
    ids="+".join,
)
@pytest.mark.parametrize("before_seq", [None, 1000], ids=["newest", "older"])
def test_a_control_id_leads_to_the_few_entries_that_have_it(
    filled: SqlDatabase, criteria: dict[str, str], columns: str, before_seq: int | None
) -> None:
    steps = plan_as_bound(filled, lambda tx: tx.journal.search(criteria, limit=50, before_seq=before_seq))

    assert steps == [f"SEARCH journal USING INDEX ix_journal_control ({columns})", "USE TEMP B-TREE FOR ORDER BY"]


@pytest.mark.parametrize("criteria", [{"digest": "5"}, {"digest": "5", "institution": "KN"}], ids="+".join)
@pytest.mark.parametrize("before_seq", [None, 1000], ids=["newest", "older"])
def test_a_digest_is_looked_up_among_images_and_among_all_else(
    filled: SqlDatabase, criteria: dict[str, str], before_seq: int | None
) -> None:
    steps = plan_as_bound(filled, lambda tx: tx.journal.search(criteria, limit=50, before_seq=before_seq))

    assert steps[0] == "SEARCH journal USING INTEGER PRIMARY KEY (rowid=?)"
    assert "SEARCH imaging_instance USING INDEX ix_imaging_instance_digest (digest=?)" in steps
    assert "SEARCH journal USING INDEX ix_journal_digest (digest=?)" in steps
    assert full_scans(steps, "journal", "imaging_instance") == []


@pytest.mark.parametrize(
    ("criteria", "index"),
    [
        ({}, "INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
        ({"state": "done"}, "INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
        ({"institution": "KN"}, "INDEX ix_journal_institution (institution=? AND seq>? AND seq<?)"),
        ({"door": "mllp"}, "INDEX ix_journal_door (door=? AND seq>? AND seq<?)"),
        ({"message_type": "ADT^A01"}, "INDEX ix_journal_type (message_type=? AND seq>? AND seq<?)"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("times", [{"since": SINCE}, {"until": UNTIL}, {"since": SINCE, "until": UNTIL}], ids="+".join)
@pytest.mark.parametrize("before_seq", [None, 1000], ids=["newest", "older"])
def test_a_time_is_a_range_of_numbers_in_every_search(
    filled: SqlDatabase, criteria: dict[str, str], index: str, times: dict[str, str], before_seq: int | None
) -> None:
    steps = plan_as_bound(filled, lambda tx: tx.journal.search({**criteria, **times}, limit=50, before_seq=before_seq))

    assert [step.split(" (")[0] for step in steps[:-1]] == [
        "SEARCH journal USING COVERING INDEX ix_journal_received"
    ] * 4
    assert steps[-1] == f"SEARCH journal USING {index}"


@pytest.mark.parametrize("criteria", [{}, {"state": "done"}], ids=["all", "done"])
def test_a_search_for_what_is_nearly_all_walks_from_the_newest_and_sorts_nothing(
    filled: SqlDatabase, criteria: dict[str, str]
) -> None:
    newest = plan_as_bound(filled, lambda tx: tx.journal.search(criteria, limit=50))
    older = plan_as_bound(filled, lambda tx: tx.journal.search(criteria, limit=50, before_seq=1000))

    assert newest == ["SCAN journal"]
    assert older == ["SEARCH journal USING INTEGER PRIMARY KEY (rowid<?)"]


def test_the_messages_and_deliveries_of_one_correlation_are_found_by_it(filled: SqlDatabase) -> None:
    steps = plan_as_bound(filled, lambda tx: (tx.journal.by_correlation("c"), tx.outbox.by_correlation("c")))

    assert [step.split(" (")[0] for step in steps] == [
        "SEARCH journal USING INDEX ix_journal_correlation_id",
        "SEARCH outbox USING INDEX ix_outbox_correlation_id",
    ]


def test_postgresql_does_not_walk_the_journal_by_number_to_the_time_that_is_asked_for(postgres: PostgresServer) -> None:
    """Its planner takes the least of a key by walking the key's index, past all that is outside of the time."""
    fill = """
        INSERT INTO journal (correlation_id, door, institution, peer, sending_application, sending_facility, control_id,
            message_type, version, charset, digest, size, state, outcome, flags, received_at, patient_id, placer, filler,
            accession, visit)
        SELECT '', 'dimse', 'KN', '', '', '', '', '', '', '', '', 1, 'done', 'new', '', n::bigint * 1000000, '', '', '',
            '', '' FROM generate_series(1, 20000) n
    """
    plans: list[str] = []

    def explain(connection: Any, cursor: Any, statement: str, parameters: Any, _x: Any, _many: bool) -> None:
        if "min(" in statement or "max(" in statement:
            rows = cursor.connection.execute(f"EXPLAIN {statement}", parameters)
            plans.append("\n".join(row[0] for row in rows))

    with opened(postgres.migrated_database()) as database:
        with database.engine.begin() as connection:
            connection.exec_driver_sql(fill)
            connection.exec_driver_sql("ANALYZE journal")
        criteria = {"institution": "KN", "since": "1970-01-01T02:00:00+00:00", "until": "1970-01-01T04:00:00+00:00"}
        sa.event.listen(database.engine, "before_cursor_execute", explain)
        found = database.write(lambda tx: tx.journal.search(criteria, limit=1))

    assert [one.seq for one in found] == [4 * 3600 - 1]
    assert len(plans) == 2
    assert all("ix_journal_received" in one and "pk_journal" not in one for one in plans), plans


# --- two values that many rows share -----------------------------------------------------------------------------


@pytest.fixture
def crowded(filled: SqlDatabase) -> SqlDatabase:
    """Beside the many of KN, three messages and deliveries of QH, one message of which came by another door."""

    def fill(tx: Any) -> None:
        for number in range(3):
            tx.journal.append(
                NewEntry(
                    door="mllp" if number else "dimse",
                    institution="QH",
                    peer="",
                    correlation_id="",
                    message_type="ADT^A01" if number else "ADT^A08",
                    digest="",
                    size=1,
                    received_at=NOW,
                )
            )
            lane = f"YL/mllp|q{number}"
            tx.outbox.enqueue(
                NewDelivery(destination="YL/mllp", lane=lane, kind="mllp", payload=b"x", owner="QH", control_id="")
            )

    filled.write(fill)
    return filled


@pytest.mark.parametrize(
    ("criteria", "lead", "check", "found"),
    [
        ({"door": "mllp", "institution": "QH"}, "institution", "door", 2),
        ({"institution": "QH", "message_type": "ADT^A01"}, "institution", "type", 2),
        ({"institution": "KN", "message_type": "ADT^A08"}, "type", "institution", 0),
        ({"institution": "KN", "door": "dimse"}, "door", "institution", 0),
        ({"institution": "QH", "sending_facility": "KNYY"}, "institution", "sending_facility", 0),
        ({"institution": "QH", "door": "mllp", "until": UNTIL}, "institution", "door", 2),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else None,
)
def test_of_two_shared_values_the_rarer_leads_and_the_other_is_looked_up_without_a_row(
    crowded: SqlDatabase, criteria: dict[str, str], lead: str, check: str, found: int
) -> None:
    rows: list[Any] = []
    steps = plan_as_bound(crowded, lambda tx: rows.extend(tx.journal.search(criteria, limit=50)))

    assert len(rows) == found
    last = steps[-3:]
    assert last[0].startswith(f"SEARCH journal USING INDEX ix_journal_{lead} ("), steps
    assert last[2].startswith(f"SEARCH journal_1 USING COVERING INDEX ix_journal_{check} ("), steps
    assert "seq>? AND seq<?" in last[2]
    assert full_scans(steps, "journal") == []


def test_of_two_shared_values_of_deliveries_the_rarer_leads_too(crowded: SqlDatabase) -> None:
    rows: list[Any] = []
    asked = {"destination": "YL/mllp", "owner": "QH"}
    steps = plan_as_bound(crowded, lambda tx: rows.extend(tx.outbox.deliveries(asked, limit=50)))

    assert len(rows) == 3
    assert any(step.startswith("SEARCH outbox USING INDEX ix_outbox_owner (owner=?") for step in steps), steps
    assert any(step.startswith("SEARCH outbox_1 USING COVERING INDEX ix_outbox_destination (") for step in steps), steps


def test_three_shared_values_and_a_key_are_found_as_one_would_think(crowded: SqlDatabase) -> None:
    def count(**criteria: str) -> int:
        return len(crowded.read(lambda tx: tx.journal.search(criteria, limit=50)))

    assert count(institution="QH", door="mllp", message_type="ADT^A01") == 2
    assert count(institution="QH", door="dimse", message_type="ADT^A01") == 0
    assert count(institution="KN", door="mllp", correlation_id="c7") == 1
    assert count(institution="", door="mllp") == 0
