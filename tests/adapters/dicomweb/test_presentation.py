"""Presentation states by WADO-URI and WADO-RS, over real sockets (PS3.18 sections 9.5.1.2.7 and 10.4.1.1.3)."""

from __future__ import annotations

import io
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest

from hub.boot import Services
from storage.sql.schema import audit
from tests.adapters.dicomweb.test_dicomweb import parts, rows
from tests.adapters.dicomweb.test_pixels import open_picture
from tests.support.images import QH, STUDY, receive
from tests.support.pixels import ramp, sample
from tests.support.states import IMAGE, IMAGE_SERIES, INSTANCE, SERIES, annotation, area, item, layer, state

STATE = f"/studies/{STUDY}/series/{SERIES}/instances/{INSTANCE}"
PNG = {"Accept": "image/png"}
VALUES: dict[str, Any] = {
    "PresentationLUTShape": "IDENTITY",
    "DisplayedAreaSelectionSequence": [area(1, 1, 48, 40)],
    "SoftcopyVOILUTSequence": [item(WindowCenter=2048, WindowWidth=4096)],
    "ImageRotation": 90,
    "ImageHorizontalFlip": "N",
}


def numbered(pixels: Any, number: int, **more: Any) -> bytes:
    """Return *pixels* as instance *number* of the series of images."""
    one = pydicom.dcmread(io.BytesIO(sample(pixels, **more)))
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"{IMAGE_SERIES}.{number}"
    one.InstanceNumber = number
    out = io.BytesIO()
    one.save_as(out)
    return out.getvalue()


def shown(answer: httpx.Response) -> Any:
    return np.asarray(open_picture(answer))


@pytest.fixture
def uri(door: str) -> str:
    return (
        f"{door.replace('/dicom-web', '/wado')}?requestType=WADO&studyUID={STUDY}&seriesUID={IMAGE_SERIES}"
        f"&objectUID={IMAGE}"
    )


NAMED = f"&presentationSeriesUID={SERIES}&presentationUID={INSTANCE}"


def test_wado_uri_shows_an_image_in_the_way_of_a_state(http: httpx.Client, hub: Services, uri: str) -> None:
    receive(hub, sample(ramp()))
    receive(hub, state(**VALUES))
    before = len(rows(hub, audit))
    found = shown(http.get(uri + NAMED, headers=PNG))
    assert [one.subtype for one in rows(hub, audit)[before:]] == ["WADO-URI", "WADO-URI presentation state"]
    plain = shown(http.get(f"{uri}&windowCenter=2048&windowWidth=4096", headers=PNG))
    assert np.array_equal(found, np.rot90(plain, -1))
    # Region and size come after the state.
    half = shown(http.get(f"{uri}{NAMED}&region=0,0,1,0.5", headers=PNG))
    assert np.array_equal(half, found[:24])
    etag = http.get(uri + NAMED).headers["etag"]
    assert http.get(uri + NAMED, headers={"If-None-Match": etag}).status_code == 304
    assert http.get(uri, headers={"If-None-Match": etag}).status_code == 200


@pytest.mark.parametrize(
    ("more", "named", "status"),
    [
        (f"&presentationUID={INSTANCE}", "presentationSeriesUID", 400),
        (f"&presentationSeriesUID={SERIES}", "presentationUID", 400),
        (f"{NAMED}&windowCenter=1&windowWidth=2", "windowCenter", 400),
        (f"&presentationSeriesUID={SERIES}&presentationUID=1.2.3", "Not found", 404),
        (f"&presentationSeriesUID={IMAGE_SERIES}&presentationUID={IMAGE}", "presentationUID", 400),
        (f"{NAMED}&contentType=application/dicom", "presentation", 400),
        ("&presentationSeriesUID=x&presentationUID=1", "presentationSeriesUID", 400),
    ],
)
def test_a_state_that_cannot_be_meant_is_named(
    http: httpx.Client, hub: Services, uri: str, more: str, named: str, status: int
) -> None:
    receive(hub, sample(ramp()))
    receive(hub, state(**VALUES))
    answer = http.get(uri + more)
    assert answer.status_code == status
    assert named in answer.text


