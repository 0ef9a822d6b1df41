"""What has run out is a list; only the operator removes it, in two steps, and never what somebody still needs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from fhir_mappings.definitions.check import check
from hub.access import UNRESTRICTED
from hub.actor import HUB, Actor
from hub.boot import Services
from hub.changes import ChangeFeed
from hub.deletion import Deletion
from hub.errors import Category, HubError
from hub.imaging_ids import study_resource_id
from hub.ports import Grant, Member, NewVersion, StudyKey
from hub.retention import Expired, Retention, word_for, years_later
from hub.retention_policy import Policy, is_policy
from storage.fsck import fsck
from tests.support.databases import opened
from tests.support.images import KN, QH, STUDY, FakeClock, ct, receive, resources, services, settle

OLD, OLDER, OTHER = f"{STUDY}.50", f"{STUDY}.51", f"{STUDY}.52"
WHY = "保存期满"
YEAR_S = 366 * 86400.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def hub(database_url: str, tmp_path: Path, clock: FakeClock) -> Iterator[Services]:
    with opened(database_url, clock=clock) as database:
        made = services(database, tmp_path, clock)
        policy(made, "")
        yield made


@pytest.fixture
def desk(hub: Services) -> Retention:
    return Retention(hub)


def policy(hub: Services, text: str) -> None:
    settings = {"retention": text} if text else {}
    member = Member(code="KN", organization_id="kn", name="康宁", settings=settings)
    hub.database.write(lambda tx: tx.members.replace([member], [], []))


def old(hub: Services, clock: FakeClock, *studies: bytes) -> None:
    """Receive *studies*, let them become ImagingStudies, and a year go by."""
    for one in studies:
        receive(hub, one)
    clock.forward(hub.settings.study_quiet_s + 1)
    settle(hub)
    settled(hub)
    clock.forward(YEAR_S)


def settled(hub: Services) -> None:
    """Close every work item, as a desk does."""
    for task in resources(hub, "Task"):
        body = {**task, "status": "completed"}
        hub.database.write(lambda tx, one=body: tx.records.put_many([NewVersion(resource=one, owner="KN")]))  # type: ignore[misc]


def ct_of(study: str, day: str, **attributes: Any) -> bytes:
    return ct(1, study=study, StudyDate=day, **attributes)


def uids(found: Any) -> list[str]:
    return [one.kept.key.StudyInstanceUID for one in found]


def key(study: str) -> StudyKey:
    return StudyKey(owner="KN", StudyInstanceUID=study)


# --- the policy


def test_a_policy_says_years_in_general_and_by_modality() -> None:
    assert Policy.of("").years == 30
    made = Policy.of("years=20 US=15 MG=40")
    assert [made.of_study(one) for one in ((), ("CT",), ("US",), ("SR", "US"), ("US", "MG"))] == [20, 20, 15, 20, 40]
    assert made.least == 15
    assert Policy.of("25").years == 25


@pytest.mark.parametrize("text", ["14", "US=1", "forever", "years=", "30y", "ct=30", "years=300", "-30"])
def test_a_policy_that_keeps_too_little_or_says_nothing_is_none(text: str) -> None:
    assert not is_policy(text)


def test_the_end_of_a_leap_day_is_the_first_of_march() -> None:
    assert years_later(date(2024, 2, 29), 15) == date(2039, 3, 1)
    assert years_later(date(2025, 2, 28), -30) == date(1995, 2, 28)


# --- the list


def test_what_is_kept_longer_than_the_policy_asks_is_listed(hub: Services, desk: Retention, clock: FakeClock) -> None:
    old(hub, clock, ct_of(OLD, "19960613"), ct_of(OTHER, "19960614", PatientID="20001"))
    assert desk.expired(HUB, "KN") == []
    # On the last day it is still kept; a patient's own day counts, not another's.
    clock.forward((date(2026, 6, 14) - clock.now.date()).days * 86400)
    (one,) = desk.expired(HUB, "KN")
    assert isinstance(one, Expired)
    assert (one.kept.key, one.ended, one.years, one.why_kept) == (key(OLD), date(2026, 6, 13), 30, ())
    assert (one.kept.instances, one.kept.modalities) == (1, ("CT",))


def test_the_patients_last_study_keeps_all_of_the_patients(hub: Services, desk: Retention, clock: FakeClock) -> None:
    old(hub, clock, ct_of(OLD, "19900101"), ct_of(OLDER, "20100101"), ct_of(OTHER, "19900101", PatientID="20001"))
    assert uids(desk.expired(HUB, "KN")) == [OTHER]


def test_a_members_policy_counts_by_modality(hub: Services, desk: Retention, clock: FakeClock) -> None:
    old(
        hub,
        clock,
        ct_of(OLD, "20050101", PatientID="1", Modality="US"),
        ct_of(OTHER, "20050101", PatientID="2", Modality="MG"),
    )
    assert desk.expired(HUB, "KN") == []
    policy(hub, "years=15 MG=40")
    assert uids(desk.expired(HUB, "KN")) == [OLD]


def test_what_came_within_a_year_or_tells_no_day_is_not_listed(
    hub: Services, desk: Retention, clock: FakeClock
) -> None:
    old(hub, clock, ct_of(OLD, "", PatientID="1"))
    receive(hub, ct_of(OTHER, "19900101", PatientID="2"))
    assert desk.expired(HUB, "KN") == []
    clock.forward(YEAR_S)
    assert uids(desk.expired(HUB, "KN")) == [OTHER]


def test_what_somebody_needs_is_listed_with_why_and_stays(hub: Services, desk: Retention, clock: FakeClock) -> None:
    old(hub, clock, *(ct_of(f"{STUDY}.6{n}", "19900101", PatientID=str(n)) for n in range(4)))
    assert {one.why_kept for one in desk.expired(HUB, "KN")} == {()}
    Deletion(hub).hold(KN, f"{STUDY}.60", reason="诉讼")
    target = study_resource_id("KN", f"{STUDY}.61")
    grant = Grant(grantee="YL", target_type="ImagingStudy", target_id=target, task_id="t1")
    hub.database.write(lambda tx: tx.grants.open(grant, now=clock()))
    study = hub.database.read(lambda tx: tx.imaging.study(key(f"{STUDY}.62")))
    assert study is not None
    task = {
        "resourceType": "Task",
        "id": "t2",
        "status": "in-progress",
        "intent": "order",
        "for": {"reference": f"Patient/{study['patient_id']}"},
    }
    hub.database.write(lambda tx: tx.records.put_many([NewVersion(resource=task, owner="KN")]))
    assert receive(hub, ct(1, study=f"{STUDY}.63", StudyDate="19900101", PatientID="3", SeriesDescription="B")) == (
        "conflict"
    )
    clock.forward(YEAR_S)
    assert [one.why_kept for one in desk.expired(HUB, "KN")] == [("hold",), ("grant",), ("task",), ("conflict",)]
    with pytest.raises(HubError) as caught:
        desk.remove(HUB, "KN", reason=WHY, word=word_for([]))
    assert caught.value.category is Category.CONFLICT


# --- the removal


def test_what_goes_is_gone_with_its_bytes_and_nothing_else_is(
    hub: Services, desk: Retention, clock: FakeClock, tmp_path: Path
) -> None:
    theirs = ct_of(OLD, "19900101")
    old(hub, clock, theirs, ct(2), ct_of(OTHER, "19900101", PatientID="20001"))
    # Another institution has the very same bytes of one, and keeps them.
    receive(hub, ct_of(OTHER, "19900101", PatientID="20001"), QH)
    policy(hub, "15")
    clock.forward(YEAR_S * 20)
    found = [one for one in desk.expired(HUB, "KN") if uids([one]) != [STUDY]]
    assert uids(found) == [OLD, OTHER] or uids(found) == [OLD, OTHER][::-1]
    going = desk.expired(HUB, "KN")
    digests = {
        row.digest for one in going for row in hub.database.read(lambda tx, k=one.kept.key: tx.imaging.versions_of(k))
    }  # type: ignore[misc]
    done = desk.remove(HUB, "KN", reason=WHY, word=word_for(going))
    assert (done.studies, done.instances, {one.digest for one in done.objects}) == (len(going), len(going), digests)
    for level in ("study", "series", "instance"):
        assert hub.imaging.find(KN, level, []).rows == []  # type: ignore[arg-type]
        assert len(hub.imaging.find(QH, level, []).rows) == 1  # type: ignore[arg-type]
    row = hub.database.read(lambda tx: tx.imaging.study(key(OLD)))
    assert row is not None
    assert (row["PatientName"], row["name_search"], row["PatientID"], row["StudyDate"]) == ("", "", "", "")
    stored = hub.database.read(lambda tx: tx.records.get("ImagingStudy", study_resource_id("KN", OLD), UNRESTRICTED))
    assert stored is not None
    assert stored.deleted
    report = fsck(hub.database, hub.objects, tmp_path, repair=False)  # type: ignore[arg-type]
    assert report.sound
    assert set(report.orphans) >= digests - {row.digest for row in hub.imaging.retrieve(QH, OTHER)}
    assert desk.expired(HUB, "KN") == []
    assert [one.purged_at is not None for one in Deletion(hub).marks(KN)] == [True] * len(going)
    # The feed still tells what there was, and to whom it belonged.
    actions = [(one.action, one.state) for one in ChangeFeed(hub).since(KN, 0).changes]
    assert actions == [("create", "deleted")] * 3 + [("delete", "deleted")] * 3
    events = hub.database.read(lambda tx: tx.audit.search({}, institution=None, limit=20, before=None))
    assert "expire-study" in str(events)
    assert WHY in str(events)


def test_the_word_is_for_what_was_listed_and_nothing_more(hub: Services, desk: Retention, clock: FakeClock) -> None:
    old(hub, clock, ct_of(OLD, "19900101"))
    word = word_for(desk.expired(HUB, "KN"))
    old(hub, clock, ct_of(OTHER, "19900101", PatientID="20001"))
    with pytest.raises(HubError) as caught:
        desk.remove(HUB, "KN", reason=WHY, word=word)
    assert caught.value.category is Category.CONFLICT
    going = desk.expired(HUB, "KN")
    assert len(going) == 2
    with pytest.raises(HubError, match="reason"):
        desk.remove(HUB, "KN", reason="  ", word=word_for(going))
    assert desk.remove(HUB, "KN", reason=WHY, word=word_for(going)).studies == 2


def test_what_comes_again_after_its_removal_is_new(hub: Services, desk: Retention, clock: FakeClock) -> None:
    old(hub, clock, ct_of(OLD, "19900101"))
    desk.remove(HUB, "KN", reason=WHY, word=word_for(desk.expired(HUB, "KN")))
    clock.forward(YEAR_S)
    assert receive(hub, ct_of(OLD, "19900101")) == "new"
    clock.forward(hub.settings.study_quiet_s + 1)
    assert settle(hub) == [key(OLD)]
    (row,) = hub.imaging.find(KN, "study", [("PatientID", "10086")]).rows
    assert (row["StudyDate"], row["NumberOfStudyRelatedInstances"]) == ("19900101", 1)
    (made,) = [one for one in resources(hub, "ImagingStudy") if one["id"] == study_resource_id("KN", OLD)]
    assert check(made) == []


def test_only_the_operator_lists_and_removes(hub: Services, desk: Retention) -> None:
    for actor in (KN, Actor(institution="KN", roles=frozenset({"admin", "operator"}))):
        with pytest.raises(HubError) as caught:
            desk.expired(actor, "KN")
        assert caught.value.category is Category.FORBIDDEN
    with pytest.raises(HubError) as caught:
        desk.expired(HUB, "XX")
    assert caught.value.category is Category.NOT_FOUND
