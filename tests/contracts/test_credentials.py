"""What the credential store must do, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from hub.actor import Actor
from hub.errors import Category, HubError
from storage.sql.database import SqlDatabase

NOW = datetime(2026, 5, 4, tzinfo=UTC)
HOUR = timedelta(hours=1)
ACTOR = Actor(institution="KN", practitioner="0231", roles=frozenset({"doctor", "writer"}), client="his", patient="p1")


def add(database: SqlDatabase, token: str = "h1", *, until: datetime = NOW + HOUR, now: datetime = NOW) -> None:
    database.write(lambda tx: tx.credentials.add_token(token_hash=token, actor=ACTOR, expires_at=until, now=now))


def who(database: SqlDatabase, token: str = "h1", now: datetime = NOW) -> Actor | None:
    return database.read(lambda tx: tx.credentials.token(token, now=now))


def test_a_token_speaks_for_its_actor_until_it_expires(database: SqlDatabase) -> None:
    add(database)

    assert who(database) == ACTOR
    assert who(database, now=NOW + HOUR) is None
    assert who(database, "h2") is None


def test_a_revoked_token_speaks_for_nobody(database: SqlDatabase) -> None:
    add(database)
    database.write(lambda tx: tx.credentials.revoke("h1", now=NOW))

    assert who(database) is None


def test_tokens_that_ended_long_ago_are_forgotten(database: SqlDatabase) -> None:
    add(database)
    add(database, "h2", now=NOW + timedelta(days=2), until=NOW + timedelta(days=3))

    assert who(database) is None
    assert who(database, "h2") == ACTOR


def test_one_token_is_never_given_twice(database: SqlDatabase) -> None:
    add(database)

    with pytest.raises(HubError) as caught:
        add(database)

    assert caught.value.category is Category.CONFLICT


def test_a_client_given_again_has_the_new_secret(database: SqlDatabase) -> None:
    def add_client(secret: str, roles: list[str]) -> None:
        database.write(
            lambda tx: tx.credentials.add_client(
                client_id="his", secret_hash=secret, institution="KN", roles=roles, now=NOW
            )
        )

    add_client("one", ["system"])
    add_client("two", ["system", "admin"])

    assert database.read(lambda tx: tx.credentials.client("his")) == {
        "client_id": "his",
        "secret_hash": "two",
        "institution": "KN",
        "roles": ("admin", "system"),
    }
    assert database.read(lambda tx: tx.credentials.client("pacs")) is None
