"""What each ADT event leaves in the records: moves, swaps, cancellations, deletions, numbers that give way to others."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from hub.ports import Database
from tests.support.v2 import V2Hub, a40, adt, meta_of, msh, oru, pid

Json = dict[str, Any]


@pytest.fixture
def hub(sqlite_database: Database) -> V2Hub:
    return V2Hub(sqlite_database)


def numbered(hub: V2Hub, kind: str, number: str) -> Json:
    """Return the resource of *kind* that was made for *number*, dead or alive."""
    return hub.one(kind, lambda one: one["identifier"][0]["value"] == number)


def pv1(visit: str = "V1", *, place: str = "3W^301^1", **fields: str) -> str:
    cells = [""] * 53
    values = {"f1": "1", "f2": "I", "f3": place, "f19": visit, **fields}
    for name, value in values.items():
        cells[int(name[1:])] = value
    return "PV1|" + "|".join(cells[1:]).rstrip("|")


def event(trigger: str, control_id: str, *segments: str, at: str, person: str = "") -> str:
    lines = [msh(f"ADT^{trigger}", control_id, sent=at), f"EVN|{trigger}|{at}||||{at}", person or pid(), *segments]
    return "\r".join(lines) + "\r"


def transfer(control_id: str, origin: str, place: str, *, at: str, trigger: str = "A02") -> str:
    return event(trigger, control_id, pv1(place=place, f6=origin), at=at)


def beds(visit: Json) -> list[tuple[str, str]]:
    return [(one["location"]["display"], one["status"]) for one in visit["location"]]


# --- where a visit stands ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trigger", "status"),
    [
        *(("A01", "in-progress"), ("A02", "in-progress"), ("A03", "finished"), ("A04", "in-progress")),
        *(("A05", "planned"), ("A06", "in-progress"), ("A07", "in-progress"), ("A09", "in-progress")),
        *(("A10", "in-progress"), ("A11", "cancelled"), ("A12", "in-progress"), ("A13", "in-progress")),
        *(("A14", "planned"), ("A15", "in-progress"), ("A16", "in-progress"), ("A25", "in-progress")),
        *(("A26", "in-progress"), ("A27", "cancelled"), ("A38", "cancelled")),
    ],
)
def test_each_visit_event_leaves_the_visit_where_the_table_says_and_says_nothing_twice(
    hub: V2Hub, trigger: str, status: str
) -> None:
    assert hub.code(event(trigger, "1", pv1(), at="20250611080000")) == "AA"
    visit = hub.one("Encounter")
    assert visit["status"] == status
    assert hub.code(event(trigger, "2", pv1(), at="20250611080000")) == "AA"
    assert meta_of(hub.one("Encounter")) == meta_of(visit)


def test_transfers_keep_where_the_patient_lay_in_any_order(sqlite_database: Database, hub: V2Hub) -> None:
    texts = [
        event("A01", "1", pv1(place="A^1^1"), at="20250611080000"),
        transfer("2", "A^1^1", "B^2^1", at="20250611090000"),
        transfer("3", "B^2^1", "C^3^1", at="20250611100000"),
    ]
    ends = []
    for round_, order in enumerate(permutations(texts)):
        # Each order is another visit of another patient, so that one hub holds them all.
        for text in order:
            mine = (
                text.replace("10086", f"2000{round_}").replace("|V1", f"|V{round_}").replace("||ADT", f"|{round_}|ADT")
            )
            assert hub.code(mine) == "AA"
        visit = numbered(hub, "Encounter", f"V{round_}")
        ends.append([(*bed, one.get("period")) for bed, one in zip(beds(visit), visit["location"], strict=True)])
    assert ends[0] == [
        ("C 3 1", "active", {"start": "2025-06-11T10:00:00+08:00"}),
        ("B 2 1", "completed", {"start": "2025-06-11T09:00:00+08:00", "end": "2025-06-11T10:00:00+08:00"}),
        ("A 1 1", "completed", {"end": "2025-06-11T09:00:00+08:00"}),
    ]
    assert all(end == ends[0] for end in ends)


def test_a_cancelled_transfer_leads_back_and_marks_what_never_was(hub: V2Hub) -> None:
    hub.code(event("A01", "1", pv1(place="A^1^1"), at="20250611080000"))
    back = transfer("3", "B^2^1", "A^1^1", at="20250611100000", trigger="A12")
    hub.code(back)
    # The transfer itself comes last.
    hub.code(transfer("2", "A^1^1", "B^2^1", at="20250611090000"))
    visit = hub.one("Encounter")
    assert beds(visit) == [("A 1 1", "active"), ("B 2 1", "completed"), ("A 1 1", "completed")]
    assert [one.get("extension", [{}])[0].get("valueCode") for one in visit["location"]] == [
        "takes-back",
        "taken-back",
        None,
    ]
    assert visit["status"] == "in-progress"


def test_a_change_of_class_keeps_what_the_visit_was_before(hub: V2Hub) -> None:
    hub.code(event("A04", "1", pv1(f2="E"), at="20250611080000"))
    hub.code(event("A06", "2", pv1(f2="I"), at="20250611090000"))
    hub.code(event("A07", "3", pv1(f2="O"), at="20250611110000"))
    visit = hub.one("Encounter")
    assert visit["class"]["code"] == "AMB"
    assert [one["class"]["code"] for one in visit["classHistory"]] == ["EMER", "IMP", "AMB"]
    assert [sorted(one["period"]) for one in visit["classHistory"]] == [["end"], ["end", "start"], ["start"]]


def test_a_pending_discharge_and_its_cancellation(hub: V2Hub) -> None:
    hub.code(event("A16", "1", pv1(), "PV2||||||||20250611|20250620", at="20250611080000"))
    urls = {one["url"].rpartition(".")[2] for one in hub.one("Encounter")["extension"]}
    assert urls == {"plannedStartDate", "plannedEndDate"}
    hub.code(event("A25", "2", pv1(), at="20250611090000"))
    assert [one["url"].rpartition(".")[2] for one in hub.one("Encounter")["extension"]] == ["plannedStartDate"]


def test_a_pending_transfer_and_its_cancellation(hub: V2Hub) -> None:
    hub.code(event("A15", "1", pv1(place="A^1^1", f42="B^2^1"), at="20250611080000"))
    assert beds(hub.one("Encounter")) == [("A 1 1", "active"), ("B 2 1", "reserved")]
    hub.code(event("A26", "2", pv1(place="A^1^1", f42="B^2^1"), at="20250611090000"))
    assert beds(hub.one("Encounter")) == [("A 1 1", "active")]


# --- two patients ----------------------------------------------------------------------------------------------------


def test_a_swap_changes_the_two_beds_and_nothing_else(hub: V2Hub) -> None:
    hub.code(event("A01", "1", pv1("V1", place="A^1^1", f14="7"), at="20250611080000", person=pid("10001", name="甲")))
    hub.code(event("A01", "2", pv1("V2", place="B^2^1"), at="20250611080000", person=pid("10002", name="乙")))
    people = [meta_of(one) for one in hub.all("Patient")]
    second = [pid("10002", name="无"), pv1("V2", place="A^1^1", f6="B^2^1")]
    first = pv1("V1", place="B^2^1", f6="A^1^1", f14="9")
    swap = event("A17", "3", first, *second, at="20250611090000", person=pid("10001", name="名"))
    assert hub.code(swap) == "AA"
    one, other = numbered(hub, "Encounter", "V1"), numbered(hub, "Encounter", "V2")
    assert beds(one) == [("B 2 1", "active"), ("A 1 1", "completed")]
    assert beds(other) == [("A 1 1", "active"), ("B 2 1", "completed")]
    assert one["hospitalization"]["admitSource"]["coding"][0]["code"] == "7"
    assert [meta_of(one) for one in hub.all("Patient")] == people


def test_a_swap_of_one_is_refused(hub: V2Hub) -> None:
    assert hub.code(event("A17", "1", pv1(), at="20250611090000")) == "AE"
    assert hub.all("Encounter") == []


def moved(trigger: str, control_id: str, target: str, mrg: str, *segments: str, at: str = "20250611090000") -> str:
    return event(trigger, control_id, f"MRG|{mrg}", *segments, at=at, person=pid(target, name="对的人"))


def test_a_moved_visit_takes_along_what_was_said_of_it_and_leaves_the_rest(hub: V2Hub) -> None:
    wrong = adt("A01", "1", "DG1|1||I10^高血压", "AL1|1|DA|PEN^青霉素", number="10001", name="错的人", visit="V7")
    assert hub.code(wrong) == "AA"
    assert hub.code(adt("A01", "2", number="10001", name="错的人", visit="V8")) == "AA"
    assert hub.code(moved("A45", "3", "10002", "10001^^^^IDCard||||V7", pv1("V7"))) == "AA"
    right, source = (f"Patient/{numbered(hub, 'Patient', number)['id']}" for number in ("10002", "10001"))
    assert numbered(hub, "Encounter", "V7")["subject"]["reference"] == right
    assert numbered(hub, "Encounter", "V8")["subject"]["reference"] == source
    assert hub.one("Condition")["subject"]["reference"] == right
    # An allergy is the person's and not the visit's.
    assert hub.one("AllergyIntolerance")["patient"]["reference"] == source
    assert numbered(hub, "Patient", "10001")["active"] is True
    version = meta_of(numbered(hub, "Encounter", "V7"))
    assert hub.code(moved("A45", "4", "10002", "10001^^^^IDCard||||V7", pv1("V7"))) == "AA"
    assert meta_of(numbered(hub, "Encounter", "V7")) == version


def test_an_older_message_about_a_moved_visit_does_not_move_it_back(hub: V2Hub) -> None:
    assert hub.code(moved("A45", "1", "10002", "10001^^^^IDCard||||V7", pv1("V7"))) == "AA"
    hub.code(adt("A01", "2", "DG1|1||I10^高血压", number="10001", name="错的人", visit="V7", at="20250611080000"))
    right = f"Patient/{numbered(hub, 'Patient', '10002')['id']}"
    visit = hub.one("Encounter")
    assert (visit["subject"]["reference"], visit["status"], visit["class"]["code"]) == (right, "in-progress", "IMP")
    assert hub.one("Condition")["subject"]["reference"] == right
    # The record that was but a number until now has its name.
    assert numbered(hub, "Patient", "10001")["name"][0]["text"] == "错的人"


def account(person: str, number: str) -> str:
    return person + "|" * (18 - person.count("|")) + number


def test_a_moved_account_and_all_that_a_patient_has(hub: V2Hub) -> None:
    hub.code(event("A01", "1", pv1("V7"), at="20250611080000", person=account(pid("10001"), "ACC1")))
    source, money = numbered(hub, "Patient", "10001"), hub.one("Account")
    assert money["subject"] == [{"reference": f"Patient/{source['id']}"}]
    assert hub.code(moved("A44", "2", "10002", "10001^^^^IDCard||ACC1")) == "AA"
    right = f"Patient/{numbered(hub, 'Patient', '10002')['id']}"
    assert hub.one("Account")["subject"] == [{"reference": right}]
    assert hub.one("Encounter")["subject"]["reference"] == f"Patient/{source['id']}"
    assert hub.code(moved("A43", "3", "10002", "10001^^^^IDCard")) == "AA"
    assert hub.one("Encounter")["subject"]["reference"] == right


def test_a_move_never_reaches_what_another_hospital_has(hub: V2Hub) -> None:
    hub.code(adt("A01", "1", number="10001", visit="V7", facility="QHYY"))
    before = hub.one("Encounter")
    assert hub.code(moved("A43", "2", "10002", "10001^^^^IDCard")) == "AA"
    assert hub.code(moved("A45", "3", "10002", "10001^^^^IDCard||||V7", pv1("V7"))) == "AA"
    assert hub.one("Encounter", lambda one: one["id"] == before["id"]) == before


# --- numbers that give way ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trigger", ["A18", "A30", "A34", "A36", "A40", "A47"])
def test_every_name_of_a_patient_merge_merges(hub: V2Hub, trigger: str) -> None:
    text = a40("1", "10086", "10099").replace("A40", trigger)
    assert hub.code(text) == "AA"
    dead = numbered(hub, "Patient", "10099")
    assert dead["link"][0]["other"]["reference"] == f"Patient/{numbered(hub, 'Patient', '10086')['id']}"


@pytest.mark.parametrize("trigger", ["A42", "A50"])
def test_a_visit_number_that_gave_way_leads_to_the_other(hub: V2Hub, trigger: str) -> None:
    hub.code(adt("A01", "1", visit="V1", at="20250611080000"))
    assert hub.code(event(trigger, "2", "MRG|10086||||V1", pv1("V2"), at="20250611090000")) == "AA"
    assert hub.code(event("A03", "3", pv1("V1"), at="20250611100000")) == "AA"
    dead, alive = numbered(hub, "Encounter", "V1"), numbered(hub, "Encounter", "V2")
    assert (dead["status"], alive["status"]) == ("entered-in-error", "finished")
    assert {one["value"]: one.get("use") for one in alive["identifier"]} == {"V2": None, "V1": "old"}
    before = meta_of(dead), meta_of(alive)
    assert hub.code(event(trigger, "4", "MRG|10086||||V1", pv1("V2"), at="20250611090000")) == "AA"
    assert (meta_of(numbered(hub, "Encounter", "V1")), meta_of(numbered(hub, "Encounter", "V2"))) == before


@pytest.mark.parametrize("trigger", ["A35", "A41", "A49"])
def test_an_account_that_gave_way_is_inactive_and_patients_are_left_alone(hub: V2Hub, trigger: str) -> None:
    text = event(trigger, "1", "MRG|10099^^^^IDCard||ACC1", at="20250611090000", person=account(pid(), "ACC2"))
    assert hub.code(text) == "AA"
    assert numbered(hub, "Account", "ACC1")["status"] == "inactive"
    assert {one["value"] for one in numbered(hub, "Account", "ACC2")["identifier"]} == {"ACC1", "ACC2"}
    assert "link" not in hub.one("Patient")


def test_a_deleted_number_is_inactive_and_nothing_else_changes(hub: V2Hub) -> None:
    hub.code(adt("A01", "1", "AL1|1|DA|PEN^青霉素", at="20250611080000"))
    hub.code(adt("A01", "2", facility="QHYY", at="20250611080000"))
    before = {kind: hub.all(kind) for kind in ("Encounter", "AllergyIntolerance")}
    assert hub.code(adt("A29", "3", visit="", at="20250611090000")) == "AA"
    states = {one["managingOrganization"]["identifier"]["value"]: one["active"] for one in hub.all("Patient")}
    assert states == {"KN": False, "QH": True}
    assert {kind: hub.all(kind) for kind in before} == before
    hub.code(adt("A28", "4", visit="", at="20250611083000"))
    assert hub.one("Patient", lambda one: not one["active"])["name"][0]["text"] == "郑伟"


def test_deleting_a_number_that_was_merged_away_leaves_the_survivor_active(hub: V2Hub) -> None:
    hub.code(a40("1", "10086", "10099", at="20250611090000"))
    assert hub.code(adt("A29", "2", number="10099", visit="", at="20250611100000")) == "AA"
    assert numbered(hub, "Patient", "10086")["active"] is True
    assert hub.all("Task") == []


def test_an_admission_under_a_number_that_was_merged_away_waits_for_a_person(hub: V2Hub) -> None:
    """The number may be somebody else's by now: neither name nor visit may reach the survivor's record."""
    hub.code(adt("A28", "1", number="10086", visit="", at="20250611080000"))
    hub.code(a40("2", "10086", "10099", at="20250611090000"))
    survivor = meta_of(numbered(hub, "Patient", "10086"))
    text = adt("A01", "3", "AL1|1|DA|PEN^青霉素", number="10099", name="别人", visit="V9", at="20250611100000")
    assert hub.code(text) == "AA"
    assert (hub.all("Encounter"), hub.all("AllergyIntolerance")) == ([], [])
    assert meta_of(numbered(hub, "Patient", "10086")) == survivor
    assert hub.one("Task")["code"]["coding"][0]["code"] == "unmerge-candidate"
    assert hub.journal(control_id="3")[0].outcome.startswith("held: ")
    # A laboratory that has not heard of the merge is no such sign.
    result = oru("4", "F", "4.1", at="20250611110000").replace("10086", "10099")
    assert hub.code(result) == "AA"
    assert hub.one("Observation")["subject"]["reference"] == f"Patient/{numbered(hub, 'Patient', '10086')['id']}"


# --- allergies with action codes -------------------------------------------------------------------------------------


def test_action_codes_of_allergies_touch_one_allergy_each(hub: V2Hub) -> None:
    hub.code(
        event(
            "A60", "1", "IAM|1|DA|PEN^青霉素|SV|皮疹|A|A1||||20200101", "IAM|2|FA|EGG^鸡蛋|||A|A2", at="20250611080000"
        )
    )
    hub.code(event("A60", "2", "IAM|1|DA|PEN^青霉素|||D|A1", "IAM|2|FA|EGG^鸡蛋|||X|A2", at="20250611090000"))
    found = {one["identifier"][0]["value"]: one for one in hub.all("AllergyIntolerance")}
    assert found["A1"]["verificationStatus"]["coding"][0]["code"] == "entered-in-error"
    assert "clinicalStatus" not in found["A1"]
    assert found["A1"]["onsetDateTime"] == "2020-01-01"
    assert found["A2"]["clinicalStatus"]["coding"][0]["code"] == "active"
    assert meta_of(found["A2"]) == "1"
    # The addition that comes late does not bring it back.
    hub.code(event("A60", "3", "IAM|1|DA|PEN^青霉素|SV|皮疹|A|A1", at="20250611083000"))
    again = hub.one("AllergyIntolerance", lambda one: one["id"] == found["A1"]["id"])
    assert again["verificationStatus"]["coding"][0]["code"] == "entered-in-error"


def test_the_event_of_a_v21_message_stands_in_evn(hub: V2Hub) -> None:
    text = adt("A01", "1").replace("ADT^A01", "ADT").replace("|2.4", "|2.1")
    assert hub.code(text) == "AA"
    assert hub.one("Encounter")["status"] == "in-progress"


def test_a_z_field_goes_where_the_table_of_its_member_says(sqlite_database: Database) -> None:
    hub = V2Hub(sqlite_database, **{"z-fields": "ZPI-2=Patient.extension(blood-group).valueString"})
    assert hub.code(adt("A01", "1", "ZPI|1|RhD阴性")) == "AA"
    assert hub.one("Patient")["extension"][0]["valueString"] == "RhD阴性"
