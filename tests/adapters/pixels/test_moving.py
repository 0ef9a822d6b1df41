"""GIF and MP4 of films and of pictures: which frames, for how long, and how an MP4 is built."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from PIL import Image as Pictures

from adapters.pixels.look import Look
from adapters.pixels.mp4 import write
from adapters.pixels.pool import Pool
from adapters.pixels.stored import StoredPixels
from hub.errors import Category, HubError
from tests.support.films import COLUMNS, ROWS, SYNTAXES, shows, stream, video_object
from tests.support.mp4 import box, durations, sizes
from tests.support.pixels import pool

FILM, GIF = Look(media_type="video/mp4"), Look(media_type="image/gif")


@pytest.fixture(scope="module")
def children() -> Iterator[Pool]:
    one = pool()
    yield one
    one.close()


def moving(
    children: Pool,
    name: str,
    look: Look,
    numbers: Sequence[int] | None = None,
    durations_us: Sequence[int] | None = None,
    *,
    most: int = 100,
    frames: int = 10,
) -> tuple[bytes, int]:
    data = video_object(stream(name), SYNTAXES[name], frames=frames)
    with StoredPixels(io.BytesIO(data), max_frame_bytes=150 << 20) as stored:
        assert stored.film is not None
        return stored.film.moving(children, numbers, look, durations_us, most=most)


def frames_of(data: bytes, rows: int, columns: int, children: Pool, count: int) -> list[np.ndarray]:
    """Return the frames of an MP4, decoded."""
    image = {
        "rows": rows, "columns": columns, "samples": 3, "bits_allocated": 8, "bits_stored": 8, "high_bit": 7,
        "signed": False, "photometric": "RGB", "planar": 0,
    }  # fmt: skip
    head = {"do": "film-frames", "image": image, "numbers": list(range(1, count + 1)), "count": count}
    found = np.frombuffer(children.run(head, data)[1], "u1")
    return list(found.reshape(count, rows, columns, 3))


@pytest.mark.parametrize("name", ["mpeg2.ts", "h264.ts"])
def test_a_film_becomes_an_mp4_of_the_same_frames(name: str, children: Pool) -> None:
    data, count = moving(children, name, FILM)
    assert count == 10
    assert data[4:8] == b"ftyp"
    assert durations(data) == [(10, 40_000 if name == "mpeg2.ts" else 100_000)]
    for number, one in enumerate(frames_of(data, ROWS, COLUMNS, children, 10), 1):
        assert shows(one, number)


def test_frames_of_a_film_and_their_times_are_those_asked_for(children: Pool) -> None:
    data, _ = moving(children, "h264.ts", FILM, [2, 5, 9], [50_000, 70_000, 70_000])
    assert durations(data) == [(1, 50_000), (2, 70_000)]
    for number, one in zip((2, 5, 9), frames_of(data, ROWS, COLUMNS, children, 3), strict=True):
        assert shows(one, number)


def test_a_film_becomes_a_gif(children: Pool) -> None:
    data, _ = moving(children, "h264.mp4", GIF)
    picture = Pictures.open(io.BytesIO(data))
    assert (picture.n_frames, picture.info["duration"]) == (10, 100)
    picture.seek(6)
    assert shows(picture.convert("RGB"), 7)


def test_a_film_with_other_frames_than_its_header_says_plays_and_tells_how_many(children: Pool) -> None:
    for said in (7, 12):
        data, count = moving(children, "mpeg2.ts", FILM, durations_us=[20_000] * said, frames=said)
        assert (count, durations(data)) == (10, [(10, 20_000)])


def test_more_frames_than_a_moving_picture_holds_are_refused(children: Pool) -> None:
    with pytest.raises(HubError) as caught:
        moving(children, "mpeg2.ts", FILM, most=9)
    assert (caught.value.category, caught.value.where) == (Category.INCORRECT, "frames")
    assert "10 frames" in caught.value.message
    assert moving(children, "mpeg2.ts", FILM, most=10)[1] == 10


def test_frames_beyond_the_end_of_a_film_are_named(children: Pool) -> None:
    with pytest.raises(HubError, match="NumberOfFrames says 12, the video has 10"):
        moving(children, "mpeg2.ts", FILM, [9, 10, 11], frames=12)


def test_pictures_of_odd_and_unlike_sizes_become_one_film(children: Pool) -> None:
    pictures = []
    for size in ((31, 17), (31, 17), (62, 10), (5, 5)):
        out = io.BytesIO()
        Pictures.new("L", size, 200).save(out, "PNG")
        pictures.append(out.getvalue())
    _, data = children.run({"do": "clip", "durations_us": [33_333] * 4}, *pictures)
    assert sizes(data) == (32, 18)
    found = frames_of(data, 18, 32, children, 4)
    assert abs(float(found[0].mean()) - 200) < 8
    assert float(found[3][:4].mean()) < 20
    assert float(found[3][7:10, 14:17].mean()) > 150


def test_the_index_leads_to_every_frame() -> None:
    frames = [(b"first", True), (b"second", False), (b"3", False)]
    data = write(frames, [10, 10, 20], 64, 48)
    at = int.from_bytes(box(data, "moov/trak/mdia/minf/stbl/stco")[8:12], "big")
    assert data[at : at + 12] == b"firstsecond3"
    assert durations(data) == [(2, 10), (1, 20)]
    assert box(data, "moov/trak/mdia/minf/stbl/stss")[4:] == (1).to_bytes(4, "big") * 2
    assert len(data) == at + 12
