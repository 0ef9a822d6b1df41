"""Views of a real MariaDB: Chinese of any column, ties of time, cuts and changed views lose nothing and double nothing."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from adapters.dbview.reader import Reader
from adapters.dbview.settings import View
from adapters.worker.views import ViewLoop
from hub.boot import Services
from hub.errors import Category, HubError
from tests.support.mariadb import MariaServer
from tests.support.services import running

pytestmark = pytest.mark.tool("mariadbd")

ROW = """'YLYY' as "orgCode", concat('P', n) as "patientId", patient_name as "patientName", '男' as "patientSex",
  concat('A', n) as "accessionNumber", 'CT' as modality, state, '2025-06-12 08:30:00' as "updateTime" """
BY_NUMBER = f"select n, {ROW} from v_study where n >= :after order by n"
BY_TIME = f"select at, n, {ROW} from v_study where at >= :after order by at, n"
START = "2025-01-01 00:00:00"


class Ris:
    """A hospital's table of studies, its names in GBK and its states in utf8mb4, behind a view."""

    def __init__(self, server: MariaServer) -> None:
        self.server = server
        self.run = server.run
        self.run("drop view if exists v_study")
        self.run("drop table if exists study")
        self.run(
            "create table study (n integer primary key, patient_name varchar(64) character set gbk, at datetime,"
            " state varchar(64) character set utf8mb4, note longtext)"
        )
        self.run("create view v_study as select n, patient_name, at, state from study")

    def add(self, *numbers: int, name: str = "郑伟", at: str = "2025-06-12 08:30:00", state: str = "登记完成") -> None:
        for n in numbers:
            self.run(
                "insert into study values (:n, :name, :at, :state, '')", n=n, name=name, at=at, state=state
            )  # fmt: skip

    def view(self, query: str = BY_NUMBER, **changes: Any) -> View:
        given = {"name": "v", "institution": "YL", "url": self.server.url, "key": "n", "start": 0, **changes}
        return View(query=query, **given)


@pytest.fixture
def ris(mariadb: MariaServer) -> Ris:
    return Ris(mariadb)


def configured(folder: Path, ris: Ris, **changes: Any) -> Path:
    settings = {
        "name": "yl-ris", "institution": "YL", "url": ris.server.url, "query": BY_NUMBER, "key": "n", "start": 0,
        "overlap": 2, "poll_s": 10, **changes,
    }  # fmt: skip
    times = {"start"} if settings["start"] == START else set()
    rows = (f"{name} = {value if name in times else json.dumps(value)}\n" for name, value in settings.items())
    path = folder / "views.toml"
    path.write_text("[[view]]\n" + "".join(rows), "utf-8")
    return path


@pytest.fixture
def services(tmp_path: Path, ris: Ris) -> Iterator[Services]:
    with running(tmp_path / "data", views=configured(tmp_path, ris)) as one:
        yield one


def look(services: Services) -> None:
    """Look once, as a process that has just been started."""
    ViewLoop(services, lambda: 0.0).turn()


def rows(services: Services) -> list[dict[str, Any]]:
    found = services.database.read(lambda tx: tx.journal.search({"door": "hl7-view"}, limit=1000))
    return [json.loads(one.body or b"") for one in sorted(found, key=lambda one: one.seq)]


def numbers(services: Services) -> list[int]:
    return [int(one["n"]) for one in rows(services)]


def test_text_of_a_gbk_column_and_of_an_utf8mb4_column_is_right(services: Services, ris: Ris) -> None:
    names = ["郑伟", "镕基", "O'Neil;-- ", "张\\三"]
    for n, name in enumerate(names):
        ris.add(n, name=name, state="登记完成")
    ris.add(9, name="郑伟", state="𠮷😀")
    look(services)
    assert [one["patientName"] for one in rows(services)] == [*names, "郑伟"]
    assert [one["state"] for one in rows(services)] == ["登记完成"] * 4 + ["𠮷😀"]


def test_rows_of_one_second_are_all_taken_whatever_a_look_takes_and_however_often_it_starts_anew(
    tmp_path: Path, ris: Ris
) -> None:
    ris.add(*range(1, 8))
    ris.add(8, at="2025-06-12 08:30:01")
    path = configured(tmp_path, ris, query=BY_TIME, key="at", start=START, overlap=1, limit=3)
    with running(tmp_path / "data", views=path) as services:
        look(services)
        assert numbers(services) == [1, 2, 3]
        loop = ViewLoop(services, lambda: 0.0)
        for _ in range(6):
            loop.turn()
        assert numbers(services) == list(range(1, 9))


