"""C-FIND over real sockets and a real index: what is matched, what is answered, and how it ends (PS3.4 annex C)."""

from __future__ import annotations

import contextlib
import datetime as dt
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from adapters.dimse.negotiation import Context
from fhir_mappings.dicom import identifier
from hub import query_search
from hub.boot import Services
from hub.errors import Category, HubError
from hub.imaging_ids import number_record_id
from hub.ports import Grant, NewVersion, Tx
from tests.support import images
from tests.support import services as support
from tests.support.dimse import Door, FakeServices, Peer, running
from tests.support.dimse_peer import associated
from tests.support.dimse_query import Found, ask, cancel, find, keys, plain, response

PATIENT, STUDY = "1.2.840.10008.5.1.4.1.2.1.1", "1.2.840.10008.5.1.4.1.2.2.1"
PATIENT_STUDY_ONLY = "1.2.840.10008.5.1.4.1.2.3.1"
PENDING, PARTLY = 0xFF00, 0xFF01
ROOT = images.ROOT


@contextlib.contextmanager
def consortium(folder: Path) -> Iterator[Services]:
    clock = images.FakeClock()
    with support.running(folder, clock=clock, query_matches=450) as made:
        fill(made)
        yield made


def fill(services: Services) -> None:
    """KN holds two studies of 郑伟 and one of 李秀英; QH one of another patient who is 10086 there too."""
    for number in (1, 2, 3):
        images.receive(services, images.ct(number))
    images.receive(
        services,
        images.ct(
            1,
            series=2,
            Modality="SR",
            SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11",
            SeriesDescription="Report",
            AccessionNumber="A1",
            Manufacturer="云岭影像",
            RequestAttributesSequence=[_item(RequestedProcedureID="RP7", ScheduledProcedureStepID="SPS7")],
        ),
    )
    images.receive(services, images.ct(1, study=f"{ROOT}.2", StudyDate="20250612", StudyTime="080000", StudyID="S2"))
    images.receive(
        services,
        images.ct(
            1,
            study=f"{ROOT}.3",
            PatientID="10107",
            PatientName="LI^XIUYING=李^秀英",
            PatientSex="F",
            StudyDate="20250613",
            StudyTime="200000",
            Modality="MR",
        ),
    )
    images.receive(services, images.ct(1, study=f"{ROOT}.4", PatientName="WANG^FANG=王^芳"), images.QH)
    cast("images.FakeClock", services.clock).forward(3600)
    images.settle(services)


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Services]:
    with consortium(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A door for tests that only read."""
    with consortium(tmp_path_factory.mktemp("hub")) as made, running(cast("FakeServices", made)) as door:
        yield door


def _item(**values: Any) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


@pytest.fixture
def door(filled: Services) -> Iterator[Door]:
    with running(cast("FakeServices", filled)) as made:
        yield made


def asked(door: Door, content: Any, *, root: str = STUDY, caller: str = "KN_PACS", charset: str = "") -> Found:
    with associated(door.port, Context(root, identifier.IMPLICIT), calling_ae=caller) as peer:
        return find(peer, root, content, charset=charset)


def audited(services: Services) -> list[dict[str, Any]]:
    def work(tx: Any) -> list[dict[str, Any]]:
        import sqlalchemy as sa

        from fhir_mappings.json import loads
        from storage.sql.schema import audit

        rows = tx.connection.execute(sa.select(audit.c.body).order_by(audit.c.seq))
        return [loads(bytes(row.body)) for row in rows]

    return services.database.read(work)


# --- levels ------------------------------------------------------------------------------------------------------


def test_a_study_is_answered_with_the_keys_that_were_asked(reading: Door) -> None:
    found = asked(
        reading,
        keys(
            "STUDY",
            StudyInstanceUID=images.STUDY,
            PatientName="",
            PatientID="",
            IssuerOfPatientID="",
            StudyDate="",
            StudyDescription="",
            AccessionNumber="",
            NumberOfStudyRelatedSeries="",
            NumberOfStudyRelatedInstances="",
            NumberOfPatientRelatedStudies="",
            InstanceAvailability="",
            SOPClassesInStudy="",
            ModalitiesInStudy="",
        ),
    )
    assert (found.status, found.pending, found.character_sets) == (0, {PENDING}, {"ISO_IR 192"})
    (answer,) = found.answers
    assert answer["00100010"]["Value"] == [{"Alphabetic": "ZHENG^WEI", "Ideographic": "郑^伟"}]
    assert answer["00080061"]["Value"] == ["CT", "SR"]
    assert answer["00080062"]["Value"] == ["1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.88.11"]
    given = {**plain(answer), "PatientName": "", "ModalitiesInStudy": "", "SOPClassesInStudy": ""}
    assert given == {
        "QueryRetrieveLevel": "STUDY",
        "RetrieveAETitle": "YIXIE",
        "InstanceAvailability": "ONLINE",
        "StudyInstanceUID": images.STUDY,
        "PatientName": "",
        "PatientID": "10086",
        "IssuerOfPatientID": "KN",
        "StudyDate": "20250611",
        "StudyDescription": "胸部CT平扫",
        "AccessionNumber": None,
        "NumberOfStudyRelatedSeries": 2,
        "NumberOfStudyRelatedInstances": 4,
        "NumberOfPatientRelatedStudies": 2,
        "SOPClassesInStudy": "",
        "ModalitiesInStudy": "",
    }


def test_a_query_without_a_match_has_one_answer(reading: Door) -> None:
    found = asked(reading, keys("STUDY", PatientID="nobody"))
    assert (found.answers, found.status, found.comment) == ([], 0, "")


def test_patients_are_answered_with_their_counts(reading: Door) -> None:
    content = keys(
        "PATIENT",
        PatientName="",
        PatientID="",
        PatientBirthDate="",
        PatientSex="",
        NumberOfPatientRelatedStudies="",
        NumberOfPatientRelatedSeries="",
        NumberOfPatientRelatedInstances="",
    )
    found = asked(reading, content, root=PATIENT)
    assert (found.status, found.pending) == (0, {PENDING})
    assert sorted(
        (one["PatientID"], one["PatientSex"], one["NumberOfPatientRelatedStudies"],
         one["NumberOfPatientRelatedSeries"], one["NumberOfPatientRelatedInstances"])
        for one in map(plain, found.answers)
    ) == [("10086", "M", 2, 3, 5), ("10107", "F", 1, 1, 1)]  # fmt: skip


def test_one_number_at_two_hospitals_is_two_patients(filled: Services, door: Door) -> None:
    """QH lets KN see its study; both have a 10086."""
    study = filled.database.read(lambda tx: tx.imaging.study(query_key("QH", f"{ROOT}.4")))
    assert study is not None
    grant = Grant(grantee="KN", target_type="ImagingStudy", target_id=study["resource_id"], task_id="t")
    filled.database.write(lambda tx: tx.grants.open(grant, now=filled.clock()))
    found = asked(door, keys("PATIENT", PatientID="10086", PatientName=""), root=PATIENT)
    answers = [plain(one) for one in found.answers]
    assert sorted((one["PatientName"]["Ideographic"], one.get("IssuerOfPatientID")) for one in answers) == [
        ("王^芳", "QH"),
        ("郑^伟", None),
    ]
    found = asked(door, keys("PATIENT", PatientID="10086", IssuerOfPatientID="QH"), root=PATIENT)
    assert [plain(one)["IssuerOfPatientID"] for one in found.answers] == ["QH"]
    found = asked(door, keys("PATIENT", PatientID="10086", IssuerOfPatientID="KN"), root=PATIENT)
    assert [plain(one)["IssuerOfPatientID"] for one in found.answers] == ["KN"]


def query_key(owner: str, uid: str) -> Any:
    from hub.ports import StudyKey

    return StudyKey(owner=owner, StudyInstanceUID=uid)


def test_what_is_out_of_scope_is_absent(reading: Door) -> None:
    assert asked(reading, keys("STUDY", StudyInstanceUID=f"{ROOT}.4")).answers == []
    assert len(asked(reading, keys("STUDY", StudyInstanceUID=f"{ROOT}.4"), caller="QH_PACS").answers) == 1


def test_a_study_that_two_hospitals_hold_is_answered_once_in_the_askers_numbers(filled: Services, door: Door) -> None:
    images.receive(filled, images.ct(1, study=f"{ROOT}.4", PatientID="K-77"), images.KN)
    study = filled.database.read(lambda tx: tx.imaging.study(query_key("QH", f"{ROOT}.4")))
    assert study is not None
    grant = Grant(grantee="KN", target_type="ImagingStudy", target_id=study["resource_id"], task_id="t")
    filled.database.write(lambda tx: tx.grants.open(grant, now=filled.clock()))
    found = asked(door, keys("STUDY", StudyInstanceUID=f"{ROOT}.4", PatientID=""))
    assert found.values("PatientID") == ["K-77"]
    found = asked(door, keys("SERIES", StudyInstanceUID=f"{ROOT}.4", PatientID="", SeriesInstanceUID=""))
    assert found.values("PatientID") == ["K-77"]


def test_a_linked_patients_study_comes_under_the_askers_number(filled: Services, door: Door) -> None:
    """QH lets KN see its study; its 10086 is KN's 10107, and its number stands in Other Patient IDs Sequence."""
    sides = {owner: number_record_id(owner, number) for owner, number in (("KN", "10107"), ("QH", "10086"))}
    study = filled.database.read(lambda tx: tx.imaging.study(query_key("QH", f"{ROOT}.4")))
    assert study is not None
    grant = Grant(grantee="KN", target_type="ImagingStudy", target_id=study["resource_id"], task_id="t")

    def work(tx: Tx) -> None:
        tx.grants.open(grant, now=filled.clock())
        for (owner, id_), number in zip(sides.items(), ("10107", "10086"), strict=True):
            patient = {"resourceType": "Patient", "id": id_, "identifier": [{"value": number}]}
            tx.records.put_many([NewVersion(resource=patient, owner=owner)])
        items = [{"type": "source", "resource": {"reference": f"Patient/{id_}"}} for id_ in sides.values()]
        linkage = {"resourceType": "Linkage", "id": "l", "active": True, "item": items}
        tx.records.put_many([NewVersion(resource=linkage, owner="YY")])

    filled.database.write(work)
    found = asked(door, keys("STUDY", PatientID="10107", StudyInstanceUID=""), root=PATIENT)
    answers = {one["0020000D"]["Value"][0]: one for one in found.answers}
    assert set(answers) == {f"{ROOT}.3", f"{ROOT}.4"}
    linked = answers[f"{ROOT}.4"]
    assert (linked["00100020"]["Value"], linked["00100021"]["Value"]) == (["10107"], ["KN"])
    assert plain(linked["00101002"]["Value"][0]) == {
        "PatientID": "10086", "IssuerOfPatientID": "QH", "TypeOfPatientID": "TEXT"
    }  # fmt: skip
    assert "00101002" not in answers[f"{ROOT}.3"]
    [patient] = asked(door, keys("PATIENT", PatientID="10107", NumberOfPatientRelatedStudies=""), root=PATIENT).answers
    assert plain(patient)["NumberOfPatientRelatedStudies"] == 2


def test_series_are_answered_inside_their_study(reading: Door) -> None:
    found = asked(
        reading,
        keys(
            "SERIES",
            StudyInstanceUID=images.STUDY,
            SeriesInstanceUID="",
            Modality="",
            SeriesNumber="",
            NumberOfSeriesRelatedInstances="",
            Manufacturer="",
            PatientID="",
        ),
    )
    assert (found.status, found.pending) == (0, {PENDING})
    assert [(one["Modality"], one["SeriesNumber"], one["NumberOfSeriesRelatedInstances"], one["Manufacturer"],
             one["PatientID"]) for one in map(plain, found.answers)] == [
        ("CT", 1, 3, None, "10086"), ("SR", 2, 1, "云岭影像", "10086"),
    ]  # fmt: skip


def test_instances_are_answered_inside_their_series(reading: Door) -> None:
    content = keys(
        "IMAGE",
        StudyInstanceUID=images.STUDY,
        SeriesInstanceUID=f"{images.STUDY}.1",
        SOPInstanceUID="",
        InstanceNumber="",
        Rows="",
        SOPClassUID="",
        Modality="",
        BodyPartExamined="",
        WindowCenter="",
    )
    found = asked(reading, content)
    assert (found.status, found.pending) == (0, {PENDING})
    assert [plain(one)["InstanceNumber"] for one in found.answers] == [1, 2, 3]
    assert plain(found.answers[0]) == {
        "QueryRetrieveLevel": "IMAGE",
        "RetrieveAETitle": "YIXIE",
        "StudyInstanceUID": images.STUDY,
        "SeriesInstanceUID": f"{images.STUDY}.1",
        "SOPInstanceUID": f"{images.STUDY}.1.1",
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
        "InstanceNumber": 1,
        "Rows": 16,
        "Modality": "CT",
        "BodyPartExamined": "CHEST",
        "WindowCenter": None,
    }


def test_a_study_still_being_received_says_what_has_come(filled: Services, door: Door) -> None:
    images.receive(filled, images.ct(1, study=f"{ROOT}.9"))
    content = keys("STUDY", StudyInstanceUID=f"{ROOT}.9", NumberOfStudyRelatedInstances="", SOPClassesInStudy="")
    (answer,) = asked(door, content).answers
    assert plain(answer)["NumberOfStudyRelatedInstances"] == 1
    assert plain(answer)["SOPClassesInStudy"] == "1.2.840.10008.5.1.4.1.1.2"
    content = keys("PATIENT", PatientID="10086", NumberOfPatientRelatedInstances="", NumberOfPatientRelatedSeries="")
    (answer,) = asked(door, content, root=PATIENT).answers
    assert (plain(answer)["NumberOfPatientRelatedInstances"], plain(answer)["NumberOfPatientRelatedSeries"]) == (6, 4)


# --- matching ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"PatientID": "10086"}, [2, 1]),
        ({"PatientID": "100*"}, [2, 1]),
        ({"PatientID": "1010?"}, [3]),
        ({"PatientID": "*"}, [3, 2, 1]),
        ({"PatientID": "10107\\10086"}, [3, 2, 1]),
        ({"PatientName": "zheng^wei"}, [2, 1]),
        ({"PatientName": "ZHENG*"}, [2, 1]),
        ({"PatientName": "郑*"}, [2, 1]),
        ({"PatientName": "=李^秀英"}, [3]),
        ({"PatientName": "ZHENG^WEI=郑^伟"}, [2, 1]),
        ({"PatientName": "ZHENG^WEI=李^秀英"}, []),
        ({"StudyInstanceUID": f"{ROOT}.1\\{ROOT}.3"}, [3, 1]),
        ({"StudyDate": "20250612-"}, [3, 2]),
        ({"StudyDate": "-20250611"}, [1]),
        ({"StudyDate": "20250611-20250612"}, [2, 1]),
        ({"StudyTime": "0900-2100"}, [3, 1]),
        ({"ModalitiesInStudy": "SR"}, [1]),
        ({"ModalitiesInStudy": "SR\\MR"}, [3, 1]),
        ({"SOPClassesInStudy": "1.2.840.10008.5.1.4.1.1.88.11"}, [1]),
        ({"StudyID": "S2", "PatientSex": "M"}, [2]),
        ({"StudyDescription": "胸部*"}, [3, 2, 1]),
        ({"IssuerOfPatientID": "KN"}, [3, 2, 1]),
        ({"IssuerOfPatientID": "QH"}, []),
    ],
)
def test_keys_are_matched_as_the_standard_has_it(reading: Door, content: dict[str, Any], expected: list[int]) -> None:
    found = asked(reading, keys("STUDY", **{"StudyInstanceUID": "", **content}))
    assert (found.status, found.pending) == (0, {PENDING} if expected else set())
    assert found.values("StudyInstanceUID") == [f"{ROOT}.{number}" for number in expected]