def test_a_state_of_another_image_or_frame_or_kind_is_refused(http: httpx.Client, hub: Services, uri: str) -> None:
    receive(hub, numbered(ramp(3), 1, frames=3))
    receive(hub, state(**VALUES, frames=[2]))
    assert http.get(f"{uri}{NAMED}&frameNumber=2", headers=PNG).status_code == 200
    refused = http.get(f"{uri}{NAMED}&frameNumber=3", headers=PNG)
    assert (refused.status_code, "not for this image" in refused.text) == (400, True)
    blending = pydicom.dcmread(io.BytesIO(state(**VALUES)))
    blending.SOPClassUID = blending.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.11.4"
    blending.SOPInstanceUID = blending.file_meta.MediaStorageSOPInstanceUID = f"{SERIES}.4"
    out = io.BytesIO()
    blending.save_as(out)
    receive(hub, out.getvalue())
    other = http.get(f"{uri}&presentationSeriesUID={SERIES}&presentationUID={SERIES}.4&frameNumber=2", headers=PNG)
    assert other.status_code == 406


def test_a_rendered_state_is_the_images_that_it_names_in_its_order(http: httpx.Client, hub: Services) -> None:
    for number in (1, 2, 3):
        receive(hub, numbered(ramp() // number, number))
    images = (f"{IMAGE_SERIES}.3", f"{IMAGE_SERIES}.1", f"{IMAGE_SERIES}.99")
    receive(hub, state(**VALUES, images=images))
    several = parts(http.get(f"{STATE}/rendered", headers={"Accept": "multipart/related; type=image/png"}))
    assert [kind for kind, _ in several] == ["image/png"] * 2
    window = "window=2048,4096,linear"
    for (_, data), number in zip(several, (3, 1), strict=True):
        path = f"/studies/{STUDY}/series/{IMAGE_SERIES}/instances/{IMAGE_SERIES}.{number}/rendered?{window}"
        plain = shown(http.get(path, headers=PNG))
        assert np.array_equal(shown(httpx.Response(200, content=data)), np.rot90(plain, -1))
    assert open_picture(http.get(f"{STATE}/rendered", headers={"Accept": "image/gif"})).n_frames == 2
    assert open_picture(http.get(f"{STATE}/rendered", headers={"Accept": "image/jpeg"})).size == (40, 48)
    assert open_picture(http.get(f"{STATE}/thumbnail")).size == (40, 48)
    assert http.get(f"{STATE}/rendered?{window}").status_code == 400
    # A study is its images; the state among them is no picture of its own.
    assert len(parts(http.get(f"/studies/{STUDY}/rendered"))) == 3


def test_chinese_words_under_a_false_label_are_read_as_the_hub_reads_them(http: httpx.Client, hub: Services) -> None:
    """The characters are those of the hub's own rule, not those of the label, and so both pictures are one."""

    def told(label: str) -> bytes:
        words = item(
            UnformattedTextValue="左肺结节", BoundingBoxAnnotationUnits="PIXEL",
            BoundingBoxTopLeftHandCorner=[0.0, 0.0], BoundingBoxBottomRightHandCorner=[48.0, 12.0],
        )  # fmt: skip
        more = {
            "GraphicLayerSequence": [layer("L")],
            "GraphicAnnotationSequence": [annotation(TextObjectSequence=[words])],
        }
        made = state(**VALUES, **more, SpecificCharacterSet="GB18030")
        return made.replace(b"GB18030 ", label.encode().ljust(8))

    receive(hub, sample(np.zeros((40, 48), np.uint16)))
    receive(hub, told("GB18030"))
    right = shown(http.get(f"{STATE}/rendered", headers=PNG))
    assert right.max() > 150
    other = pydicom.dcmread(io.BytesIO(told("ISO_IR 6")))
    assert other.SpecificCharacterSet == "ISO_IR 6"
    false = told("ISO_IR 6").replace(INSTANCE.encode(), INSTANCE[:-1].encode() + b"2")
    receive(hub, false)
    assert np.array_equal(shown(http.get(f"{STATE[:-1]}2/rendered", headers=PNG)), right)


def test_states_are_read_under_the_same_rules(http: httpx.Client, hub: Services, uri: str) -> None:
    receive(hub, sample(ramp()))
    receive(hub, state(**VALUES))
    for path in (f"{STATE}/rendered", f"{STATE}/thumbnail", uri + NAMED):
        for token in ("qh", "yl", "patient", "operator"):
            assert http.get(path, headers={"Authorization": f"Bearer {token}"}).status_code == 404


def test_a_state_of_another_institutions_copy_is_none_of_this_one(http: httpx.Client, hub: Services, uri: str) -> None:
    receive(hub, sample(ramp()))
    receive(hub, state(**VALUES), QH)
    assert http.get(uri + NAMED).status_code == 404


def test_a_state_without_its_images_says_so(http: httpx.Client, hub: Services) -> None:
    receive(hub, state(**VALUES))
    assert http.get(f"{STATE}/rendered").status_code == 404
    assert http.get(f"{STATE}/thumbnail").status_code == 404
