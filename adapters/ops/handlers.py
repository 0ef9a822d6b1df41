"""``/ops``: queues, messages, traces and unmatched studies as JSON; :mod:`hub.operations` says who may do what."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from adapters._http import Workers, actor_of, json_response, read_body
from fhir_mappings.errors import MappingError
from fhir_mappings.json import loads
from hub.actor import Actor
from hub.errors import Category, HubError
from hub.operations import Operations, is_operator

if TYPE_CHECKING:
    from hub.boot import Services

#: The bodies of this door are a reason or a reference.
MAX_BODY_BYTES = 64 * 1024
_NEVER_CACHED = {"Cache-Control": "no-store"}


class OpsHandlers:
    """Handlers over the services of one process."""

    def __init__(self, services: Services, workers: Workers) -> None:
        self._services = services
        self._workers = workers
        self._operations = Operations(services)

    async def queues(self, request: Request) -> Response:
        """Destinations, lanes and open alerts."""
        return await self._answer(request, self._operations.queues)

    async def deliveries(self, request: Request) -> Response:
        """Deliveries by ``state``, ``destination``, ``correlation_id`` and the like."""
        criteria, limit, _ = _criteria(request)
        return await self._answer(
            request, lambda actor: {"deliveries": self._operations.deliveries(actor, criteria, limit=limit)}
        )

    async def pause(self, request: Request) -> Response:
        """Hold a destination."""
        return await self._pause(request, paused=True)

    async def resume(self, request: Request) -> Response:
        """Let a destination go on."""
        return await self._pause(request, paused=False)

    async def _pause(self, request: Request, *, paused: bool) -> Response:
        destination = request.path_params["destination"]

        def work(actor: Actor) -> Any:
            self._operations.pause(actor, destination, paused)
            return {"destination": destination, "paused": paused}

        return await self._answer(request, work)

    async def replay_delivery(self, request: Request) -> Response:
        """Send a dead letter, or a finished delivery, once more."""

        def work(actor: Actor) -> Any:
            self._operations.replay(actor, _number(request))
            return {"id": _number(request), "done": "replay"}

        return await self._answer(request, work)

    async def skip_delivery(self, request: Request) -> Response:
        """Give up a delivery; the body is ``{"reason": "..."}``."""
        reason = str((await self._body(request)).get("reason", ""))

        def work(actor: Actor) -> Any:
            self._operations.skip(actor, _number(request), reason)
            return {"id": _number(request), "done": "skip"}

        return await self._answer(request, work)

    async def messages(self, request: Request) -> Response:
        """Journal entries by ``state``, ``control_id``, ``since`` and the like; ``before`` pages backwards."""
        criteria, limit, before = _criteria(request)
        return await self._answer(
            request,
            lambda actor: {"messages": self._operations.messages(actor, criteria, limit=limit, before_seq=before)},
        )

    async def message(self, request: Request) -> Response:
        """One journal entry; its content is for the institution that sent it, not for the operator."""
        return await self._answer(
            request,
            lambda actor: self._operations.message(actor, _number(request), content=not is_operator(actor)),
        )

    async def replay_message(self, request: Request) -> Response:
        """Process a message again."""

        def work(actor: Actor) -> Any:
            return {"seq": _number(request), "outcome": self._operations.replay_message(actor, _number(request))}

        return await self._answer(request, work)

    async def trace(self, request: Request) -> Response:
        """The whole way of one correlation id."""
        return await self._answer(request, lambda actor: self._operations.trace(actor, request.path_params["id"]))

    async def work_items(self, request: Request) -> Response:
        """What waits for a decision by hand."""
        return await self._answer(request, lambda actor: {"work_items": self._operations.work_items(actor)})

    async def settle(self, request: Request) -> Response:
        """Match a study to ``{"service_request": "ServiceRequest/x"}``, or to none (``null``)."""
        body = await self._body(request)
        if "service_request" not in body or not isinstance(body["service_request"], str | None):
            raise HubError(
                Category.INCORRECT,
                "The body does not say which order the study belongs to.",
                where="service_request",
                remedy='Send {"service_request": "ServiceRequest/<id>"}, or null when it has none.',
            )
        order = body["service_request"]
        order_id = order.removeprefix("ServiceRequest/") if order is not None else None
        study = request.path_params["study"]

        def work(actor: Actor) -> Any:
            self._operations.settle(actor, study, order_id)
            return {"study": f"ImagingStudy/{study}", "service_request": order}

        return await self._answer(request, work)

    async def _answer(self, request: Request, work: Callable[[Actor], Any]) -> Response:
        found = await self._workers.run(lambda: work(actor_of(request, self._services)))
        return json_response(found, request, headers=_NEVER_CACHED)

    async def _body(self, request: Request) -> dict[str, Any]:
        # Only somebody known may make the hub wait for a body.
        await self._workers.run(lambda: actor_of(request, self._services))
        raw = await read_body(request, self._services, max_bytes=MAX_BODY_BYTES)
        try:
            body = loads(raw) if raw.strip() else {}
        except (ValueError, MappingError) as error:
            raise _not_json() from error
        if not isinstance(body, dict):
            raise _not_json()
        return body


def _not_json() -> HubError:
    return HubError(Category.INCORRECT, "The body is not a JSON object.", where="body", remedy="Send a JSON object.")


def _number(request: Request) -> int:
    number: int = request.path_params["number"]
    if number >= 1 << 63:
        raise HubError(Category.NOT_FOUND, "There is no such row.", where="URL")
    return number


def _criteria(request: Request) -> tuple[dict[str, str], int, int | None]:
    found = dict(request.query_params)
    limit, before = found.pop("limit", "100"), found.pop("before", None)
    for name, text in (("limit", limit), ("before", before or "0")):
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise HubError(Category.INCORRECT, "This is no number.", where=name, remedy="Write digits.")
    return found, int(limit), None if before is None else int(before)
