"""A message beside what came of it, many messages processed again, and messages written out; on both databases."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from fhir_mappings.hl7v2 import batch
from fhir_mappings.json import loads
from hub.actor import Actor
from hub.errors import Category, HubError
from hub.message_bulk import BulkReplay
from hub.message_compare import compare
from hub.message_export import Export
from storage.sql.database import SqlDatabase
from tests.support.v2 import V2Hub

OPERATOR = Actor(institution="YY", roles=frozenset({"operator"}))
KN = Actor(institution="KN", roles=frozenset({"admin"}))
QH = Actor(institution="QH", roles=frozenset({"admin"}))


@pytest.fixture
def v2(database: SqlDatabase) -> V2Hub:
    return V2Hub(database)


def update(
    number: str, name: str, control_id: str, *, at: str = "20250611083000", charset: str = "", **how: str
) -> str:
    facility = how.get("facility", "KNYY")
    return (
        f"MSH|^~\\&|HIS|{facility}|YIXIE|HUB|{at}||ADT^A08^ADT_A01|{control_id}|P|2.4||||||{charset}\r"
        f"EVN|A08|{at}\rPID|1||{number}^^^{facility}^PI||{name}||19700101|M\r"
    )


def audited(v2: V2Hub, code: str) -> list[dict[str, Any]]:
    lines = v2.database.read(lambda tx: tx.audit.search({}, institution=None, limit=100, before=None))
    return [dict(one) for one in lines if one["subtype"][0]["code"] == code]


# --- compare


def test_a_message_stands_beside_the_versions_that_it_made(v2: V2Hub) -> None:
    assert v2.code(update("10086", "王小明", "A1")) == "AA"
    assert v2.code(update("10086", "王大明", "A2", at="20250611093000")) == "AA"
    first, second = v2.journal()

    found = compare(v2.services, KN, first.seq)
    later = compare(v2.services, KN, second.seq)

    assert [one[:3] for one in found.segments] == ["MSH", "EVN", "PID"]
    (patient,) = [one for one in found.resources if one.type == "Patient"]
    (renamed,) = [one for one in later.resources if one.type == "Patient"]
    assert (patient.id, patient.version, renamed.version) == (renamed.id, 1, 2)
    assert (loads(patient.body)["name"][0]["text"], loads(renamed.body)["name"][0]["text"]) == ("王小明", "王大明")
    assert list(found.gone) == []
    shown = found.shown()
    assert shown["message"]["control_id"] == "A1"
    assert json.loads(shown["resources"][0]["body"])["resourceType"] in {"Patient", "Encounter", "Organization"}


def test_a_comparison_is_a_read_of_each_record_in_it(v2: V2Hub) -> None:
    v2.code(update("10086", "王小明", "A1"))
    (entry,) = v2.journal()

    found = compare(v2.services, KN, entry.seq)

    (line,) = audited(v2, "message-compare")
    read = {entity.get("what", {}).get("reference") for entity in line["entity"]}
    assert {f"{one.type}/{one.id}" for one in found.resources} <= read


def test_a_refused_message_stands_beside_nothing(v2: V2Hub) -> None:
    v2.code(update("10086", "王小明", "A1").replace("|P|2.4", "|T|2.4"))
    (entry,) = v2.journal()
    assert entry.state == "refused"

    found = compare(v2.services, OPERATOR, entry.seq)

    assert (list(found.resources), list(found.gone), len(found.segments)) == ([], [], 3)


def test_nobody_compares_another_members_message(v2: V2Hub) -> None:
    v2.code(update("10086", "王小明", "A1"))
    (entry,) = v2.journal()

    for actor, content, category in ((QH, True, Category.NOT_FOUND), (OPERATOR, False, Category.FORBIDDEN)):
        with pytest.raises(HubError) as caught:
            compare(v2.services, actor, entry.seq, content=content)
        assert caught.value.category is category
    assert audited(v2, "message-compare") == []


# --- many processed again


def test_many_are_counted_first_and_then_processed_in_the_order_they_came(v2: V2Hub) -> None:
    for number in range(3):
        v2.code(update(f"{number}", "王小明", f"A{number}").replace("|P|2.4", "|T|2.4"))
    v2.code(update("9", "王小明", "A9"))
    v2.configure(**{"processing-ids": "P T"})
    numbers = [one.seq for one in v2.journal(state="refused")]
    bulk = BulkReplay(v2.services, KN, {"state": "refused"})

    assert list(bulk.choice.numbers) == numbers
    assert audited(v2, "message-replay") == audited(v2, "message-replay-all") == []
    assert [one.state for one in v2.journal()] == ["refused"] * 3 + ["done"]

    done = list(bulk.run(bulk.choice.word))

    assert [(one.seq, one.error) for one in done] == [(seq, None) for seq in numbers]
    assert [one.state for one in v2.journal()] == ["done"] * 4
    assert len(v2.all("Patient")) == 4
    assert (len(audited(v2, "message-replay")), len(audited(v2, "message-replay-all"))) == (3, 1)


def test_a_run_that_is_stopped_leaves_the_rest_as_it_was(v2: V2Hub) -> None:
    for number in range(3):
        v2.code(update(f"{number}", "王小明", f"A{number}").replace("|P|2.4", "|T|2.4"))
    v2.configure(**{"processing-ids": "P T"})
    bulk = BulkReplay(v2.services, KN, {"state": "refused"})

    run = bulk.run(bulk.choice.word)
    next(run)
    run.close()

    assert [one.state for one in v2.journal()] == ["done", "refused", "refused"]


def test_what_cannot_be_processed_stops_nobody_behind_it(v2: V2Hub) -> None:
    v2.code(update("1", "王小明", "A1").replace("|P|2.4", "|T|2.4"))
    v2.code(update("2", "王小明", "A2"))
    bulk = BulkReplay(v2.services, OPERATOR, {"institution": "KN"})

    first, second = bulk.run(bulk.choice.word)

    assert first.error is not None
    assert first.error.category is Category.UNSUPPORTED
    assert second.error is None


def test_the_word_is_good_for_what_was_counted_alone(v2: V2Hub) -> None:
    v2.code(update("1", "王小明", "A1"))
    word = BulkReplay(v2.services, KN, {"state": "done"}).choice.word
    v2.code(update("2", "王小明", "A2"))

    for bulk, given in (
        (BulkReplay(v2.services, KN, {"state": "done"}), word),
        (BulkReplay(v2.services, QH, {"state": "done"}), BulkReplay(v2.services, QH, {}).choice.word),
    ):
        with pytest.raises(HubError) as caught:
            list(bulk.run(given))
        assert caught.value.category is Category.CONFLICT
    assert audited(v2, "message-replay") == []


def test_more_than_the_bound_are_not_chosen(v2: V2Hub) -> None:
    for number in range(3):
        v2.code(update(f"{number}", "王小明", f"A{number}"))

    with pytest.raises(HubError) as caught:
        BulkReplay(v2.services, KN, {}, most=2)

    assert caught.value.category is Category.INCORRECT
    assert len(BulkReplay(v2.services, KN, {}, most=3).choice.numbers) == 3


# --- written out


def exported(v2: V2Hub, form: Any = "er7", actor: Actor = KN, **criteria: str) -> bytes:
    return b"".join(Export(v2.services, actor, criteria, form).parts())


def test_a_file_of_messages_can_be_read_as_a_batch_and_taken_again(v2: V2Hub) -> None:
    assert v2.code(update("1", "王小明", "A1", charset="GBK"), charset="gb18030") == "AA"
    assert v2.code(update("2", "李小红", "A2"), charset="utf-8") == "AA"

    written = exported(v2, message_type="ADT^A08")
    file = batch.split(written)

    (only,) = file.batches
    texts = [one.decode("utf-8") for one in only.messages]
    assert ["王小明" in texts[0], "李小红" in texts[1]] == [True, True]
    assert "|UNICODE UTF-8" in texts[0]
    assert "UNICODE" not in texts[1]
    people = {one["id"]: one["name"] for one in v2.all("Patient")}
    answer = v2.raw(written)
    assert answer is not None
    assert answer.count(b"MSA|AA|A") == 2
    assert {one["id"]: one["name"] for one in v2.all("Patient")} == people


def test_an_export_of_nothing_is_an_empty_file_that_is_whole(v2: V2Hub) -> None:
    assert batch.split(exported(v2)).batches == []


def test_json_lines_hold_the_bytes_as_they_came(v2: V2Hub) -> None:
    text = update("1", "王小明", "A1")
    v2.code(text, charset="gb18030")

    (line,) = exported(v2, "jsonl", patient_id=v2.one("Patient")["id"]).splitlines()
    one = json.loads(line)

    assert base64.b64decode(one["body"]) == text.encode("gb18030")
    assert "王小明" in one["content"]
    assert "MSA|AA|A1" in one["acknowledgement"]


def test_each_message_of_an_export_leaves_an_audit_line(v2: V2Hub) -> None:
    v2.code(update("1", "王小明", "A1"))
    v2.code(update("2", "李小红", "A2"))
    v2.code(update("3", "赵大宝", "A3", facility="QHYY"))

    exported(v2)

    assert len(audited(v2, "message-export")) == 1 + 2
    assert "赵大宝".encode() not in exported(v2, "jsonl")


def test_an_export_that_is_too_large_or_not_for_this_asker_is_refused(v2: V2Hub) -> None:
    v2.code(update("1", "王小明", "A1"))

    for how, category in (
        ({"most_bytes": 10}, Category.INCORRECT),
        ({"content": False}, Category.FORBIDDEN),
    ):
        with pytest.raises(HubError) as caught:
            Export(v2.services, OPERATOR, {}, "er7", **how)  # type: ignore[arg-type]
        assert caught.value.category is category