def test_a_key_inside_a_sequence_is_matched_and_its_item_returned(reading: Door) -> None:
    inside = [{"RequestedProcedureID": "RP7", "ScheduledProcedureStepID": "", "AccessionNumber": ""}]
    content = keys("SERIES", StudyInstanceUID=images.STUDY, SeriesInstanceUID="", RequestAttributesSequence=inside)
    found = asked(reading, content)
    assert found.values("SeriesInstanceUID") == [f"{images.STUDY}.2"]
    (item,) = found.answers[0]["00400275"]["Value"]
    assert plain(item) == {
        "RequestedProcedureID": "RP7",
        "ScheduledProcedureStepID": "SPS7",
        "AccessionNumber": None,
    }
    content["00400275"] = keys(RequestAttributesSequence=[{"RequestedProcedureID": "RP8"}])["00400275"]
    assert asked(reading, content).answers == []


def test_optional_keys_that_are_not_matched_are_said_so(reading: Door) -> None:
    """Station Name is returned without being matched; Slice Thickness is no attribute of a study, and not returned."""
    found = asked(reading, keys("STUDY", StudyInstanceUID=images.STUDY, AdmissionID="X", SliceThickness=""))
    assert (found.status, found.pending) == (0, {PARTLY})
    assert found.values("AdmissionID") == [None]
    assert found.values("SliceThickness") == []


