"""The routes of operation, for the application that serves HTTP.

``/healthz``, ``/readyz`` and ``/metrics`` are plain routes: they are asked every few seconds, and must answer whatever
else is slow. ``/ops`` is asked by people, now and then; it is a FastAPI application that is made when it is first asked.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from adapters._http import Handler, Workers, error_response, guarded
from adapters.ops.health import HealthHandlers
from hub.message_desk import MessageDesk
from hub.operations import Operations

if TYPE_CHECKING:
    from hub.boot import Services

#: Few threads, so that looking at a hub in trouble does not add to it; health has its own, so that it never waits.
_THREADS = 4
_HEALTH_THREADS = 2


def routes(services: Services) -> list[BaseRoute]:
    """Return ``/healthz``, ``/readyz`` and ``/metrics``."""
    health = HealthHandlers(services, Workers(threads=_HEALTH_THREADS))
    found: list[tuple[str, Handler]] = [
        ("/healthz", health.alive),
        ("/readyz", health.ready),
        ("/metrics", health.metrics),
    ]
    return [Route(path, guarded(handler), methods=["GET"]) for path, handler in found]


def application(services: Services) -> ASGIApp:
    """Return the application that serves every path under ``/ops``; it takes whole paths, so it is not to be mounted."""
    return _Application(services)


class _Application:
    """Hands each request to the FastAPI application, which is made in a thread at the first one."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._workers = Workers(threads=_THREADS)
        self._lock = threading.Lock()
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        if scope["type"] != "http":
            # As ASGI has it for a scope that an application does not serve.
            raise NotImplementedError(f"/ops serves no {scope['type']}.")
        try:
            app = self._app if self._app is not None else await self._workers.run(self._made)
        except Exception as error:  # noqa: BLE001 - the outermost frame of a request, as in guarded()
            await error_response(error, Request(scope))(scope, receive, send)
            return
        await app(scope, receive, send)

    def _made(self) -> ASGIApp:
        with self._lock:
            if self._app is None:
                from adapters.ops.api import build
                from adapters.ops.parameters import Desk

                self._app = build(
                    Desk(self._services, Operations(self._services), MessageDesk(self._services), self._workers)
                )
            return self._app
