"""The change feed, ``/changefeed`` and ``/changefeed/latest``: what arrived, changed and went, for whoever keeps a copy.

PS3.18 defines no such resource; :mod:`hub.changes` says what may be relied on. A reader begins with ``since=0``, keeps
the ``since`` of each answer and asks with it the next time; it may ask at once while ``more`` is true.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from adapters._http import Workers, actor_of, echo_headers, json_response
from hub.changes import MAX_CHANGES, ChangeFeed, Feed
from hub.clock import instant
from hub.errors import Category, HubError
from hub.ports.imaging import Change

if TYPE_CHECKING:
    from hub.boot import Services

#: Parameters of the two resources.
QUERY = ("since", "limit", "includemetadata")
QUERY_LATEST = ("includemetadata",)
_MOST = (1 << 63) - 1
_DEFAULT_LIMIT = 100


class Changes:
    """The handlers of the feed."""

    def __init__(self, services: Services, workers: Workers) -> None:
        self._services = services
        self._workers = workers
        self._feed = ChangeFeed(services)

    async def feed(self, request: Request) -> Response:
        """Answer what is behind ``since``."""
        given = _parameters(request, QUERY)
        since = _number(given, "since", 0, most=_MOST)
        limit = _number(given, "limit", _DEFAULT_LIMIT, least=1, most=MAX_CHANGES)
        metadata = _flag(given)

        def work() -> Feed:
            actor = actor_of(request, self._services)
            return self._feed.since(actor, since, limit=limit, metadata=metadata)

        found = await self._workers.run(work)
        changes = [_told(one, found, metadata=metadata) for one in found.changes]
        return json_response({"changes": changes, "since": found.since, "more": found.more}, request)

    async def latest(self, request: Request) -> Response:
        """Answer the newest change that the asker may see; 204 when there is none."""
        metadata = _flag(_parameters(request, QUERY_LATEST))

        def work() -> Feed | None:
            return self._feed.latest(actor_of(request, self._services), metadata=metadata)

        found = await self._workers.run(work)
        if found is None:
            return Response(status_code=204, headers=echo_headers(request))
        return json_response(_told(found.changes[0], found, metadata=metadata), request)


def _told(one: Change, feed: Feed, *, metadata: bool) -> dict[str, Any]:
    said: dict[str, Any] = {
        "sequence": one.sequence,
        "timestamp": instant(one.at),
        "action": one.action,
        "state": one.state,
        "institution": one.owner,
        "studyInstanceUid": one.StudyInstanceUID,
        "seriesInstanceUid": one.SeriesInstanceUID,
        "sopInstanceUid": one.SOPInstanceUID,
    }
    if metadata:
        said["metadata"] = feed.metadata.get((one.owner, one.SOPInstanceUID))
    return said


def _parameters(request: Request, known: Collection[str]) -> Mapping[str, str]:
    for name in request.query_params:
        if name not in known:
            raise _wrong(name[:64], f"Use {', '.join(known)}.")
    return request.query_params


def _number(given: Mapping[str, str], name: str, otherwise: int, *, least: int = 0, most: int) -> int:
    text = given.get(name)
    if text is None:
        return otherwise
    # The length comes first: Python refuses to convert very long ones.
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise _wrong(name, f"Send a number from {least} to {most}.")
    return int(text)


def _flag(given: Mapping[str, str]) -> bool:
    text = given.get("includemetadata", "false").lower()
    if text not in {"true", "false"}:
        raise _wrong("includemetadata", "Send true or false.")
    return text == "true"


def _wrong(name: str, remedy: str) -> HubError:
    return HubError(Category.INCORRECT, "A parameter of the change feed cannot be used.", where=name, remedy=remedy)
