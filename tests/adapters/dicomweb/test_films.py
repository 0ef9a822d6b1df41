"""Frames and films of stored videos over DICOMweb, and films made of multi-frame images (PS3.18 sections 8.7.4, 10.4)."""

from __future__ import annotations

import io

import httpx
import numpy as np
import pytest
from PIL import Image as Pictures

from hub.boot import Services
from tests.adapters.dicomweb.test_dicomweb import PATH, SERIES, parts
from tests.adapters.dicomweb.test_pixels import open_picture
from tests.support.films import COLUMNS, ROWS, SYNTAXES, shows, stream, video_object
from tests.support.images import STUDY, ct, receive
from tests.support.mp4 import durations, sizes

OCTETS = 'multipart/related; type="application/octet-stream"'
UNCOMPRESSED = "1.2.840.10008.1.2.1"
MP4 = {"Accept": "video/mp4"}


def put(hub: Services, name: str, number: int = 1, **attributes: object) -> None:
    receive(hub, video_object(stream(name), SYNTAXES[name], number, **attributes))


def frame(data: bytes) -> np.ndarray:
    return np.frombuffer(data, "u1").reshape(ROWS, COLUMNS, 3)


@pytest.mark.parametrize("name", ["mpeg2.ts", "h264.mp4", "hevc.ts"])
def test_frames_of_a_video_are_decoded_where_that_is_asked_for(http: httpx.Client, hub: Services, name: str) -> None:
    put(hub, name)
    for accept in (OCTETS, f"{OCTETS}; transfer-syntax={UNCOMPRESSED}"):
        answer = http.get(f"{PATH}/frames/7,2,10", headers={"Accept": accept})
        assert answer.status_code == 200
        found = parts(answer)
        assert [kind for kind, _ in found] == [f"application/octet-stream; transfer-syntax={UNCOMPRESSED}"] * 3
        assert [shows(frame(data), n) for n, (_, data) in zip((7, 2, 10), found, strict=True)] == [True] * 3
    single = http.get(f"{PATH}/frames/4", headers={"Accept": "application/octet-stream"})
    assert shows(frame(single.content), 4)


def test_frame_numbers_are_held_against_the_header_and_the_stream(http: httpx.Client, hub: Services) -> None:
    put(hub, "mpeg2.ts", frames=12)
    assert http.get(f"{PATH}/frames/13", headers={"Accept": "application/octet-stream"}).status_code == 404
    for path in (f"{PATH}/frames/11", f"{PATH}/frames/11/rendered", f"{PATH}/frames/11/thumbnail"):
        accept = "application/octet-stream" if path.endswith("/11") else "image/png"
        answer = http.get(path, headers={"Accept": accept})
        assert answer.status_code == 406
        assert "NumberOfFrames says 12, the video has 10" in answer.text


def test_a_video_is_rendered_and_has_a_thumbnail(http: httpx.Client, hub: Services) -> None:
    put(hub, "h264.mp4")
    for media_type in ("image/png", "image/jpeg"):
        answer = http.get(f"{PATH}/frames/3/rendered", headers={"Accept": media_type})
        assert answer.headers["content-type"] == media_type
        assert shows(open_picture(answer).convert("RGB"), 3)
    # The one in the middle stands for the whole.
    assert shows(open_picture(http.get(f"{PATH}/rendered", headers={"Accept": "image/png"})), 5)
    for path in (PATH, f"/studies/{STUDY}/series/{SERIES}", f"/studies/{STUDY}"):
        answer = http.get(f"{path}/thumbnail", headers={"Accept": "image/png"})
        assert shows(open_picture(answer).convert("RGB"), 5)
        assert "warning" not in answer.headers
    assert shows(open_picture(http.get(f"{PATH}/frames/9/thumbnail", headers={"Accept": "image/png"})), 9)
    half = http.get(f"{PATH}/frames/3/rendered?viewport=32,24", headers={"Accept": "image/png"})
    assert open_picture(half).size == (32, 24)


def test_a_gif_of_a_video_moves_as_the_header_says(http: httpx.Client, hub: Services) -> None:
    put(hub, "hevc.mp4", CineRate=5)
    picture = Pictures.open(io.BytesIO(http.get(f"{PATH}/rendered", headers={"Accept": "image/gif"}).content))
    assert (picture.n_frames, picture.info["duration"]) == (10, 200)


def test_a_video_in_an_mp4_goes_out_as_it_is(http: httpx.Client, hub: Services) -> None:
    put(hub, "h264.mp4")
    answer = http.get(f"{PATH}/rendered", headers=MP4)
    # A fragment has an even length (PS3.5 annex A.4).
    whole = stream("h264.mp4") + b"\0" * (len(stream("h264.mp4")) % 2)
    assert (answer.content, answer.headers["content-type"]) == (whole, "video/mp4")


