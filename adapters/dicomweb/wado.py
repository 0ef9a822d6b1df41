"""WADO-RS: retrieving studies, series, instances, metadata, frames and bulk data (PS3.18 section 10.4).

Objects and frames go out as they came in, byte for byte, in chunks from the object store, unless the asker names another
transfer syntax than the stored one. Then they are turned into it without loss, frame by frame, where that can be done
(:mod:`adapters.pixels`), and refused with 406 and a list of what can be done where it cannot.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from adapters._http import Workers, actor_of, echo_headers
from adapters.dicomweb import media
from adapters.dicomweb.ahead import ahead
from adapters.dicomweb.archive import DISPOSITION, ZIP_TYPE, ZipBody, at_most, named
from adapters.dicomweb.bodies import names, ranged, started, stream
from adapters.dicomweb.errors import uid
from adapters.dicomweb.held import Pixels
from adapters.dicomweb.multipart import MultipartBody, Part
from adapters.dicomweb.negotiation import (
    JSON_TYPE,
    XML_TYPE,
    Accepted,
    accepted,
    not_acceptable,
    takes_gzip,
    wants_xml,
)
from adapters.dicomweb.offers import by_syntax, frame_type
from adapters.dicomweb.parameters import truth
from adapters.pixels import frames as pixels
from adapters.pixels.pool import Pool
from adapters.pixels.stored import StoredPixels
from adapters.pixels.syntaxes import EXPLICIT_LITTLE, video
from fhir_mappings.dicom import xml_model
from fhir_mappings.dicom.scanner import DEFLATED
from fhir_mappings.json import loads
from hub.errors import Category, HubError
from hub.ports import InstanceRow

if TYPE_CHECKING:
    from hub.boot import Services

_DICOM = "application/dicom"
#: Asks for a DICOMDIR in the archive; dcm4chee's archive has the same parameter (PS3.18 names none).
_DIRECTORY = "dicomdir"
_CHUNK_BYTES = 1 << 20
#: Frames one request may name.
_MAX_FRAMES = 1000


class Retrieve:
    """The retrieve handlers over one set of services."""

    def __init__(self, services: Services, workers: Workers, pool: Pool, renderers: Workers) -> None:
        self._services = services
        self._workers = workers
        self._pool = pool
        #: Threads that wait for decoders, apart from those that find and send.
        self._renderers = renderers

    # --- whole objects ---------------------------------------------------------------------------------------

    async def objects(self, request: Request) -> Response:
        """GET /studies/{study}[/series/{series}[/instances/{instance}]]"""
        return await self._workers.run(lambda: self._objects(request))

    def _objects(self, request: Request) -> Response:
        actor = actor_of(request, self._services, shared=True)
        wanted = [one for one in accepted(request) if one.takes(_DICOM) or _zipped(one)]
        if not wanted:
            raise not_acceptable(f'Ask for multipart/related; type="{_DICOM}", or for {ZIP_TYPE}.')
        with_directory = truth(_DIRECTORY, request.query_params.get(_DIRECTORY, "false"))
        if with_directory:
            wanted = [one for one in wanted if _zipped(one)]
            if not wanted:
                raise not_acceptable(f"Ask for {ZIP_TYPE}, which is what a DICOMDIR can be in.")
        rows = self._services.imaging.retrieve(actor, *uids(request), owner=request.path_params.get("owner"))
        chosen, fitting = by_syntax(wanted, rows)
        if not chosen.multipart and chosen.media_type == _DICOM and len(rows) == 1:
            return self.single(request, rows[0], chosen.transfer_syntax or rows[0].TransferSyntaxUID)
        parts = [self.part(row, chosen.transfer_syntax or row.TransferSyntaxUID) for row in fitting]
        # 206: some of what was asked for is not available in an acceptable form (PS3.18 table 10.4.3-1).
        status = 200 if len(fitting) == len(rows) else 206
        if _zipped(chosen):
            listed = self._directory(fitting, chosen.transfer_syntax) if with_directory else []
            names = named(fitting, "" if with_directory else ".dcm")
            files = ZipBody(chain(listed, zip(names, parts, map(at_most, fitting), strict=True)))
            return stream(request, files, None, ZIP_TYPE, status=status, headers={"Content-Disposition": DISPOSITION})
        body = MultipartBody(parts, _DICOM)
        return stream(request, body, body.size, body.content_type, status=status)

    def _directory(self, rows: Sequence[InstanceRow], syntax: str) -> list[tuple[str, Part, int]]:
        """Return the DICOMDIR of *rows* as a file of the archive."""
        names = {(row.SOPInstanceUID, row.digest): name for row, name in zip(rows, named(rows, ""), strict=True)}
        data = media.directory(
            media.File(name=names[row.SOPInstanceUID, row.digest], row=row, syntax=syntax or row.TransferSyntaxUID)
            for row in self._services.imaging.headers(rows)
        )
        return [(media.NAME, Part(content_type="", size=len(data), content=partial(_one, data)), len(data))]

    def part(self, row: InstanceRow, syntax: str) -> Part:
        """Return the instance in *syntax*: the stored bytes where they are in it, else turned into it as it is sent."""
        content_type = f"{_DICOM}; transfer-syntax={syntax}"
        if syntax == row.TransferSyntaxUID:
            content = partial(self._services.objects.stream, row.digest, chunk_bytes=_CHUNK_BYTES)
            return Part(content_type=content_type, size=row.size, content=content)
        return Part(content_type=content_type, size=None, content=partial(self._transcoded, row, syntax))

    def single(self, request: Request, row: InstanceRow, syntax: str) -> Response:
        """Return one object that is not wrapped in a multipart; a stored one can be had in ranges."""
        # A Part 10 preamble can make a file executable too, so browsers must not guess (PS3.10 section 7.1).
        headers = {"Content-Disposition": "attachment"}
        part = self.part(row, syntax)
        if part.size is None:
            return stream(request, part.content(), None, part.content_type, headers=headers)
        content = partial(self.cut, row.digest)
        return ranged(request, content, part.size, part.content_type, etag=row.digest, headers=headers)

    def _transcoded(self, row: InstanceRow, syntax: str) -> Iterator[bytes]:
        with self.opened(row) as stored:
            yield from stored.transcode(self._pool, syntax, row.digest)

    def opened(self, row: InstanceRow) -> StoredPixels:
        """Return the object opened for its pixels."""
        return StoredPixels(
            self._services.objects.open(row.digest),
            max_frame_bytes=self._services.settings.max_frame_bytes,
            attributes=row.attributes,
        )

    # --- metadata --------------------------------------------------------------------------------------------

    async def metadata(self, request: Request) -> Response:
        """GET .../metadata of a study, series or instance"""
        return await self._workers.run(lambda: self._metadata(request))

    def _metadata(self, request: Request) -> Response:
        xml = wants_xml(request)
        actor = actor_of(request, self._services, shared=True)
        study, series, instance = uids(request)
        owner = request.path_params.get("owner")
        if instance is not None:
            rows = self._services.imaging.retrieve(
                actor, study, series, instance, owner=owner, attributes=True, subtype="WADO-RS metadata"
            )
            bodies = [self._services.imaging.instance_metadata(row) for row in rows]
            if xml:
                return self._documents(request, lambda: map(loads, bodies), {})
            return Response(b"[" + b",".join(bodies) + b"]", media_type=JSON_TYPE, headers=echo_headers(request))
        etag, contents = self._services.imaging.metadata(actor, study, series, owner=owner)
        if xml:
            etag += "-xml"
        # Weak, because the same metadata goes out with and without compression.
        headers = {
            **echo_headers(request),
            "ETag": f'W/"{etag}"',
            "Cache-Control": "private, no-cache",
            "Vary": "Accept, Accept-Encoding",
        }
        if names(request.headers.get("if-none-match", ""), f'"{etag}"'):
            return Response(status_code=304, headers=headers)
        if xml:
            return self._documents(
                request, lambda: (one for content in contents for one in loads(gzip.decompress(content()))), headers
            )
        if len(contents) == 1:
            packed = contents[0]()
            if takes_gzip(request):
                return Response(packed, media_type=JSON_TYPE, headers={**headers, "Content-Encoding": "gzip"})
            return Response(gzip.decompress(packed), media_type=JSON_TYPE, headers=headers)
        return StreamingResponse(ahead(started(_joined(contents))), media_type=JSON_TYPE, headers=headers)

    def _documents(
        self, request: Request, datasets: Callable[[], Iterable[Mapping[str, Any]]], headers: Mapping[str, str]
    ) -> Response:
        """Return *datasets* as a multipart of Native DICOM Model documents (PS3.18 section 8.7.3.1, PS3.19 annex A)."""

        def parts() -> Iterator[Part]:
            for one in datasets():
                document = xml_model.write(one)
                yield Part(content_type=XML_TYPE, size=len(document), content=partial(_one, document))

        body = MultipartBody(parts(), XML_TYPE)
        return stream(request, body, None, body.content_type, headers=headers)

    # --- frames ----------------------------------------------------------------------------------------------

    async def frames(self, request: Request) -> Response:
        """GET .../instances/{instance}/frames/{frames}"""
        # Whoever asks for what is stored never waits behind those whose frames are decoded.
        decoding = any(one.transfer_syntax or not one.any_syntax for one in accepted(request))
        return await (self._renderers if decoding else self._workers).run(lambda: self._frames(request))

    def _frames(self, request: Request) -> Response:
        actor = actor_of(request, self._services, shared=True)
        numbers = frame_numbers(request.path_params["frames"])
        (row,) = self._services.imaging.retrieve(
            actor,
            *uids(request),
            owner=request.path_params.get("owner"),
            attributes=True,
            subtype="WADO-RS frames",
        )
        return self.frames_of(request, row, numbers)

    def frames_of(
        self, request: Request, row: InstanceRow, numbers: Sequence[int] | None, *, location: str = ""
    ) -> Response:
        """Return frames of *row*, all where no *numbers* are given; *location* is the BulkDataURI that they are asked by."""
        count = max(row.NumberOfFrames or 1, 1)
        every = numbers is None
        numbers = range(1, count + 1) if numbers is None else numbers
        if not every and any(not 1 <= number <= count for number in numbers):
            raise HubError(
                Category.NOT_FOUND, f"The instance has {count} frames.", where="frames", remedy="Count frames from 1."
            )
        header: dict[str, Any] = loads(row.attributes)
        with self._open(row) as (source, offset):
            compressed = pixels.is_encapsulated(source, offset)
            stored = row.TransferSyntaxUID if compressed else EXPLICIT_LITTLE
            chosen, media_type, syntax = frame_type(accepted(request), stored, row.BitsAllocated or 0)
            if syntax != stored:
                if row.pixel_offset is None and row.TransferSyntaxUID not in DEFLATED:
                    raise not_acceptable(
                        "Frames in floating point are handed out as they are: application/octet-stream."
                    )
                if every and not video(row.TransferSyntaxUID):
                    # The header may say any number; that many frames there must be before each is made a part.
                    pixels.encapsulated_frames(source, header, offset, count)
                return self._recoded(request, row, numbers, chosen, media_type, syntax, location)
            if compressed:
                layout = pixels.encapsulated_frames(source, header, offset, count)
                sizes = {number: sum(length for _, length in layout[number - 1]) for number in numbers}
                contents: dict[int, Callable[[], Iterable[bytes]]] = {
                    number: partial(self._pieces, row.digest, layout[number - 1]) for number in numbers
                }
            else:
                size = len(pixels.native_frame(source, header, offset, row.TransferSyntaxUID, numbers[0]))
                sizes = dict.fromkeys(numbers, size)
                contents = {number: partial(self._native, row, header, number) for number in numbers}
        content_type = f"{media_type}; transfer-syntax={syntax}"
        if not chosen.multipart and chosen.media_type != "*/*" and len(numbers) == 1:
            return stream(request, contents[numbers[0]](), sizes[numbers[0]], content_type)
        parts = [
            Part(content_type=content_type, size=sizes[n], content=contents[n], location=location) for n in numbers
        ]
        body = MultipartBody(parts, media_type)
        return stream(request, body, body.size, body.content_type)

    def _recoded(
        self,
        request: Request,
        row: InstanceRow,
        numbers: Sequence[int],
        chosen: Accepted,
        media_type: str,
        syntax: str,
        location: str,
    ) -> Response:
        """Return frames turned into another transfer syntax; each is decoded alone, when its turn comes."""
        content_type = f"{media_type}; transfer-syntax={syntax}"
        stored = self.opened(row)
        try:
            if stored.film is not None:
                stored.film.plan(numbers)
        except BaseException:
            stored.__exit__()
            raise

        def one(number: int) -> Iterator[bytes]:
            yield stored.transcoded(self._pool, number, syntax)[0]

        if not chosen.multipart and chosen.media_type != "*/*" and len(numbers) == 1:
            with stored:
                data = next(one(numbers[0]))
            return stream(request, [data], len(data), content_type)
        parts = [
            Part(content_type=content_type, size=None, content=partial(one, n), location=location) for n in numbers
        ]
        body = MultipartBody(parts, media_type)

        def whole() -> Iterator[bytes]:
            with stored:
                yield from body

        return stream(request, whole(), None, body.content_type)

    def stored_frames(self, row: InstanceRow) -> Iterator[Callable[[], Iterable[bytes]]]:
        """Yield what gives each frame of a compressed image as it is stored."""
        with self._open(row) as (source, offset):
            layout = pixels.encapsulated_frames(source, loads(row.attributes), offset, max(row.NumberOfFrames or 1, 1))
        for pieces in layout:
            yield partial(self._pieces, row.digest, pieces)

    def _open(self, row: InstanceRow) -> Pixels:
        return Pixels(self._services.objects.open(row.digest), row)

    def _native(self, row: InstanceRow, header: Mapping[str, Any], number: int) -> Iterator[bytes]:
        with self._open(row) as (source, offset):
            yield pixels.native_frame(source, header, offset, row.TransferSyntaxUID, number)

    def _pieces(self, digest: str, pieces: pixels.Pieces) -> Iterator[bytes]:
        for start, length in pieces:
            yield from self.cut(digest, start, length)

    def cut(self, digest: str, start: int, length: int) -> Iterator[bytes]:
        """Yield *length* bytes of an object from *start* on."""
        with self._services.objects.open(digest) as source:
            source.seek(start)
            while length > 0:
                data = source.read(min(length, _CHUNK_BYTES))
                if not data:
                    raise HubError(Category.FAULT, "The object ends before its element does.")
                length -= len(data)
                yield data


def _zipped(one: Accepted) -> bool:
    """Return whether the range names a ZIP file; a wildcard never means one."""
    return one.media_type == ZIP_TYPE and not one.multipart


def _one(data: bytes) -> Iterator[bytes]:
    yield data


def _joined(contents: Sequence[Callable[[], bytes]]) -> Iterator[bytes]:
    """Return the gzipped JSON arrays of several series as one plain array."""
    yield b"["
    for index, content in enumerate(contents):
        inside = gzip.decompress(content())[1:-1]
        yield (b"," if index and inside else b"") + inside
    yield b"]"


def uids(request: Request) -> tuple[str, str | None, str | None]:
    """Return the UIDs of study, series and instance in the address."""
    study = uid(request, "study")
    assert study is not None
    return study, uid(request, "series"), uid(request, "instance")


def frame_numbers(text: str) -> Sequence[int]:
    """Return the numbers of a frame list, each once; raises HubError(incorrect) where it is none."""
    parts = text.split(",")
    if len(parts) > _MAX_FRAMES or not all(part.isascii() and part.isdigit() and len(part) <= 9 for part in parts):
        raise HubError(
            Category.INCORRECT, "The frame list is malformed.", where="frames", remedy="Send numbers and commas: 1,2,5."
        )
    return list(dict.fromkeys(int(part) for part in parts))


def frame_contents(
    retrieve: Retrieve, pool: Pool, row: InstanceRow, syntax: str
) -> Iterator[Callable[[], Iterable[bytes]]]:
    """Yield what gives each frame of a compressed image in *syntax*, as it is stored or turned into it."""
    if syntax == row.TransferSyntaxUID:
        yield from retrieve.stored_frames(row)
        return
    with retrieve.opened(row) as stored:
        for number in range(1, stored.count + 1):
            yield partial(_transcoded_frame, stored, pool, number, syntax)


def _transcoded_frame(stored: StoredPixels, pool: Pool, number: int, syntax: str) -> Iterator[bytes]:
    yield stored.transcoded(pool, number, syntax)[0]
