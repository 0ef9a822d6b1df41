"""Sends to S3 what was answered when it was on this node's disk (``objects_spool``)."""

from __future__ import annotations

import random
import threading

import structlog

from hub.ports import UploadingStore

log = structlog.get_logger("adapters.worker.uploads")

#: How often the spool is looked at when nothing waits in it.
IDLE_S = 1.0
#: Longest wait while S3 is away: short enough that a backlog begins to shrink soon after it is back.
LONGEST_S = 30.0


class UploadLoop:
    """One run after the other; while nothing can be sent, the runs come at growing distances."""

    def __init__(self, objects: UploadingStore, stop: threading.Event) -> None:
        self._objects = objects
        self._stop = stop
        self._wait_s = 0.0

    def turn(self) -> float:
        """Upload what waits; returns the seconds until the next look.

        Raises:
            HubError: when this node's disk cannot be read.
        """
        done = self._objects.upload(self._stop)
        if not done.failed:
            if self._wait_s:
                log.info("uploads_go_on", sent=done.sent)
            self._wait_s = 0.0
            return 0.0 if done.sent else IDLE_S
        if not self._wait_s:
            # Told once; the alert and the metrics tell how long it lasts.
            log.warning("uploads_fail", sent=done.sent, failed=done.failed, error=done.error)
        self._wait_s = min(LONGEST_S, max(IDLE_S, 2 * self._wait_s))
        # Nodes that lost the same server should not come back to it in step.
        return self._wait_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, keeps no secret