def test_a_transport_stream_goes_out_as_it_is_or_becomes_an_mp4(http: httpx.Client, hub: Services) -> None:
    put(hub, "mpeg2.ts")
    for accept in ("*/*", "video/*", "video/mp2t"):
        answer = http.get(f"{PATH}/rendered", headers={"Accept": accept})
        assert (answer.content, answer.headers["content-type"]) == (stream("mpeg2.ts"), "video/mp2t")
    answer = http.get(f"{PATH}/rendered", headers=MP4)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "video/mp4")
    assert (sizes(answer.content), durations(answer.content)) == ((COLUMNS, ROWS), [(10, 40_000)])
    assert http.get(f"{PATH}/rendered", headers={**MP4, "If-None-Match": answer.headers["etag"]}).status_code == 304
    some = http.get(f"{PATH}/frames/2,3,4/rendered", headers=MP4)
    assert durations(some.content) == [(3, 40_000)]
    whole = http.get(f"{PATH}/rendered", headers={"Accept": 'multipart/related; type="video/mp4"'})
    assert [kind for kind, _ in parts(whole)] == ["video/mp4"]


def test_a_video_of_other_length_than_its_header_says_plays_with_a_warning(http: httpx.Client, hub: Services) -> None:
    put(hub, "mpeg2.ts", frames=12)
    answer = http.get(f"{PATH}/rendered", headers=MP4)
    assert durations(answer.content) == [(10, 40_000)]
    assert "NumberOfFrames says 12, the video has 10" in answer.headers["warning"]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"RecommendedDisplayFrameRate": 20, "CineRate": 10, "FrameTime": 500}, [(4, 50_000)]),
        ({"CineRate": 10, "FrameTime": 500}, [(4, 100_000)]),
        ({"FrameTime": "33.333"}, [(4, 33_333)]),
        ({"FrameTimeVector": [0, 40, 60, 80]}, [(1, 40_000), (1, 60_000), (2, 80_000)]),
        ({"FrameTimeVector": [0, 40, 60]}, [(4, 100_000)]),
        ({}, [(4, 100_000)]),
    ],
)  # fmt: skip
def test_a_multi_frame_becomes_an_mp4_at_its_own_pace(
    http: httpx.Client, hub: Services, said: dict[str, object], expected: list[tuple[int, int]]
) -> None:
    receive(hub, ct(frames=4, **said))
    for accept in ("video/mp4", "video/*", "video/mp4, image/png;q=0.5"):
        answer = http.get(f"{PATH}/rendered", headers={"Accept": accept})
        assert (answer.status_code, answer.headers["content-type"]) == (200, "video/mp4")
        assert (durations(answer.content), sizes(answer.content)) == (expected, (16, 16))
    assert http.get(f"{PATH}/rendered?viewport=8,8", headers=MP4).status_code == 200
    other = http.get(f"{PATH}/rendered?window=100,50,linear", headers=MP4)
    assert other.headers["etag"] != answer.headers["etag"]


def test_a_series_of_images_becomes_an_mp4(http: httpx.Client, hub: Services) -> None:
    for number in range(1, 6):
        receive(hub, ct(number))
    answer = http.get(f"/studies/{STUDY}/series/{SERIES}/rendered", headers=MP4)
    assert durations(answer.content) == [(5, 100_000)]


def test_a_single_frame_is_no_film(http: httpx.Client, hub: Services) -> None:
    receive(hub, ct())
    assert http.get(f"{PATH}/rendered", headers=MP4).status_code == 406
    both = http.get(f"{PATH}/rendered", headers={"Accept": "video/mp4, image/png;q=0.5"})
    assert both.headers["content-type"] == "image/png"


def test_wado_uri_renders_videos_too(http: httpx.Client, hub: Services) -> None:
    put(hub, "mpeg2.ts")
    base = str(http.base_url).rsplit("/dicom-web", 1)[0]
    asked = {"requestType": "WADO", "studyUID": STUDY, "seriesUID": SERIES, "objectUID": f"{SERIES}.1"}
    picture = http.get(f"{base}/wado", params={**asked, "contentType": "image/png", "frameNumber": "8"})
    assert shows(open_picture(picture).convert("RGB"), 8)
    # A frame is a picture by default, a whole video an object (PS3.18 table 9.5-1).
    default = http.get(f"{base}/wado", params={**asked, "frameNumber": "8"})
    assert default.headers["content-type"] == "image/jpeg"
    assert http.get(f"{base}/wado", params=asked).headers["content-type"].startswith("application/dicom")
    film = http.get(f"{base}/wado", params={**asked, "contentType": "video/mp4"})
    assert durations(film.content) == [(10, 40_000)]


def test_all_frames_of_a_long_video_are_not_decoded_at_once(http: httpx.Client, hub: Services) -> None:
    put(hub, "mpeg2.ts", frames=400)
    numbers = ",".join(map(str, range(1, 302)))
    answer = http.get(f"{PATH}/frames/{numbers}", headers={"Accept": OCTETS})
    assert answer.status_code == 413


def test_videos_of_a_series_move_one_by_one(http: httpx.Client, hub: Services) -> None:
    put(hub, "mpeg2.ts")
    put(hub, "mpeg2.ts", 2)
    path = f"/studies/{STUDY}/series/{SERIES}/rendered"
    assert http.get(path, headers=MP4).status_code == 406
    assert [kind for kind, _ in parts(http.get(path, headers={"Accept": 'multipart/related; type="image/png"'}))] == [
        "image/png", "image/png",
    ]  # fmt: skip
