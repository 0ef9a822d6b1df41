"""What a database must be like before the hub trusts it with what it answers for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from hub.errors import Category, HubError
from storage.sql.engines import check_durability, engines
from tests.support.databases import PostgresServer


def test_a_sqlite_database_without_wal_is_refused_by_name(tmp_path: Path) -> None:
    weak = sa.create_engine(f"sqlite:///{tmp_path / 'weak.db'}")

    @sa.event.listens_for(weak, "connect")
    def _weaken(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA synchronous=NORMAL")

    with pytest.raises(HubError) as caught:
        check_durability(weak)
    weak.dispose()

    assert caught.value.category is Category.FAULT
    assert "journal_mode is delete" in caught.value.message
    assert "synchronous is 1" in caught.value.message


@pytest.mark.parametrize("whose", ["DATABASE", "ROLE"])
def test_a_postgres_that_does_not_wait_for_its_log_is_refused_by_name(postgres: PostgresServer, whose: str) -> None:
    url = postgres.new_database()
    parts = sa.engine.make_url(url)
    name = parts.database if whose == "DATABASE" else parts.username
    postgres.execute(f'ALTER {whose} "{name}" SET synchronous_commit = off')
    try:
        with pytest.raises(HubError) as caught:
            engines(url)
    finally:
        postgres.execute(f'ALTER {whose} "{name}" RESET synchronous_commit')

    assert "synchronous_commit is off" in caught.value.message
    assert "ALTER ROLE" in caught.value.remedy


def test_an_unknown_kind_of_database_and_one_that_is_away_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(HubError) as unknown:
        engines("mysql://x")
    with pytest.raises(HubError) as away:
        engines(f"postgresql://x@/hub?host={tmp_path}")

    assert (unknown.value.category, away.value.category) == (Category.INCORRECT, Category.UNAVAILABLE)
