"""UPS-RS: workitems over HTTP (PS3.18 chapter 11): Create, Retrieve, Update, Change State, Request Cancellation, Search.

What may be done is decided in :mod:`hub.workitem`, with the words of PS3.4 annex CC; here they become status codes and
Warning headers. Subscriptions are in :mod:`adapters.dicomweb.subscriptions`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from adapters._http import (
    Workers,
    actor_of,
    correlation_id,
    echo_headers,
    error_response,
    media_type,
    peer_of,
    read_body,
)
from adapters.dicomweb import attributes
from adapters.dicomweb.errors import Handler, checked_uid, uid
from adapters.dicomweb.negotiation import JSON_TYPE, XML_TYPE, wants_xml
from adapters.dicomweb.parameters import MATCHING, natural, passed_over, truth
from adapters.dicomweb.xml import dataset_response, datasets_response
from fhir_mappings.dicom import identifier, xml_model
from fhir_mappings.dicom import workitem as mapping
from fhir_mappings.dicom.performed_step import first
from fhir_mappings.json import loads
from hub.envelope import Envelope
from hub.errors import Category, HubError
from hub.workitem import Workitems
from hub.workitem_rules import Reason, WorkitemError
from hub.workitem_search import RETURNED, Key, WorkitemSearch, key

if TYPE_CHECKING:
    from hub.boot import Services

Json = dict[str, Any]

#: Items of one answer, when the asker names no limit and at most.
_DEFAULT_LIMIT, _MAX_LIMIT, _MAX_OFFSET = 200, 1000, 5000
_MAX_PARAMETERS, _MAX_STEPS = 100, 8
#: JSON and XML are wordier than the data set that they spell, whose own limit is held afterwards.
_MAX_BODY_BYTES = 4 * identifier.MAX_BYTES
#: Names under which the UID of a new item, and the Transaction UID of an update, may come as query parameters.
_UID_NAMES = ("workitem", "uid", "SOPInstanceUID")
_LOCK_NAMES = ("transaction-uid", "transactionUID", "TransactionUID")
_INCONSISTENT = "The submitted request is inconsistent with the current state of the Workitem."
_UNCLAIMED = "The target URI did not reference a claimed Workitem."


class WorkitemDoor:
    """The handlers over one set of services."""

    def __init__(self, services: Services, workers: Workers) -> None:
        self._services = services
        self._workers = workers
        self._items = Workitems(services)

    async def create(self, request: Request) -> Response:
        """POST /workitems?{uid}: 201 with the Location of the new item; durable when answered."""
        dataset = await self._body(request)
        assert dataset is not None
        named = _named(request, _UID_NAMES)

        def work() -> Response:
            made, remark = self._items.create(self._envelope(request, "UPS-RS Create"), named, dataset)
            headers = {"Location": f"{self._base()}/workitems/{made}", **self._warning(remark.value)}
            return Response(status_code=201, headers={**echo_headers(request), **headers})

        return await self._workers.run(work)

    async def retrieve(self, request: Request) -> Response:
        """GET /workitems/{workitem}: the item without its Transaction UID."""
        target = _target(request)

        def work() -> Response:
            xml = wants_xml(request)
            found = self._items.read(self._envelope(request, "UPS-RS Retrieve"), target)
            return dataset_response(found, request, xml=xml) if xml else datasets_response([found], request, xml=False)

        return await self._workers.run(work)

    async def update(self, request: Request) -> Response:
        """POST /workitems/{workitem}?{transaction-uid}: 200; durable when answered."""
        target, lock = _target(request), _named(request, _LOCK_NAMES)
        dataset = await self._body(request)
        assert dataset is not None

        def work() -> Response:
            self._items.update(self._envelope(request, "UPS-RS Update"), target, dataset, lock)
            return Response(status_code=200, headers=echo_headers(request))

        return await self._workers.run(work)

    async def change_state(self, request: Request) -> Response:
        """PUT /workitems/{workitem}/state: 200; durable when answered."""
        target = _target(request)
        dataset = await self._body(request)
        assert dataset is not None
        state, lock = first(dataset, mapping.STATE), first(dataset, mapping.TRANSACTION_UID)

        def work() -> Response:
            remark = self._items.change_state(self._envelope(request, "UPS-RS Change State"), target, state, lock)
            return Response(status_code=200, headers={**echo_headers(request), **self._warning(remark.value)})

        return await self._workers.run(work)

    async def request_cancellation(self, request: Request) -> Response:
        """POST /workitems/{workitem}/cancelrequest: 202; an item that nobody has claimed is CANCELED by then."""
        target = _target(request)
        dataset = await self._body(request, needed=False) or {}

        def work() -> Response:
            envelope = self._envelope(request, "UPS-RS Request Cancellation")
            remark = self._items.request_cancellation(envelope, target, dataset)
            return Response(status_code=202, headers={**echo_headers(request), **self._warning(remark.value)})

        return await self._workers.run(work)

    async def search(self, request: Request) -> Response:
        """GET /workitems: 200, 206 when more match than are returned, 204 when nothing does."""
        zone = self._services.settings.time_zone

        def work() -> Response:
            xml = wants_xml(request)
            asked = _Question(request, zone)
            envelope = self._envelope(request, "UPS-RS Search")
            search = WorkitemSearch(
                self._services,
                envelope.actor,
                asked.keys,
                subtype=envelope.kind,
                correlation_id=envelope.correlation_id,
            )
            found, more = search.page(limit=asked.limit, offset=asked.offset)
            remarks = list(asked.remarks)
            if not found and not more:
                headers = {**echo_headers(request), **self._warnings(remarks)}
                return Response(status_code=204, headers=headers)
            rows = [one if asked.everything else _only(one, asked.include) for one in found]
            answer = datasets_response(rows, request, xml=xml)
            if more:
                answer.status_code = 206
                remarks.append("There are additional results that can be requested.")
            answer.headers.update(self._warnings(remarks))
            return answer

        return await self._workers.run(work)

    def warned(self, handler: Handler, *, update: bool = False) -> Handler:
        """Return *handler* with what the standard wants of refusals: their Warning header, and 400 for an *update*."""

        async def answer(request: Request) -> Response:
            try:
                return await handler(request)
            except WorkitemError as error:
                if update and error.reason is Reason.OVER:
                    # Section 11.6.2; the other transactions answer 409.
                    error.status = 400
                refused = error_response(error, request)
                refused.headers.update(self._warning(_said(error.reason, update=update)))
                return refused

        return answer

    # --- parts -----------------------------------------------------------------------------------------------

    def _base(self) -> str:
        return f"{self._services.settings.public()}/dicom-web"

    def _warning(self, text: str) -> dict[str, str]:
        return {"Warning": f"299 {self._base()}: {text}"} if text else {}

    def _warnings(self, texts: Iterable[str]) -> dict[str, str]:
        said = ", ".join(self._warning(text)["Warning"] for text in texts)
        return {"Warning": said} if said else {}

    def _envelope(self, request: Request, kind: str) -> Envelope:
        """Return the envelope of *request*; may read the database, and raises HubError for a token that is not good."""
        return Envelope(
            door="dicomweb",
            actor=actor_of(request, self._services),
            peer=peer_of(request),
            kind=kind,
            correlation_id=correlation_id(request),
        )

    async def _body(self, request: Request, *, needed: bool = True) -> Json | None:
        """Return the one data set of the body; ``None`` for an empty body that need not be.

        The token is looked at first, so that nobody's data is read for a stranger.
        """
        await self._workers.run(lambda: actor_of(request, self._services))
        body = await read_body(request, self._services, max_bytes=_MAX_BODY_BYTES)
        if not body and not needed:
            return None
        return await self._workers.run(lambda: _dataset(media_type(request), body))


def _dataset(kind: str, body: bytes) -> Json:
    if kind in {JSON_TYPE, "application/json"}:
        found = loads(body)
        if isinstance(found, list):
            if len(found) != 1:
                raise HubError(Category.INCORRECT, "The body does not hold one workitem.", where="body")
            (found,) = found
    elif kind in {XML_TYPE, "application/xml", "text/xml"}:
        found = xml_model.read(body)
    else:
        raise HubError(
            Category.UNSUPPORTED,
            "The media type of the body is not one of a workitem.",
            where="Content-Type",
            remedy=f"Send {JSON_TYPE} or {XML_TYPE}.",
            status=415,
        )
    return mapping.normal(found)


def _target(request: Request) -> str:
    found = uid(request, "workitem")
    assert found is not None
    return found


def _named(request: Request, names: tuple[str, ...]) -> str:
    """Return the UID that a query parameter of one of *names*, or a bare ``?1.2.3``, gives; ``""`` without one."""
    for name in names:
        given = request.query_params.get(name)
        if given is not None:
            return checked_uid(name, given)
    bare = [name for name, value in request.query_params.multi_items() if not value]
    return checked_uid("query", bare[0]) if bare else ""


def _said(reason: Reason, *, update: bool) -> str:
    """Return the Warning text of a refusal (PS3.18 sections 11.6.3.2 and 11.7.3.2); ``""`` where there is none."""
    if reason in {Reason.NO_LOCK, Reason.WRONG_LOCK, Reason.UNREACHABLE}:
        return str(reason.value)
    if reason is Reason.UNCLAIMED and update:
        return _UNCLAIMED
    return "" if reason in {Reason.ABSENT, Reason.DUPLICATE, Reason.NOT_SCHEDULED} else _INCONSISTENT


class _Question:
    """What a search asks; raises HubError(incorrect) naming the parameter that is wrong."""

    def __init__(self, request: Request, zone: str) -> None:
        parameters = request.query_params.multi_items()
        if len(parameters) > _MAX_PARAMETERS:
            raise HubError(Category.INCORRECT, f"The query has more than {_MAX_PARAMETERS} parameters.")
        self.limit, self.offset, self.everything = _DEFAULT_LIMIT, 0, False
        self.include: set[str] = set()
        self.remarks: list[str] = []
        given: dict[attributes.Path, str] = {}
        fuzzy = False
        for name, value in parameters:
            match name.lower():
                case "limit":
                    self.limit = min(natural(name, value), _MAX_LIMIT)
                case "offset":
                    self.offset = natural(name, value)
                case "fuzzymatching":
                    fuzzy = truth(name, value)
                case "includefield":
                    parts = [part.strip() for part in value.split(",") if part.strip()]
                    self.everything = self.everything or "all" in map(str.lower, parts)
                    self.include |= {_path(part)[0] for part in parts if part.lower() != "all"}
                case "accept" | "charset":
                    pass
                case "emptyvaluematching" | "multiplevaluematching" as matching:
                    self.remarks += [MATCHING[matching]] if truth(name, value) else []
                case _ if passed_over(name):
                    pass
                case _:
                    path = _path(name)
                    given[path] = f"{given[path]}\\{value}" if path in given else value
        self.keys = self._keys(given, fuzzy=fuzzy, zone=zone)
        self.include |= {path[0] for path in given}
        if self.offset > _MAX_OFFSET:
            raise HubError(Category.INCORRECT, f"No search goes beyond {_MAX_OFFSET} items.", where="offset")

    @staticmethod
    def _keys(given: Mapping[attributes.Path, str], *, fuzzy: bool, zone: str) -> list[Key]:
        found = []
        for path, value in given.items():
            vr = attributes.vr_of(path[-1])
            if not vr or vr == "SQ" or path[-1] == mapping.TRANSACTION_UID:
                raise HubError(Category.INCORRECT, "This attribute cannot be matched.", where=".".join(path))
            one = key(path, vr, value, fuzzy=fuzzy, zone=zone)
            if one is not None:
                found.append(one)
        return found


def _only(item: Mapping[str, Any], include: set[str]) -> Json:
    return {tag: element for tag, element in item.items() if tag in RETURNED or tag in include}


def _path(name: str) -> attributes.Path:
    if name.count(".") >= _MAX_STEPS:
        raise HubError(Category.INCORRECT, f"The path has more than {_MAX_STEPS} steps.", where=name[:128])
    return attributes.path_of(name)


def routes(services: Services, workers: Workers) -> list[tuple[str, str, Handler]]:
    """Return (method, path, handler) of each transaction."""
    door = WorkitemDoor(services, workers)
    one = "/workitems/{workitem}"
    made: list[tuple[str, str, Callable[[Request], Any]]] = [
        ("GET", "/workitems", door.search),
        ("POST", "/workitems", door.create),
        ("GET", one, door.retrieve),
        ("POST", one, door.update),
        ("PUT", f"{one}/state", door.change_state),
        ("POST", f"{one}/cancelrequest", door.request_cancellation),
    ]
    return [(method, path, door.warned(handler, update=handler == door.update)) for method, path, handler in made]
