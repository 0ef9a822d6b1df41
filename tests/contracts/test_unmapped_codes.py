"""What the queue of unmapped codes must do, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hub.ports.codes import Sighting, UnmappedItem
from storage.sql.database import SqlDatabase

NOW = datetime(2025, 6, 11, 8, 0, tzinfo=UTC)


def sighting(code: str = "K", *, institution: str = "KN", count: int = 1, seq: int = 5, later_s: int = 0) -> Sighting:
    at = NOW + timedelta(seconds=later_s)
    return Sighting(institution=institution, system="s", code=code, count=count, seq=seq, at=at)


def items(database: SqlDatabase, institution: str | None = None, limit: int = 10) -> list[UnmappedItem]:
    return list(database.read(lambda tx: tx.unmapped_codes.items(institution, limit=limit)))


def test_sightings_add_up_to_one_item_whatever_their_order(database: SqlDatabase) -> None:
    database.write(lambda tx: tx.unmapped_codes.seen([sighting(count=2, seq=7, later_s=9)]))
    database.write(lambda tx: tx.unmapped_codes.seen([sighting(count=3, seq=4, later_s=1), sighting("NA")]))
    first, second = items(database)
    assert (first.code, first.count, first.first_seq, first.sample_seq) == ("K", 5, 4, 7)
    assert (first.first_seen, first.last_seen) == (NOW + timedelta(seconds=9),) * 2
    assert (second.code, second.count) == ("NA", 1)


def test_items_are_told_apart_by_institution_and_the_most_frequent_come_first(database: SqlDatabase) -> None:
    found = [sighting(), sighting(institution="QH", count=4), sighting("NA", count=2)]
    database.write(lambda tx: tx.unmapped_codes.seen(found))
    assert [(one.institution, one.code) for one in items(database)] == [("QH", "K"), ("KN", "NA"), ("KN", "K")]
    assert [one.code for one in items(database, "KN", limit=1)] == ["NA"]
    assert database.read(lambda tx: tx.unmapped_codes.number("KN")) == 2
    assert database.read(lambda tx: tx.unmapped_codes.number("YL")) == 0


def test_a_settled_item_is_gone_and_no_other(database: SqlDatabase) -> None:
    database.write(lambda tx: tx.unmapped_codes.seen([sighting(), sighting(institution="QH"), sighting("NA")]))
    (first,) = (one for one in items(database, "KN") if one.code == "K")
    database.write(lambda tx: tx.unmapped_codes.settle([first]))
    assert {(one.institution, one.code) for one in items(database)} == {("QH", "K"), ("KN", "NA")}
    database.write(lambda tx: tx.unmapped_codes.seen([]))
