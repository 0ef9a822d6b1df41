"""STOW-RS: storing instances (PS3.18 section 10.5), streamed from the wire straight into the spool.

Each part of the multipart body becomes one instance with its own commit, so a request cut off half-way keeps what was
whole. The answer lists every instance: stored, stored with a warning, or refused with its reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request
from starlette.responses import Response

from adapters._http import Workers, actor_of, correlation_id, json_response, peer_of
from adapters.dicomweb.errors import FAILURE_REASONS, KEPT_BESIDE, WRONG_STUDY, uid
from adapters.dicomweb.negotiation import JSON_TYPE
from fhir_mappings.dicom.header import read_header
from fhir_mappings.dicom.instance import InstanceHeader
from hub.actor import Actor
from hub.envelope import Envelope
from hub.errors import Category, HubError
from hub.outcome import as_hub_error
from hub.ports import Spool

if TYPE_CHECKING:
    from hub.boot import Services

log = structlog.get_logger("dicomweb.stow")

_DICOM = "application/dicom"
#: Roles that may store; a patient and the operator may not.
_MAY_STORE = frozenset({"system", "doctor", "desk", "reader", "reviewer", "lab", "admin"})
#: Bytes gathered before a thread takes them: fewer hops, little memory.
_GATHERED_BYTES = 1 << 20
#: Parts of one request; each answer entry stays in memory until the end.
_MAX_PARTS = 50_000


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
        taken = _Taken(self._services, envelope, study)
        write, finish = self._reader(request, taken)
        try:
            await self._pump(request, write)
            await self._workers.run(finish)
        except FormParserError as error:
            taken.failed(HubError(Category.INCORRECT, "The multipart body is malformed."))
            log.info("stow_malformed", error=type(error).__name__)
        finally:
            # Also when the sender has left: what is stored is stored, and its quiet time must run.
            await self._workers.run(taken.close)
        return self._answer(request, taken)

    def _reader(self, request: Request, taken: _Taken) -> tuple[Any, Any]:
        """Return how to take a chunk and how to end, by the Content-Type of the request."""
        kind, parameters = parse_options_header(request.headers.get("content-type", ""))
        if kind.lower() == _DICOM.encode():

            def whole(data: bytes) -> None:
                if not taken.open:
                    taken.begin()
                taken.data(data, 0, len(data))

            return whole, taken.end
        if kind.lower() != b"multipart/related":
            raise _unsupported("Content-Type")
        part_type = parameters.get(b"type", _DICOM.encode()).decode("latin-1").lower()
        boundary = parameters.get(b"boundary", b"")
        if part_type != _DICOM:
            raise _unsupported("Content-Type, parameter type")
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
                "on_part_data": taken.data,
                "on_part_end": taken.end,
            },
        )

        def end() -> None:
            parser.finalize()
            taken.cut_off()

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

    def _answer(self, request: Request, taken: _Taken) -> Response:
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
        return json_response(body, request, status=status, media_type=JSON_TYPE, headers=headers)


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


@dataclass
class _Taken:
    """What one request has brought so far; its methods are the parser's callbacks and run in one thread at a time."""

    services: Services
    envelope: Envelope
    study: str | None
    stored: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    studies: set[str] = field(default_factory=set)
    warned: bool = False
    only_transient: bool = True
    parts: int = 0
    _spool: Spool | None = None
    _header: InstanceHeader | None = None
    _trouble: HubError | None = None
    _in_part: bool = False
    _name: bytes = b""
    _value: bytes = b""

    @property
    def open(self) -> bool:
        """Whether a part is being received."""
        return self._in_part

    def begin(self) -> None:
        """Start a part."""
        self.parts += 1
        if self.parts > _MAX_PARTS:
            raise HubError(Category.INCORRECT, f"The request has more than {_MAX_PARTS} parts.", status=413)
        self._in_part = True
        self._header = self._trouble = None
        try:
            self._spool = self.services.objects.spool(max_bytes=self.services.settings.max_object_bytes)
            self._spool.__enter__()
        except HubError as error:
            self._spool, self._trouble = None, error

    def header_field(self, data: bytes, start: int, end: int) -> None:
        """Take a piece of a header's name."""
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        """Take a piece of a header's value."""
        self._value += data[start:end]

    def header_end(self) -> None:
        """Look at a whole header; a part of another media type is refused."""
        kind = self._value.partition(b";")[0].strip().lower()
        if self._name.strip().lower() == b"content-type" and kind not in {_DICOM.encode(), b"application/octet-stream"}:
            self._trouble = _unsupported("Content-Type of a part")
        self._name = self._value = b""

    def data(self, data: bytes, start: int, end: int) -> None:
        """Take a piece of the part's content; after trouble the rest of the part is passed over."""
        if self._trouble is not None or self._spool is None:
            return
        try:
            self._spool.write(memoryview(data)[start:end])
        except HubError as error:
            self._trouble = error

    def end(self) -> None:
        """End a part: prove it whole, keep it, note the outcome."""
        if not self._in_part:
            return
        self._in_part = False
        try:
            if self._trouble is not None:
                raise self._trouble
            assert self._spool is not None
            self._keep(self._spool)
        except Exception as error:  # noqa: BLE001 - each instance has its own outcome in the answer
            self.failed(as_hub_error(error))
        finally:
            self._release()

    def _keep(self, spool: Spool) -> None:
        with spool.open() as stream:
            header = self._header = read_header(stream)
        if self.study is not None and header.StudyInstanceUID != self.study:
            raise HubError(Category.CONFLICT, "The instance belongs to another study than the address names.")
        outcome = self.services.imaging.receive(self.envelope, spool, header)
        self.studies.add(header.StudyInstanceUID)
        item = _referenced(header)
        url = (
            f"{self.services.settings.public()}/dicom-web/studies/{header.StudyInstanceUID}"
            f"/series/{header.SeriesInstanceUID}/instances/{header.SOPInstanceUID}"
        )
        item["00081190"] = {"vr": "UR", "Value": [url]}
        if outcome == "conflict":
            self.warned = True
            item["00081196"] = {"vr": "US", "Value": [KEPT_BESIDE]}
        self.stored.append(item)

    def failed(self, error: HubError) -> None:
        """Note an instance that was not kept."""
        reason = FAILURE_REASONS[error.category]
        if self._header is not None and self.study is not None and self._header.StudyInstanceUID != self.study:
            reason = WRONG_STUDY
        self.only_transient = self.only_transient and error.transient
        item = _referenced(self._header) if self._header is not None else {}
        self.failures.append({**item, "00081197": {"vr": "US", "Value": [reason]}})
        log.info("stow_refused", reason=f"{reason:04X}", why=error.message, where=error.where)

    def cut_off(self) -> None:
        """Note the part that the body ended in."""
        if self._in_part:
            self._header = None
            self._in_part = False
            self.failed(HubError(Category.INCORRECT, "The body ends inside a part."))

    def _release(self) -> None:
        if self._spool is not None:
            self._spool.__exit__(None, None, None)
            self._spool = None

    def close(self) -> None:
        """Let go of an unfinished part and start the quiet time of the studies that came."""
        self._release()
        self.services.imaging.association_ended(self.envelope, self.studies)


def _referenced(header: InstanceHeader) -> dict[str, Any]:
    return {
        "00081150": {"vr": "UI", "Value": [header.SOPClassUID]},
        "00081155": {"vr": "UI", "Value": [header.SOPInstanceUID]},
    }


def _may_store(actor: Actor) -> None:
    if actor.patient is not None or not actor.roles & _MAY_STORE:
        raise HubError(
            Category.FORBIDDEN, "This token may not store images.", remedy="Use the token of the institution's PACS."
        )


def _unsupported(where: str) -> HubError:
    return HubError(
        Category.UNSUPPORTED,
        "The media type is not taken.",
        where=where,
        remedy=f'Send multipart/related; type="{_DICOM}".',
        status=415,
    )
