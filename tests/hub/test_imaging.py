"""Receiving instances, completing studies and matching them to orders, over real stores."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from fhir_mappings.definitions.check import check
from hub.access import Scope
from hub.actor import HUB
from hub.boot import Services
from hub.errors import Category, HubError
from hub.ports import NewVersion, StudyKey
from storage.sql.schema import audit, imaging_instance, imaging_study, journal, timer
from tests.support.databases import migrate, opened
from tests.support.images import KN, QH, ROOT, STUDY, YL, FakeClock, ct, envelope, receive, resources, services, settle

KEY = StudyKey(owner="KN", StudyInstanceUID=STUDY)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def hub(tmp_path: Path, clock: FakeClock) -> Iterator[Services]:
    url = f"sqlite:///{tmp_path / 'hub.db'}"
    migrate(url)
    with opened(url, clock=clock) as database:
        yield services(database, tmp_path, clock)


def rows(hub: Services, table: sa.Table) -> list[Any]:
    return hub.database.read(lambda tx: tx.connection.execute(sa.select(table)).all())  # type: ignore[attr-defined]


def complete(hub: Services, clock: FakeClock, *, actor: Any = KN, study: str = STUDY) -> list[StudyKey]:
    hub.imaging.association_ended(envelope(hub, actor), {study})
    clock.forward(hub.settings.study_quiet_s + 1)
    return settle(hub)


def order(hub: Services, id_: str = "o1", *, owner: str = "KN", **changes: Any) -> dict[str, Any]:
    from fhir_mappings.identifiers import naming_system, resource_id

    resource = {
        "resourceType": "ServiceRequest",
        "id": id_,
        "identifier": [{"system": naming_system(owner, "placer-order"), "value": f"KN2025{id_}"}],
        "status": "active",
        "intent": "order",
        "code": {"text": "胸部CT平扫"},
        "subject": {"reference": f"Patient/{resource_id(owner, 'patient-id', 'Patient', '10086')}"},
        "authoredOn": "2025-06-11T09:00:00+08:00",
        **changes,
    }
    hub.database.write(lambda tx: tx.records.put_many([NewVersion(resource=resource, owner=owner)]))
    return resource


# --- receiving


def test_an_instance_is_durable_as_object_journal_line_and_index_row(hub: Services) -> None:
    data = ct()
    assert receive(hub, data) == "new"
    row = rows(hub, imaging_instance)[0]
    assert hub.objects.read(row.digest) == data
    line = rows(hub, journal)[0]
    assert (line.institution, line.control_id, line.digest, line.outcome) == ("KN", f"{STUDY}.1.1", row.digest, "new")


def test_the_same_bytes_again_change_nothing(hub: Services) -> None:
    receive(hub, ct())
    assert receive(hub, ct()) == "duplicate"
    assert len(rows(hub, imaging_instance)) == 1


def test_the_same_data_set_under_another_file_header_is_a_duplicate(hub: Services) -> None:
    receive(hub, ct())
    assert receive(hub, ct(meta={"ImplementationVersionName": "OTHER"})) == "duplicate"
    assert len(rows(hub, imaging_instance)) == 1
    assert resources(hub, "Task") == []


def test_other_bytes_are_kept_beside_the_current_ones_and_the_operator_is_told_once(hub: Services) -> None:
    first = ct()
    receive(hub, first)
    assert receive(hub, ct(SeriesDescription="changed")) == "conflict"
    assert receive(hub, ct(SeriesDescription="again")) == "conflict"
    found = rows(hub, imaging_instance)
    assert sorted(row.current for row in found) == [False, False, True]
    assert hub.objects.read(next(row.digest for row in found if row.current)) == first
    (task,) = resources(hub, "Task")
    assert task["code"]["coding"][0]["code"] == "imaging-conflict"
    assert check(task) == []
    for institution in ("KN", "YY"):
        assert hub.database.read(lambda tx, who=institution: tx.records.get("Task", task["id"], Scope(institution=who)))
    assert hub.database.read(lambda tx: tx.records.get("Task", task["id"], Scope(institution="QH"))) is None


def test_one_series_touches_its_study_once_in_half_a_quiet_time(hub: Services, clock: FakeClock) -> None:
    for number in range(1, 6):
        receive(hub, ct(number))
    assert len(rows(hub, audit)) == 1
    due = rows(hub, timer)[0].due_at
    clock.forward(hub.settings.study_quiet_s * 0.6)
    receive(hub, ct(6))
    assert rows(hub, timer)[0].due_at > due


def test_a_refused_commit_leaves_the_series_unknown(hub: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    real = hub.database.write
    calls = []

    def failing(work: Any) -> Any:
        calls.append(work)
        if len(calls) == 1:

            def undone(tx: Any) -> None:
                work(tx)
                raise HubError(Category.UNAVAILABLE, "no")

            return real(undone)
        return real(work)

    monkeypatch.setattr(hub.database, "write", failing)
    with pytest.raises(HubError):
        receive(hub, ct())
    assert receive(hub, ct()) == "new"
    assert len(rows(hub, imaging_study)) == 1


# --- completion


def test_a_quiet_study_becomes_an_imaging_study_of_the_senders_patient(hub: Services, clock: FakeClock) -> None:
    for number in (1, 2):
        receive(hub, ct(number))
    receive(hub, ct(1, series=2, Modality="PR"))
    assert complete(hub, clock) == [KEY]
    (resource,) = resources(hub, "ImagingStudy")
    (patient,) = resources(hub, "Patient")
    (endpoint,) = resources(hub, "Endpoint")
    assert resource["identifier"] == [{"system": "urn:dicom:uid", "value": f"urn:oid:{STUDY}"}]
    assert resource["started"] == "2025-06-11T09:30:15+08:00"
    assert [m["code"] for m in resource["modality"]] == ["CT", "PR"]
    assert (resource["numberOfSeries"], resource["numberOfInstances"]) == (2, 3)
    assert [len(s["instance"]) for s in resource["series"]] == [2, 1]
    assert resource["subject"] == {"reference": f"Patient/{patient['id']}"}
    assert resource["endpoint"] == [{"reference": f"Endpoint/{endpoint['id']}"}]
    assert endpoint["address"].endswith("/dicom-web")
    assert [name["text"] for name in patient["name"]] == ["郑伟", "ZHENG WEI"]
    assert patient["birthDate"] == "1976-02-29"
    for one in (resource, patient, endpoint):
        assert check(one) == []
    assert hub.tasks.completed[0][0] == "KN"  # type: ignore[attr-defined]


def test_completing_again_without_news_writes_no_new_version(hub: Services, clock: FakeClock) -> None:
    receive(hub, ct())
    complete(hub, clock)
    complete(hub, clock)
    assert resources(hub, "ImagingStudy")[0]["meta"]["versionId"] == "1"


def test_an_instance_that_came_within_the_quiet_time_puts_the_timer_off(hub: Services, clock: FakeClock) -> None:
    receive(hub, ct())
    hub.imaging.association_ended(envelope(hub), {STUDY})
    clock.forward(hub.settings.study_quiet_s - 1)
    receive(hub, ct(2))
    # The door's own timer may be older than the instance, as when the process died before the association ended.
    hub.database.write(
        lambda tx: tx.connection.execute(sa.update(timer).values(due_at=timer.c.due_at - 1_000_000 * 29))  # type: ignore[attr-defined]
    )
    clock.forward(2)
    assert settle(hub) == []
    clock.forward(hub.settings.study_quiet_s)
    assert settle(hub) == [KEY]


def test_a_late_instance_reopens_the_study_and_makes_a_new_version(hub: Services, clock: FakeClock) -> None:
    receive(hub, ct())
    complete(hub, clock)
    assert rows(hub, imaging_study)[0].state == "complete"
    clock.forward(3600)
    receive(hub, ct(2))
    assert rows(hub, imaging_study)[0].state == "receiving"
    clock.forward(hub.settings.study_quiet_s + 1)
    assert settle(hub) == [KEY]
    (resource,) = resources(hub, "ImagingStudy")
    assert (resource["numberOfInstances"], resource["meta"]["versionId"]) == (2, "2")


def test_completion_survives_a_restart_without_the_end_of_the_association(
    hub: Services, clock: FakeClock, tmp_path: Path
) -> None:
    receive(hub, ct())
    later = services(hub.database, tmp_path, clock)
    clock.forward(hub.settings.study_quiet_s + 1)
    assert settle(later) == [KEY]


def test_a_study_with_nothing_current_becomes_nothing(hub: Services, clock: FakeClock) -> None:
    receive(hub, ct())
    receive(hub, ct(study=f"{ROOT}.2", SOPInstanceUID=f"{STUDY}.1.1"))
    complete(hub, clock, study=f"{ROOT}.2")
    assert [one["identifier"][0]["value"] for one in resources(hub, "ImagingStudy")] == [f"urn:oid:{STUDY}"]


def test_two_institutions_with_one_study_uid_keep_two_studies_and_two_patients(hub: Services, clock: FakeClock) -> None:
    receive(hub, ct())
    receive(hub, ct(PatientName="周^建国"), QH)
    complete(hub, clock)
    complete(hub, clock, actor=QH)
    assert len(resources(hub, "ImagingStudy")) == 2
    assert [p["name"][0]["text"] for p in resources(hub, "Patient")] == ["郑伟", "周建国"]


def test_a_repaired_character_set_has_its_provenance(hub: Services, clock: FakeClock) -> None:
    # 郑伟 in GBK under a label that says Latin-1, as many modalities send it.
    data = ct(SpecificCharacterSet="ISO_IR 100", PatientName="XXXX", StudyDescription="CT")
    receive(hub, data.replace(b"XXXX", b"\xd6\xa3\xce\xb0"))
    complete(hub, clock)
    assert resources(hub, "Patient")[0]["name"][0]["text"] == "郑伟"
    (provenance,) = resources(hub, "Provenance")
    assert "ISO_IR 100" in provenance["activity"]["text"]
    assert "gb18030" in provenance["activity"]["text"]
    assert check(provenance) == []
    clock.forward(60)
    complete(hub, clock)
    assert resources(hub, "Provenance")[0]["meta"]["versionId"] == "1"


def test_a_known_patient_is_not_overwritten_by_an_image_header(hub: Services, clock: FakeClock) -> None:
    from fhir_mappings.identifiers import resource_id

    known = {
        "resourceType": "Patient",
        "id": resource_id("KN", "patient-id", "Patient", "10086"),
        "name": [{"text": "郑伟", "use": "official"}],
    }
    hub.database.write(lambda tx: tx.records.put_many([NewVersion(resource=known, owner="KN")]))
    receive(hub, ct(PatientName="ZHENGWEI", PatientID="0000010086"))
    complete(hub, clock)
    (patient,) = resources(hub, "Patient")
    assert patient["name"] == known["name"]


def test_the_number_of_another_issuer_is_another_patient(hub: Services, clock: FakeClock) -> None:
    receive(hub, ct())
    receive(hub, ct(study=f"{ROOT}.2", IssuerOfPatientID="QH"))
    assert len({row.patient_id for row in rows(hub, imaging_study)}) == 2


# --- matching


def test_the_accession_number_finds_the_order(hub: Services, clock: FakeClock) -> None:
    order(hub, "o1")
    order(hub, "o2", identifier=[{"type": {"coding": [{"code": "ACSN"}]}, "value": "A7"}])
    receive(hub, ct(AccessionNumber="A7"))
    complete(hub, clock)
    assert resources(hub, "ImagingStudy")[0]["basedOn"] == [{"reference": "ServiceRequest/o2"}]
    assert rows(hub, imaging_study)[0].match == "accession"
    assert resources(hub, "Task") == []


def test_without_an_accession_number_patient_date_and_modality_find_it(hub: Services, clock: FakeClock) -> None:
    order(hub, "o1")
    order(hub, "mr", code={"text": "头颅MRI"})
    order(hub, "old", authoredOn="2025-05-01T09:00:00+08:00")
    order(hub, "gone", status="revoked")
    receive(hub, ct())
    complete(hub, clock)
    assert resources(hub, "ImagingStudy")[0]["basedOn"] == [{"reference": "ServiceRequest/o1"}]


def number(hub: Services, value: str, *, merged_into: str = "", owner: str = "KN") -> str:
    """Store the owner's Patient of that number, and return its id."""
    from fhir_mappings.identifiers import resource_id

    id_, survivor = (resource_id(owner, "patient-id", "Patient", one) for one in (value, merged_into))
    resource: dict[str, Any] = {"resourceType": "Patient", "id": id_}
    if merged_into:
        resource["link"] = [{"other": {"reference": f"Patient/{survivor}"}, "type": "replaced-by"}]
    hub.database.write(lambda tx: tx.records.put_many([NewVersion(resource=resource, owner=owner)]))
    return id_


