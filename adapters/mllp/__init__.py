"""The MLLP door: HL7 v2 messages over TCP (HL7 Minimal Lower Layer Protocol, Transport Specification R2)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from adapters._tls import server_context
from adapters.mllp.server import Limits, serve
from hub.shares import Shares

if TYPE_CHECKING:
    from hub.boot import Door, Services


class MllpDoor:
    """The :class:`hub.boot.Door` for MLLP."""

    def serve(self, services: Services, sockets: Mapping[str, int], stop: threading.Event, index: int) -> None:  # noqa: ARG002 - the port names it
        """Serve until *stop* is set, then answer what is in hand.

        Raises:
            HubError: fatal, when the disk failed and this node must not take data any more.
        """
        settings = services.settings
        tls = server_context(settings) if "tls" in sockets else None
        members = Shares(services)
        limits, minutes = Limits.of(settings), services.minutes
        asyncio.run(serve(services.messages, limits, sockets, stop, tls=tls, members=members, minutes=minutes))


DOOR: Door = MllpDoor()
