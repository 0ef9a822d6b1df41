"""Objects whose header promises frames that are not there: refused at once, whatever the number."""

from __future__ import annotations

import httpx
import pytest

from hub.boot import Services
from tests.adapters.dicomweb.test_dicomweb import FRAGMENTS, PATH
from tests.support.films import SYNTAXES, stream, video_object
from tests.support.images import ct, receive

#: The greatest value of an IS (PS3.5 table 6.2-1); a list of so many frames would take the memory of the whole machine.
FRAMES = 2**31 - 1
PARTS = 'multipart/related; type="application/octet-stream"'


@pytest.mark.parametrize(
    ("path", "accept", "status"),
    [
        ("/rendered", "image/gif", 413),
        ("/rendered", "video/mp4", 413),
        ("/frames/1/rendered", "image/gif", 406),
        ("/bulk/7FE00010", "*/*", 406),
        ("/bulk/7FE00010", PARTS, 406),
        ("/bulk/7FE00010", f"{PARTS}; transfer-syntax=*", 406),
        ("/pixeldata", PARTS, 406),
        ("/frames/1", PARTS, 406),
    ],
)
def test_frames_that_only_the_header_knows_cost_nothing(
    http: httpx.Client, hub: Services, path: str, accept: str, status: int
) -> None:
    receive(hub, ct(NumberOfFrames=FRAMES, compressed=FRAGMENTS))
    assert http.get(f"{PATH}{path}", headers={"Accept": accept}).status_code == status


@pytest.mark.parametrize(
    ("path", "accept", "status"),
    [("/bulk/7FE00010", PARTS, 413), ("/rendered", "image/gif", 200), ("/rendered", "video/mp4", 200)],
)
def test_a_video_is_as_long_as_its_stream(
    http: httpx.Client, hub: Services, path: str, accept: str, status: int
) -> None:
    film = video_object(stream("mpeg2.ts"), SYNTAXES["mpeg2.ts"], frames=FRAMES, CineRate="25")
    receive(hub, film)
    assert http.get(f"{PATH}{path}", headers={"Accept": accept}).status_code == status
