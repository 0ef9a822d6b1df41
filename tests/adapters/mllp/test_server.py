"""The MLLP door over real sockets, with a core that only records."""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from adapters._tls import end_of, server_context
from adapters.mllp.frames import encode_frame
from adapters.mllp.server import LARGE_BYTES, LARGE_FRAMES, MllpServer
from fhir_mappings.hl7v2.tokenizer import parse
from hub.certificates import Line
from hub.config import Settings
from hub.errors import Category, HubError
from hub.ports import Database
from hub.presented_certificates import presented
from tests.support.certificates import Authority
from tests.support.mllp import PATIENCE_S, Peer, door, limits, listening
from tests.support.v2 import V2Hub, adt


class Recorder:
    """Answers ``ACK:`` + the message."""

    def __init__(self, before: Callable[[bytes], bytes | None] | None = None) -> None:
        self.received: list[bytes] = []
        self.peers: list[str] = []
        self.lines: list[Line] = []
        self.refused: list[tuple[bytes, str]] = []
        self._before = before

    def receive(self, raw: bytes, peer: str, *, line: Line) -> bytes | None:
        self.received.append(raw)
        self.peers.append(peer)
        self.lines.append(line)
        return self._before(raw) if self._before else b"ACK:" + raw

    def refuse(self, head: bytes, peer: str, reason: str) -> bytes | None:
        self.refused.append((head, reason))
        return b"AR:" + reason.encode() if head.startswith(b"MSH|") else None


def test_messages_on_one_connection_are_answered_in_order_however_they_arrive() -> None:
    core = Recorder()
    with door(core, limits()) as running, Peer(running.address) as peer:
        peer.send(encode_frame(b"one") + encode_frame(b"two"))
        for byte in encode_frame(b"three"):
            peer.send(bytes([byte]))
        assert [peer.answer() for _ in range(3)] == [b"ACK:one", b"ACK:two", b"ACK:three"]
        host, port = peer.socket.getsockname()
        assert set(core.peers) == {f"{host}:{port}"}


def test_a_message_of_the_full_size_comes_through_and_one_byte_more_is_refused() -> None:
    core = Recorder(lambda raw: b"%d" % len(raw))
    size = 3 << 20
    with door(core, limits(max_bytes=size)) as running:
        with Peer(running.address) as peer:
            peer.send(encode_frame(b"x" * size))
            assert peer.answer() == b"%d" % size
        with Peer(running.address) as peer:
            try:
                peer.send(encode_frame(b"MSH|" + b"x" * size))
            except (ConnectionResetError, BrokenPipeError):
                pytest.fail("the door closed before its refusal could be read")
            answer = peer.answer()
            assert answer is not None
            assert answer.startswith(b"AR:frame larger")
            assert peer.answer() is None
    assert len(core.received) == 1


def test_more_large_messages_than_slots_all_come_through() -> None:
    core = Recorder(lambda raw: b"%d" % len(raw))
    size = LARGE_BYTES * 2
    with door(core, limits()) as running:
        peers = [Peer(running.address) for _ in range(LARGE_FRAMES + 2)]
        threads = [threading.Thread(target=peer.send, args=(encode_frame(b"x" * size),)) for peer in peers]
        for thread in threads:
            thread.start()
        assert [peer.answer() for peer in peers] == [b"%d" % size] * len(peers)
        for thread, peer in zip(threads, peers, strict=True):
            thread.join()
            peer.close()


def test_garbage_between_messages_does_not_end_the_connection() -> None:
    with door(Recorder(), limits()) as running, Peer(running.address) as peer:
        peer.send(encode_frame(b"one") + b"line noise\r\n" + encode_frame(b"two"))
        assert [peer.answer(), peer.answer()] == [b"ACK:one", b"ACK:two"]


@pytest.mark.parametrize(
    "data", [b"\x0bMSH|a\x0bMSH|b\x1c\r", b"\x0bMSH|a\x1cx", b"MSH|no start block\r" + b"x" * 5000]
)
def test_a_broken_frame_with_a_readable_header_is_refused_and_the_connection_closed(data: bytes) -> None:
    core = Recorder()
    with door(core, limits()) as running, Peer(running.address) as peer:
        peer.send(data)
        answer = peer.answer()
        assert answer is not None
        assert answer.startswith(b"AR:")
        assert peer.answer() is None
    assert core.received == []


