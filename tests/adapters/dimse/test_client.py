"""The association that stores: every request gets its own answer, and an association that broke is of no more use."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from adapters.dimse.client import RejectedError, StoreClient
from adapters.dimse.negotiation import Context
from adapters.dimse.upper_layer import ConnectionEnd
from fhir_mappings.dicom.scanner import dataset_offset
from tests.support.dicom import CT_IMAGE_STORAGE, EXPLICIT, IMPLICIT, ct_tags, make_ct
from tests.support.dimse import Door

CT = Context(CT_IMAGE_STORAGE, EXPLICIT)


def opened(port: int, *, calling_ae: str = "KN_PACS", contexts: tuple[Context, ...] = (CT,)) -> StoreClient:
    return StoreClient(
        "127.0.0.1",
        port,
        calling_ae=calling_ae,
        called_ae="YIXIE",
        contexts=contexts,
        timeout_s=20,
        max_pdu_bytes=1 << 20,
    )


def pieces(part10: bytes, size: int) -> Iterator[bytes]:
    data = part10[dataset_offset(io.BytesIO(part10)) :]
    yield from (data[start : start + size] for start in range(0, len(data), size))


def uid_of(instance: int) -> str:
    return str(ct_tags(instance=instance)[0x00080018][1])


def test_each_of_many_requests_gets_its_answer(door: Door) -> None:
    with opened(door.port) as client:
        for number in range(1, 60):
            part10 = make_ct(instance=number, size=16)
            assert client.store(CT, uid_of(number), partial(pieces, part10)) == 0
        client.release()
    door.quiet()
    assert len(door.imaging.received) == 59


def test_what_the_peer_does_not_take_is_known_before_it_is_sent(door: Door) -> None:
    nothing = Context("1.2.3.4.5", "1.2.840.10008.1.2.9999")
    with opened(door.port, contexts=(CT, Context(CT_IMAGE_STORAGE, IMPLICIT), nothing)) as client:
        assert client.takes(CT)
        assert not client.takes(nothing)
        client.abort()


def test_a_caller_that_the_hub_does_not_know_is_rejected_for_good(door: Door) -> None:
    with pytest.raises(RejectedError) as rejected:
        opened(door.port, calling_ae="NOBODY")
    assert not rejected.value.transient


def test_a_peer_that_leaves_instead_of_answering_ends_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def leave() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)

        peer = threading.Thread(target=leave)
        peer.start()
        with pytest.raises(ConnectionEnd):
            opened(listener.getsockname()[1])
        peer.join(20)
