"""STOW-RS: storing instances (PS3.18 section 10.5), streamed from the wire straight into the spool.

Each part of the multipart body becomes one instance with its own commit, so a request cut off half-way keeps what was
whole; metadata and bulk data are joined when the body has come (:mod:`adapters.dicomweb.stow_metadata`). The answer
lists every instance: stored, stored with a warning, or refused with its reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request
from starlette.responses import Response

from adapters._http import Workers, actor_of, correlation_id, peer_of
from adapters.dicomweb.errors import FAILURE_REASONS, KEPT_BESIDE, WRONG_STUDY, uid
from adapters.dicomweb.negotiation import wants_xml
from adapters.dicomweb.stow_metadata import METADATA_TYPES, Metadata
from adapters.dicomweb.xml import dataset_response
from fhir_mappings.dicom.header import read_header
from fhir_mappings.dicom.instance import InstanceHeader
from fhir_mappings.dicom.scanner import valid_uid
from hub.actor import Actor
from hub.envelope import Envelope
from hub.errors import Category, HubError
from hub.outcome import as_hub_error
from hub.ports import Spool

if TYPE_CHECKING:
    from hub.boot import Services

log = structlog.get_logger("dicomweb.stow")

_DICOM = "application/dicom"
_OCTETS = "application/octet-stream"
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
        charset = await self._workers.run(lambda: _charset_of(self._services, actor))
        taken = _Taken(self._services, envelope, study, charset)
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

    def _reader(self, request: Request, taken: _Taken) -> tuple[Any, Any]:
        """Return how to take a chunk and how to end, by the Content-Type of the request."""
        kind, parameters = parse_options_header(request.headers.get("content-type", ""))
        media_type = kind.lower().decode("latin-1")
        if media_type == _DICOM or media_type in METADATA_TYPES:
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
            raise _unsupported("Content-Type")
        taken.part_type = parameters.get(b"type", _DICOM.encode()).decode("latin-1").lower()
        boundary = parameters.get(b"boundary", b"")
        if taken.part_type != _DICOM and taken.part_type not in METADATA_TYPES:
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


@dataclass
class _Taken:
    """What one request has brought so far; its methods are the parser's callbacks and run in one thread at a time."""

    services: Services
    envelope: Envelope
    study: str | None
    #: The character set that the operator set for the sender.
    charset: str | None = None
    #: What parts are that do not say it themselves.
    part_type: str = _DICOM
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
    _metadata: Metadata | None = None
    #: Whether the present part goes to the metadata, and the bulk data that it is.
    _to_metadata: bool = False
    _location: str = ""
    _headers: dict[bytes, bytes] = field(default_factory=dict)
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
        self._headers = {}
        self._to_metadata, self._location = False, ""

    def header_field(self, data: bytes, start: int, end: int) -> None:
        """Take a piece of a header's name."""
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        """Take a piece of a header's value."""
        self._value += data[start:end]

    def header_end(self) -> None:
        """Look at a whole header."""
        self._headers[self._name.strip().lower()] = self._value.strip()
        self._name = self._value = b""

    def headers_finished(self) -> None:
        """Decide what the part is; one of another media type is refused."""
        kind, parameters = parse_options_header(self._headers.get(b"content-type", b""))
        media_type = kind.lower().decode("latin-1")
        location = self._headers.get(b"content-location", b"").decode("latin-1")
        if not media_type:
            media_type = _OCTETS if location and self.part_type in METADATA_TYPES else self.part_type
        # Some senders call a DICOM file octets; beside metadata octets are what they say.
        is_object = media_type == _DICOM or (media_type == _OCTETS and self.part_type == _DICOM)
        try:
            if media_type in METADATA_TYPES:
                self._beside().begin_metadata(media_type)
            elif location and not is_object:
                self._location = location
                syntax = parameters.get(b"transfer-syntax", b"").decode("latin-1").strip()
                self._beside().begin_bulk(media_type, location, syntax)
            elif is_object:
                self._spool = self.services.objects.spool(max_bytes=self.services.settings.max_object_bytes)
                self._spool.__enter__()
            else:
                raise _unsupported("Content-Type of a part")
        except HubError as error:
            self._spool, self._trouble = None, error

    def _beside(self) -> Metadata:
        if self._metadata is None:
            self._metadata = Metadata(self.services)
        self._to_metadata = True
        return self._metadata

    def data(self, data: bytes, start: int, end: int) -> None:
        """Take a piece of the part's content; after trouble the rest of the part is passed over."""
        if self._trouble is not None:
            return
        piece = memoryview(data)[start:end]
        try:
            if self._to_metadata:
                assert self._metadata is not None
                self._metadata.write(piece)
            elif self._spool is not None:
                self._spool.write(piece)
        except HubError as error:
            self._trouble = error

    def end(self) -> None:
        """End a part: prove it whole, keep it, note the outcome."""
        if not self._in_part:
            return
        self._in_part = False
        try:
            if self._location and self._trouble is not None and self._metadata is not None:
                # The instances that it belongs to fail with this reason, and only they.
                self._metadata.lost[self._location] = self._trouble
            elif self._trouble is not None:
                raise self._trouble
            elif self._to_metadata:
                assert self._metadata is not None
                self._metadata.end()
            else:
                assert self._spool is not None
                self._keep(self._spool, charset=self.charset)
        except Exception as error:  # noqa: BLE001 - each instance has its own outcome in the answer
            self.failed(as_hub_error(error))
        finally:
            self._release()

    def assemble(self) -> None:
        """Join metadata and bulk data, each instance with its own outcome."""
        if self._metadata is None:
            return
        for dataset in self._metadata.datasets():
            self._header = None
            identity: dict[str, Any] = {}
            try:
                if isinstance(dataset, HubError):
                    raise dataset
                identity = _identity(dataset)
                with self.services.objects.spool(max_bytes=self.services.settings.max_object_bytes) as spool:
                    for piece in self._metadata.file(dataset):
                        spool.write(piece)
                    # The hub wrote the text itself, in UTF-8, so the sender's own character set has no say in it.
                    self._keep(spool, charset=None)
            except Exception as error:  # noqa: BLE001 - each instance has its own outcome in the answer
                self.failed(as_hub_error(error), identity)

    def _keep(self, spool: Spool, *, charset: str | None) -> None:
        with spool.open() as stream:
            header = self._header = read_header(stream, charset_override=charset)
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

    def failed(self, error: HubError, identity: Mapping[str, Any] | None = None) -> None:
        """Note an instance that was not kept, and is *identity* if its header was not reached."""
        reason = FAILURE_REASONS[error.category]
        if self._header is not None and self.study is not None and self._header.StudyInstanceUID != self.study:
            reason = WRONG_STUDY
        self.only_transient = self.only_transient and error.transient
        item = _referenced(self._header) if self._header is not None else identity or {}
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
        if self._metadata is not None:
            self._metadata.close()
        self.services.imaging.association_ended(self.envelope, self.studies)


def _referenced(header: InstanceHeader) -> dict[str, Any]:
    return {
        "00081150": {"vr": "UI", "Value": [header.SOPClassUID]},
        "00081155": {"vr": "UI", "Value": [header.SOPInstanceUID]},
    }


def _identity(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the answer names a refused instance by, as far as its metadata says it."""
    found = {}
    for tag, source in (("00081150", "00080016"), ("00081155", "00080018")):
        element = dataset.get(source)
        values = element.get("Value") if isinstance(element, dict) else None
        if isinstance(values, list) and values and isinstance(values[0], str) and valid_uid(values[0]):
            found[tag] = {"vr": "UI", "Value": [values[0]]}
    return found


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


def _unsupported(where: str) -> HubError:
    return HubError(
        Category.UNSUPPORTED,
        "The media type is not taken.",
        where=where,
        remedy=f'Send multipart/related; type="{_DICOM}", or metadata and bulk data.',
        status=415,
    )
