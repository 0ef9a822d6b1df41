"""UPS-RS: subscribe to workitems, unsubscribe, suspend (PS3.18 sections 11.10 to 11.12).

Who subscribes here is told on its event channel (:mod:`adapters.dicomweb.event_channel`), whose address the answer names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from adapters._http import Workers, actor_of, correlation_id, echo_headers, peer_of
from adapters.dicomweb import attributes
from adapters.dicomweb.errors import Handler, uid
from adapters.dicomweb.parameters import truth
from fhir_mappings.dicom import workitem as mapping
from hub.envelope import Envelope
from hub.errors import Category, HubError
from hub.workitem import Workitems
from hub.workitem_events import DELETION_LOCK, FILTERED, RECEIVER
from hub.workitem_rules import SubscriptionChange

if TYPE_CHECKING:
    from hub.boot import Services

Json = dict[str, Any]

_MAX_KEYS, _MAX_STEPS = 100, 8
#: Query parameters of every transaction, which say how the answer is wanted (section 8.3.3).
_OF_THE_ANSWER = frozenset({"accept", "charset"})
#: A comma ends a condition of the parameter ``filter`` only where another one begins behind it.
_NEXT = re.compile(r",(?=[A-Za-z0-9.]+=)")


class SubscriptionDoor:
    """The handlers over one set of services."""

    def __init__(self, services: Services, workers: Workers) -> None:
        self._services = services
        self._workers = workers
        self._items = Workitems(services)

    async def subscribe(self, request: Request) -> Response:
        """POST /workitems/{workitem}/subscribers/{aetitle}: 201 and the address of the event channel; durable then."""
        title = str(request.path_params["aetitle"])
        base = re.sub(r"\Ahttp", "ws", self._services.settings.public())
        where = f"{base}/dicom-web/subscribers/{quote(title, safe='')}"
        return await self._change(
            request, SubscriptionChange.SUBSCRIBE, status=201, headers={"Content-Location": where}
        )

    async def unsubscribe(self, request: Request) -> Response:
        """DELETE /workitems/{workitem}/subscribers/{aetitle}: 200; durable when answered."""
        return await self._change(request, SubscriptionChange.UNSUBSCRIBE)

    async def suspend(self, request: Request) -> Response:
        """POST /workitems/{workitem}/subscribers/{aetitle}/suspend: 200; of the two well-known UIDs alone, else 404."""
        return await self._change(request, SubscriptionChange.SUSPEND)

    async def _change(
        self,
        request: Request,
        change: SubscriptionChange,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        target = uid(request, "workitem")
        assert target is not None
        title = str(request.path_params["aetitle"])

        def work() -> Response:
            envelope = Envelope(
                door="dicomweb",
                actor=actor_of(request, self._services),
                peer=peer_of(request),
                kind=f"UPS-RS {change.name.capitalize()}",
                correlation_id=correlation_id(request),
            )
            told = _asked(request, target) if change is SubscriptionChange.SUBSCRIBE else {}
            told[RECEIVER] = {"vr": "AE", "Value": [title]}
            self._items.change_subscription(envelope, target, told, change)
            return Response(status_code=status, headers={**echo_headers(request), **(headers or {})})

        return await self._workers.run(work)


def _asked(request: Request, target: str) -> Json:
    """Return the keys of the filter, and the deletion lock, that the query of *request* gives.

    Raises:
        HubError: incorrect, naming the parameter that is wrong.
    """
    keys: Json = {}
    conditions: list[tuple[str, str]] = []
    for name, value in request.query_params.multi_items():
        if name.lower() == "deletionlock":
            keys[DELETION_LOCK] = {"vr": "LO", "Value": [str(truth(name, value)).upper()]}
        elif name.lower() == "filter":
            conditions += [(one.partition("=")[0], one.partition("=")[2]) for one in _NEXT.split(value)]
        elif name.lower() not in _OF_THE_ANSWER:
            conditions.append((name, value))
    if (target == FILTERED) is not bool(conditions):
        raise HubError(
            Category.INCORRECT,
            "A filter belongs to the Filtered Global Subscription, and to no other.",
            where="filter",
            remedy=f"Send filter=ATTRIBUTE=VALUE,... to {FILTERED}.",
        )
    if len(conditions) > _MAX_KEYS:
        raise HubError(Category.INCORRECT, f"The filter has more than {_MAX_KEYS} conditions.", where="filter")
    for name, value in conditions:
        _put(keys, name, value)
    return {**mapping.normal({tag: one for tag, one in keys.items() if tag != DELETION_LOCK}), **_lock(keys)}


def _lock(keys: Json) -> Json:
    return {DELETION_LOCK: keys[DELETION_LOCK]} if DELETION_LOCK in keys else {}


def _put(keys: Json, name: str, value: str) -> None:
    """Add the condition *name* = *value* to *keys*, inside its sequences where it is a path."""
    if name.count(".") >= _MAX_STEPS:
        raise HubError(Category.INCORRECT, f"The path has more than {_MAX_STEPS} steps.", where=name[:128])
    *steps, last = attributes.path_of(name)
    vr = attributes.vr_of(last)
    if not vr or vr == "SQ" or last == mapping.TRANSACTION_UID or not value:
        raise HubError(Category.INCORRECT, "This attribute cannot be matched.", where=name[:128])
    for step in steps:
        keys = keys.setdefault(step, {"vr": "SQ", "Value": [{}]})["Value"][0]
    keys[last] = {"vr": vr, "Value": [{"Alphabetic": value}] if vr == "PN" else value.split("\\")}


def routes(services: Services, workers: Workers) -> list[tuple[str, str, Handler]]:
    """Return (method, path, handler) of each transaction."""
    door = SubscriptionDoor(services, workers)
    one = "/workitems/{workitem}/subscribers/{aetitle}"
    made: list[tuple[str, str, Callable[[Request], Any]]] = [
        ("POST", one, door.subscribe),
        ("DELETE", one, door.unsubscribe),
        ("POST", f"{one}/suspend", door.suspend),
    ]
    return made
