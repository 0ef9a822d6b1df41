"""New settings are tried on what was received: what would differ is told by element, and nothing is stored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from hub.access import UNRESTRICTED
from hub.actor import Actor
from hub.boot import Services
from hub.differences import differences, values
from hub.dry_run import DryRun
from hub.errors import HubError
from hub.search import parse
from tests.support.code_maps import LOINC, UCUM, concept_map, local
from tests.support.images import FakeClock
from tests.support.services import consortium, running
from tests.support.v2 import adt, oru

OPERATOR = Actor(institution="YY", roles=frozenset({"operator"}))
Json = dict[str, Any]


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with running(tmp_path, clock=FakeClock()) as one:
        yield one


def lab(control_id: str, code: str = "K") -> str:
    result = f"OBX|1|NM|{code}^血钾^L||4.1|mmol/L|3.5-5.3|N|||F|||20250611070000"
    return oru(control_id, "F", "4.1", at="20250611080000", obx=result)


def send(services: Services, text: str, charset: str = "gb18030") -> None:
    answer = services.messages.receive(text.encode(charset), "127.0.0.1:40000")
    assert answer is not None
    assert b"|AA|" in answer, answer


def everything(services: Services) -> list[tuple[str, str, int]]:
    kinds = ("Patient", "Observation", "DiagnosticReport", "ConceptMap", "Endpoint", "Provenance")
    rows = services.database.read(
        lambda tx: [one for kind in kinds for one in tx.records.search(parse(kind, ()), UNRESTRICTED).matches]
    )
    return [(one.type, one.id, one.version) for one in rows]


def paths(told: Json) -> dict[str, tuple[str, int]]:
    return {one["path"]: (one["change"], one["count"]) for one in told["elements"]}


def test_a_proposed_map_is_told_by_the_elements_it_would_add_and_stores_nothing(services: Services) -> None:
    for number in range(3):
        send(services, lab(str(number)))
    send(services, adt("A01", "9"))
    before, journal = everything(services), services.database.read(lambda tx: tx.journal.search({}, limit=99))
    told = DryRun(services).run(OPERATOR, "KN/mllp", [concept_map("m", local("KN"), LOINC, K="2823-3")])
    assert (told["messages"], told["differing"]) == (4, 3)
    for element in ("code.coding.system", "code.coding.code"):
        assert paths(told)[f"Observation.{element}"] == ("added", 3)
        assert paths(told)[f"DiagnosticReport.{element}"] == ("added", 3)
    assert told["unmapped"]["then"] == told["unmapped"]["now"] - 1
    assert told["verdicts"] == []
    (one, *_) = told["elements"]
    assert set(one["examples"]) <= {entry.seq for entry in journal}
    assert everything(services) == before
    assert services.database.read(lambda tx: tx.journal.search({}, limit=99)) == journal


def test_what_is_in_force_already_makes_no_difference(services: Services) -> None:
    send(services, lab("1"))
    found = concept_map("m", local("KN"), LOINC, K="2823-3")
    services.directory.load([found])
    assert DryRun(services).run(OPERATOR, "KN/mllp", [found])["elements"] == []
    assert DryRun(services).run(OPERATOR, "KN/mllp")["differing"] == 0
    taken_back = {**found, "status": "retired"}
    assert paths(DryRun(services).run(OPERATOR, "KN/mllp", [taken_back]))["Observation.code.coding.code"] == (
        "removed",
        1,
    )


def test_a_changed_dialect_shows_in_the_elements_it_reads_otherwise(services: Services) -> None:
    send(services, adt("A01", "1", name="ZHENG WEI^郑伟"))
    told = DryRun(services).run(OPERATOR, "KN/mllp", settings={"dialect": "standard"})
    assert told["differing"] == 1
    assert any(path.startswith("Patient.name") for path in paths(told))


def test_an_endpoint_in_a_file_is_tried_like_one_on_the_command_line(services: Services) -> None:
    send(services, adt("A01", "1", name="ZHENG WEI^郑伟"))
    (endpoint,) = (
        one
        for one in consortium()
        if one["resourceType"] == "Endpoint" and any(item["value"] == "KN/mllp" for item in one.get("identifier", ()))
    )
    changed = json.loads(json.dumps(endpoint).replace('"his-cn"', '"standard"'))
    assert changed != endpoint
    by_file = DryRun(services).run(OPERATOR, "KN/mllp", [changed])
    assert by_file == DryRun(services).run(OPERATOR, "KN/mllp", settings={"dialect": "standard"})
    assert by_file["differing"] == 1


def test_a_message_that_would_be_refused_is_told_with_its_reason(services: Services) -> None:
    send(services, adt("A01", "1"))
    told = DryRun(services).run(OPERATOR, "KN/mllp", settings={"processing-ids": "T"})
    ((verdict),) = told["verdicts"]
    assert (verdict["now"], verdict["count"]) == ("taken", 1)
    assert verdict["then"].startswith("refused: MSH-11")


def test_only_the_newest_messages_of_that_feed_are_tried(services: Services) -> None:
    for number in range(5):
        send(services, lab(str(number)))
    send(services, adt("A01", "9", facility="QHYY").replace("|HIS|", "|HIS|"))
    found = [concept_map("m", local("KN"), LOINC, K="2823-3")]
    newest = services.database.read(lambda tx: tx.journal.search({"institution": "KN"}, limit=2))
    told = DryRun(services).run(OPERATOR, "KN/mllp", found, last=2)
    assert told["messages"] == 2
    assert told["elements"][0]["examples"] == [one.seq for one in newest]
    assert DryRun(services).run(OPERATOR, "KN/mllp", found)["messages"] == 5
    later = services.clock() + timedelta(days=1)
    assert DryRun(services).run(OPERATOR, "KN/mllp", found, since=later)["messages"] == 0


def test_more_messages_than_stand_in_memory_at_a_time_are_tried(services: Services) -> None:
    for number in range(45):
        send(services, lab(str(number)))
    told = DryRun(services).run(
        OPERATOR, "KN/mllp", [concept_map("m", local("KN", "table/unit"), UCUM, **{"mmol/L": "mmol/L"})]
    )
    assert paths(told)["Observation.valueQuantity.code"] == ("added", 45)
    assert len(told["elements"][0]["examples"]) == 3


@pytest.mark.parametrize(
    ("endpoint", "resources", "settings", "where"),
    [
        ("KN/none", [], {}, "KN/none"),
        ("KN/dicom", [], {}, "endpoint"),
        ("KN/mllp", [], {"dialect": "klingon"}, "dialect"),
        ("KN/mllp", [], {"sending-facility": "X"}, "sending-facility"),
        ("KN/mllp", [concept_map("m", local("KN", "table/x"), LOINC, K="1")], {}, "ConceptMap.group[0].source"),
    ],
)
def test_what_could_not_be_imported_cannot_be_tried(
    services: Services, endpoint: str, resources: list[Json], settings: dict[str, str], where: str
) -> None:
    with pytest.raises(HubError) as refused:
        DryRun(services).run(OPERATOR, endpoint, resources, settings)
    assert refused.value.where == where


def test_an_administrator_tries_the_own_feed_only_and_every_trial_is_audited(services: Services) -> None:
    send(services, lab("1"))
    admin = Actor(institution="KN", roles=frozenset({"admin"}))
    assert DryRun(services).run(admin, "KN/mllp")["messages"] == 1
    for actor in (Actor(institution="QH", roles=frozenset({"admin"})), Actor(institution="KN")):
        with pytest.raises(HubError):
            DryRun(services).run(actor, "KN/mllp")
    lines = services.database.read(
        lambda tx: tx.audit.search({"subtype": "feed-dry-run"}, institution=None, limit=9, before=None)
    )
    assert len(lines) == 1


def test_no_word_of_a_message_is_told(services: Services) -> None:
    send(services, adt("A01", "1", name="ZHENG WEI^郑伟"))
    told = DryRun(services).run(OPERATOR, "KN/mllp", settings={"dialect": "standard"})
    assert not {
        word for word in ("郑伟", "ZHENG", "10086", "12000000001") if word in json.dumps(told, ensure_ascii=False)
    }


def test_differences_name_elements_whatever_their_place_in_a_list() -> None:
    before = {"code": {"coding": [{"code": "a"}, {"code": "b"}]}, "status": "final"}
    after = {"code": {"coding": [{"code": "b"}, {"code": "a"}, {"code": "c"}]}, "status": "amended", "note": 1}
    assert differences(before, after) == {"code.coding.code": "added", "note": "added", "status": "changed"}
    assert differences({"value": 1}, {"value": "1"}) == {"value": "changed"}
    assert differences(after, {}) == {"code.coding.code": "removed", "note": "removed", "status": "removed"}
    assert values(after, "code.coding.code") == ["b", "a", "c"]
