"""Frames of video streams: the right one, in the right colours, within bounds, and from nowhere but the stream."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pictures

from adapters.pixels.films import Film
from adapters.pixels.look import Look
from adapters.pixels.pool import Pool
from adapters.pixels.stored import StoredPixels
from adapters.pixels.syntaxes import EXPLICIT_LITTLE, JPEG_LS
from hub.errors import Category, HubError
from tests.support.films import COLUMNS, FOLDER, FRAMES, ROWS, SYNTAXES, shows, stream, video_object
from tests.support.pixels import pool

MPEG2 = SYNTAXES["mpeg2.ts"]
#: A child in an installation without the extra ``video``.
WITHOUT = "import sys; sys.modules['cv2'] = None\nfrom adapters.pixels.child import main\nsys.exit(main(sys.argv[1:]))"
PNG = Look(media_type="image/png")


@pytest.fixture(scope="module")
def children() -> Iterator[Pool]:
    one = pool()
    yield one
    one.close()


def opened(data: bytes) -> StoredPixels:
    return StoredPixels(io.BytesIO(data), max_frame_bytes=150 << 20)


def film_of(stored: StoredPixels) -> Film:
    assert stored.film is not None
    return stored.film


def refused(data: bytes, children: Pool, number: int = 1) -> HubError:
    with opened(data) as stored, pytest.raises(HubError) as caught:
        stored.transcoded(children, number, EXPLICIT_LITTLE)
    return caught.value


@pytest.mark.parametrize("name", SYNTAXES)
def test_each_frame_of_a_film_is_that_frame(name: str, children: Pool) -> None:
    with opened(video_object(stream(name), SYNTAXES[name])) as stored:
        film_of(stored).plan(range(1, FRAMES + 1))
        for number in (*range(1, FRAMES + 1), 4):
            data, answer = stored.transcoded(children, number, EXPLICIT_LITTLE)
            assert shows(np.frombuffer(data, "u1").reshape(ROWS, COLUMNS, 3), number)
            assert answer == {"photometric": "RGB", "planar": 0}
        picture = Pictures.open(io.BytesIO(stored.picture(children, 7, PNG)))
        assert (picture.mode, picture.size) == ("RGB", (COLUMNS, ROWS))
        assert shows(picture, 7)


def test_a_frame_becomes_another_syntax_without_loss(children: Pool) -> None:
    with opened(video_object(stream("mpeg2.ts"), MPEG2)) as stored:
        plain, _ = stored.transcoded(children, 3, EXPLICIT_LITTLE)
        packed, answer = stored.transcoded(children, 3, JPEG_LS)
        assert packed[:2] == b"\xff\xd8"
        shape = {**stored.image.as_json(), "photometric": "RGB"}
        head = {"do": "frame", "image": shape, "syntax": JPEG_LS, "target": EXPLICIT_LITTLE}
        assert children.run(head, packed)[1] == plain
        assert answer["photometric"] == "RGB"


def test_a_film_in_fragments_is_one_stream(children: Pool) -> None:
    data = stream("mpeg2.ts")
    from tests.support.images import ct

    whole = video_object(data, MPEG2)
    pieces = ct(
        compressed=[data[:200], data[200:202], data[202:]], meta={"TransferSyntaxUID": MPEG2}, Rows=ROWS, Columns=COLUMNS,
        SamplesPerPixel=3, PlanarConfiguration=0, BitsAllocated=8, BitsStored=8, HighBit=7, NumberOfFrames=FRAMES,
        PhotometricInterpretation="YBR_PARTIAL_420",
    )  # fmt: skip
    for one in (whole, pieces):
        with opened(one) as stored:
            assert shows(
                np.frombuffer(stored.transcoded(children, 9, EXPLICIT_LITTLE)[0], "u1").reshape(ROWS, COLUMNS, 3), 9
            )


def test_frames_that_the_header_promises_and_the_stream_has_not_are_named(children: Pool) -> None:
    data = video_object(stream("mpeg2.ts"), MPEG2, frames=12)
    error = refused(data, children, 11)
    assert (error.category, error.where) == (Category.UNSUPPORTED, "(0028,0008)")
    assert "NumberOfFrames says 12, the video has 10" in error.message
    assert refused(data, children, 13).category is Category.NOT_FOUND
    # Those that are there can be had all the same.
    with opened(data) as stored:
        assert stored.transcoded(children, 10, EXPLICIT_LITTLE)


def test_a_film_of_another_size_than_the_header_says_is_refused(children: Pool) -> None:
    error = refused(video_object(stream("h264.mp4"), SYNTAXES["h264.mp4"], Rows=50), children)
    assert "48 x 64, the header says 50 x 64" in error.message


@pytest.mark.parametrize(
    "data",
    [
        b"ffconcat version 1.0\nfile mpeg2.ts\n",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nmpeg2.ts\n#EXT-X-ENDLIST\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    ],
    ids=["concat", "hls", "sdp"],
)
def test_a_stream_never_makes_the_decoder_open_anything_else(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    # Where a child stands, the file that the script names lies beside it.
    monkeypatch.chdir(FOLDER)
    children = pool()
    try:
        error = refused(video_object(data, MPEG2), children)
    finally:
        children.close()
    assert "cannot be decoded" in error.message


def test_without_our_lists_a_script_would_have_opened_the_file_beside_it() -> None:
    """Otherwise the test above would hold whatever the lists say."""
    told = (
        "import cv2, io; one = cv2.VideoCapture(io.BytesIO(b'ffconcat version 1.0\\nfile mpeg2.ts\\n'), cv2.CAP_FFMPEG, [])\n"
        "print(one.isOpened() and one.grab())"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENCV_")}
    done = subprocess.run(
        [sys.executable, "-c", told], cwd=FOLDER, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "True"


@pytest.mark.parametrize("name", ["mpeg2.ts", "h264.mp4", "hevc.ts"])
def test_broken_streams_cost_one_request_each(name: str, children: Pool) -> None:
    whole = stream(name)
    rng = np.random.default_rng(7)
    categories = []
    for _ in range(12):
        broken = bytearray(whole)
        for place in rng.integers(0, len(whole), 30):
            broken[place] = rng.integers(0, 256)
        with opened(video_object(bytes(broken[: rng.integers(40, len(whole))]), SYNTAXES[name])) as stored:
            try:
                stored.transcoded(children, 5, EXPLICIT_LITTLE)
                categories.append(None)
            except HubError as error:
                categories.append(error.category)
    # Some can still be decoded, which is as well.
    assert set(categories) <= {None, Category.UNSUPPORTED}
    assert Category.UNSUPPORTED in categories
    with opened(video_object(whole, SYNTAXES[name])) as stored:
        assert stored.transcoded(children, 5, EXPLICIT_LITTLE)


def test_a_film_longer_than_its_share_of_memory_is_refused_before_it_is_read() -> None:
    children = pool(memory_bytes=4096)
    error = refused(video_object(stream("mpeg2.ts"), MPEG2), children)
    assert (error.status, children.pids) == (406, [])
    assert "pixel_memory_bytes" in error.message


def test_a_presentation_state_is_not_left_out_in_silence(children: Pool) -> None:
    with opened(video_object(stream("mpeg2.ts"), MPEG2)) as stored, pytest.raises(HubError) as caught:
        stored.picture(children, 1, PNG, [b"a state"])
    assert caught.value.status == 406


def test_too_many_frames_at_once_are_refused() -> None:
    with opened(video_object(stream("mpeg2.ts"), MPEG2)) as stored, pytest.raises(HubError) as caught:
        film_of(stored).plan(range(1, 400))
    assert caught.value.status == 413


def test_an_installation_without_the_extra_says_what_is_missing() -> None:
    children = pool(command=[sys.executable, "-c", WITHOUT])
    try:
        error = refused(video_object(stream("mpeg2.ts"), MPEG2), children)
        assert "opencv-python-headless is not installed" in error.message
        assert children.run({"do": "film", "look": PNG.as_json()})[1]
    finally:
        children.close()


def test_a_child_that_does_no_film_loads_no_opencv() -> None:
    told = "import sys, adapters.pixels.child, adapters.pixels.stored, adapters.dicomweb; print('cv2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_no_file_is_left_anywhere_by_a_film(children: Pool, tmp_path: Path) -> None:
    with opened(video_object(stream("mpeg2.ts"), MPEG2)) as stored:
        film_of(stored).moving(children, None, Look(media_type="video/mp4"), None, most=100)
    limits = Path(f"/proc/{children.pids[0]}/limits").read_text("ascii")
    assert [line.split()[3:5] for line in limits.splitlines() if line.startswith("Max file size")] == [["0", "0"]]
