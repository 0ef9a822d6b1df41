"""STOW-RS over a real socket: metadata with bulk data, the sender's character set, and the receipt (PS3.18 section 10.5)."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import httpx
import pydicom
import pytest
from pydicom.uid import JPEG2000Lossless

from adapters.dicomweb import stow_metadata
from fhir_mappings.dicom import xml_model
from fhir_mappings.dicom.header import read_header
from fhir_mappings.json import dumps, loads
from hub.boot import Services
from hub.ports import MemberEndpoint
from storage.sql.schema import imaging_study
from tests.adapters.dicomweb.conftest import Tokens
from tests.adapters.dicomweb.test_dicomweb import FRAGMENTS, INSTANCE, PATH, SERIES, body, rows, stow
from tests.support.dicom import IMPLICIT, ct_tags, encode, make_ct
from tests.support.images import ROOT, STUDY, ct

JSON = "application/dicom+json"
XML = "application/dicom+xml"
Part = tuple[str, str, bytes]


def metadata(data: bytes, *, uri: str = "pixels", **changes: Any) -> dict[str, Any]:
    """Return the metadata of an object, with *uri* for its pixels."""
    found: dict[str, Any] = loads(read_header(io.BytesIO(data)).attributes)
    found["7FE00010"] = {"vr": "OW", "BulkDataURI": uri}
    return {**found, **changes}


def pixels(data: bytes) -> bytes:
    """Return the pixel data of an object."""
    return bytes(pydicom.dcmread(io.BytesIO(data)).PixelData)


def send(http: httpx.Client, *parts: Part, kind: str = JSON, study: str = "", **headers: str) -> httpx.Response:
    """Send parts of (Content-Type, Content-Location, content)."""
    content = b""
    for media_type, location, data in parts:
        place = f"Content-Location: {location}\r\n" if location else ""
        content += f"--bound\r\nContent-Type: {media_type}\r\n{place}\r\n".encode() + data + b"\r\n"
    return http.post(
        f"/studies/{study}".rstrip("/"),
        content=content + b"--bound--\r\n",
        headers={"Content-Type": f'multipart/related; type="{kind}"; boundary=bound', **headers},
    )


def fetched(http: httpx.Client, path: str = PATH) -> pydicom.Dataset:
    """Return the stored object."""
    answer = http.get(path, headers={"Accept": "application/dicom; transfer-syntax=*"})
    assert answer.status_code == 200
    return pydicom.dcmread(io.BytesIO(answer.content))


def reasons(answer: httpx.Response) -> list[int]:
    """Return the failure reasons of the answer."""
    return [item["00081197"]["Value"][0] for item in answer.json()["00081198"]["Value"]]


# --- metadata and bulk data


@pytest.mark.parametrize(
    ("kind", "write"),
    [(JSON, lambda one: dumps([one])), (JSON, dumps), (XML, xml_model.write)],
)
def test_metadata_and_bulk_data_become_the_object_they_describe(
    http: httpx.Client, kind: str, write: Callable[[dict[str, Any]], bytes]
) -> None:
    data = ct(RescaleSlope="1.0", ImageType=["ORIGINAL", "PRIMARY"])
    answer = send(
        http, (kind, "", write(metadata(data))), ("application/octet-stream", "pixels", pixels(data)), kind=kind
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["00081199"]["Value"][0]["00081155"]["Value"] == [INSTANCE]
    assert fetched(http) == pydicom.dcmread(io.BytesIO(data))


def test_what_metadata_made_is_the_same_when_it_is_sent_again(http: httpx.Client) -> None:
    parts = ((JSON, "", dumps([metadata(ct())])), ("application/octet-stream", "pixels", pixels(ct())))
    assert send(http, *parts).status_code == 200
    again = send(http, *parts)
    assert (again.status_code, "00081196" in again.text) == (200, False)


def test_metadata_that_the_hub_gave_out_can_be_sent_back(http: httpx.Client) -> None:
    stow(http, ct())
    (given,) = http.get(f"{PATH}/metadata").json()
    uri = given["7FE00010"]["BulkDataURI"]
    given["00080018"]["Value"] = [f"{SERIES}.77"]
    assert send(http, (JSON, "", dumps([given])), ("application/octet-stream", uri, pixels(ct()))).status_code == 200
    assert fetched(http, PATH.replace(INSTANCE, f"{SERIES}.77")).PixelData == pixels(ct())


def test_bulk_data_may_come_first_and_serve_two_instances(http: httpx.Client) -> None:
    documents = [metadata(ct(1)), metadata(ct(2))]
    answer = send(http, ("application/octet-stream", "pixels", pixels(ct())), (JSON, "", dumps(documents)))
    assert (answer.status_code, len(answer.json()["00081199"]["Value"])) == (200, 2)


@pytest.mark.parametrize(
    "media_type", ["image/jp2", f"image/jp2; transfer-syntax={JPEG2000Lossless}",
                   f'application/octet-stream; transfer-syntax="{JPEG2000Lossless}"']
)  # fmt: skip
def test_compressed_frames_are_kept_compressed_one_part_each(http: httpx.Client, media_type: str) -> None:
    data = ct(frames=3)
    parts = [(media_type, "pixels", one) for one in FRAGMENTS]
    assert send(http, (JSON, "", dumps([metadata(data)])), *parts).status_code == 200
    kept = fetched(http)
    assert kept.file_meta.TransferSyntaxUID == JPEG2000Lossless
    assert list(pydicom.encaps.generate_frames(kept.PixelData, number_of_frames=3)) == FRAGMENTS


def test_objects_without_pixels_need_no_bulk_data(http: httpx.Client) -> None:
    found = metadata(ct())
    del found["7FE00010"]
    answer = http.post("/studies", content=dumps([found]), headers={"Content-Type": JSON})
    assert answer.status_code == 200
    assert str(fetched(http).PatientName) == "ZHENG^WEI=郑^伟"


def test_bulk_data_inside_sequences_is_put_in_its_place(http: httpx.Client) -> None:
    inside = {"00081140": {"vr": "SQ", "Value": [{"00420011": {"vr": "OB", "BulkDataURI": "http://x/doc"}}]}}
    answer = send(
        http,
        (JSON, "", dumps([metadata(ct(), **inside)])),
        ("application/octet-stream", "pixels", pixels(ct())),
        ("application/octet-stream", "http://x/doc", b"%PDF"),
    )
    assert answer.status_code == 200
    assert fetched(http).ReferencedImageSequence[0].EncapsulatedDocument == b"%PDF"


def test_each_instance_of_the_metadata_has_its_own_outcome(http: httpx.Client) -> None:
    wrong = metadata(ct(2), uri="nowhere")
    broken = metadata(ct(3), **{"00100010": {"vr": "PN", "Value": [7]}})
    answer = send(
        http,
        (JSON, "", dumps([metadata(ct(1)), wrong, broken, 7])),
        ("application/octet-stream", "pixels", pixels(ct())),
    )
    assert answer.status_code == 202
    assert len(answer.json()["00081199"]["Value"]) == 1
    failed = answer.json()["00081198"]["Value"]
    assert [item.get("00081155", {}).get("Value") for item in failed] == [[f"{SERIES}.2"], [f"{SERIES}.3"], None]
    assert reasons(answer) == [0xC000] * 3


def test_metadata_of_another_study_than_the_address_names_is_refused(http: httpx.Client) -> None:
    parts = ((JSON, "", dumps([metadata(ct())])), ("application/octet-stream", "pixels", pixels(ct())))
    answer = send(http, *parts, study=f"{ROOT}.2")
    assert (answer.status_code, reasons(answer)) == (409, [0xA900])
    assert send(http, *parts, study=STUDY).status_code == 200


def test_a_transfer_syntax_that_the_hub_does_not_write_is_refused_by_its_reason(http: httpx.Client) -> None:
    media_type = "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.2"
    answer = send(http, (JSON, "", dumps([metadata(ct())])), (media_type, "pixels", pixels(ct())))
    assert (answer.status_code, reasons(answer)) == (409, [0x0122])


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        (JSON, b""),
        (JSON, b"[{"),
        (JSON, b"7"),
        (JSON, b'{"0020000D":7}'),
        (JSON, b"[" * 5000),
        (XML, b'<!DOCTYPE x [<!ENTITY a "b">]><NativeDicomModel>&a;</NativeDicomModel>'),
        (XML, b"<NativeDicomModel/>"),
    ],
)
def test_metadata_that_is_none_is_refused_and_nothing_is_kept(http: httpx.Client, kind: str, document: bytes) -> None:
    answer = send(http, (kind, "", document), kind=kind)
    assert (answer.status_code, reasons(answer)) == (409, [0xC000])
    assert http.get("/studies").json() == []


def test_metadata_and_bulk_data_beyond_their_limits_are_refused(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = send(http, (JSON, "", dumps([metadata(ct())])), ("application/octet-stream", "pixels", bytes(5 << 20)))
    assert big.status_code == 409
    monkeypatch.setattr(stow_metadata, "MAX_METADATA_BYTES", 100)
    assert send(http, (JSON, "", dumps([metadata(ct())]))).status_code == 409


def test_a_body_cut_off_keeps_the_instances_whose_bulk_data_was_whole(http: httpx.Client) -> None:
    parts = [(JSON, "", dumps([metadata(ct(1), uri="a"), metadata(ct(2), uri="b")])),
             ("application/octet-stream", "a", pixels(ct(1)))]  # fmt: skip
    whole = b"".join(
        f"--bound\r\nContent-Type: {kind}\r\nContent-Location: {place}\r\n\r\n".encode() + data + b"\r\n"
        for kind, place, data in parts
    )
    cut = whole + b"--bound\r\nContent-Type: application/octet-stream\r\nContent-Location: b\r\n\r\n" + bytes(100)
    answer = http.post(
        "/studies", content=cut, headers={"Content-Type": f"multipart/related; type={JSON}; boundary=bound"}
    )
    assert answer.status_code == 202
    assert [item["00081155"]["Value"] for item in answer.json()["00081199"]["Value"]] == [[INSTANCE]]


def test_large_bulk_data_is_never_whole_in_memory(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    size = {tag: {"vr": "US", "Value": [1024]} for tag in ("00280010", "00280011")}
    content = bytes(range(256)) * (2 << 12)
    largest = 0
    original = stow_metadata.part10

    def watched(*args: Any) -> Iterator[bytes]:
        nonlocal largest
        for piece in original(*args):
            largest = max(largest, len(piece))
            yield piece

    monkeypatch.setattr(stow_metadata, "part10", watched)
    answer = send(http, (JSON, "", dumps([metadata(ct(), **size)])), ("application/octet-stream", "pixels", content))
    assert answer.status_code == 200
    assert largest <= 1 << 20
    assert fetched(http).PixelData == content


# --- bodies and receipts


def test_a_body_may_come_in_chunks_of_any_size(http: httpx.Client) -> None:
    whole = body(ct(1), ct(2))
    for size in (1, 7, 4096):
        chunks: Iterator[bytes] = (whole[start : start + size] for start in range(0, len(whole), size))
        answer = http.post(
            "/studies",
            content=chunks,
            headers={"Content-Type": 'multipart/related; type="application/dicom"; boundary=bound'},
        )
        assert answer.status_code == 200


def test_the_receipt_comes_in_json_or_xml_as_accepted(http: httpx.Client) -> None:
    in_json = stow(http, ct(), Accept=JSON)
    assert in_json.headers["content-type"] == JSON
    for accept in (XML, f'multipart/related; type="{XML}"'):
        in_xml = stow(http, ct(), Accept=accept)
        assert in_xml.headers["content-type"] == XML
        assert xml_model.read(in_xml.content) == in_json.json()
    assert stow(http, ct(), Accept="text/html").json() == in_json.json()


# --- the sender's character set


@pytest.mark.parametrize(("id", "ae_title"), [("KN/dicom-web", ""), ("KN/dicom", ""), ("KN/dicom/second", "KN_PACS")])
def test_the_character_set_that_the_operator_set_for_the_sender_is_used(
    http: httpx.Client, hub: Services, id: str, ae_title: str
) -> None:
    directory = cast("Tokens", hub.directory)
    directory.known = [
        MemberEndpoint(id=id, member="KN", kind="dicom", ae_title=ae_title, settings={"charset-in": "BIG5"})
    ]
    name = "陳^怡君"
    data = ct(SpecificCharacterSet=None, PatientName="X" * len(name.encode("big5")), StudyDescription="", PatientID="9")
    data = data.replace(b"X" * len(name.encode("big5")), name.encode("big5"))
    assert stow(http, data).status_code == 200
    (study,) = rows(hub, imaging_study)
    assert (study.PatientName, study.charset_used[:4]) == (name, "big5")


def test_metadata_is_utf_8_whatever_the_operator_set_for_the_sender(http: httpx.Client, hub: Services) -> None:
    directory = cast("Tokens", hub.directory)
    directory.known = [
        MemberEndpoint(id="KN/dicom-web", member="KN", kind="dicom-web", settings={"charset-in": "BIG5"})
    ]
    send(http, (JSON, "", dumps([metadata(ct())])), ("application/octet-stream", "pixels", pixels(ct())))
    (study,) = rows(hub, imaging_study)
    assert study.PatientName == "郑^伟"


# --- what has no transfer syntax


def test_an_object_whose_transfer_syntax_nobody_says_is_refused_in_words(http: httpx.Client, hub: Services) -> None:
    whole = make_ct()
    plain = encode(ct_tags())
    meta = encode({0x00020001: ("OB", b"\0\1"), 0x00020012: ("UI", ROOT)})
    unnamed = b"\0" * 128 + b"DICM" + encode({0x00020000: ("UL", len(meta))}) + meta + plain
    for data, where in [
        (unnamed, "(0002,0010)"),
        (plain, "byte 128"),
        (encode(ct_tags(), IMPLICIT), "byte 128"),
        (b"\0" * 128 + b"DICM" + plain, "byte 132"),
    ]:
        answer = stow(http, data)
        assert (answer.status_code, reasons(answer)) == (409, [0xC000])
        assert where in answer.headers["Warning"]
        assert "(PS3.10" in answer.headers["Warning"]
    assert rows(hub, imaging_study) == []
    answer = stow(http, whole, plain)
    assert (answer.status_code, reasons(answer)) == (202, [0xC000])
    assert "Warning" not in stow(http, whole).headers


def test_the_words_of_many_refusals_fit_into_a_header(http: httpx.Client) -> None:
    whole = make_ct()
    warning = stow(http, *(whole[:length] for length in range(140, len(whole), 40))).headers["Warning"]
    assert warning.count("299 - ") == 5
    assert warning.isascii()
    assert len(warning) < 2000


def test_ten_large_objects_at_once_cost_buffers_and_not_objects(
    http: httpx.Client, hub: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels_bytes, at_once = 16 << 20, 10
    room = {"max_object_bytes": 32 << 20, "max_stow_bytes": 32 << 20}
    monkeypatch.setitem(hub.__dict__, "settings", hub.settings.model_copy(update=room))
    frame = bytes(1 << 20)

    def pieces(study: int) -> Iterator[bytes]:
        size = {0x00280008: ("IS", "16"), 0x00280010: ("US", 512), 0x00280011: ("US", 1024), 0x7FE00010: ("OW", b"")}
        head = make_ct(study=study, more=size)[:-4]
        yield b"--bound\r\nContent-Type: application/dicom\r\n\r\n" + head + pixels_bytes.to_bytes(4, "little")
        for _ in range(pixels_bytes // len(frame)):
            yield frame
        yield b"\r\n--bound--\r\n"

    def send_one(study: int) -> int:
        kind = 'multipart/related; type="application/dicom"; boundary=bound'
        return http.post("/studies", content=pieces(study), headers={"Content-Type": kind}).status_code

    assert send_one(1) == 200
    tracemalloc.start()
    try:
        with ThreadPoolExecutor(at_once) as senders:
            answers = list(senders.map(send_one, range(2, 2 + at_once)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answers == [200] * at_once
    assert len(rows(hub, imaging_study)) == 1 + at_once
    # Less than a third of what came; each has a few buffers of a mebibyte, in the client and in the door.
    assert peak < at_once * pixels_bytes // 3
