"""Pages under ``/share``: a patient gives the password of a link and is led into the viewer.

The secret stands in the path, which no page of ours sends on (Referrer-Policy) and no log of ours keeps; the token that
the viewer gets stands in the fragment of its address, which browsers send to nobody. The patient's pages are plain forms
without a script, so that the browsers inside messengers (WeChat's among them) show them. A link that nobody made gets the
same pages as one with another password.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from importlib import resources
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from adapters._http import Workers, correlation_id, error_response, media_type, read_body
from hub.errors import Category, HubError
from hub.sharing import Opening, Outcome

if TYPE_CHECKING:
    from hub.boot import Services

_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
#: Sent with every answer under ``/share``.
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex, nofollow, noarchive",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}
_HTML = "text/html; charset=utf-8"
_TYPES = {"share.css": "text/css; charset=utf-8", "make.js": "text/javascript; charset=utf-8"}
_FORM = "application/x-www-form-urlencoded"
#: A form with one short field.
_MAX_FORM_BYTES = 2048
_MAX_FIELDS = 8
#: Passwords are hashed slowly on purpose; more than these at once wait, and more than that are turned away.
_THREADS, _WAITING = 4, 64

_WRONG = (
    "密码不正确，请核对后再试。多次错误后链接将暂时锁定。",
    "The password is not right. The link is locked for a while after several wrong ones.",
)
_LOCKED = (
    "密码错误次数过多，请约 {minutes} 分钟后再试。",
    "Too many wrong passwords. Please try again in about {minutes} minutes.",
)
_CLOSED = (
    "密码错误次数过多，此链接已停用。请联系为您检查的医院重新分享。",
    "Too many wrong passwords: this link is closed. Please ask the hospital that made your images for a new one.",
)
_GONE = (
    "此链接已过期或已被撤销。请联系{institution}重新分享。",
    "This link has expired or was revoked. Please ask {institution} for a new one.",
)
_NOTHING = ("没有这个页面。", "There is no such page.")


class _Application:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._workers = Workers(threads=_THREADS, waiting=_WAITING)
        pages = resources.files("adapters.share") / "pages"
        self._files = {name: (pages / name).read_bytes() for name in _TYPES}
        self._ask = (pages / "ask.html").read_text("utf-8")
        self._end = (pages / "end.html").read_text("utf-8")
        self._make = (pages / "make.html").read_bytes()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        request = Request(scope, receive, send)
        try:
            response = await self._answer(request)
        except Exception as error:  # noqa: BLE001 - the outermost frame of a request, as in guarded()
            response = error_response(error, request)
        for name, value in HEADERS.items():
            response.headers[name] = value
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        first, _, rest = request.url.path.removeprefix("/share").removeprefix("/").partition("/")
        posted = request.method == "POST"
        if request.method not in {"GET", "HEAD", "POST"} or (posted and (not first or first == "own")):
            return Response(status_code=405, headers={"Allow": "GET, HEAD" if not first else "GET, HEAD, POST"})
        if not first:
            return Response(self._make, headers={"Content-Type": _HTML})
        if first == "own" and rest in self._files:
            return Response(self._files[rest], headers={"Content-Type": _TYPES[rest]})
        if rest or first == "own":
            return self._ended(_NOTHING, 404)
        if posted:
            return await self._open(request, first)
        opening = await self._workers.run(lambda: self._services.sharing.look(first))
        return self._said(opening, asked=False)

    async def _open(self, request: Request, secret: str) -> Response:
        if media_type(request) != _FORM:
            raise HubError(
                Category.UNSUPPORTED,
                "The body is of another media type.",
                where="Content-Type",
                remedy=f"Send {_FORM}.",
                status=415,
            )
        body = await read_body(request, self._services, max_bytes=_MAX_FORM_BYTES)
        try:
            fields = dict(parse_qsl(body.decode("utf-8", errors="replace"), max_num_fields=_MAX_FIELDS))
        except ValueError as error:
            raise HubError(Category.INCORRECT, "The form has too many fields.", where="body") from error
        address = request.client.host if request.client is not None else ""
        opening = await self._workers.run(
            lambda: self._services.sharing.open(
                secret, fields.get("password", ""), address=address, correlation_id=correlation_id(request)
            )
        )
        return self._said(opening, asked=True)

    def _said(self, opening: Opening, *, asked: bool) -> Response:
        if opening.outcome is Outcome.OPENED:
            study, token = quote(opening.StudyInstanceUID, safe="."), quote(opening.token, safe=".-_")
            return RedirectResponse(f"/viewer/viewer?StudyInstanceUIDs={study}#token={token}", status_code=303)
        if opening.outcome is Outcome.GONE:
            return self._ended(_GONE, 410, institution=opening.institution)
        if opening.outcome is Outcome.CLOSED:
            return self._ended(_CLOSED, 410)
        if opening.outcome is Outcome.LOCKED:
            assert opening.until is not None
            wait_s = max(1, int((opening.until - self._services.clock()).total_seconds()))
            return self._asked(_LOCKED, 429, {"Retry-After": str(wait_s)}, minutes=str(-(-wait_s // 60)))
        return self._asked(_WRONG, 403) if asked else self._asked(("", ""), 200)

    def _asked(
        self, texts: tuple[str, str], status: int, headers: Mapping[str, str] | None = None, **values: str
    ) -> Response:
        said = _both(texts, values)
        alert = f'<p id="said" role="alert">{said}</p>' if said else ""
        body = self._ask.format(alert=alert).encode()
        return Response(body, status_code=status, headers={"Content-Type": _HTML, **(headers or {})})

    def _ended(self, texts: tuple[str, str], status: int, **values: str) -> Response:
        body = self._end.format(said=_both(texts, values)).encode()
        return Response(body, status_code=status, headers={"Content-Type": _HTML})


def application(services: Services) -> ASGIApp:
    """Return the application that answers everything under ``/share``."""
    return _Application(services)


def _both(texts: tuple[str, str], values: Mapping[str, str]) -> str:
    return "<br>".join(escape(text.format(**values)) for text in texts if text)