# --- the model ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("root", "content", "offending"),
    [
        (STUDY, keys("PATIENT", PatientID=""), 0x00080052),
        (STUDY, keys("", PatientID=""), 0x00080052),
        (PATIENT_STUDY_ONLY, keys("SERIES", PatientID="10086", StudyInstanceUID=images.STUDY), 0x00080052),
        (STUDY, keys("SERIES", SeriesInstanceUID=""), 0x0020000D),
        (STUDY, keys("SERIES", StudyInstanceUID=f"{ROOT}.1\\{ROOT}.2"), 0x0020000D),
        (STUDY, keys("IMAGE", StudyInstanceUID=images.STUDY), 0x0020000E),
        (PATIENT, keys("STUDY", StudyInstanceUID=""), 0x00100020),
        (PATIENT, keys("STUDY", StudyInstanceUID="", PatientID="100*"), 0x00100020),
    ],
)
def test_an_identifier_that_does_not_fit_its_model_is_refused(
    reading: Door, root: str, content: dict[str, Any], offending: int
) -> None:
    found = asked(reading, content, root=root)
    assert (found.answers, found.status, found.offending) == ([], 0xA900, offending)
    assert found.comment


def test_a_malformed_value_is_refused_by_name(reading: Door) -> None:
    found = asked(reading, keys("STUDY", StudyDate="June"))
    assert (found.status, found.offending) == (0xC000, 0x00080020)