@pytest.mark.parametrize("first", ["order", "images"])
def test_an_order_of_the_survivor_of_a_merge_is_matched_with_images_of_the_dead_record(
    hub: Services, clock: FakeClock, first: str
) -> None:
    survivor = number(hub, "20001")
    number(hub, "10086", merged_into="20001")
    asked = {"subject": {"reference": f"Patient/{survivor}"}}
    if first == "order":
        order(hub, **asked)
    receive(hub, ct())
    complete(hub, clock)
    if first == "images":
        late = order(hub, **asked)
        hub.database.write(lambda tx: hub.imaging.match_later(tx, late, owner="KN"))
    assert rows(hub, imaging_study)[0].match == "patient-date-modality"


def test_two_orders_that_fit_are_left_to_a_person(hub: Services, clock: FakeClock) -> None:
    order(hub, "o1")
    order(hub, "o2")
    receive(hub, ct())
    complete(hub, clock)
    (resource,) = resources(hub, "ImagingStudy")
    (task,) = resources(hub, "Task")
    assert "basedOn" not in resource
    assert task["code"]["coding"][0]["code"] == "unmatched-study"
    assert task["focus"] == {"reference": f"ImagingStudy/{resource['id']}"}
    assert check(task) == []


def test_an_order_of_another_institution_is_never_matched(hub: Services, clock: FakeClock) -> None:
    order(hub, "o1", owner="QH", identifier=[{"type": {"coding": [{"code": "ACSN"}]}, "value": "A7"}])
    receive(hub, ct(AccessionNumber="A7"))
    complete(hub, clock)
    assert "basedOn" not in resources(hub, "ImagingStudy")[0]


