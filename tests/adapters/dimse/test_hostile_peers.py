"""Peers that lie, stall, cut and flood: each gets the standard's answer, and the door serves the next one as before."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adapters.dimse import command as dimse
from adapters.dimse import negotiation
from adapters.dimse.negotiation import Context
from adapters.dimse.upper_layer import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    INVALID_PARAMETER,
    UNEXPECTED_PDU,
    UNRECOGNIZED_PDU,
    pdv_header,
)
from hub.config import Settings
from hub.errors import Category, HubError
from storage.objects.file import FileStore
from tests.support.dicom import CT_IMAGE_STORAGE, EXPLICIT, ct_tags, encode
from tests.support.dimse import Door, FakeServices, Peer, running
from tests.support.dimse_peer import answer, associated, c_echo, c_store, data_pdus, store_command

VERIFY = Context(negotiation.VERIFICATION, "1.2.840.10008.1.2")
CT = Context(CT_IMAGE_STORAGE, EXPLICIT)
Maker = Callable[..., Settings]


@pytest.fixture
def impatient(settings: Maker) -> Iterator[Door]:
    """A door whose every deadline is short."""
    limits = settings(association_request_s=0.3, pdu_deadline_s=0.3, association_idle_s=0.3)
    with running(FakeServices(limits)) as door:
        yield door


def alive(door: Door) -> None:
    with associated(door.port, VERIFY) as peer:
        assert c_echo(peer) == 0


def rejection(body: bytes) -> tuple[int, int, int]:
    return body[1], body[2], body[3]


def abort_reason(answered: tuple[int, bytes]) -> int:
    kind, body = answered
    assert kind == ABORT
    assert body[2] == 2
    return body[3]


# --- who calls ---------------------------------------------------------------------------------------------------


def test_an_unknown_calling_ae_is_rejected(door: Door) -> None:
    with Peer(door.port) as peer:
        kind, body = peer.associate(VERIFY, calling_ae="STRANGER")
        assert (kind, rejection(body)) == (ASSOCIATE_RJ, (1, 1, 3))
        assert peer.closed()


def test_a_wrong_called_ae_is_rejected(door: Door) -> None:
    with Peer(door.port) as peer:
        kind, body = peer.associate(VERIFY, called_ae="ORTHANC")
        assert (kind, rejection(body)) == (ASSOCIATE_RJ, (1, 1, 7))


def test_an_unknown_application_context_is_rejected(door: Door) -> None:
    request = negotiation.propose(calling_ae="KN_PACS", called_ae="YIXIE", contexts=[VERIFY], offered_pdu_bytes=16384)
    with Peer(door.port) as peer:
        peer.send(request.replace(b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.9"))
        kind, body = peer.read()
        assert (kind, rejection(body)) == (ASSOCIATE_RJ, (1, 1, 2))


def test_a_directory_out_of_order_is_congestion_not_refusal(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(ae_title: str, peer_ip: str) -> None:
        raise HubError(Category.UNAVAILABLE, "The database is locked.")

    monkeypatch.setattr(door.services.directory, "dicom_member", broken)
    with Peer(door.port) as peer:
        kind, body = peer.associate(VERIFY)
        assert (kind, rejection(body)) == (ASSOCIATE_RJ, (2, 3, 1))


def test_associations_are_capped_for_each_ae_and_in_all(settings: Maker) -> None:
    services = FakeServices(settings(associations=3, associations_per_ae=2))
    other = services.directory.endpoints["KN_PACS"]
    services.directory.endpoints["QH_PACS"] = other
    services.directory.endpoints["YL_CENTER"] = other
    with running(services) as door, associated(door.port, VERIFY), associated(door.port, VERIFY):
        with Peer(door.port) as third:
            kind, body = third.associate(VERIFY)
            assert (kind, rejection(body)) == (ASSOCIATE_RJ, (2, 3, 2))
        with associated(door.port, VERIFY, calling_ae="QH_PACS"), Peer(door.port) as fourth:
            kind, body = fourth.associate(VERIFY, calling_ae="YL_CENTER")
            assert (kind, rejection(body)) == (ASSOCIATE_RJ, (2, 3, 2))
        alive_again = lambda: not door.server._per_ae["QH_PACS"]  # noqa: E731
        door.wait(alive_again)
        with associated(door.port, VERIFY, calling_ae="QH_PACS") as peer:
            assert c_echo(peer) == 0


def test_silent_connections_of_one_address_are_capped(door: Door) -> None:
    peers = [Peer(door.port) for _ in range(16)]
    door.wait(lambda: door.server._unknown["127.0.0.1"] == 16)
    with Peer(door.port) as one_more:
        assert one_more.closed()
    for peer in peers:
        peer.socket.close()
    door.quiet()
    alive(door)


def test_128_contexts_are_taken(door: Door) -> None:
    with associated(door.port, *[CT] * 128) as peer:
        assert len(peer.accepted) == 128
        assert c_store(peer, ct_tags(), context_id=255)[0] == 0


# --- what they send ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0xFFFFFFFF, (1 << 20) + 1])
def test_a_pdu_beyond_the_cap_is_aborted_before_its_body(door: Door, length: int) -> None:
    with associated(door.port, CT) as peer:
        peer.send(struct.pack(">BxI", 4, length))
        assert abort_reason(peer.read()) == INVALID_PARAMETER
    alive(door)


@pytest.mark.parametrize("length", [0xFFFFFFFF, (256 << 10) + 1])
def test_a_first_pdu_beyond_the_cap_is_aborted(door: Door, length: int) -> None:
    with Peer(door.port) as peer:
        peer.send(struct.pack(">BxI", 1, length))
        assert abort_reason(peer.read()) == INVALID_PARAMETER


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", INVALID_PARAMETER),
        (b"\x04\0\0\0\0\x06\0\0\0\x02\x01\x03", UNEXPECTED_PDU),
        (b"\x05\0\0\0\0\x04\0\0\0\0", UNEXPECTED_PDU),
        (b"\x01\0\0\0\0\x04\0\0\0\0", INVALID_PARAMETER),
    ],
)
def test_a_connection_that_does_not_begin_with_a_request_is_aborted(door: Door, sent: bytes, reason: int) -> None:
    with Peer(door.port) as peer:
        peer.send(sent)
        assert abort_reason(peer.read()) == reason
    alive(door)


def test_requests_damaged_at_any_byte_do_not_harm_the_door(impatient: Door) -> None:
    request = negotiation.propose(
        calling_ae="KN_PACS", called_ae="YIXIE", contexts=[CT, VERIFY], offered_pdu_bytes=16384
    )
    for position in range(0, len(request), 7):
        damaged = request[:position] + b"\xff" + request[position + 1 :]
        with Peer(impatient.port) as peer:
            peer.send(damaged)
            assert peer.read()[0] in {ABORT, ASSOCIATE_RJ, ASSOCIATE_AC}
    alive(impatient)


def test_items_nobody_knows_are_passed_over(door: Door) -> None:
    request = negotiation.propose(calling_ae="KN_PACS", called_ae="YIXIE", contexts=[VERIFY], offered_pdu_bytes=16384)
    body = request[6:] + b"\x7e\0\0\x02hi"
    with Peer(door.port) as peer:
        peer.send(struct.pack(">BxI", 1, len(body)) + body)
        assert peer.read()[0] == ASSOCIATE_AC


def test_two_contexts_with_one_id_are_aborted(door: Door) -> None:
    request = bytearray(
        negotiation.propose(calling_ae="KN_PACS", called_ae="YIXIE", contexts=[VERIFY, VERIFY], offered_pdu_bytes=16384)
    )
    second = request.rindex(b"\x20\0\0\x2e")
    assert request[second + 4] == 3
    request[second + 4] = 1
    with Peer(door.port) as peer:
        peer.send(bytes(request))
        assert abort_reason(peer.read()) == INVALID_PARAMETER


@pytest.mark.parametrize(
    ("pdu", "reason"),
    [
        (struct.pack(">BxI", 9, 0), UNRECOGNIZED_PDU),
        (struct.pack(">BxI", 4, 0), INVALID_PARAMETER),
        (struct.pack(">BxI", 4, 3) + b"abc", INVALID_PARAMETER),
        (struct.pack(">BxIIBB", 4, 6, 100, 1, 3), INVALID_PARAMETER),
        (struct.pack(">BxIIBB", 4, 6, 1, 1, 3), INVALID_PARAMETER),
        (struct.pack(">BxI", 6, 4) + b"\0" * 4, UNEXPECTED_PDU),
        (pdv_header(99, 3, 0), UNEXPECTED_PDU),
        (pdv_header(1, 2, 4) + b"data", UNEXPECTED_PDU),
        (pdv_header(1, 3, 4) + b"what", INVALID_PARAMETER),
        (pdv_header(1, 3, 8) + struct.pack("<HHI", 0, 0x100, 0xFFFFFFFF), INVALID_PARAMETER),
        (pdv_header(1, 3, 8) + struct.pack("<HHI", 8, 0x100, 0), INVALID_PARAMETER),
    ],
)
def test_pdus_that_make_no_sense_are_aborted(door: Door, pdu: bytes, reason: int) -> None:
    with associated(door.port, CT) as peer:
        peer.send(pdu)
        assert abort_reason(peer.read()) == reason
    alive(door)


def test_a_command_without_end_is_aborted(door: Door) -> None:
    with associated(door.port, CT) as peer:
        for _ in range(5):
            peer.send(pdv_header(1, 1, 4096) + b"\0" * 4096)
        assert abort_reason(peer.read()) == UNEXPECTED_PDU


@pytest.mark.parametrize(
    "inside", [store_command(context_id=1), pdv_header(3, 2, 4) + b"data", b"\x05\0\0\0\0\x04\0\0\0\0"]
)
def test_another_message_inside_a_data_set_is_aborted(door: Door, inside: bytes) -> None:
    with associated(door.port, CT, CT) as peer:
        peer.send(store_command() + data_pdus(encode(ct_tags()), piece=100)[0] + inside)
        assert abort_reason(peer.read()) == UNEXPECTED_PDU
    assert door.imaging.received == []


def test_an_operation_nobody_negotiated_is_answered_as_unrecognized(door: Door) -> None:
    find = dimse.pdu(
        1,
        {
            dimse.COMMAND_FIELD: 0x0020,
            dimse.MESSAGE_ID: 5,
            dimse.COMMAND_DATA_SET_TYPE: 0,
            dimse.AFFECTED_SOP_CLASS_UID: "1.2",
        },
    )
    with associated(door.port, CT) as peer:
        peer.send(find + data_pdus(b"\0" * 20)[0])
        assert answer(peer)[0] == 0x0211


def test_pdus_cut_into_single_bytes_and_pdvs_packed_together_are_read(door: Door) -> None:
    data = encode(ct_tags(size=4))
    whole = store_command(sop_instance=str(ct_tags()[0x00080018][1]))
    # Command and data as PDVs of one PDU.
    fragments = whole[6:] + b"".join(pdu[6:] for pdu in data_pdus(data, piece=150))
    with associated(door.port, CT) as peer:
        sent = struct.pack(">BxI", 4, len(fragments)) + fragments
        for position in range(len(sent)):
            peer.send(sent[position : position + 1])
        assert answer(peer)[0] == 0
    assert len(door.imaging.received) == 1


# --- how they stall and go ---------------------------------------------------------------------------------------


def test_a_peer_that_says_nothing_is_let_go(impatient: Door) -> None:
    with Peer(impatient.port) as peer:
        assert peer.read()[0] in {ABORT, 0}
    impatient.quiet()


def test_an_idle_association_is_let_go(impatient: Door) -> None:
    with associated(impatient.port, CT) as peer:
        assert peer.read()[0] in {ABORT, 0}
    impatient.quiet()


@pytest.mark.parametrize("cut", [3, 6, 20, 500])
def test_a_pdu_that_does_not_come_to_its_end_is_let_go(impatient: Door, cut: int) -> None:
    with associated(impatient.port, CT) as peer:
        peer.send(store_command())
        peer.send(data_pdus(encode(ct_tags()))[0][:cut])
        assert peer.read()[0] in {ABORT, 0}
    impatient.quiet()
    assert impatient.imaging.received == []


def test_a_stalled_peer_does_not_hold_up_another(door: Door) -> None:
    with Peer(door.port), Peer(door.port) as stalled:
        assert stalled.associate(CT)[0] == ASSOCIATE_AC
        stalled.send(store_command() + data_pdus(encode(ct_tags()))[0][:100])
        with associated(door.port, CT) as peer:
            assert c_store(peer, ct_tags())[0] == 0


@pytest.mark.parametrize("how", ["abort", "close", "reset"])
def test_a_transfer_broken_off_leaves_nothing(settings: Maker, tmp_path: Path, how: str) -> None:
    store = FileStore(tmp_path / "objects")
    with running(FakeServices(settings(), objects=store)) as door:
        with Peer(door.port) as peer:
            assert peer.associate(CT)[0] == ASSOCIATE_AC
            assert c_store(peer, ct_tags())[0] == 0
            pieces = data_pdus(encode(ct_tags(instance=2)), piece=100)
            peer.send(store_command() + b"".join(pieces[:-1]))
            if how == "abort":
                peer.send(struct.pack(">BxIxxBB", 7, 4, 0, 0))
            elif how == "reset":
                peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        door.wait(lambda: bool(door.imaging.ended))
        door.quiet()
        # What was acknowledged stays, and its study is told that the association has ended.
        assert len(door.imaging.received) == 1
        assert len(list(store.digests())) == 1
        room = tmp_path / "objects" / "tmp"
        assert [path for path in room.rglob("*") if path.is_file() and path.stat().st_size] == []


def test_a_silent_tls_client_does_not_stop_the_listener(settings: Maker, tmp_path: Path) -> None:
    import ssl

    certificate, key = self_signed(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.create_default_context(cafile=str(certificate))
    with running(FakeServices(settings()), tls=server) as door, Peer(door.port), Peer(door.port) as peer:
        peer.socket = client.wrap_socket(peer.socket, server_hostname="localhost")
        kind, _ = peer.associate(CT)
        assert kind == ASSOCIATE_AC
        assert c_store(peer, ct_tags(size=300))[0] == 0
        peer.send(b"\x05\0\0\0\0\x04\0\0\0\0")
        assert peer.read()[0] == 6


def test_stopping_answers_what_is_in_hand_and_ends_the_rest(settings: Maker) -> None:
    with running(FakeServices(settings())) as door:
        entered, go_on = threading.Event(), threading.Event()

        def slow(header: object) -> None:
            entered.set()
            assert go_on.wait(10)

        door.imaging.trouble = slow
        # The silent one comes first: connections are accepted in their order, and one that waits to be is nobody's to end.
        with Peer(door.port) as silent, associated(door.port, CT) as idle, associated(door.port, CT) as busy:
            busy.send(store_command(sop_instance=str(ct_tags()[0x00080018][1])))
            for pdu in data_pdus(encode(ct_tags())):
                busy.send(pdu)
            assert entered.wait(10)
            door.stop.set()
            assert idle.read()[0] in {ABORT, 0}
            assert silent.read()[0] in {ABORT, 0}
            go_on.set()
            assert answer(busy)[0] == 0
            assert busy.read()[0] == ABORT
        door.thread.join(20)
        assert not door.thread.is_alive()
    assert len(door.imaging.received) == 1


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Return (certificate, key) files for localhost."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "certificate.pem", folder / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_file, key_file
