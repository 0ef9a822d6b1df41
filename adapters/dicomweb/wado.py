"""WADO-RS: retrieving studies, series, instances, metadata, frames and bulk data (PS3.18 section 10.4).

Objects go out as they came in, byte for byte, in chunks from the object store. Nothing is transcoded here: an asker who
names another transfer syntax than the stored one gets 406.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from adapters._http import Workers, actor_of, echo_headers
from adapters.dicomweb import frames as pixels
from adapters.dicomweb.errors import uid
from adapters.dicomweb.multipart import MultipartBody, Part
from adapters.dicomweb.negotiation import JSON_TYPE, Accepted, accepted, not_acceptable, require_json
from fhir_mappings.dicom.elements import BINARY_VRS, Element
from fhir_mappings.dicom.scanner import DEFLATED, scan
from fhir_mappings.json import loads
from hub.errors import Category, HubError
from hub.ports import InstanceRow

if TYPE_CHECKING:
    from hub.boot import Services

_DICOM = "application/dicom"
_OCTETS = "application/octet-stream"
_CHUNK_BYTES = 1 << 20
#: Frames one request may name.
_MAX_FRAMES = 1000
#: Frames and bulk values that must be changed on their way out (big endian, deflated) are held whole, up to this size.
_MAX_HELD_BYTES = 256 << 20


class Retrieve:
    """The retrieve handlers over one set of services."""

    def __init__(self, services: Services, workers: Workers) -> None:
        self._services = services
        self._workers = workers

    # --- whole objects ---------------------------------------------------------------------------------------

    async def objects(self, request: Request) -> Response:
        """GET /studies/{study}[/series/{series}[/instances/{instance}]]"""
        return await self._workers.run(lambda: self._objects(request))

    def _objects(self, request: Request) -> Response:
        actor = actor_of(request, self._services)
        wanted = [one for one in accepted(request) if one.takes(_DICOM)]
        if not wanted:
            raise not_acceptable(f'Ask for multipart/related; type="{_DICOM}".')
        rows = self._services.imaging.retrieve(actor, *_uids(request), owner=request.path_params.get("owner"))
        chosen, fitting = _by_syntax(wanted, rows)
        single = not chosen.multipart and chosen.media_type == _DICOM and len(rows) == 1
        if single:
            row = fitting[0]
            return self._stream(
                request,
                self._services.objects.stream(row.digest, chunk_bytes=_CHUNK_BYTES),
                row.size,
                f"{_DICOM}; transfer-syntax={row.TransferSyntaxUID}",
                # A Part 10 preamble can make a file executable too, so browsers must not guess (PS3.10 section 7.1).
                headers={"Content-Disposition": "attachment"},
            )
        body = MultipartBody(
            [
                Part(
                    content_type=f"{_DICOM}; transfer-syntax={row.TransferSyntaxUID}",
                    size=row.size,
                    content=partial(self._services.objects.stream, row.digest, chunk_bytes=_CHUNK_BYTES),
                )
                for row in fitting
            ],
            _DICOM,
        )
        # 206: some of what was asked for is not available in an acceptable form (PS3.18 table 10.4.3-1).
        status = 200 if len(fitting) == len(rows) else 206
        return self._stream(request, body, body.size, body.content_type, status=status)

    def _stream(
        self,
        request: Request,
        content: Iterable[bytes],
        size: int,
        content_type: str,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        return StreamingResponse(
            _started(content),
            status_code=status,
            headers={
                **echo_headers(request),
                "Content-Type": content_type,
                "Content-Length": str(size),
                "X-Content-Type-Options": "nosniff",
                "Cache-Control": "private, no-cache",
                **(headers or {}),
            },
        )

    # --- metadata --------------------------------------------------------------------------------------------

    async def metadata(self, request: Request) -> Response:
        """GET .../metadata of a study, series or instance"""
        return await self._workers.run(lambda: self._metadata(request))

    def _metadata(self, request: Request) -> Response:
        require_json(request)
        actor = actor_of(request, self._services)
        study, series, instance = _uids(request)
        owner = request.path_params.get("owner")
        if instance is not None:
            rows = self._services.imaging.retrieve(
                actor, study, series, instance, owner=owner, attributes=True, subtype="WADO-RS metadata"
            )
            body = b"[" + b",".join(self._services.imaging.instance_metadata(row) for row in rows) + b"]"
            return Response(body, media_type=JSON_TYPE, headers=echo_headers(request))
        etag, contents = self._services.imaging.metadata(actor, study, series, owner=owner)
        # Weak, because the same metadata goes out with and without compression.
        headers = {
            **echo_headers(request),
            "ETag": f'W/"{etag}"',
            "Cache-Control": "private, no-cache",
            "Vary": "Accept-Encoding",
        }
        if f'"{etag}"' in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if len(contents) == 1:
            packed = contents[0]()
            if "gzip" in request.headers.get("accept-encoding", "").lower():
                return Response(packed, media_type=JSON_TYPE, headers={**headers, "Content-Encoding": "gzip"})
            return Response(gzip.decompress(packed), media_type=JSON_TYPE, headers=headers)
        return StreamingResponse(_started(_joined(contents)), media_type=JSON_TYPE, headers=headers)

    # --- frames ----------------------------------------------------------------------------------------------

    async def frames(self, request: Request) -> Response:
        """GET .../instances/{instance}/frames/{frames}"""
        return await self._workers.run(lambda: self._frames(request))

    def _frames(self, request: Request) -> Response:
        actor = actor_of(request, self._services)
        numbers = _frame_numbers(request.path_params["frames"])
        (row,) = self._services.imaging.retrieve(
            actor,
            *_uids(request),
            owner=request.path_params.get("owner"),
            attributes=True,
            subtype="WADO-RS frames",
        )
        return self._pixels(request, row, numbers)

    def _pixels(self, request: Request, row: InstanceRow, numbers: Sequence[int] | None) -> Response:
        count = max(row.NumberOfFrames or 1, 1)
        if numbers is None:
            numbers = range(1, count + 1)
        if any(not 1 <= number <= count for number in numbers):
            raise HubError(
                Category.NOT_FOUND, f"The instance has {count} frames.", where="frames", remedy="Count frames from 1."
            )
        header: dict[str, Any] = loads(row.attributes)
        with self._open(row) as (stream, offset):
            compressed = pixels.is_encapsulated(stream, offset)
            syntax = row.TransferSyntaxUID if compressed else pixels.EXPLICIT_LITTLE
            own_type = pixels.MEDIA_TYPES.get(syntax, _OCTETS) if compressed else _OCTETS
            chosen, media_type = _frame_type(accepted(request), own_type, syntax)
            if compressed:
                layout = pixels.encapsulated_frames(stream, header, offset, count)
                sizes = {number: sum(length for _, length in layout[number - 1]) for number in numbers}
                contents: dict[int, Callable[[], Iterable[bytes]]] = {
                    number: partial(self._pieces, row.digest, layout[number - 1]) for number in numbers
                }
            else:
                size = len(pixels.native_frame(stream, header, offset, row.TransferSyntaxUID, numbers[0]))
                sizes = dict.fromkeys(numbers, size)
                contents = {number: partial(self._native, row, header, number) for number in numbers}
        content_type = f"{media_type}; transfer-syntax={syntax}"
        if not chosen.multipart and chosen.media_type != "*/*" and len(numbers) == 1:
            return self._stream(request, contents[numbers[0]](), sizes[numbers[0]], content_type)
        parts = [Part(content_type=content_type, size=sizes[n], content=contents[n]) for n in numbers]
        body = MultipartBody(parts, media_type)
        return self._stream(request, body, body.size, body.content_type)

    def _open(self, row: InstanceRow) -> _Pixels:
        return _Pixels(self._services.objects.open(row.digest), row)

    def _native(self, row: InstanceRow, header: Mapping[str, Any], number: int) -> Iterator[bytes]:
        with self._open(row) as (stream, offset):
            yield pixels.native_frame(stream, header, offset, row.TransferSyntaxUID, number)

    def _pieces(self, digest: str, pieces: pixels.Pieces) -> Iterator[bytes]:
        for start, length in pieces:
            yield from self._range(digest, start, length)

    def _range(self, digest: str, start: int, length: int) -> Iterator[bytes]:
        with self._services.objects.open(digest) as stream:
            stream.seek(start)
            while length > 0:
                data = stream.read(min(length, _CHUNK_BYTES))
                if not data:
                    raise HubError(Category.FAULT, "The object ends before its element does.")
                length -= len(data)
                yield data

    # --- bulk data -------------------------------------------------------------------------------------------

    async def bulk(self, request: Request) -> Response:
        """GET .../instances/{instance}/bulk/{path}: the BulkDataURI of metadata"""
        return await self._workers.run(lambda: self._bulk(request))

    def _bulk(self, request: Request) -> Response:
        actor = actor_of(request, self._services)
        steps = _steps(request.path_params["path"])
        (row,) = self._services.imaging.retrieve(
            actor, *_uids(request), owner=request.path_params.get("owner"), attributes=True, subtype="WADO-RS bulkdata"
        )
        with self._services.objects.open(row.digest) as stream:
            scanned = scan(stream)
            element = _find(scanned.dataset, steps)
            if element.fragments:
                return self._pixels(request, row, None)
            if scanned.deflated or not scanned.little_endian:
                data = _held(stream, element, deflated=scanned.deflated, big=not scanned.little_endian)
            else:
                data = None
        ranges = [one for one in accepted(request) if one.takes(_OCTETS)]
        if not ranges:
            raise not_acceptable(f"Ask for {_OCTETS}.")
        size = element.length if data is None else len(data)
        start, length = _byte_range(request.headers.get("range", ""), size)
        content: Callable[[], Iterable[bytes]]
        if data is None:
            content = partial(self._range, row.digest, element.offset + start, length)
        else:
            content = partial(_one, data[start : start + length])
        if ranges[0].multipart:
            if length != size:
                start, length = 0, size
                content = (
                    partial(self._range, row.digest, element.offset, size) if data is None else partial(_one, data)
                )
            body = MultipartBody([Part(content_type=_OCTETS, size=length, content=content)], _OCTETS)
            return self._stream(request, body, body.size, body.content_type)
        headers = {"Accept-Ranges": "bytes"}
        if length != size:
            headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{size}"
        return self._stream(request, content(), length, _OCTETS, status=206 if length != size else 200, headers=headers)


class _Pixels:
    """The stream that holds an instance's pixel data, and where in it the value begins."""

    def __init__(self, stream: BinaryIO, row: InstanceRow) -> None:
        self._stream = stream
        self._row = row

    def __enter__(self) -> tuple[BinaryIO, int]:
        try:
            if self._row.pixel_offset is not None:
                return self._stream, self._row.pixel_offset
            if self._row.TransferSyntaxUID in DEFLATED:
                return self._inflated()
        except BaseException:
            self._stream.close()
            raise
        self._stream.close()
        raise HubError(Category.NOT_FOUND, "The instance has no pixel data.", where="(7FE0,0010)")

    def _inflated(self) -> tuple[BinaryIO, int]:
        import io

        element = next((one for one in scan(self._stream).dataset if one.tag == 0x7FE00010), None)
        if element is None:
            raise HubError(Category.NOT_FOUND, "The instance has no pixel data.", where="(7FE0,0010)")
        return io.BytesIO(_inflate(self._stream, element.offset + element.length)), element.offset

    def __exit__(self, *exc: object) -> None:
        self._stream.close()


