"""DICOMweb over real sockets: with an independent client, and with the odd requests viewers send."""

from __future__ import annotations

import gzip
import io
from typing import Any

import httpx
import pydicom
import pytest
import sqlalchemy as sa
from dicomweb_client.api import DICOMwebClient
from dicomweb_client.session_utils import create_session

from hub.boot import Services
from hub.ports import Grant
from storage.sql.schema import audit, imaging_study, journal
from tests.support.images import QH, ROOT, STUDY, FakeClock, ct, envelope, receive, settle

SERIES = f"{STUDY}.1"
INSTANCE = f"{STUDY}.1.1"
PATH = f"/studies/{STUDY}/series/{SERIES}/instances/{INSTANCE}"
MULTIPART = 'multipart/related; type="application/dicom"'


@pytest.fixture
def client(door: str) -> DICOMwebClient:
    session = create_session()
    session.headers["Authorization"] = "Bearer kn"
    return DICOMwebClient(url=door, session=session, chunk_size=4096)


def parts(response: httpx.Response) -> list[tuple[str, bytes]]:
    """Return (media type, content) of the parts of a multipart answer."""
    boundary = response.headers["content-type"].split("boundary=")[1].encode()
    found = []
    for part in (b"\r\n" + response.content).split(b"\r\n--" + boundary)[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        kind = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-type:"))
        found.append((kind.split(b":", 1)[1].strip().decode(), content))
    return found


def body(*objects: bytes, boundary: str = "bound") -> bytes:
    made = b"".join(
        b"--" + boundary.encode() + b"\r\nContent-Type: application/dicom\r\n\r\n" + one + b"\r\n" for one in objects
    )
    return made + b"--" + boundary.encode() + b"--\r\n"


def stow(http: httpx.Client, *objects: bytes, study: str = "", **headers: str) -> httpx.Response:
    return http.post(
        f"/studies/{study}".rstrip("/"),
        content=body(*objects),
        headers={"Content-Type": f"{MULTIPART}; boundary=bound", **headers},
    )


def rows(hub: Services, table: sa.Table) -> list[Any]:
    return hub.database.read(lambda tx: tx.connection.execute(sa.select(table)).all())  # type: ignore[attr-defined]


def complete(hub: Services, clock: FakeClock, study: str = STUDY) -> None:
    hub.imaging.association_ended(envelope(hub), {study})
    clock.forward(hub.settings.study_quiet_s + 1)
    assert settle(hub)


# --- the independent client


def test_an_independent_client_stores_finds_and_fetches(client: DICOMwebClient, hub: Services) -> None:
    objects = [ct(number) for number in (1, 2)] + [ct(1, series=2, frames=3)]
    answer = client.store_instances([pydicom.dcmread(io.BytesIO(one)) for one in objects])
    assert len(answer.ReferencedSOPSequence) == 3
    (study,) = client.search_for_studies(search_filters={"PatientName": "郑*"}, fields=["StudyDescription"])
    assert study["00100010"]["Value"] == [{"Alphabetic": "ZHENG^WEI", "Ideographic": "郑^伟"}]
    assert (study["00201206"]["Value"], study["00201208"]["Value"]) == ([2], [3])
    assert len(client.search_for_series(STUDY)) == 2
    assert len(client.search_for_instances(STUDY, get_remaining=True)) == 3
    assert len(client.retrieve_study(STUDY)) == 3
    assert len(list(client.iter_series(STUDY, SERIES))) == 2
    one = client.retrieve_instance(STUDY, SERIES, INSTANCE)
    assert one.PixelData == pydicom.dcmread(io.BytesIO(objects[0])).PixelData
    metadata = client.retrieve_series_metadata(STUDY, SERIES)
    assert [item["00080018"]["Value"][0] for item in metadata] == [INSTANCE, f"{SERIES}.2"]
    assert len(client.retrieve_study_metadata(STUDY)) == 3
    assert client.retrieve_instance_metadata(STUDY, SERIES, INSTANCE)["00280010"]["Value"] == [16]
    third = pydicom.dcmread(io.BytesIO(objects[2])).PixelData
    assert client.retrieve_instance_frames(STUDY, f"{STUDY}.2", f"{STUDY}.2.1", [3, 1]) == [third[1024:], third[:512]]
    uri = client.retrieve_instance_metadata(STUDY, f"{STUDY}.2", f"{STUDY}.2.1")["7FE00010"]["BulkDataURI"]
    assert client.retrieve_bulkdata(uri) == [third]


# --- storing


def test_what_comes_back_is_what_was_sent_byte_for_byte(http: httpx.Client) -> None:
    data = ct(meta={"ImplementationVersionName": "ODD 1.0"})
    assert stow(http, data).status_code == 200
    whole = http.get(PATH, headers={"Accept": "application/dicom; transfer-syntax=*"})
    assert whole.content == data
    assert whole.headers["content-type"] == "application/dicom; transfer-syntax=1.2.840.10008.1.2.1"
    ((kind, content),) = parts(http.get(PATH, headers={"Accept": MULTIPART}))
    assert content == data
    assert kind == "application/dicom; transfer-syntax=1.2.840.10008.1.2.1"


def test_a_request_may_hold_good_and_bad_instances(http: httpx.Client, hub: Services) -> None:
    answer = stow(http, ct(1), ct(2)[:-700], ct(3))
    assert answer.status_code == 202
    found = answer.json()
    assert [item["00081155"]["Value"][0] for item in found["00081199"]["Value"]] == [INSTANCE, f"{SERIES}.3"]
    assert found["00081198"]["Value"][0]["00081197"]["Value"] == [0xC000]
    assert found["00081190"]["Value"][0].endswith(f"/studies/{STUDY}")


def test_the_same_again_is_success_and_other_bytes_are_a_warning(http: httpx.Client) -> None:
    stow(http, ct())
    assert stow(http, ct()).status_code == 200
    answer = stow(http, ct(SeriesDescription="other"))
    assert answer.status_code == 202
    assert answer.json()["00081199"]["Value"][0]["00081196"]["Value"] == [0xB00E]
    assert http.get(PATH, headers={"Accept": "application/dicom"}).content == ct()


@pytest.mark.parametrize("number", [1, 2])
def test_an_image_of_another_patient_than_its_study_is_a_warning(http: httpx.Client, number: int) -> None:
    """It is kept but shown to nobody until a person has decided, which its sender must not take for plain success."""
    stow(http, ct())
    answer = stow(http, ct(number, PatientID="20001", PatientName="LI^NA=李^娜"))
    assert answer.status_code == 202
    (item,) = answer.json()["00081199"]["Value"]
    assert item["00081155"]["Value"] == [f"{SERIES}.{number}"]
    assert item["00081196"]["Value"] == [0xB00E]
    assert "another patient" in answer.headers["warning"]
    assert http.get(PATH, headers={"Accept": "application/dicom"}).content == ct()


def test_an_instance_of_another_study_is_refused_where_the_address_names_one(http: httpx.Client) -> None:
    answer = stow(http, ct(), study=f"{ROOT}.2")
    assert answer.status_code == 409
    assert answer.json()["00081198"]["Value"][0]["00081197"]["Value"] == [0xA900]
    assert http.get("/studies").json() == []
    assert stow(http, ct(), study=STUDY).status_code == 200


def test_an_object_beyond_the_cap_fails_alone_and_a_body_beyond_it_fails_whole(http: httpx.Client) -> None:
    big = ct(2) + b"\0" * (5 << 20)
    answer = stow(http, ct(1), big)
    assert answer.status_code == 202
    assert len(answer.json()["00081199"]["Value"]) == 1
    whole = http.post("/studies", content=b"x" * (9 << 20), headers={"Content-Type": f"{MULTIPART}; boundary=bound"})
    assert whole.status_code in {400, 409, 413}


def test_a_body_cut_off_keeps_what_was_whole(http: httpx.Client) -> None:
    cut = body(ct(1), ct(2))[:-400]
    answer = http.post("/studies", content=cut, headers={"Content-Type": f"{MULTIPART}; boundary=bound"})
    assert answer.status_code == 202
    assert [one["00201208"]["Value"] for one in http.get("/studies").json()] == [[1]]


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("multipart/related; type=application/dicom; boundary=bound", 200),
        ("multipart/related; boundary=bound", 200),
        ('multipart/related; type="image/jpeg"; boundary=bound', 415),
        ('multipart/related; type="application/dicom"', 400),
        ("text/plain", 415),
        ("", 415),
    ],
)
def test_content_types_are_taken_with_and_without_quotes(http: httpx.Client, content_type: str, status: int) -> None:
    answer = http.post("/studies", content=body(ct()), headers={"Content-Type": content_type})
    assert answer.status_code == status


