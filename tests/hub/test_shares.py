"""For whom a message at the door counts, before it is read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fhir_mappings.hl7v2.tokenizer import parse
from hub.certificates import OPEN_LINE
from hub.config import Settings
from hub.ports import Database
from hub.shares import Share, Shares, names
from tests.support.v2 import MEMBERS, V2Hub, adt, endpoints

PEER = "127.0.0.1:40000"


def configured(database: Database, intake: str = "") -> V2Hub:
    hub = V2Hub(database, settings=Settings())
    members = tuple(replace(one, settings={"intake": intake} if one.code == "KN" else {}) for one in MEMBERS)
    hub.database.write(lambda tx: tx.members.replace(members, endpoints(), ()))
    hub.services.directory.refresh()
    return hub


def share(hub: V2Hub, raw: bytes, peer: str = PEER) -> Share:
    return Shares(hub.services).of(raw, peer, OPEN_LINE)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"MSH|^~\\&|HIS|KNYY|YIXIE|HUB|2025\rPID|1", ("HIS", "KNYY")),
        (b"\r\nMSH|^~\\&|HIS^1.2.3^ISO| KNYY ^x|", ("HIS", "KNYY")),
        (b"\xef\xbb\xbfMSH|^~\\&|HIS|KNYY", ("HIS", "KNYY")),
        (b"MSH#*~\\&#HIS*1#KN|YY#", ("HIS", "KN|YY")),
        (b"BHS|^~\\&|HIS|KNYY\rMSH|", ("HIS", "KNYY")),
        # The second byte of the first character is a vertical bar.
        ("MSH|^~\\&|HIS|鍇山医院|".encode("gb18030"), ("HIS", "鍇山医院")),
        (b"MSH|^~\\&|HIS\nMSH|^~\\&|X|Y", ("HIS", "")),
        (b"MSH|", ("", "")),
        (b"PID|^~\\&|HIS|KNYY", ("", "")),
        (b"", ("", "")),
        (b"MSH|\xff\xff\xff", ("", "")),
    ],
)
def test_the_header_names_the_sender(raw: bytes, expected: tuple[str, str]) -> None:
    assert names(raw) == expected


def test_a_member_has_its_own_policy_and_a_stranger_none(sqlite_database: Database) -> None:
    hub = configured(sqlite_database, "weight=3 connections=2")
    of_member = share(hub, adt("A01", "1").encode("gb18030"))
    assert (of_member.key, of_member.policy.weight, of_member.policy.connections) == ("KN", 3, 2)
    # Who only says that it is KN, from elsewhere, uses up nothing of KN's.
    stranger = share(hub, adt("A01", "1").encode("gb18030"), "10.9.8.7:40000")
    assert (stranger.key, stranger.policy.weight, stranger.policy.connections) == ("?10.9.8.7", 1, None)


def test_what_was_asked_for_is_known_for_a_moment(sqlite_database: Database) -> None:
    hub = configured(sqlite_database)
    seconds = [100.0]
    shares = Shares(hub.services, seconds=lambda: seconds[0])
    raw = adt("A01", "1").encode("gb18030")
    assert shares.known(raw, PEER, OPEN_LINE) is None
    assert shares.of(raw, PEER, OPEN_LINE) == shares.known(adt("A08", "2").encode("gb18030"), PEER, OPEN_LINE)
    seconds[0] += 2.0
    assert shares.known(raw, PEER, OPEN_LINE) is None


def test_the_days_bytes_are_those_stored_since_midnight(sqlite_database: Database) -> None:
    first = adt("A01", "1").encode("gb18030")
    hub = configured(sqlite_database, f"bytes-per-day={len(first)}")
    assert not share(hub, first).day_is_full
    hub.raw(first)
    assert share(hub, first).day_is_full
    assert not share(hub, first.replace(b"|KNYY|", b"|QHYY|", 1)).day_is_full
    hub.clock.now += hub.clock.now.resolution * 86_400_000_000
    assert not share(hub, first).day_is_full


@pytest.mark.parametrize(("asks", "code"), [({}, "AE"), ({"f15": "AL", "f16": "AL"}, "CE"), ({"f15": "NE"}, "")])
def test_what_is_refused_for_a_quota_is_not_kept_and_is_taken_when_it_comes_again(
    sqlite_database: Database, asks: dict[str, str], code: str
) -> None:
    hub = configured(sqlite_database)
    raw = adt("A01", "1", **asks).encode("gb18030")
    answer = Shares(hub.services).refuse(raw, PEER, OPEN_LINE, "messages-per-minute")
    said = "" if answer is None else parse(answer.decode("gb18030")).get("MSA-1")
    assert said == code
    assert hub.journal() == []
    hub.raw(raw)
    assert [one.state for one in hub.journal()] == ["done"]
