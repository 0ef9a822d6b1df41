"""The video of one stored object, seen from the door: what of it is decoded, and what is made of it.

Decodes nothing itself. The stream goes to a child process as it is read; how long it may be follows from the memory that
a child may use, which holds it twice for a moment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adapters.pixels.look import Look
from adapters.pixels.pool import Pool, Streamed
from adapters.pixels.syntaxes import EXPLICIT_LITTLE
from hub.errors import Category, HubError

if TYPE_CHECKING:
    from adapters.pixels.stored import StoredPixels

#: Share of a child's memory that a stream may have.
_SHARE = 4
#: Decoded frames that are kept at once; the stream is decoded from its beginning for each lot.
_LOT_BYTES = 64 << 20
#: Frames that one request has decoded without being rendered.
_MOST_DECODED = 300
#: Frames of one GIF or MP4, and their pixels together: three minutes, or half a minute in full HD.
MOST_FRAMES = 4500
MOST_PIXELS = 2 << 30
#: A film shows best in its middle; further in than this, decoding to there would take too long for one picture.
_REPRESENTATIVE = 150


class Film:
    """The video of *stored*."""

    def __init__(self, stored: StoredPixels) -> None:
        self._stored = stored
        self._plan: Sequence[int] = ()
        self._lot: dict[int, bytes] = {}
        self._shown: Mapping[str, Any] = {}

    @property
    def representative(self) -> int:
        """Number of the frame that stands for the film."""
        return min((self._stored.count + 1) // 2, _REPRESENTATIVE)

    def plan(self, numbers: Sequence[int]) -> None:
        """Say which frames :meth:`transcoded` will be asked for, so that they are decoded together.

        Raises:
            HubError: incorrect (413) where they are too many.
        """
        if len(numbers) > _MOST_DECODED:
            raise HubError(
                Category.INCORRECT, f"Up to {_MOST_DECODED} frames of a video are decoded at once.", where="frames",
                remedy="Name the frames, or ask for the video as stored or rendered.", status=413,
            )  # fmt: skip
        self._plan = sorted(set(numbers))

    def transcoded(self, pool: Pool, number: int, target: str) -> tuple[bytes, Mapping[str, Any]]:
        """Return frame *number* in *target*, and its photometric interpretation and planar configuration."""
        data = self._decoded(pool, number)
        if target == EXPLICIT_LITTLE:
            return data, {"photometric": self._shown["photometric"], "planar": self._shown["planar"]}
        head = {"do": "frame", "image": self._shown, "syntax": EXPLICIT_LITTLE, "target": target}
        answer, data = pool.run(head, data)
        return data, answer

    def _decoded(self, pool: Pool, number: int) -> bytes:
        self._stored.check(number)
        if number not in self._lot:
            image = self._stored.image
            most = max(_LOT_BYTES // image.frame_bytes, 1)
            later = [one for one in self._plan if one > number]
            numbers = [number, *later[: most - 1]]
            head = {
                "do": "film-frames", "image": image.as_json(), "numbers": numbers, "count": self._stored.count,
            }  # fmt: skip
            answer, data = pool.run(head, self._stream(pool))
            self._shown = answer["image"]
            size = len(data) // len(numbers)
            self._lot = {one: data[place * size : (place + 1) * size] for place, one in enumerate(numbers)}
        return self._lot[number]

    def picture(self, pool: Pool, number: int, look: Look) -> bytes:
        """Return frame *number* rendered."""
        self._stored.check(number)
        head = {
            "do": "film-picture", "image": self._stored.image.as_json(), "number": number, "look": look.as_json(),
            "count": self._stored.count,
        }  # fmt: skip
        _, data = pool.run(head, self._stored.rendering_header, self._stream(pool))
        return data

    def moving(
        self, pool: Pool, numbers: Sequence[int] | None, look: Look, durations_us: Sequence[int] | None, *, most: int
    ) -> tuple[bytes, int]:
        """Return frames as the GIF or MP4 that *look* names, and how many frames the film has.

        Args:
            numbers: rising; ``None`` = all that the stream has, whatever the header says.
            durations_us: how long each is shown; ``None`` = as the stream says.
            most: frames; more are refused.
        """
        for number in numbers or ():
            self._stored.check(number)
        head = {
            "do": "film-moving", "image": self._stored.image.as_json(), "numbers": numbers, "look": look.as_json(),
            "count": self._stored.count, "target": look.media_type, "durations_us": durations_us, "most": most,
            "most_pixels": MOST_PIXELS,
        }  # fmt: skip
        answer, data = pool.run(head, self._stored.rendering_header, self._stream(pool))
        return data, answer["count"]

    def _stream(self, pool: Pool) -> Streamed:
        pieces = self._stored.pieces(self._stored.pixels)
        size, most = sum(length for _, length in pieces), pool.memory_bytes // _SHARE
        if size > most:
            raise HubError(
                Category.UNSUPPORTED,
                f"A video of {size} bytes is longer than the {most} that are decoded here (a quarter of"
                " pixel_memory_bytes).",
                where="(7FE0,0010)",
                remedy="Retrieve the video as stored.",
                status=406,
            )
        return Streamed(size, lambda: self._stored.chunks(pieces))