def test_a_single_object_may_be_the_whole_body(http: httpx.Client) -> None:
    assert http.post("/studies", content=ct(), headers={"Content-Type": "application/dicom"}).status_code == 200
    assert http.post("/studies", content=b"", headers={"Content-Type": "application/dicom"}).status_code == 400


def test_stored_images_are_the_senders_and_their_quiet_time_runs(
    http: httpx.Client, hub: Services, clock: FakeClock
) -> None:
    stow(http, ct())
    assert rows(hub, imaging_study)[0].owner == "KN"
    assert (rows(hub, journal)[0].door, rows(hub, journal)[0].outcome) == ("stow", "new")
    clock.forward(hub.settings.study_quiet_s + 1)
    assert len(settle(hub)) == 1


@pytest.mark.parametrize(("token", "status"), [("patient", 403), ("operator", 403), ("nobody", 401)])
def test_only_an_institutions_own_may_store(http: httpx.Client, token: str, status: int) -> None:
    assert stow(http, ct(), Authorization=f"Bearer {token}").status_code == status


def test_when_the_store_is_down_the_sender_is_told_to_try_again(
    http: httpx.Client, hub: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hub.errors import Category, HubError

    def down(**_: Any) -> Any:
        raise HubError(Category.UNAVAILABLE, "down")

    monkeypatch.setattr(hub.objects, "spool", down)
    answer = stow(http, ct())
    assert answer.status_code == 503
    assert answer.json()["00081198"]["Value"][0]["00081197"]["Value"] == [0xA700]


# --- access


def test_without_a_token_nothing_is_answered(http: httpx.Client) -> None:
    for path in ("/studies", PATH, f"{PATH}/metadata", f"{PATH}/frames/1", f"{PATH}/bulk/7FE00010"):
        answer = http.get(path, headers={"Authorization": ""})
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_another_institutions_images_are_as_if_absent(http: httpx.Client, hub: Services) -> None:
    receive(hub, ct())
    for token in ("qh", "yl", "patient", "operator"):
        other = {"Authorization": f"Bearer {token}"}
        for suffix in ("", "/metadata", "/frames/1", "/bulk/7FE00010"):
            answer = http.get(PATH + suffix, headers=other)
            absent = http.get(PATH.replace(INSTANCE, "9.9") + suffix, headers=other)
            assert (answer.status_code, absent.status_code) == (404, 404)
        for path in ("/studies", "/series", "/instances", f"/studies/{STUDY}/series", f"/studies/{STUDY}/instances"):
            assert http.get(path, headers=other).json() == []


def test_a_grant_opens_one_owners_copy_and_the_address_can_name_it(http: httpx.Client, hub: Services) -> None:
    receive(hub, ct())
    receive(hub, ct(SeriesDescription="QH's own"), QH)
    study = next(row for row in rows(hub, imaging_study) if row.owner == "KN")
    grant = Grant(grantee="QH", target_type="ImagingStudy", target_id=study.resource_id, task_id="t")
    hub.database.write(lambda tx: tx.grants.open(grant, now=hub.clock()))
    qh = {"Authorization": "Bearer qh", "Accept": "application/dicom"}
    assert len(http.get("/studies", headers={**qh, "Accept": "*/*"}).json()) == 2
    assert http.get(PATH, headers=qh).content == ct(SeriesDescription="QH's own")
    assert http.get(f"/institutions/KN{PATH}", headers=qh).content == ct()
    assert len(http.get(f"/studies/{STUDY}/series", headers={**qh, "Accept": "*/*"}).json()) == 1
    assert http.get(f"/institutions/QH{PATH}", headers={"Accept": "application/dicom"}).status_code == 404


def test_one_audit_line_is_written_for_each_retrieval(http: httpx.Client, hub: Services) -> None:
    receive(hub, ct())
    before = len(rows(hub, audit))
    for path in (PATH, f"{PATH}/metadata", f"{PATH}/frames/1", f"{PATH}/bulk/7FE00010", "/studies"):
        http.get(path)
    assert [line.subtype for line in rows(hub, audit)[before:]] == [
        "WADO-RS", "WADO-RS metadata", "WADO-RS frames", "WADO-RS bulkdata", "QIDO-RS",
    ]  # fmt: skip


def test_nothing_leaves_when_the_audit_line_cannot_be_written(
    http: httpx.Client, hub: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hub.errors import Category, HubError

    receive(hub, ct())

    def refuse(_work: Any) -> Any:
        raise HubError(Category.UNAVAILABLE, "no")

    monkeypatch.setattr(hub.database, "write", refuse)
    for path in ("/studies", PATH, f"{PATH}/frames/1"):
        assert http.get(path).status_code == 503


# --- searching


def test_the_study_list_of_a_common_viewer_is_answered(http: httpx.Client, hub: Services, clock: FakeClock) -> None:
    receive(hub, ct(AccessionNumber="A7"))
    complete(hub, clock)
    answer = http.get(
        "/studies?limit=101&offset=0&fuzzymatching=false&includefield=00081030,00080060,00080090,00100030"
        "&PatientName=*zheng*&00100020=*0086*&AccessionNumber=*A*&StudyDescription=*CT*&ModalitiesInStudy=CT&StudyDate=20250601-20250630"
    )
    (study,) = answer.json()
    required = (
        "00080005 00080020 00080030 00080050 00080056 00080061 00080090 00081190 00100010 00100020 00100030 00100040"
        " 0020000D 00200010 00201206 00201208"
    )
    assert set(required.split()) <= study.keys()
    assert study["00081030"]["Value"] == ["胸部CT平扫"]
    assert answer.headers["content-type"] == "application/dicom+json"


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("AccessionNumber=A*\\B1", {"A7", "B1"}),
        ("AccessionNumber=C*\\?1", {"B1"}),
        ("AccessionNumber=C*\\B", set()),
        ("AccessionNumber=A7\\B*\\A7", {"A7", "B1"}),
        ("PatientID=1008?\\2*", {"A7", "B1"}),
        ("PatientID=10086\\X*", {"A7"}),
        ("PatientName=zheng*\\l?x", {"A7"}),
    ],
)
def test_each_value_of_a_list_is_matched_by_its_wildcards(
    http: httpx.Client, hub: Services, clock: FakeClock, key: str, found: set[str]
) -> None:
    receive(hub, ct(AccessionNumber="A7"))
    receive(hub, ct(study=f"{ROOT}.2", AccessionNumber="B1", PatientID="20001", PatientName="LI^NA=李^娜"))
    complete(hub, clock)
    name, _, value = key.partition("=")
    answer = http.get("/studies", params={name: value})
    assert {one["00080050"]["Value"][0] for one in (answer.json() if answer.content else [])} == found


