"""The headers that a new image is held against: those of its own series come first, and cost no sort of the study."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hub.ports import ObjectRef, StudyKey
from storage.sql.database import SqlDatabase
from tests.storage.test_imaging_index import header
from tests.support.plans import plan

NOW = datetime(2025, 6, 11, 2, 0, tzinfo=UTC)
KEY = StudyKey(owner="KN", StudyInstanceUID="1.2")


def fill(database: SqlDatabase, series: str, count: int, *, since: int = 0) -> None:
    def work(tx: Any) -> None:
        for number in range(count):
            one = header(series=series, instance=str(number), attributes=f"{series}.{number}".encode())
            ref = ObjectRef(digest=f"d-{one.SOPInstanceUID}", size=10)
            tx.imaging.add("KN", one, ref, NOW + timedelta(seconds=since + number), "p", "c", resource_id="r")

    database.write(work)


def told(database: SqlDatabase, series: str, but: str = "") -> list[str]:
    return database.read(lambda tx: [one.decode() for one in tx.imaging.newest_headers(KEY, f"1.2.{series}", but=but)])


def test_the_series_comes_first_then_the_rest_of_the_study_newest_first_and_each_once(database: SqlDatabase) -> None:
    fill(database, "1", 3)
    fill(database, "2", 20, since=100)
    assert told(database, "1") == ["1.2", "1.1", "1.0", *(f"2.{number}" for number in reversed(range(20)))]
    found = told(database, "2", but="1.2.2.19")
    assert found[:16] == [f"2.{number}" for number in range(18, 2, -1)]
    assert sorted(found) == sorted(["1.0", "1.1", "1.2", *(f"2.{number}" for number in range(19))])


def test_the_newest_of_a_series_is_found_without_a_sort_of_the_study(sqlite_database: SqlDatabase) -> None:
    fill(sqlite_database, "1", 3)
    # Else each image of a study would read all that came before it.
    steps = plan(sqlite_database, lambda tx: next(tx.imaging.newest_headers(KEY, "1.2.1", but="1.2.1.2")))
    assert any("SeriesInstanceUID=?" in step for step in steps)
    assert not any("TEMP B-TREE" in step for step in steps)
