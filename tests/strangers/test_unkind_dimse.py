"""Unkind DIMSE peers: associations cut at every border, too many at once, empty values everywhere, PDUs of every size."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.dimse import command as dimse
from adapters.dimse import negotiation
from adapters.dimse.negotiation import Context
from adapters.dimse.upper_layer import ABORT, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ_PDU
from hub.config import Settings
from tests.support.dicom import CT_IMAGE_STORAGE, EXPLICIT, IMPLICIT, ct_tags, encode
from tests.support.dimse import Door, FakeServices, Peer, running
from tests.support.dimse_hub import MODELS, hub_door, keep
from tests.support.dimse_peer import answer, associated, c_echo, c_store, data_pdus, store_command
from tests.support.images import ct

VERIFY = Context(negotiation.VERIFICATION, IMPLICIT)
CT = Context(CT_IMAGE_STORAGE, EXPLICIT)
FIND = Context(MODELS["study", "find"], IMPLICIT)
ABORT_PDU = b"\x07\0\0\0\0\x04\0\0\0\0"


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    with running(FakeServices(Settings(data_dir=tmp_path))) as one:
        yield one


def alive(door: Door) -> None:
    with associated(door.port, VERIFY) as peer:
        assert c_echo(peer) == 0


def conversation() -> list[bytes]:
    """Return the PDUs that a sender of one object sends."""
    data = encode(ct_tags(size=16))
    return [
        negotiation.propose(calling_ae="KN_PACS", called_ae="YIXIE", contexts=[CT], offered_pdu_bytes=16384),
        store_command(sop_instance=str(ct_tags()[0x00080018][1])),
        *data_pdus(data, piece=400),
        RELEASE_RQ_PDU,
    ]


@pytest.mark.parametrize("how", ["closed", "aborted", "reset", "half a PDU"])
def test_an_association_may_end_behind_any_pdu_and_keeps_only_what_was_whole(door: Door, how: str) -> None:
    pdus = conversation()
    whole = len(pdus) - 1
    for border in range(len(pdus) + 1):
        with Peer(door.port) as peer:
            for number, pdu in enumerate(pdus[:border]):
                peer.send(pdu)
                if number in {0, whole - 1, whole}:
                    # What is answered is read, so that each cut falls behind the PDU before it.
                    peer.read()
            if how == "aborted":
                with contextlib.suppress(OSError):
                    peer.send(ABORT_PDU)
            elif how == "reset":
                peer.socket.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SO_LINGER of 0 s: RST instead of FIN.
            elif how == "half a PDU" and border < whole:
                peer.send(pdus[border][: len(pdus[border]) // 2])
        door.quiet()
        assert len(door.imaging.received) == max(0, border - whole + 1), border
    assert len({digest for _, digest, _ in door.imaging.received}) == 1
    alive(door)


def test_of_200_associations_at_once_those_beyond_the_limit_are_told_so(tmp_path: Path) -> None:
    with running(FakeServices(Settings(data_dir=tmp_path, associations=64, associations_per_ae=48))) as door:
        with contextlib.ExitStack() as stack:
            answers, open_ones = [], []
            for _ in range(200):
                peer = stack.enter_context(Peer(door.port))
                kind, body = peer.associate(VERIFY)
                answers.append(kind)
                if kind == ASSOCIATE_AC:
                    open_ones.append(peer)
                else:
                    # Rejected for now, by the presentation provider: a local limit is exceeded (PS3.8 table 9-21).
                    assert (kind, body[1:4]) == (ASSOCIATE_RJ, b"\2\3\2")
                    assert peer.closed()
                    # Whoever is rejected closes (PS3.8 section 9.2.2, AE-4); who does not is waited for, and counts.
                    peer.socket.close()
            assert answers.count(ASSOCIATE_AC) == 48
            assert answers.count(ASSOCIATE_RJ) == 152
            assert [c_echo(one) for one in open_ones] == [0] * 48
        door.quiet()
        alive(door)


def test_all_128_contexts_may_be_of_classes_that_nobody_knows(door: Door) -> None:
    strange = [Context(f"1.2.826.0.1.3680043.10.99.{number}", EXPLICIT) for number in range(127)]
    with associated(door.port, *strange, CT) as peer:
        assert 255 in peer.accepted
        assert c_store(peer, ct_tags(), context_id=255)[0] == 0


def test_each_of_128_contexts_takes_an_object(door: Door) -> None:
    with associated(door.port, *[CT] * 128) as peer:
        for number in range(128):
            assert c_store(peer, ct_tags(instance=number + 1, size=4), context_id=number * 2 + 1)[0] == 0
    assert len(door.imaging.received) == 128


@pytest.mark.parametrize("tag", [0x00080016, 0x00080018, 0x0020000D, 0x0020000E])
def test_an_object_with_an_empty_uid_is_refused_by_name_and_the_association_goes_on(door: Door, tag: int) -> None:
    with associated(door.port, CT) as peer:
        code, why = c_store(peer, ct_tags(more={tag: ("UI", "")}), sop_instance="1.2.3")
        assert code in {0xC000, 0xA900}
        assert why
        assert c_store(peer, ct_tags())[0] == 0


def test_empty_uids_in_the_command_are_refused_and_the_association_goes_on(door: Door) -> None:
    with associated(door.port, CT) as peer:
        for sop_class, sop_instance, expected in ((CT_IMAGE_STORAGE, "", 0xC000), ("", "1.2.3", 0x0122)):
            peer.send(store_command(sop_class=sop_class, sop_instance=sop_instance))
            for pdu in data_pdus(encode(ct_tags())):
                peer.send(pdu)
            assert answer(peer)[0] == expected
        assert c_store(peer, ct_tags())[0] == 0


def test_an_empty_data_set_and_empty_fragments_are_answered(door: Door) -> None:
    with associated(door.port, CT) as peer:
        peer.send(store_command())
        peer.send(struct.pack(">BxIIBB", 4, 6, 2, 1, 2))
        assert answer(peer)[0] == 0xC000
        # Fragments without a byte between those that have some are no reason to stop.
        data = data_pdus(encode(ct_tags(size=4)), piece=300)
        peer.send(store_command(sop_instance=str(ct_tags()[0x00080018][1])))
        for pdu in data:
            peer.send(struct.pack(">BxIIBB", 4, 6, 2, 1, 0))
            peer.send(pdu)
        assert answer(peer)[0] == 0


def test_everything_but_the_uids_may_be_empty(door: Door) -> None:
    kept = {0x00080016, 0x00080018, 0x0020000D, 0x0020000E}
    tags = {tag: (vr, value if tag in kept else "" if vr != "SQ" else []) for tag, (vr, value) in ct_tags().items()}
    for tag in [tag for tag in tags if tag >> 16 in {0x0028, 0x7FE0}]:
        del tags[tag]
    with associated(door.port, CT) as peer:
        assert c_store(peer, tags)[0] == 0


def find(peer: Peer, identifier: bytes) -> list[int]:
    """Send a C-FIND and return the statuses of its answers."""
    peer.send(
        dimse.pdu(
            1,
            {
                dimse.AFFECTED_SOP_CLASS_UID: FIND.abstract_syntax,
                dimse.COMMAND_FIELD: 0x0020,
                dimse.MESSAGE_ID: 3,
                dimse.PRIORITY: 0,
                dimse.COMMAND_DATA_SET_TYPE: 0,
            },
        )
    )
    for pdu in data_pdus(identifier) or [struct.pack(">BxIIBB", 4, 6, 2, 1, 2)]:
        peer.send(pdu)
    statuses: list[int] = []
    while not statuses or statuses[-1] in {0xFF00, 0xFF01}:
        kind, body = peer.read()
        assert kind == P_DATA
        # Commands have bit 0 of the message control header set; the matches' data sets have not.
        if body[5] & 1:
            statuses.append(dimse.number(dimse.decode(body[6:]), dimse.STATUS))
    return statuses


def test_an_empty_identifier_is_refused_and_empty_keys_match_everything(tmp_path: Path) -> None:
    with hub_door(tmp_path / "hub") as (hub, door):
        keep(hub, ct(1))
        with associated(door.port, FIND) as peer:
            assert find(peer, b"") == [0xA900]
            assert find(peer, encode({0x00080052: ("CS", "")}, IMPLICIT)) == [0xA900]
            keys = {0x00080052: ("CS", "STUDY"), 0x00100010: ("PN", ""), 0x0020000D: ("UI", "")}
            assert find(peer, encode(keys, IMPLICIT)) == [0xFF00, 0]


@pytest.mark.parametrize("limit", [4 << 10, 16 << 10, 64 << 10, 128 << 10, 256 << 10, 1 << 20, 0])
def test_pdus_to_the_peer_keep_to_its_limit_and_those_from_it_may_be_as_long_as_was_offered(
    tmp_path: Path, limit: int
) -> None:
    with hub_door(tmp_path / "hub") as (hub, door):
        keep(hub, *(ct(number, SeriesDescription="長" * 20, StudyID="1") for number in range(1, 4)))
        with Peer(door.port) as peer:
            peer.send(
                negotiation.propose(
                    calling_ae="KN_PACS", called_ae="YIXIE", contexts=[FIND, CT], offered_pdu_bytes=limit
                )
            )
            kind, body = peer.read()
            assert kind == ASSOCIATE_AC
            offered = negotiation.read_answer(body).max_pdu_bytes
            assert offered > 0
            tags = ct_tags(size=512, study=5)
            peer.send(store_command(sop_instance=str(tags[0x00080018][1]), context_id=3))
            for pdu in data_pdus(encode(tags), context_id=3, piece=offered - 6):
                peer.send(pdu)
            kind, body = peer.read()
            assert kind == P_DATA
            assert dimse.number(dimse.decode(body[6:]), dimse.STATUS) == 0
            keys = {0x00080052: ("CS", "STUDY"), 0x00100010: ("PN", ""), 0x0020000D: ("UI", "")}
            assert find(peer, encode(keys, IMPLICIT)) == [0xFF00, 0xFF00, 0]


def test_a_limit_in_which_nothing_fits_is_refused_or_kept_to(tmp_path: Path) -> None:
    with hub_door(tmp_path / "hub") as (_, door), Peer(door.port) as peer:
        peer.send(negotiation.propose(calling_ae="KN_PACS", called_ae="YIXIE", contexts=[VERIFY], offered_pdu_bytes=7))
        kind, _ = peer.read()
        assert kind in {ABORT, ASSOCIATE_RJ, ASSOCIATE_AC}
        if kind == ASSOCIATE_AC:
            assert c_echo(peer) in {0, -1}
