"""What of the v2 intake leans on the database, proved on SQLite and PostgreSQL."""

from __future__ import annotations

import threading

from hub.actor import HUB
from hub.ports import Database
from tests.support.v2 import V2Hub, a40, adt, oru


def test_one_message_sent_by_many_at_once_is_taken_once(database: Database) -> None:
    hub = V2Hub(database)
    raw = adt("A01", "1").encode("gb18030")
    answers: list[bytes | None] = []
    threads = [threading.Thread(target=lambda: answers.append(hub.raw(raw))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert len(set(answers)) == 1
    assert len(hub.journal()) == 1


def test_many_senders_at_once_about_one_patient_leave_the_newest_statement(database: Database) -> None:
    hub = V2Hub(database)
    texts = [adt("A08", str(n), at=f"202506110800{n:02d}", phone=f"120000000{n:02d}") for n in range(24)]
    codes: list[str] = []
    threads = [threading.Thread(target=lambda text=text: codes.append(hub.code(text))) for text in reversed(texts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == ["AA"] * 24
    assert hub.one("Patient")["telecom"][0]["value"] == "12000000023"


def test_lists_corrections_merges_and_repeats_hold(database: Database) -> None:
    hub = V2Hub(database)
    texts = [
        adt("A01", "1", "AL1|1|DA|PEN^青霉素", "AL1|2|MA|LAT^乳胶", at="20250611080000"),
        adt("A08", "2", "AL1|1|DA|PEN^青霉素", at="20250611090000"),
        oru("3", "C", "6.70", at="20250611100000"),
        oru("4", "P", "6.50", at="20250611080000"),
        a40("5", "10086", "10099", at="20250611110000"),
    ]
    assert [hub.code(text) for text in texts] == ["AA"] * 5
    before = hub.state()
    assert [hub.code(text) for text in texts] == ["AA"] * 5
    assert hub.state() == before
    assert hub.one("Observation")["status"] == "corrected"
    states = [one["clinicalStatus"]["coding"][0]["code"] for one in hub.all("AllergyIntolerance")]
    assert sorted(states) == ["active", "inactive"]


def test_a_stored_feed_is_processed_and_replayed(database: Database) -> None:
    hub = V2Hub(database, ack="stored")
    for number in range(5):
        hub.code(adt("A01", str(number), number=f"2000{number}", visit=f"V{number}"))
    assert hub.messages.process_pending(10) == 5
    assert len(hub.all("Patient")) == 5
    hub.messages.replay(1, HUB)
    assert {entry.state for entry in hub.journal()} == {"done"}
