"""Partners in storage commitment and availability: programs of the DICOM library, and raw ones that follow a script."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pynetdicom
from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.presentation import build_context, build_role
from pynetdicom.sop_class import (
    InstanceAvailabilityNotification,  # type: ignore[attr-defined]
    StorageCommitmentPushModel,  # type: ignore[attr-defined]
)

from adapters.dimse import command as dimse
from adapters.dimse import negotiation
from adapters.dimse.commitment import SOP_CLASS, SOP_INSTANCE
from adapters.dimse.upper_layer import P_DATA, RELEASE_RP_PDU, RELEASE_RQ
from fhir_mappings.dicom import commitment
from fhir_mappings.dicom.commitment import Information, Reference
from fhir_mappings.json import dumps
from hub.boot import Services
from hub.ports import Delivery, MemberEndpoint, NewDelivery, StudyKey
from tests.support.dicom import CT_IMAGE_STORAGE
from tests.support.dimse import Peer
from tests.support.dimse_peer import data_pdus

Pair = tuple[str, str]


@dataclass
class Library:
    """What a partner made of the DICOM library was sent, in the words of the standard."""

    port: int = 0
    called: list[str] = field(default_factory=list)
    reports: list[tuple[int, Dataset]] = field(default_factory=list)
    requests: list[Dataset] = field(default_factory=list)
    notices: list[tuple[str, Dataset]] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)


@contextlib.contextmanager
def library(
    title: str,
    port: int = 0,
    *,
    answer: int = 0x0000,
    peer_scp: bool | None = True,
    on_store: Callable[[], object] = lambda: None,
    on_report: Callable[[], object] = lambda: None,
) -> Iterator[Library]:
    """Run an AE that stores, vouches for nothing by itself, and takes reports and notices, each with status *answer*.

    *on_store* and *on_report* run before such a message is answered, and may keep it waiting.
    """
    seen = Library()

    def stored(event: Any) -> int:
        on_store()
        seen.stored.append(str(event.request.AffectedSOPInstanceUID))
        return 0x0000

    def reported(event: Any) -> tuple[int, None]:
        on_report()
        seen.reports.append((event.event_type, event.event_information))
        return answer, None

    def asked(event: Any) -> tuple[int, None]:
        seen.requests.append(event.action_information)
        return answer, None

    def noticed(event: Any) -> tuple[int, Dataset]:
        seen.notices.append((str(event.request.AffectedSOPInstanceUID), event.attribute_list))
        return answer, Dataset()

    entity = pynetdicom.AE(title)
    entity.require_called_aet = True
    entity.add_supported_context(CT_IMAGE_STORAGE)
    entity.add_supported_context(InstanceAvailabilityNotification)
    role = None if peer_scp is None else True
    entity.add_supported_context(StorageCommitmentPushModel, scu_role=role, scp_role=peer_scp)
    handlers = [
        (evt.EVT_C_STORE, stored),
        (evt.EVT_N_EVENT_REPORT, reported),
        (evt.EVT_N_ACTION, asked),
        (evt.EVT_N_CREATE, noticed),
        (evt.EVT_ACCEPTED, lambda event: seen.called.append(event.assoc.acceptor.primitive.called_ae_title)),
    ]
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    assert server is not None
    seen.port = server.socket.getsockname()[1]
    try:
        yield seen
    finally:
        server.shutdown()


def library_asks(title: str, port: int, transaction: str, *pairs: Pair) -> int:
    """Let an AE of the DICOM library ask the hub on *port* for commitment; returns the status."""
    entity = pynetdicom.AE(title)
    association = entity.associate(
        "127.0.0.1", port, contexts=[build_context(StorageCommitmentPushModel)], ae_title="YIXIE"
    )
    assert association.is_established
    status, _ = association.send_n_action(
        _information(transaction, pairs, ()), 1, StorageCommitmentPushModel, SOP_INSTANCE
    )
    association.release()
    return int(status.Status)


def library_reports(
    title: str, port: int, transaction: str, committed: Sequence[Pair], failed: Sequence[Pair] = ()
) -> int:
    """Let an AE of the DICOM library open an association of its own to the hub and report; returns the status."""
    entity = pynetdicom.AE(title)
    association = entity.associate(
        "127.0.0.1",
        port,
        contexts=[build_context(StorageCommitmentPushModel)],
        ext_neg=[build_role(StorageCommitmentPushModel, scp_role=True)],
        ae_title="YIXIE",
    )
    assert association.is_established
    status, _ = association.send_n_event_report(
        _information(transaction, committed, failed), 2 if failed else 1, StorageCommitmentPushModel, SOP_INSTANCE
    )
    association.release()
    return int(status.Status)


def _information(transaction: str, references: Sequence[Pair], failed: Sequence[Pair]) -> Dataset:
    def item(pair: Pair, **more: Any) -> Dataset:
        made = Dataset()
        made.ReferencedSOPClassUID, made.ReferencedSOPInstanceUID = pair
        for name, value in more.items():
            setattr(made, name, value)
        return made

    made = Dataset()
    made.TransactionUID = transaction
    if references:
        made.ReferencedSOPSequence = [item(one) for one in references]
    if failed:
        made.FailedSOPSequence = [item(one, FailureReason=0x0110) for one in failed]
    return made


class Acceptor(Peer):
    """A raw partner that was called: the association stands when its script gets it."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(20)
        self.socket = connection
        kind, body = self.read()
        assert kind == 1, kind
        request = negotiation.read_request(body)
        acceptance = negotiation.accept(request, offered_pdu_bytes=16384)
        self.contexts = acceptance.contexts
        self.send(acceptance.pdu)

    def message(self) -> tuple[dimse.Command, bytes]:
        """Return the next message whole."""
        command, data, has_data = b"", b"", True
        while has_data:
            kind, body = self.read()
            assert kind == P_DATA, kind
            while body:
                length = int.from_bytes(body[:4], "big")
                control, piece, body = body[5], body[6 : 4 + length], body[4 + length :]
                if control & 1:
                    command += piece
                    has_data = dimse.number(dimse.decode(command), dimse.COMMAND_DATA_SET_TYPE) != dimse.NO_DATA_SET
                else:
                    data += piece
                    has_data = not control & 2
        return dimse.decode(command), data

    def confirm(self, command: dimse.Command, code: int = 0) -> None:
        """Answer a request that has no data set in its answer."""
        self.send(
            dimse.pdu(
                1,
                {
                    dimse.COMMAND_FIELD: dimse.number(command, dimse.COMMAND_FIELD) | 0x8000,
                    dimse.MESSAGE_ID_RESPONDED_TO: dimse.number(command, dimse.MESSAGE_ID),
                    dimse.COMMAND_DATA_SET_TYPE: dimse.NO_DATA_SET,
                    dimse.STATUS: code,
                },
            )
        )

    def report(self, information: Information, *, event_type: int = 1) -> int:
        """Send an N-EVENT-REPORT-RQ and return the status that it is answered with."""
        for pdu in report_pdus(information, self.contexts[1].transfer_syntax, event_type=event_type):
            self.send(pdu)
        return dimse.number(self.message()[0], dimse.STATUS)

    def released(self) -> None:
        """Let the hub end the association."""
        assert self.read()[0] == RELEASE_RQ
        self.send(RELEASE_RP_PDU)


