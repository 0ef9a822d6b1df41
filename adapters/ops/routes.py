"""The routes of operation, for the application that serves HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import BaseRoute, Route

from adapters._http import Handler, Workers, guarded
from adapters.ops.health import HealthHandlers

if TYPE_CHECKING:
    from hub.boot import Services

#: Threads of this door; few, so that looking at a hub in trouble does not add to it.
_THREADS = 4


def routes(services: Services) -> list[BaseRoute]:
    """Return ``/healthz``, ``/readyz``, ``/metrics`` and ``/ops/...``."""
    workers = Workers(threads=_THREADS)
    health = HealthHandlers(services, workers)
    found: list[tuple[str, str, Handler]] = [
        ("GET", "/healthz", health.alive),
        ("GET", "/readyz", health.ready),
        ("GET", "/metrics", health.metrics),
    ]
    return [Route(path, guarded(handler), methods=[method]) for method, path, handler in found]
