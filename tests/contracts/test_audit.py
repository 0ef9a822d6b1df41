"""What every audit log must do, on both databases (DESIGN rule 12)."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from hub.actor import Actor
from hub.clock import to_us
from hub.errors import Category, HubError
from hub.ports import AuditLine
from storage.sql.audit import chained, checkpoint, checkpoint_text, shards, verify
from storage.sql.database import SqlDatabase
from storage.sql.schema import audit, audit_checkpoint, audit_patient
from tests.support.databases import opened

NOW = datetime(2026, 5, 4, tzinfo=UTC)


def line(number: int = 0, institution: str = "YL", **more: Any) -> AuditLine:
    values: dict[str, Any] = {
        "type": "rest",
        "action": "R",
        "subtype": "read",
        "actor": Actor(institution=institution, practitioner="0231"),
        "recorded_at": NOW + timedelta(seconds=number),
        "detail": f"line {number}",
    }
    return AuditLine(**{**values, **more})


def write(database: SqlDatabase, *lines: AuditLine) -> None:
    for one in lines:
        database.write(lambda tx, one=one: tx.audit.write(one))


def sign(text: bytes) -> bytes:
    return b"signed:" + text


def check(text: bytes, signature: bytes) -> bool:
    return signature == sign(text)


def breaks(database: SqlDatabase) -> list[str]:
    with database.engine.connect() as connection:
        return list(verify(connection, check=check))


def mark(database: SqlDatabase, shard: str = "test") -> bool:
    return database.write(lambda tx: checkpoint(tx.connection, shard, sign=sign, now=NOW))  # type: ignore[attr-defined]


def tamper(database: SqlDatabase, statement: Any) -> None:
    database.write(lambda tx: tx.connection.execute(statement))  # type: ignore[attr-defined]


def search(
    database: SqlDatabase, criteria: Mapping[str, str] | None = None, institution: str | None = None, **more: Any
) -> list[str]:
    """Return the details of what is found."""
    found = database.read(
        lambda tx: tx.audit.search(
            criteria or {}, institution=institution, limit=more.get("limit", 99), before=more.get("before")
        )
    )
    return [_detail(one) for one in found]


def _detail(event: Mapping[str, Any]) -> str:
    text = str(event)
    start = text.index("line ")
    return text[start : start + 6]


@pytest.fixture
def chain(database: SqlDatabase) -> SqlDatabase:
    """Six lines, the first four under a checkpoint."""
    write(database, *(line(number) for number in range(4)))
    assert mark(database)
    write(database, line(4), line(5))
    return database


def test_an_untouched_chain_holds(chain: SqlDatabase) -> None:
    assert breaks(chain) == []


def test_a_checkpoint_is_made_only_where_the_chain_grew(chain: SqlDatabase) -> None:
    assert [mark(chain), mark(chain), mark(chain, "absent")] == [True, False, False]
    assert breaks(chain) == []


@pytest.mark.parametrize("seq", [1, 3, 6])
def test_an_edited_line_shows(chain: SqlDatabase, seq: int) -> None:
    tamper(chain, sa.update(audit).where(audit.c.seq == seq).values(body=b"{}"))

    assert any(f"line {seq} was changed" in one for one in breaks(chain))


@pytest.mark.parametrize(
    "column", ["institution", "who", "type", "subtype", "action", "outcome", "recorded_at", "correlation_id", "id"]
)
def test_a_column_that_no_longer_agrees_with_its_line_shows(chain: SqlDatabase, column: str) -> None:
    value: Any = 1 if column == "recorded_at" else "Z"
    tamper(chain, sa.update(audit).where(audit.c.seq == 2).values({column: value}))

    assert any("line 2" in one for one in breaks(chain))


def test_a_line_that_no_longer_names_its_patient_shows(database: SqlDatabase) -> None:
    write(database, line(0, patients=(("KN", "p1"), ("KN", "p2"))), line(1))
    whole = breaks(database)
    tamper(database, sa.delete(audit_patient).where(audit_patient.c.patient_id == "p2"))

    assert whole == []
    assert any("line 1" in one for one in breaks(database))


def test_a_deleted_line_shows(chain: SqlDatabase) -> None:
    tamper(chain, sa.delete(audit).where(audit.c.seq == 3))

    assert any("1 line(s) are missing from 3" in one for one in breaks(chain))


def test_a_deleted_beginning_shows(chain: SqlDatabase) -> None:
    tamper(chain, sa.delete(audit).where(audit.c.seq <= 2))

    assert any("2 line(s) are missing from 1" in one for one in breaks(chain))


def test_two_lines_that_changed_places_show(chain: SqlDatabase) -> None:
    for old, new in ((2, 99), (3, 2), (99, 3)):
        tamper(chain, sa.update(audit).where(audit.c.seq == old).values(seq=new))

    assert breaks(chain) != []


def test_an_inserted_line_shows(chain: SqlDatabase) -> None:
    tamper(
        chain,
        sa.insert(audit).values(
            shard="test", seq=7, id="x", recorded_at=1, institution="YL", who="", type="rest", subtype="read",
            action="R", outcome="0", correlation_id="", body=b"{}", hash=b"\1" * 32,
        ),
    )  # fmt: skip

    assert any("line 7 was changed" in one for one in breaks(chain))


def test_an_end_cut_off_behind_a_checkpoint_shows(chain: SqlDatabase) -> None:
    tamper(chain, sa.delete(audit).where(audit.c.seq >= 3))

    assert any("its end from 3 to 4 was cut off" in one for one in breaks(chain))


def test_a_whole_chain_that_vanished_shows(chain: SqlDatabase) -> None:
    tamper(chain, sa.delete(audit))

    assert any("its end from 1 to 4 was cut off" in one for one in breaks(chain))


def test_a_chain_computed_anew_disagrees_with_its_checkpoint(chain: SqlDatabase) -> None:
    def rechain(tx: Any) -> None:
        previous = b"\0" * 32
        for row in list(tx.connection.execute(sa.select(audit).order_by(audit.c.seq))):
            body = bytes(row.body).replace(b"line 1", b"line 9")
            previous = chained(previous, {**row._mapping, "body": body}, [])
            tx.connection.execute(sa.update(audit).where(audit.c.seq == row.seq).values(body=body, hash=previous))

    chain.write(rechain)

    assert any("line 4 does not agree with its signed checkpoint" in one for one in breaks(chain))


def test_a_checkpoint_of_another_hand_shows(chain: SqlDatabase) -> None:
    tamper(chain, sa.update(audit_checkpoint).values(signature=b"signed:by me"))

    assert any("is not signed by this hub" in one for one in breaks(chain))


def test_a_signature_covers_chain_place_and_hash() -> None:
    assert len({checkpoint_text("a", 1, b"x"), checkpoint_text("b", 1, b"x"), checkpoint_text("a", 2, b"x")}) == 3


def test_a_restart_continues_the_chain(chain: SqlDatabase, database_url: str) -> None:
    chain.close()
    with opened(database_url) as again:
        write(again, line(6), line(7))

        assert breaks(again) == []
        assert len(search(again)) == 8


def test_lines_of_a_function_that_failed_leave_no_gap(database: SqlDatabase) -> None:
    write(database, line(0))
    start = threading.Barrier(12)

    def run(number: int) -> None:
        def work(tx: Any) -> None:
            tx.audit.write(line(number))
            if number % 3 == 0:
                raise HubError(Category.INCORRECT, "no")

        start.wait(30)
        try:
            database.write(work)
        except HubError:
            assert number % 3 == 0

    threads = [threading.Thread(target=run, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    write(database, line(1))

    assert breaks(database) == []
    assert len(search(database)) == 10


def test_each_node_has_a_chain_of_its_own(database: SqlDatabase, database_url: str) -> None:
    with opened(database_url, node="second") as second:
        threads = [
            threading.Thread(target=write, args=(one, *(line(number) for number in range(8))))
            for one in (database, second)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    with database.engine.connect() as connection:
        names = shards(connection)

    assert names == ["second", "test"]
    assert breaks(database) == []
    assert len(search(database)) == 16


def test_two_processes_of_one_name_still_make_one_whole_chain(database: SqlDatabase, database_url: str) -> None:
    with opened(database_url, node="test") as twin:
        threads = [threading.Thread(target=write, args=(one, *[line(1)] * 6)) for one in (database, twin)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

    assert breaks(database) == []
    assert len(search(database)) == 12


# --- reading the trail ---------------------------------------------------------------------------------------------


def test_an_institution_finds_its_own_acts_and_those_on_its_patients(database: SqlDatabase) -> None:
    write(
        database,
        line(0, "YL", patients=(("KN", "p1"),)),
        line(1, "YL", patients=(("QH", "p2"),)),
        line(2, "KN", patients=(("KN", "p1"),)),
        line(3, "QM"),
    )

    assert search(database, institution="KN") == ["line 2", "line 0"]
    assert search(database, institution="YL") == ["line 1", "line 0"]
    assert search(database, institution="QM") == ["line 3"]
    assert search(database) == ["line 3", "line 2", "line 1", "line 0"]


def test_a_line_is_read_inside_the_reach_only(database: SqlDatabase) -> None:
    write(database, line(0, "YL", patients=(("KN", "p1"),)))
    id_ = database.read(lambda tx: tx.audit.search({}, institution=None, limit=1, before=None))[0]["id"]

    found = {
        who: database.read(lambda tx, who=who: tx.audit.get(id_, institution=who)) is not None
        for who in ("KN", "YL", "QH", None)
    }

    assert found == {"KN": True, "YL": True, "QH": False, None: True}


@pytest.mark.parametrize(
    ("criteria", "found"),
    [
        ({"patient": "p1"}, ["line 1"]),
        ({"agent": "KN"}, ["line 2"]),
        ({"subtype": "search"}, ["line 3"]),
        ({"action": "C"}, ["line 4"]),
        ({"outcome": "8"}, ["line 5"]),
        ({"correlation": "c6"}, ["line 6"]),
        ({"type": "login"}, ["line 7"]),
        ({"since": (NOW + timedelta(seconds=6)).isoformat()}, ["line 7", "line 6"]),
        ({"until": (NOW + timedelta(seconds=1)).isoformat()}, ["line 0"]),
        ({"agent": "KN", "patient": "p1"}, []),
    ],
    ids=str,
)
def test_lines_are_found_by(database: SqlDatabase, criteria: dict[str, str], found: list[str]) -> None:
    write(
        database,
        line(0),
        line(1, patients=(("KN", "p1"),)),
        line(2, "KN"),
        line(3, subtype="search"),
        line(4, action="C"),
        line(5, outcome="8"),
        line(6, correlation_id="c6"),
        line(7, type="login"),
    )

    assert search(database, criteria) == found


def test_an_unknown_criterion_is_refused(database: SqlDatabase) -> None:
    with pytest.raises(HubError):
        search(database, {"body": "x"})


def test_pages_go_back_in_time(database: SqlDatabase) -> None:
    write(database, *(line(number) for number in range(5)))

    assert search(database, limit=2) == ["line 4", "line 3"]
    assert search(database, limit=2, before=to_us(NOW + timedelta(seconds=3))) == ["line 2", "line 1"]


def test_a_page_ends_with_a_whole_millisecond(database: SqlDatabase) -> None:
    moments = [NOW + timedelta(microseconds=one) for one in (100, 200, 300, 5_000)]
    write(database, *(line(number, recorded_at=moment) for number, moment in enumerate(moments)))

    first = search(database, limit=2)

    assert first == ["line 3", "line 2", "line 1", "line 0"]
    assert search(database, limit=1) == ["line 3"]
    assert search(database, before=to_us(NOW + timedelta(milliseconds=5))) == ["line 2", "line 1", "line 0"]


def test_a_line_about_many_patients_is_found_once(database: SqlDatabase) -> None:
    write(database, line(0), line(1, patients=tuple(("KN", f"p{number}") for number in range(50))), line(2, "KN"))

    assert search(database, institution="KN", limit=2) == ["line 2", "line 1"]
