"""Raw peers that ask for C-MOVE and C-GET, and see every response."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from adapters.dimse import command as dimse
from adapters.dimse.negotiation import Context, Proposal
from adapters.dimse.upper_layer import P_DATA
from fhir_mappings.dicom import identifier
from tests.support.dicom import EXPLICIT
from tests.support.dimse import Door
from tests.support.dimse_hub import MODELS
from tests.support.dimse_peer import AssociatedPeer, associated, data_pdus

STUDY_MOVE = MODELS["study", "move"]
STUDY_GET = MODELS["study", "get"]


def move_request(sop_class: str, to: str, asked: dict[str, Any], *, message_id: int = 9) -> list[bytes]:
    """Return a C-MOVE-RQ on context 1 as PDUs."""
    command = dimse.pdu(
        1,
        {
            dimse.AFFECTED_SOP_CLASS_UID: sop_class,
            dimse.COMMAND_FIELD: dimse.C_MOVE_RQ,
            dimse.MESSAGE_ID: message_id,
            dimse.PRIORITY: 0,
            dimse.COMMAND_DATA_SET_TYPE: dimse.DATA_SET,
            dimse.MOVE_DESTINATION: to,
        },
    )
    return [command, *data_pdus(identifier.write(asked, EXPLICIT))]


def keys(level: str, **values: Any) -> dict[str, Any]:
    """Return the identifier of a retrieval as DICOM JSON."""
    tags = {"patient": "00100020", "issuer": "00100021", "study": "0020000D", "series": "0020000E", "image": "00080018"}
    found: dict[str, Any] = {"00080052": {"vr": "CS", "Value": [level]}}
    for name, value in values.items():
        vr = "LO" if name in {"patient", "issuer"} else "UI"
        found[tags[name]] = {"vr": vr, "Value": value if isinstance(value, list) else [value]}
    return found


_NAMES = {
    dimse.STATUS: "status",
    dimse.REMAINING_SUB_OPERATIONS: "remaining",
    dimse.COMPLETED_SUB_OPERATIONS: "completed",
    dimse.FAILED_SUB_OPERATIONS: "failed",
    dimse.WARNING_SUB_OPERATIONS: "warning",
}


def next_answer(peer: AssociatedPeer) -> dict[str, Any]:
    """Return one response with its data set."""
    kind, body = peer.read()
    assert kind == P_DATA, (kind, body)
    return read_answer(peer, body)


def read_answer(peer: AssociatedPeer, body: bytes) -> dict[str, Any]:
    """Return the response that begins with the P-DATA-TF *body*."""
    command = dimse.decode(body[6:])
    found: dict[str, Any] = {name: dimse.number(command, tag) for tag, name in _NAMES.items() if tag in command}
    found["comment"] = dimse.text(command, dimse.ERROR_COMMENT)
    if dimse.number(command, dimse.COMMAND_DATA_SET_TYPE) != dimse.NO_DATA_SET:
        data = b""
        while True:
            _, body = peer.read()
            data += body[6:]
            if body[5] & 2:
                break
        found["failed_uids"] = identifier.read(data, EXPLICIT).attributes["00080058"]["Value"]
    return found


def move(
    door: Door, to: str, asked: dict[str, Any], *, model: str = STUDY_MOVE, calling: str = "KN_PACS"
) -> list[dict[str, Any]]:
    """Send one C-MOVE and return all responses."""
    answers: list[dict[str, Any]] = []
    with associated(door.port, Context(model, EXPLICIT), calling_ae=calling) as peer:
        for pdu in move_request(model, to, asked):
            peer.send(pdu)
        while not answers or answers[-1]["status"] == 0xFF00:
            answers.append(next_answer(peer))
    return answers


def get_request(sop_class: str, asked: dict[str, Any], *, message_id: int = 9) -> list[bytes]:
    """Return a C-GET-RQ on context 1 as PDUs."""
    command = dimse.pdu(
        1,
        {
            dimse.AFFECTED_SOP_CLASS_UID: sop_class,
            dimse.COMMAND_FIELD: dimse.C_GET_RQ,
            dimse.MESSAGE_ID: message_id,
            dimse.PRIORITY: 0,
            dimse.COMMAND_DATA_SET_TYPE: dimse.DATA_SET,
        },
    )
    return [command, *data_pdus(identifier.write(asked, EXPLICIT))]


def get(
    door: Door,
    asked: dict[str, Any],
    *contexts: Proposal,
    model: str = STUDY_GET,
    calling: str = "KN_PACS",
    stored: Callable[[AssociatedPeer, int], int] = lambda peer, number: 0,
) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Send one C-GET and return all responses and the data sets that came; *stored* answers each of them."""
    answers: list[dict[str, Any]] = []
    received: list[bytes] = []
    with associated(door.port, Context(model, EXPLICIT), *contexts, calling_ae=calling) as peer:
        for pdu in get_request(model, asked):
            peer.send(pdu)
        while not answers or answers[-1]["status"] == 0xFF00:
            kind, body = peer.read()
            assert kind == P_DATA, (kind, body)
            command = dimse.decode(body[6:])
            if dimse.number(command, dimse.COMMAND_FIELD) != dimse.C_STORE_RQ:
                answers.append(read_answer(peer, body))
                continue
            context_id, data = body[4], b""
            while True:
                _, body = peer.read()
                data += body[6:]
                if body[5] & 2:
                    break
            received.append(data)
            response: dict[int, int | str] = {
                dimse.AFFECTED_SOP_CLASS_UID: dimse.uid(command, dimse.AFFECTED_SOP_CLASS_UID),
                dimse.COMMAND_FIELD: dimse.C_STORE_RSP,
                dimse.MESSAGE_ID_RESPONDED_TO: dimse.number(command, dimse.MESSAGE_ID),
                dimse.COMMAND_DATA_SET_TYPE: dimse.NO_DATA_SET,
                dimse.STATUS: stored(peer, len(received)),
                dimse.AFFECTED_SOP_INSTANCE_UID: dimse.uid(command, dimse.AFFECTED_SOP_INSTANCE_UID),
            }
            peer.send(dimse.pdu(context_id, response))
    return answers, received


def cancel(peer: AssociatedPeer, *, message_id: int = 9) -> None:
    """Send a C-CANCEL-RQ on context 1."""
    values: dict[int, int | str] = {
        dimse.COMMAND_FIELD: dimse.C_CANCEL_RQ,
        dimse.MESSAGE_ID_RESPONDED_TO: message_id,
        dimse.COMMAND_DATA_SET_TYPE: dimse.NO_DATA_SET,
    }
    peer.send(dimse.pdu(1, values))