def test_a_broken_frame_without_a_header_closes_without_a_word() -> None:
    with door(Recorder(), limits()) as running, Peer(running.address) as peer:
        peer.send(b"\x0bhello\x0bhello\x1c\r")
        assert peer.answer() is None


def test_a_message_cut_off_by_its_sender_never_reaches_the_core() -> None:
    core = Recorder()
    with door(core, limits()) as running, Peer(running.address) as peer:
        peer.send(encode_frame(b"whole") + b"\x0bMSH|half")
        assert peer.answer() == b"ACK:whole"
        peer.socket.shutdown(1)
        assert peer.answer() is None
    assert core.received == [b"whole"]
    assert core.refused == []


def test_passing_trouble_closes_without_an_acknowledgement_and_the_door_stays_open() -> None:
    def fail(raw: bytes) -> bytes:
        if raw == b"bad day":
            raise HubError(Category.UNAVAILABLE, "The database does not answer.")
        return b"ok"

    with door(Recorder(fail), limits()) as running:
        with Peer(running.address) as peer:
            peer.send(encode_frame(b"bad day"))
            assert peer.answer() is None
        with Peer(running.address) as peer:
            peer.send(encode_frame(b"good day"))
            assert peer.answer() == b"ok"


def test_an_unforeseen_error_closes_without_an_acknowledgement() -> None:
    def fail(raw: bytes) -> bytes:
        raise KeyError("boom")

    with door(Recorder(fail), limits()) as running, Peer(running.address) as peer:
        peer.send(encode_frame(b"x"))
        assert peer.answer() is None


def test_a_failed_disk_ends_the_door() -> None:
    def fail(raw: bytes) -> bytes:
        raise HubError(Category.FAULT, "The disk failed.", fatal=True)

    with door(Recorder(fail), limits()) as running:
        with Peer(running.address) as peer:
            peer.send(encode_frame(b"x"))
            assert peer.answer() is None
        running.thread.join(PATIENCE_S)
        assert not running.thread.is_alive()
        assert isinstance(running.failures[0], HubError)


def test_no_answer_wanted_keeps_the_connection() -> None:
    core = Recorder(lambda raw: None if raw == b"ACK" else b"yes")
    with door(core, limits()) as running, Peer(running.address) as peer:
        peer.send(encode_frame(b"ACK") + encode_frame(b"ADT"))
        assert peer.answer() == b"yes"


def test_a_peer_that_stalls_inside_a_frame_is_cut_off() -> None:
    with door(Recorder(), limits(frame_deadline_s=0.3)) as running, Peer(running.address) as peer:
        peer.send(b"\x0bMSH|")
        assert peer.answer() is None


def test_a_peer_that_drips_bytes_is_cut_off_by_its_rate_before_the_deadline() -> None:
    core = Recorder()
    dripping = threading.Event()
    with door(core, limits(frame_deadline_s=1.2, min_bytes_per_s=1 << 20)) as running, Peer(running.address) as peer:

        def drip() -> None:
            try:
                peer.send(b"\x0b")
                while not dripping.wait(0.02):
                    peer.send(b"x")
            except OSError:
                pass

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            assert peer.answer() is None
        finally:
            dripping.set()
            thread.join()


def test_a_silent_peer_is_closed_after_the_idle_time_even_when_it_sends_line_ends() -> None:
    quiet = threading.Event()
    with door(Recorder(), limits(idle_s=0.3)) as running, Peer(running.address) as peer:

        def blanks() -> None:
            try:
                while not quiet.wait(0.05):
                    peer.send(b"\r\n")
            except OSError:
                pass

        thread = threading.Thread(target=blanks)
        thread.start()
        try:
            assert peer.answer() is None
        finally:
            quiet.set()
            thread.join()


def test_a_peer_that_never_reads_its_answers_is_cut_off() -> None:
    core = Recorder(lambda raw: b"y" * (8 << 20))
    with door(core, limits(frame_deadline_s=0.5)) as running, Peer(running.address) as peer:
        peer.send(encode_frame(b"x") * 3)
        give_up = time.monotonic() + PATIENCE_S
        cut_off = False
        while not cut_off and time.monotonic() < give_up:
            try:
                peer.send(b"\r")
                running.stop.wait(0.01)
            except (ConnectionResetError, BrokenPipeError):
                cut_off = True
        assert cut_off
        assert core.received == [b"x"]
        with Peer(running.address) as other:
            other.send(encode_frame(b"x"))
            answer = other.answer()
            assert answer is not None
            assert len(answer) == 8 << 20


