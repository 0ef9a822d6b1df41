"""Drops HL7 v2 messages into a partner's folder ``out``, one file each, for systems that import files.

A file appears under its final name only when it is whole and durable. That is all a folder can say: nobody acknowledges,
so a delivery counts when its file is there. Names rise in the order of delivery, and importers that go by name keep it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapters.folder import base_of
from adapters.folder.place import write_whole
from hub.errors import HubError
from hub.ports import Delivery, MemberEndpoint, Sender, SendResult

if TYPE_CHECKING:
    from hub.boot import Services


def open_sender(services: Services) -> Sender:  # noqa: ARG001 - the port names it
    """Return a sender for v2 deliveries to an address ``file:///path``; safe for several threads."""
    return FolderSender()


class FolderSender:
    """The :class:`hub.ports.Sender` for folders."""

    def send(self, delivery: Delivery, endpoint: MemberEndpoint) -> SendResult:
        """Write the payload as a file; never raises for a folder's fault.

        A delivery sent again writes the same file again: its name is the delivery's number.
        """
        try:
            out = base_of(endpoint) / "out"
            write_whole(out, f"{delivery.id:012d}.hl7", delivery.payload, make=False)
            marker = str(endpoint.settings.get("marker", ""))
            if marker:
                write_whole(out, f"{delivery.id:012d}.hl7{marker}", b"", make=False)
        except HubError as error:
            return SendResult(error=error.message, permanent=True)
        except OSError as error:
            # A share that is not mounted has no folder `out`; making one would fill the disk below it.
            return SendResult(error=f"The folder out cannot be written: {error.strerror}.", reached=False)
        return SendResult()

    def close(self) -> None:
        """Nothing stays open."""
