"""Studies by PatientID: the number of a survivor finds what came under the numbers merged into it, inside one owner."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_mappings.dicom.instance import InstanceHeader
from fhir_mappings.identifiers import naming_system, patient_key, resource_id
from hub.access import UNRESTRICTED, Scope
from hub.attribute_matching import Level, parse
from hub.clock import utc_now
from hub.ports import Grant, NewVersion, ObjectRef
from storage.sql.database import SqlDatabase
from tests.support.plans import full_scans, plan

KN, QH, YL = Scope(institution="KN"), Scope(institution="QH"), Scope(institution="YL")


def record_id(number: str, owner: str = "KN") -> str:
    return resource_id(owner, "patient-id", "Patient", patient_key(number))


def patient(number: str, *, merged_into: str = "", owner: str = "KN", id: str = "") -> dict[str, Any]:
    made: dict[str, Any] = {
        "resourceType": "Patient",
        "id": id or record_id(number, owner),
        "identifier": [{"system": naming_system(owner, "patient-id"), "value": number}],
    }
    if merged_into:
        made["link"] = [{"other": {"reference": f"Patient/{record_id(merged_into, owner)}"}, "type": "replaced-by"}]
    return made


def put(database: SqlDatabase, *resources: dict[str, Any], owner: str = "KN") -> None:
    database.write(lambda tx: tx.records.put_many([NewVersion(resource=one, owner=owner) for one in resources]))


def add(database: SqlDatabase, study: str, number: str, *, owner: str = "KN", **values: Any) -> None:
    header = InstanceHeader(
        StudyInstanceUID=study, SeriesInstanceUID=f"{study}.1", SOPInstanceUID=f"{study}.1.1", Modality="CT",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.2", TransferSyntaxUID="1.2.840.10008.1.2.1", InstanceNumber="1",
        SeriesNumber="1", attributes=b"{}", PatientID=number, StudyDate="20250611", **values,
    )  # fmt: skip
    ref = ObjectRef(digest=f"d-{study}", size=1)
    database.write(
        lambda tx: tx.imaging.add(
            owner, header, ref, utc_now(), record_id(number, owner), "c", resource_id=f"r-{owner}-{study}"
        )
    )


def find(database: SqlDatabase, scope: Scope = KN, level: Level = "study", **keys: str) -> list[str]:
    matches = [match for name, value in keys.items() if (match := parse(name, value, level=level)) is not None]

    def work(tx: Any) -> list[str]:
        found = {"study": tx.imaging.studies, "series": tx.imaging.series, "instance": tx.imaging.instances}[level](
            scope, matches, limit=100
        )
        rows = [row.StudyInstanceUID if level == "instance" else row["StudyInstanceUID"] for row in found]
        assert tx.imaging.count(level, scope, matches) == len(rows)
        return sorted(rows)

    return database.read(work)


@pytest.fixture
def merged(database: SqlDatabase) -> SqlDatabase:
    """10086 was merged into 20001, and that into 30001, all of KN; QH has the same numbers and merged none."""
    put(
        database, patient("30001"), patient("20001", merged_into="30001"), patient("10086", merged_into="20001")
    )  # fmt: skip
    put(database, *(patient(number, owner="QH") for number in ("10086", "20001", "30001")), owner="QH")
    for owner, root in (("KN", "1"), ("QH", "2")):
        for at, number in enumerate(("10086", "20001", "40000")):
            add(database, f"{root}.{at}", number, owner=owner)
    return database


@pytest.mark.parametrize("level", ["study", "series", "instance"])
def test_the_number_of_a_survivor_finds_what_came_under_the_numbers_merged_into_it(
    merged: SqlDatabase, level: Level
) -> None:
    assert find(merged, level=level, PatientID="20001") == ["1.0", "1.1"]
    # No image came under it, and no image need have come.
    assert find(merged, level=level, PatientID="30001") == ["1.0", "1.1"]
    assert find(merged, level=level, PatientID="10086") == ["1.0"]
    assert find(merged, level=level, PatientID="40000") == ["1.2"]


def test_all_other_keys_hold_for_what_the_merge_brings(merged: SqlDatabase) -> None:
    assert find(merged, PatientID="20001", StudyDate="20250611") == ["1.0", "1.1"]
    assert find(merged, PatientID="20001", StudyDate="20250612") == []
    assert find(merged, PatientID="20001", StudyInstanceUID="1.0") == ["1.0"]
    assert find(merged, PatientID="20001", ModalitiesInStudy="MR") == []
    assert find(merged, PatientID="20001\\40000") == ["1.0", "1.1", "1.2"]


def test_a_merge_of_one_institution_says_nothing_of_the_same_numbers_at_another(merged: SqlDatabase) -> None:
    assert find(merged, QH, PatientID="20001") == ["2.1"]
    assert find(merged, UNRESTRICTED, PatientID="30001") == ["1.0", "1.1"]
    # A record of QH that claims to replace one of KN reaches nothing of KN.
    claim = {"other": {"reference": f"Patient/{record_id('40000')}"}, "type": "replaced-by"}
    put(merged, {**patient("x", owner="QH"), "link": [claim]}, owner="QH")
    assert find(merged, UNRESTRICTED, PatientID="40000") == ["1.2", "2.2"]


def test_a_merge_that_is_taken_back_parts_the_studies_again(merged: SqlDatabase) -> None:
    put(merged, patient("10086"))
    assert find(merged, PatientID="20001") == ["1.1"]


def test_another_number_of_the_same_value_leads_to_nobody_elses_studies(merged: SqlDatabase) -> None:
    # A visit card with the number 40000, of the person to whom 10086 belongs.
    card = patient("40000", id=record_id("30001"))
    card["identifier"][0]["system"] = naming_system("KN", "visit-card")
    put(merged, card)
    assert find(merged, PatientID="40000") == ["1.2"]


def test_a_number_with_leading_zeros_is_the_same_number(merged: SqlDatabase) -> None:
    add(merged, "1.3", "0010086")
    assert find(merged, PatientID="20001") == ["1.0", "1.1", "1.3"]
    assert find(merged, PatientID="0020001") == ["1.0", "1.3"]


def test_a_partner_finds_by_the_survivors_number_what_was_opened_to_it_and_no_more(merged: SqlDatabase) -> None:
    grant = Grant(grantee="YL", target_type="ImagingStudy", target_id="r-KN-1.0", task_id="t")
    merged.write(lambda tx: tx.grants.open(grant, now=utc_now()))
    # It may not read the link, so the numbers are not the same to it.
    assert find(merged, YL, PatientID="20001") == []
    dead = Grant(grantee="YL", target_type="Patient", target_id=record_id("10086"), task_id="t")
    merged.write(lambda tx: tx.grants.open(dead, now=utc_now()))
    assert find(merged, YL, PatientID="20001") == ["1.0"]
    assert find(merged, YL, PatientID="10086") == ["1.0"]


@pytest.mark.parametrize("number", ["20001", "40000", "99999"])
@pytest.mark.parametrize("level", ["study", "series", "instance"])
def test_studies_of_a_number_are_found_by_indexes_alone(
    sqlite_database: SqlDatabase, level: Level, number: str
) -> None:
    put(sqlite_database, patient("20001"), patient("10086", merged_into="20001"))
    for at, one in enumerate(("10086", "20001", "40000")):
        add(sqlite_database, f"1.{at}", one)
    match = parse("PatientID", number, level=level)

    def work(tx: Any) -> Any:
        return {"study": tx.imaging.studies, "series": tx.imaging.series, "instance": tx.imaging.instances}[level](
            KN, [match], limit=10
        )

    steps = plan(sqlite_database, work)

    assert full_scans(steps, "imaging_study", "imaging_series", "imaging_instance", "record", "idx_reference") == []
    assert full_scans(steps, "idx_token") == []


def test_an_order_of_the_survivor_waits_for_the_studies_of_the_merged_numbers_too(merged: SqlDatabase) -> None:
    def wait(tx: Any) -> None:
        for row in tx.imaging.studies(KN, [], limit=10):
            key = type("Key", (), {"owner": "KN", "StudyInstanceUID": row["StudyInstanceUID"]})()
            tx.imaging.set_study_state(key, "complete", match="unmatched")

    merged.write(wait)

    def waiting(patient: str) -> list[str]:
        rows = merged.read(lambda tx: tx.imaging.unmatched("KN", patient_id=patient, accessions=[]))
        return [row["StudyInstanceUID"] for row in rows]

    assert waiting(record_id("30001")) == ["1.0", "1.1"]
    # An order that names the dead record is the same person's.
    assert waiting(record_id("10086")) == ["1.0", "1.1"]
    assert waiting(record_id("40000")) == ["1.2"]


def test_one_person_is_every_record_that_a_merge_joins_at_the_owner(merged: SqlDatabase) -> None:
    put(merged, patient("50001", merged_into="20001"))

    def one_person(number: str, owner: str = "KN") -> set[str]:
        return set(merged.read(lambda tx: tx.records.one_person(record_id(number, owner))))

    joined = {record_id(number) for number in ("10086", "20001", "30001", "50001")}
    for number in ("10086", "20001", "30001", "50001"):
        assert one_person(number) == joined
    assert one_person("40000") == {record_id("40000")}
    assert one_person("10086", "QH") == {record_id("10086", "QH")}
