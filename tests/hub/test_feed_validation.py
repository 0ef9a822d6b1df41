"""Feeds that are judged: before the answer, or after it by the worker; and the worker's timers beside them."""

from __future__ import annotations

import pytest

from adapters.worker.timers import TimerLoop
from hub.feed_validation import KIND, Validations
from hub.ports import Database, Timer
from tests.support.v2 import V2Hub, adt, msh, pid

#: PV1-2 is not valued, and EVN is missing.
UNFIT = "\r".join([msh("ADT^A01", "1"), pid(), "PV1|1||", "AL1|1", ""])
PROFILE = '{"ADT": {"segments": ["NK1"], "tables": {"PV1-2": ["Z"]}}}'


def judged(hub: V2Hub) -> int:
    return Validations(hub.services).turn(10)


def test_a_feed_that_rejects_names_every_error_to_its_sender_and_in_the_journal(sqlite_database: Database) -> None:
    hub = V2Hub(sqlite_database, validate="reject")
    answer = hub.send(UNFIT)
    assert answer is not None
    assert answer.get("MSA-1") == "AE"
    places = [err.get(1) for err in answer.all("ERR")]
    assert len(places) == 3
    (entry,) = hub.journal()
    assert (entry.state, hub.all("Patient")) == ("refused", [])
    assert [f"{place}:" in entry.outcome for place in ("EVN", "PV1-2 of segment 3", "AL1-3 of segment 4")] == [True] * 3
    assert hub.code(adt("A01", "2")) == "AA"


@pytest.mark.parametrize("ack", ["stored", "processed"])
def test_a_profile_is_judged_with_the_standard(sqlite_database: Database, ack: str) -> None:
    hub = V2Hub(sqlite_database, validate="reject", profile=PROFILE, ack=ack)
    answer = hub.send(adt("A01", "1"))
    assert answer is not None
    assert (answer.get("MSA-1"), len(answer.all("ERR"))) == ("AE", 2)


def test_a_feed_that_warns_is_answered_and_judged_afterwards(sqlite_database: Database) -> None:
    hub = V2Hub(sqlite_database, validate="warn", profile=PROFILE)
    assert hub.code(adt("A01", "1")) == "AA"
    assert len(hub.all("Patient")) == 1
    assert "validation" not in hub.journal()[0].outcome
    assert judged(hub) == 1
    (entry,) = hub.journal()
    assert entry.state == "done"
    assert "validation: E 100 NK1:" in entry.outcome
    assert judged(hub) == 0


def test_what_keeps_to_everything_leaves_no_word(sqlite_database: Database) -> None:
    hub = V2Hub(sqlite_database, validate="warn", profile='{"ADT": {"segments": ["PV1"]}}')
    hub.code(adt("A01", "1"))
    before = hub.journal()
    assert judged(hub) == 1
    found = hub.journal()[0].outcome
    assert "E " not in found.replace("validation: ", "")
    assert before[0].state == hub.journal()[0].state


def test_a_stored_message_is_judged_once_it_is_processed(sqlite_database: Database) -> None:
    hub = V2Hub(sqlite_database, validate="warn", profile=PROFILE, ack="stored")
    hub.code(adt("A01", "1"))
    judged(hub)
    assert hub.journal()[0].state == "received"
    hub.messages.process_pending(10)
    hub.clock.now += hub.clock.now.resolution * 10_000_000
    assert judged(hub) == 1
    assert "validation: E 100 NK1:" in hub.journal()[0].outcome


def test_feeds_that_do_not_ask_are_not_judged(sqlite_database: Database) -> None:
    hub = V2Hub(sqlite_database)
    assert hub.code(adt("A01", "1")) == "AA"
    assert judged(hub) == 0


def test_messages_that_wait_to_be_judged_hold_up_no_timer(sqlite_database: Database) -> None:
    hub = V2Hub(sqlite_database)
    now = hub.clock()
    fired: list[str] = []

    def work(tx: object, timer: Timer) -> None:
        fired.append(timer.key)

    for number in range(60):
        timer = Timer(kind=KIND, key=str(number), due_at=now, payload={})
        hub.database.write(lambda tx, timer=timer: tx.timers.set(timer))
    later = Timer(kind="workflow", key="t", due_at=hub.clock(), payload={})
    hub.database.write(lambda tx: tx.timers.set(later))
    TimerLoop(hub.services, {"workflow": work}).turn()
    assert fired == ["t"]
    found = hub.database.read(lambda tx: tx.timers.due(hub.clock(), limit=100, kind=KIND))
    assert len(found) == 60