def test_connections_beyond_the_cap_are_closed_and_the_others_served() -> None:
    allowed = limits(connections_per_peer=2)
    with door(Recorder(), allowed) as running, Peer(running.address) as first, Peer(running.address) as second:
        for peer in (first, second):
            peer.send(encode_frame(b"x"))
            assert peer.answer() == b"ACK:x"
        with Peer(running.address) as third:
            assert third.answer() is None
        first.send(encode_frame(b"y"))
        assert first.answer() == b"ACK:y"


def test_stopping_answers_the_message_in_hand_and_closes_idle_peers() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(raw: bytes) -> bytes:
        begun.set()
        assert go_on.wait(PATIENCE_S)
        return b"done"

    with door(Recorder(slow), limits()) as running, Peer(running.address) as busy, Peer(running.address) as idle:
        busy.send(encode_frame(b"x") + encode_frame(b"never begun"))
        assert begun.wait(PATIENCE_S)
        running.stop.set()
        assert idle.answer() is None
        go_on.set()
        assert busy.answer() == b"done"
        assert busy.answer() is None


def _certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "c.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "k.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "c.pem", folder / "k.pem"


def test_the_tls_port_serves_and_a_plain_peer_there_gets_nothing(tmp_path: Path) -> None:
    certificate, key = _certificate(tmp_path)
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.load_cert_chain(certificate, key)
    with structlog.testing.capture_logs() as logs, door(Recorder(), limits(), tls=server_side) as running:
        assert running.tls_address is not None
        with Peer(running.tls_address, tls=ssl.create_default_context(cafile=certificate)) as peer:
            peer.send(encode_frame(b"secret"))
            assert peer.answer() == b"ACK:secret"
        with Peer(running.tls_address) as peer:
            peer.send(encode_frame(b"plain"))
            assert peer.answer() is None
    assert [one["why"] for one in logs if one["event"] == "tls_refused"] == ["the peer does not speak TLS here"]


def test_a_message_over_tls_speaks_for_the_member_whose_certificate_it_is(
    tmp_path: Path, sqlite_database: Database
) -> None:
    authority = Authority(tmp_path)
    certificate, key, _ = authority.issue("localhost")
    settings = Settings(data_dir=tmp_path, tls_certificate=certificate, tls_key=key, tls_client_ca=authority.ca)
    *own, fingerprint = authority.issue("his.kn.example")
    *other, _ = authority.issue("his.qh.example")
    hub = V2Hub(sqlite_database, certificates=fingerprint)

    def told(tls: ssl.SSLContext | None, text: str) -> str:
        address = running.tls_address if tls is not None else running.address
        assert address is not None
        with Peer(address, tls=tls) as peer:
            peer.send(encode_frame(text.encode("gb18030")))
            answer = peer.answer()
        assert answer is not None
        return parse(answer.decode("gb18030")).get("MSA-1")

    def shown(files: list[Path]) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(authority.ca))
        context.load_cert_chain(*files)
        return context

    with door(hub.messages, limits(), tls=server_context(settings)) as running:
        assert told(shown(own), adt("A01", "1")) == "AA"
        assert told(shown(other), adt("A01", "2")) == "AR"
        # When it ends is noted; what speaks for nobody is not.
        noted = hub.database.read(lambda tx: presented(tx, "KN/mllp"))
        assert [(one.fingerprint, one.ends) for one in noted] == [(fingerprint, end_of(own[0]))]
        assert told(None, adt("A01", "3")) == "AR"
        # A batch is no way around it.
        header = "BHS|^~\\&|HIS|KNYY|YIXIE|HUB|20250611080000||||B1\r"
        assert told(None, header + adt("A01", "4") + "BTS|1\r") == "AR"
    assert [(entry.control_id, entry.institution) for entry in hub.journal() if entry.institution == "KN"] == [
        ("1", "KN")
    ]


def test_a_peer_that_comes_while_the_door_closes_leaves_no_socket_behind() -> None:
    async def scenario() -> None:
        with listening() as listener:
            listener.setblocking(False)
            server = MllpServer(Recorder(), limits())
            serving = asyncio.create_task(server.run({"plain": listener}))
            for _ in range(5):
                await asyncio.sleep(0)  # It waits for a peer now.
            # The kernel has the connection before the loop looks again, and the loop is told to stop before that too.
            with socket.create_connection(listener.getsockname(), timeout=PATIENCE_S):
                server.stop()
                await serving

    asyncio.run(scenario())
    gc.collect()  # A socket that nobody closed warns here, and a warning fails the test.
