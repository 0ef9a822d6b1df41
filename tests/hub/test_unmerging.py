"""Merges that a person takes back or keeps: the two records, what came meanwhile, and the messages that waited."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from fhir_mappings.json import loads
from hub.access import UNRESTRICTED, Scope
from hub.actor import Actor
from hub.errors import Category, HubError
from hub.imaging_ids import number_record_id
from hub.ports import Database, Grant, NewVersion
from hub.ports.sharing import Share
from hub.unmerging import MergeDesk
from tests.support.v2 import V2Hub, a40, adt, meta_of, msh, oru, pid

Json = dict[str, Any]
OPERATOR = Actor(institution="YY", roles=frozenset({"operator"}), client="cli:test")
KN = Actor(institution="KN", roles=frozenset({"admin"}), client="desk")
QH = Actor(institution="QH", roles=frozenset({"admin"}))
WHY = "登记错误"


@pytest.fixture
def hub(sqlite_database: Database) -> V2Hub:
    return V2Hub(sqlite_database)


def result(control_id: str, number: str, *, at: str, order: str = "FL1") -> str:
    return oru(control_id, "F", "4.10", at=at).replace("10086", number).replace("FL1", order)


def a37(control_id: str, one: str, other: str, *, at: str) -> str:
    return "\r".join([msh("ADT^A37", control_id, sent=at), f"EVN|A37|{at}", pid(one), pid(other), ""])


def patient(hub: V2Hub, number: str) -> Json:
    """The record that the number names by itself."""
    return hub.one("Patient", lambda one: one["id"] == number_record_id("KN", number))


def numbers(one: Json) -> dict[str, str | None]:
    return {item["value"]: item.get("use") for item in one["identifier"]}


def plain(one: Json) -> Json:
    return {name: value for name, value in one.items() if name != "meta"}


def desk(hub: V2Hub) -> MergeDesk:
    return MergeDesk(hub.services)


def merged(hub: V2Hub) -> tuple[Json, Json]:
    """Two patients with a visit each, as they stood before the merge of the second into the first."""
    hub.code(adt("A01", "1", number="10086", at="20250611080000"))
    hub.code(adt("A01", "2", number="10099", name="吴焘", at="20250611080500", visit="V2"))
    before = patient(hub, "10086"), patient(hub, "10099")
    assert hub.code(a40("3", "10086", "10099", at="20250611090000")) == "AA"
    return before


# --- taking back -------------------------------------------------------------------------------------------------


def test_an_undone_merge_leaves_both_records_as_they_were_and_rewrites_nothing(hub: V2Hub) -> None:
    survivor, former = merged(hub)
    visits = hub.all("Encounter")
    done = desk(hub).undo(KN, former["id"], WHY)
    assert (done["former"], done["survivor"]) == (f"Patient/{former['id']}", f"Patient/{survivor['id']}")
    assert plain(patient(hub, "10086")) == plain(survivor)
    assert plain(patient(hub, "10099")) == plain(former)
    assert hub.all("Encounter") == visits
    versions = hub.database.read(lambda tx: tx.records.history("Patient", former["id"], UNRESTRICTED, count=9))
    assert [bool(loads(one.body).get("link")) for one in versions] == [False, True, False]


def test_who_took_a_merge_back_and_why_is_kept_with_the_records_and_audited(hub: V2Hub) -> None:
    survivor, former = merged(hub)
    desk(hub).undo(KN, former["id"], WHY)
    told = hub.one("Provenance", lambda one: "reason" in one)
    assert told["reason"] == [{"text": WHY}]
    assert told["agent"][0]["who"]["display"] == "desk"
    assert {f"Patient/{survivor['id']}", f"Patient/{former['id']}"} <= {one["reference"] for one in told["target"]}
    lines = hub.database.read(
        lambda tx: tx.audit.search({"subtype": "merge-undo"}, institution="KN", limit=9, before=None)
    )
    assert len(lines) == 1


def test_the_message_that_waited_is_applied_to_the_record_it_names(hub: V2Hub) -> None:
    _, former = merged(hub)
    hub.code(adt("A01", "4", number="10099", name="孙悦", visit="V9", at="20250611100000"))
    (item,) = desk(hub).waiting(KN, numbers=True)
    held = hub.journal(control_id="4")[0].seq
    assert (item["code"], item["messages"]) == ("unmerge-candidate", [held])
    assert (item["former_numbers"], item["survivor_numbers"]) == (["10099"], ["10086"])
    done = desk(hub).undo(KN, former["id"], WHY)
    assert done["replayed"] == [{"seq": held, "applied": True, "outcome": ""}]
    assert patient(hub, "10099")["name"][0]["text"] == "孙悦"
    visit = hub.one("Encounter", lambda one: one["identifier"][0]["value"] == "V9")
    assert visit["subject"]["reference"] == f"Patient/{former['id']}"
    assert desk(hub).waiting(KN, numbers=False) == []
    task = hub.one("Task")
    assert task["status"] == "completed"


def test_every_message_that_waited_is_named_and_applied_in_order(hub: V2Hub) -> None:
    _, former = merged(hub)
    for number in (4, 5, 6):
        hub.code(adt("A08", str(number), number="10099", phone=f"1200000000{number}", at=f"2025061110000{number}"))
    done = desk(hub).undo(KN, former["id"], WHY)
    seqs = [one["seq"] for one in done["replayed"]]
    assert len(seqs) == 3
    assert all(one < other for one, other in pairwise(seqs))
    assert patient(hub, "10099")["telecom"][0]["value"] == "12000000006"


def test_what_came_under_the_former_number_goes_back_and_the_survivors_own_stays_and_is_listed(hub: V2Hub) -> None:
    survivor, former = merged(hub)
    hub.code(result("4", "10099", at="20250611100000", order="FL1"))
    hub.code(result("5", "10086", at="20250611100000", order="FL2"))
    owners = {one["subject"]["reference"] for one in hub.all("Observation")}
    assert owners == {f"Patient/{survivor['id']}"}
    shown = desk(hub).shown(KN, former["id"], numbers=True)
    assert shown["message"] == hub.journal(control_id="3")[0].seq
    said = {(one["reference"].partition("/")[0], one["said"]) for one in shown["came"]}
    assert {("Observation", "former"), ("Observation", "survivor")} <= said
    done = desk(hub).undo(KN, former["id"], WHY)
    assert [one["seq"] for one in done["replayed"]] == [hub.journal(control_id="4")[0].seq]
    by_order = {one["id"]: one["subject"]["reference"] for one in hub.all("Observation")}
    assert sorted(by_order.values()) == sorted([f"Patient/{former['id']}", f"Patient/{survivor['id']}"])
    stays = {one["reference"] for one in done["stays"]}
    assert {f"Observation/{id_}" for id_, whose in by_order.items() if whose == f"Patient/{survivor['id']}"} <= stays
    assert not {f"Observation/{id_}" for id_, whose in by_order.items() if whose != f"Patient/{survivor['id']}"} & stays


def test_a_second_undo_changes_nothing(hub: V2Hub) -> None:
    _, former = merged(hub)
    hub.code(adt("A08", "4", number="10099", at="20250611100000"))
    hub.code(result("5", "10099", at="20250611100000"))
    desk(hub).undo(KN, former["id"], WHY)
    state, task = hub.state(), hub.one("Task")
    again = desk(hub).undo(KN, former["id"], WHY)
    assert (again["changed"], again["replayed"]) == ([], [])
    assert (hub.state(), hub.one("Task")) == (state, task)


def test_an_undo_that_was_cut_short_is_finished_by_the_next(hub: V2Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    _, former = merged(hub)
    hub.code(adt("A01", "4", number="10099", visit="V9", at="20250611100000"))
    hub.code(result("5", "10099", at="20250611100000"))

    def cut(seq: int, actor: Actor) -> str:
        raise HubError(Category.UNAVAILABLE, "The database is away.", where=f"message {seq} of {actor.institution}")

    with monkeypatch.context() as patch:
        patch.setattr(hub.messages, "replay", cut)
        with pytest.raises(HubError, match="away"):
            desk(hub).undo(KN, former["id"], WHY)
    assert patient(hub, "10099").get("link") is None
    assert len(desk(hub).undo(KN, former["id"], WHY)["replayed"]) == 2
    assert hub.one("Observation")["subject"]["reference"] == f"Patient/{former['id']}"


def test_a_merge_taken_back_is_made_again_by_replaying_its_message(hub: V2Hub) -> None:
    merged(hub)
    seq = hub.journal(control_id="3")[0].seq
    linked = {one["id"]: plain(one) for one in hub.all("Patient")}
    former = patient(hub, "10099")
    desk(hub).undo(KN, former["id"], WHY)
    hub.messages.replay(seq, KN)
    assert {one["id"]: plain(one) for one in hub.all("Patient")} == linked


def test_a_record_that_only_the_merge_made_is_in_use_once_the_merge_is_taken_back(hub: V2Hub) -> None:
    hub.code(a40("1", "10086", "10099", at="20250611090000"))
    former = patient(hub, "10099")
    assert former["active"] is False
    desk(hub).undo(KN, former["id"], WHY)
    alone = patient(hub, "10099")
    assert (alone["active"], numbers(alone), "link" in alone) == (True, {"10099": None}, False)
    assert "10099" not in numbers(patient(hub, "10086"))


# --- chains ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True])
def test_the_first_merge_of_a_chain_is_taken_back_from_every_survivor(hub: V2Hub, late: bool) -> None:
    merges = [a40("11", "B2", "A1", at="20250611090000"), a40("12", "C3", "B2", at="20250611100000")]
    for number, one in enumerate(("A1", "B2", "C3")):
        hub.code(adt("A28", str(number), number=one, visit="", at=f"2025061108000{number}"))
    for text in reversed(merges) if late else merges:
        hub.code(text)
    former = patient(hub, "A1")
    desk(hub).undo(KN, former["id"], WHY)
    assert patient(hub, "A1").get("link") is None
    assert "A1" not in numbers(patient(hub, "C3"))
    assert "A1" not in numbers(patient(hub, "B2"))
    assert numbers(patient(hub, "C3")) == {"C3": None, "B2": "old"}
    assert patient(hub, "B2")["active"] is False


def test_the_last_merge_of_a_chain_takes_with_it_what_was_merged_before(hub: V2Hub) -> None:
    for number, one in enumerate(("A1", "B2", "C3")):
        hub.code(adt("A28", str(number), number=one, visit="", at=f"2025061108000{number}"))
    hub.code(a40("11", "B2", "A1", at="20250611090000"))
    hub.code(a40("12", "C3", "B2", at="20250611100000"))
    middle = patient(hub, "B2")
    desk(hub).undo(KN, middle["id"], WHY)
    assert numbers(patient(hub, "C3")) == {"C3": None}
    middle = patient(hub, "B2")
    assert (middle["active"], numbers(middle)) == (True, {"B2": None, "A1": "old"})
    assert patient(hub, "A1")["active"] is False


def test_a_number_that_the_survivor_had_before_the_merge_stays_with_it(hub: V2Hub) -> None:
    both = adt("A28", "1", number="10086", visit="", at="20250611080000")
    hub.code(both.replace("10086^^^^IDCard", "10086^^^^IDCard~10099^^^^IDCard"))
    hub.code(adt("A28", "2", number="10099", visit="", at="20250611080500"))
    hub.code(a40("3", "10086", "10099", at="20250611090000"))
    desk(hub).undo(KN, patient(hub, "10099")["id"], WHY)
    assert "10099" in numbers(patient(hub, "10086"))


def test_of_two_merges_that_contradict_each_other_the_second_waits_and_is_made_when_the_first_is_undone(
    hub: V2Hub,
) -> None:
    hub.code(a40("1", "10086", "10099", at="20250611090000"))
    hub.code(a40("2", "20001", "10099", at="20250611100000"))
    (item,) = desk(hub).waiting(KN, numbers=False)
    assert item["code"] == "merge-conflict"
    former = item["former"].removeprefix("Patient/")
    (done,) = desk(hub).undo(KN, former, WHY)["replayed"]
    assert done == {"seq": hub.journal(control_id="2")[0].seq, "applied": True, "outcome": ""}
    link = patient(hub, "10099")["link"][0]
    assert link["other"]["reference"] == f"Patient/{patient(hub, '20001')['id']}"


# --- keeping, A37 ------------------------------------------------------------------------------------------------


def test_a_merge_that_is_kept_lets_what_waited_through_to_the_survivor(hub: V2Hub) -> None:
    survivor, former = merged(hub)
    hub.code(adt("A01", "4", number="10099", visit="V9", at="20250611100000"))
    (done,) = desk(hub).keep(KN, former["id"], WHY)["replayed"]
    assert done["applied"] is True
    visit = hub.one("Encounter", lambda one: one["identifier"][0]["value"] == "V9")
    assert visit["subject"]["reference"] == f"Patient/{survivor['id']}"
    assert hub.one("Task")["status"] == "completed"
    assert desk(hub).keep(KN, former["id"], WHY)["replayed"] == []
    # The next one is asked about anew, and what was let through stays so.
    hub.code(adt("A01", "5", number="10099", visit="V10", at="20250611110000"))
    (item,) = desk(hub).waiting(KN, numbers=False)
    assert item["messages"] == [hub.journal(control_id="5")[0].seq]
    hub.messages.replay(done["seq"], KN)
    assert hub.one("Task")["status"] == "requested"
    assert [one.outcome for one in hub.journal(control_id="4")] == [""]


def test_an_unlink_message_waits_for_a_person_and_ends_once_the_merge_is_undone(hub: V2Hub) -> None:
    _, former = merged(hub)
    before = hub.state()
    assert hub.code(a37("4", "10086", "10099", at="20250611100000")) == "AA"
    assert hub.state() == before
    assert hub.journal(control_id="4")[0].outcome.startswith("held")
    (item,) = desk(hub).waiting(KN, numbers=False)
    assert item["former"] == f"Patient/{former['id']}"
    (done,) = desk(hub).undo(KN, former["id"], WHY)["replayed"]
    assert done["applied"] is True
    assert hub.code(a37("5", "10099", "10086", at="20250611110000")) == "AA"
    assert hub.one("Task")["status"] == "completed"


def test_an_unlink_message_from_before_the_merge_changes_nothing(hub: V2Hub) -> None:
    merged(hub)
    assert hub.code(a37("4", "10086", "10099", at="20250611083000")) == "AA"
    assert hub.all("Task") == []
    assert hub.journal(control_id="4")[0].outcome == ""


def test_an_unlink_message_without_its_second_patient_is_refused(hub: V2Hub) -> None:
    text = "\r".join([msh("ADT^A37", "1"), "EVN|A37|20250611080000", pid("10086"), ""])
    assert hub.code(text) == "AE"


# --- who may -----------------------------------------------------------------------------------------------------


def test_an_institution_sees_and_settles_its_own_merges_alone(hub: V2Hub) -> None:
    _, former = merged(hub)
    hub.code(adt("A08", "4", number="10099", at="20250611100000"))
    other = desk(hub)
    assert other.waiting(QH, numbers=True) == []
    for act in (other.undo, other.keep):
        with pytest.raises(HubError) as caught:
            act(QH, former["id"], WHY)
        assert caught.value.category is Category.NOT_FOUND
    with pytest.raises(HubError) as caught:
        other.waiting(Actor(institution="KN", roles=frozenset({"doctor"})), numbers=False)
    assert caught.value.category is Category.FORBIDDEN
    assert len(other.waiting(OPERATOR, numbers=False)) == 1
    assert other.waiting(OPERATOR, numbers=False)[0]["former_numbers"] == []


def test_what_waits_at_others_hides_nothing_of_an_institutions_own(hub: V2Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    merged(hub)
    hub.code(adt("A08", "4", number="10099", at="20250611100000"))
    [task] = hub.all("Task")
    # QH's item was touched first, and the list has room for one.
    of_qh = {**plain(task), "id": "qh-item"}
    newer = {**plain(task), "priority": "asap"}
    for resource, owner in ((of_qh, "QH"), (newer, "KN")):
        version = NewVersion(resource=resource, owner=owner)
        hub.database.write(lambda tx, version=version: tx.records.put_many([version]))
    monkeypatch.setattr("hub.unmerging.MAX_LIST", 1)
    assert [one["task"] for one in desk(hub).waiting(KN, numbers=False)] == [f"Task/{task['id']}"]


def test_a_decision_without_a_reason_or_about_no_merge_is_refused(hub: V2Hub) -> None:
    survivor, former = merged(hub)
    version = meta_of(patient(hub, "10099"))
    with pytest.raises(HubError) as caught:
        desk(hub).undo(KN, former["id"], "  ")
    assert caught.value.category is Category.INCORRECT
    for act in (desk(hub).undo, desk(hub).keep):
        with pytest.raises(HubError) as caught:
            act(KN, survivor["id"], WHY)
        assert caught.value.category is Category.CONFLICT
    with pytest.raises(HubError) as caught:
        desk(hub).keep(KN, former["id"], WHY)
    assert caught.value.category is Category.CONFLICT
    assert meta_of(patient(hub, "10099")) == version


# --- both databases ----------------------------------------------------------------------------------------------


def test_grants_and_share_links_that_rested_on_the_merge_end_with_it(database: Database) -> None:
    hub = V2Hub(database)
    survivor, former = merged(hub)
    now = datetime(2025, 6, 11, tzinfo=UTC)
    task: Json = {"resourceType": "Task", "id": "t1", "status": "accepted", "intent": "order"}
    task["for"] = {"reference": f"Patient/{survivor['id']}"}

    def opened(tx: Any) -> None:
        tx.records.put_many([NewVersion(resource=task, owner="KN")])
        grant = Grant(grantee="YL", target_type="patient-record", target_id=survivor["id"], task_id="t1")
        tx.grants.open(grant, now=now)
        for id_, whose in (("of-former", former), ("of-survivor", survivor)):
            subject = {"reference": f"Patient/{whose['id']}"}
            study = {"resourceType": "ImagingStudy", "id": id_, "status": "available", "subject": subject}
            tx.records.put_many([NewVersion(resource=study, owner="KN")])
            tx.grants.open(Grant(grantee="YJ", target_type="ImagingStudy", target_id=id_, task_id="t1"), now=now)
        for id_, studies in (("s1", (survivor, former)), ("s2", (survivor,))):
            tx.sharing.add(
                Share(
                    id=id_, institution="KN", StudyInstanceUID="1.0",
                    studies={f"1.{at}": one["id"] for at, one in enumerate(studies)},
                    secret_hash=id_, password_hash="x", created_by="1", created_at=now, expires_at=now + timedelta(days=9),
                )
            )  # fmt: skip

    database.write(opened)

    def reach() -> list[bool]:
        scope = Scope(institution="YL")
        found = [
            database.read(lambda tx, id_=one["id"]: tx.records.get("Patient", id_, scope)) for one in (survivor, former)
        ]
        return [one is not None for one in found]

    assert reach() == [True, True]
    done = desk(hub).undo(KN, former["id"], WHY)
    assert done["ended_shares"] == ["s1"]
    assert done["ended_grants"] == [{"task": "Task/t1", "reference": "ImagingStudy/of-former"}]
    assert reach() == [True, False]
    states = [database.read(lambda tx, id_=id_: tx.sharing.get(id_)).state_at(now) for id_ in ("s1", "s2")]
    assert states == ["revoked", "open"]


def test_results_that_come_while_a_merge_is_undone_end_with_the_record_they_name(database: Database) -> None:
    hub, other = V2Hub(database), V2Hub(database)
    _, former = merged(hub)
    texts = [result(f"R{n}", "10099", at="20250611100000", order=f"FX{n}") for n in range(6)]
    codes: list[str] = []
    threads = [threading.Thread(target=lambda text=text: codes.append(other.code(text))) for text in texts]
    threads.append(threading.Thread(target=lambda: desk(hub).undo(KN, former["id"], WHY)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == ["AA"] * 6
    # Whichever came first, one more look finds nothing that stands with the survivor by the merge alone.
    assert {one["subject"]["reference"] for one in hub.all("Observation")} == {f"Patient/{former['id']}"}
    assert desk(hub).undo(KN, former["id"], WHY)["replayed"] == []


def test_a_result_that_goes_back_is_no_longer_open_to_who_works_for_the_survivor(hub: V2Hub) -> None:
    survivor, former = merged(hub)
    hub.code(result("4", "10099", at="20250611100000"))
    observation = hub.one("Observation")["id"]
    task: Json = {"resourceType": "Task", "id": "t1", "status": "accepted", "intent": "order"}
    task["for"] = {"reference": f"Patient/{survivor['id']}"}
    grant = Grant(grantee="YL", target_type="Observation", target_id=observation, task_id="t1")

    def opened(tx: Any) -> None:
        tx.records.put_many([NewVersion(resource=task, owner="KN")])
        tx.grants.open(grant, now=datetime(2025, 6, 11, tzinfo=UTC))

    hub.database.write(opened)
    done = desk(hub).undo(KN, former["id"], WHY)
    assert done["ended_grants"] == [{"task": "Task/t1", "reference": f"Observation/{observation}"}]
    assert hub.database.read(lambda tx: tx.records.get("Observation", observation, Scope(institution="YL"))) is None
