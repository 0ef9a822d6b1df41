"""Association negotiation through the library's PDU classes: as acceptor and as requestor (PS3.8 section 7.1, 9.3.2 to 9.3.4;
PS3.7 annex D.3).
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pynetdicom.sop_class
from pydicom.uid import UID
from pynetdicom._globals import ALL_TRANSFER_SYNTAXES
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext

from adapters.dimse.upper_layer import ASSOCIATE_AC, ASSOCIATE_RQ, INVALID_PARAMETER, ProtocolError
from fhir_mappings.dicom.scanner import DEFLATED, valid_uid

VERIFICATION = "1.2.840.10008.1.1"
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
#: Fixed for good: it is part of every stored object, and a change would make known objects look new.
IMPLEMENTATION_CLASS_UID = f"2.25.{uuid.uuid5(uuid.NAMESPACE_URL, 'https://yixiehub.example/dimse').int}"
IMPLEMENTATION_VERSION_NAME = "YIXIE_HUB"
#: 128 contexts with every transfer syntax each are about 150 KiB.
MAX_REQUEST_BYTES = 256 << 10
#: What we ask peers to keep a PDU below; larger ones gain nothing, as DCMTK sends at most 128 KiB.
OFFERED_PDU_BYTES = 256 << 10

ACCEPTED, USER_REJECTION, ABSTRACT_SYNTAX_UNKNOWN, TRANSFER_SYNTAXES_UNKNOWN = 0, 1, 3, 4
#: A-ASSOCIATE-RJ (result, source, reason), PS3.8 table 9-21.
APPLICATION_CONTEXT_UNKNOWN = (1, 1, 2)
CALLING_AE_UNKNOWN = (1, 1, 3)
CALLED_AE_UNKNOWN = (1, 1, 7)
PROTOCOL_VERSION_UNKNOWN = (1, 2, 2)
TEMPORARY_CONGESTION = (2, 3, 1)
LOCAL_LIMIT_EXCEEDED = (2, 3, 2)

_KNOWN_SYNTAXES = frozenset(str(uid) for uid in ALL_TRANSFER_SYNTAXES)
#: Items and user items that decide something here; all others are to be ignored (PS3.8 section 9.3.1).
_ITEMS = frozenset({0x10, 0x20, 0x50})
_USER_ITEMS = frozenset({0x51, 0x52, 0x54, 0x55})


@dataclass(frozen=True, slots=True)
class Context:
    """An accepted presentation context."""

    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A proposed association."""

    called_ae: str
    calling_ae: str
    max_pdu_bytes: int
    primitive: Any


def read_request(body: bytes) -> Request:
    """Return what an A-ASSOCIATE-RQ body proposes; raises ProtocolError when it is not one."""
    if len(body) < 68:
        raise ProtocolError("broken-request", INVALID_PARAMETER)
    pdu = A_ASSOCIATE_RQ()
    try:
        pdu.decode(_with_header(ASSOCIATE_RQ, body[:68] + _known(body[68:])))
        primitive = pdu.to_primitive()
        lengths = [
            item.maximum_length_received
            for item in primitive.user_information
            if isinstance(item, MaximumLengthNotification)
        ]
        identifiers = [context.context_id for context in primitive.presentation_context_definition_list]
    except ProtocolError:
        raise
    except Exception as error:
        raise ProtocolError("broken-request", INVALID_PARAMETER) from error
    if not identifiers or len(set(identifiers)) != len(identifiers):
        raise ProtocolError("broken-contexts", INVALID_PARAMETER)
    return Request(
        called_ae=str(pdu.called_ae_title).strip(),
        calling_ae=str(pdu.calling_ae_title).strip(),
        max_pdu_bytes=lengths[0] if lengths else 0,
        primitive=primitive,
    )


def why_not(body: bytes, request: Request, *, ae_title: str) -> tuple[int, int, int] | None:
    """Return the reject triple where the request itself forbids an association, else ``None``."""
    if not int.from_bytes(body[:2], "big") & 1:
        return PROTOCOL_VERSION_UNKNOWN
    if str(request.primitive.application_context_name) != APPLICATION_CONTEXT:
        return APPLICATION_CONTEXT_UNKNOWN
    if request.called_ae != ae_title:
        return CALLED_AE_UNKNOWN
    return None


def accept(request: Request, *, offered_pdu_bytes: int) -> tuple[bytes, Mapping[int, Context]]:
    """Return the A-ASSOCIATE-AC PDU and the accepted contexts by id.

    Verification and every storage SOP class, private and unknown ones included, are taken in the peer's first transfer
    syntax that is known; deflated only when nothing else is offered. The hub is SCP only.
    """
    proposed = request.primitive
    roles = {
        str(item.sop_class_uid): (bool(item.scu_role), bool(item.scp_role))
        for item in proposed.user_information
        if isinstance(item, SCP_SCU_RoleSelectionNegotiation)
    }
    results, accepted = [], {}
    for context in proposed.presentation_context_definition_list:
        abstract = str(context.abstract_syntax or "")
        syntax, result = _judge(abstract, [str(uid) for uid in context.transfer_syntax], roles.get(abstract))
        answer = PresentationContext()
        answer.context_id = context.context_id
        answer.abstract_syntax = context.abstract_syntax
        answer.transfer_syntax = [UID(syntax)]
        answer.result = result
        results.append(answer)
        if result == ACCEPTED:
            accepted[int(context.context_id)] = Context(abstract, syntax)
    primitive = A_ASSOCIATE()
    primitive.application_context_name = UID(APPLICATION_CONTEXT)
    primitive.calling_ae_title = request.calling_ae
    primitive.called_ae_title = request.called_ae
    primitive.result = 0
    primitive.result_source = 1
    primitive.presentation_context_definition_results_list = results
    information = _user_information(offered_pdu_bytes)
    for abstract in {context.abstract_syntax for context in accepted.values()} & roles.keys():
        role = SCP_SCU_RoleSelectionNegotiation()
        role.sop_class_uid = UID(abstract)
        role.scu_role, role.scp_role = roles[abstract][0], False
        information.append(role)
    primitive.user_information = information
    return A_ASSOCIATE_AC(primitive).encode(), accepted