def test_the_server_sends_no_more_rows_than_a_look_takes(tmp_path: Path, ris: Ris) -> None:
    ris.run("insert into study select seq, '郑伟', '2025-06-12', '登记完成', '' from seq_1_to_20000")
    with running(tmp_path / "data", views=configured(tmp_path, ris, limit=5)) as services:
        loop = ViewLoop(services, lambda: 0.0)
        before = sent(ris)
        loop.turn()
        loop.turn()
        assert numbers(services) == list(range(1, 11))
        assert sent(ris) - before < 100


def sent(ris: Ris) -> int:
    """Return how many rows the server has sent to all its clients."""
    return int(ris.run("show global status like 'Rows_sent'")[0][1])


def test_what_is_new_behind_many_equal_rows_is_found(tmp_path: Path, ris: Ris) -> None:
    ris.add(1, 2)
    # A view whose join gives each row of the first study nine times.
    query = f"select n, {ROW} from v_study join seq_1_to_9 on n = 1 or seq = 1 where n >= :after order by n"
    with running(tmp_path / "data", views=configured(tmp_path, ris, query=query, limit=2)) as services:
        loop = ViewLoop(services, lambda: 0.0)
        for _ in range(4):
            loop.turn()
        assert numbers(services) == [1, 2]


def test_big_rows_come_whole(tmp_path: Path, ris: Ris) -> None:
    ris.add(1, 2)
    ris.run("update study set note = repeat('影像所见：', 200000)")
    query = f"select n, note, {ROW} from study where n >= :after order by n"
    assert [len(json.loads(row)["note"]) for _, row in Reader(ris.view(query)).rows(0)] == [1_000_000] * 2


@pytest.fixture
def _sockets_of_the_driver() -> Iterator[None]:
    """Let go of the sockets that PyMySQL leaves to the collector when a server refuses it, within the test that made them."""
    yield
    gc.collect()


#: For tests in which the driver is refused: that it leaves its socket to the collector is none of the hub's doing.
REFUSED = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@REFUSED
@pytest.mark.usefixtures("_sockets_of_the_driver")
def test_a_server_that_is_killed_is_told_of_once_and_asked_again(services: Services, ris: Ris) -> None:
    now = [0.0]
    loop = ViewLoop(services, lambda: now[0])
    ris.add(1, 2)
    loop.turn()
    ris.server.kill()
    try:
        with capture_logs() as told:
            for now[0] in (10.0, 20.0):
                loop.turn()
    finally:
        ris.server.start()
    assert [one["event"] for one in told if one["log_level"] == "warning"] == ["view_away"]
    assert "yl-ris" in told[0]["error"]
    ris.add(3)
    now[0] = 30.0
    loop.turn()
    assert numbers(services) == [1, 2, 3]


@REFUSED
@pytest.mark.usefixtures("_sockets_of_the_driver")
def test_a_server_that_is_killed_between_two_rows_loses_and_doubles_nothing(
    services: Services, ris: Ris, monkeypatch: pytest.MonkeyPatch
) -> None:
    ris.run("insert into study select seq, repeat('郑', 60), '2025-06-12', '登记完成', '' from seq_1_to_150")
    take = services.messages.receive

    def third(raw: bytes, *given: Any, **more: Any) -> bytes | None:
        if json.loads(raw)["n"] == "3":
            ris.server.kill()
        return take(raw, *given, **more)

    with monkeypatch.context() as cut:
        cut.setattr(services.messages, "receive", third)
        try:
            look(services)
        finally:
            ris.server.start()
    for _ in range(2):
        look(services)
    assert numbers(services) == list(range(1, 151))


def test_a_view_that_lost_its_key_is_told_and_one_that_won_a_column_goes_on(services: Services, ris: Ris) -> None:
    ris.add(1)
    look(services)
    ris.run("create or replace view v_study as select n as other, patient_name, at, state from study")
    with capture_logs() as told:
        look(services)
    assert [one["event"] for one in told if one["log_level"] == "warning"] == ["view_away"]
    ris.run("create or replace view v_study as select n, patient_name, at, state, note from study")
    ris.add(2)
    look(services)
    assert numbers(services) == [1, 2]


def test_nothing_is_ever_written(ris: Ris) -> None:
    ris.run("drop function if exists writes")
    ris.run("create function writes() returns int begin insert into study (n) values (100); return 1; end")
    with pytest.raises(HubError) as raised:
        list(Reader(ris.view("select writes() as n from dual where 0 = :after")).rows(0))
    assert raised.value.category is Category.UNAVAILABLE
    assert ris.run("select n from study") == []


def test_a_query_without_end_is_ended(ris: Ris) -> None:
    query = "select sleep(3600) as n from dual where 0 = :after"
    with pytest.raises(HubError) as raised:
        list(Reader(ris.view(query, timeout_s=1)).rows(0))
    assert raised.value.category is Category.UNAVAILABLE
