"""The FHIR sender against a partner that answers as told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from adapters.fhir.sender import MAX_ANSWER_BYTES, FhirSender
from fhir_mappings.json import dumps
from hub.clock import utc_now
from hub.config import Settings
from hub.ports import Delivery, MemberEndpoint


class Partner(ThreadingHTTPServer):
    """A server that answers with ``status`` and ``answer`` and remembers what it got."""

    daemon_threads = True

    def __init__(self) -> None:
        self.status = 200
        self.answer = b"{}"
        #: Makes the answer from the request where it must fit it.
        self.reply: Callable[[bytes], bytes] | None = None
        self.extra: dict[str, str] = {}
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Partner

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.command, self.path, dict(self.headers), body))
        answer = self.server.answer if self.server.reply is None else self.server.reply(body)
        self.send_response(self.server.status)
        for name, value in self.server.extra.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_PUT = _answer

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def partner() -> Iterator[Partner]:
    server = Partner()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def sender() -> Iterator[FhirSender]:
    one = FhirSender(Settings(delivery_timeout_s=5))
    yield one
    one.close()


def endpoint(address: str, **settings: Any) -> MemberEndpoint:
    return MemberEndpoint(id="YL/fhir", member="YL", kind="fhir", address=address, settings=settings)


def at(partner: Partner) -> str:
    return f"http://127.0.0.1:{partner.server_port}/fhir"


def delivery(resource: dict[str, Any]) -> Delivery:
    now = utc_now()
    return Delivery(
        destination="YL/fhir",
        lane="YL/fhir|p",
        kind="fhir",
        payload=dumps(resource),
        owner="YL",
        control_id="YX1",
        content_type="application/fhir+json",
        correlation_id="c1",
        id=1,
        state="leased",
        attempts=0,
        next_at=now,
        created_at=now,
    )


@pytest.mark.parametrize(
    ("resource", "method", "path"),
    [
        ({"resourceType": "Bundle", "type": "transaction"}, "POST", "/fhir"),
        ({"resourceType": "Bundle", "type": "document", "id": "d"}, "PUT", "/fhir/Bundle/d"),
        ({"resourceType": "Task", "id": "t"}, "PUT", "/fhir/Task/t"),
        ({"resourceType": "Task"}, "POST", "/fhir/Task"),
    ],
)
def test_the_payload_decides_method_and_address(
    partner: Partner, sender: FhirSender, resource: dict[str, Any], method: str, path: str
) -> None:
    result = sender.send(delivery(resource), endpoint(at(partner), bearer="key"))

    assert (result.error, result.ack) == ("", b"{}")
    [(seen_method, seen_path, headers, body)] = partner.seen
    assert (seen_method, seen_path, body) == (method, path, dumps(resource))
    assert headers["Authorization"] == "Bearer key"
    assert (headers["X-Request-Id"], headers["X-Correlation-Id"]) == ("YX1", "c1")


@pytest.mark.parametrize(
    ("status", "permanent"),
    [
        (400, True),
        (404, True),
        (422, True),
        (409, False),
        (412, False),
        (429, False),
        (401, False),
        (500, False),
        (503, False),
    ],
)
def test_refusals_are_told_from_trouble(partner: Partner, sender: FhirSender, status: int, permanent: bool) -> None:
    partner.status, partner.answer = status, b'{"patient":"\xe9\x83\x91\xe4\xbc\x9f"}'

    result = sender.send(delivery({"resourceType": "Task", "id": "t"}), endpoint(at(partner)))

    assert (result.permanent, result.reached) == (permanent, True)
    assert result.ack == partner.answer
    assert "郑伟" not in result.error


MESSAGE = {"resourceType": "Bundle", "type": "message"}


def response(code: str, identifier: str = "YX1") -> bytes:
    header = {"resourceType": "MessageHeader", "response": {"identifier": identifier, "code": code}}
    return dumps({"resourceType": "Bundle", "type": "message", "entry": [{"resource": header}]})


@pytest.mark.parametrize(
    ("status", "answer", "error", "permanent"),
    [
        (200, response("ok"), False, False),
        (200, response("transient-error"), True, False),
        (200, response("fatal-error"), True, True),
        (422, response("transient-error"), True, False),
        (500, response("fatal-error"), True, True),
        (503, response("ok"), True, False),
        (200, response("perhaps"), True, False),
        (200, response("ok", "YX2"), True, False),
        (200, b"", True, False),
        (200, b"not JSON", True, False),
        (200, b'{"resourceType":"Bundle","type":"message","entry":[1]}', True, False),
        (200, b'{"resourceType":"OperationOutcome"}', True, False),
        (400, b'{"resourceType":"OperationOutcome"}', True, True),
    ],
)
def test_the_header_of_the_answer_decides_what_became_of_a_message(
    partner: Partner, sender: FhirSender, status: int, answer: bytes, error: bool, permanent: bool
) -> None:
    partner.status, partner.answer = status, answer

    result = sender.send(delivery(MESSAGE), endpoint(at(partner)))

    assert partner.seen[0][:2] == ("POST", "/fhir/$process-message")
    assert (bool(result.error), result.permanent, result.reached) == (error, permanent, True)
    assert result.ack == (answer or b"HTTP 200")


def test_a_redirect_is_not_followed(partner: Partner, sender: FhirSender) -> None:
    partner.status, partner.extra = 307, {"Location": f"{at(partner)}/elsewhere"}

    result = sender.send(delivery({"resourceType": "Task", "id": "t"}), endpoint(at(partner), bearer="key"))

    assert result.error
    assert len(partner.seen) == 1


def test_an_endless_answer_is_kept_only_in_part(partner: Partner, sender: FhirSender) -> None:
    partner.answer = b"a" * (MAX_ANSWER_BYTES + 500_000)

    result = sender.send(delivery({"resourceType": "Task", "id": "t"}), endpoint(at(partner)))

    assert len(result.ack) == MAX_ANSWER_BYTES


@pytest.mark.parametrize("address", ["", "ftp://x/y", "http://"])
def test_an_address_of_no_use_counts_as_not_reached(sender: FhirSender, address: str) -> None:
    result = sender.send(delivery({"resourceType": "Task", "id": "t"}), endpoint(address))

    assert result.error
    assert not result.reached


def test_a_partner_that_is_away_counts_as_not_reached(partner: Partner, sender: FhirSender) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    result = sender.send(delivery({"resourceType": "Task", "id": "t"}), endpoint(f"http://127.0.0.1:{port}/fhir"))

    assert (result.reached, result.permanent) == (False, False)
