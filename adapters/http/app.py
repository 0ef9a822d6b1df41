"""The application: the routes of each HTTP door side by side, and what all of them share."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapters import dicomweb, fhir, ops, share, viewer
from adapters._http import error_response
from adapters.dicomweb.event_channel import EventChannels
from adapters.http.dispatch import Dispatch, shape
from adapters.http.forwarded import Origin
from hub import __version__, metrics
from hub.errors import Category, HubError

if TYPE_CHECKING:
    from hub.boot import Services

#: Sent with every answer; nothing here is a page of a stranger's, and nothing is to be guessed or framed.
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    ),
)
_AREAS = ("fhir", "dicom-web", "wado", "oauth", "hl7", "cda", "ops", "metrics", "healthz", "readyz", "share", "viewer")

_PAGE = """<!doctype html>
<html lang="zh-CN"><head><meta charset="utf-8"><title>医协枢纽 Yixie Hub</title>
<style>body{{font:16px/1.7 system-ui,"Noto Sans CJK SC",sans-serif;max-width:42em;margin:4em auto;padding:0 1em;color:#1c2b33}}
h1{{font-weight:600}}code{{background:#eef2f4;padding:.1em .35em;border-radius:.25em}}li{{margin:.3em 0}}</style></head><body>
<h1>医协枢纽 <small>Yixie Hub {version}</small></h1>
<p>区域医疗协作枢纽正在运行。各接口需要令牌：<code>hub token --institution KN</code>。<br>
The hub is running. The interfaces need a token: <code>hub token --institution KN</code>.</p>
<ul>
<li><code>/fhir</code> — FHIR R4 (<a href="/fhir/metadata">CapabilityStatement</a>)</li>
<li><code>/dicom-web</code> — QIDO-RS, WADO-RS, STOW-RS</li>
<li><code>/wado</code> — WADO-URI</li>
<li><a href="/viewer/"><code>/viewer/</code></a> — 影像浏览 / image viewer</li>
<li><code>/hl7</code> — HL7 v2 over HTTP</li>
<li><code>/cda</code> — 病历共享文档 / clinical documents (CDA)</li>
<li><code>/oauth/token</code> — 系统凭证换取令牌 / client credentials</li>
<li><code>/ops</code>、<code>/metrics</code>、<code>/healthz</code>、<code>/readyz</code> — 运行维护 / operation</li>
</ul></body></html>"""


def build(services: Services) -> ASGIApp:
    """Return the application of one process."""
    page = _PAGE.format(version=__version__)

    async def front(_: Request) -> Response:
        return HTMLResponse(page)

    async def nothing(request: Request) -> Response:
        return error_response(HubError(Category.NOT_FOUND, "There is nothing at this address.", where="URL"), request)

    async def no_method(request: Request) -> Response:
        return error_response(
            HubError(Category.UNSUPPORTED, "This address does not take this method.", where="method", status=405),
            request,
        )

    routes = [*ops.routes(services), *fhir.routes(services), *dicomweb.routes(services), Route("/", front)]
    dispatch = Dispatch(
        [one for one in routes if isinstance(one, Route)],
        nothing=nothing,
        no_method=no_method,
        mounted={
            "ops": ops.application(services),
            "share": share.application(services),
            "viewer": viewer.application(services),
        },
    )
    return _Shared(dispatch, EventChannels(services), Origin(services.settings))


class _Shared:
    """The caller's address, security headers and counters around every request."""

    def __init__(self, app: ASGIApp, channels: ASGIApp, origin: Origin) -> None:
        self._app = app
        self._channels = channels
        self._origin = origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._origin:
            scope["client"] = self._origin.client(scope)
        if scope["type"] == "websocket":
            await self._channels(scope, receive, send)
            return
        started = time.perf_counter()
        first, _ = shape(scope["path"])
        area = first if first in _AREAS else "other"
        # These have policies of their own, and send them with all else that stands here.
        headers = () if first in {"share", "viewer"} else _HEADERS

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *headers]
                metrics.count("http_requests", area=area, method=scope["method"], status=str(message["status"]))
            await send(message)

        await self._app(scope, receive, dressed)
        metrics.observe("http_request", time.perf_counter() - started, area=area)
