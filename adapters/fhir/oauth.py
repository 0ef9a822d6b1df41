"""OAuth 2.0 client credentials for members' systems (RFC 6749 section 4.4), and what SMART clients ask first."""

from __future__ import annotations

import base64
import binascii
import threading
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.requests import Request
from starlette.responses import Response

from adapters._http import Workers, json_response, media_type, read_body
from hub.bundles import parse_pairs
from hub.errors import Category, HubError

if TYPE_CHECKING:
    from hub.boot import Services

#: Attempts from one address in a minute; a guesser gains nothing, a restarting cluster still gets in.
ATTEMPTS_PER_MINUTE = 60
#: Argon2 takes 19 MiB for each check, so only so many run at once.
_CHECKS = threading.BoundedSemaphore(2)


class OAuthHandlers:
    """``/oauth/token`` and ``/.well-known/smart-configuration``."""

    def __init__(self, services: Services, workers: Workers) -> None:
        self._services = services
        self._workers = workers
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._limit = RateLimitItemPerMinute(ATTEMPTS_PER_MINUTE)

    async def smart_configuration(self, request: Request) -> Response:
        """Tell where tokens come from (http://hl7.org/fhir/smart-app-launch/conformance.html)."""
        public = self._services.settings.public()
        return json_response(
            {
                "issuer": f"{public}/fhir",
                "token_endpoint": f"{public}/oauth/token",
                "grant_types_supported": ["client_credentials"],
                "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
                "scopes_supported": ["system/*.cruds"],
                "capabilities": ["client-confidential-symmetric"],
            },
            request,
        )

    async def token(self, request: Request) -> Response:
        """Give a token for a client's id and secret; errors as RFC 6749 section 5.2 names them."""
        address = request.client.host if request.client is not None else ""
        if not self._limiter.hit(self._limit, address):
            raise HubError(Category.BUSY, "Too many attempts from this address.", remedy="Wait a minute.", status=429)
        if media_type(request) != "application/x-www-form-urlencoded":
            return _refused(request, "invalid_request", 400)
        form = dict(parse_pairs((await read_body(request, self._services, max_bytes=16384)).decode("utf-8", "replace")))
        if form.get("grant_type") != "client_credentials":
            return _refused(request, "unsupported_grant_type", 400)
        client_id, secret = _basic(request) or (form.get("client_id", ""), form.get("client_secret", ""))

        def work() -> str | None:
            with _CHECKS:
                actor = self._services.directory.client_actor(client_id, secret)
            if actor is None:
                return None
            return self._services.directory.issue_token(actor, ttl_s=self._services.settings.token_ttl_s)

        token = await self._workers.run(work)
        if token is None:
            return _refused(request, "invalid_client", 401)
        return json_response(
            {
                "access_token": token,
                "token_type": "Bearer",
                "expires_in": self._services.settings.token_ttl_s,
                "scope": "system/*.cruds",
            },
            request,
            headers={"Cache-Control": "no-store"},
        )


def _basic(request: Request) -> tuple[str, str] | None:
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        client_id, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return unquote_plus(client_id), unquote_plus(secret)


def _refused(request: Request, error: str, status: int) -> Response:
    headers = {"Cache-Control": "no-store"}
    if status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="yixie-hub"'
    return json_response({"error": error}, request, status=status, headers=headers)
