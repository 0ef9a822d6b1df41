"""Codes without a map: written down once, counted in memory, and nothing of any patient among them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from hub.actor import HUB
from hub.ports import Database, Tx
from hub.ports.codes import Sighting, UnmappedItem
from hub.unmapped_codes import MAX_ITEMS, is_recordable
from storage.sql.unmapped_codes import SqlUnmappedCodes
from tests.support.code_maps import local
from tests.support.v2 import V2Hub, adt, oru


def lab(control_id: str) -> str:
    """Return a result under the sender's own code."""
    result = "OBX|1|NM|K^血钾^L||4.1|mmol/L|3.5-5.3|N|||F|||20250611070000"
    return oru(control_id, "F", "4.1", at="20250611080000", obx=result)


@pytest.fixture
def hub(sqlite_database: Database) -> V2Hub:
    return V2Hub(sqlite_database)


def items(hub: V2Hub) -> dict[str, UnmappedItem]:
    found = hub.database.read(lambda tx: tx.unmapped_codes.items(None, limit=100))
    return {f"{one.system.rpartition('/KN/')[2]}|{one.code}": one for one in found}


def test_a_new_code_is_an_item_in_the_commit_of_its_message(hub: V2Hub) -> None:
    assert hub.code(lab("1")) == "AA"
    item = items(hub)["local|K"]
    (entry,) = hub.journal()
    assert (item.institution, item.system, item.count) == ("KN", local("KN"), 1)
    assert (item.first_seq, item.sample_seq) == (entry.seq, entry.seq)


def test_what_is_known_is_counted_in_memory_and_written_a_minute_later(
    hub: V2Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.code(lab("1"))
    written: list[int] = []
    seen = SqlUnmappedCodes.seen

    def counting(self: SqlUnmappedCodes, sightings: list[Sighting]) -> None:
        written.append(len(sightings))
        seen(self, sightings)

    monkeypatch.setattr(SqlUnmappedCodes, "seen", counting)
    for number in range(2, 5):
        hub.code(lab(str(number)))
    assert written == []
    assert items(hub)["local|K"].count == 1
    hub.clock.now += timedelta(seconds=61)
    hub.code(lab("5"))
    assert len(written) == 1
    item = items(hub)["local|K"]
    assert (item.count, item.sample_seq) == (5, hub.journal()[-1].seq)
    assert item.first_seen < item.last_seen


def test_a_repeated_or_replayed_message_is_not_counted_again(hub: V2Hub) -> None:
    hub.code(lab("1"))
    hub.code(lab("1"))

    hub.messages.replay(hub.journal()[0].seq, HUB)
    hub.clock.now += timedelta(seconds=61)
    hub.code(adt("A01", "2"))
    hub.code(lab("3"))
    assert items(hub)["local|K"].count == 2


def test_an_item_whose_message_came_to_nothing_is_made_by_the_next(hub: V2Hub) -> None:
    hub.tasks.trouble = RuntimeError("later")
    hub.code(lab("1"))
    assert items(hub) == {}
    hub.tasks.trouble = None
    hub.code(lab("2"))
    hub.clock.now += timedelta(seconds=61)
    hub.code(lab("3"))
    assert items(hub)["local|K"].count >= 2


@pytest.mark.parametrize(
    "code",
    [
        "11010519491231002X",
        "x13800138000",
        "110105491231002",
        "",
        "K" * 65,
        "a\x01b",
        "患者昨夜发热今晨体温三十九度且咳嗽",
    ],
)
def test_what_may_speak_of_a_person_is_not_written_down(code: str) -> None:
    assert not is_recordable(code)


@pytest.mark.parametrize("code", ["K", "102034", "血钾", "J18.900x001", "mmol/L", "10*9/L"])
def test_codes_are(code: str) -> None:
    assert is_recordable(code)


def test_a_sender_that_makes_codes_up_fills_no_database(hub: V2Hub) -> None:
    def fill(tx: Tx) -> None:
        at = hub.clock()
        tx.unmapped_codes.seen(
            [
                Sighting(institution="KN", system="s", code=str(number), count=1, seq=1, at=at)
                for number in range(MAX_ITEMS)
            ]
        )

    hub.database.write(fill)
    assert hub.code(lab("1")) == "AA"
    assert hub.database.read(lambda tx: tx.unmapped_codes.number("KN")) == MAX_ITEMS
    assert hub.database.read(lambda tx: tx.unmapped_codes.number("YL")) == 0