def test_a_data_set_that_is_none_is_refused_and_the_association_stands(reading: Door) -> None:
    with associated(reading.port, Context(STUDY, identifier.IMPLICIT)) as peer:
        assert find(peer, STUDY, b"\x08\x00\x52\x00\xff\xff\x00\x00STUDY ").status == 0xC000
        assert find(peer, STUDY, keys("STUDY", PatientID="10107")).status == 0


def test_a_service_that_the_ae_may_not_use_is_not_accepted(filled: Services) -> None:
    endpoint = filled.directory.dicom_member("KN_PACS", "127.0.0.1")
    assert endpoint is not None
    endpoint.settings["services"] = "echo store"  # type: ignore[index]
    with (
        running(cast("FakeServices", filled)) as door,
        associated(door.port, Context(STUDY, identifier.IMPLICIT)) as peer,
    ):
        assert peer.accepted == frozenset()


def negotiated(door: Door, negotiate: bytes, content: Dataset) -> list[str]:
    """Ask with pynetdicom, an implementation of its own, and the extended negotiation *negotiate*."""
    ae = AE(ae_title="KN_PACS")
    ae.add_requested_context(STUDY, identifier.IMPLICIT)
    item = SOPClassExtendedNegotiation()
    item.sop_class_uid = STUDY  # type: ignore[assignment]
    item.service_class_application_information = negotiate
    association = ae.associate("127.0.0.1", door.port, ae_title="YIXIE", ext_neg=[item])
    assert association.is_established
    assert association.acceptor.sop_class_extended == {STUDY: negotiate}
    try:
        found = list(association.send_c_find(content, STUDY))
    finally:
        association.release()
    assert found[-1][0].Status == 0
    unique = "SeriesInstanceUID" if content.QueryRetrieveLevel == "SERIES" else "StudyInstanceUID"
    return [str(answer[unique].value) for _, answer in found if answer is not None]


