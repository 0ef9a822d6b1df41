"""What HIS feeds say of merged patients, and what a doctor then finds: HL7 v2 3.3.40, on both databases."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from fhir_mappings.json import loads
from hub.access import Scope
from hub.actor import Actor
from hub.envelope import Envelope
from hub.ports import Database, NewVersion
from hub.reading import Reader
from hub.search import parse
from tests.support.v2 import V2Hub, a40, adt, meta_of, oru

KN = Scope(institution="KN")


@pytest.fixture
def hub(database: Database) -> V2Hub:
    return V2Hub(database)


def result(control_id: str, number: str, *, at: str, order: str = "FL1") -> str:
    """Return a final potassium result of the patient with *number*."""
    return oru(control_id, "F", "4.10", at=at).replace("10086", number).replace("FL1", order)


def patient(hub: V2Hub, number: str) -> dict[str, Any]:
    """Return the record that was made for *number*, dead or alive."""
    return hub.one("Patient", lambda one: one["identifier"][0]["value"] == number)


def results_of(hub: V2Hub, number: str) -> int:
    """Return how many results a search by the record of *number* finds."""
    query = parse("Observation", [("patient", patient(hub, number)["id"])])
    return len(hub.database.read(lambda tx: tx.records.search(query, KN)).matches)


def test_what_was_stored_before_a_merge_is_found_by_the_survivor_and_stays_as_it_was_sent(hub: V2Hub) -> None:
    hub.code(adt("A01", "1", number="10086", at="20250611080000"))
    hub.code(result("2", "10099", at="20250611081000"))
    before = hub.one("Observation")
    assert results_of(hub, "10086") == 0
    assert hub.code(a40("3", "10086", "10099")) == "AA"
    assert hub.one("Observation") == before
    assert before["subject"]["reference"] == f"Patient/{patient(hub, '10099')['id']}"
    assert results_of(hub, "10086") == 1


def test_everything_of_the_survivor_holds_the_merged_record_and_a_read_of_that_record_leads_on(hub: V2Hub) -> None:
    hub.code(adt("A01", "1", number="10086", at="20250611080000"))
    hub.code(result("2", "10099", at="20250611081000"))
    hub.code(a40("3", "10086", "10099"))
    survivor, dead = patient(hub, "10086")["id"], patient(hub, "10099")["id"]
    reader, asker = Reader(hub.services), Envelope(door="fhir", actor=Actor(institution="KN"), peer="")

    body = loads(reader.everything(asker, survivor, []).body)
    names = {f"{one['resource']['resourceType']}/{one['resource']['id']}" for one in body["entry"]}
    observation = hub.one("Observation")["id"]
    assert {f"Patient/{survivor}", f"Patient/{dead}", f"Observation/{observation}"} <= names

    read = loads(reader.read(asker, "Patient", dead).body)
    assert read["link"] == [{"other": {"reference": f"Patient/{survivor}"}, "type": "replaced-by"}]


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_two_merges_in_a_row_lead_to_the_last_survivor_whenever_the_results_come(
    sqlite_database: Database, order: tuple[int, ...]
) -> None:
    hub = V2Hub(sqlite_database)
    messages = [
        a40("1", "B2", "A1", at="20250611090000"),
        a40("2", "C3", "B2", at="20250611100000"),
        result("3", "A1", at="20250611080000", order="FL1"),
        result("4", "B2", at="20250611081000", order="FL2"),
    ]
    assert [hub.code(messages[number]) for number in order] == ["AA"] * 4
    assert results_of(hub, "C3") == 2
    assert hub.all("Task") == []


def test_a_record_merged_into_one_that_is_dead_already_leads_to_the_survivor(hub: V2Hub) -> None:
    hub.code(result("1", "A1", at="20250611080000"))
    hub.code(a40("2", "C3", "B2", at="20250611090000"))
    hub.code(a40("3", "B2", "A1", at="20250611100000"))
    assert results_of(hub, "C3") == 1
    link = {"other": {"reference": f"Patient/{patient(hub, 'C3')['id']}"}, "type": "replaced-by"}
    assert patient(hub, "A1")["link"] == [link]
    hub.code(result("4", "A1", at="20250611080500", order="FL2"))
    assert results_of(hub, "C3") == 2


def test_a_merge_that_is_sent_again_changes_nothing_and_hides_nothing(hub: V2Hub) -> None:
    hub.code(result("1", "10099", at="20250611081000"))
    for control_id in ("2", "2", "3"):
        assert hub.code(a40(control_id, "10086", "10099")) == "AA"
    versions = [meta_of(patient(hub, number)) for number in ("10086", "10099")]
    assert hub.code(a40("4", "10086", "10099", at="20250611093000")) == "AA"
    assert [meta_of(patient(hub, number)) for number in ("10086", "10099")] == versions
    assert results_of(hub, "10086") == 1
    assert hub.all("Task") == []


def test_a_merge_before_either_patient_is_known_takes_what_comes_later_to_the_survivor(hub: V2Hub) -> None:
    assert hub.code(a40("1", "10086", "10099", at="20250611090000")) == "AA"
    # Both were sent before the merge and arrive after it.
    assert hub.code(adt("A01", "2", number="10099", at="20250611080000", visit="V2")) == "AA"
    assert hub.code(result("3", "10099", at="20250611081000")) == "AA"
    survivor = f"Patient/{patient(hub, '10086')['id']}"
    assert hub.one("Observation")["subject"]["reference"] == survivor
    assert hub.one("Encounter")["subject"]["reference"] == survivor
    assert patient(hub, "10099")["active"] is False
    assert hub.all("Task") == []


@pytest.mark.parametrize("trigger", ["A08", "A31"])
def test_demographics_of_the_survivor_keep_the_links_of_a_merge(hub: V2Hub, trigger: str) -> None:
    hub.code(result("1", "10099", at="20250611081000"))
    hub.code(a40("2", "10086", "10099", at="20250611090000"))
    hub.code(adt(trigger, "3", number="10086", at="20250611100000", name="郑伟明", visit=""))
    assert patient(hub, "10086")["name"][0]["text"] == "郑伟明"
    dead = {"other": {"reference": f"Patient/{patient(hub, '10099')['id']}"}, "type": "replaces"}
    assert patient(hub, "10086")["link"] == [dead]
    assert results_of(hub, "10086") == 1


def test_the_same_numbers_of_another_hospital_are_other_people(hub: V2Hub) -> None:
    text = result("1", "10099", at="20250611081000").replace("|KNYY|", "|QHYY|")
    assert hub.code(text) == "AA"
    hub.code(a40("2", "10086", "10099"))
    assert results_of(hub, "10086") == 0


def test_a_link_into_another_hospital_moves_no_patient_there(hub: V2Hub) -> None:
    hub.code(adt("A01", "1", number="10086", at="20250611080000", facility="QHYY"))
    theirs = hub.one("Patient")
    hub.code(adt("A01", "2", number="10099", at="20250611080000", visit="V2"))
    mine = patient(hub, "10099")
    link = {"other": {"reference": f"Patient/{theirs['id']}"}, "type": "replaced-by"}
    changed = NewVersion(resource={**mine, "link": [link]}, owner="KN")
    hub.database.write(lambda tx: tx.records.put_many([changed]))
    assert hub.code(result("3", "10099", at="20250611081000")) == "AA"
    assert hub.one("Observation")["subject"]["reference"] == f"Patient/{mine['id']}"