def _inflate(stream: BinaryIO, wanted: int) -> bytes:
    """Return the first *wanted* bytes of the inflated data set of a Part 10 file; the scan has bounded them."""
    if wanted > _MAX_HELD_BYTES:
        raise HubError(Category.UNSUPPORTED, "The deflated value is too large.", remedy="Retrieve the whole instance.")
    stream.seek(140)
    stream.seek(144 + int.from_bytes(stream.read(4), "little"))
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(stream.read(), wanted)


def _held(stream: BinaryIO, element: Element, *, deflated: bool, big: bool) -> bytes:
    """Return a value that cannot be sent straight from the object, as little endian bytes."""
    if element.length > _MAX_HELD_BYTES:
        raise HubError(Category.UNSUPPORTED, "The value is too large.", remedy="Retrieve the whole instance.")
    if deflated:
        return _inflate(stream, element.offset + element.length)[element.offset :]
    stream.seek(element.offset)
    data = stream.read(element.length)
    return pixels.swapped(data, BINARY_VRS.get(element.vr, 1)) if big else data


def _one(data: bytes) -> Iterator[bytes]:
    yield data


def _started(content: Iterable[bytes]) -> Iterator[bytes]:
    """Return *content* with its first bytes already fetched, so that what is missing shows before the status goes out."""
    iterator = iter(content)
    first = next(iterator, b"")

    def rest() -> Iterator[bytes]:
        yield first
        yield from iterator

    return rest()


