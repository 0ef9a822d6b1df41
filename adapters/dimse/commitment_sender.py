"""Delivers storage commitment to AEs: reports on what they asked, as SCP, and the hub's own requests, as SCU (PS3.4 annex J).

A report is judged when it leaves, and only once the asker has taken the association: while it is away for days nothing
is read in vain. A request says nothing of the outcome; that comes as an N-EVENT-REPORT, on this association or on one that
the partner opens, and is recorded by :mod:`hub.commitment_requests` in either case.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from adapters.dimse import command as dimse
from adapters.dimse.calling import SYNTAXES, Call, UndeliveredError, called, judged
from adapters.dimse.commitment import SAME, SETTING, SOP_CLASS, Commitment, action, event
from adapters.dimse.negotiation import Proposal
from adapters.dimse.upper_layer import ConnectionEnd, ProtocolError
from fhir_mappings.dicom import commitment
from fhir_mappings.dicom.commitment import Information
from hub.commitment import KIND, CommitmentService, Request
from hub.ports import Delivery, MemberEndpoint, Sender, SendResult

if TYPE_CHECKING:
    from hub.boot import Services

#: Warnings with which a report was taken all the same (PS3.7 annex C.4).
_TAKEN = frozenset({0x0001, 0x0107, 0x0116})
#: An association that says nothing for longer may be cut by the partner, so a longer judgement opens another.
PATIENCE_S = 10.0
#: How long a report is awaited where it was asked for, when the endpoint does not say where it reports.
LINGER_S = 2.0


def open_sender(services: Services) -> Sender:
    """Return a sender for deliveries of the kinds ``commitment`` and ``commitment-request``; safe for several threads."""
    return CommitmentSender(services)


class CommitmentSender:
    """The :class:`hub.ports.Sender` of reports and requests."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._service = CommitmentService(services)

    def send(self, delivery: Delivery, endpoint: MemberEndpoint) -> SendResult:
        """Send one report or request and wait for its answer; never raises for a partner's fault.

        Raises:
            HubError: unavailable when nobody listens, or when nothing can be judged now.
        """
        try:
            request = Request.unpacked(delivery.payload)
        except (ValueError, KeyError, TypeError):
            return SendResult(error="The delivery is no storage commitment transaction.", permanent=True)
        try:
            return (self._report if delivery.kind == KIND else self._ask)(request, delivery, endpoint)
        except UndeliveredError as error:
            return error.result

    def close(self) -> None:
        """Nothing is kept open between deliveries."""

    def _report(self, request: Request, delivery: Delivery, endpoint: MemberEndpoint) -> SendResult:
        proposal = Proposal(SOP_CLASS, SYNTAXES, as_scp=True)
        report: Information | None = None
        while True:
            with called(self._services, endpoint, proposal, called_ae=request.asker) as call:
                if report is None:
                    began = time.monotonic()
                    report = self._service.report(request, owner=delivery.owner)
                    if time.monotonic() - began > PATIENCE_S:
                        continue
                data = commitment.write(report, call.transfer_syntax)
                code = call.exchange.request(call.context_id, event(report), data)
            counts = {"committed": len(report.references), "failed": len(report.failed)}
            return judged("N-EVENT-REPORT", endpoint, code, fine=_TAKEN, **counts)

    def _ask(self, request: Request, delivery: Delivery, endpoint: MemberEndpoint) -> SendResult:  # noqa: ARG002 - as _report
        with called(self._services, endpoint, Proposal(SOP_CLASS, SYNTAXES)) as call:
            asked = Information(TransactionUID=request.TransactionUID, references=request.references)
            code = call.exchange.request(call.context_id, action(), commitment.write(asked, call.transfer_syntax))
            result = judged("N-ACTION", endpoint, code, fine=frozenset(), asked=len(request.references))
            if not result.error:
                self._listen(call, endpoint)
        return result

    def _listen(self, call: Call, endpoint: MemberEndpoint) -> None:
        """Take the report where the partner makes it at once; nothing is lost where it does not."""
        where = endpoint.settings.get(SETTING)
        wait_s = LINGER_S if where is None else self._services.settings.delivery_timeout_s if where == SAME else 0.0
        exchange = call.exchange
        service = Commitment(exchange)
        try:
            if not exchange.layer.readable(within_s=wait_s):
                return
            found = exchange.layer.read_pdv(wait_s=self._services.settings.delivery_timeout_s)
            if found is None:
                # The partner wants to end the association, which is what comes next.
                return
            message = exchange.message(found)
            if message.kind == dimse.N_EVENT_REPORT_RQ:
                service.handle(message)
            else:
                exchange.unknown(message)
        except (ConnectionEnd, ProtocolError):
            # The request is the partner's already; its report may still come another way.
            return