def test_relational_queries_can_be_negotiated(reading: Door) -> None:
    content = _item(QueryRetrieveLevel="SERIES", SeriesInstanceUID="", Modality="MR")
    assert negotiated(reading, b"\1\0\0\0", content) == [f"{ROOT}.3.1"]


def test_dates_and_times_are_matched_as_moments_where_that_was_negotiated(reading: Door) -> None:
    content = _item(
        QueryRetrieveLevel="STUDY", StudyInstanceUID="", StudyDate="20250611-20250613", StudyTime="0935-1000"
    )
    assert negotiated(reading, b"\0\1\0\0", content) == [f"{ROOT}.2"]
    assert negotiated(reading, b"\0\0\0\0", content) == []


def test_names_are_matched_fuzzily_where_that_was_negotiated(reading: Door) -> None:
    content = _item(QueryRetrieveLevel="STUDY", StudyInstanceUID="", PatientName="lixiu")
    assert negotiated(reading, b"\0\0\1\0", content) == [f"{ROOT}.3"]
    assert negotiated(reading, b"\0\0\0\0", content) == []


# --- how it ends -------------------------------------------------------------------------------------------------


def many(services: Services, count: int) -> None:
    """Index *count* studies without objects, as a generator of rows does."""
    import sqlalchemy as sa

    from storage.sql.schema import imaging_study

    def work(tx: Any) -> None:
        row = dict(
            tx.connection.execute(
                sa.select(imaging_study).where(imaging_study.c.StudyInstanceUID == f"{ROOT}.2")
            ).mappings().one()
        )  # fmt: skip
        rows = [
            {**row, "StudyInstanceUID": f"{ROOT}.7.{n}", "resource_id": f"r{n}", "patient_id": f"p{n}",
             "PatientID": f"N{n}", "StudyTime": f"{n % 24:02}0000"}
            for n in range(count)
        ]  # fmt: skip
        tx.connection.execute(sa.insert(imaging_study), rows)

    services.database.write(work)


