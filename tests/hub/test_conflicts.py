"""Images that contradict what is here: every byte kept, nobody shown the wrong one, a person decides."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fhir_mappings.definitions.check import check
from hub import conflicts
from hub.access import UNRESTRICTED
from hub.actor import HUB
from hub.boot import Services
from hub.errors import Category, HubError
from hub.imaging import ImagingService
from hub.imaging_ids import number_record_id
from hub.ports import NewVersion, StudyKey
from tests.support.databases import opened
from tests.support.images import KN, QH, STUDY, FakeClock, ct, receive, resources, services, settle

KEY = StudyKey(owner="KN", StudyInstanceUID=STUDY)
OTHER = {"PatientID": "20001", "PatientName": "LI^NA=李^娜", "PatientSex": "F", "PatientBirthDate": "19800101"}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def hub(database_url: str, tmp_path: Path, clock: FakeClock) -> Iterator[Services]:
    with opened(database_url, clock=clock) as database:
        yield services(database, tmp_path, clock)


def shown(hub: Services) -> list[str]:
    """Return the instance numbers that a retrieval of the study shows."""
    return [row.InstanceNumber for row in hub.imaging.retrieve(KN, STUDY)]


def conflict(hub: Services) -> dict[str, Any]:
    (task,) = [one for one in resources(hub, "Task") if one["code"]["coding"][0]["code"].endswith("-conflict")]
    assert check(task) == []
    return task


def decide(hub: Services, decision: str, actor: Any = HUB) -> StudyKey:
    task = conflict(hub)
    return hub.database.write(lambda tx: conflicts.settle(tx, hub, task["id"], decision, actor))


def completed(hub: Services, clock: FakeClock) -> dict[str, Any]:
    """Complete the study and return its ImagingStudy."""
    clock.forward(hub.settings.study_quiet_s + 1)
    assert settle(hub) == [KEY]
    (resource,) = resources(hub, "ImagingStudy")
    return resource


def name_of(hub: Services, reference: str) -> str:
    stored = hub.database.read(lambda tx: tx.records.get(*reference.split("/"), UNRESTRICTED))
    assert stored is not None
    return str(json.loads(stored.body)["name"][0]["text"])


def test_another_patients_images_are_kept_and_shown_to_nobody(hub: Services, clock: FakeClock) -> None:
    receive(hub, ct(1))
    held = ct(2, **OTHER)
    assert receive(hub, held) == "held"
    assert receive(hub, held) == "duplicate"
    assert shown(hub) == ["1"]
    versions = hub.database.read(lambda tx: tx.imaging.versions_of(KEY))
    assert hub.objects.read(next(one.digest for one in versions if not one.current)) == held
    assert conflict(hub)["code"]["coding"][0]["code"] == "patient-conflict"
    made = completed(hub, clock)
    assert (made["numberOfInstances"], name_of(hub, made["subject"]["reference"])) == (1, "郑伟")
    # A third of the same stranger raises no second work item.
    assert receive(hub, ct(3, **OTHER)) == "held"
    assert conflict(hub)["status"] == "requested"


def test_a_process_that_knows_the_series_still_looks_at_the_patient(hub: Services) -> None:
    for number in (1, 2):
        receive(hub, ct(number))
    assert receive(hub, ct(3, **OTHER)) == "held"
    receive(hub, ct(4))
    # Another process meets the stranger first.
    hub.__dict__["imaging"] = ImagingService(hub)
    assert receive(hub, ct(5, **OTHER)) == "held"
    assert shown(hub) == ["1", "2", "4"]


def test_a_process_that_knows_the_series_notices_that_the_study_has_changed_hands(hub: Services) -> None:
    receive(hub, ct(1))
    receive(hub, ct(2, **OTHER))
    # The process that settles it is another one than the one that still vouches for the first patient's series.
    assert decide(hub, "replace") == KEY
    assert receive(hub, ct(3)) == "held"
    assert receive(hub, ct(4, **OTHER)) == "new"
    assert shown(hub) == ["2", "4"]


def test_other_bytes_for_a_study_that_has_changed_hands_are_held_too(hub: Services) -> None:
    receive(hub, ct(1))
    receive(hub, ct(2, **OTHER))
    assert decide(hub, "replace") == KEY
    assert receive(hub, ct(1, StudyDescription="changed")) == "held"
    assert shown(hub) == ["2"]


def test_a_strangers_image_sent_twice_vouches_for_no_third(hub: Services) -> None:
    receive(hub, ct(1))
    assert [receive(hub, ct(2, series=2, **OTHER)) for _ in range(2)] == ["held", "duplicate"]
    assert receive(hub, ct(3, series=2, **OTHER)) == "held"
    assert shown(hub) == ["1"]


def test_a_merge_that_is_taken_back_lets_no_further_image_in(hub: Services) -> None:
    first, second = (number_record_id("KN", one) for one in ("10086", "20001"))
    link = {"other": {"reference": f"Patient/{first}"}, "type": "replaced-by"}

    def patient(**values: Any) -> None:
        resource = {"resourceType": "Patient", "id": second, **values}
        hub.database.write(lambda tx: tx.records.put_many([NewVersion(resource=resource, owner="KN")]))

    receive(hub, ct(1))
    hub.database.write(
        lambda tx: tx.records.put_many([NewVersion(resource={"resourceType": "Patient", "id": first}, owner="KN")])
    )
    patient(link=[link])
    assert [receive(hub, ct(number, **OTHER)) for number in (2, 3)] == ["new", "new"]
    patient()
    assert receive(hub, ct(4, **OTHER)) == "held"


def test_a_series_that_merges_let_in_is_written_once_an_image(hub: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    receive(hub, ct(1))
    receive(hub, ct(2, **OTHER))
    decide(hub, "accept")
    assert receive(hub, ct(3, **OTHER)) == "new"
    real, calls = hub.database.write, []
    monkeypatch.setattr(hub.database, "write", lambda work: (calls.append(work), real(work))[1])
    assert receive(hub, ct(4, **OTHER)) == "new"
    assert len(calls) == 1


def test_accepted_images_stand_beside_the_first_and_later_ones_are_let_in(hub: Services, clock: FakeClock) -> None:
    receive(hub, ct(1))
    receive(hub, ct(2, **OTHER))
    assert decide(hub, "accept") == KEY
    assert shown(hub) == ["1", "2"]
    assert conflict(hub)["status"] == "completed"
    assert receive(hub, ct(3, **OTHER)) == "new"
    assert completed(hub, clock)["numberOfInstances"] == 3


def test_a_study_sent_again_for_the_right_patient_becomes_that_patients(hub: Services, clock: FakeClock) -> None:
    for number in (1, 2):
        receive(hub, ct(number))
    completed(hub, clock)
    before = hub.imaging.metadata(KN, STUDY)[0]
    # The same objects with the patient corrected: other bytes under the same SOP Instance UIDs.
    for number in (1, 2):
        assert receive(hub, ct(number, **OTHER)) == "held"
    assert hub.imaging.metadata(KN, STUDY)[0] == before
    task = next(one for one in resources(hub, "Task") if one["code"]["coding"][0]["code"] == "patient-conflict")
    hub.database.write(lambda tx: conflicts.settle(tx, hub, task["id"], "replace", KN))
    rows = hub.imaging.retrieve(KN, STUDY, attributes=True)
    assert [json.loads(row.attributes)["00100020"]["Value"] for row in rows] == [["20001"], ["20001"]]
    assert hub.imaging.metadata(KN, STUDY)[0] != before
    made = completed(hub, clock)
    assert name_of(hub, made["subject"]["reference"]) == "李娜"
    found = hub.imaging.find(KN, "study", [("PatientID", "20001")]).rows
    assert [row["StudyInstanceUID"] for row in found] == [STUDY]
    assert hub.imaging.find(KN, "study", [("PatientName", "lina")], fuzzy=True).rows
    assert not hub.imaging.find(KN, "study", [("PatientID", "10086")]).rows
    # Every byte is still here.
    assert len(hub.database.read(lambda tx: tx.imaging.versions_of(KEY))) == 4


def test_what_is_not_the_patients_stays_aside_when_the_study_changes_hands(hub: Services) -> None:
    for number in (1, 2):
        receive(hub, ct(number))
    receive(hub, ct(3, **OTHER))
    decide(hub, "replace")
    assert shown(hub) == ["3"]


def test_refused_images_stay_aside_and_the_next_ask_again(hub: Services) -> None:
    receive(hub, ct(1))
    receive(hub, ct(2, **OTHER))
    decide(hub, "keep")
    assert shown(hub) == ["1"]
    assert receive(hub, ct(3, **OTHER)) == "held"
    assert conflict(hub)["status"] == "requested"


@pytest.mark.parametrize("name", ["LI^NA=李^娜", "李娜"])
def test_another_name_under_the_same_number_is_asked_about_and_shown(hub: Services, name: str) -> None:
    receive(hub, ct(1))
    assert receive(hub, ct(2, PatientName=name)) == "new"
    assert shown(hub) == ["1", "2"]
    assert conflict(hub)["code"]["coding"][0]["code"] == "name-conflict"
    decide(hub, "accept")
    assert receive(hub, ct(3, PatientName=name)) == "new"
    assert conflict(hub)["status"] == "completed"


@pytest.mark.parametrize("name", ["郑伟", "Zheng Wei", "ZHENGWEI", "WEI^ZHENG", "=郑^伟", "", "郑^伟^^="])
def test_the_same_name_written_otherwise_is_no_conflict(hub: Services, name: str) -> None:
    receive(hub, ct(1))
    assert receive(hub, ct(2, PatientName=name)) == "new"
    assert resources(hub, "Task") == []


def test_numbers_that_were_merged_are_one_patient(hub: Services, clock: FakeClock) -> None:
    receive(hub, ct(1))
    made = completed(hub, clock)
    dead = made["subject"]["reference"].removeprefix("Patient/")
    survivor = hub.imaging.find(KN, "study", []).rows[0]["patient_id"]
    assert dead == survivor
    from fhir_mappings.identifiers import resource_id

    living = resource_id("KN", "patient-id", "Patient", "20001")
    link = [{"other": {"reference": f"Patient/{living}"}, "type": "replaced-by"}]
    for resource in (
        {"resourceType": "Patient", "id": living},
        {"resourceType": "Patient", "id": dead, "active": False, "link": link},
    ):
        hub.database.write(lambda tx, one=resource: tx.records.put_many([NewVersion(resource=one, owner="KN")]))
    assert receive(hub, ct(2, **{**OTHER, "PatientName": "ZHENG^WEI"})) == "new"
    assert shown(hub) == ["1", "2"]


def test_other_bytes_can_take_the_place_of_the_first(hub: Services) -> None:
    receive(hub, ct())
    later = ct(SeriesDescription="corrected")
    assert receive(hub, later) == "conflict"
    assert decide(hub, "replace") == KEY
    (row,) = hub.imaging.retrieve(KN, STUDY)
    assert hub.objects.read(row.digest) == later
    with pytest.raises(HubError) as caught:
        decide(hub, "keep")
    assert caught.value.category is Category.CONFLICT


def test_a_stranger_decides_nothing(hub: Services) -> None:
    receive(hub, ct(1))
    receive(hub, ct(2, **OTHER))
    for decision, actor, category in (
        ("accept", QH, Category.NOT_FOUND),
        ("burn", KN, Category.INCORRECT),
    ):
        with pytest.raises(HubError) as caught:
            decide(hub, decision, actor)
        assert caught.value.category is category
    with pytest.raises(HubError) as caught:
        hub.database.write(lambda tx: conflicts.settle(tx, hub, "nothing", "keep", HUB))
    assert caught.value.category is Category.NOT_FOUND


def test_two_hospitals_with_one_study_do_not_meet(hub: Services) -> None:
    receive(hub, ct(1))
    assert receive(hub, ct(2, **OTHER), QH) == "new"
    assert resources(hub, "Task") == []


@pytest.mark.parametrize(("first", "later"), [("HIS", ""), ("", "HIS"), ("KN", "HIS")])
def test_a_number_without_its_issuer_contradicts_nothing(
    hub: Services, clock: FakeClock, first: str, later: str
) -> None:
    assert receive(hub, ct(1, IssuerOfPatientID=first)) == "new"
    assert receive(hub, ct(2, series=2, IssuerOfPatientID=later)) == "new"
    assert receive(hub, ct(3, series=2, IssuerOfPatientID=later, PatientName="ZHENG^WEI", PatientSex="")) == "new"
    assert shown(hub) == ["1", "2", "3"]
    resource = completed(hub, clock)
    assert resource["numberOfInstances"] == 3
    assert resource["subject"]["reference"] == f"Patient/{number_record_id('KN', '10086', first)}"
    assert not [one for one in resources(hub, "Task") if one["code"]["coding"][0]["code"].endswith("-conflict")]


@pytest.mark.parametrize(
    "other",
    [
        {"IssuerOfPatientID": "PEIS"},
        {"PatientName": "LI^NA=李^娜"},
        {"PatientBirthDate": "19800101"},
        {"PatientSex": "F"},
        {"PatientID": "20001"},
    ],
)
def test_an_issuer_that_is_missing_is_made_up_for_by_nothing_that_differs(hub: Services, other: dict[str, str]) -> None:
    receive(hub, ct(1, IssuerOfPatientID="HIS"))
    assert receive(hub, ct(2, **other)) == "held"
    assert shown(hub) == ["1"]
    assert conflict(hub)["code"]["coding"][0]["code"] == "patient-conflict"


@pytest.mark.parametrize("first", ["", "KN"])
@pytest.mark.parametrize("series", [1, 2])
def test_two_issuers_in_a_study_that_began_without_one_are_two_patients(hub: Services, first: str, series: int) -> None:
    receive(hub, ct(1, IssuerOfPatientID=first))
    assert receive(hub, ct(2, IssuerOfPatientID="HIS")) == "new"
    assert receive(hub, ct(3, series=series, IssuerOfPatientID="PEIS")) == "held"
    # Who was here goes on, and whom nobody has decided about waits, whatever comes between them.
    assert receive(hub, ct(4, series=series, IssuerOfPatientID="HIS")) == "new"
    assert receive(hub, ct(5, series=series, IssuerOfPatientID="PEIS")) == "held"
    assert receive(hub, ct(6, series=series)) == "new"
    assert sorted(shown(hub)) == ["1", "2", "4", "6"]
    assert conflict(hub)["code"]["coding"][0]["code"] == "patient-conflict"


@pytest.mark.parametrize("decision", ["keep", "accept", "replace"])
def test_the_second_issuer_of_a_study_is_settled_like_another_patient(hub: Services, decision: str) -> None:
    receive(hub, ct(1))
    receive(hub, ct(2, IssuerOfPatientID="HIS"))
    receive(hub, ct(3, IssuerOfPatientID="PEIS"))
    decide(hub, decision)
    assert shown(hub) == {"keep": ["1", "2"], "accept": ["1", "2", "3"], "replace": ["3"]}[decision]
    later = [receive(hub, ct(4 + number, IssuerOfPatientID=issuer)) for number, issuer in enumerate(("HIS", "PEIS"))]
    assert later == {"keep": ["new", "held"], "accept": ["new", "new"], "replace": ["held", "new"]}[decision]


def test_an_accepted_patients_issuer_says_nothing_of_another_number(hub: Services) -> None:
    receive(hub, ct(1))
    receive(hub, ct(2, **OTHER, IssuerOfPatientID="PEIS"))
    decide(hub, "accept")
    assert receive(hub, ct(3, IssuerOfPatientID="HIS")) == "new"


@pytest.mark.parametrize("aside", [{"SOPInstanceUID": f"{STUDY}.1.1"}, OTHER], ids=["uid of another series", "patient"])
def test_a_series_of_which_all_was_set_aside_is_never_listed(
    hub: Services, clock: FakeClock, aside: dict[str, str]
) -> None:
    def listed(*matches: tuple[str, str]) -> list[str]:
        return [row["SeriesInstanceUID"] for row in hub.imaging.find(KN, "series", list(matches)).rows]

    def only_the_first() -> bool:
        assert listed() == listed(("Modality", "CT")) == [f"{STUDY}.1"]
        assert len(hub.imaging.find(KN, "study", [("ModalitiesInStudy", "CT")]).rows) == 1
        return hub.imaging.find(KN, "study", [("ModalitiesInStudy", "MR")]).rows == []

    receive(hub, ct(1))
    assert receive(hub, ct(9, series=2, Modality="MR", **aside)) in {"conflict", "held"}
    # Neither while the study is being received, nor once it has been counted.
    assert only_the_first()
    completed(hub, clock)
    assert only_the_first()
    assert receive(hub, ct(10, series=2, Modality="MR")) == "new"
    assert listed() == [f"{STUDY}.1", f"{STUDY}.2"]
    assert len(hub.imaging.find(KN, "study", [("ModalitiesInStudy", "MR")]).rows) == 1


@pytest.mark.parametrize("decision", ["", "keep"])
def test_an_image_that_says_less_follows_what_was_asked_about_its_number(hub: Services, decision: str) -> None:
    receive(hub, ct(1, IssuerOfPatientID="HIS"))
    receive(hub, ct(2, PatientName="LI^NA=李^娜"))
    if decision:
        decide(hub, decision)
    receive(hub, ct(3, PatientName=None, PatientSex=None, PatientBirthDate=None))
    assert shown(hub) == ["1"]
    decide(hub, "accept")
    assert shown(hub) == ["1", "2", "3"]
