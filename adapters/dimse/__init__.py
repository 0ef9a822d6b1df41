"""The DIMSE door: C-ECHO and C-STORE over the DICOM upper layer (PS3.7, PS3.8), and the C-STORE sender."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from adapters.dimse.server import serve

if TYPE_CHECKING:
    from hub.boot import Door, Services


class DimseDoor:
    """The :class:`hub.boot.Door` for DIMSE."""

    def serve(self, services: Services, sockets: Mapping[str, int], stop: threading.Event, index: int) -> None:  # noqa: ARG002 - the port names it
        """Serve until *stop* is set, then answer what is in hand.

        Raises:
            HubError: incorrect for unusable TLS files; fatal when the disk failed and this node must take no more data.
        """
        serve(services, sockets, stop)


DOOR: Door = DimseDoor()
