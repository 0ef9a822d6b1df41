"""Association negotiation through the library's PDU classes: as acceptor and as requestor (PS3.8 section 7.1, 9.3.2 to 9.3.4;
PS3.7 annex D.3).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.uid import UID
from pynetdicom._globals import ALL_TRANSFER_SYNTAXES
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
    SOPClassExtendedNegotiation,
)
from pynetdicom.presentation import PresentationContext

from adapters.dimse.catalogue import RIGHTS, VERIFICATION, offer_for
from adapters.dimse.upper_layer import ASSOCIATE_AC, ASSOCIATE_RQ, INVALID_PARAMETER, ProtocolError
from fhir_mappings.dicom.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from fhir_mappings.dicom.scanner import DEFLATED

__all__ = ["VERIFICATION"]

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
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
_USER_ITEMS = frozenset({0x51, 0x52, 0x54, 0x55, 0x56})
#: What short data sets (identifiers, attribute lists) travel in.
_NATIVE_SYNTAXES = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"})


@dataclass(frozen=True, slots=True)
class Context:
    """A presentation context in one transfer syntax.

    Attributes:
        peer_scp: the requestor took the role of SCP as well, so that the acceptor may send it requests.
    """

    abstract_syntax: str
    transfer_syntax: str
    peer_scp: bool = False


@dataclass(frozen=True, slots=True)
class Proposal:
    """A presentation context to propose, of whose transfer syntaxes the peer takes one.

    Attributes:
        as_scp: the hub wants to be the SCP of it on its own association, as a C-GET needs (PS3.7 annex D.3.3.4).
    """

    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]
    as_scp: bool = False


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """What the hub agreed to.

    Attributes:
        pdu: the A-ASSOCIATE-AC.
        contexts: accepted presentation contexts by id.
        extended: accepted extended negotiation by SOP class (PS3.7 annex D.3.3.5).
    """

    pdu: bytes
    contexts: Mapping[int, Context]
    extended: Mapping[str, bytes]


def accept(request: Request, *, offered_pdu_bytes: int, rights: frozenset[str] = RIGHTS) -> Acceptance:
    """Return the answer to *request* for a peer with *rights* (:func:`adapters.dimse.catalogue.rights_of`).

    Contexts get the peer's first transfer syntax that fits; deflated only when nothing else is offered.
    """
    proposed = request.primitive
    roles = {
        str(item.sop_class_uid): (bool(item.scu_role), bool(item.scp_role))
        for item in proposed.user_information
        if isinstance(item, SCP_SCU_RoleSelectionNegotiation)
    }
    agreed = {
        abstract: (scu, scp and _peer_may_be_scp(abstract, rights)) for abstract, (scu, scp) in sorted(roles.items())
    }
    results, accepted = [], {}
    for context in proposed.presentation_context_definition_list:
        abstract = str(context.abstract_syntax or "")
        syntax, result = _judge(abstract, [str(uid) for uid in context.transfer_syntax], roles.get(abstract), rights)
        answer = PresentationContext()
        answer.context_id = context.context_id
        answer.abstract_syntax = context.abstract_syntax
        answer.transfer_syntax = [UID(syntax)]
        answer.result = result
        results.append(answer)
        if result == ACCEPTED:
            accepted[int(context.context_id)] = Context(abstract, syntax, agreed.get(abstract, (True, False))[1])
    primitive = A_ASSOCIATE()
    primitive.application_context_name = UID(APPLICATION_CONTEXT)
    primitive.calling_ae_title = request.calling_ae
    primitive.called_ae_title = request.called_ae
    primitive.result = 0
    primitive.result_source = 1
    primitive.presentation_context_definition_results_list = results
    information = _user_information(offered_pdu_bytes)
    taken = {context.abstract_syntax for context in accepted.values()}
    information += [_role(abstract, *both) for abstract, both in agreed.items() if abstract in taken]
    extended = _extended(proposed, taken)
    for abstract, said in extended.items():
        item = SOPClassExtendedNegotiation()
        item.sop_class_uid, item.service_class_application_information = UID(abstract), said
        information.append(item)
    primitive.user_information = information
    return Acceptance(pdu=bytes(A_ASSOCIATE_AC(primitive).encode()), contexts=accepted, extended=extended)


def _extended(proposed: Any, taken: set[str]) -> dict[str, bytes]:
    """Return, for each SOP class that was taken, the bytes of its extended negotiation that the hub can keep too."""
    found: dict[str, bytes] = {}
    for item in proposed.user_information:
        if isinstance(item, SOPClassExtendedNegotiation) and str(item.sop_class_uid) in taken:
            offer = offer_for(str(item.sop_class_uid))
            if offer is not None and offer.extended:
                asked = bytes(item.service_class_application_information)
                found[str(item.sop_class_uid)] = bytes(a & b for a, b in zip(asked, offer.extended, strict=False))
    return found


def reject(triple: tuple[int, int, int]) -> bytes:
    """Return the A-ASSOCIATE-RJ PDU for (result, source, reason)."""
    primitive = A_ASSOCIATE()
    primitive.result, primitive.result_source, primitive.diagnostic = triple
    return bytes(A_ASSOCIATE_RJ(primitive).encode())


def propose(
    *, calling_ae: str, called_ae: str, contexts: Sequence[Context | Proposal], offered_pdu_bytes: int
) -> bytes:
    """Return the A-ASSOCIATE-RQ PDU for at most 128 contexts; ids are 1, 3, 5, ... in their order."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = UID(APPLICATION_CONTEXT)
    primitive.calling_ae_title = calling_ae
    primitive.called_ae_title = called_ae
    proposed = []
    as_scp: dict[str, None] = {}
    for number, context in enumerate(contexts):
        item = PresentationContext()
        item.context_id = number * 2 + 1
        item.abstract_syntax = UID(context.abstract_syntax)
        if isinstance(context, Proposal):
            item.transfer_syntax = [UID(one) for one in context.transfer_syntaxes]
            if context.as_scp:
                as_scp[context.abstract_syntax] = None
        else:
            item.transfer_syntax = [UID(context.transfer_syntax)]
        proposed.append(item)
    primitive.presentation_context_definition_list = proposed
    primitive.user_information = [*_user_information(offered_pdu_bytes), *(_role(one, False, True) for one in as_scp)]
    return bytes(A_ASSOCIATE_RQ(primitive).encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a peer agreed to.

    Attributes:
        syntaxes: the transfer syntax of each accepted context, by id.
        as_scp: SOP classes of which the hub may be the SCP.
        max_pdu_bytes: what the peer takes in one PDU; 0 means no limit.
    """

    syntaxes: Mapping[int, str]
    as_scp: frozenset[str]
    max_pdu_bytes: int


def read_answer(body: bytes) -> Answer:
    """Return what an A-ASSOCIATE-AC body agrees to; raises ProtocolError when it is broken."""
    if len(body) < 68:
        raise ProtocolError("broken-acceptance", INVALID_PARAMETER)
    pdu = A_ASSOCIATE_AC()
    try:
        pdu.decode(_with_header(ASSOCIATE_AC, body[:68] + _known(body[68:], frozenset({0x10, 0x21, 0x50}))))
        information = pdu.user_information
        return Answer(
            syntaxes={
                int(item.context_id): str(item.transfer_syntax or "")
                for item in pdu.presentation_context
                if item.result == ACCEPTED
            },
            as_scp=frozenset(
                str(uid) for uid, role in (information.role_selection if information else {}).items() if role.scp_role
            ),
            max_pdu_bytes=int((information.maximum_length if information is not None else 0) or 0),
        )
    except ProtocolError:
        raise
    except Exception as error:
        raise ProtocolError("broken-acceptance", INVALID_PARAMETER) from error


def read_acceptance(body: bytes) -> tuple[frozenset[int], int]:
    """Return the accepted context ids and the peer's PDU limit from an A-ASSOCIATE-AC body; ProtocolError when broken."""
    answer = read_answer(body)
    return frozenset(answer.syntaxes), answer.max_pdu_bytes


def _judge(
    abstract: str, offered: Sequence[str], role: tuple[bool, bool] | None, rights: frozenset[str]
) -> tuple[str, int]:
    """Return (transfer syntax, result) for one proposed context."""
    first = offered[0] if offered else "1.2.840.10008.1.2"
    offer = offer_for(abstract)
    if offer is None:
        return first, ABSTRACT_SYNTAX_UNKNOWN
    as_scu = (role is None or role[0]) and offer.right in rights
    as_scp = role is not None and role[1] and _peer_may_be_scp(abstract, rights)
    if not as_scu and not as_scp:
        return first, USER_REJECTION
    known = _KNOWN_SYNTAXES if offer.any_syntax else _NATIVE_SYNTAXES
    usable = [uid for uid in offered if uid in known]
    if not usable:
        return first, TRANSFER_SYNTAXES_UNKNOWN
    return next((uid for uid in usable if uid not in DEFLATED), usable[0]), ACCEPTED


def _peer_may_be_scp(abstract: str, rights: frozenset[str]) -> bool:
    """Return whether the hub may act as SCU of *abstract* on an association that the peer opened."""
    offer = offer_for(abstract)
    if offer is None or not offer.peer_scp:
        return False
    # Instances go out on the peer's association as sub-operations of C-GET only.
    return ("get" if offer.any_syntax else offer.right) in rights


def _user_information(offered_pdu_bytes: int) -> list[Any]:
    length = MaximumLengthNotification()
    length.maximum_length_received = offered_pdu_bytes
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    return [length, implementation, version]


def _role(abstract_syntax: str, scu: bool, scp: bool) -> Any:
    """Return the item that gives the requestor the roles *scu* and *scp* (PS3.7 annex D.3.3.4)."""
    role = SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid = UID(abstract_syntax)
    role.scu_role, role.scp_role = scu, scp
    return role


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
