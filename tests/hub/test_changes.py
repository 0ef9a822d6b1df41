"""The change feed: in order, without a gap, and only what the asker may see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from hub import changes, conflicts
from hub.actor import HUB, Actor
from hub.boot import Services
from hub.changes import ChangeFeed
from hub.deletion import Deletion
from hub.imaging_ids import study_resource_id
from hub.ports import Grant
from storage.sql.schema import journal
from tests.support.databases import PostgresServer, opened
from tests.support.images import KN, QH, STUDY, FakeClock, ct, receive, resources, services

YL = Actor(institution="YL")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def hub(database_url: str, tmp_path: Path, clock: FakeClock) -> Iterator[Services]:
    with opened(database_url, clock=clock) as database:
        yield services(database, tmp_path, clock)


@pytest.fixture
def feed(hub: Services) -> ChangeFeed:
    return ChangeFeed(hub)


def told(feed: ChangeFeed, actor: Actor = KN, since: int = 0) -> list[tuple[str, str, str]]:
    """Return (action, instance, state) of every change behind *since*, asked for one by one."""
    found = []
    while True:
        page = feed.since(actor, since, limit=1)
        found += [(one.action, one.SOPInstanceUID.rpartition(".")[2], one.state) for one in page.changes]
        assert page.since >= since
        since = page.since
        if not page.more:
            return found


def test_arrivals_deletions_and_returns_are_told_in_order(hub: Services, feed: ChangeFeed) -> None:
    desk = Deletion(hub)
    receive(hub, ct(1))
    receive(hub, ct(2))
    receive(hub, ct(1))
    desk.delete(KN, STUDY, reason="错误")
    assert told(feed) == [
        ("create", "1", "deleted"),
        ("create", "2", "deleted"),
        ("delete", "1", "deleted"),
        ("delete", "2", "deleted"),
    ]
    desk.restore(KN, STUDY, f"{STUDY}.1", f"{STUDY}.1.2", reason="误删")
    assert told(feed)[1:] == [
        ("create", "2", "current"),
        ("delete", "1", "deleted"),
        ("delete", "2", "current"),
        ("create", "2", "current"),
    ]


def test_a_version_that_takes_anothers_place_is_an_update(hub: Services, feed: ChangeFeed) -> None:
    receive(hub, ct(1))
    receive(hub, ct(1, SeriesDescription="Bone"))
    assert told(feed) == [("create", "1", "current")]
    (task,) = resources(hub, "Task")
    hub.database.write(lambda tx: conflicts.settle(tx, hub, task["id"], "replace", HUB))
    assert told(feed) == [("create", "1", "replaced"), ("update", "1", "current")]


def test_what_nobody_is_shown_is_not_told_until_it_is_admitted(hub: Services, feed: ChangeFeed) -> None:
    receive(hub, ct(1))
    assert receive(hub, ct(2, PatientID="20001", PatientName="LI^NA=李^娜")) == "held"
    assert told(feed) == [("create", "1", "current")]
    (task,) = resources(hub, "Task")
    hub.database.write(lambda tx: conflicts.settle(tx, hub, task["id"], "accept", HUB))
    assert told(feed) == [("create", "1", "current"), ("create", "2", "current")]


def test_only_what_the_asker_may_see_is_told(hub: Services, feed: ChangeFeed) -> None:
    receive(hub, ct(1))
    receive(hub, ct(5, study=f"{STUDY}.7"), QH)
    assert told(feed) == [("create", "1", "current")]
    assert told(feed, YL) == []
    assert feed.latest(YL) is None
    grant = Grant(
        grantee="YL", target_type="ImagingStudy", target_id=study_resource_id("QH", f"{STUDY}.7"), task_id="t"
    )
    hub.database.write(lambda tx: tx.grants.open(grant, now=hub.clock()))
    assert told(feed, YL) == [("create", "5", "current")]
    newest = feed.latest(YL)
    assert newest is not None
    assert newest.changes[0].owner == "QH"
    for actor in (Actor(institution="YY", roles=frozenset({"operator"})), Actor(institution="KN", patient="x")):
        assert told(feed, actor) == []


def test_a_page_says_where_to_go_on_and_whether_there_is_more(
    hub: Services, feed: ChangeFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "WINDOW", 2)
    monkeypatch.setattr(changes, "WINDOWS", 2)
    for number in range(1, 4):
        receive(hub, ct(number))
    for number in range(6):
        receive(hub, ct(number, study=f"{STUDY}.7"), QH)
    receive(hub, ct(4))
    first = feed.since(KN, 0, limit=2)
    assert (len(first.changes), first.more, first.since) == (2, True, first.changes[-1].sequence)
    # Nothing of the asker's stands in what was looked through, and the answer says so without an end.
    second = feed.since(KN, first.since, limit=9)
    assert ([one.SOPInstanceUID for one in second.changes], second.more) == ([f"{STUDY}.1.3"], True)
    assert [one[1] for one in told(feed)] == ["1", "2", "3", "4"]
    newest = feed.latest(KN)
    assert newest is not None
    assert newest.changes[0].SOPInstanceUID == f"{STUDY}.1.4"
    assert feed.since(KN, newest.since, limit=9).since == newest.since


def test_metadata_is_that_of_the_current_version(hub: Services, feed: ChangeFeed) -> None:
    receive(hub, ct(1))
    receive(hub, ct(2))
    Deletion(hub).delete(KN, STUDY, f"{STUDY}.1", f"{STUDY}.1.2", reason="错误")
    page = feed.since(KN, 0, metadata=True)
    assert list(page.metadata) == [("KN", f"{STUDY}.1.1")]
    assert "00100020" in page.metadata["KN", f"{STUDY}.1.1"]  # type: ignore[operator]


def test_a_number_is_not_passed_over_while_its_writer_has_not_committed(
    postgres: PostgresServer, tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer took a lower number first and commits last; the feed stops before it instead of passing it."""
    url = postgres.migrated_database()
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
    with opened(url, clock=clock) as database, closing(engine.connect()) as other:
        hub = services(database, tmp_path, clock)
        receive(hub, ct(1))
        arrival = {
            "door": "dimse",
            "institution": "KN",
            "correlation_id": "other",
            "message_type": "C-STORE",
            "control_id": f"{STUDY}.1.1",
            "digest": "0" * 64,
            "size": 1,
            "received_at": 0,
            "state": "done",
            "outcome": "new",
        }
        other.execute(sa.insert(journal).values(arrival))
        receive(hub, ct(2))
        monkeypatch.setattr(changes, "PATIENCE_S", 0.0)
        held = ChangeFeed(hub).since(KN, 1)
        monkeypatch.undo()
        # The feed looks in vain once; only then does the other commit.
        waited = ChangeFeed(hub, wait=lambda _: other.commit()).since(KN, 1)
        with closing(engine.connect()) as third:
            third.execute(sa.insert(journal).values(arrival))
            third.rollback()
            after = ChangeFeed(hub).since(KN, 3)
    engine.dispose()
    assert (list(held.changes), held.since) == ([], 1)
    assert [one.sequence for one in waited.changes] == [2, 3]
    # A number that was given up is no reason to wait.
    assert (list(after.changes), after.since) == ([], 4)
