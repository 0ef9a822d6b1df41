"""The routes of operation, for the application that serves HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import BaseRoute, Route

from adapters._http import Handler, Workers, guarded
from adapters.ops.handlers import OpsHandlers
from adapters.ops.health import HealthHandlers

if TYPE_CHECKING:
    from hub.boot import Services

#: Threads of this door; few, so that looking at a hub in trouble does not add to it.
_THREADS = 4


def routes(services: Services) -> list[BaseRoute]:
    """Return ``/healthz``, ``/readyz``, ``/metrics`` and ``/ops/...``."""
    workers = Workers(threads=_THREADS)
    health, ops = HealthHandlers(services, workers), OpsHandlers(services, workers)
    found: list[tuple[str, str, Handler]] = [
        ("GET", "/healthz", health.alive),
        ("GET", "/readyz", health.ready),
        ("GET", "/metrics", health.metrics),
        ("GET", "/ops/queue", ops.queues),
        ("GET", "/ops/queue/deliveries", ops.deliveries),
        ("POST", "/ops/queue/deliveries/{number:int}/replay", ops.replay_delivery),
        ("POST", "/ops/queue/deliveries/{number:int}/skip", ops.skip_delivery),
        # A destination is an endpoint id and holds slashes: KN/mllp.
        ("POST", "/ops/queue/{destination:path}/pause", ops.pause),
        ("POST", "/ops/queue/{destination:path}/resume", ops.resume),
        ("GET", "/ops/messages", ops.messages),
        ("GET", "/ops/messages/{number:int}", ops.message),
        ("POST", "/ops/messages/{number:int}/replay", ops.replay_message),
        ("GET", "/ops/trace/{id}", ops.trace),
        ("GET", "/ops/work-items", ops.work_items),
        ("POST", "/ops/studies/{study}/settle", ops.settle),
    ]
    return [Route(path, guarded(handler), methods=[method]) for method, path, handler in found]
