"""The imaging index on both databases: what one instance becomes, counts, and attribute matching."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from fhir_mappings.dicom.instance import InstanceHeader
from hub.access import UNRESTRICTED, Scope
from hub.attribute_matching import Level, parse
from hub.errors import HubError
from hub.ports import ObjectRef, StudyChangedError, StudyKey
from storage.sql.database import SqlDatabase

NOW = datetime(2025, 6, 11, 2, 0, tzinfo=UTC)
KN = Scope(institution="KN")


def header(study: str = "1.2", series: str = "1", instance: str = "1", **values: Any) -> InstanceHeader:
    uid = f"{study}.{series}"
    defaults: dict[str, Any] = {
        "StudyInstanceUID": study,
        "SeriesInstanceUID": uid,
        "SOPInstanceUID": f"{uid}.{instance}",
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
        "TransferSyntaxUID": "1.2.840.10008.1.2.1",
        "InstanceNumber": instance,
        "SeriesNumber": series,
        "Modality": "CT",
        "attributes": b'{"00080060":{"vr":"CS","Value":["CT"]}}',
    }
    return InstanceHeader(**{**defaults, **values})


def add(database: SqlDatabase, one: InstanceHeader, *, owner: str = "KN", digest: str = "", **options: Any) -> str:
    ref = ObjectRef(digest=digest or f"d-{one.SOPInstanceUID}", size=10)
    return database.write(
        lambda tx: tx.imaging.add(
            owner, one, ref, NOW, f"p-{owner}-{one.PatientID}", "c", resource_id=f"r-{owner}", **options
        )
    )


def find(
    database: SqlDatabase, level: Level = "study", scope: Scope = KN, *, fuzzy: bool = False, **keys: str
) -> list[str]:
    matches = [m for name, value in keys.items() if (m := parse(name, value, level=level, fuzzy=fuzzy)) is not None]

    def work(tx: Any) -> list[str]:
        if level == "instance":
            return [row.SOPInstanceUID for row in tx.imaging.instances(scope, matches, limit=100)]
        if level == "series":
            return [row["SeriesInstanceUID"] for row in tx.imaging.series(scope, matches, limit=100)]
        return [row["StudyInstanceUID"] for row in tx.imaging.studies(scope, matches, limit=100)]

    return database.read(work)


def test_one_sop_instance_has_one_current_version_and_one_row_for_its_bytes(database: SqlDatabase) -> None:
    one = header()
    assert [add(database, one, digest=digest) for digest in ("a", "a", "b", "b", "a")] == [
        "new", "duplicate", "conflict", "duplicate", "duplicate",
    ]  # fmt: skip
    assert database.read(lambda tx: tx.imaging.current_digest("KN", one.SOPInstanceUID)) == "a"
    assert add(database, one, owner="QH", digest="b") == "new"


def test_who_vouches_for_another_patients_study_writes_nothing(database: SqlDatabase) -> None:
    add(database, header(PatientID="10086"))
    assert add(database, header(PatientID="10086", instance="2"), series_known=True) == "new"
    stranger = header(PatientID="20001", instance="3")
    with pytest.raises(StudyChangedError):
        add(database, stranger, series_known=True)
    with pytest.raises(StudyChangedError):
        add(database, header(PatientID="20001", instance="2"), digest="other", series_known=True)
    key = StudyKey(owner="KN", StudyInstanceUID=stranger.StudyInstanceUID)
    versions = database.read(lambda tx: tx.imaging.versions_of(key))
    assert [one.InstanceNumber for one in versions] == ["1", "2"]


def test_many_threads_sending_one_instance_make_one_row(database: SqlDatabase) -> None:
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda n: add(database, header(), digest="ab"[n % 2]), range(40)))
    assert outcomes.count("new") == 1
    assert outcomes.count("conflict") == 1


def test_the_header_comes_back_as_it_went_in(database: SqlDatabase) -> None:
    add(database, header(NumberOfFrames=3, Rows=4, Columns=5, BitsAllocated=16, pixel_offset=1 << 33))
    key = StudyKey(owner="KN", StudyInstanceUID="1.2")
    (row,) = database.read(lambda tx: tx.imaging.instances_of(key, attributes=True))
    assert (row.NumberOfFrames, row.Rows, row.Columns, row.BitsAllocated, row.pixel_offset) == (3, 4, 5, 16, 1 << 33)
    assert row.attributes == header().attributes
    assert row.received_at == NOW
    assert database.read(lambda tx: tx.imaging.instances_of(key))[0].attributes == b""


def test_counts_are_live_while_receiving_and_stored_once_refreshed(database: SqlDatabase) -> None:
    add(database, header(series="1", instance="1"))
    add(database, header(series="1", instance="2"), series_known=True)
    add(database, header(series="2", Modality="SR"))
    add(database, header(series="1", instance="2"), digest="other", series_known=True)
    key = StudyKey(owner="KN", StudyInstanceUID="1.2")
    (live,) = database.read(lambda tx: tx.imaging.studies(KN, [], limit=10))
    refreshed = database.write(lambda tx: tx.imaging.refresh_study(key))
    for row in (live, refreshed):
        assert row["NumberOfStudyRelatedSeries"] == 2
        assert row["NumberOfStudyRelatedInstances"] == 3
        assert row["ModalitiesInStudy"] == "CT\\SR"
    assert [s["NumberOfSeriesRelatedInstances"] for s in database.read(lambda tx: tx.imaging.series_of(key))] == [2, 1]
    live_series = database.read(lambda tx: tx.imaging.series(KN, [], limit=10))
    assert [s["NumberOfSeriesRelatedInstances"] for s in live_series] == [2, 1]


def test_refreshing_an_unknown_study_is_not_found(database: SqlDatabase) -> None:
    with pytest.raises(HubError):
        database.write(lambda tx: tx.imaging.refresh_study(StudyKey(owner="KN", StudyInstanceUID="9")))


def test_the_stored_metadata_is_named_and_any_arrival_changes_the_version(database: SqlDatabase) -> None:
    add(database, header())
    key = StudyKey(owner="KN", StudyInstanceUID="1.2")
    assert database.read(lambda tx: tx.imaging.series_metadata(key, "1.2.1")) is None
    before = database.read(lambda tx: tx.imaging.series_version(key, "1.2.1"))
    database.write(lambda tx: tx.imaging.set_series_metadata(key, "1.2.1", "e", "d"))
    assert database.read(lambda tx: tx.imaging.series_metadata(key, "1.2.1")) == ("e", "d")
    add(database, header(instance="2"))
    assert database.read(lambda tx: tx.imaging.series_version(key, "1.2.1")) != before


@pytest.fixture
def people(database: SqlDatabase) -> SqlDatabase:
    for study, values in {
        "1.1": {"PatientName": "郑^伟", "PatientNamePinyin": "ZHENG^WEI", "PatientID": "10086", "StudyDate": "20250611", "StudyTime": "093015.5"},
        "1.2": {"PatientName": "欧阳明月", "PatientID": "A_1%", "StudyDate": "20250610", "StudyTime": "23", "AccessionNumber": "ACC-7"},
        "1.3": {"PatientName": "ZHANG^WEI", "PatientNamePinyin": "ZHANG^WEI", "PatientID": "100860", "Modality": "MR", "StudyDescription": "Head [T1]"},
        "1.4": {"PatientName": "周建国", "PatientID": "10086", "StudyDate": "20250612"},
    }.items():  # fmt: skip
        add(database, header(study, **values), owner="QH" if study == "1.4" else "KN")
    return database


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, ["1.1", "1.2", "1.3"]),
        ({"PatientID": "10086"}, ["1.1"]),
        ({"PatientID": "*0086*"}, ["1.1", "1.3"]),
        ({"PatientID": "1008?0"}, ["1.3"]),
        ({"PatientID": "A_1%*"}, ["1.2"]),
        ({"PatientID": "A?2%*"}, []),
        ({"PatientID": "*%*"}, ["1.2"]),
        ({"PatientID": "10086\\100860"}, ["1.1", "1.3"]),
        ({"PatientName": "郑*"}, ["1.1"]),
        ({"PatientName": "*明月*"}, ["1.2"]),
        ({"PatientName": "zheng^wei"}, ["1.1"]),
        ({"PatientName": "*WEI*"}, ["1.1", "1.3"]),
        ({"PatientName": "ouyang*"}, ["1.2"]),
        ({"PatientName": "wei zheng"}, []),
        ({"StudyDate": "20250611"}, ["1.1"]),
        ({"StudyDate": "20250610-20250611"}, ["1.1", "1.2"]),
        ({"StudyDate": "-20250610"}, ["1.2"]),
        ({"StudyDate": "20250611-"}, ["1.1"]),
        ({"StudyTime": "0930-0931"}, ["1.1"]),
        ({"StudyTime": "0930"}, ["1.1"]),
        ({"StudyTime": "2200-"}, ["1.2"]),
        ({"AccessionNumber": "acc*"}, ["1.2"]),
        ({"ModalitiesInStudy": "MR"}, ["1.3"]),
        ({"ModalitiesInStudy": "CT\\MR"}, ["1.1", "1.2", "1.3"]),
        ({"StudyInstanceUID": "1.1,1.3"}, ["1.1", "1.3"]),
        ({"StudyInstanceUID": "1.1\\1.4"}, ["1.1"]),
        ({"StudyDescription": "head [t*"}, ["1.3"]),
        ({"SOPClassesInStudy": "1.2.840.10008.5.1.4.1.1.2"}, ["1.1", "1.2", "1.3"]),
    ],
)  # fmt: skip
def test_keys_match_as_ps3_4_says_inside_the_scope(
    people: SqlDatabase, keys: dict[str, str], expected: list[str]
) -> None:
    assert find(people, **keys) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("oymy", ["1.2"]),
        ("zh w", ["1.1", "1.3"]),
        ("郑", ["1.1"]),
        ("zw", ["1.1"]),
        ("wei zheng", ["1.1"]),
        ("100%", []),
    ],
)
def test_fuzzy_names_match_by_beginnings_pinyin_and_initials(
    people: SqlDatabase, name: str, expected: list[str]
) -> None:
    assert find(people, fuzzy=True, PatientName=name) == expected


def test_series_and_instances_match_by_keys_of_every_level(people: SqlDatabase) -> None:
    assert find(people, "series", Modality="MR") == ["1.3.1"]
    assert find(people, "series", PatientID="10086") == ["1.1.1"]
    assert find(people, "instance", InstanceNumber="1", StudyInstanceUID="1.3") == ["1.3.1.1"]
    assert find(people, "instance", UNRESTRICTED, PatientID="10086") == ["1.1.1.1", "1.4.1.1"]


def test_pages_follow_one_another_and_the_count_is_of_all(people: SqlDatabase) -> None:
    pages = [people.read(lambda tx, o=offset: tx.imaging.studies(KN, [], limit=2, offset=o)) for offset in (0, 2)]
    assert [[row["StudyInstanceUID"] for row in page] for page in pages] == [["1.1", "1.2"], ["1.3"]]
    assert people.read(lambda tx: [tx.imaging.count(level, KN, []) for level in ("study", "series", "instance")]) == [
        3,
        3,
        3,
    ]


def test_first_headers_come_by_series(people: SqlDatabase) -> None:
    keys = [("KN", "1.1", "1.1.1"), ("KN", "1.3", "1.3.1"), ("KN", "1.4", "1.4.1")]
    assert set(people.read(lambda tx: tx.imaging.first_attributes(keys))) == set(keys[:2])