def test_series_and_instances_have_their_required_attributes(http: httpx.Client, hub: Services) -> None:
    item = pydicom.Dataset()
    item.ScheduledProcedureStepID, item.RequestedProcedureID, item.CommentsOnThePerformedProcedureStep = "S1", "R1", "x"
    receive(hub, ct(RequestAttributesSequence=[item]))
    (series,) = http.get(f"/studies/{STUDY}/series").json()
    assert {
        "00080005",
        "00080060",
        "0008103E",
        "00081190",
        "0020000E",
        "00200011",
        "00201209",
        "00400244",
    } <= series.keys()
    assert series["00400275"]["Value"] == [
        {"00400009": {"vr": "SH", "Value": ["S1"]}, "00401001": {"vr": "SH", "Value": ["R1"]}}
    ]
    (instance,) = http.get(f"/studies/{STUDY}/series/{SERIES}/instances").json()
    assert {
        "00080016",
        "00080018",
        "00080056",
        "00081190",
        "00200013",
        "00280010",
        "00280011",
        "00280100",
    } <= instance.keys()
    assert instance["00081190"]["Value"][0].endswith(PATH)
    (flat,) = http.get("/instances?PatientID=10086").json()
    assert flat["00100020"]["Value"] == ["10086"]
    (flat_series,) = http.get("/series?Modality=CT").json()
    assert flat_series["00201208"]["Value"] == [1]


