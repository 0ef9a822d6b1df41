"""WADO-RS: pictures for people, rendered from frames, and thumbnails (PS3.18 sections 8.3.5, 10.4.1.1.3, 10.4.1.1.5).

What is no image goes out as it is inside the object: video and PDF. Several pictures are a multipart, or one GIF that
moves. A study or series asked for as a single picture is shown by one in its middle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from adapters._http import Workers, actor_of, echo_headers
from adapters.dicomweb.bodies import names, ranged, stream
from adapters.dicomweb.looks import annotation, duration_ms, look_of, wrong
from adapters.dicomweb.multipart import MultipartBody, Part
from adapters.dicomweb.negotiation import Accepted, accepted, not_acceptable
from adapters.dicomweb.presentation import Presented, has_image, images_of, is_state, read
from adapters.dicomweb.wado import Retrieve, frame_numbers, uids
from adapters.pixels.frames import within
from adapters.pixels.look import Look
from adapters.pixels.pool import Pool
from adapters.pixels.stored import StoredPixels
from adapters.pixels.syntaxes import video
from hub.errors import Category, HubError
from hub.ports import InstanceRow

if TYPE_CHECKING:
    from hub.boot import Services

#: Media types of pictures, the default first (PS3.18 table 8.7.4-1).
IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif")
_PDF = "application/pdf"
#: Pictures of one answer, and frames of one GIF.
_MAX_PICTURES = 1000
_MAX_MOVING = 512
_MAX_MOVING_PIXELS = 256 << 20
_THUMBNAIL = Look(size=(128, 128), enlarge=False)
_THUMBNAIL_AGE_S = 3600
#: RFC 9111 section 5.5 has retired the header for caches; PS3.18 tables 10.4.3-2 still name it for such notes.
_SIGN_WARNING = '299 - "The picture is a sign for a video; ask for /rendered to play it."'
#: Begins the entity tags; a change of how pictures are made must change them all.
_MAKER = "2"

#: One picture to be: whose, and of which frame; ``None`` = the one that stands for the instance.
Wanted = tuple[InstanceRow, int | None]


class Rendered:
    """The handlers of rendered resources over one set of services."""

    def __init__(self, services: Services, retrieve: Retrieve, pool: Pool, renderers: Workers) -> None:
        self._services = services
        self._retrieve = retrieve
        self._pool = pool
        self._renderers = renderers

    async def rendered(self, request: Request) -> Response:
        """GET .../rendered of a study, series, instance or frames"""
        return await self._renderers.run(lambda: self._rendered(request))

    async def thumbnail(self, request: Request) -> Response:
        """GET .../thumbnail of a study, series, instance or frames"""
        return await self._renderers.run(lambda: self._thumbnail(request))

    def _rows(self, request: Request, subtype: str) -> tuple[Sequence[InstanceRow], Sequence[int] | None]:
        actor = actor_of(request, self._services, shared=True)
        frames = request.path_params.get("frames")
        numbers = frame_numbers(frames) if frames is not None else None
        study, series, instance = uids(request)
        rows = self._services.imaging.retrieve(
            actor,
            study,
            series,
            instance,
            owner=request.path_params.get("owner"),
            attributes=instance is not None,
            subtype=subtype,
        )
        return rows, numbers

    def _rendered(self, request: Request) -> Response:
        look, said = look_of(request.query_params)
        rows, numbers = self._rows(request, "WADO-RS rendered")
        ranges = accepted(request)
        state: Presented | None = None
        wanted: Sequence[Wanted] = ()
        if len(rows) == 1 and numbers is None and is_state(rows[0]):
            if look.window is not None:
                raise wrong("window", "The presentation state says how grey levels are made.")
            state, wanted = self._of_state(request, rows[0], "WADO-RS rendered")
        elif len(rows) == 1 and numbers is None:
            passed = self.passed_on(request, rows[0], ranges)
            if passed is not None:
                return passed
        if state is None:
            wanted = _wanted(rows, numbers)
        if len(wanted) > _MAX_PICTURES:
            raise HubError(
                Category.INCORRECT, f"More than {_MAX_PICTURES} pictures are asked for.", remedy="Ask for each series.",
                status=413,
            )  # fmt: skip
        chosen, media_type = image_type(ranges)
        look = replace(look, media_type=media_type)
        several = len(wanted) > 1 or chosen.multipart
        if media_type == "image/gif" and not chosen.multipart:
            return self.moving(request, wanted, look, said, frames_said=numbers is not None, state=state)
        if not several or (numbers is None and not chosen.multipart and chosen.media_type != "*/*"):
            return self.single(request, *wanted[len(wanted) // 2], look, said, state=state)
        if not chosen.multipart and chosen.media_type != "*/*":
            raise not_acceptable(f'Several pictures are multipart/related; type="{media_type}", or image/gif.')
        etag = _etag(wanted, look, said, state)
        if _unchanged(request, etag):
            return _not_modified(request, etag)
        parts = [
            Part(content_type=media_type, size=None, content=partial(self._made, row, number, look, said, state))
            for row, number in wanted
        ]
        body = MultipartBody(parts, media_type)
        return stream(request, body, None, body.content_type, headers={"ETag": etag})

    def _thumbnail(self, request: Request) -> Response:
        asked, _ = look_of(request.query_params, only=frozenset({"viewport"}))
        look = replace(_THUMBNAIL, source=asked.source)
        if asked.size is not None:
            look = replace(look, size=asked.size, enlarge=True)
        rows, numbers = self._rows(request, "WADO-RS thumbnail")
        state = None
        wanted: Sequence[Wanted] = [(row, numbers[0] if numbers else None) for row in rows if has_image(row)]
        if len(rows) == 1 and numbers is None and is_state(rows[0]):
            state, wanted = self._of_state(request, rows[0], "WADO-RS thumbnail")
        films = [row for row in rows if video(row.TransferSyntaxUID)]
        if not wanted and not films:
            raise HubError(Category.NOT_FOUND, "There is no image to make a thumbnail of.", where="(7FE0,0010)")
        _, media_type = image_type([one for one in accepted(request) if not one.multipart])
        headers = {"Cache-Control": f"private, max-age={_THUMBNAIL_AGE_S}"}
        look = replace(look, media_type=media_type)
        if not wanted:
            return self._sign(request, look, headers)
        return self.single(request, *wanted[len(wanted) // 2], look, frozenset(), headers, state)

    def _sign(self, request: Request, look: Look, headers: Mapping[str, str]) -> Response:
        """Return a sign that stands for a film, of which no frame is decoded here."""
        etag = _etag([], look, frozenset(), kind="film")
        kept = {**headers, "ETag": etag, "Vary": "Accept", "Warning": _SIGN_WARNING}
        if _unchanged(request, etag):
            return _not_modified(request, etag, kept)
        _, data = self._pool.run({"do": "film", "look": look.as_json()})
        return Response(data, headers={**echo_headers(request), **kept, "Content-Type": look.media_type})

    def single(
        self,
        request: Request,
        row: InstanceRow,
        number: int | None,
        look: Look,
        said: frozenset[str],
        headers: Mapping[str, str] | None = None,
        state: Presented | None = None,
    ) -> Response:
        """Return one picture, or 304 where the asker has it."""
        etag = _etag([(row, number)], look, said, state)
        kept = {"Cache-Control": "private, no-cache", **(headers or {}), "ETag": etag, "Vary": "Accept"}
        if _unchanged(request, etag):
            return _not_modified(request, etag, kept)
        (data,) = self._made(row, number, look, said, state)
        return Response(data, headers={**echo_headers(request), **kept, "Content-Type": look.media_type})

    def moving(
        self,
        request: Request,
        wanted: Sequence[Wanted],
        look: Look,
        said: frozenset[str],
        *,
        frames_said: bool,
        state: Presented | None = None,
    ) -> Response:
        """Return a GIF of the frames asked for, of all frames of an instance, or of the instances of a series."""
        etag = _etag(wanted, look, said, state)
        if _unchanged(request, etag):
            return _not_modified(request, etag)
        still = replace(look, media_type="image/png")
        if len(wanted) == 1 and not frames_said and state is None:
            row = wanted[0][0]
            wanted = [(row, number) for number in range(1, max(row.NumberOfFrames or 1, 1) + 1)]
        if len(wanted) > _MAX_MOVING:
            raise HubError(
                Category.INCORRECT, f"A GIF holds up to {_MAX_MOVING} frames here.", where="frames",
                remedy="Name the frames, or ask for the video.", status=413,
            )  # fmt: skip
        pictures: list[bytes] = []
        pixels = 0
        for row, numbers in _by_row(wanted):
            with self._retrieve.opened(row) as stored:
                shown = self._annotated(stored, still, said)
                pause = duration_ms(stored.header)
                for number in numbers:
                    pictures.append(self._picture(row, number, stored, shown, state))
                    pixels += _png_pixels(pictures[-1])
                    if pixels > _MAX_MOVING_PIXELS:
                        raise HubError(
                            Category.INCORRECT, "The GIF would be too large.", where="viewport",
                            remedy="Ask for a smaller viewport.", status=413,
                        )  # fmt: skip
        _, data = self._pool.run({"do": "animation", "duration_ms": pause}, *pictures)
        headers = {
            **echo_headers(request), "Cache-Control": "private, no-cache", "ETag": etag, "Content-Type": "image/gif",
        }  # fmt: skip
        return Response(data, headers=headers)

    def passed_on(self, request: Request, row: InstanceRow, ranges: Sequence[Accepted]) -> Response | None:
        """Return the video or document that the instance wraps; ``None`` where it is an image."""
        if has_image(row):
            return None
        stored = self._retrieve.opened(row)
        try:
            if video(stored.syntax):
                pieces = stored.pieces(stored.pixels)
                media_type = _video_type(next(stored.chunks(pieces), b""))
                size = sum(length for _, length in pieces)
            else:
                element = stored.scanned.top.get(0x00420011)
                media_type = _first(stored.header, "00420012")
                if element is None or media_type != _PDF:
                    raise not_acceptable("The instance has nothing to render; retrieve it as application/dicom.")
                # A padding byte is no part of the document (PS3.3 section C.24.2).
                told = (stored.header.get("00420015", {}).get("Value") or [element.length])[0]
                size = told if isinstance(told, int) and 0 < told <= element.length else element.length
                pieces = [(element.offset, size)]
            chosen = next((one for one in ranges if one.takes(media_type)), None)
            if chosen is None:
                raise not_acceptable(f"Ask for {media_type}.")
        except BaseException:
            stored.__exit__()
            raise

        def content(start: int, length: int) -> Iterator[bytes]:
            with stored:
                yield from stored.chunks(within(pieces, start, length))

        if chosen.multipart:
            whole = partial(content, 0, size)
            body = MultipartBody([Part(content_type=media_type, size=size, content=whole)], media_type)
            return stream(request, body, body.size, body.content_type)
        # A document that a stranger made is kept out of the browser's own pages; a film is played where it stands.
        headers = {"Content-Disposition": "attachment" if media_type == _PDF else "inline"}
        answer = ranged(request, content, size, media_type, etag=row.digest, headers=headers)
        if answer.status_code not in {200, 206}:
            stored.__exit__()
        return answer

    def _made(
        self, row: InstanceRow, number: int | None, look: Look, said: frozenset[str], state: Presented | None
    ) -> Iterator[bytes]:
        with self._retrieve.opened(row) as stored:
            yield self._picture(row, number, stored, self._annotated(stored, look, said), state)

    def _picture(
        self, row: InstanceRow, number: int | None, stored: StoredPixels, look: Look, state: Presented | None
    ) -> bytes:
        if state is None:
            return stored.picture(self._pool, number or _representative(stored), look)
        number = state.frame(row, number)
        return stored.picture(self._pool, number or _representative(stored), look, state.parts)

    def _of_state(self, request: Request, row: InstanceRow, subtype: str) -> tuple[Presented, Sequence[Wanted]]:
        actor = actor_of(request, self._services, shared=True)
        state = read(self._retrieve, row)
        return state, images_of(self._services, actor, row, state, subtype=subtype)

    def _annotated(self, stored: StoredPixels, look: Look, said: frozenset[str]) -> Look:
        return replace(look, lines=annotation(stored.header, said, look.window)) if said else look


def _wanted(rows: Sequence[InstanceRow], numbers: Sequence[int] | None) -> list[Wanted]:
    images = [row for row in rows if has_image(row)]
    if not images:
        raise not_acceptable("There is no image to render; retrieve the instance itself.")
    return [(row, None) for row in images] if numbers is None else [(rows[0], number) for number in numbers]


def image_type(ranges: Sequence[Accepted]) -> tuple[Accepted, str]:
    """Return the first range that takes a picture, and its media type; raises HubError(unsupported, 406)."""
    for one in ranges:
        for media_type in IMAGE_TYPES:
            if one.takes(media_type):
                return one, media_type
    raise not_acceptable(f"Ask for one of {', '.join(IMAGE_TYPES)}.")


def _representative(stored: StoredPixels) -> int:
    """Return the frame that stands for the instance: the one it names (PS3.3 C.7.6.6), else the one in its middle."""
    named = (stored.header.get("00286010", {}).get("Value") or [0])[0]
    return named if isinstance(named, int) and 1 <= named <= stored.count else (stored.count + 1) // 2


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


def _video_type(start: bytes) -> str:
    """Return the media type by what the stream is (PS3.5 sections 8.2.5 to 8.2.8 leave the container open)."""
    if start[4:8] == b"ftyp":
        return "video/mp4"
    return "video/mp2t" if start[:1] == b"\x47" else "video/mpeg"


def _first(header: Mapping[str, Any], tag: str) -> str:
    return str((header.get(tag, {}).get("Value") or [""])[0])


def _etag(
    wanted: Sequence[Wanted], look: Look, said: frozenset[str], state: Presented | None = None, *, kind: str = ""
) -> str:
    parts = [f"{row.digest}/{number}" for row, number in wanted]
    shown = "" if state is None else state.digest
    told = "|".join([_MAKER, kind, *parts, shown, repr(look), *sorted(said)])
    return f'"{hashlib.sha256(told.encode()).hexdigest()[:32]}"'


def _unchanged(request: Request, etag: str) -> bool:
    return names(request.headers.get("if-none-match", ""), etag)


def _not_modified(request: Request, etag: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(status_code=304, headers={**echo_headers(request), "ETag": etag, **(headers or {})})
