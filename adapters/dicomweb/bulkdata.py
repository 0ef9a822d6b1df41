"""Bulk data by WADO-RS: one value, or all values or pixels of a study, series or instance (PS3.18 sections 10.4.1.1.5, 10.4.1.1.6).

Each part of an answer says by Content-Location which BulkDataURI of the metadata it is (section 10.4.3.3.5). Values go out
in pieces from the object store; of all objects that are asked for, one at a time is open.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from adapters._http import Workers, actor_of
from adapters.dicomweb.bodies import ranged, stream
from adapters.dicomweb.held import PIXELS, held
from adapters.dicomweb.multipart import MultipartBody, Part
from adapters.dicomweb.negotiation import Accepted, accepted, not_acceptable
from adapters.dicomweb.offers import frame_type
from adapters.dicomweb.wado import Retrieve, frame_contents, uids
from adapters.pixels.frames import Pieces, fragments, read
from adapters.pixels.image import Image
from adapters.pixels.pool import Pool
from adapters.pixels.syntaxes import EXPLICIT_LITTLE, NATIVE, SYNTAXES
from fhir_mappings.dicom.dataset import bulk_uris
from fhir_mappings.dicom.elements import Element, Scan
from fhir_mappings.dicom.header import header_of
from fhir_mappings.dicom.scanner import scan
from fhir_mappings.json import loads
from hub.errors import Category, HubError
from hub.ports import InstanceRow

if TYPE_CHECKING:
    from hub.boot import Services

_DICOM = "application/dicom"
_OCTETS = "application/octet-stream"
_TAG, _ITEM = re.compile(r"[0-9A-Fa-f]{8}"), re.compile(r"[0-9]{1,9}")


class Bulkdata:
    """The handlers of bulk data over one set of services."""

    def __init__(self, services: Services, workers: Workers, pool: Pool, retrieve: Retrieve) -> None:
        self._services = services
        self._workers = workers
        self._pool = pool
        self._retrieve = retrieve

    # --- one value -------------------------------------------------------------------------------------------

    async def one(self, request: Request) -> Response:
        """GET .../instances/{instance}/bulk/{path}: the BulkDataURI of metadata"""
        return await self._workers.run(lambda: self._one(request))

    def _one(self, request: Request) -> Response:
        actor = actor_of(request, self._services, shared=True)
        path = request.path_params["path"]
        steps = _steps(path)
        (row,) = self._services.imaging.retrieve(
            actor, *uids(request), owner=request.path_params.get("owner"), attributes=True, subtype="WADO-RS bulkdata"
        )
        location = self._location(row, f"bulk/{path}")
        with self._services.objects.open(row.digest) as source:
            scanned = scan(source)
            element = _find(scanned.dataset, steps)
            if element.fragments and len(steps) == 1:
                return self._retrieve.frames_of(request, row, None, location=location)
            if element.fragments:
                return self._picture(request, row, scanned, element, steps, source, location)
            size, content = self._value(row, scanned, element, source)
        ranges = [one for one in accepted(request) if one.takes(_OCTETS)]
        if not ranges:
            raise not_acceptable(f"Ask for {_OCTETS}.")
        if ranges[0].multipart:
            part = Part(content_type=_OCTETS, size=size, content=partial(content, 0, size), location=location)
            body = MultipartBody([part], _OCTETS)
            return stream(request, body, body.size, body.content_type)
        return ranged(request, content, size, _OCTETS, etag=row.digest)

    def _location(self, row: InstanceRow, uri: str) -> str:
        return f"{self._services.imaging.instance_url(row)}/{uri}"

    def _value(
        self, row: InstanceRow, scanned: Scan, element: Element, source: Any
    ) -> tuple[int, Callable[[int, int], Iterable[bytes]]]:
        """Return the length of a value that is no sequence of fragments, and what gives so many bytes from a place on."""
        if scanned.deflated or not scanned.little_endian:
            data = held(source, element, deflated=scanned.deflated, big=not scanned.little_endian)
            return len(data), lambda start, length: iter([data[start : start + length]])
        return element.length, lambda start, length: self._retrieve.cut(row.digest, element.offset + start, length)

    def _picture(
        self,
        request: Request,
        row: InstanceRow,
        scanned: Scan,
        element: Element,
        steps: Sequence[int],
        source: Any,
        location: str,
    ) -> Response:
        native = row.TransferSyntaxUID in NATIVE
        stored = EXPLICIT_LITTLE if native else row.TransferSyntaxUID
        chosen, media_type, syntax = frame_type(accepted(request), stored, row.BitsAllocated or 0)
        part = self._inside(row, scanned, element, steps, source, (media_type, syntax), location)
        if not chosen.multipart and chosen.media_type != "*/*":
            return stream(request, part.content(), part.size, part.content_type)
        body = MultipartBody([part], media_type)
        return stream(request, body, body.size, body.content_type)

    def _inside(
        self,
        row: InstanceRow,
        scanned: Scan,
        element: Element,
        steps: Sequence[int],
        source: Any,
        kind: tuple[str, str],
        location: str,
    ) -> Part:
        """Return compressed pixels that lie in a sequence: one picture of its own, such as an icon (PS3.3 section F.7)."""
        if scanned.deflated or not scanned.little_endian:
            raise not_acceptable("Compressed pixels in a deflated or big endian object; retrieve the whole instance.")
        media_type, syntax = kind
        pieces = fragments(source, element.offset)
        size = sum(length for _, length in pieces)
        content_type = f"{media_type}; transfer-syntax={syntax}"
        if syntax == row.TransferSyntaxUID or row.TransferSyntaxUID in NATIVE:
            # The latter breaks PS3.5 section A.1; the bytes are all that can be told of it.
            content = partial(self._cut, row.digest, pieces)
            return Part(content_type=content_type, size=size, content=content, location=location)
        image = Image.of(_item_of(loads(row.attributes), steps))
        most = self._services.settings.max_frame_bytes
        if max(size, image.frame_bytes) > most:
            raise not_acceptable(f"A picture of more than {most} bytes is not decoded here; ask for transfer-syntax=*.")
        head = {"do": "frame", "image": image.as_json(), "syntax": row.TransferSyntaxUID, "target": syntax}
        _, data = self._pool.run(head, read(source, pieces))
        return Part(content_type=content_type, size=len(data), content=lambda: iter((data,)), location=location)

    def _cut(self, digest: str, pieces: Pieces) -> Iterator[bytes]:
        for start, length in pieces:
            yield from self._retrieve.cut(digest, start, length)

    # --- all of them -----------------------------------------------------------------------------------------

    async def bulkdata(self, request: Request) -> Response:
        """GET .../bulkdata of a study, series or instance: every value that its metadata give a BulkDataURI for"""
        return await self._workers.run(lambda: self._all(request, "WADO-RS bulkdata", lambda _tag: True))

    async def pixeldata(self, request: Request) -> Response:
        """GET .../pixeldata of a study, series or instance: the pixel data of every image"""
        return await self._workers.run(lambda: self._all(request, "WADO-RS pixeldata", PIXELS.__contains__))

    async def objects(self, request: Request) -> Response:
        """GET /studies/{study}[/series/{series}[/instances/{instance}]]

        Who takes octets in parts and no objects means their bulk data (PS3.18 section 10.4.4, kept for history's sake).
        """
        ranges = accepted(request)
        if any(one.multipart and one.media_type == _OCTETS for one in ranges) and not any(
            one.takes(_DICOM) for one in ranges
        ):
            return await self.bulkdata(request)
        return await self._retrieve.objects(request)

    def _all(self, request: Request, subtype: str, wanted: Callable[[int], bool]) -> Response:
        actor = actor_of(request, self._services, shared=True)
        ranges = [one for one in accepted(request) if one.multipart or one.media_type == "*/*"]
        imaging = self._services.imaging
        rows = imaging.retrieve(actor, *uids(request), owner=request.path_params.get("owner"), subtype=subtype)
        # The headers of a study may take gigabytes, so what is kept of each is where its values are.
        holding = [
            (replace(row, attributes=b""), paths) for row in imaging.headers(rows) if (paths := _paths(row, wanted))
        ]
        if not holding:
            raise HubError(Category.NOT_FOUND, "None of the instances has such bulk data.", where=subtype)
        fitting = [(row, paths, kind) for row, paths in holding if (kind := _kind(ranges, row)) is not None]
        if not fitting:
            raise not_acceptable(f'Ask for multipart/related; type="{_OCTETS}"; transfer-syntax=*.')
        parts = chain.from_iterable(self._parts(row, paths, kind) for row, paths, kind in fitting)
        body = MultipartBody(parts, fitting[0][2][0])
        # 206: some of what was asked for is not available in an acceptable form (PS3.18 table 10.4.3-1).
        return stream(request, body, None, body.content_type, status=200 if len(fitting) == len(holding) else 206)

    def _parts(self, row: InstanceRow, paths: Sequence[str], kind: tuple[str, str]) -> Iterator[Part]:
        """Yield the values of one instance; *kind* is the media type and transfer syntax of its compressed frames."""
        media_type, syntax = kind
        with self._services.objects.open(row.digest) as source:
            # Once for all values: a hostile object may have thousands of them.
            scanned = scan(source)
            for path in paths:
                steps, location = _steps(path), self._location(row, f"bulk/{path}")
                element = _find(scanned.dataset, steps)
                if not element.fragments:
                    size, content = self._value(row, scanned, element, source)
                    yield Part(content_type=_OCTETS, size=size, content=partial(content, 0, size), location=location)
                    continue
                told = replace(row, attributes=header_of(scanned).attributes)
                if len(steps) > 1:
                    yield self._inside(told, scanned, element, steps, source, kind, location)
                else:
                    content_type = f"{media_type}; transfer-syntax={syntax}"
                    for content_of_frame in frame_contents(self._retrieve, self._pool, told, syntax):
                        yield Part(content_type=content_type, size=None, content=content_of_frame, location=location)


def _paths(row: InstanceRow, wanted: Callable[[int], bool]) -> Sequence[str]:
    """Return the paths behind ``bulk/`` of an instance's bulk data whose outermost tag is *wanted*."""
    found = [uri.removeprefix("bulk/") for uri in bulk_uris(loads(row.attributes))]
    return [path for path in found if wanted(_steps(path)[0])]


def _kind(ranges: Sequence[Accepted], row: InstanceRow) -> tuple[str, str] | None:
    """Return the media type and transfer syntax in which the instance's frames may go; ``None`` when in none."""
    if row.TransferSyntaxUID in NATIVE:
        return (_OCTETS, EXPLICIT_LITTLE) if any(one.takes(_OCTETS) for one in ranges) else None
    if row.TransferSyntaxUID not in SYNTAXES:
        # A film is one stream for all its frames; it goes out whole, with its object or as /rendered.
        return None
    try:
        _, media_type, syntax = frame_type(ranges, row.TransferSyntaxUID, row.BitsAllocated or 0)
    except HubError:
        return None
    return media_type, syntax


def _steps(path: str) -> Sequence[int]:
    """Return tag, item, tag, ... of a bulk data path."""
    parts = path.split("/")
    # The address is said again in answers, so nothing else than digits may stand in it.
    if not all((_ITEM if index % 2 else _TAG).fullmatch(part) for index, part in enumerate(parts)):
        raise HubError(Category.INCORRECT, "The bulk data address is malformed.", where="bulk")
    return [int(part, 10 if index % 2 else 16) for index, part in enumerate(parts)]


def _item_of(dataset: Mapping[str, Any], steps: Sequence[int]) -> Mapping[str, Any]:
    """Return the item of DICOM JSON that holds the element at *steps*."""
    for tag, number in zip(steps[:-1:2], steps[1::2], strict=True):
        dataset = dataset[f"{tag:08X}"]["Value"][number - 1]
    return dataset


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
