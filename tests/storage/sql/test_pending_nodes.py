"""Messages that are stored and processed later, where several nodes share the database (DESIGN rules 2 and 6)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from fhir_mappings.json import loads
from hub.access import UNRESTRICTED
from hub.errors import Category, HubError
from hub.ports import Database
from storage.sql.database import SqlDatabase
from tests.support.databases import opened
from tests.support.v2 import START, Ticking, V2Hub, adt

#: Longer than a node may say nothing and keep its lease.
LONG_S = 3600.0


class Node(V2Hub):
    """A hub under a name of its own, with a clock that runs ahead of the others'."""

    def __init__(self, database: Database, name: str, *, ahead_s: float = 0.0) -> None:
        super().__init__(database, ack="stored")
        self.clock = Ticking(START + timedelta(seconds=ahead_s))
        self.services = replace(self.services, node=name, clock=self.clock)
        self.services.__dict__["tasks"] = self.tasks

    def process(self) -> int:
        """Process what waits."""
        return self.messages.process_pending(100)

    def states(self) -> list[str]:
        """Return the state of each message, oldest first."""
        return [entry.state for entry in self.journal()]

    def phones(self, number: str = "10086") -> list[str]:
        """Return the telephone of each version of a patient, oldest first."""
        patient = self.one("Patient", lambda one: any(item["value"] == number for item in one["identifier"]))
        current = int(patient["meta"]["versionId"])
        versions = self.database.read(
            lambda tx: [
                tx.records.version("Patient", patient["id"], number, UNRESTRICTED) for number in range(1, current + 1)
            ]
        )
        return [_phone(one) for one in versions]


def _phone(stored: Any) -> str:
    return str(loads(stored.body)["telecom"][0]["value"])


def applied(node: Node) -> list[Any]:
    """Return the audit lines of messages that were applied."""
    return list(
        node.database.read(
            lambda tx: [
                one
                for one in tx.audit.search({}, institution=None, limit=1000, before=None)
                if any(part.get("code") == "ADT^A08" for part in one.get("subtype", ()))
            ]
        )
    )


def phone(number: int) -> str:
    return f"120000000{number:02d}"


@contextmanager
def second(url: str, **how: Any) -> Iterator[Node]:
    with opened(url, node="b") as database:
        yield Node(database, "b", **how)


def test_one_node_at_a_time_processes_stored_messages(database: SqlDatabase, database_url: str) -> None:
    a = Node(database, "a")
    with second(database_url) as b:
        a.code(adt("A08", "1", phone=phone(1)))
        assert (a.process(), b.process()) == (1, 0)
        b.code(adt("A08", "2", phone=phone(2)))
        assert (b.process(), a.process()) == (0, 1)

    assert a.states() == ["done", "done"]
    assert a.phones() == [phone(1), phone(2)]


def test_a_node_that_stops_leaves_the_rest_to_another_at_once(database: SqlDatabase, database_url: str) -> None:
    a = Node(database, "a")
    with second(database_url) as b:
        a.code(adt("A08", "1", phone=phone(1)))
        assert a.process() == 1
        a.code(adt("A08", "2", phone=phone(2)))
        a.messages.leave_pending()
        a.messages.leave_pending()
        assert b.process() == 1
        # It may come back, and must then wait like any other.
        a.code(adt("A08", "3", phone=phone(3)))
        assert (a.process(), b.process()) == (0, 1)

    assert a.phones() == [phone(1), phone(2), phone(3)]


def test_what_a_dead_node_left_is_processed_by_another_in_its_order(database: SqlDatabase, database_url: str) -> None:
    a = Node(database, "a")
    a.code(adt("A08", "1", phone=phone(1)))
    assert a.process() == 1
    for number in (2, 3):
        a.code(adt("A08", str(number), phone=phone(number)))
    with second(database_url) as early:
        assert early.process() == 0
    with second(database_url, ahead_s=LONG_S) as b:
        assert b.process() == 2
        # The first was only slow. It finds out before it does anything.
        b.code(adt("A08", "4", phone=phone(4)))
        assert (a.process(), a.process()) == (0, 0)
        assert a.states() == ["done", "done", "done", "received"]
        assert b.process() == 1

    assert a.phones() == [phone(1), phone(2), phone(3), phone(4)]


def test_a_node_that_was_killed_goes_on_at_its_next_start(database: SqlDatabase) -> None:
    before = Node(database, "a")
    before.code(adt("A08", "1", phone=phone(1)))
    assert before.process() == 1
    before.code(adt("A08", "2", phone=phone(2)))

    assert Node(database, "a").process() == 1


def test_a_message_that_another_node_took_over_is_not_processed_twice(
    database: SqlDatabase, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node had read and translated it, and comes to its transaction after another has done all of it."""
    a = Node(database, "a")
    translated, resume = threading.Event(), threading.Event()
    ready = a.messages._applying.ready

    def slowly(arrival: Any) -> Any:
        found = ready(arrival)
        translated.set()
        assert resume.wait(20)
        return found

    monkeypatch.setattr(a.messages._applying, "ready", slowly)
    for number in (1, 2):
        a.code(adt("A08", str(number), phone=phone(number)))
    done: list[int] = []
    thread = threading.Thread(target=lambda: done.append(a.process()))
    thread.start()
    assert translated.wait(20)
    try:
        with second(database_url, ahead_s=LONG_S) as b:
            assert b.process() == 2
            state = b.state()
    finally:
        resume.set()
        thread.join()

    assert done == [0]
    assert a.state() == state
    assert a.phones() == [phone(1), phone(2)]
    assert len(applied(a)) == 2


def test_a_refusal_that_another_node_took_over_is_not_written(
    database: SqlDatabase, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = Node(database, "a")
    a.code(adt("A08", "1", phone=phone(1)))

    with second(database_url, ahead_s=LONG_S) as b:

        def overtaken(_: Any) -> Any:
            assert b.process() == 1
            raise HubError(Category.INCORRECT, "This node cannot make anything of it.")

        monkeypatch.setattr(a.messages._applying, "ready", overtaken)
        assert a.process() == 0

    assert a.states() == ["done"]
    assert len(applied(a)) == 1


def test_nodes_that_take_the_work_from_one_another_keep_the_order_and_lose_nothing(
    database: SqlDatabase, database_url: str
) -> None:
    """Each clock runs far ahead of the other's at each look, so that a lease has always ended for the other node."""
    a = Node(database, "a")
    for number in range(1, 31):
        # One and the same moment: only the order of arrival tells which is the last.
        a.code(adt("A08", str(number), number=f"2000{number % 3}", visit=f"V{number % 3}", phone=phone(number)))
    trouble: list[BaseException] = []

    def work(node: Node) -> None:
        try:
            while "received" in node.states():
                node.clock.now += timedelta(seconds=2 * LONG_S)
                node.messages.process_pending(4)
        except BaseException as error:
            trouble.append(error)

    with second(database_url, ahead_s=LONG_S) as b:
        threads = [threading.Thread(target=work, args=(node,)) for node in (a, b)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert trouble == []
    assert a.states() == ["done"] * 30
    assert len(applied(a)) == 30
    for patient in range(3):
        assert a.phones(f"2000{patient}") == [phone(n) for n in range(1, 31) if n % 3 == patient]
