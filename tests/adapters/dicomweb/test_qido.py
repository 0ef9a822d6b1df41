"""QIDO-RS over a real socket: what is matched, what is returned, and in which form (PS3.18 sections 8.3.4 and 10.6)."""

from __future__ import annotations

import gzip
from typing import Any

import httpx
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from dicomweb_client.session_utils import create_session

from fhir_mappings.dicom import xml_model
from hub import sequence_matching
from hub.boot import Services
from hub.imaging_ids import number_record_id, study_resource_id
from hub.ports import Grant, NewVersion
from storage.sql.schema import audit, audit_patient
from tests.adapters.dicomweb.test_dicomweb import parts, rows
from tests.support.images import QH, ROOT, STUDY, ct, receive

XML = 'multipart/related; type="application/dicom+xml"'
ADDRESSES = (
    "/studies",
    "/series",
    "/instances",
    f"/studies/{STUDY}/series",
    f"/studies/{STUDY}/instances",
    f"/studies/{STUDY}/series/{STUDY}.1/instances",
)


@pytest.fixture
def client(door: str) -> DICOMwebClient:
    session = create_session()
    session.headers["Authorization"] = "Bearer kn"
    return DICOMwebClient(url=door, session=session)


def requested(step: str, procedure: str = "R1") -> pydicom.Dataset:
    """Return an item of the Request Attributes Sequence."""
    item = pydicom.Dataset()
    item.ScheduledProcedureStepID, item.RequestedProcedureID = step, procedure
    item.RequestedProcedureDescription = "胸部CT"
    return item


def values(answer: httpx.Response, tag: str) -> list[Any]:
    """Return the first value of *tag* of each result."""
    assert answer.status_code == 200, answer.text
    return [one[tag]["Value"][0] for one in answer.json()]


# --- combined dates and times


@pytest.fixture
def moments(hub: Services) -> list[str]:
    """Keep studies at seven moments, newest first; gives their UIDs."""
    found = []
    for number, (day, time) in enumerate(
        [("20250613", "235900"), ("20250613", "1200"), ("20250613", "070000"), ("20250612", "020000"),
         ("20250611", "235959.5"), ("20250611", "093000"), ("20250611", "0700")]
    ):  # fmt: skip
        receive(hub, ct(study=f"{ROOT}.{number}", StudyDate=day, StudyTime=time))
        found.append(f"{ROOT}.{number}")
    return found


def test_a_date_range_beside_a_time_range_is_one_span_of_moments(http: httpx.Client, moments: list[str]) -> None:
    query = "StudyDate=20250611-20250613&StudyTime=0900-1200"
    assert values(http.get(f"/studies?{query}"), "0020000D") == moments[1:6]


def test_one_day_beside_a_time_range_is_these_hours_of_the_day(http: httpx.Client, moments: list[str]) -> None:
    assert values(http.get("/studies?StudyDate=20250613&StudyTime=0600-1200"), "0020000D") == moments[1:3]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 6])
def test_pages_of_a_span_of_moments_neither_repeat_nor_miss_a_study(
    http: httpx.Client, moments: list[str], limit: int
) -> None:
    found: list[str] = []
    while True:
        query = f"StudyDate=20250611-20250613&StudyTime=0900-1200&limit={limit}&offset={len(found)}"
        answer = http.get(f"/studies?{query}")
        found += values(answer, "0020000D")
        if "warning" not in answer.headers:
            break
        assert answer.headers["x-total-count"] == "5"
    assert found == moments[1:6]


# --- keys inside sequences


@pytest.mark.parametrize(
    "key",
    ["RequestAttributesSequence.ScheduledProcedureStepID", "00400275.00400009", "RequestAttributesSequence.00400009"],
)
def test_series_are_found_by_a_key_inside_a_sequence(http: httpx.Client, hub: Services, key: str) -> None:
    receive(hub, ct(series=1, RequestAttributesSequence=[requested("S1"), requested("S7")]))
    receive(hub, ct(series=2, RequestAttributesSequence=[requested("S2")]))
    receive(hub, ct(series=3))
    for address in ("/series", f"/studies/{STUDY}/series"):
        assert values(http.get(f"{address}?{key}=S7"), "0020000E") == [f"{STUDY}.1"]
        assert len(http.get(f"{address}?{key}=S*").json()) == 2
        assert http.get(f"{address}?{key}=S9").json() == []
        page = http.get(f"{address}?{key}=S*&limit=1")
        assert (len(page.json()), page.headers["x-total-count"]) == (1, "2")
    assert len(http.get(f"/studies/{STUDY}/instances?{key}=S2").json()) == 1


