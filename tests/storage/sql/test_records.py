"""Records on both databases."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from fhir_mappings.json import loads
from hub.access import UNRESTRICTED, Scope
from hub.clock import utc_now
from hub.errors import Category, HubError
from hub.ports import Grant, NewVersion
from storage.sql.database import SqlDatabase

KN, YL, QH = Scope(institution="KN"), Scope(institution="YL"), Scope(institution="QH")


def patient(id: str, name: str = "欧阳明月", **more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": id, "name": [{"text": name}], **more}


def put(database: SqlDatabase, resource: dict[str, Any], owner: str = "KN", **more: Any) -> Any:
    return database.write(lambda tx: tx.records.put_many([NewVersion(resource=resource, owner=owner, **more)]))[0]


def test_a_stored_resource_reads_back_with_version_and_time(database: SqlDatabase) -> None:
    written = put(database, patient("p1", extension=[{"url": "x:y", "valueDecimal": loads("72.50")}]))

    read = database.read(lambda tx: tx.records.get("Patient", "p1", KN))

    assert read == written
    body = loads(read.body)
    assert body["meta"]["versionId"] == "1"
    assert b"72.50" in read.body


def test_another_institution_sees_nothing_until_a_grant_opens(database: SqlDatabase) -> None:
    put(database, patient("p1"))
    now = utc_now()

    before = database.read(lambda tx: tx.records.get("Patient", "p1", YL))
    database.write(
        lambda tx: tx.grants.open(Grant(grantee="YL", target_type="Patient", target_id="p1", task_id="t1"), now=now)
    )
    during = database.read(lambda tx: tx.records.get("Patient", "p1", YL))
    database.write(lambda tx: tx.grants.close("t1", grantee="YL", until=now))
    after = database.read(lambda tx: tx.records.get("Patient", "p1", YL))

    assert (before, during is None, after) == (None, False, None)


def test_a_patient_record_grant_opens_the_compartment_and_no_other(database: SqlDatabase) -> None:
    put(database, patient("p1"))
    put(
        database,
        {
            "resourceType": "Observation",
            "id": "o1",
            "status": "final",
            "code": {"text": "K"},
            "subject": {"reference": "Patient/p1"},
        },
    )
    put(
        database,
        {
            "resourceType": "Observation",
            "id": "o2",
            "status": "final",
            "code": {"text": "K"},
            "subject": {"reference": "Patient/p2"},
        },
    )
    database.write(
        lambda tx: tx.grants.open(
            Grant(grantee="YL", target_type="patient-record", target_id="p1", task_id="t1"), now=utc_now()
        )
    )

    seen = database.read(lambda tx: [key for key in ("o1", "o2") if tx.records.get("Observation", key, YL)])

    assert seen == ["o1"]


def test_writing_the_same_content_again_makes_no_version(database: SqlDatabase) -> None:
    put(database, patient("p1"))

    again = put(database, patient("p1"))

    assert again.version == 1


def test_an_update_moves_the_old_version_to_history(database: SqlDatabase) -> None:
    put(database, patient("p1"))
    put(database, patient("p1", "郑伟"))

    versions = database.read(lambda tx: tx.records.history("Patient", "p1", KN, count=10))
    old = database.read(lambda tx: tx.records.version("Patient", "p1", 1, KN))

    assert [one.version for one in versions] == [2, 1]
    assert loads(old.body)["name"][0]["text"] == "欧阳明月"


def test_a_wrong_expected_version_is_refused_and_nothing_is_kept(database: SqlDatabase) -> None:
    put(database, patient("p1"))

    with pytest.raises(HubError) as caught:
        put(database, patient("p1", "郑伟"), expected_version=7)

    assert caught.value.status == 412
    assert database.read(lambda tx: tx.records.get("Patient", "p1", KN)).version == 1


def test_an_id_of_another_institution_cannot_be_overwritten(database: SqlDatabase) -> None:
    put(database, patient("p1"))

    with pytest.raises(HubError) as caught:
        put(database, patient("p1", "郑伟"), owner="QH")

    assert caught.value.category is Category.FORBIDDEN


def test_a_deleted_resource_leaves_search_and_keeps_its_history(database: SqlDatabase) -> None:
    put(database, patient("p1", identifier=[{"system": "urn:x", "value": "1"}]))
    database.write(lambda tx: tx.records.delete("Patient", "p1", owner="KN"))

    found = database.read(lambda tx: tx.records.by_identifier("Patient", "urn:x", "1", UNRESTRICTED))
    versions = database.read(lambda tx: tx.records.history("Patient", "p1", KN, count=10))

    assert found == []
    assert [(one.version, one.deleted) for one in versions] == [(2, True), (1, False)]


def test_many_writers_of_one_resource_lose_no_version(database: SqlDatabase) -> None:
    put(database, patient("p1"))
    threads = [threading.Thread(target=put, args=(database, patient("p1", f"姓名{number}"))) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    versions = database.read(lambda tx: tx.records.history("Patient", "p1", KN, count=50))

    assert [one.version for one in versions] == list(range(17, 0, -1))


def test_a_failing_function_does_not_spoil_the_others_of_its_batch(database: SqlDatabase) -> None:
    outcomes: list[str] = []

    def good(number: int) -> None:
        put(database, patient(f"g{number}"))
        outcomes.append("good")

    def bad() -> None:
        def work(tx: Any) -> None:
            tx.records.put_many([NewVersion(resource=patient("bad"), owner="KN")])
            raise HubError(Category.INCORRECT, "no")

        with pytest.raises(HubError):
            database.write(work)
        outcomes.append("bad")

    threads = [threading.Thread(target=good, args=(n,)) for n in range(8)] + [
        threading.Thread(target=bad) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["bad"] * 4 + ["good"] * 8
    assert database.read(lambda tx: tx.records.get("Patient", "bad", KN)) is None


def test_one_resource_twice_in_a_batch_becomes_two_versions(database: SqlDatabase) -> None:
    written = database.write(
        lambda tx: tx.records.put_many(
            [NewVersion(resource=patient("p1"), owner="KN"), NewVersion(resource=patient("p1", "郑伟"), owner="KN")]
        )
    )

    assert [one.version for one in written] == [1, 2]
