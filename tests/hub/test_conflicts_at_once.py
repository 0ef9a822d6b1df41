"""Instances on their way in while somebody decides about their study: two processes at once on either database.

SQLite lets one of them write at a time. On PostgreSQL both do, each without sight of what the other has not committed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from hub import conflicts
from hub.actor import HUB, Actor
from hub.boot import Services
from hub.deletion import Deletion
from hub.ports import StudyKey
from storage.sql.database import SqlDatabase
from storage.sql.imaging import SqlImaging
from tests.support.databases import opened
from tests.support.images import KN, STUDY, FakeClock, ct, receive, resources, services

KEY = StudyKey(owner="KN", StudyInstanceUID=STUDY)
OTHER = {"PatientID": "20001", "PatientName": "LI^NA=李^娜", "PatientSex": "F", "PatientBirthDate": "19800101"}
#: Far more than anything here takes; only a test that fails waits so long.
DEADLINE_S = 60


@dataclass(frozen=True)
class Two:
    """Two processes on one database: one that receives, and one at which a person decides."""

    receiving: Services
    deciding: Services
    threads: ThreadPoolExecutor

    @property
    def sqlite(self) -> bool:
        database: Any = self.deciding.database
        return bool(database.engine.dialect.name == "sqlite")

    def run(self, work: Callable[[], Any]) -> Future[Any]:
        """Run *work* beside the test."""
        return self.threads.submit(work)

    def until_it_waits(self, one: Future[Any]) -> None:
        """Return when *one* has ended or waits for a lock; on SQLite at once, for there it waits for its turn."""
        database: Any = self.deciding.database
        while not self.sqlite and not one.done():
            with database.engine.connect() as connection:
                waiting = connection.execute(
                    sa.text(
                        "SELECT 1 FROM pg_locks JOIN pg_stat_activity USING (pid)"
                        " WHERE NOT granted AND datname = current_database()"
                    )
                )
                if waiting.first() is not None:
                    return
            wait([one], timeout=0.01)


@pytest.fixture
def two(database_url: str, tmp_path: Path) -> Iterator[Two]:
    clock = FakeClock()
    with (
        opened(database_url, node="a", clock=clock) as first,
        opened(database_url, node="b", clock=clock) as second,
        ThreadPoolExecutor(2) as threads,
    ):
        yield Two(services(first, tmp_path, clock), services(second, tmp_path, clock), threads)


class _Gate:
    """Lets a transaction come to a point, and stay there until it is told to go on."""

    def __init__(self) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self.go_on.wait(DEADLINE_S)


def _before_its_commit(patch: pytest.MonkeyPatch, database: Any) -> _Gate:
    """Stop the next write of *database* when all of its work is done and nothing of it is committed."""
    gate = _Gate()
    write = SqlDatabase.write

    def stopped(self: SqlDatabase, work: Callable[[Any], Any]) -> Any:
        def both(tx: Any) -> Any:
            value = work(tx)
            if not gate.reached.is_set():
                gate()
            return value

        return write(self, both if self is database else work)

    patch.setattr(SqlDatabase, "write", stopped)
    return gate


def _shown(hub: Services) -> list[str]:
    return [row.InstanceNumber for row in hub.imaging.retrieve(KN, STUDY)]


def _decide(hub: Services, decision: str) -> StudyKey:
    (task,) = [one for one in resources(hub, "Task") if one["code"]["coding"][0]["code"] == conflicts.PATIENT]
    return hub.database.write(lambda tx: conflicts.settle(tx, hub, task["id"], decision, HUB))


@pytest.mark.parametrize("series", [1, 2], ids=["of a series it knows", "of a new series"])
def test_an_image_on_its_way_in_does_not_stay_in_a_study_that_becomes_anothers(
    two: Two, monkeypatch: pytest.MonkeyPatch, series: int
) -> None:
    receive(two.receiving, ct(1))
    receive(two.deciding, ct(2, **OTHER))
    gate = _before_its_commit(monkeypatch, two.receiving.database)
    arriving = two.run(lambda: receive(two.receiving, ct(3, series=series)))
    assert gate.reached.wait(DEADLINE_S)
    deciding = two.run(lambda: _decide(two.deciding, "replace"))
    two.until_it_waits(deciding)
    gate.go_on.set()
    assert arriving.result(DEADLINE_S) == "new"
    assert deciding.result(DEADLINE_S) == KEY
    assert _shown(two.deciding) == ["2"]


@pytest.mark.parametrize("series", [1, 2], ids=["of a series it knows", "of a new series"])
def test_an_image_that_comes_while_the_study_becomes_anothers_is_held(
    two: Two, monkeypatch: pytest.MonkeyPatch, series: int
) -> None:
    receive(two.receiving, ct(1))
    receive(two.deciding, ct(2, **OTHER))
    gate = _before_its_commit(monkeypatch, two.deciding.database)
    deciding = two.run(lambda: _decide(two.deciding, "replace"))
    assert gate.reached.wait(DEADLINE_S)
    arriving = two.run(lambda: receive(two.receiving, ct(3, series=series)))
    two.until_it_waits(arriving)
    gate.go_on.set()
    assert deciding.result(DEADLINE_S) == KEY
    assert arriving.result(DEADLINE_S) == "held"
    assert _shown(two.deciding) == ["2"]


@pytest.mark.parametrize("decision", ["replace", "accept"])
def test_an_image_of_the_person_who_is_let_in_does_not_stay_held(
    two: Two, monkeypatch: pytest.MonkeyPatch, decision: str
) -> None:
    receive(two.receiving, ct(1))
    receive(two.deciding, ct(2, **OTHER))
    gate = _before_its_commit(monkeypatch, two.receiving.database)
    arriving = two.run(lambda: receive(two.receiving, ct(3, **OTHER)))
    assert gate.reached.wait(DEADLINE_S)
    deciding = two.run(lambda: _decide(two.deciding, decision))
    two.until_it_waits(deciding)
    gate.go_on.set()
    assert arriving.result(DEADLINE_S) == "held"
    deciding.result(DEADLINE_S)
    assert _shown(two.deciding) == (["2", "3"] if decision == "replace" else ["1", "2", "3"])


def test_other_bytes_that_come_while_the_instance_is_being_deleted_are_shown_to_nobody(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = Actor(institution="KN", practitioner="9001", roles=frozenset({"admin"}))
    for number in (1, 2):
        receive(two.receiving, ct(number))
    gate = _before_its_commit(monkeypatch, two.deciding.database)
    uid = f"{STUDY}.1.2"
    deleting = two.run(
        lambda: Deletion(two.deciding).delete(admin, STUDY, SOPInstanceUID=uid, reason="wrong side marker")
    )
    assert gate.reached.wait(DEADLINE_S)
    arriving = two.run(lambda: receive(two.receiving, ct(2, StudyDescription="changed")))
    two.until_it_waits(arriving)
    gate.go_on.set()
    assert deleting.result(DEADLINE_S) == 1
    assert arriving.result(DEADLINE_S) == "conflict"
    assert _shown(two.deciding) == ["1"]


def test_a_whole_study_is_deleted_with_what_is_on_its_way_in(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    admin = Actor(institution="KN", practitioner="9001", roles=frozenset({"admin"}))
    receive(two.receiving, ct(1))
    gate = _before_its_commit(monkeypatch, two.receiving.database)
    arriving = two.run(lambda: receive(two.receiving, ct(2)))
    assert gate.reached.wait(DEADLINE_S)
    deleting = two.run(lambda: Deletion(two.deciding).delete(admin, STUDY, reason="wrong patient"))
    two.until_it_waits(deleting)
    gate.go_on.set()
    assert arriving.result(DEADLINE_S) == "new"
    assert deleting.result(DEADLINE_S) == 2
    assert two.deciding.database.read(lambda tx: SqlImaging(tx).instances_of(KEY)) == []  # type: ignore[arg-type]