def test_studies_are_found_by_a_code_of_theirs(http: httpx.Client, hub: Services) -> None:
    code = pydicom.Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "CT01", "99HIS", "胸部"
    receive(hub, ct(ProcedureCodeSequence=[code]))
    receive(hub, ct(study=f"{ROOT}.2"))
    assert values(http.get("/studies?ProcedureCodeSequence.CodeValue=CT01"), "0020000D") == [STUDY]


def test_a_key_inside_a_sequence_finds_nothing_of_another_institution(http: httpx.Client, hub: Services) -> None:
    receive(hub, ct(RequestAttributesSequence=[requested("S1")]), QH)
    assert http.get("/series?RequestAttributesSequence.ScheduledProcedureStepID=S1").json() == []


def test_the_audit_line_names_only_what_was_shown(http: httpx.Client, hub: Services) -> None:
    receive(hub, ct(series=1, RequestAttributesSequence=[requested("S1")]))
    receive(hub, ct(study=f"{ROOT}.2", PatientID="20001"))
    before = len(rows(hub, audit))
    http.get("/series?RequestAttributesSequence.ScheduledProcedureStepID=S1")
    (line,) = rows(hub, audit)[before:]
    assert line.subtype == "QIDO-RS"
    shown = [row for row in rows(hub, audit_patient) if (row.shard, row.seq) == (line.shard, line.seq)]
    assert len(shown) == 1


def test_a_key_inside_a_sequence_that_leaves_too_many_candidates_is_refused(
    http: httpx.Client, hub: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequence_matching, "MAX_CANDIDATES", 1)
    for series in (1, 2):
        receive(hub, ct(series=series, RequestAttributesSequence=[requested("S1")]))
    answer = http.get("/series?RequestAttributesSequence.ScheduledProcedureStepID=S1")
    assert answer.status_code == 400
    assert "PatientID" in answer.text
    narrowed = f"SeriesInstanceUID={STUDY}.2&RequestAttributesSequence.ScheduledProcedureStepID=S1"
    assert len(http.get(f"/series?{narrowed}").json()) == 1


# --- fields


def test_fields_may_be_keywords_tags_lists_and_paths_into_sequences(http: httpx.Client, hub: Services) -> None:
    receive(hub, ct(RequestAttributesSequence=[requested("S1")], Manufacturer="Maker", ProtocolName="P"))
    address = f"/studies/{STUDY}/series"
    (one,) = http.get(f"{address}?includefield=Manufacturer,00080070&includefield=0020000D&includefield=").json()
    assert one["00080070"]["Value"] == ["Maker"]
    (part,) = http.get(f"{address}?includefield=RequestAttributesSequence.RequestedProcedureDescription").json()
    assert part["00400275"]["Value"][0].keys() == {"00400009", "00401001", "00321060"}
    (whole,) = http.get(f"{address}?includefield=00400275").json()
    assert whole["00400275"]["Value"][0]["00321060"]["Value"] == ["胸部CT"]
    (everything,) = http.get(f"{address}?includefield=all").json()
    assert everything["00400275"] == whole["00400275"]
    (always,) = http.get(address).json()
    assert always["00400275"]["Value"][0].keys() == {"00400009", "00401001"}


def test_fields_never_bring_bulk_data_even_inside_sequences(http: httpx.Client, hub: Services) -> None:
    item = pydicom.Dataset()
    item.add_new(0x00420011, "OB", bytes(4096))
    item.ReferencedSOPInstanceUID = "1.2.3"
    receive(hub, ct(ReferencedImageSequence=[item]))
    for field in ("all", "00081140", "00081140.00420011,00081140.00081155"):
        answer = http.get(f"/instances?includefield={field}")
        assert answer.json()[0]["00081140"]["Value"] == [{"00081155": {"vr": "UI", "Value": ["1.2.3"]}}]


