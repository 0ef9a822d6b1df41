"""WADO-RS: pictures for people, rendered from frames, and thumbnails (PS3.18 sections 8.3.5, 10.4.1.1.3, 10.4.1.1.5).

What is no image goes out as it is inside the object: video and PDF. Several pictures are a multipart, or one GIF or MP4
that moves; videos are decoded for these and for single pictures (:mod:`adapters.pixels.film`). A study or series asked for as a single picture is shown by one in its middle.
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
from adapters.dicomweb.looks import look_of, wrong
from adapters.dicomweb.movies import MAX_MOVING, MP4, Movies, Wanted, annotated, picture
from adapters.dicomweb.multipart import MultipartBody, Part
from adapters.dicomweb.negotiation import Accepted, accepted, not_acceptable
from adapters.dicomweb.presentation import Presented, has_image, images_of, is_state, read
from adapters.dicomweb.wado import Retrieve, frame_numbers, uids
from adapters.pixels.frames import within
from adapters.pixels.look import Look
from adapters.pixels.pool import Pool
from adapters.pixels.syntaxes import video
from hub.errors import Category, HubError
from hub.ports import InstanceRow

if TYPE_CHECKING:
    from hub.boot import Services

#: Media types of pictures, the default first (PS3.18 table 8.7.4-1).
IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif")
_PDF = "application/pdf"
#: Pictures of one answer.
_MAX_PICTURES = 1000
_THUMBNAIL = Look(size=(128, 128), enlarge=False)
_THUMBNAIL_AGE_S = 3600
#: RFC 9111 section 5.5 has retired the header for caches; PS3.18 tables 10.4.3-2 still name it for such notes.
_SIGN_WARNING = '299 - "The picture is a sign for a video that is not decoded here; ask for /rendered to play it."'
#: Begins the entity tags; a change of how pictures are made must change them all.
_MAKER = "2"


class Rendered:
    """The handlers of rendered resources over one set of services."""

    def __init__(self, services: Services, retrieve: Retrieve, pool: Pool, renderers: Workers) -> None:
        self._services = services
        self._retrieve = retrieve
        self._pool = pool
        self._renderers = renderers
        self._movies = Movies(retrieve, pool)

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
        chosen, media_type = image_type(ranges, film=moves(wanted))
        look = replace(look, media_type=media_type)
        several = len(wanted) > 1 or chosen.multipart
        if media_type == MP4 or (media_type == "image/gif" and not chosen.multipart):
            return self.moving(
                request, wanted, look, said, frames_said=numbers is not None, state=state, multipart=chosen.multipart
            )
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
            return self._of_film(request, films[len(films) // 2], numbers[0] if numbers else None, look, headers)
        return self.single(request, *wanted[len(wanted) // 2], look, frozenset(), headers, state)

    def _of_film(
        self, request: Request, row: InstanceRow, number: int | None, look: Look, headers: Mapping[str, str]
    ) -> Response:
        """Return a frame of a video, or a sign for it where none can be decoded and no certain one is asked for."""
        try:
            return self.single(request, row, number, look, frozenset(), headers)
        except HubError as error:
            if number is not None or error.category is not Category.UNSUPPORTED:
                raise
        return self._sign(request, look, headers)

    def _sign(self, request: Request, look: Look, headers: Mapping[str, str]) -> Response:
        """Return a sign that stands for a film, of which no frame can be decoded here."""
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
        multipart: bool = False,
    ) -> Response:
        """Return a GIF or MP4 of the frames asked for, of all frames of an instance, or of the instances of a series."""
        etag = _etag(wanted, look, said, state)
        if _unchanged(request, etag):
            return _not_modified(request, etag)
        kept = {"Cache-Control": "private, no-cache", "ETag": etag}
        if video(wanted[0][0].TransferSyntaxUID):
            if state is not None:
                raise not_acceptable("Presentation states are not drawn on videos: ask for the video without one.")
            data, warning = self._movies.of_video(wanted, look, said, frames_said=frames_said)
            kept |= {"Warning": warning} if warning else {}
        else:
            if len(wanted) == 1 and not frames_said and state is None:
                row = wanted[0][0]
                # The header may say any number; one more than may move is enough to be refused.
                count = min(max(row.NumberOfFrames or 1, 1), MAX_MOVING + 1)
                wanted = [(row, number) for number in range(1, count + 1)]
            data = self._movies.of_images(wanted, look, said, state)
        if multipart:
            part = Part(content_type=look.media_type, size=len(data), content=lambda: iter((data,)))
            body = MultipartBody([part], look.media_type)
            return stream(request, body, body.size, body.content_type, headers=kept)
        return Response(data, headers={**echo_headers(request), **kept, "Content-Type": look.media_type})

    def passed_on(self, request: Request, row: InstanceRow, ranges: Sequence[Accepted]) -> Response | None:
        """Return the video or document that the instance wraps; ``None`` where a picture is to be made."""
        if has_image(row):
            return None
        film = video(row.TransferSyntaxUID)
        stored = self._retrieve.opened(row)
        try:
            if film:
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
            made = (*IMAGE_TYPES, MP4) if film else ()
            chosen = next((one for one in ranges if any(map(one.takes, (media_type, *made)))), None)
            if chosen is None:
                raise not_acceptable(f"Ask for {', '.join(dict.fromkeys((media_type, *made)))}.")
            if not chosen.takes(media_type):
                # It is decoded for the answer.
                stored.__exit__()
                return None
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
            yield picture(self._pool, row, number, stored, annotated(stored, look, said), state)

    def _of_state(self, request: Request, row: InstanceRow, subtype: str) -> tuple[Presented, Sequence[Wanted]]:
        actor = actor_of(request, self._services, shared=True)
        state = read(self._retrieve, row)
        return state, images_of(self._services, actor, row, state, subtype=subtype)


def _wanted(rows: Sequence[InstanceRow], numbers: Sequence[int] | None) -> list[Wanted]:
    images = [row for row in rows if has_image(row)] or [row for row in rows if video(row.TransferSyntaxUID)]
    if not images:
        raise not_acceptable("There is no image to render; retrieve the instance itself.")
    return [(row, None) for row in images] if numbers is None else [(rows[0], number) for number in numbers]


def moves(wanted: Sequence[Wanted]) -> bool:
    """Return whether there is more than one frame to show, so that there can be a film of them."""
    return len(wanted) > 1 or any(number is None and (row.NumberOfFrames or 1) > 1 for row, number in wanted)


def image_type(ranges: Sequence[Accepted], *, film: bool = False) -> tuple[Accepted, str]:
    """Return the first range that takes a picture, or a *film*, and its media type; raises HubError(unsupported, 406)."""
    types = (*IMAGE_TYPES, MP4) if film else IMAGE_TYPES
    for one in ranges:
        for media_type in types:
            if one.takes(media_type):
                return one, media_type
    raise not_acceptable(f"Ask for one of {', '.join(types)}.")


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
