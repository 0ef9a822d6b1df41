"""Stored messages of several members: who is processed when, in numbers of messages and never in time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hub.actor import HUB
from hub.ports import Database, Entry
from storage.sql import journal
from tests.support.v2 import MEMBERS, V2Hub, adt, endpoints


@pytest.fixture
def hub(sqlite_database: Database) -> V2Hub:
    return V2Hub(sqlite_database)


def configure(hub: V2Hub, **intake: str) -> None:
    """Let all feeds be answered when stored, and give members the setting ``intake``."""
    members = tuple(replace(one, settings={"intake": intake.get(one.code, "")}) for one in MEMBERS)
    points = tuple(replace(one, settings={**one.settings, "ack": "stored"}) for one in endpoints())
    hub.database.write(lambda tx: tx.members.replace(members, points, ()))
    hub.services.directory.refresh()


def store(hub: V2Hub, institution: str, numbers: range) -> None:
    """Write messages of *institution* to the journal as the door would have, each about a patient of its own."""
    facility = {"KN": "KNYY", "QH": "QHYY"}[institution]
    first = hub.journal()
    for number in numbers:
        text = adt("A01", f"{institution}{number}", number=str(10_000 + number))
        hub.raw(text.replace("|KNYY|", f"|{facility}|", 1).encode("gb18030"))
    assert len(hub.journal()) == len(first) + len(numbers)


def order(hub: V2Hub, turns: int, batch: int) -> list[Entry]:
    """Return the entries that are done after *turns*, in the order in which they were finished."""
    for _ in range(turns):
        hub.messages.process_pending(batch)
    done = [one for one in hub.journal() if one.state == "done" and one.finished_at is not None]
    return sorted(done, key=lambda one: (one.finished_at, one.seq))


def test_a_member_that_floods_delays_another_by_no_more_than_one_turn(hub: V2Hub) -> None:
    configure(hub)
    store(hub, "QH", range(200))
    # A turn of QH's has begun when KN's message comes.
    hub.messages.process_pending(16)
    store(hub, "KN", range(1))
    done = order(hub, turns=1, batch=16)
    others = [one.institution for one in done[16:]]
    assert others.index("KN") <= 2, others
    assert len(others) <= 16


def test_members_are_processed_by_their_weights(hub: V2Hub) -> None:
    configure(hub, KN="weight=3")
    store(hub, "QH", range(40))
    store(hub, "KN", range(40))
    done = [one.institution for one in order(hub, turns=1, batch=16)]
    assert (done.count("KN"), done.count("QH")) == (12, 4)


def test_everything_is_processed_in_the_end_and_each_members_in_its_order(hub: V2Hub) -> None:
    configure(hub)
    store(hub, "QH", range(20))
    store(hub, "KN", range(5))
    done = order(hub, turns=6, batch=8)
    assert len(done) == 25
    assert hub.messages.process_pending(8) == 0


def test_a_turn_reads_nothing_of_what_is_parked_but_whose_it_is(hub: V2Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(hub)
    store(hub, "QH", range(30))
    # All but one are parked; the last one has none of its own before it.
    for one in hub.journal()[:-1]:
        hub.database.write(lambda tx, seq=one.seq: tx.journal.finish(seq, state="failed", outcome="parked"))  # type: ignore[misc]
    read: list[int] = []
    whole = journal._entry
    monkeypatch.setattr(journal, "_entry", lambda row: (read.append(row.seq), whole(row))[1])
    assert hub.messages.process_pending(8) == 1
    monkeypatch.undo()
    last = hub.journal()[-1]
    assert last.state == "done"
    assert set(read) == {last.seq}


def test_what_waits_behind_a_parked_message_is_released_with_it_and_nothing_else(hub: V2Hub) -> None:
    configure(hub)
    store(hub, "QH", range(3))
    for number in (1, 2):
        text = adt("A08", f"QH-again{number}", number="10000").replace("|KNYY|", "|QHYY|", 1)
        hub.raw(text.encode("gb18030"))
    for one in hub.journal():
        hub.database.write(lambda tx, seq=one.seq: tx.journal.finish(seq, state="failed", outcome="parked"))  # type: ignore[misc]
    hub.messages.replay(hub.journal()[0].seq, HUB)
    assert [one.state for one in hub.journal()] == ["done", "failed", "failed", "received", "received"]