def test_fields_read_one_header_a_row(http: httpx.Client, hub: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        receive(hub, ct(number, PatientAge="049Y"))
    monkeypatch.setattr(hub.objects, "open", lambda *_a, **_k: pytest.fail("an object was read"))
    assert values(http.get("/studies?includefield=PatientAge"), "00101010") == ["049Y"]


# --- names


@pytest.mark.parametrize("name", ["郑伟", "郑", "zheng wei", "zhengw", "zw", "wei", "ZHENG^W"])
def test_names_are_found_by_word_starts_pinyin_initials_and_han(http: httpx.Client, hub: Services, name: str) -> None:
    receive(hub, ct())
    receive(hub, ct(study=f"{ROOT}.2", PatientName="LI^NA=李^娜", PatientID="7"))
    answer = http.get("/studies", params={"PatientName": name, "fuzzymatching": "true"})
    assert values(answer, "0020000D") == [STUDY]


def test_non_latin_names_come_back_whole(http: httpx.Client, hub: Services) -> None:
    receive(hub, ct())
    (study,) = http.get("/studies").json()
    assert study["00100010"]["Value"] == [{"Alphabetic": "ZHENG^WEI", "Ideographic": "郑^伟"}]


# --- what is wrong is named


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("Nonsense=1", "Nonsense"),
        ("Nonsense.PatientID=1", "Nonsense"),
        ("PatientID.StudyID=1", "PatientID.StudyID"),
        ("RequestAttributesSequence.ScheduledProcedureStepID=S1", "RequestAttributesSequence.ScheduledProcedureStepID"),
        ("RequestAttributesSequence.=1", "RequestAttributesSequence"),
        ("includefield=Nonsense", "Nonsense"),
        ("includefield=" + ".".join(["00081140"] * 9), "00081140"),
        ("limit=x", "limit"),
        ("fuzzymatching=perhaps", "fuzzymatching"),
        ("StudyDate=20250601-x&StudyTime=08-09", "StudyDate"),
        ("StudyDate=20250601-20250602&StudyTime=08-x", "StudyTime"),
    ],
)
def test_a_wrong_parameter_is_named(http: httpx.Client, query: str, named: str) -> None:
    answer = http.get(f"/studies?{query}")
    assert answer.status_code == 400
    assert named in answer.text


# --- forms


@pytest.mark.parametrize("address", ADDRESSES)
def test_results_come_as_one_xml_part_each_saying_the_same_as_json(
    http: httpx.Client, hub: Services, address: str
) -> None:
    receive(hub, ct(1, RequestAttributesSequence=[requested("S1")]))
    receive(hub, ct(2, RequestAttributesSequence=[requested("S1")]))
    expected = http.get(address).json()
    for accept in (XML, XML.replace('"', ""), "application/dicom+xml", f"{XML}, application/dicom+json;q=0.5"):
        answer = http.get(address, headers={"Accept": accept})
        assert answer.headers["content-type"].startswith(XML)
        found = parts(answer)
        assert {kind for kind, _ in found} == {"application/dicom+xml"}
        assert [xml_model.read(content) for _, content in found] == expected


def test_no_results_are_an_empty_array_or_no_content(http: httpx.Client) -> None:
    empty = http.get("/studies")
    assert (empty.status_code, empty.json()) == (200, [])
    nothing = http.get("/studies", headers={"Accept": XML})
    assert (nothing.status_code, nothing.content) == (204, b"")


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "application/*",
        "application/json",
        "application/dicom+json",
        'application/dicom+json; charset="utf-8"',
        "application/dicom+json, application/json",
        f"{XML};q=0.1, application/json",
        "multipart/related; type=application/octet-stream; transfer-syntax=*",
        "application/dicom+json, multipart/related; type=application/octet-stream; transfer-syntax=*",
        'application/dicom+json, multipart/related; type="application/octet-stream"; transfer-syntax=*',
        "application/dicom+json,text/html;q=0.9,*/*;q=0.8",
        "multipart/related",
    ],
)
def test_every_spelling_that_viewers_send_for_json_gets_json(http: httpx.Client, hub: Services, accept: str) -> None:
    receive(hub, ct())
    answer = http.get("/studies", headers={"Accept": accept} if accept else {})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/dicom+json")


