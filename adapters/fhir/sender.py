"""Delivers resources and Bundles to a partner's FHIR server (https://hl7.org/fhir/R4/http.html).

A batch, transaction or message Bundle is POSTed as a whole; any other resource is PUT under its id, so that sending
twice is harmless. A message is delivered when the answer's MessageHeader says so, naming ours
(https://hl7.org/fhir/R4/messaging.html): an HTTP status alone does not tell what became of it. Only addresses of the directory are called: no redirects are followed and answers are capped.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx

from adapters._tls import line_of
from fhir_mappings.errors import MappingError
from fhir_mappings.json import loads
from hub.certificates import Line
from hub.config import Settings
from hub.ports import Delivery, MemberEndpoint, Sender, SendResult

if TYPE_CHECKING:
    from hub.boot import Services

_PROCESS_MESSAGE = "/$process-message"
FHIR_JSON = "application/fhir+json"
#: Most of an answer that is kept; the rest is not read.
MAX_ANSWER_BYTES = 1 << 20
#: Statuses below 500 that may pass: timeout, lock, version race, too many requests.
_PASSING = frozenset({408, 409, 412, 423, 425, 429})


def open_sender(services: Services) -> Sender:
    """Return a sender for deliveries of kind ``fhir``; safe for several threads."""
    return FhirSender(services.settings, shown=services.presented_certificates.note)


class FhirSender:
    """The :class:`hub.ports.Sender` for FHIR REST.

    Args:
        shown: told with each answer what the endpoint's server showed.
    """

    def __init__(self, settings: Settings, *, shown: Callable[[str, Line], None] | None = None) -> None:
        self._shown = shown
        self._client = httpx.Client(
            timeout=settings.delivery_timeout_s,
            follow_redirects=False,
            verify=_tls(settings),
            # The operator's proxy variables must not reroute patient data.
            trust_env=False,
        )

    def send(self, delivery: Delivery, endpoint: MemberEndpoint) -> SendResult:
        """Send the payload and keep the partner's answer; never raises for a partner's fault.

        2xx is success. 4xx is permanent, but for those that may pass (conflict, precondition, rate). 401 and 403 are
        tried again, because a partner that renews its keys must not cost the delivery. The endpoint's setting
        ``bearer`` is sent as its token.
        """
        try:
            method, url = _target(delivery, endpoint.address)
        except ValueError as error:
            return SendResult(error=f"The address of {endpoint.id} is of no use: {error}", reached=False)
        except MappingError as error:
            return SendResult(error=error.message, permanent=True)
        headers = {
            "Content-Type": delivery.content_type or FHIR_JSON,
            "Accept": FHIR_JSON,
            "X-Correlation-Id": delivery.correlation_id,
            # The same for every attempt, so that the partner can tell a repeat from a new request.
            "X-Request-Id": delivery.control_id or str(delivery.id),
            **dict(delivery.headers),
        }
        bearer = endpoint.settings.get("bearer")
        if bearer:
            headers["Authorization"] = f"Bearer {bearer}"
        try:
            with self._client.stream(
                method, url, content=delivery.payload, headers={name: value for name, value in headers.items() if value}
            ) as response:
                if self._shown is not None:
                    # Before the body is read, after which the connection may be gone.
                    self._shown(endpoint.id, line_of(response.extensions["network_stream"].get_extra_info("socket")))
                answer = _read(response)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            return SendResult(error=f"The partner was not reached ({type(error).__name__}).", reached=False)
        except httpx.HTTPError as error:
            return SendResult(error=f"The exchange broke off ({type(error).__name__}).")
        if url.endswith(_PROCESS_MESSAGE):
            return _acknowledged(response.status_code, answer, delivery.control_id)
        return _judged(response.status_code, answer)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()


def _tls(settings: Settings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.tls_client_ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.tls_certificate is not None:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    return context


def _target(delivery: Delivery, address: str) -> tuple[str, str]:
    """Return method and URL for the payload.

    Raises:
        ValueError: *address* is no http(s) URL.
        MappingError: the payload is no resource.
    """
    parts = urlsplit(address)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("write http:// or https:// and the partner's FHIR base")
    base = address.rstrip("/")
    resource = loads(delivery.payload)
    kind = resource.get("resourceType") if isinstance(resource, dict) else None
    if not isinstance(kind, str):
        raise MappingError("The payload is no FHIR resource.")
    if kind == "Bundle":
        match resource.get("type"):
            case "batch" | "transaction":
                return "POST", base
            case "message":
                return "POST", f"{base}{_PROCESS_MESSAGE}"
    if isinstance(resource.get("id"), str):
        return "PUT", f"{base}/{kind}/{resource['id']}"
    return "POST", f"{base}/{kind}"


def _read(response: httpx.Response) -> bytes:
    parts: list[bytes] = []
    size = 0
    for chunk in response.iter_bytes(65536):
        parts.append(chunk[: MAX_ANSWER_BYTES - size])
        size += len(parts[-1])
        if size >= MAX_ANSWER_BYTES:
            break
    return b"".join(parts)


def _judged(status: int, answer: bytes) -> SendResult:
    """Return what *status* means; an answer without a body is kept as its status."""
    kept = answer or b"HTTP %d" % status
    if 200 <= status < 300:
        return SendResult(ack=kept)
    # The partner's words may quote patient data; they stay in the stored answer and out of the error.
    permanent = 400 <= status < 500 and status not in _PASSING | {401, 403}
    return SendResult(ack=kept, error=f"The partner answered {status}.", permanent=permanent)


def _acknowledged(status: int, answer: bytes, control_id: str) -> SendResult:
    """Return what the answer to the message *control_id* means, by MessageHeader.response as far as it is one."""
    response = _response(answer)
    by_status = _judged(status, answer)
    if response.get("identifier") != control_id:
        if by_status.error:
            return by_status
        why = "names another message" if response else "does not acknowledge the message"
        return SendResult(ack=by_status.ack, error=f"The partner answered {status}, and its answer {why}.")
    match response.get("code"):
        case "ok":
            return by_status
        case "transient-error":
            return SendResult(ack=answer, error="The partner answered transient-error.")
        case "fatal-error":
            return SendResult(ack=answer, error="The partner answered fatal-error.", permanent=True)
    return SendResult(ack=answer, error="The partner answered with a response code that FHIR does not know.")


def _response(answer: bytes) -> dict[str, Any]:
    """Return MessageHeader.response of the message in *answer*; empty when it is none."""
    try:
        bundle = loads(answer)
    except MappingError:
        return {}
    entries = bundle.get("entry") if isinstance(bundle, dict) and bundle.get("type") == "message" else None
    first = entries[0] if isinstance(entries, list) and entries else None
    header = first.get("resource") if isinstance(first, dict) else None
    if not isinstance(header, dict) or header.get("resourceType") != "MessageHeader":
        return {}
    response = header.get("response")
    return response if isinstance(response, dict) else {}