def _joined(contents: Sequence[Callable[[], bytes]]) -> Iterator[bytes]:
    """Return the gzipped JSON arrays of several series as one plain array."""
    yield b"["
    for index, content in enumerate(contents):
        inside = gzip.decompress(content())[1:-1]
        yield (b"," if index and inside else b"") + inside
    yield b"]"


def _uids(request: Request) -> tuple[str, str | None, str | None]:
    study = uid(request, "study")
    assert study is not None
    return study, uid(request, "series"), uid(request, "instance")


def _by_syntax(wanted: Sequence[Accepted], rows: Sequence[InstanceRow]) -> tuple[Accepted, Sequence[InstanceRow]]:
    """Return the first range that fits any stored transfer syntax, and the instances it fits."""
    for one in wanted:
        fitting = [row for row in rows if one.transfer_syntax in {"", row.TransferSyntaxUID}]
        if fitting:
            return one, fitting
    raise not_acceptable("The images are not stored in this transfer syntax; ask with transfer-syntax=*.")


def _frame_type(ranges: Sequence[Accepted], own_type: str, syntax: str) -> tuple[Accepted, str]:
    """Return the range that takes frames of *syntax*, and the media type to name them by."""
    for one in ranges:
        if one.transfer_syntax not in {"", syntax}:
            continue
        # Viewers ask for octets with any transfer syntax and read the syntax from the part's Content-Type.
        for media_type in (own_type, _OCTETS):
            if one.takes(media_type):
                return one, media_type
    raise not_acceptable("The frames are not stored in this form; ask with transfer-syntax=*.")


