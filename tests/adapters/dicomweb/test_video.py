"""Films go out as they are inside, in the ranges that a player asks for (PS3.18 section 8.7.4, RFC 9110 section 14)."""

from __future__ import annotations

import httpx
import numpy as np
import pytest

from hub.boot import Services
from tests.adapters.dicomweb.test_dicomweb import PATH, SERIES
from tests.adapters.dicomweb.test_pixels import open_picture
from tests.support.images import STUDY, ct, receive

MOVIE = b"\0\0\0\x18ftypisom" + bytes(range(256)) * 4
#: In three fragments, as those write it who must (PS3.5 section 8.2.7).
FRAGMENTS = [MOVIE[:100], MOVIE[100:102], MOVIE[102:]]
RENDERED = f"{PATH}/rendered"


@pytest.fixture(autouse=True)
def film(hub: Services) -> None:
    receive(hub, ct(frames=30, compressed=FRAGMENTS, meta={"TransferSyntaxUID": "1.2.840.10008.1.2.4.102"}))


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-", 0, len(MOVIE)), ("bytes=0-0", 0, 1), ("bytes=90-105", 90, 106), ("bytes=100-101", 100, 102),
        ("bytes=500-99999", 500, len(MOVIE)), ("bytes=-7", len(MOVIE) - 7, len(MOVIE)), ("Bytes=5-6", 5, 7),
        (f"bytes=-{len(MOVIE) + 5}", 0, len(MOVIE)),
    ],
)  # fmt: skip
def test_a_player_gets_the_range_that_it_asks_for(http: httpx.Client, asked: str, start: int, stop: int) -> None:
    answer = http.get(RENDERED, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, MOVIE[start:stop])
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(MOVIE)}"
    assert answer.headers["content-length"] == str(stop - start)
    assert answer.headers["content-type"] == "video/mp4"


@pytest.mark.parametrize(
    "asked", ["", "bytes=9-5", "bytes=1-2,5-6", "lines=1-2", "bytes=-", "bytes=x-9", "bytes=" + "9" * 80]
)
def test_what_is_no_single_range_gets_the_whole(http: httpx.Client, asked: str) -> None:
    answer = http.get(RENDERED, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, MOVIE)
    assert answer.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize("asked", [f"bytes={len(MOVIE)}-", "bytes=99999-100000", "bytes=-0"])
def test_a_range_beyond_the_end_is_refused_with_the_size(http: httpx.Client, asked: str) -> None:
    answer = http.get(RENDERED, headers={"Range": asked})
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{len(MOVIE)}")


def test_a_range_goes_on_only_with_the_same_bytes(http: httpx.Client) -> None:
    etag = http.get(RENDERED).headers["etag"]
    asked = {"Range": "bytes=10-19"}
    assert http.get(RENDERED, headers={**asked, "If-Range": etag}).status_code == 206
    for other in ('"other"', "Wed, 11 Jun 2025 02:00:00 GMT", f"W/{etag}"):
        assert http.get(RENDERED, headers={**asked, "If-Range": other}).status_code == 200
    assert http.get(RENDERED, headers={"If-None-Match": etag}).status_code == 304


def test_a_stored_object_can_be_fetched_in_ranges_too(http: httpx.Client) -> None:
    accept = {"Accept": "application/dicom; transfer-syntax=*"}
    whole = http.get(PATH, headers=accept)
    rest = http.get(PATH, headers={**accept, "Range": "bytes=200-", "If-Range": whole.headers["etag"]})
    assert (rest.status_code, rest.content) == (206, whole.content[200:])
    assert rest.headers["content-disposition"] == "attachment"


def test_the_thumbnail_of_a_film_is_a_sign_that_says_so(http: httpx.Client) -> None:
    for path in (PATH, f"/studies/{STUDY}/series/{SERIES}", f"/studies/{STUDY}"):
        answer = http.get(f"{path}/thumbnail", headers={"Accept": "image/png"})
        picture = open_picture(answer)
        assert picture.size == (128, 128)
        assert np.ptp(np.asarray(picture)) > 100
        assert "video" in answer.headers["warning"]
        assert http.get(f"{path}/thumbnail", headers={"If-None-Match": answer.headers["etag"]}).status_code == 200
    assert open_picture(http.get(f"{PATH}/thumbnail?viewport=64,64")).size == (64, 64)


def test_an_image_stands_for_a_series_rather_than_the_sign(http: httpx.Client, hub: Services) -> None:
    receive(hub, ct(2))
    answer = http.get(f"/studies/{STUDY}/series/{SERIES}/thumbnail")
    assert open_picture(answer).size == (16, 16)
    assert "warning" not in answer.headers
