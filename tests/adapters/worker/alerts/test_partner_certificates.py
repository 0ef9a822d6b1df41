"""The certificates of partners' servers are noted where the hub calls them anyway, and told of before they end."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapters.fhir import sender as fhir
from adapters.mllp import sender as mllp
from adapters.mllp.frames import Deframer, Frame, encode_frame
from adapters.worker.alerts import AlertLoop
from hub.boot import Services
from hub.ports import Delivery, MemberEndpoint, Sender
from hub.presented_certificates import presented
from tests.support.certificates import Authority
from tests.support.hub import SetClock, register
from tests.support.mllp import PATIENCE_S, listening

ACK = b"MSH|^~\\&|HIS|KNYY|YIXIE|HUB|20250301||ACK|1|P|2.4\rMSA|AA|1\r"
HTTP = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


class Partner:
    """A server behind TLS that takes one connection after another, and shows what :meth:`show` said last."""

    def __init__(self, serve: Callable[[ssl.SSLSocket], None]) -> None:
        self._serve = serve
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.handshakes = 0
        self.listener = listening()
        self.port = int(self.listener.getsockname()[1])
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def show(self, certificate: Path, key: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._context = context

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.settimeout(PATIENCE_S)
            with contextlib.suppress(OSError), self._context.wrap_socket(connection, server_side=True) as secured:
                self.handshakes += 1
                self._serve(secured)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(PATIENCE_S)


def over_mllp(connection: ssl.SSLSocket) -> None:
    deframer = Deframer(max_bytes=1 << 20)
    while data := connection.recv(4096):
        deframer.receive_data(data)
        while isinstance(deframer.next_event(), Frame):
            connection.sendall(encode_frame(ACK))


def over_http(connection: ssl.SSLSocket) -> None:
    got = b""
    # A connection that is closed with something unread in it is reset, and the answer may be lost with it.
    while not got.endswith(b"}"):
        got += connection.recv(65536)
    connection.sendall(HTTP)


KINDS = {
    "mllp": (mllp.open_sender, over_mllp, "mllps://localhost:{}", b"MSH|^~\\&|YIXIE|HUB|HIS|KNYY|20250301||ADT^A01|1|P|2.4\r"),
    "fhir": (fhir.open_sender, over_http, "https://localhost:{}/fhir", b'{"resourceType":"Patient","id":"1"}'),
}  # fmt: skip


class Called:
    """A hub that calls a partner of one kind."""

    def __init__(self, services: Services, kind: str, folder: Path) -> None:
        self.authority = Authority(folder)
        settings = services.settings.model_copy(update={"tls_client_ca": self.authority.ca})
        self.services = replace(services, settings=settings)
        open_sender, serve, address, self.payload = KINDS[kind]
        self.partner = Partner(serve)
        self.endpoint = MemberEndpoint(
            id=f"KN/{kind}", member="KN", kind=kind, address=address.format(self.partner.port)
        )
        register(self.services, self.endpoint)
        self._open = open_sender
        self.sender: Sender = open_sender(self.services)

    def restart(self) -> None:
        self.sender.close()
        self.sender = self._open(self.services)

    def show(self, *, days: float) -> str:
        certificate, key, fingerprint = self.authority.issue("localhost", days=days)
        self.partner.show(certificate, key)
        return fingerprint

    def send(self) -> str:
        at = datetime(2025, 3, 1, tzinfo=UTC)
        return self.sender.send(
            Delivery(
                destination=self.endpoint.id, lane=f"{self.endpoint.id}|1", kind=self.endpoint.kind, payload=self.payload,
                owner="KN", control_id="1", id=1, state="leased", attempts=0, next_at=at, created_at=at,
            ),
            self.endpoint,
        ).error  # fmt: skip

    def shown(self) -> list[str]:
        return [one.fingerprint for one in self.services.database.read(lambda tx: presented(tx, self.endpoint.id))]

    def alerts(self) -> list[str]:
        AlertLoop(self.services).turn()
        found = [str(one["key"]) for one in self.services.database.read(lambda tx: tx.alerts.all())]
        # The authority of these tests lasts for a day, which has an alert of its own.
        return [key for key in found if key.startswith("member-certificate|")]


@pytest.fixture(params=KINDS)
def called(request: pytest.FixtureRequest, sqlite_services: Services, tmp_path: Path) -> Iterator[Called]:
    one = Called(sqlite_services, request.param, tmp_path)
    yield one
    one.sender.close()
    one.partner.close()


def test_what_the_partners_server_shows_is_told_until_it_shows_one_that_lasts(
    called: Called, set_clock: SetClock
) -> None:
    set_clock.now = datetime.now(UTC)
    first = called.show(days=20)
    assert called.send() == ""
    assert called.shown() == [first]
    assert called.alerts() == [f"member-certificate|{called.endpoint.id}"]
    second = called.show(days=400)
    called.restart()
    set_clock.forward(2 * 86_400)
    assert called.send() == ""
    assert called.shown() == [second]
    assert called.alerts() == []


def test_watching_makes_no_connection_and_writes_once_in_an_hour(called: Called, set_clock: SetClock) -> None:
    set_clock.now = datetime.now(UTC)
    called.show(days=400)
    written = []
    write = called.services.database.write
    called.services.database.write = lambda work: written.append(1) or write(work)  # type: ignore[method-assign, func-returns-value]
    assert [called.send() for _ in range(5)] == [""] * 5
    assert len(written) == 1
    assert called.alerts() == []
    # One connection lasts over MLLP; the partner over HTTP ends each.
    assert called.partner.handshakes == (1 if called.endpoint.kind == "mllp" else 5)


def test_a_server_that_is_not_trusted_or_away_is_not_noted(called: Called, tmp_path: Path) -> None:
    strange = tmp_path / "strange"
    strange.mkdir()
    certificate, key, _ = Authority(strange, "Strangers").issue("localhost")
    called.partner.show(certificate, key)
    assert called.send() != ""
    assert called.shown() == []