def test_includefield_adds_what_belongs_to_the_level(http: httpx.Client, hub: Services) -> None:
    receive(hub, ct(PatientAge="049Y", Manufacturer="Maker", KVP=120))
    (everything,) = http.get("/studies?includefield=all").json()
    assert everything["00101010"]["Value"] == ["049Y"]
    assert "00080070" not in everything
    (series,) = http.get(f"/studies/{STUDY}/series?includefield=Manufacturer").json()
    assert series["00080070"]["Value"] == ["Maker"]
    (instance,) = http.get(f"/studies/{STUDY}/instances?includefield=all").json()
    assert instance["00180060"]["Value"] == [120]
    assert "7FE00010" not in instance
    answer = http.get("/studies?includefield=KVP")
    assert "00180060" in answer.headers["warning"]


def test_a_page_says_what_is_left(http: httpx.Client, hub: Services) -> None:
    for number in range(3):
        receive(hub, ct(study=f"{ROOT}.{number}"))
    first = http.get("/studies?limit=2")
    assert len(first.json()) == 2
    assert first.headers["x-total-count"] == "3"
    assert "There are 1 additional results" in first.headers["warning"]
    last = http.get("/studies?limit=2&offset=2")
    assert len(last.json()) == 1
    assert "warning" not in last.headers
    assert http.get("/studies?limit=2&offset=4").json() == []
    assert http.get("/studies?limit=0").json() == []