def test_every_study_is_answered_once_over_many_pages(filled: Services, door: Door) -> None:
    many(filled, 440)
    found = asked(door, keys("STUDY", StudyInstanceUID=""))
    assert found.status == 0
    assert sorted(found.values("StudyInstanceUID")) == sorted(
        [f"{ROOT}.{n}" for n in (1, 2, 3)] + [f"{ROOT}.7.{n}" for n in range(440)]
    )
    found = asked(door, keys("PATIENT", PatientID="N*"), root=PATIENT)
    assert sorted(found.values("PatientID")) == sorted(f"N{n}" for n in range(440))
    lines = [one for one in audited(filled) if one.get("subtype", [{}])[0].get("code") == "C-FIND"]
    assert len(lines) >= 5


def test_series_and_instances_are_answered_once_over_many_pages(
    filled: Services, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_search, "PAGE_ROWS", 2)
    found = asked(
        door, keys("IMAGE", StudyInstanceUID=images.STUDY, SeriesInstanceUID=f"{images.STUDY}.1", SOPInstanceUID="")
    )
    assert found.values("SOPInstanceUID") == [f"{images.STUDY}.1.{n}" for n in (1, 2, 3)]
    monkeypatch.setattr(query_search, "PAGE_ROWS", 1)
    found = asked(door, keys("SERIES", StudyInstanceUID=images.STUDY, SeriesInstanceUID=""))
    assert found.values("SeriesInstanceUID") == [f"{images.STUDY}.{n}" for n in (1, 2)]