def report_pdus(information: Information, transfer_syntax: str, *, event_type: int = 1) -> list[bytes]:
    """Return an N-EVENT-REPORT-RQ on context 1."""
    return [report_command(event_type), *data_pdus(commitment.write(information, transfer_syntax))]


def report_command(event_type: int = 1) -> bytes:
    """Return the command set of an N-EVENT-REPORT-RQ on context 1, which has a data set."""
    return dimse.pdu(
        1,
        {
            dimse.AFFECTED_SOP_CLASS_UID: SOP_CLASS,
            dimse.COMMAND_FIELD: dimse.N_EVENT_REPORT_RQ,
            dimse.MESSAGE_ID: 4711,
            dimse.COMMAND_DATA_SET_TYPE: dimse.DATA_SET,
            dimse.AFFECTED_SOP_INSTANCE_UID: SOP_INSTANCE,
            dimse.EVENT_TYPE_ID: event_type,
        },
    )


@contextlib.contextmanager
def scripted(*scripts: Callable[[Acceptor], None]) -> Iterator[int]:
    """Take one association for each of *scripts*, in their order; yields the port. What a script asserts must hold."""
    broken: list[BaseException] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)

        def serve() -> None:
            try:
                for script in scripts:
                    with Acceptor(listener.accept()[0]) as partner:
                        script(partner)
            except BaseException as error:
                broken.append(error)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            thread.join(30)
        if broken:
            raise broken[0]


def images_for(hub: Services, to: MemberEndpoint, study: str, *, owner: str = "KN") -> int:
    """Queue the current objects of *study* for *to*, as hub.routing does; returns the number of the delivery."""
    key = StudyKey(owner=owner, StudyInstanceUID=study)

    def work(tx: Any) -> int:
        names = ("digest", "SOPClassUID", "SOPInstanceUID", "TransferSyntaxUID")
        rows = [{name: getattr(row, name) for name in names} for row in tx.imaging.instances_of(key)]
        return int(
            tx.outbox.enqueue(
                NewDelivery(
                    destination=to.id,
                    lane=f"{to.id}|p1",
                    kind="dimse",
                    payload=dumps({"instances": rows}),
                    owner=owner,
                    control_id=study,
                    content_type="application/dicom",
                    correlation_id="c1",
                    patient_id="p1",
                )
            )
        )

    return int(hub.database.write(work))


def deliveries(hub: Services, kind: str) -> list[Delivery]:
    """Return the deliveries of *kind*, oldest first."""
    found = hub.database.read(lambda tx: tx.outbox.deliveries({"kind": kind}, limit=100))
    return list(reversed(found))


def references(*uids: str) -> tuple[Reference, ...]:
    """Return references to CT images."""
    return tuple(Reference(CT_IMAGE_STORAGE, uid) for uid in uids)
