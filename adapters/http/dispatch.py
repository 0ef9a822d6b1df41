"""Which handler answers a request: looked up by the shape of its path, because every request pays for it.

Starlette's router tries one route after another, through several layers of middleware; of a FHIR read that was a third
of the work. Here the routes stand in short lists by first segment and number of segments, and the handler's answer is
sent as it comes. What a handler raises is its own affair: every one is wrapped by :func:`adapters._http.guarded`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from adapters._http import Handler


class Dispatch:
    """The routes of all HTTP doors side by side, as one ASGI application.

    Args:
        routes: the first that fits wins; each has methods and an endpoint that takes a request.
        nothing: answers where there is no such path.
        no_method: answers where the path takes other methods.
        mounted: applications by the first segment of the paths that they serve whole.
    """

    def __init__(
        self, routes: Iterable[Route], *, nothing: Handler, no_method: Handler, mounted: dict[str, ASGIApp]
    ) -> None:
        self._nothing = nothing
        self._no_method = no_method
        self._mounted = mounted
        self._fixed: dict[tuple[str, int], list[Route]] = defaultdict(list)
        #: Those with a parameter that spans segments, by first segment.
        self._open: dict[str, list[Route]] = defaultdict(list)
        for route in routes:
            first, count = shape(route.path)
            if "{" in first:
                raise ValueError(f"{route.path} does not begin with a word.")
            if ":path}" in route.path:
                self._open[first].append(route)
            else:
                self._fixed[first, count].append(route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path: str = scope["path"]
        first, count = shape(path)
        mounted = self._mounted.get(first)
        if mounted is not None:
            await mounted(scope, receive, send)
            return
        handler = self._nothing
        method = scope["method"]
        for route in (*self._fixed.get((first, count), ()), *self._open.get(first, ())):
            match = route.path_regex.match(path)
            if match is None:
                continue
            if route.methods is not None and method not in route.methods:
                handler = self._no_method
                continue
            convert = route.param_convertors
            scope["path_params"] = {name: convert[name].convert(value) for name, value in match.groupdict().items()}
            handler = route.endpoint
            break
        response = await handler(Request(scope, receive, send))
        await response(scope, receive, send)


def shape(path: str) -> tuple[str, int]:
    """Return the first segment of *path* and how many segments it has; ``*`` (RFC 9112 section 3.2.4) has none."""
    parts = path.split("/", 2)
    return parts[1] if len(parts) > 1 else "", path.count("/")
