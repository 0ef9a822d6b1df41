"""What every HTTP door needs: who asks, bodies within limits, errors as OperationOutcomes, correlation ids.

RFC 6750 (bearer tokens), https://hl7.org/fhir/R4/http.html. Nothing here knows a door.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from fhir_mappings.json import dumps
from hub.actor import Actor
from hub.envelope import new_correlation_id
from hub.errors import Category, HubError
from hub.outcome import as_hub_error, outcome_bytes, status_of
from hub.sharing import TOKEN_PREFIX

if TYPE_CHECKING:
    from hub.boot import Services

T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]

FHIR_JSON = "application/fhir+json; charset=utf-8"
_ID = re.compile(r"[A-Za-z0-9._\-]{1,64}")
_REALM = 'Bearer realm="yixie-hub"'


def correlation_id(request: Request) -> str:
    """Return the id that follows this request to its last delivery: the sender's own when it is a plain one."""
    known = getattr(request.state, "correlation_id", None)
    if known is None:
        given = request.headers.get("x-correlation-id", "")
        known = given if _ID.fullmatch(given) else new_correlation_id()
        request.state.correlation_id = known
    return str(known)


def peer_of(request: Request) -> str:
    """Return ``host:port`` of the peer; the host alone where a trusted proxy told it."""
    client = request.client
    if client is None:
        return ""
    if not client.port:
        return client.host
    # Without brackets nobody can tell where an address of IPv6 ends (RFC 3986 section 3.2.2).
    host = f"[{client.host}]" if ":" in client.host else client.host
    return f"{host}:{client.port}"


def actor_of(request: Request, services: Services, *, shared: bool = False) -> Actor:
    """Return who asks, by the bearer token of the request; may read the database.

    Args:
        shared: whether what is asked for is what a share link is for: reading images, and nothing else.

    Raises:
        HubError: forbidden with status 401 when the token is missing, unknown, expired or revoked, with 403 when it is
            that of a link and this is not for links.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    actor = None
    if scheme.lower() == "bearer" and token and len(token) <= 512:
        token = token.strip()
        by_link = token.startswith(TOKEN_PREFIX)
        actor = services.sharing.actor_for(token) if by_link else services.directory.actor_for(token)
    if actor is not None and actor.share is not None and not shared:
        raise HubError(
            Category.FORBIDDEN,
            "A share link is for reading its images, and for nothing else.",
            where="Authorization",
            remedy="Use /dicom-web or the viewer.",
        )
    if actor is None:
        raise HubError(
            Category.FORBIDDEN,
            "The request needs a valid bearer token.",
            where="Authorization",
            remedy="Get one from /oauth/token, or from the operator.",
            status=401,
            issue_code="login",
        )
    return replace(actor, address=request.client.host if request.client is not None else "")


def guarded(handler: Handler) -> Handler:
    """Return *handler* with its errors turned into OperationOutcomes."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except (asyncio.CancelledError, ClientDisconnect):
            raise
        except Exception as error:  # noqa: BLE001 - the outermost frame of a request; nothing may pass as a stack trace
            return error_response(error, request)

    return answer


def echo_headers(request: Request) -> dict[str, str]:
    """Return the headers that tell the sender under which ids its request is known."""
    headers = {"X-Correlation-Id": correlation_id(request)}
    given = request.headers.get("x-request-id", "")
    if _ID.fullmatch(given):
        headers["X-Request-Id"] = given
    return headers


def error_response(error: BaseException, request: Request) -> Response:
    """Return *error* as an OperationOutcome with its status and the id to quote."""
    known = as_hub_error(error)
    status = status_of(known)
    headers = echo_headers(request)
    if status == 401:
        headers["WWW-Authenticate"] = _REALM
    elif status in {429, 503}:
        headers["Retry-After"] = str(known.retry_after_s)
    return Response(
        outcome_bytes(known, correlation_id(request)), status_code=status, headers=headers, media_type=FHIR_JSON
    )


def json_response(
    value: Any,
    request: Request,
    *,
    status: int = 200,
    media_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return *value* as JSON with exact decimals."""
    return Response(
        dumps(value), status_code=status, media_type=media_type, headers={**echo_headers(request), **(headers or {})}
    )


def media_type(request: Request) -> str:
    """Return the media type of the body, lower case and without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_body(request: Request, services: Services, *, max_bytes: int | None = None) -> bytes:
    """Return the whole body.

    Raises:
        HubError: incorrect with status 413 when it is too large, interrupted with status 408 when it is too slow.
    """
    settings = services.settings
    cap = settings.max_fhir_bytes if max_bytes is None else max_bytes
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > cap:
        raise _too_large(cap)
    parts: list[bytes] = []
    size = 0
    loop = asyncio.get_running_loop()
    started = loop.time()
    try:
        async with asyncio.timeout(settings.frame_deadline_s):
            async for chunk in request.stream():
                size += len(chunk)
                if size > cap:
                    raise _too_large(cap)
                elapsed = loop.time() - started
                # The first second is a grace for the network; after it the sender must keep its pace.
                if elapsed > 1 and size < settings.min_bytes_per_s * (elapsed - 1):
                    raise TimeoutError
                parts.append(chunk)
    except TimeoutError as error:
        raise HubError(
            Category.INTERRUPTED,
            "The body came too slowly.",
            where="body",
            remedy="Send it again over a faster connection, or in parts.",
            status=408,
        ) from error
    except ClientDisconnect as error:
        raise HubError(Category.INTERRUPTED, "The sender left before the body was whole.", where="body") from error
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(cap: int) -> HubError:
    return HubError(
        Category.INCORRECT,
        f"The body is larger than {cap} bytes.",
        where="body",
        remedy="Send it in parts.",
        status=413,
        issue_code="too-long",
    )


class Workers:
    """Threads for the synchronous core; more waiting work than *waiting* is turned away at once."""

    def __init__(self, threads: int = 32, waiting: int = 512) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="http")
        self._waiting = waiting
        self._now = 0

    async def run(self, work: Callable[[], T]) -> T:
        """Return what *work* returns, run in a thread; an answer under way is finished even if the asker leaves.

        Raises:
            HubError: busy when too much is waiting; whatever *work* raises.
        """
        if self._now >= self._waiting:
            raise HubError(Category.BUSY, "Too many requests are waiting.", remedy="Send again in a moment.")
        self._now += 1
        future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        future.add_done_callback(self._done)
        try:
            return await asyncio.shield(future)
        finally:
            # An exception's trace names this frame, and the future the exception: the circle would keep a refused body.
            del future

    def _done(self, future: asyncio.Future[Any]) -> None:
        self._now -= 1
        if not future.cancelled():
            # Looked at so that a failure nobody waits for any more is not reported as lost.
            future.exception()

    def close(self) -> None:
        """Finish what runs and end the threads."""
        self._pool.shutdown(wait=True)