def test_an_order_that_comes_later_closes_the_work_item(hub: Services, clock: FakeClock) -> None:
    receive(hub, ct())
    complete(hub, clock)
    late = order(hub, "o1")
    matched = hub.database.write(lambda tx: hub.imaging.match_later(tx, late, owner="KN"))
    (resource,) = resources(hub, "ImagingStudy")
    assert matched == [resource["id"]]
    assert resource["basedOn"] == [{"reference": "ServiceRequest/o1"}]
    assert resources(hub, "Task")[0]["status"] == "completed"
    assert hub.database.write(lambda tx: hub.imaging.match_later(tx, late, owner="KN")) == []


def test_a_person_settles_an_unmatched_study_and_late_images_keep_the_decision(hub: Services, clock: FakeClock) -> None:
    order(hub, "o1")
    order(hub, "o2")
    receive(hub, ct())
    complete(hub, clock)
    hub.database.write(lambda tx: hub.imaging.settle_unmatched(tx, KEY, "o2", KN))
    receive(hub, ct(2))
    complete(hub, clock)
    assert resources(hub, "ImagingStudy")[0]["basedOn"] == [{"reference": "ServiceRequest/o2"}]
    assert resources(hub, "Task")[0]["status"] == "completed"


def test_a_person_may_say_that_there_is_no_order(hub: Services, clock: FakeClock) -> None:
    receive(hub, ct())
    complete(hub, clock)
    hub.database.write(lambda tx: hub.imaging.settle_unmatched(tx, KEY, None, HUB))
    late = order(hub, "o1")
    assert hub.database.write(lambda tx: hub.imaging.match_later(tx, late, owner="KN")) == []


