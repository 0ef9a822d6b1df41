"""Storage Commitment Push Model (PS3.4 annex J; PS3.7 sections 10.1.4 and 10.1.1).

The answer to an N-ACTION says only that the request is kept. The report follows when every object has been read again:
on an association of the hub's own where the asker's Endpoint has an address, else at once on the one it asked by.

A partner that the hub itself has asked reports in the same way; its N-EVENT-REPORT is answered once the outcome is durable.
"""

from __future__ import annotations

import structlog

from adapters.dimse import command as dimse
from adapters.dimse import status
from adapters.dimse.exchange import Exchange, Message
from fhir_mappings.dicom import commitment
from fhir_mappings.dicom.commitment import Information
from fhir_mappings.errors import MappingError
from hub.commitment import CommitmentService, Request
from hub.commitment_requests import CommitmentRequests
from hub.errors import HubError

_log = structlog.get_logger("adapters.dimse")

SOP_CLASS, SOP_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
_REQUEST = 1
_ALL_SAFE, _SOME_FAILED = 1, 2
#: The setting of an Endpoint that wants its reports where it asked, although it has an address.
SETTING, SAME = "commitment-report", "same-association"


class Commitment:
    """Takes requests for commitment, and reports on the hub's own requests, on one association."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._service = CommitmentService(exchange.services)
        self._requests = CommitmentRequests(exchange.services)

    def handle(self, message: Message) -> None:
        """Answer a request or a report once it is durable; report at once where no other way leads to the asker."""
        if message.kind == dimse.N_EVENT_REPORT_RQ:
            self._take(message)
        elif message.kind == dimse.N_ACTION_RQ:
            self._accept(message)
        else:
            self._exchange.unknown(message)

    def ended(self) -> None:
        """Nothing is left to do: what was asked for is in the outbox."""

    def _accept(self, message: Message) -> None:
        data = self._exchange.dataset(message, max_bytes=commitment.MAX_BYTES)
        endpoint = self._exchange.endpoint
        at_once = not endpoint.address or endpoint.settings.get(SETTING) == SAME
        try:
            request = self._request(message, data)
            envelope = self._exchange.envelope("N-ACTION")
            if at_once:
                self._service.record(envelope, request)
            else:
                self._service.accept(envelope, request, endpoint)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the request is not kept, and the peer is told
            code, comment = self._refusal(error)
            _log.warning("commitment_refused", peer=self._exchange.peer, status=f"{code:04X}", why=comment)
            self._answer(message, code, comment)
            return
        self._answer(message, status.SUCCESS)
        if at_once:
            self._report(message, request)

    def _answer(self, message: Message, code: int, comment: str = "") -> None:
        self._exchange.answer(
            message,
            code,
            comment=comment,
            more={dimse.AFFECTED_SOP_INSTANCE_UID: SOP_INSTANCE, dimse.ACTION_TYPE_ID: _REQUEST},
        )

    def _request(self, message: Message, data: bytes) -> Request:
        if dimse.uid(message.command, dimse.REQUESTED_SOP_INSTANCE_UID) != SOP_INSTANCE:
            raise _Refused(status.NO_SUCH_SOP_INSTANCE, "Requested SOP Instance UID is not the well-known one.")
        if dimse.number(message.command, dimse.ACTION_TYPE_ID) != _REQUEST:
            raise _Refused(status.NO_SUCH_ACTION, "Action Type ID is not 1.")
        asked = commitment.read(data, message.context.transfer_syntax)
        return Request(
            TransactionUID=asked.TransactionUID, references=asked.references, asker=self._exchange.calling_ae
        )

    def _refusal(self, error: Exception) -> tuple[int, str]:
        if isinstance(error, _Refused):
            return error.code, str(error)
        if isinstance(error, MappingError):
            return status.INVALID_ARGUMENT, error.message
        code, comment = self._exchange.refusal(error)
        if isinstance(error, HubError) and not error.transient and not error.fatal:
            return status.INVALID_ARGUMENT, comment
        return (code if code != status.OUT_OF_RESOURCES else status.RESOURCE_LIMITATION), comment

    def _report(self, message: Message, request: Request) -> None:
        try:
            report = self._service.report(
                request, owner=self._exchange.actor.institution, stopping=self._exchange.stopping
            )
        except HubError as error:
            # Nothing can be said now. The asker gets no report, keeps its objects and asks again.
            _log.warning("commitment_not_reported", peer=self._exchange.peer, why=error.message)
            return
        code = self._exchange.request(
            message.context_id,
            event(report),
            commitment.write(report, message.context.transfer_syntax),
        )
        if code != status.SUCCESS:
            _log.warning("commitment_report_refused", peer=self._exchange.peer, status=f"{code:04X}")

    def _take(self, message: Message) -> None:
        """Record the report that a partner sends on a request of the hub's."""
        data = self._exchange.dataset(message, max_bytes=commitment.MAX_BYTES)
        kind = message.command.get(dimse.EVENT_TYPE_ID, b"")
        more: dict[int, int | str] = {dimse.AFFECTED_SOP_INSTANCE_UID: SOP_INSTANCE}
        code, comment = status.SUCCESS, ""
        try:
            if int.from_bytes(kind, "little") not in {_ALL_SAFE, _SOME_FAILED}:
                raise _Refused(status.NO_SUCH_EVENT_TYPE, "Event Type ID is neither 1 nor 2.")
            more[dimse.EVENT_TYPE_ID] = int.from_bytes(kind, "little")
            report = commitment.read(data, message.context.transfer_syntax)
            self._requests.reported(self._exchange.envelope("N-EVENT-REPORT"), self._exchange.endpoint, report)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the report is not kept, and the peer is told
            code, comment = self._refusal(error)
            _log.warning("commitment_report_not_taken", peer=self._exchange.peer, status=f"{code:04X}", why=comment)
        self._exchange.answer(message, code, comment=comment, more=more)


class _Refused(Exception):  # noqa: N818 - it carries a status
    def __init__(self, code: int, comment: str) -> None:
        super().__init__(comment)
        self.code = code


def action() -> dict[int, int | str]:
    """Return the command set of the N-ACTION-RQ that asks for commitment, without its Message ID (PS3.7 section 10.3.4)."""
    return {
        dimse.REQUESTED_SOP_CLASS_UID: SOP_CLASS,
        dimse.COMMAND_FIELD: dimse.N_ACTION_RQ,
        dimse.REQUESTED_SOP_INSTANCE_UID: SOP_INSTANCE,
        dimse.ACTION_TYPE_ID: _REQUEST,
    }


def event(report: Information) -> dict[int, int | str]:
    """Return the command set of the N-EVENT-REPORT-RQ of *report*, without its Message ID (PS3.7 section 10.3.1)."""
    return {
        dimse.AFFECTED_SOP_CLASS_UID: SOP_CLASS,
        dimse.COMMAND_FIELD: dimse.N_EVENT_REPORT_RQ,
        dimse.AFFECTED_SOP_INSTANCE_UID: SOP_INSTANCE,
        dimse.EVENT_TYPE_ID: _SOME_FAILED if report.failed else _ALL_SAFE,
    }
