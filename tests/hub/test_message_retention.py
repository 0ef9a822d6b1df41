"""Messages that their member keeps no longer: counted, kept for work and holds, and removed in small steps."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from hub import message_retention
from hub.actor import Actor
from hub.deletion import Deletion
from hub.errors import Category, HubError
from hub.message_retention import MessageRetention
from hub.ports import NewVersion
from storage.sql.database import SqlDatabase
from tests.support.images import STUDY, FakeClock, ct, receive
from tests.support.services import running
from tests.support.v2 import MEMBERS, V2Hub

OPERATOR = Actor(institution="YY", roles=frozenset({"operator"}))
YEAR = timedelta(days=366)


class Aged(V2Hub):
    """A hub whose member KN keeps messages for two years."""

    def keep(self, years: str | None = "2") -> None:
        """Set how long KN keeps messages."""
        settings: dict[str, Any] = {} if years is None else {"message-retention": years}
        kn = replace(MEMBERS[0], settings=settings)
        self.database.write(lambda tx: tx.members.replace((kn,), (), ()))
        self.services.directory.refresh()


@pytest.fixture
def v2(database: SqlDatabase) -> Aged:
    hub = Aged(database)
    hub.keep()
    return hub


def admission(number: str, control_id: str, facility: str = "KNYY") -> str:
    return (
        f"MSH|^~\\&|HIS|{facility}|YIXIE|HUB|20250611083000||ADT^A08^ADT_A01|{control_id}|P|2.4\r"
        f"EVN|A08|20250611083000\rPID|1||{number}^^^{facility}^PI||王小明||19700101|M\r"
    )


def left(v2: V2Hub) -> list[str]:
    return [one.control_id for one in v2.journal()]


def expire(v2: V2Hub, reason: str = "保存期满") -> int:
    retention = MessageRetention(v2.services)
    return retention.remove(OPERATOR, "KN", reason=reason, word=retention.due(OPERATOR, "KN").word)


def test_old_messages_of_the_member_go_and_what_they_made_stays(v2: Aged) -> None:
    for control_id, facility in (("A1", "KNYY"), ("A2", "KNYY"), ("Q1", "QHYY")):
        assert v2.code(admission("1", control_id, facility)) == "AA"
    patients = v2.all("Patient")
    v2.clock.now += 3 * YEAR
    assert v2.code(admission("2", "A3")) == "AA"

    due = MessageRetention(v2.services).due(OPERATOR, "KN")

    assert (due.years, due.count, due.kept) == (2, 2, {})
    assert left(v2) == ["A1", "A2", "Q1", "A3"]
    assert expire(v2) == 2
    assert left(v2) == ["Q1", "A3"]
    assert {one["id"] for one in patients} <= {one["id"] for one in v2.all("Patient")}


def test_a_removal_goes_in_steps_and_each_leaves_an_audit_line(v2: Aged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_retention, "_STEP", 2)
    for number in range(5):
        v2.code(admission("1", f"A{number}"))
    v2.clock.now += 3 * YEAR
    v2.code(admission("1", "A9"))

    assert expire(v2) == 5
    assert left(v2) == ["A9"]
    lines = v2.database.read(lambda tx: tx.audit.search({}, institution=None, limit=99, before=None))
    assert sum(one["subtype"][0]["code"] == "expire-messages" for one in lines) == 3


def test_nothing_goes_where_nobody_said_after_how_many_years(v2: Aged) -> None:
    v2.keep(None)
    v2.code(admission("1", "A1"))
    v2.clock.now += 100 * YEAR

    due = MessageRetention(v2.services).due(OPERATOR, "KN")

    assert (due.years, due.before, due.count) == (None, None, 0)
    with pytest.raises(HubError) as caught:
        MessageRetention(v2.services).remove(OPERATOR, "KN", reason="x", word=due.word)
    assert caught.value.category is Category.CONFLICT


def test_messages_of_a_patient_with_an_open_task_stay_until_it_ends(v2: Aged) -> None:
    v2.code(admission("1", "A1"))
    v2.code(admission("2", "A2"))
    patient = v2.journal(control_id="A1")[0].patient_id

    def task(status: str) -> None:
        resource = {
            "resourceType": "Task",
            "id": "t1",
            "status": status,
            "intent": "order",
            "for": {"reference": f"Patient/{patient}"},
        }
        v2.database.write(lambda tx: tx.records.put_many([NewVersion(resource=resource, owner="KN")]))

    task("in-progress")
    v2.clock.now += 3 * YEAR
    v2.code(admission("3", "A3"))

    assert dict(MessageRetention(v2.services).due(OPERATOR, "KN").kept) == {"task": 1}
    assert expire(v2) == 1
    assert left(v2) == ["A1", "A3"]
    task("completed")
    assert expire(v2) == 1
    assert left(v2) == ["A3"]


def test_what_failed_or_is_the_last_stays(v2: Aged) -> None:
    v2.code(admission("1", "A1"))
    (entry,) = v2.journal()
    v2.database.write(lambda tx: tx.journal.finish(entry.seq, state="failed"))
    v2.code(admission("1", "A2"))
    v2.clock.now += 3 * YEAR

    due = MessageRetention(v2.services).due(OPERATOR, "KN")

    assert (due.count, dict(due.kept)) == (0, {"open": 1, "mark": 1})


def test_the_word_a_reason_and_the_operator_are_needed(v2: Aged) -> None:
    v2.code(admission("1", "A1"))
    v2.code(admission("1", "A2"))
    v2.clock.now += 3 * YEAR
    v2.code(admission("1", "A3"))
    retention = MessageRetention(v2.services)
    word = retention.due(OPERATOR, "KN").word

    for actor, member, reason, given, category in (
        (OPERATOR, "KN", "期满", "0", Category.CONFLICT),
        (OPERATOR, "KN", " ", word, Category.INCORRECT),
        (OPERATOR, "ZZ", "期满", word, Category.NOT_FOUND),
        (Actor(institution="KN", roles=frozenset({"admin"})), "KN", "期满", word, Category.FORBIDDEN),
    ):
        with pytest.raises(HubError) as caught:
            retention.remove(actor, member, reason=reason, word=given)
        assert caught.value.category is category
    assert left(v2) == ["A1", "A2", "A3"]


def test_messages_of_a_patient_with_a_study_on_hold_stay_until_its_release(tmp_path: Path) -> None:
    clock = FakeClock()
    with running(tmp_path, clock=clock) as services:
        kn = services.database.read(lambda tx: tx.members.get("KN"))
        assert kn is not None
        kept = replace(kn, settings={**kn.settings, "message-retention": "2"})
        services.database.write(lambda tx: tx.members.replace((kept,), (), ()))

        def send(number: str, control_id: str) -> None:
            answer = services.messages.receive(admission(number, control_id).encode(), "127.0.0.1:40000")
            assert answer is not None
            assert b"MSA|AA" in answer

        send("KN0001", "A1")
        send("KN0002", "A2")
        receive(services, ct(PatientID="KN0001"))
        Deletion(services).hold(OPERATOR, STUDY, reason="诉讼保全", owner="KN")
        clock.forward((3 * YEAR).total_seconds())
        send("KN0003", "A3")
        retention = MessageRetention(services)

        due = retention.due(OPERATOR, "KN")
        assert (due.count, dict(due.kept)) == (1, {"hold": 1})
        assert retention.remove(OPERATOR, "KN", reason="保存期满", word=due.word) == 1
        Deletion(services).release(OPERATOR, STUDY, reason="结案", owner="KN")
        due = retention.due(OPERATOR, "KN")
        assert (due.count, dict(due.kept)) == (1, {})
