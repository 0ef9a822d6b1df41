"""Bodies of answers: streamed as they come, or the range of them that is asked for (RFC 9110 section 14)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from adapters._http import echo_headers, error_response
from adapters.dicomweb.ahead import ahead
from hub.errors import Category, HubError

#: Longest Range header looked at; one range of the largest numbers is far shorter.
_MAX_RANGE = 64


def stream(
    request: Request,
    content: Iterable[bytes],
    size: int | None,
    content_type: str,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return *content* as it comes; where its *size* is not known, its end is that of the chunked coding."""
    length = {} if size is None else {"Content-Length": str(size)}
    return StreamingResponse(
        ahead(started(content)),
        status_code=status,
        headers={
            **echo_headers(request),
            "Content-Type": content_type,
            **length,
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "private, no-cache",
            **(headers or {}),
        },
    )


def started(content: Iterable[bytes]) -> Iterator[bytes]:
    """Return *content* with its first bytes already fetched, so that what is missing shows before the status goes out."""
    iterator = iter(content)
    first = next(iterator, b"")

    def rest() -> Iterator[bytes]:
        yield first
        yield from iterator

    return rest()


def ranged(
    request: Request,
    content: Callable[[int, int], Iterable[bytes]],
    size: int,
    content_type: str,
    *,
    etag: str,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return a value, or the one range of it that is asked for, so that players can seek and downloads go on.

    Args:
        content: gives so many bytes from a place on; it is called once, and never for an answer without a body.
        etag: what changes when the bytes do; a range of other bytes than the asker has is never sent (``If-Range``).
    """
    tag = f'"{etag}"'
    kept = {**(headers or {}), "Accept-Ranges": "bytes", "ETag": tag}
    if names(request.headers.get("if-none-match", ""), tag):
        return Response(
            status_code=304, headers={**echo_headers(request), "Cache-Control": "private, no-cache", **kept}
        )
    asked = request.headers.get("range", "")
    if request.headers.get("if-range", tag) != tag:
        # A date is never strong enough here, because none is told.
        asked = ""
    span = _span(asked, size)
    if span is None:
        return stream(request, content(0, size), size, content_type, headers=kept)
    start, length = span
    if length <= 0:
        error = HubError(
            Category.INCORRECT, "The range lies outside the value.", where="Range", status=416,
            remedy=f"The value has {size} bytes.",
        )  # fmt: skip
        refused = error_response(error, request)
        refused.headers["Content-Range"] = f"bytes */{size}"
        return refused
    kept["Content-Range"] = f"bytes {start}-{start + length - 1}/{size}"
    return stream(request, content(start, length), length, content_type, status=206, headers=kept)


def names(header: str, tag: str) -> bool:
    """Return whether an If-None-Match *header* names *tag* (RFC 9110 section 13.1.2)."""
    found = [one.strip().removeprefix("W/") for one in header.split(",")]
    return tag in found or found == ["*"]


def _span(header: str, size: int) -> tuple[int, int] | None:
    """Return (start, length) of a Range header; ``None`` for the whole, a length of 0 where it cannot be satisfied.

    What is no range of bytes, or several, is answered with the whole, which RFC 9110 section 14.2 allows.
    """
    unit, _, span = header.partition("=")
    low, dash, high = (part.strip() for part in span.partition("-"))
    numbers = [part for part in (low, high) if part]
    if unit.strip().lower() != "bytes" or not dash or not numbers or len(header) > _MAX_RANGE:
        return None
    if not all(part.isascii() and part.isdigit() for part in numbers):
        return None
    if not low:
        length = min(int(high), size)
        return size - length, length
    start = int(low)
    if high and int(high) < start:
        return None
    end = min(int(high) if high else size - 1, size - 1)
    return start, end - start + 1
