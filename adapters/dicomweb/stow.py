"""STOW-RS: storing instances (PS3.18 section 10.5), streamed from the wire straight into the spool.

Each part of the multipart body becomes one instance with its own commit, so a request cut off half-way keeps what was
whole; metadata and bulk data are joined when the body has come (:mod:`adapters.dicomweb.stow_metadata`). The answer
lists every instance: stored, stored with a warning, or refused with its reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request
from starlette.responses import Response

from adapters._http import Workers, actor_of, correlation_id, peer_of
from adapters.dicomweb.errors import uid
from adapters.dicomweb.negotiation import wants_xml
from adapters.dicomweb.stow_metadata import METADATA_TYPES
from adapters.dicomweb.stow_parts import DICOM_TYPE, Taken, not_taken
from adapters.dicomweb.xml import dataset_response
from hub.actor import Actor
from hub.envelope import Envelope
from hub.errors import Category, HubError

if TYPE_CHECKING:
    from hub.boot import Services

log = structlog.get_logger("dicomweb.stow")

#: Roles that may store; a patient and the operator may not.
_MAY_STORE = frozenset({"system", "doctor", "desk", "reader", "reviewer", "lab", "admin"})
#: Bytes gathered before a thread takes them: fewer hops, little memory.
_GATHERED_BYTES = 1 << 20


class Store:
    """The store handlers over one set of services."""

    def __init__(self, services: Services, workers: Workers) -> None:
        self._services = services
        self._workers = workers

    async def store(self, request: Request) -> Response:
        """POST /studies and /studies/{study}"""
        actor = await self._workers.run(lambda: actor_of(request, self._services))
        _may_store(actor)
        study = uid(request, "study")
        envelope = Envelope(
            door="stow", actor=actor, peer=peer_of(request), kind="STOW-RS", correlation_id=correlation_id(request)
        )
        charset = await self._workers.run(lambda: _charset_of(self._services, actor))
        taken = Taken(self._services, envelope, study, charset)
        write, finish = self._reader(request, taken)
        try:
            await self._pump(request, write)
            await self._workers.run(finish)
        except FormParserError as error:
            taken.failed(HubError(Category.INCORRECT, "The multipart body is malformed."))
            log.info("stow_malformed", error=type(error).__name__)
            await self._workers.run(taken.assemble)
        finally:
            # Also when the sender has left: what is stored is stored, and its quiet time must run.
            await self._workers.run(taken.close)
        return self._answer(request, taken)

    def _reader(self, request: Request, taken: Taken) -> tuple[Any, Any]:
        """Return how to take a chunk and how to end, by the Content-Type of the request."""
        kind, parameters = parse_options_header(request.headers.get("content-type", ""))
        media_type = kind.lower().decode("latin-1")
        if media_type == DICOM_TYPE or media_type in METADATA_TYPES:
            taken.part_type = media_type

            def whole(data: bytes) -> None:
                if not taken.open:
                    taken.begin()
                    taken.headers_finished()
                taken.data(data, 0, len(data))

            def finish() -> None:
                taken.end()
                taken.assemble()

            return whole, finish
        if media_type != "multipart/related":
            raise not_taken("Content-Type")
        taken.part_type = parameters.get(b"type", DICOM_TYPE.encode()).decode("latin-1").lower()
        boundary = parameters.get(b"boundary", b"")
        if taken.part_type != DICOM_TYPE and taken.part_type not in METADATA_TYPES:
            raise not_taken("Content-Type, parameter type")
        if not boundary:
            raise HubError(
                Category.INCORRECT, "The multipart body has no boundary.", where="Content-Type", remedy="Name it."
            )
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": taken.begin,
                "on_header_field": taken.header_field,
                "on_header_value": taken.header_value,
                "on_header_end": taken.header_end,
                "on_headers_finished": taken.headers_finished,
                "on_part_data": taken.data,
                "on_part_end": taken.end,
            },
        )

        def end() -> None:
            parser.finalize()
            taken.cut_off()
            taken.assemble()

        return parser.write, end

    async def _pump(self, request: Request, write: Any) -> None:
        """Hand the body on in large pieces; raises HubError when it is too large or too slow."""
        settings = self._services.settings
        gathered: list[bytes] = []
        waiting = size = 0
        async for chunk in _timed(request, settings.frame_deadline_s):
            size += len(chunk)
            if size > settings.max_stow_bytes:
                raise HubError(
                    Category.INCORRECT,
                    f"The request is larger than {settings.max_stow_bytes} bytes.",
                    where="body",
                    remedy="Send the instances in several requests.",
                    status=413,
                )
            gathered.append(chunk)
            waiting += len(chunk)
            if waiting >= _GATHERED_BYTES:
                await self._workers.run(partial(write, b"".join(gathered)))
                gathered, waiting = [], 0
        if gathered:
            await self._workers.run(partial(write, b"".join(gathered)))

    def _answer(self, request: Request, taken: Taken) -> Response:
        if not taken.stored and not taken.failures:
            raise HubError(
                Category.INCORRECT, "The request holds no instance.", where="body", remedy="Send DICOM Part 10 parts."
            )
        body: dict[str, Any] = {}
        if taken.stored:
            base = f"{self._services.settings.public()}/dicom-web/studies"
            studies = sorted(taken.studies)
            if len(studies) == 1:
                body["00081190"] = {"vr": "UR", "Value": [f"{base}/{studies[0]}"]}
            body["00081199"] = {"vr": "SQ", "Value": taken.stored}
        if taken.failures:
            body["00081198"] = {"vr": "SQ", "Value": taken.failures}
        # PS3.18 table 10.5.3-1: 200 all stored, 202 with warnings or failures, 409 none stored; 503 tells to try again.
        status = 200
        if taken.failures or taken.warned:
            status = 202 if taken.stored else 503 if taken.only_transient else 409
        headers = {"Retry-After": "1"} if status == 503 else {}
        if taken.warning:
            headers["Warning"] = taken.warning
        return dataset_response(body, request, xml=_xml(request), status=status, headers=headers)


async def _timed(request: Request, deadline_s: float) -> AsyncIterator[bytes]:
    """Yield the chunks of the body; raises HubError(interrupted, 408) when the next one does not come in time."""
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(deadline_s):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise HubError(
                Category.INTERRUPTED, "The body came too slowly.", where="body", remedy="Send it again.", status=408
            ) from error
        if chunk:
            yield chunk


def _charset_of(services: Services, actor: Actor) -> str | None:
    """Return the character set that the operator set for the sender: for its AE title, its DICOMweb, its DICOM."""
    directory = services.directory
    candidates = [directory.dicom_member(actor.client, actor.address)] if actor.client else []
    candidates += [directory.endpoint(f"{actor.institution}/{kind}") for kind in ("dicom-web", "dicom")]
    for endpoint in candidates:
        if endpoint is not None and endpoint.member == actor.institution and endpoint.settings.get("charset-in"):
            return str(endpoint.settings["charset-in"])
    return None


def _xml(request: Request) -> bool:
    try:
        return wants_xml(request)
    except HubError:
        # What is stored is stored; a receipt in the usual form is better than none.
        return False


def _may_store(actor: Actor) -> None:
    if actor.patient is not None or not actor.roles & _MAY_STORE:
        raise HubError(
            Category.FORBIDDEN, "This token may not store images.", remedy="Use the token of the institution's PACS."
        )
