"""Statistics of a feed count fields and show no value but often met codes of tables."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fhir_mappings.hl7v2.charset import decode_message
from hub import feed_stats
from hub.actor import Actor
from hub.boot import Services
from hub.errors import Category, HubError
from hub.feed_stats import FeedStatistics, Usage, is_coded
from hub.ports import MemberEndpoint
from tests.support.hub import register

KN = MemberEndpoint(id="KN/mllp", member="KN", kind="mllp", sending_facility="KNYY")
OPERATOR = Actor(institution="YY", roles=frozenset({"operator"}))


def message(number: int = 1, *, name: str = "LI^SI", sex: str = "M", pid: str = "", more: str = "") -> bytes:
    return (
        f"MSH|^~\\&|HIS|KNYY|YIXIE|HUB|20250611083000||ADT^A01|{number}|P|2.4\r"
        f'PID|1||{number}~A{number}||{name}||19800101|{sex}||""{pid}\r'
        f"PV1|1|I|||||||||||||||||V{number}\r{more}"
    ).encode()


def told(*messages: bytes) -> dict[str, Any]:
    usage = Usage()
    for one in messages:
        usage.add(decode_message(one))
    return usage.told()


def rows(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["field"]: one for one in found["fields"]}


def test_a_field_is_told_by_share_length_repetitions_and_different_values() -> None:
    found = rows(told(message(1), message(2, name="WANG^XIAOMING"), message(3, name=""), message(4, name='""')))
    assert (found["PID-5"]["valued"], found["PID-5"]["null"]) == (0.5, 0.25)
    assert found["PID-5"]["longest"] == len("WANG^XIAOMING")
    assert found["PID-5"]["distinct"] == 2
    assert found["PID-3"]["repetitions"] == 2
    assert (found["PID-10"]["valued"], found["PID-10"]["null"]) == (0.0, 1.0)
    assert "PID-9" not in found


def test_a_segment_that_repeats_counts_each_time() -> None:
    found = rows(told(message(more="NK1|1|A\rNK1|2\r")))
    assert (found["NK1-2"]["segments"], found["NK1-2"]["valued"]) == (2, 0.5)


def test_only_codes_of_tables_that_are_often_met_are_shown() -> None:
    found = told(
        *(message(number, sex="M" if number < 8 else "王小明" if number == 8 else "LIXIAOMING") for number in range(10))
    )
    assert rows(found)["PID-8"]["codes"] == {"M": 8}
    shown = {name for name, row in rows(found).items() if row["codes"]}
    assert shown == {"PID-8", "PV1-2"}
    text = json.dumps(found, ensure_ascii=False)
    assert not any(value in text for value in ("LI^SI", "19800101", "王小明", "LIXIAOMING"))


def test_which_fields_are_coded_is_the_standards_word() -> None:
    assert is_coded("PID", 8, "2.4")
    assert not is_coded("PID", 5, "2.4")
    assert not is_coded("ZPI", 1, "2.4")
    assert not is_coded("PID", 8, "9.9")


def test_character_sets_versions_and_events_are_counted_and_so_is_what_cannot_be_read() -> None:
    chinese = message(2, name="李^秀英").decode().encode("gb18030").replace(b"|2.4", b"|2.3||||||UNICODE UTF-8")
    found = told(message(1), chinese, b"nothing")
    assert (found["messages"], found["unreadable"], found["charset_doubtful"]) == (3, 1, 1)
    assert found["events"] == {"ADT^A01": 2}
    assert found["versions"] == {"2.4": 1, "2.3": 1}
    assert {"charset": "gb18030", "declared": "UNICODE UTF-8", "messages": 1} in found["charsets"]


def test_memory_is_bounded_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_stats, "MAX_DISTINCT", 3)
    found = rows(told(*(message(number) for number in range(9))))
    assert (found["PV1-19"]["distinct"], found["PV1-19"]["distinct_capped"]) == (3, True)
    monkeypatch.setattr(feed_stats, "MAX_FIELDS", 2)
    assert len(told(message())["fields"]) == 2


def test_the_journal_of_a_feed_is_counted_newest_first_and_the_look_is_audited(hub_services: Services) -> None:
    register(hub_services, KN)
    for number in range(3):
        hub_services.messages.receive(message(number), "10.0.0.1:1")
    found = FeedStatistics(hub_services).run(OPERATOR, "KN", last=2)
    assert (found["endpoint"], found["messages"]) == ("KN/mllp", 2)
    events = hub_services.database.read(lambda tx: tx.audit.search({}, institution=None, limit=50, before=None))
    assert "feed-statistics" in json.dumps(events, default=str)


@pytest.mark.parametrize(
    ("actor", "endpoint", "category"),
    [
        (OPERATOR, "ZZ", Category.NOT_FOUND),
        (Actor(institution="QH", roles=frozenset({"admin"})), "KN/mllp", Category.NOT_FOUND),
        (Actor(institution="KN", roles=frozenset({"physician"})), "KN/mllp", Category.FORBIDDEN),
    ],
)
def test_who_is_not_the_feeds_owner_learns_nothing(
    sqlite_services: Services, actor: Actor, endpoint: str, category: Category
) -> None:
    register(sqlite_services, KN)
    with pytest.raises(HubError) as refused:
        FeedStatistics(sqlite_services).run(actor, endpoint, last=10)
    assert refused.value.category is category
