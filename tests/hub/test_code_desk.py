"""A code is found without a map, mapped, and the messages that held it say more from then on."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from hub.actor import Actor
from hub.code_desk import CodeDesk
from hub.errors import HubError
from hub.ports import Database
from tests.support.code_maps import LOINC, SEX, UCUM
from tests.support.v2 import V2Hub, adt, oru

OPERATOR = Actor(institution="YY", roles=frozenset({"operator"}))
ADMIN = Actor(institution="KN", roles=frozenset({"admin"}))


def lab(control_id: str, value: str = "4.1", *, status: str = "F", at: str = "20250611080000", code: str = "K") -> str:
    result = f"OBX|1|NM|{code}^血钾^L||{value}|mmol/L|3.5-5.3|N|||{status}|||20250611070000"
    return oru(control_id, status, value, at=at, obx=result)


@pytest.fixture
def hub(sqlite_database: Database) -> V2Hub:
    made = V2Hub(sqlite_database)
    made.clock.now += timedelta(days=1)
    return made


@pytest.fixture
def desk(hub: V2Hub) -> CodeDesk:
    return CodeDesk(hub.services)


def codings(hub: V2Hub) -> list[str]:
    return [one["code"] for one in hub.one("Observation")["code"]["coding"]]


def versions(hub: V2Hub) -> dict[str, str]:
    kinds = ("Patient", "Observation", "DiagnosticReport", "Provenance")
    return {f"{kind}/{one['id']}": one["meta"]["versionId"] for kind in kinds for one in hub.all(kind)}


def unmapped(desk: CodeDesk, actor: Actor = OPERATOR) -> dict[tuple[str, str], dict[str, Any]]:
    return {(one["system"].rpartition("/KN/")[2], one["code"]): one for one in desk.unmapped(actor)}


def test_a_mapped_code_leaves_the_queue_once_its_messages_are_processed_again(hub: V2Hub, desk: CodeDesk) -> None:
    hub.code(lab("1"))
    seq = hub.journal()[0].seq
    assert unmapped(desk)["local", "K"]["sample"] == seq
    assert not unmapped(desk)["local", "K"]["mapped"]
    made = desk.map(ADMIN, "KN", "local", "K", f"{LOINC}|2823-3", display="Potassium")
    assert made["version"] == 1
    assert unmapped(desk)["local", "K"]["mapped"]
    assert codings(hub) == ["K"]
    told = desk.reprocess(ADMIN, "KN")
    assert (told["replayed"], told["refused"], told["next"]) == (1, [], None)
    assert codings(hub) == ["K", "2823-3"]
    assert ("local", "K") not in unmapped(desk)
    hub.code(lab("2"))
    assert ("local", "K") not in unmapped(desk)


def test_only_what_changes_gets_a_new_version_and_the_second_time_nothing_does(hub: V2Hub, desk: CodeDesk) -> None:
    hub.code(lab("1"))
    before = versions(hub)
    desk.map(OPERATOR, "KN", "local", "K", f"{LOINC}|2823-3")
    desk.map(OPERATOR, "KN", "table/unit", "mmol/L", f"{UCUM}|mmol/L")
    desk.reprocess(OPERATOR, "KN")
    after = versions(hub)
    assert {name.partition("/")[0] for name in before if after[name] != before[name]} == {
        "Observation",
        "DiagnosticReport",
        "Provenance",
    }
    assert hub.one("Observation")["valueQuantity"]["code"] == "mmol/L"
    hub.messages.replay(hub.journal()[0].seq, OPERATOR)
    assert versions(hub) == after


def test_a_late_reprocessing_never_brings_an_older_value_back(hub: V2Hub, desk: CodeDesk) -> None:
    hub.code(lab("1", "4.1", status="P"))
    hub.code(lab("2", "4.4", at="20250611090000"))
    desk.map(OPERATOR, "KN", "local", "K", f"{LOINC}|2823-3")
    assert desk.reprocess(OPERATOR, "KN")["replayed"] == 2
    result = hub.one("Observation")
    assert (result["status"], str(result["valueQuantity"]["value"])) == ("final", "4.4")
    assert codings(hub) == ["K", "2823-3"]


def test_only_messages_that_hold_the_code_are_processed_again(hub: V2Hub, desk: CodeDesk) -> None:
    hub.code(adt("A01", "1"))
    hub.code(lab("2"))
    hub.code(adt("A08", "3", at="20250611100000"))
    desk.map(OPERATOR, "KN", "local", "K", f"{LOINC}|2823-3")
    told = desk.reprocess(OPERATOR, "KN")
    assert told["replayed"] == 1
    assert told["looked_at"] == 2


def test_a_long_way_is_gone_in_steps(hub: V2Hub, desk: CodeDesk) -> None:
    for number in range(5):
        hub.code(lab(str(number), at=f"2025061108000{number}"))
    desk.map(OPERATOR, "KN", "local", "K", f"{LOINC}|2823-3")
    first = desk.reprocess(OPERATOR, "KN", limit=2)
    assert (first["looked_at"], first["next"]) == (2, hub.journal()[3].seq)
    assert ("local", "K") in unmapped(desk)
    second = desk.reprocess(OPERATOR, "KN", limit=2, before=first["next"])
    third = desk.reprocess(OPERATOR, "KN", limit=2, before=second["next"])
    assert (second["looked_at"], third["looked_at"], third["next"]) == (2, 1, None)
    assert ("local", "K") not in unmapped(desk)


def test_a_status_of_the_senders_own_is_understood_once_it_is_mapped(hub: V2Hub, desk: CodeDesk) -> None:
    hub.code(adt("A01", "1").replace("|19760229|M|", "|19760229|男性别|"))
    assert "gender" not in hub.one("Patient")
    assert ("table/administrative_sex", "男性别") in unmapped(desk)
    desk.map(ADMIN, "KN", "table/administrative_sex", "男性别", f"{SEX}|male")
    desk.reprocess(ADMIN, "KN")
    assert hub.one("Patient")["gender"] == "male"


def test_a_code_that_has_no_standard_one_is_settled(hub: V2Hub, desk: CodeDesk) -> None:
    hub.code(lab("1"))
    desk.map(OPERATOR, "KN", "local", "K", "")
    desk.reprocess(OPERATOR, "KN")
    assert codings(hub) == ["K"]
    assert ("local", "K") not in unmapped(desk)
    desk.map(OPERATOR, "KN", "local", "K", f"{LOINC}|2823-3")
    (row,) = (one for one in desk.maps(OPERATOR, "KN") if one["code"] == "K")
    assert row["targets"] == [f"{LOINC}|2823-3"]


def test_mapping_again_takes_the_place_of_what_was_said_before_and_is_a_version(hub: V2Hub, desk: CodeDesk) -> None:
    for number, target in enumerate(("2823-3", "6298-4"), 1):
        assert desk.map(OPERATOR, "KN", "local", "K", f"{LOINC}|{target}")["version"] == number
    (row,) = desk.maps(OPERATOR, "KN")
    assert (row["targets"], row["version"]) == ([f"{LOINC}|6298-4"], 2)
    with_both = desk.map(OPERATOR, "KN", "local", "K", "http://snomed.info/sct|59573005")
    assert with_both["version"] == 3
    assert len(desk.maps(OPERATOR, "KN")) == 2


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (("KN", "local", "K", "2823-3"), "target"),
        (("KN", "table/nothing", "K", f"{LOINC}|1"), "ConceptMap.group[0].source"),
        (("KN", "table/administrative_sex", "K", f"{SEX}|man"), "ConceptMap.group[0].element[0]"),
        (("ZZ", "local", "K", f"{LOINC}|1"), "institution"),
    ],
)
def test_what_cannot_be_a_map_is_refused_and_nothing_is_kept(
    desk: CodeDesk, arguments: tuple[str, str, str, str], where: str
) -> None:
    with pytest.raises(HubError) as refused:
        desk.map(OPERATOR, *arguments)
    assert refused.value.where == where
    assert desk.maps(OPERATOR) == []


def test_an_administrator_sees_and_maps_the_own_institution_only(hub: V2Hub, desk: CodeDesk) -> None:
    hub.code(lab("1"))
    other = Actor(institution="QH", roles=frozenset({"admin"}))
    assert desk.unmapped(other) == []
    assert unmapped(desk, ADMIN)
    for act in (
        lambda: desk.unmapped(other, "KN"),
        lambda: desk.maps(other, "KN"),
        lambda: desk.map(other, "KN", "local", "K", f"{LOINC}|1"),
        lambda: desk.reprocess(other, "KN"),
        lambda: desk.unmapped(Actor(institution="KN", roles=frozenset({"doctor"}))),
    ):
        with pytest.raises(HubError):
            act()


def test_every_act_leaves_its_audit_line(hub: V2Hub, desk: CodeDesk) -> None:
    hub.code(lab("1"))
    desk.map(ADMIN, "KN", "local", "K", f"{LOINC}|2823-3")
    desk.reprocess(ADMIN, "KN")
    for subtype in ("code-map", "codes-reprocess", "message-replay"):
        (line,) = hub.database.read(
            lambda tx, subtype=subtype: tx.audit.search({"subtype": subtype}, institution=None, limit=9, before=None)
        )
        assert line["agent"][0]["who"]["identifier"]["value"].startswith("KN")