@pytest.mark.parametrize(
    "accept", ["text/html", "image/jpeg", "application/dicom+json;q=0", "multipart/related; type=image/jpeg"]
)
def test_what_is_not_offered_is_406(http: httpx.Client, accept: str) -> None:
    assert http.get("/studies", headers={"Accept": accept}).status_code == 406


def test_media_type_and_charset_may_stand_in_the_query(http: httpx.Client, hub: Services) -> None:
    receive(hub, ct())
    assert len(parts(http.get("/studies", params={"accept": XML}))) == 1
    assert http.get("/studies?charset=UTF-8").status_code == 200
    assert http.get("/studies?charset=GB18030").status_code == 406


def test_long_answers_are_gzipped_for_who_takes_that(http: httpx.Client, hub: Services) -> None:
    for number in range(20):
        receive(hub, ct(number))
    for accept in ("application/dicom+json", XML):
        with http.stream("GET", "/instances", headers={"Accept": accept, "Accept-Encoding": "gzip"}) as answer:
            raw = b"".join(answer.iter_raw())
        assert answer.headers["content-encoding"] == "gzip"
        assert len(gzip.decompress(raw)) > 5 * len(raw)
        plain = http.get("/instances", headers={"Accept": accept, "Accept-Encoding": "gzip;q=0"})
        assert "content-encoding" not in plain.headers


# --- complaints that other servers hear (limits, counts, required attributes)


def test_a_viewer_that_asks_for_a_page_loses_no_hit(client: DICOMwebClient, hub: Services) -> None:
    for number in range(7):
        receive(hub, ct(study=f"{ROOT}.{number}"))
    found = client.search_for_studies(limit=3, get_remaining=True)
    assert len({one["0020000D"]["Value"][0] for one in found}) == len(found) == 7


def test_counts_are_numbers_and_right_while_a_study_still_grows(http: httpx.Client, hub: Services) -> None:
    receive(hub, ct(1))
    assert values(http.get("/studies"), "00201208") == [1]
    receive(hub, ct(2))
    receive(hub, ct(1, series=2, Modality="SR"))
    (study,) = http.get("/studies").json()
    assert (study["00201206"]["Value"], study["00201208"]["Value"]) == ([2], [3])
    assert study["00080061"]["Value"] == ["CT", "SR"]
    assert values(http.get(f"/studies/{STUDY}/series"), "00201209") == [2, 1]


@pytest.mark.parametrize(
    "query",
    ["StudyDate=20250611", "StudyTime=0900-1000", "AccessionNumber=A7", "ModalitiesInStudy=CT",
     "ReferringPhysicianName=WANG*", "PatientName=ZHENG^WEI", "PatientID=10086", "StudyInstanceUID=" + STUDY, "StudyID=S1"],
)  # fmt: skip
def test_every_key_that_the_standard_requires_of_studies_is_matched(
    http: httpx.Client, hub: Services, query: str
) -> None:
    receive(hub, ct(AccessionNumber="A7", ReferringPhysicianName="WANG^FANG", StudyID="S1"))
    receive(hub, ct(study=f"{ROOT}.2", StudyDate="20240101", StudyTime="1500", AccessionNumber="B", Modality="MR",
                    ReferringPhysicianName="LI", PatientName="LI^NA", PatientID="2", StudyID="S2"))  # fmt: skip
    assert values(http.get(f"/studies?{query}"), "0020000D") == [STUDY]


