"""Reports events of workitems to the AEs that subscribe, as SCP of the SOP class UPS Event (PS3.4 sections CC.2.4 and CC.3.1).

The hub opens the association and proposes the role of SCP; the command set names UPS Push, of which every item is an
instance. Whether the subscriber may still see the item is asked before it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapters.dimse import command as dimse
from adapters.dimse.calling import SYNTAXES, UndeliveredError, called, judged
from adapters.dimse.negotiation import Proposal
from adapters.dimse.ups import PUSH
from fhir_mappings.dicom import identifier
from fhir_mappings.json import loads
from hub.ports import Delivery, MemberEndpoint, Sender, SendResult
from hub.workitem_events import WorkitemEvents

if TYPE_CHECKING:
    from hub.boot import Services

EVENT = "1.2.840.10008.5.1.4.34.6.4"
#: Warnings with which a report was taken all the same (PS3.7 annex C.4).
_TAKEN = frozenset({0x0001, 0x0107, 0x0116})


def open_sender(services: Services) -> Sender:
    """Return a sender for deliveries of kind ``workitem-event``; safe for several threads."""
    return EventSender(services)


class EventSender:
    """The :class:`hub.ports.Sender` of events."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._events = WorkitemEvents(services)

    def send(self, delivery: Delivery, endpoint: MemberEndpoint) -> SendResult:
        """Send one event and wait for its answer; never raises for a partner's fault.

        Raises:
            HubError: unavailable when nobody listens, or when the database cannot be asked.
        """
        if not self._services.database.write(lambda tx: self._events.may_leave(tx, delivery, endpoint)):
            # It is skipped already; what is said here makes the worker take up what is behind it.
            return SendResult(error=f"{endpoint.member} may not see the workitem any more.")
        event: dict[str, Any] = loads(delivery.payload)
        command: dict[int, int | str] = {
            dimse.AFFECTED_SOP_CLASS_UID: PUSH,
            dimse.COMMAND_FIELD: dimse.N_EVENT_REPORT_RQ,
            dimse.AFFECTED_SOP_INSTANCE_UID: delivery.control_id,
            dimse.EVENT_TYPE_ID: event["type"],
        }
        try:
            with called(self._services, endpoint, Proposal(EVENT, SYNTAXES, as_scp=True)) as call:
                data = identifier.write(event["information"], call.transfer_syntax)
                code = call.exchange.request(call.context_id, command, data)
        except UndeliveredError as error:
            return error.result
        return judged("N-EVENT-REPORT", endpoint, code, fine=_TAKEN, event=event["type"])

    def close(self) -> None:
        """Nothing is kept open between deliveries."""
