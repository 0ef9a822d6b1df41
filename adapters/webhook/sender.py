"""Delivers alerts to the operator's webhooks: one POST of JSON each, signed, with no redirect followed.

``X-Yixie-Signature: t=SECONDS,v1=HEX`` is HMAC-SHA256 (RFC 2104) of ``SECONDS.`` and the body under ``webhook_secret``;
the receiver refuses an old time, so that a copied request is of no use. ``X-Request-Id`` is the same for every attempt.
"""

from __future__ import annotations

import hashlib
import hmac
import ssl
from typing import TYPE_CHECKING

import httpx

from adapters.webhook.target import NotAllowedError, Resolve, Target, resolve, target_of
from hub.clock import Clock
from hub.config import Settings
from hub.ports import Delivery, MemberEndpoint, Sender, SendResult

if TYPE_CHECKING:
    from hub.boot import Services

SIGNATURE = "X-Yixie-Signature"
#: Most of an answer that is kept; nobody reads more of it.
MAX_ANSWER_BYTES = 4096
#: Statuses below 500 after which another attempt may help.
_PASSING = frozenset({401, 403, 408, 409, 425, 429})


def open_sender(services: Services) -> Sender:
    """Return a sender for deliveries of kind ``webhook``; safe for several threads."""
    return WebhookSender(services.settings, services.clock)


class WebhookSender:
    """The :class:`hub.ports.Sender` for webhooks."""

    def __init__(self, settings: Settings, clock: Clock, *, resolver: Resolve = resolve) -> None:
        self._settings = settings
        self._clock = clock
        self._resolve = resolver
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if settings.tls_client_ca is not None:
            context.load_verify_locations(settings.tls_client_ca)
        self._client = httpx.Client(
            timeout=settings.delivery_timeout_s, follow_redirects=False, verify=context, trust_env=False
        )

    def send(self, delivery: Delivery, endpoint: MemberEndpoint) -> SendResult:
        """POST the alert; 2xx is success, and what is not allowed is not called and waits for the settings."""
        secret = self._settings.webhook_secret.get_secret_value()
        if not secret:
            return SendResult(error="HUB_WEBHOOK_SECRET is not set, and alerts are not sent unsigned.", reached=False)
        try:
            target = target_of(endpoint.address, self._settings.webhook_urls, resolver=self._resolve)
        except NotAllowedError as error:
            return SendResult(error=f"The address of {endpoint.id} is not called: {error}.", reached=False)
        except OSError as error:
            return SendResult(error=f"The webhook's name was not resolved ({type(error).__name__}).", reached=False)
        try:
            with self._client.stream(
                "POST",
                _pinned(target),
                content=delivery.payload,
                headers={
                    "Host": httpx.URL(target.url).netloc.decode("ascii"),
                    "Content-Type": "application/json",
                    "X-Request-Id": delivery.control_id,
                    SIGNATURE: signature(secret, delivery.payload, int(self._clock().timestamp())),
                },
                extensions={"sni_hostname": target.host},
            ) as response:
                answer = next(response.iter_bytes(MAX_ANSWER_BYTES), b"")
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            return SendResult(error=f"The webhook was not reached ({type(error).__name__}).", reached=False)
        except httpx.HTTPError as error:
            return SendResult(error=f"The exchange broke off ({type(error).__name__}).")
        return _judged(response.status_code, answer)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()


def signature(secret: str, body: bytes, at: int) -> str:
    """Return the value of the header :data:`SIGNATURE` for *body* sent at *at*, in seconds since 1970."""
    mac = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256)
    return f"t={at},v1={mac.hexdigest()}"


def _pinned(target: Target) -> httpx.URL:
    """Return the URL with the address that was checked in place of the name, which could lead elsewhere by now."""
    return httpx.URL(target.url).copy_with(host=target.address, port=target.port)


def _judged(status: int, answer: bytes) -> SendResult:
    kept = answer or b"HTTP %d" % status
    if 200 <= status < 300:
        return SendResult(ack=kept)
    permanent = 400 <= status < 500 and status not in _PASSING
    return SendResult(ack=kept, error=f"The webhook answered {status}.", permanent=permanent)
