"""What moves, made of frames: a GIF, or a film as MP4 (PS3.18 section 8.7.4), of images and of videos.

The frames of images are rendered one by one and put together; those of a video are decoded and put together in one job of
a child process, because decoding begins at the first frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from adapters.dicomweb.looks import DEFAULT_FRAME_MS, annotation, duration_ms, durations_us
from adapters.dicomweb.negotiation import not_acceptable
from adapters.dicomweb.presentation import Presented
from adapters.pixels.films import MOST_FRAMES
from adapters.pixels.look import Look
from adapters.pixels.pool import Pool
from adapters.pixels.stored import StoredPixels
from hub.errors import Category, HubError
from hub.ports import InstanceRow

if TYPE_CHECKING:
    from adapters.dicomweb.wado import Retrieve

MP4 = "video/mp4"
#: Frames of one GIF, or of one film of images, and their pixels together.
MAX_MOVING = 512
_MAX_MOVING_PIXELS = 256 << 20

#: One picture to be: whose, and of which frame; ``None`` = the one that stands for the instance.
Wanted = tuple[InstanceRow, int | None]


class Movies:
    """Makes moving pictures of instances that *retrieve* opens."""

    def __init__(self, retrieve: Retrieve, pool: Pool) -> None:
        self._retrieve = retrieve
        self._pool = pool

    def of_images(self, wanted: Sequence[Wanted], look: Look, said: frozenset[str], state: Presented | None) -> bytes:
        """Return images as the GIF or MP4 that *look* names; raises HubError(incorrect, 413) beyond the bounds."""
        if len(wanted) > MAX_MOVING:
            raise HubError(
                Category.INCORRECT, f"A moving picture holds up to {MAX_MOVING} frames here.", where="frames",
                remedy="Name the frames.", status=413,
            )  # fmt: skip
        still = replace(look, media_type="image/png")
        pictures: list[bytes] = []
        held: list[int] = []
        pixels = 0
        for row, numbers in _by_row(wanted):
            with self._retrieve.opened(row) as stored:
                shown = annotated(stored, still, said)
                pause = duration_ms(stored.header)
                for number in numbers:
                    pictures.append(picture(self._pool, row, number, stored, shown, state))
                    pixels += _png_pixels(pictures[-1])
                    if pixels > _MAX_MOVING_PIXELS:
                        raise HubError(
                            Category.INCORRECT, "The moving picture would be too large.", where="viewport",
                            remedy="Ask for a smaller viewport.", status=413,
                        )  # fmt: skip
                times = durations_us(stored.header, stored.count, [number or 1 for number in numbers])
                held += times or [DEFAULT_FRAME_MS * 1000] * len(numbers)
        if look.media_type == MP4:
            return self._pool.run({"do": "clip", "durations_us": held}, *pictures)[1]
        return self._pool.run({"do": "animation", "duration_ms": pause}, *pictures)[1]

    def of_video(
        self, wanted: Sequence[Wanted], look: Look, said: frozenset[str], *, frames_said: bool
    ) -> tuple[bytes, str]:
        """Return a video, or frames of it, as the GIF or MP4 that *look* names, and a warning.

        The warning (RFC 9111 section 5.5) is empty unless the whole is shown and NumberOfFrames says another number.
        """
        row = wanted[0][0]
        if any(one is not row for one, _ in wanted):
            raise not_acceptable("Videos move one by one: ask for each instance.")
        numbers = sorted(number for _, number in wanted if number is not None) if frames_said else None
        most = MAX_MOVING if look.media_type == "image/gif" else MOST_FRAMES
        with self._retrieve.opened(row) as stored:
            assert stored.film is not None
            for number in numbers or ():
                stored.check(number)
            shown = range(1, min(stored.count, most) + 1) if numbers is None else numbers
            times = durations_us(stored.header, stored.count, shown) if stored.count <= most else None
            data, count = stored.film.moving(self._pool, numbers, annotated(stored, look, said), times, most=most)
            differs = numbers is None and count != stored.count
            told = f'299 - "NumberOfFrames says {stored.count}, the video has {count} frames."' if differs else ""
            return data, told


def picture(
    pool: Pool, row: InstanceRow, number: int | None, stored: StoredPixels, look: Look, state: Presented | None
) -> bytes:
    """Return one frame as a picture, in the way of a presentation state where there is one."""
    if state is None:
        return stored.picture(pool, number or _representative(stored), look)
    number = state.frame(row, number)
    return stored.picture(pool, number or _representative(stored), look, state.parts)


def annotated(stored: StoredPixels, look: Look, said: frozenset[str]) -> Look:
    """Return *look* with the texts that are asked for."""
    return replace(look, lines=annotation(stored.header, said, look.window)) if said else look


def _representative(stored: StoredPixels) -> int:
    """Return the frame that stands for the instance: the one it names (PS3.3 C.7.6.6), else the one in its middle."""
    named = (stored.header.get("00286010", {}).get("Value") or [0])[0]
    if isinstance(named, int) and 1 <= named <= stored.count:
        return named
    return (stored.count + 1) // 2 if stored.film is None else stored.film.representative


def _by_row(wanted: Sequence[Wanted]) -> Iterator[tuple[InstanceRow, list[int | None]]]:
    """Yield each instance once with its frames, in order."""
    row: InstanceRow | None = None
    numbers: list[int | None] = []
    for one, number in wanted:
        if row is not None and one is not row:
            yield row, numbers
            numbers = []
        row = one
        numbers.append(number)
    if row is not None:
        yield row, numbers


def _png_pixels(data: bytes) -> int:
    # Width and height of the IHDR chunk, which is the first (PNG, section 11.2.2).
    return int.from_bytes(data[16:20], "big") * int.from_bytes(data[20:24], "big")
