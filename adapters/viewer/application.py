"""Serving the viewer: files that never change, a start page that is asked for anew each time, and the headers it needs.

OHIF decodes in workers over shared memory, which browsers allow to isolated pages only (Cross-Origin-Opener-Policy,
-Embedder-Policy and -Resource-Policy, https://html.spec.whatwg.org/multipage/browsers.html). The Content-Security-Policy
lets it talk to this hub alone, so that whatever it is made to do, neither images nor the token can leave.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from html import escape
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from adapters.viewer import package, release
from adapters.viewer.package import Manifest

if TYPE_CHECKING:
    from hub.boot import Services

_POLICY = {
    "default-src": "'none'",
    # The codecs are WebAssembly. Their glue, and the arrays that segmentations (SEG) are read through, write functions as
    # text; what could put text of its own there would still have nowhere to send what it finds.
    "script-src": "'self' 'wasm-unsafe-eval' 'unsafe-eval'",
    "worker-src": "'self' blob:",
    # The interface library sets styles on elements and inserts a few sheets.
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' blob: data:",
    "font-src": "'self' data:",
    "media-src": "'self' blob:",
    "connect-src": "'self' blob: data:",
    # Encapsulated PDF documents are shown from memory.
    "object-src": "'self' blob:",
    "frame-src": "blob:",
    "frame-ancestors": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
}
#: Sent with every answer under ``/viewer``.
HEADERS = {
    "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in _POLICY.items()),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}
_FOREVER = "public, max-age=31536000, immutable"
_ANEW = "no-cache"
_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".wasm": "application/wasm",
    ".woff2": "font/woff2",
    ".png": "image/png",
}
#: The hub's own files, served under ``/viewer/own/``.
OWN = ("app-config.js", "launch.js", "launch.css")


class Installed:
    """What is installed, looked at again when it changes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: tuple[int, int] | None = None
        self._manifest: Manifest | None = None

    def manifest(self) -> Manifest | None:
        """Return what is installed now, or ``None``; costs one look at a file's date."""
        try:
            known = (self.folder / package.MANIFEST).stat()
        except OSError:
            self._seen = self._manifest = None
            return None
        seen = (known.st_mtime_ns, known.st_ino)
        if seen != self._seen:
            self._manifest = package.read(self.folder)
            self._seen = seen
        return self._manifest


class _Application:
    def __init__(self, folder: Path) -> None:
        self._installed = Installed(folder)
        pages = resources.files("adapters.viewer") / "pages"
        self._own = {name: (pages / name).read_bytes() for name in OWN}
        self._start = (pages / "index.html").read_text("utf-8")
        self._absent = (pages / "absent.html").read_text("utf-8")
        self._refused = (pages / "refused.html").read_bytes()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        response = self.answer(request)
        for name, value in HEADERS.items():
            response.headers[name] = value
        await response(scope, receive, send)

    def answer(self, request: Request) -> Response:
        """Return the answer to *request*, without the headers that all answers have."""
        if request.method not in {"GET", "HEAD"}:
            return Response(status_code=405, headers={"Allow": "GET, HEAD"})
        first, _, rest = request.url.path.removeprefix("/viewer").removeprefix("/").partition("/")
        if request.url.path == "/viewer":
            return RedirectResponse("/viewer/", status_code=308, headers={"Cache-Control": _ANEW})
        if first == "own":
            return self._own_file(request, rest)
        if first == "files":
            return self._file(request, rest)
        # A path that the router knows has no file's ending: a program that is asked for in vain must not get a page.
        if request.url.path != "/viewer/" and (first not in release.ROUTES or "." in rest):
            return _page(b"", 404)
        return self._page(request)

    def _page(self, request: Request) -> Response:
        # OHIF would take a token from the query, where servers, proxies and histories write it down.
        if any(name.lower() == "token" for name, _ in parse_qsl(request.url.query, keep_blank_values=True)):
            return _page(self._refused, 400)
        manifest = self._installed.manifest()
        if manifest is None:
            text = self._absent.format(package=f"{release.PACKAGE}@{release.VERSION}")
            return _page(text.encode(), 503, {"Retry-After": "60"})
        # Of a later release some would have other names; what is not there is left for the program to ask for.
        first = (release.PLACE + name for name in release.first(request.url.path) if name in manifest.files)
        text = self._start.format(
            script=escape(release.PLACE + manifest.script),
            style=escape(release.PLACE + manifest.style),
            first=escape(" ".join(first)),
        )
        return _tagged(request, text.encode(), ".html")

    def _own_file(self, request: Request, name: str) -> Response:
        data = self._own.get(name)
        return _page(b"", 404) if data is None else _tagged(request, data, Path(name).suffix)

    def _file(self, request: Request, rest: str) -> Response:
        build, _, name = rest.partition("/")
        manifest = self._installed.manifest()
        if manifest is None or build != release.BUILD or name not in manifest.files:
            return _page(b"", 404)
        # The name is one of the manifest's: the received text has only chosen among them.
        path = self._installed.folder / name
        headers = {"Cache-Control": _FOREVER, "Content-Type": _TYPES[path.suffix]}
        if name in manifest.compressed:
            headers["Vary"] = "Accept-Encoding"
            if "gzip" in request.headers.get("accept-encoding", "").lower():
                headers["Content-Encoding"] = "gzip"
                path = path.with_name(f"{path.name}.gz")
        return FileResponse(path, headers=headers)


def application(services: Services) -> ASGIApp:
    """Return the application that answers everything under ``/viewer``."""
    return _Application(services.settings.viewer())


def _tagged(request: Request, data: bytes, suffix: str) -> Response:
    etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {"Cache-Control": _ANEW, "ETag": etag, "Content-Type": _TYPES[suffix]}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers)


def _page(data: bytes, status: int, headers: Mapping[str, str] | None = None) -> Response:
    return Response(
        data,
        status_code=status,
        headers={"Cache-Control": "no-store", "Content-Type": _TYPES[".html"], **(headers or {})},
    )