@pytest.mark.parametrize(
    "query",
    ["Nonsense=1", "limit=-1", "limit=x", "offset=1.5", "fuzzymatching=maybe", "StudyDate=soon", "00091001=x",
     "StudyInstanceUID=a", "Rows=1", "includefield=Nonsense", "&".join(f"PatientID={n}" for n in range(101))],
)  # fmt: skip
def test_a_wrong_query_is_refused_with_a_reason(http: httpx.Client, query: str) -> None:
    answer = http.get(f"/studies?{query}")
    assert answer.status_code == 400
    assert answer.json()["resourceType"] == "OperationOutcome"


def test_uids_may_be_listed_with_commas_backslashes_and_repetition(http: httpx.Client, hub: Services) -> None:
    for number in range(3):
        receive(hub, ct(study=f"{ROOT}.{number}"))
    for query in (
        f"StudyInstanceUID={ROOT}.0,{ROOT}.2",
        f"StudyInstanceUID={ROOT}.0%5C{ROOT}.2",
        f"StudyInstanceUID={ROOT}.0&0020000D={ROOT}.2",
    ):
        assert len(http.get(f"/studies?{query}").json()) == 2


# --- retrieving


def test_a_study_comes_in_one_answer_of_known_length(http: httpx.Client, hub: Services) -> None:
    objects = [ct(1), ct(2), ct(1, series=2)]
    for one in objects:
        receive(hub, one)
    answer = http.get(f"/studies/{STUDY}")
    assert sorted(content for _, content in parts(answer)) == sorted(objects)
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert len(parts(http.get(f"/studies/{STUDY}/series/{SERIES}"))) == 2


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("*/*", 200),
        ("multipart/related", 200),
        ("multipart/related; type=application/dicom", 200),
        ('multipart/related; type="application/dicom"; transfer-syntax=*', 200),
        ('multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.1', 200),
        ('multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.50', 406),
        ('multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.50, */*;q=0.1', 200),
        ("text/html", 406),
        ("application/x-tar", 406),
        ("application/dicom;q=0", 406),
    ],
)
def test_accept_headers_are_read_liberally(http: httpx.Client, hub: Services, accept: str, status: int) -> None:
    receive(hub, ct())
    assert http.get(PATH, headers={"Accept": accept}).status_code == status


@pytest.mark.parametrize(
    "accept",
    [
        "application/dicom+json",
        "application/json",
        "application/dicom+json, multipart/related; type=application/octet-stream; transfer-syntax=*",
        "*/*",
    ],
)
def test_metadata_is_json_whatever_viewers_ask_besides(http: httpx.Client, hub: Services, accept: str) -> None:
    receive(hub, ct())
    for path in (f"/studies/{STUDY}", f"/studies/{STUDY}/series/{SERIES}", PATH):
        answer = http.get(f"{path}/metadata", headers={"Accept": accept})
        assert answer.status_code == 200
        (one,) = answer.json()
        assert one["7FE00010"] == {"vr": "OW", "BulkDataURI": f"{http.base_url}{PATH[1:]}/bulk/7FE00010"}
    assert http.get(f"{PATH}/metadata", headers={"Accept": "application/pdf"}).status_code == 406


def test_unchanged_metadata_is_not_sent_again_and_a_new_image_changes_its_tag(
    http: httpx.Client, hub: Services
) -> None:
    receive(hub, ct())
    path = f"/studies/{STUDY}/series/{SERIES}/metadata"
    first = http.get(path)
    assert first.headers["content-encoding"] == "gzip"
    again = http.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    receive(hub, ct(2))
    newer = http.get(path, headers={"If-None-Match": first.headers["etag"], "Accept-Encoding": "identity"})
    assert len(newer.json()) == 2
    assert "content-encoding" not in newer.headers