def test_nobody_settles_the_study_of_another_institution(hub: Services, clock: FakeClock) -> None:
    receive(hub, ct())
    complete(hub, clock)
    order(hub, "o1", owner="QH")
    for actor, id_ in ((QH, None), (YL, None), (KN, "o1")):
        with pytest.raises(HubError) as caught:
            hub.database.write(lambda tx, a=actor, i=id_: hub.imaging.settle_unmatched(tx, KEY, i, a))
        assert caught.value.category is Category.NOT_FOUND


# --- finding and fetching


def grant(hub: Services, target_type: str, target_id: str, *, grantee: str = "YL", until: Any = None) -> None:
    from hub.ports import Grant

    one = Grant(grantee=grantee, target_type=target_type, target_id=target_id, task_id="t1", until=until)
    hub.database.write(lambda tx: tx.grants.open(one, now=hub.clock()))


def test_a_partner_sees_a_study_only_while_a_grant_is_open(hub: Services, clock: FakeClock) -> None:
    receive(hub, ct())
    receive(hub, ct(study=f"{ROOT}.2"))
    study = next(row for row in rows(hub, imaging_study) if row.StudyInstanceUID == STUDY)
    with pytest.raises(HubError):
        hub.imaging.retrieve(YL, STUDY)
    grant(hub, "ImagingStudy", study.resource_id, until=clock.now + timedelta(days=1))
    assert [row["StudyInstanceUID"] for row in hub.imaging.find(YL, "study", []).rows] == [STUDY]
    assert len(hub.imaging.retrieve(YL, STUDY)) == 1
    with pytest.raises(HubError) as caught:
        hub.imaging.retrieve(YL, f"{ROOT}.2")
    assert caught.value.category is Category.NOT_FOUND
    clock.forward(2 * 86400)
    assert hub.imaging.find(YL, "study", []).rows == []


