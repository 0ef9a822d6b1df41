"""Objects leave as they are stored, and what the partner answered decides whether they are sent again."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pynetdicom
import pytest
from pynetdicom import evt

from adapters.dimse.sender import open_sender
from hub.boot import Services
from hub.clock import utc_now
from hub.config import Settings
from hub.ports import Delivery, MemberEndpoint, SendResult
from storage.objects.file import FileStore
from storage.objects.memory import MemoryStore
from tests.support.dicom import (
    BIG_ENDIAN,
    CT_IMAGE_STORAGE,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    JPEG_LOSSLESS,
    ct_tags,
    encode,
    fragments,
    make_ct,
)
from tests.support.dimse import Door, FakeServices, running

Maker = Callable[..., Settings]
MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"


def row(store: Any, **choices: Any) -> dict[str, str]:
    data = make_ct(**choices)
    tags = ct_tags(**{k: v for k, v in choices.items() if k != "transfer_syntax"})
    return {
        "digest": store.put_bytes(data).digest,
        "SOPClassUID": str(tags[0x00080016][1]),
        "SOPInstanceUID": str(tags[0x00080018][1]),
        "TransferSyntaxUID": choices.get("transfer_syntax", EXPLICIT),
    }


def delivery(*rows: dict[str, str], payload: bytes | None = None) -> Delivery:
    now = utc_now()
    return Delivery(
        id=1,
        state="due",
        attempts=0,
        next_at=now,
        created_at=now,
        destination="YL/dicom",
        lane="YL/dicom|x",
        kind="dimse",
        payload=json.dumps({"instances": rows}).encode() if payload is None else payload,
        # A member's own image needs no grant; tests/hub/test_routing.py has those of others.
        owner="YL",
    )


def partner(port: int, *, ae_title: str = "YL_CENTER", scheme: str = "") -> MemberEndpoint:
    return MemberEndpoint(
        id="YL/dicom", member="YL", kind="dicom", ae_title=ae_title, address=f"{scheme}127.0.0.1:{port}"
    )


def send(settings: Settings, store: Any, endpoint: MemberEndpoint, *rows: dict[str, str]) -> SendResult:
    services = FakeServices(settings, objects=store)
    return open_sender(cast("Services", services)).send(delivery(*rows), endpoint)


def statuses(result: SendResult) -> list[str]:
    return [one["status"] for one in json.loads(result.ack)["instances"]]


@contextlib.contextmanager
def library_scp(
    answer: Callable[[Any], int], *classes: str, max_pdu: int = 16382, syntaxes: Sequence[str] = ()
) -> Iterator[tuple[int, list[bytes]]]:
    """A partner made of the DICOM library, as it comes."""
    received: list[bytes] = []

    def store(event: Any) -> int:
        received.append(event.request.DataSet.getvalue())
        return answer(event)

    entity = pynetdicom.AE("YL_CENTER")
    entity.require_called_aet = True
    entity.maximum_pdu_size = max_pdu
    for uid in classes or (CT_IMAGE_STORAGE,):
        entity.add_supported_context(uid, list(syntaxes) or pynetdicom.ALL_TRANSFER_SYNTAXES)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    assert server is not None
    try:
        yield server.socket.getsockname()[1], received
    finally:
        server.shutdown()


@pytest.fixture
def partner_door(settings: Maker) -> Iterator[Door]:
    """Our own door, playing the partner."""
    services = FakeServices(settings(ae_title="YL_CENTER"))
    services.directory.endpoints["YIXIE"] = MemberEndpoint(id="YY/dicom", member="YY", kind="dicom", ae_title="YIXIE")
    with running(services) as door:
        yield door


@pytest.mark.parametrize("max_pdu", [0, 512, 16382, 131072])
def test_the_partner_gets_the_bytes_that_are_stored(settings: Maker, max_pdu: int) -> None:
    store = MemoryStore()
    rows = [row(store, instance=number, size=300) for number in (1, 2, 3)]
    with library_scp(lambda event: 0x0000, max_pdu=max_pdu) as (port, received):
        result = send(settings(), store, partner(port), *rows)
    assert result.error == ""
    assert statuses(result) == ["0000"] * 3
    assert received == [encode(ct_tags(instance=number, size=300)) for number in (1, 2, 3)]


def test_every_transfer_syntax_goes_out_unchanged(settings: Maker, partner_door: Door) -> None:
    store = MemoryStore()
    frames = {0x7FE00010: ("OB", fragments(b"synthetic" * 100_000))}
    rows = [
        row(store, instance=n, transfer_syntax=ts) for n, ts in enumerate((EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED), 1)
    ]
    rows.append(row(store, instance=5, transfer_syntax=JPEG_LOSSLESS, more=frames))
    result = send(settings(), store, partner(partner_door.port, scheme="dicom://"), *rows)
    assert statuses(result) == ["0000"] * 5
    received = {h.SOPInstanceUID: (h.TransferSyntaxUID, digest) for _, digest, h in partner_door.imaging.received}
    for sent in rows:
        syntax, digest = received[sent["SOPInstanceUID"]]
        assert syntax == sent["TransferSyntaxUID"]
        # Only the File Meta Information is the receiver's own.
        ours, theirs = store.read(sent["digest"]), partner_door.services.objects.read(digest)
        assert dataset_of(ours) == dataset_of(theirs)


def dataset_of(data: bytes) -> bytes:
    return data[144 + struct.unpack("<I", data[140:144])[0] :]


@pytest.mark.tool("storescp")
def test_storescp_takes_what_we_send(settings: Maker, dcmtk: Callable[..., list[str]], tmp_path: Path) -> None:
    store = FileStore(tmp_path / "objects")
    rows = [row(store, instance=number) for number in range(1, 4)]
    (tmp_path / "taken").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        dcmtk("storescp", "--bit-preserving", "-od", tmp_path / "taken", port), env={**os.environ, "TCP_NODELAY": "1"}
    )
    try:
        deadline = time.monotonic() + 10
        result = send(settings(), store, partner(port), *rows)
        while not result.reached and time.monotonic() < deadline:
            result = send(settings(), store, partner(port), *rows)
    finally:
        process.terminate()
        process.wait(10)
    assert statuses(result) == ["0000"] * 3
    taken = sorted(dataset_of(path.read_bytes()) for path in (tmp_path / "taken").iterdir())
    assert taken == sorted(encode(ct_tags(instance=number)) for number in range(1, 4))


@pytest.mark.parametrize(
    ("status", "error", "permanent"),
    [
        (0x0000, False, False),
        (0xB000, False, False),
        (0x0111, False, False),
        (0xA700, True, False),
        (0xA900, True, True),
        (0xC000, True, True),
        (0x0124, True, True),
    ],
)
def test_the_status_decides_what_comes_next(settings: Maker, status: int, error: bool, permanent: bool) -> None:
    store = MemoryStore()
    with library_scp(lambda event: status) as (port, _):
        result = send(settings(), store, partner(port), row(store))
    assert (bool(result.error), result.permanent, result.reached) == (error, permanent, True)
    assert statuses(result) == [f"{status:04X}"]


def test_one_refused_object_does_not_keep_the_others(settings: Maker) -> None:
    store = MemoryStore()
    rows = [row(store, instance=number) for number in (1, 2, 3)]
    refused = rows[1]["SOPInstanceUID"]

    def judge(event: Any) -> int:
        return 0xC001 if event.request.AffectedSOPInstanceUID == refused else 0x0000

    with library_scp(judge) as (port, _):
        result = send(settings(), store, partner(port), *rows)
    assert statuses(result) == ["0000", "C001", "0000"]
    assert result.permanent
    assert "1 of 3" in result.error


def test_a_full_partner_is_not_sent_the_rest(settings: Maker) -> None:
    store = MemoryStore()
    rows = [row(store, instance=number) for number in (1, 2, 3)]
    with library_scp(lambda event: 0xA700) as (port, received):
        result = send(settings(), store, partner(port), *rows)
    assert statuses(result) == ["A700", "not-sent", "not-sent"]
    assert len(received) == 1
    assert not result.permanent


def test_a_context_the_partner_does_not_take_is_permanent(settings: Maker) -> None:
    store = MemoryStore()
    rows = [row(store, instance=1), row(store, instance=2, sop_class=MR_IMAGE_STORAGE)]
    with library_scp(lambda event: 0) as (port, _):
        result = send(settings(), store, partner(port), *rows)
    assert statuses(result) == ["0000", "not-negotiated"]
    assert result.permanent


def test_more_contexts_than_one_association_has_take_several(settings: Maker, partner_door: Door) -> None:
    store = MemoryStore()
    rows = [row(store, instance=n, sop_class=f"1.3.6.1.4.1.99999.{n}") for n in range(1, 131)]
    result = send(settings(), store, partner(partner_door.port), *rows)
    assert statuses(result) == ["0000"] * 130
    partner_door.wait(lambda: len(partner_door.imaging.ended) == 3)


def test_a_partner_that_takes_no_native_encoding_but_one_gets_that(settings: Maker) -> None:
    store = MemoryStore()
    rows = [row(store, instance=1), row(store, instance=2, transfer_syntax=IMPLICIT)]
    with library_scp(lambda event: 0, syntaxes=[IMPLICIT]) as (port, received):
        result = send(settings(), store, partner(port), *rows)
    assert statuses(result) == ["0000", "0000"]
    assert received == [encode(ct_tags(instance=1), IMPLICIT, undefined=True), encode(ct_tags(instance=2), IMPLICIT)]


def test_an_image_that_cannot_be_decoded_does_not_keep_the_others(settings: Maker) -> None:
    store = MemoryStore()
    broken = {0x7FE00010: ("OB", fragments(b"no image"))}
    rows = [row(store, instance=1, transfer_syntax=JPEG_LOSSLESS, more=broken), row(store, instance=2)]
    with library_scp(lambda event: 0, syntaxes=[EXPLICIT]) as (port, received):
        result = send(settings(), store, partner(port), *rows)
    assert statuses(result) == ["not-negotiated", "0000"]
    assert received == [encode(ct_tags(instance=2))]


def test_a_rejected_association_may_be_tried_again(settings: Maker) -> None:
    store = MemoryStore()
    with library_scp(lambda event: 0) as (port, _):
        result = send(settings(), store, partner(port, ae_title="ELSEWHERE"), row(store))
    assert "1-1-7" in result.error
    assert (result.permanent, result.reached) == (False, True)


def test_nobody_there_is_not_the_contents_fault(settings: Maker) -> None:
    store = MemoryStore()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    result = send(settings(), store, partner(port), row(store))
    assert result.error
    assert (result.permanent, result.reached) == (False, False)


@pytest.mark.parametrize(
    "says", [b"", b"\x07\0\0\0\0\x04\0\0\0\0", b"\x02\0\xff\xff\xff\xff", b"HTTP/1.1 400 Bad Request\r\n\r\n"]
)
def test_a_partner_that_speaks_nonsense_or_nothing_ends_in_time(settings: Maker, says: bytes) -> None:
    store = MemoryStore()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def speak() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(says)
                with contextlib.suppress(ConnectionResetError):
                    while connection.recv(1024):
                        pass

        thread = threading.Thread(target=speak, daemon=True)
        thread.start()
        result = send(settings(delivery_timeout_s=0.3), store, partner(listener.getsockname()[1]), row(store))
        thread.join(10)
    assert result.error
    assert not result.permanent


def test_a_missing_or_damaged_object_is_never_delivered(settings: Maker, tmp_path: Path, partner_door: Door) -> None:
    store = FileStore(tmp_path / "objects")
    whole, damaged = row(store, instance=1), row(store, instance=2, size=600)
    path = tmp_path / "objects" / damaged["digest"][:2] / damaged["digest"]
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.chmod(0o600)
    path.write_bytes(bytes(data))
    for bad in (damaged, {**damaged, "digest": "0" * 64}):
        result = send(settings(), store, partner(partner_door.port), whole, bad)
        assert result.permanent
        assert statuses(result) == ["0000", "not-sent"]
    assert {header.InstanceNumber for _, _, header in partner_door.imaging.received} == {"1"}


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b'{"instances":[]}',
        b'{"instances":[{}]}',
        b'{"instances":[{"digest":"0","SOPClassUID":"../x","SOPInstanceUID":"1","TransferSyntaxUID":"1"}]}',
    ],
)
def test_a_payload_that_cannot_be_read_is_permanent(settings: Maker, payload: bytes) -> None:
    sender = open_sender(cast("Services", FakeServices(settings())))
    result = sender.send(delivery(payload=payload), partner(1))
    assert result.permanent
    assert result.error
