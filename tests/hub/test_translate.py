"""Messages meet stored data: twice, late, out of order, merged. HL7 v2 chapters 2.10 and 3.3.40."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import pytest

from hub.ports import Database
from tests.support.databases import migrate, opened
from tests.support.v2 import V2Hub, a40, adt, meta_of, msh, oru, pid


@pytest.fixture
def hub(sqlite_database: Database) -> V2Hub:
    return V2Hub(sqlite_database)


@pytest.fixture
def hubs(tmp_path: Path) -> Iterator[list[V2Hub]]:
    """Six empty hubs, for six orders of three messages."""
    made: list[V2Hub] = []
    contexts = []
    for number in range(6):
        url = f"sqlite:///{tmp_path / str(number)}.db"
        migrate(url)
        contexts.append(opened(url))
        made.append(V2Hub(contexts[-1].__enter__()))
    yield made
    for context in contexts:
        context.__exit__(None, None, None)


def all_orders_end_the_same(hubs: list[V2Hub], messages: list[str]) -> None:
    states = []
    for hub, order in zip(hubs, permutations(messages), strict=True):
        for text in order:
            assert hub.code(text) == "AA"
        states.append(hub.state())
    assert states[0]
    for state in states[1:]:
        assert state == states[0]


def test_the_same_content_under_another_control_id_makes_no_new_version(hub: V2Hub) -> None:
    assert hub.code(adt("A01", "1", "AL1|1|DA|PEN^青霉素")) == "AA"
    before = {kind: [meta_of(one) for one in hub.all(kind)] for kind in ("Patient", "Encounter", "AllergyIntolerance")}
    assert hub.code(adt("A01", "2", "AL1|1|DA|PEN^青霉素")) == "AA"
    after = {kind: [meta_of(one) for one in hub.all(kind)] for kind in before}
    assert after == before == {"Patient": ["1"], "Encounter": ["1"], "AllergyIntolerance": ["1"]}
    assert len(hub.all("Provenance")) == 1


def test_preliminary_final_and_correction_end_the_same_in_any_order(hubs: list[V2Hub]) -> None:
    all_orders_end_the_same(
        hubs,
        [
            oru("1", "P", "6.50", at="20250611080000"),
            oru("2", "F", "6.90", at="20250611090000"),
            oru("3", "C", "6.70", at="20250611100000"),
        ],
    )
    result = hubs[0].one("Observation")
    assert result["status"] == "corrected"
    assert str(result["valueQuantity"]["value"]) == "6.70"


def test_results_of_two_patients_in_one_message_stay_with_each(hub: V2Hub) -> None:
    """ORU^R01 alone may repeat PID (chapter 7.3.1)."""
    first = oru("1", "F", "4.10", at="20250611090000").split("\r", 1)[1].removesuffix("\r")
    other = [
        pid("20001", name="李秀英"),
        "OBR|1|PL2|FL2|K^钾^L|||20250611070000|||||||||||||||20250611090000||LAB|F",
        "OBX|1|NM|2823-3^钾^LN||6.90|mmol/L|3.50-5.30|HH|||F",
    ]
    assert hub.code("\r".join([msh("ORU^R01", "1", sent="20250611090000"), first, *other, ""])) == "AA"
    names = {f"Patient/{one['id']}": one["name"][0]["text"] for one in hub.all("Patient")}
    values = {names[one["subject"]["reference"]]: str(one["valueQuantity"]["value"]) for one in hub.all("Observation")}
    assert values == {"郑伟": "4.10", "李秀英": "6.90"}


def test_a_late_preliminary_is_taken_and_changes_nothing(hub: V2Hub) -> None:
    hub.code(oru("1", "F", "6.90", at="20250611090000"))
    assert hub.code(oru("2", "P", "6.50", at="20250611080000")) == "AA"
    assert meta_of(hub.one("Observation")) == "1"
    late = hub.journal(control_id="2")[0]
    assert late.state == "done"
    assert late.outcome.startswith("superseded-on-arrival: ")


def test_demographics_of_the_newest_event_stand_in_any_order(hubs: list[V2Hub]) -> None:
    all_orders_end_the_same(
        hubs,
        [
            adt("A01", "1", at="20250611080000", phone="12000000001"),
            adt("A08", "2", at="20250611090000", phone="12000000002"),
            adt("A08", "3", at="20250611100000", phone="12000000003"),
        ],
    )
    assert hubs[0].one("Patient")["telecom"][0]["value"] == "12000000003"


def test_what_is_said_again_later_is_not_overwritten_by_what_was_said_in_between(hub: V2Hub) -> None:
    hub.code(adt("A01", "1", at="20250611080000", phone="12000000001"))
    hub.code(adt("A08", "2", at="20250611100000", phone="12000000001"))
    hub.code(adt("A08", "3", at="20250611090000", phone="12000000009"))
    patient = hub.one("Patient")
    assert patient["telecom"][0]["value"] == "12000000001"
    assert meta_of(patient) == "1"


def test_an_update_before_the_admission_makes_a_visit_that_the_admission_fills(hub: V2Hub) -> None:
    hub.code(adt("A08", "1", at="20250611090000"))
    assert hub.one("Encounter")["status"] == "unknown"
    hub.code(adt("A01", "2", at="20250611080000"))
    assert hub.one("Encounter")["status"] == "in-progress"


@pytest.mark.parametrize("update", ["A08", "A31", "A28"])
def test_an_update_does_not_change_the_status_of_a_visit(hub: V2Hub, update: str) -> None:
    hub.code(adt("A01", "1", at="20250611080000"))
    hub.code(adt("A03", "2", at="20250611090000"))
    assert hub.code(adt(update, "3", at="20250611100000", phone="12000000009")) == "AA"
    assert hub.one("Encounter")["status"] == "finished"
    assert hub.one("Patient")["telecom"][0]["value"] == "12000000009"


@pytest.mark.parametrize("update", ["A08", "A31"])
@pytest.mark.parametrize(("event", "status"), [("A03", "finished"), ("A11", "cancelled")])
def test_an_event_that_comes_after_a_newer_update_still_moves_the_visit(
    hubs: list[V2Hub], update: str, event: str, status: str
) -> None:
    """An update says nothing about where the visit stands, so it cannot have said it better."""
    all_orders_end_the_same(
        hubs,
        [
            adt("A01", "1", at="20250611080000"),
            adt(event, "2", at="20250611090000"),
            adt(update, "3", at="20250611100000", phone="12000000009"),
        ],
    )
    visit = hubs[0].one("Encounter")
    assert visit["status"] == status
    assert ("end" in visit.get("period", {})) is (status == "finished")
    assert hubs[0].one("Patient")["telecom"][0]["value"] == "12000000009"


def test_a_cancelled_discharge_holds_in_any_order(hubs: list[V2Hub]) -> None:
    all_orders_end_the_same(
        hubs,
        [
            adt("A01", "1", at="20250611080000"),
            adt("A03", "2", at="20250611090000"),
            adt("A13", "3", at="20250611100000"),
        ],
    )
    visit = hubs[0].one("Encounter")
    assert visit["status"] == "in-progress"
    assert "period" not in visit


def test_a_cancelled_discharge_is_believed_though_an_update_came_first(hub: V2Hub) -> None:
    hub.code(adt("A01", "1", at="20250611080000"))
    hub.code(adt("A03", "2", at="20250611090000"))
    hub.code(adt("A08", "3", at="20250611110000"))
    hub.code(adt("A13", "4", at="20250611100000"))
    visit = hub.one("Encounter")
    assert visit["status"] == "in-progress"
    assert "period" not in visit


def test_a_cancelled_discharge_opens_the_visit_again(hub: V2Hub) -> None:
    hub.code(adt("A01", "1", at="20250611080000"))
    hub.code(adt("A03", "2", at="20250611090000"))
    assert "end" in hub.one("Encounter")["period"]
    hub.code(adt("A13", "3", at="20250611100000"))
    visit = hub.one("Encounter")
    assert visit["status"] == "in-progress"
    assert "end" not in visit.get("period", {})


def test_a_cancelled_admission_cancels_the_visit_and_keeps_the_patient(hub: V2Hub) -> None:
    hub.code(adt("A01", "1", at="20250611080000"))
    hub.code(adt("A11", "2", at="20250611090000"))
    assert hub.one("Encounter")["status"] == "cancelled"
    assert hub.one("Patient")["active"] is True


def test_an_empty_field_leaves_and_a_null_field_clears(hub: V2Hub) -> None:
    hub.code(adt("A01", "1", at="20250611080000"))
    hub.code(adt("A08", "2", at="20250611090000", phone=""))
    assert hub.one("Patient")["telecom"][0]["value"] == "12000000001"
    hub.code(adt("A08", "3", at="20250611100000", phone='""'))
    assert "telecom" not in hub.one("Patient")


def test_a_list_retires_what_it_leaves_out_and_silence_says_nothing(hub: V2Hub) -> None:
    penicillin, latex = "AL1|1|DA|PEN^青霉素", "AL1|2|MA|LAT^乳胶"

    def states() -> dict[str, str]:
        return {
            one["code"]["coding"][0]["code"]: one["clinicalStatus"]["coding"][0]["code"]
            for one in hub.all("AllergyIntolerance")
        }

    hub.code(adt("A01", "1", penicillin, latex, at="20250611080000"))
    hub.code(adt("A08", "2", at="20250611090000"))
    assert states() == {"PEN": "active", "LAT": "active"}
    hub.code(adt("A08", "3", penicillin, at="20250611100000"))
    assert states() == {"PEN": "active", "LAT": "inactive"}
    hub.code(adt("A08", "4", penicillin, latex, at="20250611110000"))
    assert states() == {"PEN": "active", "LAT": "active"}


def test_lists_end_the_same_in_any_order(hubs: list[V2Hub]) -> None:
    all_orders_end_the_same(
        hubs,
        [
            adt("A01", "1", "AL1|1|DA|PEN^青霉素", "AL1|2|MA|LAT^乳胶", at="20250611080000"),
            adt("A08", "2", "AL1|1|DA|PEN^青霉素", at="20250611090000"),
            adt("A08", "3", "AL1|1|DA|PEN^青霉素", "AL1|2|FA|EGG^鸡蛋", at="20250611100000"),
        ],
    )
    states = {
        one["code"]["coding"][0]["code"]: one["clinicalStatus"]["coding"][0]["code"]
        for one in hubs[0].all("AllergyIntolerance")
    }
    assert states == {"PEN": "active", "LAT": "inactive", "EGG": "active"}


def test_the_diagnoses_of_one_visit_say_nothing_about_those_of_another(hub: V2Hub) -> None:
    hub.code(adt("A01", "1", "DG1|1||I10^原发性高血压", at="20250611080000", visit="V1"))
    hub.code(adt("A01", "2", "DG1|1||R05^咳嗽", at="20250612080000", visit="V2"))
    assert all("verificationStatus" not in one or one["verificationStatus"]["coding"][0]["code"] != "entered-in-error"
               for one in hub.all("Condition"))  # fmt: skip
    assert len(hub.all("Condition")) == 2


def test_a_list_of_one_hospital_leaves_the_patient_of_another_alone(hub: V2Hub) -> None:
    hub.code(adt("A01", "1", "AL1|1|DA|PEN^青霉素"))
    hub.code(adt("A01", "1", "AL1|1|DA|EGG^鸡蛋", facility="QHYY", name="周建国"), charset="gb18030")
    assert {one["clinicalStatus"]["coding"][0]["code"] for one in hub.all("AllergyIntolerance")} == {"active"}
    assert sorted(one["name"][0]["text"] for one in hub.all("Patient")) == ["周建国", "郑伟"]


def test_an_update_without_news_makes_no_new_version_of_the_visit_twice(hub: V2Hub) -> None:
    hub.code(adt("A01", "1", at="20250611080000"))
    hub.code(adt("A08", "2", at="20250611090000"))
    before = meta_of(hub.one("Encounter"))
    hub.code(adt("A08", "3", at="20250611100000"))
    assert meta_of(hub.one("Encounter")) == before


# --- merges ----------------------------------------------------------------------------------------------------


def by_number(hub: V2Hub, number: str) -> dict[str, object]:
    return hub.one("Patient", lambda one: any(
        item["value"] == number and item.get("use") != "old" for item in one["identifier"]
    ) or (one.get("active") is False and any(item["value"] == number for item in one["identifier"])))  # fmt: skip


def test_a_merge_links_both_records_and_repeating_it_changes_nothing(hub: V2Hub) -> None:
    hub.code(adt("A01", "1", number="10086", at="20250611080000"))
    hub.code(adt("A01", "2", number="10099", at="20250611080500", visit="V2"))
    assert hub.code(a40("3", "10086", "10099")) == "AA"
    survivor, dead = by_number(hub, "10086"), by_number(hub, "10099")
    assert dead["active"] is False
    assert dead["link"] == [{"other": {"reference": f"Patient/{survivor['id']}"}, "type": "replaced-by"}]
    assert survivor["link"] == [{"other": {"reference": f"Patient/{dead['id']}"}, "type": "replaces"}]
    assert {item["value"]: item.get("use") for item in survivor["identifier"]}["10099"] == "old"  # type: ignore[attr-defined]
    assert hub.code(a40("4", "10086", "10099")) == "AA"
    assert (meta_of(by_number(hub, "10086")), meta_of(by_number(hub, "10099"))) == (meta_of(survivor), meta_of(dead))


def test_a_later_message_for_the_dead_record_lands_on_the_survivor(hub: V2Hub) -> None:
    hub.code(adt("A01", "1", number="10086", at="20250611080000"))
    hub.code(adt("A01", "2", number="10099", at="20250611080500", visit="V2"))
    hub.code(a40("3", "10086", "10099", at="20250611090000"))
    survivor = by_number(hub, "10086")
    # Sent before the merge, arrived after it.
    hub.code(adt("A01", "4", "AL1|1|DA|PEN^青霉素", number="10099", at="20250611085000", visit="V3"))
    visit = hub.one("Encounter", lambda one: one["identifier"][0]["value"] == "V3")
    assert visit["subject"]["reference"] == f"Patient/{survivor['id']}"
    assert hub.one("AllergyIntolerance")["patient"]["reference"] == f"Patient/{survivor['id']}"
    assert hub.journal(control_id="4")[0].patient_id == survivor["id"]
    assert hub.all("Task") == []


def test_a_dead_number_in_use_again_becomes_work_for_a_person_once(hub: V2Hub) -> None:
    hub.code(adt("A01", "1", number="10099", at="20250611080500"))
    hub.code(a40("2", "10086", "10099", at="20250611090000"))
    hub.code(adt("A08", "3", number="10099", at="20250611100000"))
    hub.code(adt("A08", "4", number="10099", at="20250611110000"))
    item = hub.one("Task")
    assert item["code"]["coding"][0]["code"] == "unmerge-candidate"
    assert item["for"]["reference"] == f"Patient/{by_number(hub, '10086')['id']}"
    assert item["focus"]["reference"] == f"Patient/{by_number(hub, '10099')['id']}"
    assert by_number(hub, "10099")["active"] is False


def test_a_chain_of_merges_leads_to_the_last_survivor_in_any_order(hubs: list[V2Hub]) -> None:
    messages = [
        a40("1", "B2", "A1", at="20250611090000"),
        a40("2", "C3", "B2", at="20250611100000"),
        adt("A01", "3", number="A1", at="20250611080000", visit="V9"),
    ]
    for hub, order in zip(hubs, permutations(messages), strict=True):
        for text in order:
            assert hub.code(text) == "AA"
        last = hub.one("Patient", lambda one: one["active"])
        assert "C3" in {item["value"] for item in last["identifier"]}
        hub.code(oru("8", "F", "4.10", at="20250611110000").replace("10086", "A1"))
        assert hub.one("Observation")["subject"]["reference"] == f"Patient/{last['id']}"


def test_a_merge_never_reaches_the_record_of_another_institution(hub: V2Hub) -> None:
    hub.code(adt("A01", "1", number="10086", facility="QHYY", name="周建国"))
    hub.code(adt("A01", "1", number="10086", at="20250611080000"))
    before = hub.one("Patient", lambda one: one["managingOrganization"]["identifier"]["value"] == "QH")
    for number, dead in enumerate(("10086^^^QHYY^PI", "10086^^^QH^IDCard"), 2):
        merge = a40(str(number), "20001", "10086").replace("MRG|10086^^^^IDCard", f"MRG|{dead}")
        assert dead in merge
        assert hub.code(merge) == "AA"
    of_qh = hub.one("Patient", lambda one: one["managingOrganization"]["identifier"]["value"] == "QH")
    assert of_qh == before
    # Nor the sender's own patient who happens to have the same number.
    own = hub.one("Patient", lambda one: one["active"] and one["id"] != of_qh["id"] and "link" not in one)
    assert own["identifier"][0]["value"] == "10086"


def test_a_merge_of_a_record_nobody_sent_before_leaves_an_inactive_one(hub: V2Hub) -> None:
    assert hub.code(a40("1", "10086", "10099")) == "AA"
    assert by_number(hub, "10099")["active"] is False
    assert by_number(hub, "10086")["active"] is True


def test_a_merge_back_contradicts_the_first_one_and_becomes_work_for_a_person(hub: V2Hub) -> None:
    hub.code(a40("1", "10086", "10099", at="20250611090000"))
    assert hub.code(a40("2", "10099", "10086", at="20250611100000")) == "AA"
    assert by_number(hub, "10086")["active"] is True
    assert by_number(hub, "10099")["active"] is False
    assert [one["code"]["coding"][0]["code"] for one in hub.all("Task")] == ["merge-conflict"]


def test_one_record_merged_into_two_others_becomes_work_for_a_person(hub: V2Hub) -> None:
    hub.code(a40("1", "10086", "10099", at="20250611090000"))
    hub.code(a40("2", "10077", "10099", at="20250611100000"))
    dead = by_number(hub, "10099")
    assert dead["link"][0]["other"]["reference"] == f"Patient/{by_number(hub, '10086')['id']}"  # type: ignore[index]
    assert [one["code"]["coding"][0]["code"] for one in hub.all("Task")] == ["merge-conflict"]


# --- attachments -------------------------------------------------------------------------------------------------


def test_a_pdf_in_a_result_becomes_an_object_and_a_binary_that_points_at_it(hub: V2Hub) -> None:
    pdf = b"%PDF-1.4 test"
    text = oru("1", "F", "", at="20250611090000", obx="OBX|1|ED|PDF^报告||^AP^PDF^Base64^JVBERi0xLjQgdGVzdA==||||||F")
    assert hub.code(text) == "AA"
    binary = hub.one("Binary")
    digest = next(one["valueString"] for one in binary["_data"]["extension"] if one["url"].endswith("/object-digest"))
    assert hub.objects.read(digest) == pdf
    assert binary["contentType"] == "application/pdf"
    assert "data" not in binary
    report = hub.one("DiagnosticReport")
    assert f"Binary/{binary['id']}" in {form.get("url") for form in report["presentedForm"]}


def test_a_provenance_names_the_journal_entry_the_sender_and_the_repair(hub: V2Hub) -> None:
    # MSH-18 says ASCII, the bytes are GBK.
    text = "\r".join([msh("ADT^A28", "1", f18="ASCII"), "EVN|A28|20250611080000", pid(), ""])
    assert hub.code(text) == "AA"
    made = hub.one("Provenance")
    entry = hub.journal(control_id="1")[0]
    assert made["entity"][0]["what"]["identifier"]["value"] == str(entry.seq)
    assert made["target"] == [{"reference": f"Patient/{hub.one('Patient')['id']}"}]
    assert made["agent"][0]["who"]["identifier"]["value"] == "KN"
    assert "gb18030" in made["extension"][0]["valueString"]
    assert "charset-mislabelled" in entry.flags
