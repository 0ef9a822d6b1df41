"""What the store of small facts must do, on both databases."""

from __future__ import annotations

import pytest

from storage.sql.database import SqlDatabase
from tests.support.databases import opened


def test_a_fact_is_the_last_that_was_kept_and_survives_a_restart(database: SqlDatabase, database_url: str) -> None:
    assert database.read(lambda tx: tx.facts.get("view a")) is None
    for value in ("1", "郑 2"):
        database.write(lambda tx, value=value: tx.facts.keep("view a", value))
    database.write(lambda tx: tx.facts.keep("view b", "3"))
    with opened(database_url) as again:
        assert again.read(lambda tx: (tx.facts.get("view a"), tx.facts.get("view b"))) == ("郑 2", "3")


def test_a_fact_goes_with_its_transaction(database: SqlDatabase) -> None:
    def broken(tx: object) -> None:
        tx.facts.keep("view a", "1")  # type: ignore[attr-defined]
        raise LookupError

    with pytest.raises(LookupError):
        database.write(broken)
    assert database.read(lambda tx: tx.facts.get("view a")) is None
