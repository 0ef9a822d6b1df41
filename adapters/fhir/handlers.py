"""FHIR's RESTful API over the hub's interactions (https://hl7.org/fhir/R4/http.html)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from email.utils import format_datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from adapters._http import FHIR_JSON, Workers, actor_of, correlation_id, echo_headers, media_type, peer_of, read_body
from fhir_mappings import media_types
from hub.answer import Answer, location
from hub.bundles import parse_pairs, version_of
from hub.envelope import Envelope
from hub.errors import Category, HubError

if TYPE_CHECKING:
    from hub.boot import Services
    from hub.resources import ResourceService

#: Media types of a body that are FHIR JSON; a Binary may be sent as anything else.
_JSON = frozenset({"", "application/fhir+json", "application/json", "text/json"})
_PATCH = "application/json-patch+json"
#: Query parameters that speak of the answer's form and not of the search.
_FORM = frozenset({"_format", "_pretty"})
_FORMATS = frozenset({"json", "application/json", "application/fhir+json", "text/json"})

Interaction = Callable[[Envelope], Answer]


class FhirHandlers:
    """One handler for each interaction; the work runs in threads, the answer goes out as stored bytes."""

    def __init__(self, services: Services, workers: Workers) -> None:
        self._services = services
        self._workers = workers

    @property
    def _resources(self) -> ResourceService:
        return self._services.resources

    # --- reading -----------------------------------------------------------------------------------------------

    async def metadata(self, request: Request) -> Response:
        """CapabilityStatement; needs no token."""
        body = await self._workers.run(self._resources.capability)
        return Response(body, media_type=FHIR_JSON, headers=echo_headers(request))

    async def read(self, request: Request) -> Response:
        type_, id_ = request.path_params["type"], request.path_params["id"]
        pairs = _pairs(request)
        raw = type_ == "Binary" and "json" not in request.headers.get("accept", "json")
        answer = await self._run(request, lambda e: self._resources.read(e, type_, id_, pairs=pairs, raw=raw))
        return _dressed(request, answer, conditional=True)

    async def vread(self, request: Request) -> Response:
        type_, id_, version = (request.path_params[name] for name in ("type", "id", "version"))
        return _dressed(request, await self._run(request, lambda e: self._resources.vread(e, type_, id_, version)))

    async def history(self, request: Request) -> Response:
        type_, id_ = request.path_params.get("type"), request.path_params.get("id")
        pairs = _pairs(request)
        return _dressed(request, await self._run(request, lambda e: self._resources.history(e, type_, id_, pairs)))

    async def search(self, request: Request) -> Response:
        type_ = request.path_params["type"]
        pairs = _pairs(request)
        if request.method == "POST":
            if media_type(request) != "application/x-www-form-urlencoded":
                raise _wrong_type("application/x-www-form-urlencoded")
            body = await read_body(request, self._services, max_bytes=1 << 20)
            pairs += tuple(pair for pair in parse_pairs(body.decode("utf-8", errors="replace")) if pair[0] not in _FORM)
        lenient = "handling=lenient" in request.headers.get("prefer", "")
        answer = await self._run(request, lambda e: self._resources.search(e, type_, pairs, lenient=lenient))
        return _dressed(request, answer)

    async def everything(self, request: Request) -> Response:
        id_, pairs = request.path_params["id"], _pairs(request)
        lenient = "handling=lenient" in request.headers.get("prefer", "")
        answer = await self._run(request, lambda e: self._resources.everything(e, id_, pairs, lenient=lenient))
        return _dressed(request, answer)

    # --- writing -----------------------------------------------------------------------------------------------

    async def create(self, request: Request) -> Response:
        type_ = request.path_params["type"]
        given = media_type(request)
        binary = given if type_ == "Binary" and given not in _JSON else ""
        if given not in _JSON and not binary:
            raise _wrong_type("application/fhir+json")
        raw = await read_body(request, self._services)
        condition = request.headers.get("if-none-exist")
        pairs = None if condition is None else parse_pairs(condition.lstrip("?"))
        answer = await self._run(
            request, lambda e: self._resources.create(e, type_, raw, if_none_exist=pairs, media_type=binary)
        )
        return self._written(request, answer)

    async def update(self, request: Request) -> Response:
        type_, id_ = request.path_params["type"], request.path_params["id"]
        raw = await self._json(request)
        version = _version(request)
        answer = await self._run(request, lambda e: self._resources.update(e, type_, id_, raw, if_match=version))
        return self._written(request, answer)

    async def conditional_update(self, request: Request) -> Response:
        type_, pairs = request.path_params["type"], _pairs(request)
        raw = await self._json(request)
        answer = await self._run(request, lambda e: self._resources.conditional_update(e, type_, raw, pairs))
        return self._written(request, answer)

    async def patch(self, request: Request) -> Response:
        type_, id_ = request.path_params["type"], request.path_params.get("id")
        if media_type(request) != _PATCH:
            raise _wrong_type(_PATCH)
        raw = await read_body(request, self._services)
        version = _version(request)
        condition = None if id_ is not None else _pairs(request)
        answer = await self._run(
            request, lambda e: self._resources.patch(e, type_, id_, raw, if_match=version, condition=condition)
        )
        return self._written(request, answer)

    async def delete(self, request: Request) -> Response:
        type_, id_ = request.path_params["type"], request.path_params.get("id")
        version = _version(request)
        condition = None if id_ is not None else _pairs(request)
        answer = await self._run(
            request, lambda e: self._resources.delete(e, type_, id_, if_match=version, condition=condition)
        )
        return _dressed(request, answer)

    async def bundle(self, request: Request) -> Response:
        raw = await self._json(request)
        whole = "return=representation" in request.headers.get("prefer", "")
        answer = await self._run(request, lambda e: self._resources.bundle(e, raw, representation=whole))
        return _dressed(request, answer)

    async def transition(self, request: Request) -> Response:
        id_, raw, version = request.path_params["id"], await self._json(request), _version(request)
        answer = await self._run(request, lambda e: self._resources.transition(e, id_, raw, if_match=version))
        return _dressed(request, answer)

    async def validate(self, request: Request) -> Response:
        type_, raw = request.path_params.get("type"), await self._json(request)
        return _dressed(request, await self._run(request, lambda _: self._resources.validate(type_, raw)))

    # --- shared ------------------------------------------------------------------------------------------------

    async def _json(self, request: Request) -> bytes:
        if media_type(request) not in _JSON:
            raise _wrong_type("application/fhir+json")
        return await read_body(request, self._services)

    async def _run(self, request: Request, interaction: Interaction) -> Answer:
        def work() -> Answer:
            actor = actor_of(request, self._services)
            envelope = Envelope(
                door="fhir",
                actor=actor,
                peer=peer_of(request),
                kind=f"{request.method} {request.scope['path']}",
                received_at=self._services.clock(),
                correlation_id=correlation_id(request),
            )
            return interaction(envelope)

        return await self._workers.run(work)

    def _written(self, request: Request, answer: Answer) -> Response:
        prefer = request.headers.get("prefer", "")
        response = _dressed(request, answer)
        if answer.stored is not None and answer.created:
            response.headers["Location"] = f"{self._resources.reader.base}/{location(answer.stored)}"
        if "return=minimal" in prefer and answer.status in {200, 201}:
            response.body = b""
            response.headers["Content-Length"] = "0"
        return response


def _pairs(request: Request) -> tuple[tuple[str, str], ...]:
    found = []
    try:
        query = request.scope["query_string"].decode()
    except UnicodeDecodeError as error:
        raise HubError(Category.INCORRECT, "The query is not one in UTF-8.", where="query") from error
    if not query:
        return ()
    for name, value in parse_pairs(query):
        if name == "_format" and value.partition(";")[0].strip() not in _FORMATS:
            raise HubError(
                Category.UNSUPPORTED,
                "Only JSON is served.",
                where="_format",
                remedy="Ask for application/fhir+json.",
                status=406,
            )
        if name not in _FORM:
            found.append((name, value))
    return tuple(found)


def _version(request: Request) -> int | None:
    return version_of(request.headers.get("if-match"), request.headers.get("if-none-match"))


@lru_cache(maxsize=4096)
def _http_date(moment: datetime) -> str:
    """Return *moment* as RFC 9110 section 5.6.7 has it; what is read often was changed at one moment."""
    return format_datetime(moment, usegmt=True)


def _wrong_type(wanted: str) -> HubError:
    return HubError(
        Category.UNSUPPORTED,
        "The body is of another media type.",
        where="Content-Type",
        remedy=f"Send {wanted}.",
        status=415,
    )


def _dressed(request: Request, answer: Answer, *, conditional: bool = False) -> Response:
    headers = {**echo_headers(request), **answer.headers}
    if answer.stored is not None:
        etag = f'W/"{answer.stored.version}"'
        headers["ETag"] = etag
        headers["Last-Modified"] = _http_date(answer.stored.last_updated.replace(microsecond=0))
        if conditional and request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
    if not answer.body:
        return Response(status_code=answer.status, headers=headers)
    # The label of a Binary is its sender's word, and a header of ours.
    given = media_types.media_type(answer.media_type) if answer.media_type else FHIR_JSON
    return Response(answer.body, status_code=answer.status, headers=headers, media_type=given)
