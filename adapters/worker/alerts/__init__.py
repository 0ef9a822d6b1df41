"""Tells the operator once when something stays wrong and once when it is right again: log, metric, Communication.

One message at the start and one on clearing is what people who run such queues ask for; repeating it floods them, and
silence is how queues grow for days. What is looked at is a table: one line of :data:`WATCHERS`, one file each.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from adapters.worker.alerts.certificates import Certificates
from adapters.worker.alerts.disk import Disk
from adapters.worker.alerts.feeds import Feeds
from adapters.worker.alerts.queues import Queues
from adapters.worker.alerts.telling import Telling
from adapters.worker.alerts.uploads import Uploads
from adapters.worker.alerts.watcher import Watcher

if TYPE_CHECKING:
    from hub.boot import Services

WATCHERS: tuple[Callable[[Services], Watcher], ...] = (Queues, Feeds, Disk, Uploads, Certificates)
LONGEST_TURN_S = 5.0


class AlertLoop:
    """Compares what is wrong now with the alerts that are open."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._telling = Telling(services)
        self._watchers: dict[Watcher, datetime | None] = {watcher(services): None for watcher in WATCHERS}

    def turn(self) -> float:
        """Open and clear alerts; returns the seconds until the next look.

        Raises:
            HubError: transient, when the stores cannot work now.
        """
        now = self._services.clock()
        for watcher, looked_at in self._watchers.items():
            if looked_at is None or now - looked_at >= timedelta(seconds=watcher.every_s):
                self._watchers[watcher] = now
                self._compare(watcher, now)
        return max(0.2, min(LONGEST_TURN_S, self._services.settings.queue_alert_s / 4))

    def _compare(self, watcher: Watcher, now: datetime) -> None:
        opened = self._services.database.read(lambda tx: tx.alerts.all())
        known = {str(one["key"]): one["opened_at"] for one in opened if watcher.owns(str(one["key"]))}
        wrong = watcher.look(now, known)
        for key in wrong.keys() - known.keys():
            self._telling.opened(key, wrong[key], now)
        for key in known.keys() - wrong.keys():
            self._telling.cleared(key, now)