def _frame_numbers(text: str) -> Sequence[int]:
    parts = text.split(",")
    if len(parts) > _MAX_FRAMES or not all(part.isascii() and part.isdigit() and len(part) <= 9 for part in parts):
        raise HubError(
            Category.INCORRECT, "The frame list is malformed.", where="frames", remedy="Send numbers and commas: 1,2,5."
        )
    return list(dict.fromkeys(int(part) for part in parts))


def _steps(path: str) -> Sequence[int]:
    """Return tag, item, tag, ... of a bulk data path."""
    steps = []
    for index, part in enumerate(path.split("/")):
        try:
            if index % 2 == 0 and len(part) != 8:
                raise ValueError
            steps.append(int(part, 16 if index % 2 == 0 else 10))
        except ValueError:
            raise HubError(Category.INCORRECT, "The bulk data address is malformed.", where="bulk") from None
    return steps


def _find(dataset: list[Element], steps: Sequence[int]) -> Element:
    """Return the element at *steps*, which alternate between tags and item numbers from 1."""
    for index in range(0, len(steps), 2):
        element = next((one for one in dataset if one.tag == steps[index]), None)
        if element is not None and index + 1 == len(steps) and not isinstance(element.value, list):
            return element
        items = element.value if element is not None else None
        if not isinstance(items, list) or index + 1 >= len(steps) or not 1 <= steps[index + 1] <= len(items):
            break
        dataset = items[steps[index + 1] - 1]
    raise HubError(Category.NOT_FOUND, "The instance has no such bulk data.", where="bulk")


def _byte_range(header: str, size: int) -> tuple[int, int]:
    """Return (start, length) of a single-range Range header; the whole where it is absent or of another kind."""
    unit, _, span = header.partition("=")
    low, dash, high = span.partition("-")
    if unit.strip() != "bytes" or not dash or "," in span or len(span) > 40:
        return 0, size
    try:
        if not low.strip():
            length = min(int(high), size)
            return size - length, length
        start = int(low)
        end = min(int(high) if high.strip() else size - 1, size - 1)
    except ValueError:
        return 0, size
    if start > end:
        raise HubError(Category.INCORRECT, "The range lies outside the value.", where="Range", status=416)
    return start, end - start + 1
