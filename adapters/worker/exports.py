"""Makes de-identified copies, one small step after the other; :mod:`hub.export` says which and remembers how far."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from hub.export import Exports

if TYPE_CHECKING:
    from hub.boot import Services

#: How often the worker looks for a job that was just asked for; exports take minutes, so nobody waits for this.
IDLE_S = 2.0


class ExportLoop:
    """Does the steps of export jobs."""

    def __init__(self, services: Services, stop: threading.Event) -> None:
        self._exports = Exports(services)
        self._stop = stop

    def turn(self) -> float:
        """Do one step; returns the seconds until the next one.

        Raises:
            HubError: transient, when the stores cannot work now; the step is done again.
        """
        return 0.0 if self._exports.turn(self._stop.is_set) else IDLE_S
