"""Sends Instance Availability Notifications as SCU (PS3.4 annex R; PS3.7 section 10.1.5)."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from adapters.dimse import command as dimse
from adapters.dimse import status
from adapters.dimse.calling import SYNTAXES, Call, UndeliveredError, called, judged
from adapters.dimse.negotiation import Proposal
from fhir_mappings.dicom import identifier
from fhir_mappings.json import dumps
from hub.availability import Notice, notices
from hub.ports import Delivery, MemberEndpoint, Sender, SendResult

if TYPE_CHECKING:
    from hub.boot import Services

SOP_CLASS = "1.2.840.10008.5.1.4.33"
#: Warnings (PS3.7 annex C.4), and a notice that the partner has already, because its answer was lost.
_TAKEN = frozenset({0x0001, 0x0107, 0x0116, status.DUPLICATE_SOP_INSTANCE})


def open_sender(services: Services) -> Sender:
    """Return a sender for deliveries of kind ``availability``; safe for several threads."""
    return AvailabilitySender(services)


class AvailabilitySender:
    """The :class:`hub.ports.Sender` of notices."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def send(self, delivery: Delivery, endpoint: MemberEndpoint) -> SendResult:
        """Send every notice of one study on one association; never raises for a partner's fault.

        Raises:
            HubError: unavailable when nobody listens, or when the study cannot be read now.
        """
        told = 0
        try:
            with ExitStack() as stack:
                call: Call | None = None
                for notice in notices(self._services, delivery):
                    # Only now is there something to say, for which a partner may be called.
                    call = call or stack.enter_context(called(self._services, endpoint, Proposal(SOP_CLASS, SYNTAXES)))
                    result = self._tell(call, notice, endpoint)
                    if result.error:
                        return result
                    told += notice.instances
        except UndeliveredError as error:
            return error.result
        return SendResult(ack=dumps({"status": f"{status.SUCCESS:04X}", "instances": told}))

    def close(self) -> None:
        """Nothing is kept open between deliveries."""

    def _tell(self, call: Call, notice: Notice, endpoint: MemberEndpoint) -> SendResult:
        command: dict[int, int | str] = {
            dimse.AFFECTED_SOP_CLASS_UID: SOP_CLASS,
            dimse.COMMAND_FIELD: dimse.N_CREATE_RQ,
            dimse.AFFECTED_SOP_INSTANCE_UID: notice.SOPInstanceUID,
        }
        data = identifier.write(notice.attributes, call.transfer_syntax)
        code = call.exchange.request(call.context_id, command, data)
        return judged("N-CREATE", endpoint, code, fine=_TAKEN, instances=notice.instances)