def test_more_matches_than_the_limit_are_never_cut_in_silence(filled: Services, door: Door) -> None:
    many(filled, 460)
    found = asked(door, keys("STUDY", StudyInstanceUID=""))
    assert (len(found.answers), found.status) == (450, 0xA700)
    assert "450" in found.comment


def test_a_cancelled_query_stops_and_looks_nothing_up_any_more(
    filled: Services, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_search, "PAGE_ROWS", 1)
    many(filled, 440)
    with associated(door.port, Context(STUDY, identifier.IMPLICIT)) as peer:
        ask(peer, STUDY, keys("STUDY", StudyInstanceUID=""))
        peer.send(cancel())
        found = Found()
        while not response(peer, found):
            pass
        assert found.status == 0xFE00
        assert len(found.answers) < 440
        # The message id may be used again.
        assert find(peer, STUDY, keys("STUDY", PatientID="10107")).status == 0


def test_a_database_that_fails_half_way_is_told(filled: Services, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_search, "PAGE_ROWS", 2)
    read = filled.database.read
    calls: list[int] = []

    def failing(work: Callable[[Any], Any]) -> Any:
        calls.append(1)
        if len(calls) > 1:
            raise HubError(Category.UNAVAILABLE, "The database is away.")
        return read(work)

    with associated(door.port, Context(STUDY, identifier.IMPLICIT)) as peer:
        monkeypatch.setattr(filled.database, "read", failing)
        found = find(peer, STUDY, keys("STUDY", StudyInstanceUID=""))
        assert (len(found.answers), found.status) == (2, 0xA700)


def test_no_answer_leaves_before_its_audit_line_is_durable(
    filled: Services, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_work: Any) -> None:
        raise HubError(Category.UNAVAILABLE, "The disk is full.")

    monkeypatch.setattr(filled.database, "write", refuse)
    found = asked(door, keys("STUDY", PatientID="10086"))
    assert (found.answers, found.status) == ([], 0xA700)


def test_each_page_and_each_empty_answer_is_audited_without_names(filled: Services, door: Door) -> None:
    before = len(audited(filled))
    asked(door, keys("STUDY", PatientName="ZHENG*", StudyDate="20250611"))
    asked(door, keys("STUDY", PatientID="nobody"))
    lines = audited(filled)[before:]
    assert len(lines) == 2
    text = str(lines)
    assert "ZHENG" not in text.upper()


def test_a_peer_that_goes_away_ends_the_query(filled: Services, door: Door) -> None:
    many(filled, 440)
    with Peer(door.port) as peer:
        peer.associate(Context(STUDY, identifier.IMPLICIT))
        ask(peer, STUDY, keys("STUDY", StudyInstanceUID="", PatientName=""))
    for thread in list(door.server._threads):
        thread.join(10)
        assert not thread.is_alive()


# --- character sets and independent programs -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("charset", "answered"),
    [("GB18030", "GB18030"), ("GBK", "GBK"), ("ISO_IR 100", "ISO_IR 192"), ("", "ISO_IR 192")],
)
def test_answers_come_in_the_character_set_of_the_question(reading: Door, charset: str, answered: str) -> None:
    found = asked(reading, keys("STUDY", PatientID="10107", PatientName=""), charset=charset)
    assert found.character_sets == {answered}
    assert found.values("PatientName") == [{"Alphabetic": "LI^XIUYING", "Ideographic": "李^秀英"}]


