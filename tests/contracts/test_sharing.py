"""What the store of share links must do, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from hub.errors import Category, HubError
from hub.ports.sharing import Limits, Share, Tried
from storage.sql.database import SqlDatabase
from tests.support.databases import opened

NOW = datetime(2026, 5, 4, tzinfo=UTC)
HOUR = timedelta(hours=1)
LINK = Limits(attempts=5, lock_s=900, ever=12)
ADDRESS = Limits(attempts=8, lock_s=900)
SHARE = Share(
    id="s1",
    institution="KN",
    StudyInstanceUID="1.2.3",
    studies={"1.2.3": "p1", "1.2.4": "p2"},
    secret_hash="h1",
    password_hash="a1",
    created_by="0231",
    created_at=NOW,
    expires_at=NOW + HOUR,
    purpose="外院就诊",
    note="",
)


def add(database: SqlDatabase, share: Share = SHARE) -> None:
    database.write(lambda tx: tx.sharing.add(share))


def attempt(database: SqlDatabase, link: str = "link:1", address: str = "address:1", now: datetime = NOW) -> Tried:
    return database.write(lambda tx: tx.sharing.attempt({link: LINK, address: ADDRESS}, now=now))


def test_a_link_is_found_by_its_secret_its_id_and_its_study(database: SqlDatabase) -> None:
    add(database)
    later = replace(SHARE, id="s2", secret_hash="h2", created_at=NOW + HOUR)
    add(database, later)

    assert database.read(lambda tx: tx.sharing.by_secret("h1")) == SHARE
    assert database.read(lambda tx: tx.sharing.get("s1")) == SHARE
    assert database.read(lambda tx: tx.sharing.of_study("KN", "1.2.3")) == [later, SHARE]
    assert database.read(lambda tx: tx.sharing.of_study("QH", "1.2.3")) == []
    assert database.read(lambda tx: tx.sharing.by_secret("h3")) is None


def test_one_secret_never_opens_two_links(database: SqlDatabase) -> None:
    add(database)

    with pytest.raises(HubError) as caught:
        add(database, replace(SHARE, id="s2"))

    assert caught.value.category is Category.CONFLICT


def test_a_token_ends_with_its_time_its_link_and_its_revocation(database: SqlDatabase) -> None:
    add(database)
    add(database, replace(SHARE, id="s2", secret_hash="h2"))
    for token, share in (("t1", "s1"), ("t2", "s2")):
        until = NOW + 2 * HOUR
        database.write(
            lambda tx, token=token, share=share, until=until: tx.sharing.add_token(
                token_hash=token, share=share, expires_at=until, now=NOW
            )
        )

    def who(token: str, now: datetime = NOW) -> str | None:
        found = database.read(lambda tx: tx.sharing.token(token, now=now))
        return found.id if found is not None else None

    assert (who("t1"), who("t2"), who("t3")) == ("s1", "s2", None)
    assert who("t1", NOW + HOUR) is None
    database.write(lambda tx: tx.sharing.revoke("s1", by="0231", now=NOW))
    assert (who("t1"), who("t2")) == (None, "s2")


def test_revoking_again_keeps_the_first_date(database: SqlDatabase) -> None:
    add(database)
    for by, now in (("0231", NOW), ("0232", NOW + HOUR)):
        database.write(lambda tx, by=by, now=now: tx.sharing.revoke("s1", by=by, now=now))

    found = database.read(lambda tx: tx.sharing.get("s1"))
    assert found is not None
    assert (found.revoked_by, found.revoked_at) == ("0231", NOW)


def test_the_last_failure_of_a_row_locks_and_time_unlocks(database: SqlDatabase) -> None:
    assert [attempt(database).allowed for _ in range(5)] == [True] * 5
    assert attempt(database) == Tried(locked_until=NOW + timedelta(minutes=15))
    assert attempt(database, now=NOW + timedelta(minutes=14)).allowed is False
    assert attempt(database, now=NOW + timedelta(minutes=15)).allowed is True


def test_failures_that_are_longer_ago_than_a_lock_do_not_count_for_one(database: SqlDatabase) -> None:
    times = [NOW + number * timedelta(minutes=16) for number in range(8)]

    assert [attempt(database, address=f"address:{one}", now=one).allowed for one in times] == [True] * 8


def test_a_link_that_was_guessed_at_often_is_closed_for_good(database: SqlDatabase) -> None:
    tried = [attempt(database, address=f"address:{day}", now=NOW + timedelta(days=day)) for day in range(14)]

    assert [one.allowed for one in tried] == [True] * 12 + [False] * 2
    assert tried[12].closed
    assert database.read(lambda tx: tx.sharing.closed("link:1", LINK)) is True
    assert database.read(lambda tx: tx.sharing.closed("link:2", LINK)) is False


def test_an_address_is_locked_whichever_links_it_tries(database: SqlDatabase) -> None:
    allowed = [attempt(database, link=f"link:{number}").allowed for number in range(9)]

    assert allowed == [True] * 8 + [False]
    assert attempt(database, link="link:9", address="address:2").allowed


def test_knowing_one_password_does_not_clear_an_address_of_other_guesses(database: SqlDatabase) -> None:
    """Seven wrong guesses and one right password, again and again: the eighth guess is the last."""
    for number in range(7):
        assert attempt(database, link=f"link:{number}").allowed
    assert attempt(database, link="link:own").allowed
    database.write(lambda tx: tx.sharing.succeeded("link:own", "address:1"))
    assert attempt(database, link="link:8").allowed

    assert not attempt(database, link="link:9").allowed


def test_success_forgets_the_failures_before_it_but_not_that_there_were_some(database: SqlDatabase) -> None:
    for _ in range(3):
        for _ in range(4):
            assert attempt(database, address="address:2").allowed
        database.write(lambda tx: tx.sharing.succeeded("link:1", "address:2"))
        database.write(lambda tx: tx.sharing.succeeded("link:9", "address:2"))

    # Three of each four were wrong.
    assert [attempt(database, address="address:3").allowed for _ in range(4)] == [True, True, True, False]


def test_of_many_attempts_at_once_no_more_are_let_through_than_of_as_many_in_turn(database: SqlDatabase) -> None:
    with ThreadPoolExecutor(8) as pool:
        tried = list(pool.map(lambda number: attempt(database, address=f"address:{number}"), range(24)))

    assert sum(one.allowed for one in tried) == 5


def test_nodes_that_are_asked_at_once_let_no_more_through_than_one(database_url: str) -> None:
    """Each node has a writer and connections of its own, as processes have."""
    with ExitStack() as stack:
        nodes = [stack.enter_context(opened(database_url, node=f"node-{number}")) for number in range(3)]
        pool = stack.enter_context(ThreadPoolExecutor(9))
        tried = list(pool.map(lambda number: attempt(nodes[number % 3], address=f"address:{number}"), range(27)))

    assert sum(one.allowed for one in tried) == 5


def test_links_that_join_two_patients_end_and_those_of_one_or_of_others_stay(database: SqlDatabase) -> None:
    add(database)
    add(database, replace(SHARE, id="s2", secret_hash="h2", studies={"1.2.3": "p1"}))
    add(database, replace(SHARE, id="s3", secret_hash="h3", institution="QH"))
    add(database, replace(SHARE, id="s4", secret_hash="h4", expires_at=NOW))

    def joining(patients: set[str], others: set[str]) -> list[str]:
        return list(database.write(lambda tx: tx.sharing.revoke_joining("KN", patients, others, by="desk", now=NOW)))

    assert joining({"p1"}, {"p3"}) == joining({"p1"}, set()) == []
    assert joining({"p1"}, {"p2", "p3"}) == ["s1"]
    ended = database.read(lambda tx: tx.sharing.get("s1"))
    assert ended is not None
    assert (ended.revoked_at, ended.revoked_by) == (NOW, "desk")
    assert joining({"p1"}, {"p2"}) == []
    states = [database.read(lambda tx, id_=id_: tx.sharing.get(id_)) for id_ in ("s2", "s3", "s4")]
    assert [one.revoked_at if one is not None else NOW for one in states] == [None, None, None]
