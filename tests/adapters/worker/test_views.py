"""A view is read to its end, once, in order, from where the journal says; late rows and restarts lose and double nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from adapters.dbview.reader import Reader
from adapters.dbview.settings import View
from adapters.worker.views import ViewLoop, _Look
from hub.boot import Services
from hub.errors import Category, HubError
from hub.ports import Entry
from tests.support.databases import PostgresServer
from tests.support.quotas import with_intake
from tests.support.services import running

QUERY = 'select n, "orgCode", "patientId", "patientName", "patientSex", "accessionNumber", modality, state, "updateTime" from study where n >= :after order by n'


class Ris:
    """A hospital's database with a table of studies."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = sa.create_engine(url, poolclass=sa.NullPool)
        texts = ", ".join(f'"{name}" varchar(64)' for name in ("orgCode", "patientId", "patientName", "patientSex",
                          "accessionNumber", "modality", "state", "updateTime"))  # fmt: skip
        self.run(f"create table study (n integer primary key, {texts})")

    def run(self, statement: str, **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(sa.text(statement), values)

    def add(self, n: int, **changes: str) -> None:
        row = {
            "org": "YLYY", "pid": f"P{n}", "name": "郑伟", "sex": "男", "acc": f"A{n}", "mod": "CT",
            "state": "登记完成", "at": "2025-06-12 08:30:00", **changes,
        }  # fmt: skip
        self.run("insert into study values (:n, :org, :pid, :name, :sex, :acc, :mod, :state, :at)", n=n, **row)


@pytest.fixture(params=["sqlite", "postgresql"])
def ris(request: pytest.FixtureRequest, tmp_path: Path) -> Ris:
    if request.param == "sqlite":
        return Ris(f"sqlite:///{tmp_path}/ris.db")
    server: PostgresServer = request.getfixturevalue("postgres")
    return Ris(server.new_database().replace("postgresql://", "postgresql+psycopg://", 1))


def configured(folder: Path, ris: Ris, **changes: Any) -> Path:
    settings = {
        "name": "yl-ris", "institution": "YL", "url": ris.url, "query": QUERY, "key": "n", "start": 0,
        "overlap": 2, "poll_s": 10, **changes,
    }  # fmt: skip
    path = folder / "views.toml"
    path.write_text("[[view]]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()))
    return path


@pytest.fixture
def services(tmp_path: Path, ris: Ris) -> Iterator[Services]:
    with running(tmp_path / "data", views=configured(tmp_path, ris)) as one:
        yield one


class Clock:
    """Seconds as the test says."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def journal(services: Services) -> list[Entry]:
    found = services.database.read(lambda tx: tx.journal.search({"door": "hl7-view"}, limit=1000))
    return sorted(found, key=lambda one: one.seq)


def numbers(services: Services) -> list[str]:
    return [str(json.loads(one.body or b"")["n"]) for one in journal(services)]


def test_rows_are_taken_once_in_the_order_of_their_keys(services: Services, ris: Ris) -> None:
    for n in (2, 1, 3):
        ris.add(n)
    loop = ViewLoop(services, clock := Clock())
    loop.turn()
    clock.now = 10
    ris.add(4)
    loop.turn()
    assert numbers(services) == ["1", "2", "3", "4"]
    assert {(one.institution, one.state, one.peer) for one in journal(services)} == {("YL", "done", "view/yl-ris")}


def test_a_view_is_asked_only_when_it_is_due(services: Services, ris: Ris) -> None:
    loop = ViewLoop(services, clock := Clock())
    loop.turn()
    ris.add(1)
    clock.now = 9
    loop.turn()
    assert numbers(services) == []
    clock.now = 10
    loop.turn()
    assert numbers(services) == ["1"]


def test_a_row_that_was_committed_late_is_found_in_the_overlap_and_changed_ones_are_new(
    services: Services, ris: Ris
) -> None:
    ris.add(5)
    loop = ViewLoop(services, clock := Clock())
    loop.turn()
    ris.add(4)
    ris.run("update study set state = '检查完成' where n = 5")
    clock.now = 10
    loop.turn()
    assert numbers(services) == ["5", "4", "5"]


def test_a_process_that_starts_anew_goes_on_where_the_journal_ends(services: Services, ris: Ris) -> None:
    for n in range(1, 6):
        ris.add(n)
    ViewLoop(services, Clock()).turn()
    ris.add(6)
    ViewLoop(services, Clock()).turn()
    assert numbers(services) == ["1", "2", "3", "4", "5", "6"]
    # What lies before the overlap is not asked for again.
    ris.run("delete from study where n < 4")
    ris.add(1)
    ViewLoop(services, Clock()).turn()
    assert numbers(services)[6:] == []


def test_a_process_that_starts_anew_asks_for_its_mark_and_not_the_journal(
    services: Services, ris: Ris, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(1, 4):
        ris.add(n)
    ViewLoop(services, Clock()).turn()
    monkeypatch.setattr(_Look, "_journalled", lambda _: pytest.fail("the journal was searched"))
    ris.add(4)
    ViewLoop(services, Clock()).turn()
    assert numbers(services) == ["1", "2", "3", "4"]


def test_a_mark_of_before_marks_were_written_down_is_the_last_row_of_the_journal(services: Services, ris: Ris) -> None:
    for n in range(1, 6):
        ris.add(n)
    ViewLoop(services, Clock()).turn()
    services.database.write(lambda tx: tx.connection.execute(sa.text("delete from setting where key = 'view yl-ris'")))  # type: ignore[attr-defined]
    ris.run("delete from study")
    # Within the overlap of the last row, and before it.
    ris.add(2)
    ris.add(4)
    ViewLoop(services, Clock()).turn()
    assert numbers(services) == ["1", "2", "3", "4", "5"]
    ris.add(6)
    ViewLoop(services, Clock()).turn()
    assert numbers(services)[5:] == ["6"]


def test_a_look_that_broke_off_keeps_what_it_read(
    services: Services, ris: Ris, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(1, 6):
        ris.add(n)
    take = services.messages.receive
    with monkeypatch.context() as broken:

        def third(raw: bytes, *given: Any, **more: Any) -> bytes | None:
            if str(json.loads(raw)["n"]) == "3":
                raise HubError(Category.UNAVAILABLE, "x")
            return take(raw, *given, **more)

        broken.setattr(services.messages, "receive", third)
        with pytest.raises(HubError):
            ViewLoop(services, Clock()).turn()
    assert services.database.read(lambda tx: tx.facts.get("view yl-ris")) == "2"
    ViewLoop(services, Clock()).turn()
    assert numbers(services) == ["1", "2", "3", "4", "5"]


def test_a_node_that_lost_the_view_moves_no_mark(services: Services, ris: Ris, monkeypatch: pytest.MonkeyPatch) -> None:
    ris.add(1)
    take = services.messages.receive

    def late(raw: bytes, *given: Any, **more: Any) -> bytes | None:
        now = services.clock()
        for _ in range(2):
            services.database.write(lambda tx: tx.timers.lease("view yl-ris", services.node, now=now, lease_s=0))
        services.database.write(lambda tx: tx.facts.keep("view yl-ris", "7"))
        return take(raw, *given, **more)

    monkeypatch.setattr(services.messages, "receive", late)
    ViewLoop(services, Clock()).turn()
    assert services.database.read(lambda tx: tx.facts.get("view yl-ris")) == "7"


@pytest.mark.parametrize("kept", ['"x"', "[]"])
def test_a_mark_of_another_kind_is_told(services: Services, kept: str) -> None:
    services.database.write(lambda tx: tx.facts.keep("view yl-ris", kept))
    with pytest.raises(HubError, match="another key"):
        ViewLoop(services, Clock()).turn()


def test_more_rows_than_one_look_takes_are_taken_by_the_next_at_once(tmp_path: Path, ris: Ris) -> None:
    for n in range(1, 8):
        ris.add(n)
    # The overlap is wider than what one look takes, and a new process knows none of it.
    with running(tmp_path / "few", views=configured(tmp_path, ris, limit=2, overlap=100)) as services:
        for _ in range(4):
            ViewLoop(services, Clock()).turn()
        loop = ViewLoop(services, Clock())
        for _ in range(8):
            loop.turn()
        assert numbers(services) == [str(n) for n in range(1, 8)]


def test_a_row_that_is_refused_does_not_hold_up_the_rest(services: Services, ris: Ris) -> None:
    ris.add(1, state="?")
    ris.add(2, org="KNYY")
    ris.add(3)
    ViewLoop(services, Clock()).turn()
    assert [one.state for one in journal(services)] == ["refused", "refused", "done"]


def test_trouble_of_the_hub_itself_leaves_the_mark_where_it_is(
    services: Services, ris: Ris, monkeypatch: pytest.MonkeyPatch
) -> None:
    ris.add(1)
    ris.add(2)
    loop = ViewLoop(services, Clock())
    with monkeypatch.context() as broken:
        broken.setattr(
            services.messages, "receive", lambda *_, **__: (_ for _ in ()).throw(HubError(Category.UNAVAILABLE, "x"))
        )
        with pytest.raises(HubError):
            loop.turn()
    loop.turn()
    assert numbers(services) == ["1", "2"]


def test_a_database_that_is_away_is_asked_again_and_another_node_is_not_disturbed(services: Services, ris: Ris) -> None:
    loop = ViewLoop(services, clock := Clock())
    ris.run("alter table study rename to away")
    loop.turn()
    ris.run("alter table away rename to study")
    ris.add(1)
    now = services.clock()
    epoch = services.database.write(lambda tx: tx.timers.lease("view yl-ris", "test", now=now, lease_s=0))
    assert epoch is not None
    services.database.write(lambda tx: tx.timers.release("view yl-ris", epoch))
    services.database.write(lambda tx: tx.timers.lease("view yl-ris", "other", now=now, lease_s=60))
    clock.now = 10
    loop.turn()
    assert numbers(services) == []


def view_of(ris: Ris, query: str, **changes: Any) -> View:
    settings = {"name": "v", "institution": "YL", "url": ris.url, "key": "n", "start": 0, **changes}
    return View(query=query, **settings)


def test_nothing_is_ever_written(ris: Ris) -> None:
    ris.add(1)
    if ris.engine.dialect.name == "sqlite":
        query = "insert into study (n) select 100 where :after = 0 returning n"
    else:
        query = "with made as (insert into study (n) values (100) returning n) select n from made where n >= :after"
    with pytest.raises(HubError) as raised:
        list(Reader(view_of(ris, query)).rows(0))
    assert raised.value.category is Category.UNAVAILABLE
    assert [key for key, _ in Reader(view_of(ris, QUERY)).rows(0)] == [1]


def test_a_query_without_end_is_ended(ris: Ris) -> None:
    query = (
        "with recursive r(n) as (select 1 union all select n + 1 from r) select max(n) as n from r where n >= :after"
    )
    with pytest.raises(HubError) as raised:
        list(Reader(view_of(ris, query, timeout_s=1)).rows(0))
    assert raised.value.category is Category.UNAVAILABLE


def test_the_words_of_the_database_are_not_repeated(ris: Ris) -> None:
    with pytest.raises(HubError) as raised:
        list(Reader(view_of(ris, "select n from study where '郑伟' = :after and missing = 1")).rows(0))
    assert "郑伟" not in str(raised.value)


@pytest.mark.parametrize("query", ["select 1 as other where 0 = :after", "select 'x' as n where 0 = :after"])
def test_a_result_without_a_usable_key_is_refused(ris: Ris, query: str) -> None:
    with pytest.raises(HubError) as raised:
        list(Reader(view_of(ris, query)).rows(0))
    assert raised.value.category is Category.INCORRECT


def test_a_driver_that_is_not_there_is_named_at_the_start() -> None:
    view = View(name="v", institution="YL", url="oracle+nodriver://x", query="", key="n", start=0)
    with pytest.raises(HubError, match="driver"):
        Reader(view)


def test_beyond_the_members_quota_rows_stay_in_the_view_and_come_later(services: Services, ris: Ris) -> None:
    clock, quota = Clock(), with_intake(services, "YL", "messages-per-minute=2")
    for n in (1, 2, 3):
        ris.add(n)
    loop = ViewLoop(services, clock)
    loop.turn()
    assert numbers(services) == ["1", "2"]
    quota.now += 60
    clock.now += 10
    loop.turn()
    assert numbers(services) == ["1", "2", "3"]


def test_the_journal_says_what_is_wrong_with_a_row_that_cannot_be_read(services: Services, ris: Ris) -> None:
    ris.add(1, name="")
    ris.add(2, state="?")
    ViewLoop(services, Clock()).turn()
    said = {one.outcome.partition(" ")[0]: one.outcome for one in journal(services)}
    assert set(said) == {"101", "102"}
    assert "patientName" in said["101"]
    assert "state" in said["102"]