@pytest.mark.parametrize(
    "query",
    ["Modality=CT", f"SeriesInstanceUID={STUDY}.1", "SeriesNumber=1", "PerformedProcedureStepStartDate=20250611",
     "PerformedProcedureStepStartTime=0900-1000", "RequestAttributesSequence.ScheduledProcedureStepID=S1",
     "RequestAttributesSequence.RequestedProcedureID=R1"],
)  # fmt: skip
def test_every_key_that_the_standard_requires_of_series_is_matched(
    http: httpx.Client, hub: Services, query: str
) -> None:
    receive(hub, ct(PerformedProcedureStepStartDate="20250611", PerformedProcedureStepStartTime="093000",
                    RequestAttributesSequence=[requested("S1")]))  # fmt: skip
    receive(hub, ct(series=2, Modality="MR", PerformedProcedureStepStartDate="20240101",
                    PerformedProcedureStepStartTime="15", RequestAttributesSequence=[requested("S2", "R2")]))  # fmt: skip
    assert values(http.get(f"/studies/{STUDY}/series?{query}"), "0020000E") == [f"{STUDY}.1"]


@pytest.mark.parametrize(
    "query", ["SOPClassUID=1.2.840.10008.5.1.4.1.1.2", f"SOPInstanceUID={STUDY}.1.1", "InstanceNumber=1"]
)
def test_every_key_that_the_standard_requires_of_instances_is_matched(
    http: httpx.Client, hub: Services, query: str
) -> None:
    receive(hub, ct(1))
    receive(hub, ct(2, SOPClassUID="1.2.840.10008.5.1.4.1.1.4"))
    assert values(http.get(f"/studies/{STUDY}/instances?{query}"), "00080018") == [f"{STUDY}.1.1"]


# --- patients of other institutions


def test_a_linked_patients_lent_studies_come_under_the_askers_number(http: httpx.Client, hub: Services) -> None:
    receive(hub, ct())
    receive(hub, ct(study=f"{ROOT}.5", PatientID="500", IssuerOfPatientID="QH", AccessionNumber="A5"), actor=QH)
    receive(hub, ct(study=f"{ROOT}.6", PatientID="501"), actor=QH)
    own, theirs = number_record_id("KN", "10086"), number_record_id("QH", "500")

    def work(tx: Any) -> None:
        for owner, id_, number in (("KN", own, "10086"), ("QH", theirs, "500")):
            patient = {"resourceType": "Patient", "id": id_, "identifier": [{"value": number}]}
            tx.records.put_many([NewVersion(resource=patient, owner=owner)])
        items = [{"type": "source", "resource": {"reference": f"Patient/{id_}"}} for id_ in (own, theirs)]
        linkage = {"resourceType": "Linkage", "id": "l", "active": True, "item": items}
        tx.records.put_many([NewVersion(resource=linkage, owner="YY")])
        for study in (f"{ROOT}.5", f"{ROOT}.6"):
            grant = Grant(
                grantee="KN", target_type="ImagingStudy", target_id=study_resource_id("QH", study), task_id=study
            )
            tx.grants.open(grant, now=hub.clock())

    before = http.get("/studies", params={"PatientID": "10086"}).json()
    hub.database.write(work)
    assert len(before) == 1
    for level in ("studies", "series", "instances"):
        answers = http.get(f"/{level}", params={"PatientID": "10086", "includefield": "all"}).json()
        assert {one["0020000D"]["Value"][0] for one in answers} == {STUDY, f"{ROOT}.5"}
        assert {one["00100020"]["Value"][0] for one in answers} == {"10086"}
        [linked] = [one for one in answers if "00101002" in one]
        assert linked["00100021"]["Value"] == ["KN"]
        [source] = linked["00101002"]["Value"]
        assert (source["00100020"]["Value"], source["00100021"]["Value"]) == (["500"], ["QH"])
        assert linked["00080051"]["Value"] == [{"00400031": {"vr": "UT", "Value": ["QH"]}}]
    lent = http.get("/studies", params={"PatientID": "501"}).json()
    assert [one["00100020"]["Value"] for one in lent] == [["501"]]
    # Objects and their metadata are what the source sent.
    [metadata] = http.get(f"/studies/{ROOT}.5/metadata").json()
    assert metadata["00100020"]["Value"] == ["500"]
    assert "00101002" not in metadata
