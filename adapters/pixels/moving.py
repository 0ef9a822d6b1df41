"""GIF and MP4 of the frames of a film, and MP4 of pictures that are made already; runs in a child process only.

A film is decoded once from its beginning; each frame that is wanted is rendered as a still of it would be.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from PIL import Image as Pictures

from adapters.pixels import film
from adapters.pixels.image import Image
from adapters.pixels.look import Look
from adapters.pixels.render import animation, as_file, drawn
from hub.errors import Category, HubError

MP4 = "video/mp4"


def of_film(stream: bytes, image: Image, header: bytes, head: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Return the frames of a film as one moving picture, and how many frames the film has.

    Args:
        head: of the job: ``numbers`` of the frames, or ``None`` for all; ``count`` of the header; ``target``, a media
            type; ``most`` frames, and ``most_pixels`` of all together; ``durations_us``, or ``None`` for the stream's.
    """
    one = film.Film(stream, image)
    look = replace(Look.of(head["look"]), media_type="image/png")
    numbers: Sequence[int] = head["numbers"] or range(1, head["most"] + 1)
    made = _pictures(one, numbers, header, look, head)
    first = next(made, None)
    if first is None:
        raise film.short(one.count, numbers[0], head["count"])
    said = head["durations_us"]
    if head["target"] == MP4:
        durations = said or film.even(one.rate, len(numbers))
        data = film.clip(
            chain([first], made), [durations[min(place, len(durations) - 1)] for place in range(len(numbers))]
        )
    else:
        pause = said[0] if said else 1_000_000 / one.rate
        data = animation(
            [as_file(each, look) for each in chain([first], made)], duration_ms=int(min(max(pause / 1000, 20), 10_000))
        )
    if head["numbers"] and one.count < numbers[-1]:
        raise film.short(one.count, one.count + 1, head["count"])
    return {"count": one.count if head["numbers"] else one.rest()}, data


def of_pictures(pictures: Sequence[bytes], durations_us: Sequence[int]) -> bytes:
    """Return PNG *pictures* as an MP4."""
    return film.clip((Pictures.open(io.BytesIO(data)) for data in pictures), durations_us)


def _pictures(
    one: film.Film, numbers: Sequence[int], header: bytes, look: Look, head: Mapping[str, Any]
) -> Iterator[Pictures.Image]:
    pixels = 0
    for number, array in one.frames(numbers):
        shown, _ = drawn(array, one.shown, header, number, look)
        pixels += shown.width * shown.height
        if pixels > head["most_pixels"]:
            raise HubError(
                Category.INCORRECT, f"The moving picture would be too large: {number} frames reach the bound.",
                where="viewport",
            )  # fmt: skip
        yield shown
    if not head["numbers"] and one.count >= head["most"] < one.rest():
        raise HubError(
            Category.INCORRECT, f"The video has {one.count} frames; a moving picture holds up to {head['most']} here.",
            where="frames",
        )  # fmt: skip