def test_a_name_in_gbk_finds_its_patient(reading: Door) -> None:
    content = keys("STUDY", PatientName="=郑^伟", StudyInstanceUID="")
    assert len(asked(reading, content, charset="GBK").answers) == 2


@pytest.mark.tool("findscu")
@pytest.mark.parametrize(("option", "root"), [("-S", STUDY), ("-P", PATIENT), ("-O", PATIENT_STUDY_ONLY)])
def test_findscu_reads_the_answers(
    reading: Door, dcmtk: Callable[..., list[str]], tmp_path: Path, option: str, root: str
) -> None:
    command = dcmtk(
        "findscu", option, "-X", "-od", tmp_path, "-aet", "KN_PACS", "-aec", "YIXIE", "-k", "QueryRetrieveLevel=STUDY",
        "-k", "PatientID=10086", "-k", "StudyInstanceUID", "-k", "PatientName", "-k", "SpecificCharacterSet=GB18030",
        "127.0.0.1", reading.port,
    )  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    from pydicom import dcmread

    answers = [dcmread(path) for path in sorted(tmp_path.glob("rsp*.dcm"))]
    assert [str(one.StudyInstanceUID) for one in answers] == [f"{ROOT}.2", f"{ROOT}.1"]
    assert {str(one.PatientName) for one in answers} == {"ZHENG^WEI=郑^伟"}
    assert {str(one.SpecificCharacterSet) for one in answers} == {"GB18030"}


@pytest.mark.tool("findscu")
def test_findscu_reads_answers_in_gb_2312_by_code_extension(
    reading: Door, dcmtk: Callable[..., list[str]], tmp_path: Path
) -> None:
    command = dcmtk(
        "findscu", "-S", "-X", "-od", tmp_path, "-aet", "KN_PACS", "-aec", "YIXIE", "-k", "QueryRetrieveLevel=STUDY",
        "-k", "PatientID=10086", "-k", "PatientName", "-k", "SpecificCharacterSet=\\ISO 2022 IR 58",
        "127.0.0.1", reading.port,
    )  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    paths = sorted(tmp_path.glob("rsp*.dcm"))
    assert len(paths) == 2
    name = b"ZHENG^WEI=\x1b$)A" + "郑".encode("gb2312") + b"^\x1b$)A" + "伟".encode("gb2312")
    for path in paths:
        assert b"\\ISO 2022 IR 58" in path.read_bytes()
        assert name in path.read_bytes()
        shown = subprocess.run(dcmtk("dcmdump", "+U8", path), capture_output=True, timeout=60, check=True).stdout
        assert "[ZHENG^WEI=郑^伟]" in shown.decode()


def test_the_moment_of_the_audit_line_is_the_hubs(filled: Services, door: Door) -> None:
    asked(door, keys("STUDY", PatientID="10086"))
    assert filled.clock().astimezone(dt.UTC).isoformat()[:16] in str(audited(filled)[-1])


def test_a_hub_that_goes_down_ends_the_query(filled: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_search, "PAGE_ROWS", 1)
    many(filled, 440)
    read = filled.database.read
    with running(cast("FakeServices", filled)) as door:
        calls: list[int] = []

        def stopping(work: Callable[[Any], Any]) -> Any:
            calls.append(1)
            if len(calls) == 3:
                for association in list(door.server._running):
                    association.stop()
            return read(work)

        with associated(door.port, Context(STUDY, identifier.IMPLICIT)) as peer:
            monkeypatch.setattr(filled.database, "read", stopping)
            found = find(peer, STUDY, keys("STUDY", StudyInstanceUID=""))
            assert found.status == 0xA700
            assert len(found.answers) < 10


def test_a_query_whose_identifier_is_endless_ends_the_association(reading: Door) -> None:
    with associated(reading.port, Context(STUDY, identifier.IMPLICIT)) as peer:
        with contextlib.suppress(OSError):
            ask(peer, STUDY, bytes(identifier.MAX_BYTES + 2))
        assert peer.read()[0] in {0, 7}
