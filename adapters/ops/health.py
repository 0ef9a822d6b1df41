"""Is the process alive, can it take data, and what has it counted: ``/healthz``, ``/readyz``, ``/metrics``.

The three answer without a token, as load balancers and Prometheus expect; none tells more than states and counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from adapters._http import Workers, json_response
from adapters.ops import metrics
from hub import __version__
from hub.errors import HubError
from hub.ports import UploadingStore

if TYPE_CHECKING:
    from hub.boot import Services

_NEVER_CACHED = {"Cache-Control": "no-store"}


class HealthHandlers:
    """Handlers over the services of one process."""

    def __init__(self, services: Services, workers: Workers) -> None:
        self._services = services
        self._workers = workers

    async def alive(self, request: Request) -> Response:
        """200 as long as the process answers at all; the stores are not asked."""
        return json_response({"status": "alive", "version": __version__}, request, headers=_NEVER_CACHED)

    async def ready(self, request: Request) -> Response:
        """200 when the stores take data, 503 with the state of each when one does not; and what waits for its upload."""
        stores = await self._workers.run(self._stores)
        uploads = await self._workers.run(self._uploads)
        well = all(state == "ok" for state in stores.values())
        return json_response(
            {"status": "ready" if well else "not-ready", "node": self._services.node, **stores, **uploads},
            request,
            status=200 if well else 503,
            headers=_NEVER_CACHED,
        )

    async def metrics(self, _: Request) -> Response:
        """All processes' counters and the state of the queues in Prometheus' text format."""
        text = await self._workers.run(lambda: metrics.render(self._services))
        return Response(text, media_type=metrics.CONTENT_TYPE, headers=_NEVER_CACHED)

    def _stores(self) -> dict[str, str]:
        found = {}
        for name, store in (("database", self._services.database), ("objects", self._services.objects)):
            try:
                store.healthy()
            except HubError as error:
                # The category alone: whoever asks is a stranger.
                found[name] = "failed" if error.fatal else error.category.value
            else:
                found[name] = "ok"
        return found

    def _uploads(self) -> dict[str, dict[str, float]]:
        """What waits on this node; S3 being away does not make the hub unready as long as its own disk takes data."""
        if not isinstance(self._services.objects, UploadingStore):
            return {}
        try:
            waiting = self._services.objects.waiting(max_age_s=metrics.WAITING_AGE_S)
        except HubError:
            # The state of the store, just asked, tells what is wrong with its disk.
            return {}
        return {
            "uploads": {"waiting": waiting.count, "bytes": waiting.size, "oldest_s": round(waiting.oldest_s, 1)},
        }
