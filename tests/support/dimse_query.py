"""A raw SCU of C-FIND, for tests that look at every answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from adapters.dimse import command as dimse
from adapters.dimse.upper_layer import P_DATA
from fhir_mappings.dicom import identifier
from tests.support.dimse import Peer
from tests.support.dimse_peer import data_pdus

Json = dict[str, Any]


@dataclass
class Found:
    """What a query was answered: each match, the status it came with, and the last response."""

    answers: list[Json] = field(default_factory=list)
    pending: set[int] = field(default_factory=set)
    character_sets: set[str] = field(default_factory=set)
    status: int = -1
    comment: str = ""
    offending: int | None = None

    def values(self, keyword: str) -> list[Any]:
        """Return the first value of *keyword* in each answer; ``None`` where it is empty, absent ones left out."""
        tag = f"{tag_for_keyword(keyword):08X}"
        return [(one[tag].get("Value") or [None])[0] for one in self.answers if tag in one]


def keys(level: str = "", **asked: Any) -> Json:
    """Return an identifier; a list of dicts is a sequence, ``None`` or "" asks for the value."""
    made: Json = {"00080052": {"vr": "CS", "Value": [level]}} if level else {}
    for keyword, value in asked.items():
        vr = dictionary_VR(keyword).partition(" ")[0]
        tag = f"{tag_for_keyword(keyword):08X}"
        if isinstance(value, list):
            made[tag] = {"vr": "SQ", "Value": [keys(**one) for one in value]}
        elif value in (None, ""):
            made[tag] = {"vr": vr}
        elif vr == "PN":
            groups = zip(("Alphabetic", "Ideographic"), str(value).split("="), strict=False)
            made[tag] = {"vr": vr, "Value": [dict(groups)]}
        else:
            made[tag] = {"vr": vr, "Value": [value]}
    return made


def plain(answer: Json) -> dict[str, Any]:
    """Return *answer* by keyword, one value each."""
    return {keyword_for_tag(int(tag, 16)): (element.get("Value") or [None])[0] for tag, element in answer.items()}


def request(sop_class: str, *, context_id: int = 1, message_id: int = 3) -> bytes:
    """Return a C-FIND-RQ as one PDU."""
    return dimse.pdu(
        context_id,
        {
            dimse.AFFECTED_SOP_CLASS_UID: sop_class,
            dimse.COMMAND_FIELD: dimse.C_FIND_RQ,
            dimse.MESSAGE_ID: message_id,
            dimse.PRIORITY: 0,
            dimse.COMMAND_DATA_SET_TYPE: dimse.DATA_SET,
        },
    )


def cancel(*, context_id: int = 1, message_id: int = 3) -> bytes:
    """Return a C-CANCEL-RQ as one PDU."""
    return dimse.pdu(
        context_id,
        {
            dimse.COMMAND_FIELD: dimse.C_CANCEL_RQ,
            dimse.MESSAGE_ID_RESPONDED_TO: message_id,
            dimse.COMMAND_DATA_SET_TYPE: dimse.NO_DATA_SET,
        },
    )


def ask(
    peer: Peer, sop_class: str, content: Json | bytes, *, charset: str = "", syntax: str = identifier.IMPLICIT
) -> None:
    """Send a C-FIND with the identifier *content*."""
    data = content if isinstance(content, bytes) else identifier.write(content, syntax, character_set=charset)
    peer.send(request(sop_class))
    for pdu in data_pdus(data):
        peer.send(pdu)


def response(peer: Peer, found: Found, *, syntax: str = identifier.IMPLICIT) -> bool:
    """Read one response into *found*; returns whether it was the last."""
    kind, body = peer.read()
    assert kind == P_DATA, kind
    command = dimse.decode(body[6 : 4 + int.from_bytes(body[:4], "big")])
    assert dimse.number(command, dimse.COMMAND_FIELD) == dimse.C_FIND_RSP
    code = dimse.number(command, dimse.STATUS)
    if dimse.number(command, dimse.COMMAND_DATA_SET_TYPE) == dimse.NO_DATA_SET:
        found.status = code
        found.comment = dimse.text(command, dimse.ERROR_COMMENT)
        raw = command.get(dimse.OFFENDING_ELEMENT)
        if raw is not None:
            found.offending = int.from_bytes(raw[:2], "little") << 16 | int.from_bytes(raw[2:], "little")
        return True
    data = bytearray()
    last = False
    while not last:
        kind, body = peer.read()
        assert kind == P_DATA, kind
        data += body[6:]
        last = bool(body[5] & 2)
    read = identifier.read(bytes(data), syntax)
    found.answers.append(read.attributes)
    found.character_sets.add(read.character_set)
    found.pending.add(code)
    return False


def find(
    peer: Peer, sop_class: str, content: Json | bytes, *, charset: str = "", syntax: str = identifier.IMPLICIT
) -> Found:
    """Ask, and read everything that is answered."""
    ask(peer, sop_class, content, charset=charset, syntax=syntax)
    found = Found()
    while not response(peer, found, syntax=syntax):
        pass
    return found
