"""WADO-URI over real sockets (PS3.18 section 9)."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest

from adapters.pixels.syntaxes import EXPLICIT_LITTLE, JPEG_BASELINE, JPEG_LS
from hub.boot import Services
from tests.adapters.dicomweb.test_dicomweb import INSTANCE, SERIES
from tests.adapters.dicomweb.test_pixels import open_picture
from tests.support.images import STUDY, receive
from tests.support.pixels import ramp, sample

Get = Callable[..., httpx.Response]


@pytest.fixture
def get(http: httpx.Client, door: str) -> Get:
    """Ask for the one instance of the tests, with more parameters."""

    def ask(accept: str = "*/*", **more: Any) -> httpx.Response:
        said = {"requestType": "WADO", "studyUID": STUDY, "seriesUID": SERIES, "objectUID": INSTANCE, **more}
        return http.get(door.replace("/dicom-web", "/wado"), params=said, headers={"Accept": accept})

    return ask


def test_a_single_frame_is_a_jpeg_by_default_and_a_multi_frame_an_object(get: Get, hub: Services) -> None:
    receive(hub, sample(ramp()))
    assert open_picture(get()).format == "JPEG"
    data = get(contentType="application/dicom")
    assert (data.headers["content-type"], len(data.content) > 1000) == (
        f"application/dicom; transfer-syntax={EXPLICIT_LITTLE}",
        True,
    )
    assert open_picture(get(contentType="image/png")).format == "PNG"
    assert open_picture(get(contentType="image/jphc, image/png")).format == "PNG"
    assert open_picture(get(accept="image/png")).format == "PNG"


def test_a_multi_frame_is_an_object_by_default_and_each_frame_a_picture(get: Get, hub: Services) -> None:
    array = ramp(3)
    receive(hub, sample(array, JPEG_LS, frames=3))
    assert get().headers["content-type"] == f"application/dicom; transfer-syntax={JPEG_LS}"
    pictures = [get(frameNumber=number, contentType="image/png").content for number in (1, 2, 3)]
    assert len(set(pictures)) == 3
    assert get(frameNumber=4).status_code == 404
    assert open_picture(get(contentType="image/gif")).n_frames == 3


def test_an_object_comes_in_the_transfer_syntax_asked_for(get: Get, hub: Services) -> None:
    array = ramp(signed=True)
    receive(hub, sample(array, JPEG_LS))
    answer = get(contentType="application/dicom", transferSyntax=EXPLICIT_LITTLE)
    assert np.array_equal(pydicom.dcmread(io.BytesIO(answer.content)).pixel_array, array)
    refused = get(contentType="application/dicom", transferSyntax=JPEG_BASELINE)
    assert refused.status_code == 406
    assert EXPLICIT_LITTLE in refused.text


def test_window_size_and_region_shape_the_picture(get: Get, hub: Services) -> None:
    array = ramp(signed=True)
    receive(hub, sample(array))
    shown = np.asarray(open_picture(get(contentType="image/png", windowCenter=40, windowWidth=400)))
    expected = np.clip(((array.astype(float) - 39.5) / 399 + 0.5) * 255, 0, 255)
    assert np.abs(shown.astype(float) - expected).max() <= 0.51
    half = np.asarray(
        open_picture(get(contentType="image/png", windowCenter=40, windowWidth=400, region="0.5,0,1,0.5"))
    )
    assert np.array_equal(half, shown[:20, 24:])
    assert open_picture(get(rows=20)).size == (24, 20)
    assert open_picture(get(columns=96, rows=500)).size == (96, 80)
    assert len(get(imageQuality=1).content) < len(get(imageQuality=100).content)
    assert get(annotation="patient").content != get().content


def test_a_parameter_that_wado_uri_does_not_have_is_ignored_with_a_warning(get: Get, hub: Services) -> None:
    receive(hub, sample(ramp()))
    plain = get(contentType="image/png")
    assert "warning" not in plain.headers
    answer = get(contentType="image/png", _="1732411", zoom="2\r\nX-Other: 1")
    assert (answer.status_code, answer.content) == (200, plain.content)
    assert answer.headers["warning"].startswith("299 ")
    assert "zoom" not in answer.headers["warning"]


@pytest.mark.parametrize(
    ("more", "named", "status"),
    [
        ({"requestType": "FHIR"}, "requestType", 400),
        ({"studyUID": "abc"}, "studyUID", 400),
        ({"objectUID": ""}, "objectUID", 400),
        ({"windowCenter": "1"}, "windowWidth", 400),
        ({"rows": "0"}, "rows", 400),
        ({"region": "0,0,2,1"}, "region", 400),
        ({"region": "0.5,0,0.5,1"}, "region", 400),
        ({"frameNumber": "0"}, "frameNumber", 400),
        ({"frameNumber": "1", "contentType": "application/dicom"}, "frameNumber", 400),
        ({"transferSyntax": EXPLICIT_LITTLE, "contentType": "image/png"}, "transferSyntax", 400),
        ({"imageQuality": "101"}, "imageQuality", 400),
        ({"contentType": "text/html"}, "image/jpeg", 406),
        ({"anonymize": "yes"}, "anonymize", 406),
        ({"presentationUID": "1.2"}, "presentationUID", 400),
        ({"objectUID": "1.2.3"}, "Not found", 404),
    ],
)
def test_a_wrong_parameter_is_named(get: Get, hub: Services, more: dict[str, str], named: str, status: int) -> None:
    receive(hub, sample(ramp()))
    answer = get(**more)
    assert answer.status_code == status
    assert named in answer.text
