"""A well-behaved raw SCU, for tests that must see every byte of the answer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from adapters.dimse import command as dimse
from adapters.dimse.negotiation import VERIFICATION, Context, read_acceptance
from adapters.dimse.upper_layer import ASSOCIATE_AC, P_DATA, RELEASE_RP, RELEASE_RQ_PDU, pdv_header
from tests.support.dicom import CT_IMAGE_STORAGE, EXPLICIT, Tags, encode
from tests.support.dimse import Peer


class AssociatedPeer(Peer):
    """A peer whose association stands."""

    accepted: frozenset[int] = frozenset()


@contextlib.contextmanager
def associated(port: int, *contexts: Context, calling_ae: str = "KN_PACS") -> Iterator[AssociatedPeer]:
    """Associate, and release at the end unless the door has gone."""
    with AssociatedPeer(port) as peer:
        kind, body = peer.associate(*contexts, calling_ae=calling_ae)
        assert kind == ASSOCIATE_AC, (kind, body)
        peer.accepted, _ = read_acceptance(body)
        yield peer
        with contextlib.suppress(OSError):
            peer.send(RELEASE_RQ_PDU)
            assert peer.read()[0] in {RELEASE_RP, 0, 7}


def store_command(
    *, sop_class: str = CT_IMAGE_STORAGE, sop_instance: str = "1.2.3", context_id: int = 1, message_id: int = 7
) -> bytes:
    """Return a C-STORE-RQ as one PDU."""
    return dimse.pdu(
        context_id,
        {
            dimse.AFFECTED_SOP_CLASS_UID: sop_class,
            dimse.COMMAND_FIELD: dimse.C_STORE_RQ,
            dimse.MESSAGE_ID: message_id,
            dimse.PRIORITY: 0,
            dimse.COMMAND_DATA_SET_TYPE: 0,
            dimse.AFFECTED_SOP_INSTANCE_UID: sop_instance,
        },
    )


def data_pdus(data: bytes, *, context_id: int = 1, piece: int = 8192) -> list[bytes]:
    """Return *data* as P-DATA-TF PDUs of one fragment each."""
    pieces = [data[start : start + piece] for start in range(0, len(data), piece)]
    return [
        pdv_header(context_id, 2 if number == len(pieces) - 1 else 0, len(part)) + part
        for number, part in enumerate(pieces)
    ]


def c_store(
    peer: Peer,
    tags: Tags,
    *,
    context_id: int = 1,
    transfer_syntax: str = EXPLICIT,
    sop_class: str = CT_IMAGE_STORAGE,
    sop_instance: str | None = None,
) -> tuple[int, str]:
    """Send one object; return (status, error comment), or (-1, "") when the door aborted or closed."""
    named = sop_instance or str(tags[0x00080018][1])
    with contextlib.suppress(OSError):
        peer.send(store_command(sop_class=sop_class, sop_instance=named, context_id=context_id))
        for pdu in data_pdus(encode(tags, transfer_syntax), context_id=context_id):
            peer.send(pdu)
    return answer(peer)


def c_echo(peer: Peer, *, context_id: int = 1) -> int:
    """Send a C-ECHO; return its status."""
    peer.send(
        dimse.pdu(
            context_id,
            {
                dimse.AFFECTED_SOP_CLASS_UID: VERIFICATION,
                dimse.COMMAND_FIELD: dimse.C_ECHO_RQ,
                dimse.MESSAGE_ID: 1,
                dimse.COMMAND_DATA_SET_TYPE: dimse.NO_DATA_SET,
            },
        )
    )
    return answer(peer)[0]


def answer(peer: Peer) -> tuple[int, str]:
    """Return (status, error comment) of the next response, or (-1, "")."""
    kind, body = peer.read()
    if kind != P_DATA:
        return -1, ""
    message = dimse.decode(body[6:])
    return dimse.number(message, dimse.STATUS), message.get(dimse.ERROR_COMMENT, b"").decode("ascii").strip()
