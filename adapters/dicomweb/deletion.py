"""DELETE of a study, a series or an instance: marked deleted with a reason, never removed.

PS3.18 defines no such transaction; the meaning is this hub's own and stands in :mod:`hub.deletion`. The reason comes
percent-encoded as ``reason=`` or as the header ``X-Reason`` in UTF-8, and is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from adapters._http import Workers, actor_of, json_response
from adapters.dicomweb.errors import uid
from hub.deletion import Deletion
from hub.errors import Category, HubError

if TYPE_CHECKING:
    from hub.boot import Services

HEADER = "x-reason"


class Delete:
    """The handler of DELETE at all levels."""

    def __init__(self, services: Services, workers: Workers) -> None:
        self._services = services
        self._workers = workers
        self._deletion = Deletion(services)

    async def delete(self, request: Request) -> Response:
        """Mark what the path names deleted; durable when answered. Fails as :meth:`hub.deletion.Deletion.delete`."""
        study, series, instance = uid(request, "study"), uid(request, "series"), uid(request, "instance")
        owner = request.path_params.get("owner")
        reason = _reason(request)
        assert study is not None

        def work() -> int:
            actor = actor_of(request, self._services)
            return self._deletion.delete(actor, study, series, instance, reason=reason, owner=owner)

        return json_response({"deleted": await self._workers.run(work)}, request)


def _reason(request: Request) -> str:
    """Return the reason that was given, empty when there is none."""
    given = request.query_params.get("reason")
    if given is None:
        try:
            given = request.headers.get(HEADER, "").encode("latin-1").decode("utf-8")
        except UnicodeError as error:
            raise HubError(
                Category.INCORRECT, "The header is not UTF-8.", where="X-Reason", remedy="Send reason= in the address."
            ) from error
    return given
