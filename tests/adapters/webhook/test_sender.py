"""An alert reaches the operator's webhook signed, once it is told and once it is over, and through the outbox."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import SecretStr

from adapters.webhook.sender import SIGNATURE, WebhookSender
from adapters.worker.alerts.telling import Telling
from adapters.worker.delivery import DeliveryLoop
from hub.boot import Services
from hub.ports import Delivery, MemberEndpoint
from tests.support.hub import NOW, SetClock, register

SECRET = "a secret of the operator's"


class Hook(ThreadingHTTPServer):
    """A webhook that answers with ``status`` and remembers what it got."""

    daemon_threads = True

    def __init__(self) -> None:
        self.status = 204
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.path, dict(self.headers), body))
        self.send_response(self.server.status)
        self.send_header("Location", f"{self.server.url}/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[Hook]:
    server = Hook()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def services(sqlite_services: Services, hook: Hook) -> Services:
    """A hub whose operator has *hook* as its webhook."""
    settings = sqlite_services.settings.model_copy(
        update={"webhook_urls": hook.url, "webhook_secret": SecretStr(SECRET)}
    )
    found = replace(sqlite_services, settings=settings)
    register(found, endpoint(hook))
    return found


def endpoint(hook: Hook) -> MemberEndpoint:
    return MemberEndpoint(id="YY/webhook", member="YY", kind="webhook", address=f"{hook.url}/alerts")


def delivery() -> Delivery:
    return Delivery(
        id=1,
        destination="YY/webhook",
        lane="YY/webhook|x",
        kind="webhook",
        payload=b"{}",
        owner="YY",
        control_id="c1",
        state="pending",
        attempts=0,
        next_at=NOW,
        created_at=NOW,
    )


def test_an_alert_is_told_signed_when_it_starts_and_when_it_is_over(
    services: Services, hook: Hook, set_clock: SetClock
) -> None:
    telling, deliveries = Telling(services), DeliveryLoop(services)
    telling.opened("idle|KN/mllp", "silent", set_clock.now)
    telling.opened("idle|KN/mllp", "silent", set_clock.now)
    assert deliveries.turn() == 1
    set_clock.forward(60)
    telling.cleared("idle|KN/mllp", set_clock.now)
    assert deliveries.turn() == 1
    started, cleared = (json.loads(body) for _, _, body in hook.seen)
    assert (started["event"], started["key"], started["detail"]) == ("alert-started", "idle|KN/mllp", "silent")
    assert (cleared["event"], cleared["since"]) == ("alert-cleared", started["since"])
    assert started["id"] != cleared["id"]
    path, headers, body = hook.seen[0]
    assert path == "/alerts"
    assert headers["Host"] == hook.url.removeprefix("http://")
    at, _, mac = headers[SIGNATURE].partition(",")
    assert at == f"t={int(NOW.timestamp())}"
    expected = hmac.new(SECRET.encode(), at.removeprefix("t=").encode() + b"." + body, hashlib.sha256).hexdigest()
    assert mac == f"v1={expected}"


def test_a_hook_that_is_away_gets_the_alert_later_under_the_same_id(
    services: Services, hook: Hook, set_clock: SetClock
) -> None:
    hook.status = 503
    Telling(services).opened("disk", "full", set_clock.now)
    deliveries = DeliveryLoop(services)
    deliveries.turn()
    hook.status = 200
    set_clock.forward(services.settings.retry_longest_s)
    deliveries.turn()
    first, second = (headers["X-Request-Id"] for _, headers, _ in hook.seen)
    assert first == second
    assert [one["depth"] for one in services.database.read(lambda tx: tx.outbox.destinations())] == [0]


@pytest.mark.parametrize(
    ("status", "permanent"),
    [(301, False), (307, False), (400, True), (404, True), (401, False), (429, False), (500, False)],
)
def test_what_is_no_success_is_no_delivery_and_no_redirect_is_followed(
    services: Services, hook: Hook, status: int, permanent: bool
) -> None:
    hook.status = status
    result = WebhookSender(services.settings, services.clock).send(delivery(), endpoint(hook))
    assert result.error
    assert result.permanent is permanent
    assert [path for path, _, _ in hook.seen] == ["/alerts"]


@pytest.mark.parametrize(
    "change", [{"webhook_secret": SecretStr("")}, {"webhook_urls": ""}, {"webhook_urls": "http://127.0.0.1:1"}]
)
def test_without_a_secret_or_outside_what_is_allowed_nothing_is_sent_and_nothing_lost(
    services: Services, hook: Hook, change: dict[str, Any]
) -> None:
    settings = services.settings.model_copy(update=change)
    result = WebhookSender(settings, services.clock).send(delivery(), endpoint(hook))
    assert result.error
    assert not result.reached, "it is tried again until the settings allow it"
    assert hook.seen == []


def test_the_name_is_looked_up_once_and_the_address_that_was_judged_is_called(services: Services, hook: Hook) -> None:
    port = hook.server_address[1]
    asked: list[str] = []

    def resolver(host: str, _: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    settings = services.settings.model_copy(update={"webhook_urls": f"http://localhost:{port}"})
    named = replace(endpoint(hook), address=f"http://localhost:{port}/a")
    assert not WebhookSender(settings, services.clock, resolver=resolver).send(delivery(), named).error
    assert asked == ["localhost"]
    assert hook.seen[0][1]["Host"] == f"localhost:{port}"