def test_stored_metadata_is_served_without_building_it_again(
    http: httpx.Client, hub: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hub.ports import StudyKey

    receive(hub, ct())
    complete(hub, clock)
    hub.imaging.prepare_metadata(StudyKey(owner="KN", StudyInstanceUID=STUDY))
    monkeypatch.setattr(gzip, "compress", lambda *_a, **_k: pytest.fail("built again"))
    assert len(http.get(f"/studies/{STUDY}/metadata").json()) == 1


# --- frames and bulk data


def test_native_frames_are_cut_from_the_object(http: httpx.Client, hub: Services) -> None:
    data = ct(frames=3)
    receive(hub, data)
    whole = pydicom.dcmread(io.BytesIO(data)).PixelData
    accept = "multipart/related; type=application/octet-stream; transfer-syntax=*"
    answer = parts(http.get(f"{PATH}/frames/2,3", headers={"Accept": accept}))
    assert answer == [
        ("application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1", whole[n : n + 512]) for n in (512, 1024)
    ]
    single = http.get(f"{PATH}/frames/1", headers={"Accept": "application/octet-stream"})
    assert single.content == whole[:512]


FRAGMENTS = [b"\xff\x4f\xff\x51" + bytes([n]) * 60 for n in range(3)]


def test_compressed_frames_come_as_they_are_stored(http: httpx.Client, hub: Services) -> None:
    receive(hub, ct(frames=3, compressed=FRAGMENTS))
    for accept, media_type in (
        ("*/*", "image/jp2"),
        ("multipart/related; type=image/jp2", "image/jp2"),
        ("multipart/related; type=application/octet-stream; transfer-syntax=*", "application/octet-stream"),
    ):
        (found,) = parts(http.get(f"{PATH}/frames/2", headers={"Accept": accept}))
        assert found == (f"{media_type}; transfer-syntax=1.2.840.10008.1.2.4.90", FRAGMENTS[1])
    uncompressed = 'multipart/related; type="application/octet-stream"; transfer-syntax=1.2.840.10008.1.2.1'
    assert http.get(f"{PATH}/frames/2", headers={"Accept": uncompressed}).status_code == 406
    assert http.get(f"{PATH}/frames/2", headers={"Accept": "image/jpeg"}).status_code == 406
    assert [content for _, content in parts(http.get(f"{PATH}/bulk/7FE00010"))] == FRAGMENTS


@pytest.mark.parametrize(
    ("frames", "status"), [("4", 404), ("0", 404), ("1,x", 400), ("-1", 400), ("1,,2", 400), ("9" * 12, 400)]
)
def test_frames_that_are_not_there_are_named(http: httpx.Client, hub: Services, frames: str, status: int) -> None:
    receive(hub, ct(frames=3))
    assert http.get(f"{PATH}/frames/{frames}").status_code == status


def test_bulk_data_is_found_on_every_level_and_by_range(http: httpx.Client, hub: Services) -> None:
    document = bytes(range(256)) * 16
    item = pydicom.Dataset()
    item.add_new(0x00420011, "OB", document)
    data = ct(EncapsulatedDocument=document, ReferencedImageSequence=[item])
    receive(hub, data)
    (metadata,) = http.get(f"{PATH}/metadata").json()
    for uri in (
        metadata["00420011"]["BulkDataURI"],
        metadata["00081140"]["Value"][0]["00420011"]["BulkDataURI"],
    ):
        assert http.get(uri, headers={"Accept": "application/octet-stream"}).content == document
        assert parts(http.get(uri, headers={"Accept": "multipart/related"})) == [("application/octet-stream", document)]
        part = http.get(uri, headers={"Accept": "*/*", "Range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, document[10:20])
        assert part.headers["content-range"] == f"bytes 10-19/{len(document)}"
        assert http.get(uri, headers={"Range": f"bytes={len(document)}-"}).status_code == 416
    for path, status in (
        ("00420012", 404),
        ("0042", 400),
        ("00081140/2/00420011", 404),
        ("zzzzzzzz", 400),
        ("00081140", 404),
    ):
        assert http.get(f"{PATH}/bulk/{path}").status_code == status


def test_malformed_uids_in_the_address_are_refused(http: httpx.Client) -> None:
    for path in ("/studies/abc", f"/studies/{'1' * 65}", "/studies/1..2/metadata"):
        assert http.get(path).status_code == 400
