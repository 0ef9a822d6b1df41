"""Finding messages by patient number and by words, on both databases."""

from __future__ import annotations

import pytest

from hub.actor import Actor
from hub.errors import Category, HubError
from hub.message_desk import MessageDesk
from hub.message_search import MessageSearch
from storage.sql.database import SqlDatabase
from tests.support.v2 import V2Hub

OPERATOR = Actor(institution="YY", roles=frozenset({"operator"}))
KN = Actor(institution="KN", roles=frozenset({"admin"}))
QH = Actor(institution="QH", roles=frozenset({"admin"}))


@pytest.fixture
def v2(database: SqlDatabase) -> V2Hub:
    return V2Hub(database)


def admission(number: str, name: str, control_id: str, *, facility: str = "KNYY", note: str = "") -> str:
    return (
        f"MSH|^~\\&|HIS|{facility}|YIXIE|HUB|20250611083000||ADT^A08^ADT_A01|{control_id}|P|2.4\r"
        "EVN|A08|20250611083000\r"
        f"PID|1||{number}^^^{facility}^PI||{name}||19700101|M\r"
        f"PV1|1|O|||||||||||||||||V{number}\r" + (f"NTE|1||{note}\r" if note else "")
    )


def found(v2: V2Hub, actor: Actor = OPERATOR, **criteria: str) -> list[str]:
    return [one["control_id"] for one in MessageDesk(v2.services).messages(actor, criteria, limit=9)]


def test_a_patient_number_finds_the_messages_of_its_institution(v2: V2Hub) -> None:
    for text in (
        admission("10086", "王小明", "A1"),
        admission("10087", "李小红", "A2"),
        admission("10086", "赵大宝", "A3", facility="QHYY"),
        admission("10086", "王小明", "A4"),
    ):
        assert v2.code(text) == "AA"

    assert found(v2, number="10086", institution="KN") == ["A4", "A1"]
    assert found(v2, number="10086") == ["A4", "A3", "A1"]
    assert found(v2, KN, number="10086") == ["A4", "A1"]
    assert found(v2, QH, number="10086") == ["A3"]
    assert found(v2, QH, number="10086", institution="KN") == ["A3"]
    assert found(v2, QH, number="10087") == []
    assert found(v2, number="10086", institution="KN", text="A4") == ["A4"]


def test_a_number_that_was_merged_still_finds_its_messages(v2: V2Hub) -> None:
    merge = (
        "MSH|^~\\&|HIS|KNYY|YIXIE|HUB|20250611093000||ADT^A40^ADT_A39|M1|P|2.4\r"
        "EVN|A40|20250611093000\rPID|1||10086^^^KNYY^PI||王小明\rMRG|10085^^^KNYY^PI\r"
    )
    for text in (admission("10085", "王小明", "A1"), admission("10086", "王小明", "A2"), merge):
        assert v2.code(text) == "AA"

    assert "A1" in found(v2, number="10085", institution="KN")
    assert "A2" in found(v2, number="10086", institution="KN")


def test_pages_of_a_number_with_several_patients_leave_nothing_out(v2: V2Hub) -> None:
    sent = []
    for turn in range(4):
        for facility in ("KNYY", "QHYY"):
            sent.append(f"{facility}{turn}")
            assert v2.code(admission("10086", "王小明", sent[-1], facility=facility)) == "AA"
    search = MessageSearch(v2.services, OPERATOR, {"number": "10086"})

    seen: list[str] = []
    entries, after = search.page(limit=3)
    while entries:
        seen += [one.control_id for one in entries]
        if after is None:
            break
        entries, after = search.page(limit=3, before_seq=after)

    assert seen == sent[::-1]


@pytest.mark.parametrize("charset", ["gb18030", "utf-8"])
def test_words_are_found_and_bytes_that_only_look_like_them_are_not(v2: V2Hub, charset: str) -> None:
    assert v2.code(admission("1", "王小明", "A1", note="左肺上叶结节"), charset=charset) == "AA"
    # In GBK the second byte of one character and the first of the next are a character of their own.
    inside = b"\xb0\xb0\xa1\xb0\xa1\xb1".decode("gb18030")
    assert "啊啊".encode("gb18030") in inside.encode("gb18030")
    assert v2.code(admission("2", inside, "A2"), charset=charset) == "AA"

    assert found(v2, text="肺上叶") == ["A1"]
    assert found(v2, text="王小明") == ["A1"]
    assert found(v2, text="啊啊") == []
    assert found(v2, text=inside) == ["A2"]
    assert found(v2, KN, text="肺上叶", message_type="ADT^A08") == ["A1"]
    assert found(v2, QH, text="肺上叶") == []


def test_a_large_message_is_found_by_its_words_too(v2: V2Hub) -> None:
    assert v2.code(admission("1", "王小明", "A1", note="啊" * 40_000 + "左肺结节")) == "AA"
    assert v2.code(admission("2", "王小明", "A2", note="啊" * 40_000 + "右肺结节")) == "AA"
    (entry,) = v2.journal(control_id="A1")
    assert entry.body is None

    assert found(v2, text="左肺结节") == ["A1"]


def test_a_page_that_has_read_enough_goes_on_with_the_next_object(v2: V2Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for control_id in ("A1", "A2", "A3"):
        assert v2.code(admission("1", "王小明", control_id, note="啊" * 40_000 + "左肺结节")) == "AA"
    monkeypatch.setattr("hub.message_search._MOST_READ", 1000)
    desk = MessageDesk(v2.services)

    seen, before = [], None
    for _ in range(4):
        page = desk.find(OPERATOR, {"text": "左肺结节"}, limit=9, before_seq=before)
        seen.append([one["control_id"] for one in page["messages"]])
        before = page.get("next")
        if before is None:
            break

    assert seen == [["A3"], ["A2"], ["A1"]]


def test_a_search_by_content_leaves_an_audit_line_without_what_was_asked(v2: V2Hub) -> None:
    found(v2, KN, text="王小明", since="2025-01-01T00:00:00Z")
    found(v2, KN, number="10086")
    found(v2, KN, control_id="A1")

    lines = v2.database.read(lambda tx: tx.audit.search({}, institution=None, limit=9, before=None))

    assert [one["subtype"][0]["code"] for one in lines] == ["message-search", "message-search"]
    assert not any(value in str(lines) for value in ("王小明", "10086"))


def test_who_may_not_see_content_may_not_search_it(v2: V2Hub) -> None:
    for criteria in ({"text": "王小明"}, {"number": "1"}):
        with pytest.raises(HubError) as caught:
            MessageDesk(v2.services).find(OPERATOR, criteria, limit=9, content=False)
        assert caught.value.category is Category.FORBIDDEN
    with pytest.raises(HubError) as caught:
        found(v2, Actor(institution="KN", roles=frozenset({"doctor"})), text="王小明")
    assert caught.value.category is Category.FORBIDDEN


@pytest.mark.parametrize(
    "criteria", [{"text": "王"}, {"text": "x" * 201}, {"since": "yesterday"}, {"since": ""}, {"finished_until": "1"}]
)
def test_a_value_that_cannot_be_used_is_refused(v2: V2Hub, criteria: dict[str, str]) -> None:
    with pytest.raises(HubError) as caught:
        found(v2, **criteria)

    assert caught.value.category is Category.INCORRECT
