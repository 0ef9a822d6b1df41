"""The worker: everything that happens without anybody asking.

Deliveries, timers, messages answered before they were processed, files picked up, uploads, recompression, alerts and
housekeeping, each in a thread of its own, so that a slow one does not hold up the others. All of it is in the database or
in the stores; a worker that dies loses nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import structlog

from adapters.worker.alerts import AlertLoop
from adapters.worker.delivery import DeliveryLoop
from adapters.worker.exports import ExportLoop
from adapters.worker.folders import FolderLoop, RemoteFolderLoop
from adapters.worker.housekeeping import Housekeeping
from adapters.worker.recompression import RecompressionLoop
from adapters.worker.timers import TimerLoop
from adapters.worker.uploads import UploadLoop
from adapters.worker.views import ViewLoop
from hub.errors import HubError
from hub.feed_validation import Validations
from hub.ports import UploadingStore
from hub.ports.packing import PackingStore

if TYPE_CHECKING:
    from hub.boot import Door, Services

log = structlog.get_logger("adapters.worker")

#: Wait after trouble with the stores, so that a database that is away is not hammered.
TROUBLE_S = 1.0
#: Messages processed in one turn; whoever's message comes meanwhile waits for no more of the others' than these, and
#: for its share of the next ones.
PENDING_BATCH = 64
#: Messages judged in one turn for feeds that asked for warnings.
VALIDATION_BATCH = 20


class WorkerDoor:
    """The :class:`hub.boot.Door` without a socket."""

    def serve(self, services: Services, sockets: Mapping[str, int], stop: threading.Event, index: int) -> None:  # noqa: ARG002 - the port names them
        """Work until *stop* is set, then finish what is in hand."""
        poll_s = services.settings.worker_poll_s
        deliveries = DeliveryLoop(services)
        timers = TimerLoop(services)
        validations = Validations(services)
        remote_folders = RemoteFolderLoop(services)
        loops: dict[str, Callable[[], float]] = {
            "timers": lambda: 0.0 if timers.turn() else poll_s,
            "pending": lambda: 0.0 if services.messages.process_pending(PENDING_BATCH) else poll_s,
            "validation": lambda: 0.0 if validations.turn(VALIDATION_BATCH) else poll_s,
            "alerts": AlertLoop(services).turn,
            "housekeeping": Housekeeping(services).turn,
            "exports": ExportLoop(services, stop).turn,
            "folders": FolderLoop(services).turn,
            "remote-folders": remote_folders.turn,
            "views": ViewLoop(services).turn,
        }
        if isinstance(services.objects, PackingStore):
            loops["recompression"] = RecompressionLoop(services, services.objects, stop).turn
        if isinstance(services.objects, UploadingStore):
            loops["uploads"] = UploadLoop(services.objects, stop).turn
        threads = [threading.Thread(target=_repeat, args=(name, turn, stop), name=name) for name, turn in loops.items()]
        threads.append(threading.Thread(target=deliveries.run, args=(stop,), name="delivery"))
        for thread in threads:
            thread.start()
        stop.wait()
        for thread in threads:
            thread.join()
        remote_folders.close()
        try:
            services.messages.leave_pending()
        except HubError as error:
            # Without a word the lease ends by itself, and another node goes on then.
            log.warning("worker_trouble", loop="pending", category=error.category.value, error=error.message)


def _repeat(name: str, turn: Callable[[], float], stop: threading.Event) -> None:
    """Call *turn* until *stop*; it returns the seconds to wait before the next time."""
    wait_s = 0.0
    while not stop.wait(wait_s):
        try:
            wait_s = turn()
        except HubError as error:
            log.warning("worker_trouble", loop=name, category=error.category.value, error=error.message)
            wait_s = TROUBLE_S
        except Exception:  # one bad turn must not end the loop
            log.exception("worker_fault", loop=name)
            wait_s = TROUBLE_S


DOOR: Door = WorkerDoor()
