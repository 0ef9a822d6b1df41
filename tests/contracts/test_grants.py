"""What grants must do, on both databases (DESIGN rule 5)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hub.ports import Grant, NewVersion, Tx
from storage.sql.database import SqlDatabase

NOW = datetime(2026, 5, 4, tzinfo=UTC)
TOMORROW = NOW + timedelta(days=1)


def grant(
    grantee: str = "YL", target: str = "s1", task: str = "t1", kind: str = "ImagingStudy", **more: datetime
) -> Grant:
    return Grant(grantee=grantee, target_type=kind, target_id=target, task_id=task, **more)


def put(database: SqlDatabase, *grants: Grant) -> None:
    database.write(lambda tx: [tx.grants.open(one, now=NOW) for one in grants])


def of_task(database: SqlDatabase, task: str = "t1") -> dict[tuple[str, str], datetime | None]:
    return {(one.grantee, one.target_id): one.until for one in database.read(lambda tx: tx.grants.of_task(task))}


def test_a_grant_is_open_without_end_until_it_is_closed(database: SqlDatabase) -> None:
    put(database, grant())
    before = of_task(database)
    database.write(lambda tx: tx.grants.close("t1", grantee=None, until=TOMORROW))

    assert (before, of_task(database)) == ({("YL", "s1"): None}, {("YL", "s1"): TOMORROW})


def test_closing_later_does_not_prolong(database: SqlDatabase) -> None:
    put(database, grant(until=NOW))
    database.write(lambda tx: tx.grants.close("t1", grantee=None, until=TOMORROW))

    assert of_task(database) == {("YL", "s1"): NOW}


def test_closing_ends_the_named_grantee_only(database: SqlDatabase) -> None:
    put(database, grant("YL"), grant("YJ"), grant("YL", task="t2"))
    database.write(lambda tx: tx.grants.close("t1", grantee="YL", until=NOW))

    assert of_task(database) == {("YJ", "s1"): None, ("YL", "s1"): NOW}
    assert of_task(database, "t2") == {("YL", "s1"): None}


def test_the_patient_record_is_closed_apart_from_the_rest(database: SqlDatabase) -> None:
    put(database, grant(target="p1", kind="patient-record"), grant())
    database.write(lambda tx: tx.grants.close("t1", grantee=None, until=NOW, patient_record=True))
    first = of_task(database)
    database.write(lambda tx: tx.grants.close("t1", grantee=None, until=TOMORROW, patient_record=False))

    assert first == {("YL", "p1"): NOW, ("YL", "s1"): None}
    assert of_task(database) == {("YL", "p1"): NOW, ("YL", "s1"): TOMORROW}


def test_opening_an_ended_grant_opens_it_again(database: SqlDatabase) -> None:
    put(database, grant(until=NOW))
    put(database, grant())

    assert of_task(database) == {("YL", "s1"): None}


def test_what_a_task_for_one_patient_opened_of_another_ends_and_its_own_stays(database: SqlDatabase) -> None:
    def fill(tx: Tx) -> None:
        for task, patient in (("t1", "p1"), ("t2", "p2"), ("t3", "p3")):
            whose = {"resourceType": "Task", "id": task, "status": "accepted", "intent": "order"}
            tx.records.put_many(
                [NewVersion(resource={**whose, "for": {"reference": f"Patient/{patient}"}}, owner="KN")]
            )
        for study, patient in (("s1", "p1"), ("s2", "p2")):
            made = {"resourceType": "ImagingStudy", "id": study, "status": "available"}
            subject = {"reference": f"Patient/{patient}"}
            tx.records.put_many([NewVersion(resource={**made, "subject": subject}, owner="KN")])

    database.write(fill)
    put(database, *(grant(target=study, task=task) for study in ("s1", "s2") for task in ("t1", "t2", "t3")))
    put(database, grant("YJ", target="s2"))

    ended = database.write(lambda tx: tx.grants.close_across({"p1"}, {"p2", "p4"}, until=TOMORROW))

    assert list(ended) == [("t1", "ImagingStudy/s2"), ("t2", "ImagingStudy/s1")]
    assert of_task(database) == {("YL", "s1"): None, ("YL", "s2"): TOMORROW, ("YJ", "s2"): TOMORROW}
    assert of_task(database, "t2") == {("YL", "s1"): TOMORROW, ("YL", "s2"): None}
    assert of_task(database, "t3") == {("YL", "s1"): None, ("YL", "s2"): None}
    assert list(database.write(lambda tx: tx.grants.close_across({"p1"}, set(), until=NOW))) == []
    again = database.write(lambda tx: tx.grants.close_across({"p2"}, {"p1"}, until=TOMORROW))
    assert list(again) == []