def test_a_grant_on_the_patients_record_opens_all_its_studies(hub: Services) -> None:
    receive(hub, ct())
    receive(hub, ct(study=f"{ROOT}.2"))
    receive(hub, ct(study=f"{ROOT}.3", PatientID="2"))
    grant(hub, "patient-record", rows(hub, imaging_study)[0].patient_id)
    assert len(hub.imaging.find(YL, "study", []).rows) == 2


def test_of_two_copies_the_askers_own_is_meant_unless_the_owner_is_named(hub: Services) -> None:
    receive(hub, ct())
    receive(hub, ct(2), YL)
    grant(hub, "ImagingStudy", next(r.resource_id for r in rows(hub, imaging_study) if r.owner == "KN"))
    assert [row.owner for row in hub.imaging.retrieve(YL, STUDY)] == ["YL"]
    assert [row.owner for row in hub.imaging.retrieve(YL, STUDY, owner="KN")] == ["KN"]
    # What only the granted copy has comes from there.
    assert [row.owner for row in hub.imaging.retrieve(YL, STUDY, f"{STUDY}.1", f"{STUDY}.1.1")] == ["KN"]


def test_every_query_and_retrieval_leaves_an_audit_line_without_names(hub: Services) -> None:
    receive(hub, ct())
    before = len(rows(hub, audit))
    hub.imaging.find(KN, "study", [("PatientName", "ZHENG*"), ("PatientID", "10086")])
    hub.imaging.retrieve(KN, STUDY)
    hub.imaging.metadata(KN, STUDY, f"{STUDY}.1")
    lines = rows(hub, audit)[before:]
    assert [line.subtype for line in lines] == ["QIDO-RS", "WADO-RS", "WADO-RS metadata"]
    assert not any("ZHENG" in bytes(line.body).decode() for line in lines)


def test_metadata_is_stored_once_and_made_anew_after_an_arrival(hub: Services, clock: FakeClock) -> None:
    import gzip

    from fhir_mappings.json import loads

    receive(hub, ct())
    complete(hub, clock)
    hub.imaging.prepare_metadata(KEY)
    stored = hub.database.read(lambda tx: tx.imaging.series_metadata(KEY, f"{STUDY}.1"))
    etag, (content,) = hub.imaging.metadata(KN, STUDY, f"{STUDY}.1")
    assert stored is not None
    assert content() == hub.objects.read(stored[1])
    clock.forward(60)
    receive(hub, ct(2))
    newer, (again,) = hub.imaging.metadata(KN, STUDY)
    assert newer != etag
    found = loads(gzip.decompress(again()))
    assert [one["00200013"]["Value"][0] for one in found] == [1, 2]
    assert found[0]["7FE00010"]["BulkDataURI"].endswith(f"/instances/{STUDY}.1.1/bulk/7FE00010")