def reject(triple: tuple[int, int, int]) -> bytes:
    """Return the A-ASSOCIATE-RJ PDU for (result, source, reason)."""
    primitive = A_ASSOCIATE()
    primitive.result, primitive.result_source, primitive.diagnostic = triple
    return bytes(A_ASSOCIATE_RJ(primitive).encode())


def propose(*, calling_ae: str, called_ae: str, contexts: Sequence[Context], offered_pdu_bytes: int) -> bytes:
    """Return the A-ASSOCIATE-RQ PDU for at most 128 contexts; ids are 1, 3, 5, ... in their order."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = UID(APPLICATION_CONTEXT)
    primitive.calling_ae_title = calling_ae
    primitive.called_ae_title = called_ae
    proposed = []
    for number, context in enumerate(contexts):
        item = PresentationContext()
        item.context_id = number * 2 + 1
        item.abstract_syntax = UID(context.abstract_syntax)
        item.transfer_syntax = [UID(context.transfer_syntax)]
        proposed.append(item)
    primitive.presentation_context_definition_list = proposed
    primitive.user_information = _user_information(offered_pdu_bytes)
    return bytes(A_ASSOCIATE_RQ(primitive).encode())


def read_acceptance(body: bytes) -> tuple[frozenset[int], int]:
    """Return the accepted context ids and the peer's PDU limit from an A-ASSOCIATE-AC body; ProtocolError when broken."""
    if len(body) < 68:
        raise ProtocolError("broken-acceptance", INVALID_PARAMETER)
    pdu = A_ASSOCIATE_AC()
    try:
        pdu.decode(_with_header(ASSOCIATE_AC, body[:68] + _known(body[68:], frozenset({0x10, 0x21, 0x50}))))
        accepted = frozenset(int(item.context_id) for item in pdu.presentation_context if item.result == ACCEPTED)
        information = pdu.user_information
        length = information.maximum_length if information is not None else 0
    except ProtocolError:
        raise
    except Exception as error:
        raise ProtocolError("broken-acceptance", INVALID_PARAMETER) from error
    return accepted, int(length or 0)


def _judge(abstract: str, offered: Sequence[str], role: tuple[bool, bool] | None) -> tuple[str, int]:
    """Return (transfer syntax, result) for one proposed context."""
    usable = [uid for uid in offered if uid in _KNOWN_SYNTAXES]
    first = offered[0] if offered else "1.2.840.10008.1.2"
    if not takes(abstract):
        return first, ABSTRACT_SYNTAX_UNKNOWN
    if role is not None and not role[0]:
        return first, USER_REJECTION
    if not usable:
        return first, TRANSFER_SYNTAXES_UNKNOWN
    return next((uid for uid in usable if uid not in DEFLATED), usable[0]), ACCEPTED


@lru_cache(maxsize=1024)
def takes(abstract: str) -> bool:
    """Return whether the hub takes this SOP class: verification, storage, private and unknown ones."""
    if abstract == VERIFICATION:
        return True
    if not valid_uid(abstract):
        return False
    uid = UID(abstract)
    if uid.is_private or abstract in pynetdicom.sop_class._STORAGE_CLASSES.values():  # noqa: SLF001 - the table has no public name
        return True
    # A UID of the standard that the library has a service for is not storage; one that it never heard of may be new.
    return not hasattr(pynetdicom.sop_class, uid.keyword) if uid.keyword else True


def _user_information(offered_pdu_bytes: int) -> list[Any]:
    length = MaximumLengthNotification()
    length.maximum_length_received = offered_pdu_bytes
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    return [length, implementation, version]


def _with_header(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxI", kind, len(body)) + body


def _known(data: bytes, wanted: frozenset[int] = _ITEMS) -> bytes:
    parts = []
    for kind, item in _items(data):
        if kind not in wanted:
            continue
        if kind == 0x50:
            inner = b"".join(part for sub, part in _items(item[4:]) if sub in _USER_ITEMS)
            item = item[:2] + struct.pack(">H", len(inner)) + inner
        parts.append(item)
    return b"".join(parts)


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset < len(data):
        end = offset + 4 + int.from_bytes(data[offset + 2 : offset + 4], "big")
        if offset + 4 > len(data) or end > len(data):
            raise ProtocolError("broken-item", INVALID_PARAMETER)
        yield data[offset], data[offset:end]
        offset = end
