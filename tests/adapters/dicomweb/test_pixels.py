"""Frames and instances in other transfer syntaxes, pictures, thumbnails and WADO-URI, over real sockets."""

from __future__ import annotations

import io
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from dicomweb_client.session_utils import create_session
from PIL import Image
from pydicom.dataset import Dataset

from adapters.pixels.pool import Pool
from adapters.pixels.syntaxes import EXPLICIT_LITTLE, JPEG_2000, JPEG_BASELINE, JPEG_LS, RLE
from hub.boot import Services
from storage.sql.schema import audit
from tests.adapters.dicomweb.test_dicomweb import INSTANCE, PATH, SERIES, parts, rows
from tests.support.images import STUDY, ct, receive
from tests.support.pixels import ramp, sample

FRAME = f"{PATH}/frames/1"


def open_picture(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content))


def pixels_of(data: bytes) -> Any:
    return pydicom.dcmread(io.BytesIO(data)).pixel_array


# --- transfer syntaxes


@pytest.mark.parametrize(
    ("accept", "syntax", "multipart"),
    [
        ("application/octet-stream", EXPLICIT_LITTLE, False),
        ("multipart/related; type=application/octet-stream", EXPLICIT_LITTLE, True),
        (f'multipart/related; transfer-syntax={EXPLICIT_LITTLE}; type="application/octet-stream"', EXPLICIT_LITTLE, True),
        (f'multipart/related;type=application/octet-stream;transfer-syntax="{EXPLICIT_LITTLE}"', EXPLICIT_LITTLE, True),
        ("multipart/related; type=application/octet-stream; transfer-syntax=*", JPEG_LS, True),
        ("*/*", JPEG_LS, True),
        ("multipart/related; type=*/*", JPEG_LS, True),
        ('multipart/related; type="image/jls"', JPEG_LS, True),
        ("image/jls", JPEG_LS, False),
        ('multipart/related; type="image/jp2"', JPEG_2000, True),
        (f"multipart/related; type=image/jp2; transfer-syntax={JPEG_2000}", JPEG_2000, True),
        ("multipart/related; type=image/dicom-rle", RLE, True),
        ("image/jpeg;q=0.9, image/jp2;q=0.5", JPEG_2000, False),
        (f"multipart/related; type=image/jpeg; transfer-syntax={JPEG_BASELINE}, */*;q=0.1", JPEG_LS, True),
    ],
)  # fmt: skip
def test_a_frame_comes_in_the_syntax_that_is_named(
    http: httpx.Client, hub: Services, accept: str, syntax: str, multipart: bool
) -> None:
    array = ramp(signed=True)
    receive(hub, sample(array, JPEG_LS))
    answer = http.get(FRAME, headers={"Accept": accept})
    assert answer.status_code == 200, answer.text
    content_type, data = parts(answer)[0] if multipart else (answer.headers["content-type"], answer.content)
    assert content_type.endswith(f"transfer-syntax={syntax}")
    if syntax == EXPLICIT_LITTLE:
        assert np.array_equal(np.frombuffer(data, "<i2").reshape(array.shape), array)


@pytest.mark.parametrize(
    "accept", ["image/jpeg", f"application/octet-stream; transfer-syntax={JPEG_BASELINE}", "text/html"]
)
def test_what_cannot_be_had_is_refused_with_what_can(http: httpx.Client, hub: Services, accept: str) -> None:
    receive(hub, sample(ramp(), JPEG_LS))
    answer = http.get(FRAME, headers={"Accept": accept})
    assert answer.status_code == 406
    for one in ("image/jls", "image/jp2", f"application/octet-stream; transfer-syntax={EXPLICIT_LITTLE}"):
        assert one in answer.text


