"""What is marked deleted is seen by nobody and kept whole; what is on hold cannot be touched."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fhir_mappings.definitions.check import check
from hub import retrieval
from hub.access import UNRESTRICTED
from hub.actor import HUB, Actor
from hub.boot import Services
from hub.deletion import Deletion
from hub.errors import Category, HubError
from hub.imaging import ImagingService
from hub.imaging_ids import study_resource_id
from hub.performed_step import Expected, missing
from hub.ports import Grant, StudyKey
from tests.support.databases import opened
from tests.support.images import KN, QH, STUDY, YL, FakeClock, ct, envelope, receive, resources, services, settle

KEY = StudyKey(owner="KN", StudyInstanceUID=STUDY)
ADMIN = Actor(institution="KN", roles=frozenset({"admin"}))
WHY = "拍错部位"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def hub(database_url: str, tmp_path: Path, clock: FakeClock) -> Iterator[Services]:
    with opened(database_url, clock=clock) as database:
        yield services(database, tmp_path, clock)


@pytest.fixture
def desk(hub: Services) -> Deletion:
    return Deletion(hub)


def instance(number: int, series: int = 1) -> tuple[str, str, str]:
    return STUDY, f"{STUDY}.{series}", f"{STUDY}.{series}.{number}"


def shown(hub: Services, actor: Actor = KN) -> list[str]:
    """Return the instances of the study that a search and a retrieval show."""
    found = hub.imaging.find(actor, "instance", [("StudyInstanceUID", STUDY)], attributes=True).rows
    assert [row.SOPInstanceUID for row in found] == retrieved(hub, actor)
    return [row.SOPInstanceUID.removeprefix(f"{STUDY}.") for row in found]


def retrieved(hub: Services, actor: Actor) -> list[str]:
    with contextlib.suppress(HubError):
        return [row.SOPInstanceUID for row in hub.imaging.retrieve(actor, STUDY)]
    return []


def complete(hub: Services, clock: FakeClock) -> None:
    clock.forward(hub.settings.study_quiet_s + 1)
    assert settle(hub) == [KEY]


def imaging_study(hub: Services) -> dict[str, Any]:
    (found,) = resources(hub, "ImagingStudy")
    assert check(found) == []
    return found


def refusal(category: Category, work: Any) -> HubError:
    with pytest.raises(HubError) as caught:
        work()
    assert caught.value.category is category
    return caught.value


def test_one_instance_leaves_everything_at_once_and_no_byte_is_lost(
    hub: Services, desk: Deletion, clock: FakeClock
) -> None:
    data = ct(2)
    for one in (ct(1), data, ct(1, series=2)):
        receive(hub, one)
    complete(hub, clock)
    tag = hub.imaging.metadata(KN, STUDY)[0]
    assert desk.delete(ADMIN, *instance(2), reason=f"  {WHY}\n") == 1
    assert shown(hub) == ["1.1", "2.1"]
    assert hub.imaging.metadata(KN, STUDY)[0] != tag
    (row,) = hub.imaging.find(KN, "study", [("StudyInstanceUID", STUDY)]).rows
    assert (row["NumberOfStudyRelatedInstances"], row["NumberOfStudyRelatedSeries"]) == (2, 2)
    assert [one.SOPInstanceUID for one in hub.imaging.find(KN, "instance", []).rows] == [
        instance(1)[2],
        instance(1, 2)[2],
    ]
    made = imaging_study(hub)
    assert (made["status"], made["numberOfInstances"]) == ("available", 2)
    (mark,) = desk.marks(KN)
    assert (mark.SOPInstanceUID, mark.reason, mark.marked_by) == (instance(2)[2], WHY, "KN/system")
    assert hub.objects.read(mark.digest) == data
    assert len(hub.database.read(lambda tx: tx.imaging.versions_of(KEY))) == 3


def test_a_series_without_images_is_no_longer_listed(hub: Services, desk: Deletion, clock: FakeClock) -> None:
    for one in (ct(1), ct(1, series=2, Modality="MR")):
        receive(hub, one)
    complete(hub, clock)
    assert desk.delete(KN, *instance(1, 2)[:2], reason=WHY) == 1
    assert [row["SeriesInstanceUID"] for row in hub.imaging.find(KN, "series", []).rows] == [f"{STUDY}.1"]
    assert not hub.imaging.find(KN, "study", [("ModalitiesInStudy", "MR")]).rows
    assert [one["uid"] for one in imaging_study(hub)["series"]] == [f"{STUDY}.1"]
    desk.restore(KN, *instance(1, 2)[:2], reason="误删")
    assert len(hub.imaging.find(KN, "series", []).rows) == 2
    assert hub.imaging.find(KN, "study", [("ModalitiesInStudy", "MR")]).rows


def test_a_whole_study_is_as_if_absent_until_it_is_restored(hub: Services, desk: Deletion, clock: FakeClock) -> None:
    for number in (1, 2):
        receive(hub, ct(number))
    complete(hub, clock)
    tag = hub.imaging.metadata(KN, STUDY)[0]
    assert desk.delete(KN, STUDY, reason=WHY) == 2
    for level in ("study", "series", "instance"):
        assert hub.imaging.find(KN, level, []).rows == []  # type: ignore[arg-type]
    assert hub.database.read(lambda tx: tx.imaging.patients(UNRESTRICTED, [], limit=9)) == []
    refusal(Category.NOT_FOUND, lambda: hub.imaging.metadata(KN, STUDY))
    gone = imaging_study(hub)
    # Nobody is asked any more to find its order.
    assert [one["status"] for one in resources(hub, "Task")] == ["completed"]
    assert (gone["status"], gone["numberOfInstances"]) == ("entered-in-error", 0)
    assert "series" not in gone
    refusal(Category.NOT_FOUND, lambda: desk.delete(KN, STUDY, reason=WHY))
    # Nothing of it comes back by itself.
    complete(hub, clock)
    assert imaging_study(hub)["status"] == "entered-in-error"
    assert desk.restore(ADMIN, STUDY, reason="误删") == 2
    assert shown(hub) == ["1.1", "1.2"]
    assert (imaging_study(hub)["status"], imaging_study(hub)["numberOfInstances"]) == ("available", 2)
    assert hub.imaging.metadata(KN, STUDY)[0] != tag
    assert desk.marks(KN) == []


def test_a_study_marked_while_it_is_received_gets_its_imaging_study_when_it_is_back(
    hub: Services, desk: Deletion, clock: FakeClock
) -> None:
    receive(hub, ct(1))
    desk.delete(KN, STUDY, reason=WHY)
    assert hub.imaging.find(KN, "study", []).rows == []
    complete(hub, clock)
    assert resources(hub, "ImagingStudy") == []
    desk.restore(KN, STUDY, reason="误删")
    assert [row["NumberOfStudyRelatedInstances"] for row in hub.imaging.find(KN, "study", []).rows] == [1]
    complete(hub, clock)
    assert imaging_study(hub)["numberOfInstances"] == 1


def test_the_same_image_sent_again_is_success_and_stays_deleted(hub: Services, desk: Deletion) -> None:
    receive(hub, ct(1))
    receive(hub, ct(2))
    desk.delete(KN, *instance(2), reason=WHY)
    assert receive(hub, ct(2)) == "duplicate"
    # The same data set with other file meta information, from a process that has not seen the series before.
    hub.__dict__["imaging"] = ImagingService(hub)
    assert receive(hub, ct(2, meta={"ImplementationVersionName": "AGAIN"})) == "duplicate"
    assert shown(hub) == ["1.1"]
    entries = hub.database.read(lambda tx: tx.journal.search({"control_id": instance(2)[2], "door": "dimse"}, limit=9))
    assert [(one.outcome, one.flags) for one in entries] == [
        ("duplicate", "deleted"),
        ("duplicate", "deleted"),
        ("new", ""),
    ]


def test_other_bytes_of_a_deleted_image_wait_for_a_decision(hub: Services, desk: Deletion) -> None:
    from hub import conflicts

    receive(hub, ct(1))
    desk.delete(KN, *instance(1), reason=WHY)
    assert receive(hub, ct(1, SeriesDescription="Bone")) == "conflict"
    assert shown(hub) == []
    (task,) = [one for one in resources(hub, "Task") if one["code"]["coding"][0]["code"] == "imaging-conflict"]
    hub.database.write(lambda tx: conflicts.settle(tx, hub, task["id"], "replace", HUB))
    assert desk.marks(KN) == []


def test_new_images_of_a_deleted_study_are_shown(hub: Services, desk: Deletion, clock: FakeClock) -> None:
    receive(hub, ct(1))
    complete(hub, clock)
    desk.delete(KN, STUDY, reason=WHY)
    clock.forward(3600)
    assert receive(hub, ct(2)) == "new"
    assert shown(hub) == ["1.2"]
    assert [row["NumberOfStudyRelatedInstances"] for row in hub.imaging.find(KN, "study", []).rows] == [1]
    assert len(hub.imaging.find(KN, "series", []).rows) == 1
    complete(hub, clock)
    assert (imaging_study(hub)["status"], imaging_study(hub)["numberOfInstances"]) == ("available", 1)


def test_new_images_from_a_process_that_knows_the_series_are_counted_in_the_end(
    hub: Services, desk: Deletion, clock: FakeClock
) -> None:
    receive(hub, ct(1))
    desk.delete(KN, STUDY, reason=WHY)
    assert receive(hub, ct(2)) == "new"
    complete(hub, clock)
    assert shown(hub) == ["1.2"]


def test_only_the_owners_software_and_administrator_may_delete(hub: Services, desk: Deletion) -> None:
    receive(hub, ct(1))
    doctor = Actor(institution="KN", practitioner="1", roles=frozenset({"doctor"}))
    refusal(Category.FORBIDDEN, lambda: desk.delete(doctor, STUDY, reason=WHY))
    refusal(Category.NOT_FOUND, lambda: desk.delete(QH, STUDY, reason=WHY))
    operator = Actor(institution="KN", roles=frozenset({"operator", "admin"}))
    refusal(Category.NOT_FOUND, lambda: desk.delete(operator, STUDY, reason=WHY))
    grant = Grant(grantee="YL", target_type="ImagingStudy", target_id=study_resource_id("KN", STUDY), task_id="t1")
    hub.database.write(lambda tx: tx.grants.open(grant, now=hub.clock()))
    reader = Actor(institution="YL", roles=frozenset({"system"}))
    assert shown(hub, reader) == ["1.1"]
    refusal(Category.FORBIDDEN, lambda: desk.delete(reader, STUDY, reason=WHY))
    refusal(Category.FORBIDDEN, lambda: desk.restore(reader, STUDY, reason=WHY, owner="KN"))
    refusal(Category.FORBIDDEN, lambda: desk.marks(YL))
    assert refusal(Category.INCORRECT, lambda: desk.delete(KN, STUDY, reason=" \n")).where == "reason"
    assert shown(hub) == ["1.1"]
    assert desk.delete(HUB, STUDY, reason=WHY, owner="KN") == 1


def test_every_act_is_audited_with_its_reason(hub: Services, desk: Deletion) -> None:
    receive(hub, ct(1))
    desk.delete(KN, STUDY, reason=WHY)
    desk.restore(KN, STUDY, reason="误删")
    desk.hold(KN, STUDY, reason="诉讼")
    desk.release(KN, STUDY, reason="结案")
    events = hub.database.read(lambda tx: tx.audit.search({}, institution=None, limit=20, before=None))
    said = [
        (event["subtype"][0]["code"], event["action"])
        for event in events
        if event.get("subtype") and event["subtype"][0]["code"].endswith(("-images", "-study"))
    ]
    assert said == [("release-study", "U"), ("hold-study", "U"), ("restore-images", "U"), ("delete-images", "D")]
    assert WHY in str(events[-2]) or WHY in str(events)


def test_a_study_on_hold_cannot_be_deleted(hub: Services, desk: Deletion) -> None:
    receive(hub, ct(1))
    made = desk.hold(KN, STUDY, reason="诉讼")
    assert desk.holds(KN) == [made]
    assert desk.holds(QH) == []
    assert refusal(Category.CONFLICT, lambda: desk.delete(KN, *instance(1), reason=WHY)).where == STUDY
    refusal(Category.NOT_FOUND, lambda: desk.hold(KN, "1.2.3", reason="诉讼"))
    desk.release(KN, STUDY, reason="结案")
    refusal(Category.NOT_FOUND, lambda: desk.release(KN, STUDY, reason="结案"))
    assert desk.delete(KN, *instance(1), reason=WHY) == 1
    # What is not shown can be held too.
    assert desk.hold(HUB, STUDY, reason="诉讼", owner="KN").key == KEY


def test_what_is_deleted_is_neither_moved_nor_found_missing(hub: Services, desk: Deletion) -> None:
    for number in (1, 2):
        receive(hub, ct(number))
    desk.delete(KN, *instance(2), reason=WHY)
    asked = retrieval.select(hub, envelope(hub, kind="C-GET"), "STUDY", {"StudyInstanceUID": (STUDY,)})
    assert [one.SOPInstanceUID for one in asked.items] == [instance(1)[2]]
    expected = Expected(instances=frozenset({instance(1)[2], instance(2)[2], instance(3)[2]}))
    assert hub.database.read(lambda tx: missing(tx, KEY, expected)) == {instance(3)[2]}


def test_a_series_of_which_nothing_is_left_hides_no_other(hub: Services, desk: Deletion) -> None:
    """A key inside a sequence is matched in the first series that has images."""
    for series in (1, 2):
        receive(hub, ct(1, series=series))
    desk.delete(KN, *instance(1, 1)[:2], reason=WHY)
    assert hub.database.read(lambda tx: tx.imaging.series_uids(KEY)) == [f"{STUDY}.2"]