def test_only_the_frames_asked_for_are_decoded(
    http: httpx.Client, hub: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = []
    real = Pool.run
    monkeypatch.setattr(Pool, "run", lambda self, head, *data: jobs.append(head["do"]) or real(self, head, *data))
    array = ramp(300, rows=8, columns=8)
    receive(hub, sample(array, JPEG_LS, frames=300))
    found = parts(
        http.get(f"{PATH}/frames/299,3", headers={"Accept": "multipart/related; type=application/octet-stream"})
    )
    assert [np.frombuffer(data, "<u2").reshape(8, 8).tolist() for _, data in found] == [
        array[298].tolist(), array[2].tolist(),
    ]  # fmt: skip
    assert jobs == ["frame", "frame"]


@pytest.mark.parametrize("target", [EXPLICIT_LITTLE, JPEG_LS, JPEG_2000, RLE])
@pytest.mark.parametrize("stored", [EXPLICIT_LITTLE, "1.2.840.10008.1.2.2", JPEG_LS, JPEG_2000, RLE])
def test_instances_series_and_studies_come_in_the_syntax_that_is_named(
    http: httpx.Client, hub: Services, stored: str, target: str
) -> None:
    array = ramp(2)
    data = sample(array, stored, frames=2)
    receive(hub, data)
    single = http.get(PATH, headers={"Accept": f"application/dicom; transfer-syntax={target}"})
    assert single.headers["content-type"] == f"application/dicom; transfer-syntax={target}"
    assert np.array_equal(pixels_of(single.content), array)
    if stored == target:
        assert single.content == data
    for path in (f"/studies/{STUDY}", f"/studies/{STUDY}/series/{SERIES}"):
        accept = f'multipart/related; type="application/dicom"; transfer-syntax={target}'
        ((kind, content),) = parts(http.get(path, headers={"Accept": accept}))
        assert kind == f"application/dicom; transfer-syntax={target}"
        assert np.array_equal(pixels_of(content), array)


def test_a_broken_image_costs_its_own_request_and_comes_as_it_is_stored(http: httpx.Client, hub: Services) -> None:
    receive(hub, ct(compressed=[b"\xff\x4f\xff\x51" + b"\1" * 60]))
    for accept in ("application/octet-stream", f"application/octet-stream; transfer-syntax={EXPLICIT_LITTLE}"):
        assert http.get(FRAME, headers={"Accept": accept}).status_code == 406
    assert http.get(f"{PATH}/rendered").status_code == 406
    assert http.get(PATH, headers={"Accept": f"application/dicom; transfer-syntax={JPEG_LS}"}).status_code == 406
    assert http.get(PATH, headers={"Accept": "application/dicom; transfer-syntax=*"}).status_code == 200
    assert http.get("/studies").status_code == 200


def test_an_independent_client_decodes_what_it_gets(http: httpx.Client, hub: Services, door: str) -> None:
    session = create_session()
    session.headers["Authorization"] = "Bearer kn"
    client = DICOMwebClient(url=door, session=session)
    array = ramp()
    receive(hub, sample(array, RLE))
    (raw,) = client.retrieve_instance_frames(
        STUDY, SERIES, INSTANCE, [1], media_types=(("application/octet-stream", EXPLICIT_LITTLE),)
    )
    assert np.array_equal(np.frombuffer(raw, "<u2").reshape(array.shape), array)
    whole = client.retrieve_instance(STUDY, SERIES, INSTANCE, media_types=(("application/dicom", EXPLICIT_LITTLE),))
    assert np.array_equal(whole.pixel_array, array)
    jpeg = client.retrieve_instance_rendered(STUDY, SERIES, INSTANCE, media_types=("image/jpeg",))
    assert Image.open(io.BytesIO(jpeg)).size == (48, 40)


# --- pictures


def test_a_picture_is_what_the_window_says(http: httpx.Client, hub: Services) -> None:
    array = ramp(signed=True)
    receive(hub, sample(array, JPEG_2000, RescaleIntercept="-24", RescaleSlope="1"))
    picture = open_picture(http.get(f"{PATH}/rendered?window=40,400,linear", headers={"Accept": "image/png"}))
    values = array.astype(float) - 24
    expected = np.clip(((values - 39.5) / 399 + 0.5) * 255, 0, 255)
    assert np.abs(np.asarray(picture).astype(float) - expected).max() <= 0.51
    default = http.get(f"{PATH}/rendered")
    assert (default.headers["content-type"], default.headers["cache-control"]) == ("image/jpeg", "private, no-cache")
    small = http.get(f"{PATH}/rendered?quality=5")
    assert len(small.content) < len(default.content)
    again = http.get(f"{PATH}/rendered", headers={"If-None-Match": default.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert http.get(f"{PATH}/rendered?quality=5", headers={"If-None-Match": default.headers["etag"]}).status_code == 200


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("window=1,2", "window"), ("window=a,2,linear", "window"), ("window=1,0.5,linear", "window"),
        ("window=1,0,sigmoid", "window"), ("window=1,2,cubic", "window"), ("viewport=0,10", "viewport"),
        ("viewport=10", "viewport"), ("viewport=20000,10", "viewport"), ("viewport=9,9,5,5,0,1", "viewport"),
        ("viewport=9,9,500,5,2,2", "viewport"), ("quality=0", "quality"), ("quality=high", "quality"),
        ("annotation=diagnosis", "annotation"), ("iccprofile=cmyk", "iccprofile"), ("zoom=2", "zoom"),
        ("window=nan,2,linear", "window"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_named(http: httpx.Client, hub: Services, query: str, named: str) -> None:
    receive(hub, sample(ramp()))
    answer = http.get(f"{PATH}/rendered?{query}")
    assert answer.status_code == 400
    assert named in answer.text


def test_many_frames_are_a_moving_picture_or_a_multipart(http: httpx.Client, hub: Services) -> None:
    receive(hub, sample(ramp(5), JPEG_LS, frames=5, FrameTime="40"))
    moving = open_picture(http.get(f"{PATH}/rendered", headers={"Accept": "image/gif"}))
    assert (moving.n_frames, moving.info["duration"]) == (5, 40)
    chosen = open_picture(http.get(f"{PATH}/frames/2,4/rendered", headers={"Accept": "image/gif"}))
    assert chosen.n_frames == 2
    several = parts(http.get(f"{PATH}/frames/2,4/rendered", headers={"Accept": "multipart/related; type=image/png"}))
    assert [kind for kind, _ in several] == ["image/png", "image/png"]
    assert several[0][1] != several[1][1]
    assert http.get(f"{PATH}/frames/2,4/rendered", headers={"Accept": "image/png"}).status_code == 406
    assert http.get(f"{PATH}/frames/6/rendered").status_code == 404
    assert open_picture(http.get(f"{PATH}/frames/3/rendered", headers={"Accept": "image/png"})).size == (48, 40)


def test_a_study_and_a_series_have_pictures_and_thumbnails(http: httpx.Client, hub: Services) -> None:
    for number in (1, 2, 3):
        one = pydicom.dcmread(io.BytesIO(sample(ramp(rows=200, columns=300) // number)))
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"{SERIES}.{number}"
        one.InstanceNumber = number
        out = io.BytesIO()
        one.save_as(out)
        receive(hub, out.getvalue())
    for path in (f"/studies/{STUDY}", f"/studies/{STUDY}/series/{SERIES}"):
        assert [kind for kind, _ in parts(http.get(f"{path}/rendered"))] == ["image/jpeg"] * 3
        assert open_picture(http.get(f"{path}/rendered", headers={"Accept": "image/jpeg"})).size == (300, 200)
        assert open_picture(http.get(f"{path}/rendered", headers={"Accept": "image/gif"})).n_frames == 3
    for path in (f"/studies/{STUDY}", f"/studies/{STUDY}/series/{SERIES}", PATH, FRAME):
        answer = http.get(f"{path}/thumbnail")
        assert max(open_picture(answer).size) == 128
        assert answer.headers["cache-control"] == "private, max-age=3600"
        kept = {"If-None-Match": answer.headers["etag"]}
        assert http.get(f"{path}/thumbnail", headers=kept).status_code == 304
    assert open_picture(http.get(f"{PATH}/thumbnail?viewport=64,64", headers={"Accept": "image/png"})).size == (64, 43)
    assert http.get(f"{PATH}/thumbnail?window=1,2,linear").status_code == 400


def test_annotations_change_the_picture_and_thumbnails_never_carry_them(http: httpx.Client, hub: Services) -> None:
    receive(hub, sample(np.zeros((256, 256), np.uint16)))
    plain = np.asarray(open_picture(http.get(f"{PATH}/rendered", headers={"Accept": "image/png"})))
    both = open_picture(http.get(f"{PATH}/rendered?annotation=patient,technique", headers={"Accept": "image/png"}))
    assert plain.max() == 0
    assert np.asarray(both)[:40, :100].max() > 200
    assert np.asarray(both)[:40, 156:].max() > 200
    assert http.get(f"{PATH}/thumbnail?annotation=patient").status_code == 400


def test_a_document_and_a_video_go_out_as_they_are_inside(http: httpx.Client, hub: Services) -> None:
    pdf = b"%PDF-1.4 odd"[:11]
    document = Dataset()
    document.EncapsulatedDocument, document.MIMETypeOfEncapsulatedDocument = pdf, "application/pdf"
    document.EncapsulatedDocumentLength = len(pdf)
    whole = pydicom.dcmread(io.BytesIO(ct()))
    del whole.PixelData, whole.Rows, whole.Columns
    whole.update(document)
    out = io.BytesIO()
    whole.save_as(out)
    receive(hub, out.getvalue())
    answer = http.get(f"{PATH}/rendered", headers={"Accept": "application/pdf"})
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, pdf, "application/pdf")
    assert answer.headers["content-disposition"] == "attachment"
    assert http.get(f"{PATH}/rendered", headers={"Accept": "image/jpeg"}).status_code == 406
    assert http.get(f"{PATH}/thumbnail").status_code == 404
    movie = b"\0\0\0\x18ftypisom" + bytes(200)
    receive(hub, ct(2, frames=3, compressed=[movie], meta={"TransferSyntaxUID": "1.2.840.10008.1.2.4.102"}))
    path = PATH.replace(INSTANCE, f"{SERIES}.2")
    for accept in ("video/mp4", "video/*", "*/*"):
        answer = http.get(f"{path}/rendered", headers={"Accept": accept})
        assert (answer.content, answer.headers["content-type"]) == (movie, "video/mp4")
    assert http.get(f"{path}/rendered", headers={"Accept": "image/jpeg"}).status_code == 406


def test_metadata_is_xml_where_xml_is_asked_for(http: httpx.Client, hub: Services) -> None:
    from xml.etree import ElementTree as ET

    receive(hub, ct(1))
    receive(hub, ct(2))
    accept = 'multipart/related; type="application/dicom+xml"'
    for path, count in ((f"/studies/{STUDY}", 2), (f"/studies/{STUDY}/series/{SERIES}", 2), (PATH, 1)):
        answer = http.get(f"{path}/metadata", headers={"Accept": accept})
        found = parts(answer)
        assert [kind for kind, _ in found] == ["application/dicom+xml"] * count
        names = {one.get("keyword") for one in ET.fromstring(found[0][1])}
        assert {"PatientName", "SOPInstanceUID", "Rows"} <= names
        if path != PATH:
            kept = {"Accept": accept, "If-None-Match": answer.headers["etag"]}
            assert http.get(f"{path}/metadata", headers=kept).status_code == 304
            assert http.get(f"{path}/metadata").headers["etag"] != answer.headers["etag"]


# --- access


def test_pictures_are_read_under_the_same_rules_and_audited(http: httpx.Client, hub: Services, door: str) -> None:
    receive(hub, sample(ramp()))
    uri = f"{door.replace('/dicom-web', '/wado')}?requestType=WADO&studyUID={STUDY}&seriesUID={SERIES}&objectUID={INSTANCE}"
    for path in (f"{PATH}/rendered", f"{PATH}/thumbnail", f"{FRAME}/rendered", f"/studies/{STUDY}/thumbnail", uri):
        assert http.get(path, headers={"Authorization": ""}).status_code == 401
        for token in ("qh", "yl", "patient", "operator"):
            assert http.get(path, headers={"Authorization": f"Bearer {token}"}).status_code == 404
    before = len(rows(hub, audit))
    for path in (f"{PATH}/rendered", f"{PATH}/thumbnail", uri):
        assert http.get(path).status_code == 200
    assert [one.subtype for one in rows(hub, audit)[before:]] == ["WADO-RS rendered", "WADO-RS thumbnail", "WADO-URI"]
