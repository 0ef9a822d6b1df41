"""Fires the timers that are due; taking a timer and doing its work is one transaction, so it happens exactly once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from hub import metrics
from hub.commitment_requests import OVERDUE, CommitmentRequests
from hub.errors import HubError
from hub.feed_validation import KIND
from hub.ports import Timer, Tx

if TYPE_CHECKING:
    from hub.boot import Services

log = structlog.get_logger("adapters.worker.timers")

BATCH = 50
#: A timer whose work fails is tried again after this time, so that it does not hold up those behind it.
AGAIN_S = 60.0

#: Work inside the transaction; returns what is left to do after the commit, if anything.
Handler = Callable[[Tx, Timer], Callable[[], None] | None]


class TimerLoop:
    """Looks for due timers and does their work by kind."""

    def __init__(self, services: Services, handlers: Mapping[str, Handler] | None = None) -> None:
        self._services = services
        self._handlers = dict(handlers) if handlers is not None else _handlers(services)

    def turn(self) -> int:
        """Fire what is due; returns how many timers were due.

        Raises:
            HubError: transient, when the stores cannot work now; the timers stay.
        """
        services = self._services
        due = services.database.read(lambda tx: tx.timers.due(services.clock(), limit=BATCH, beside=KIND))
        for timer in due:
            self._fire(timer)
        return len(due)

    def _fire(self, timer: Timer) -> None:
        handler = self._handlers.get(timer.kind)
        try:
            if handler is None:
                raise LookupError(timer.kind)
            taken, after = self._services.database.write(lambda tx: _work(tx, timer, handler))
        except HubError as error:
            if error.transient or error.fatal:
                raise
            log.error("timer_failed", kind=timer.kind, category=error.category.value, error=error.message)  # noqa: TRY400
            self._postpone(timer)
            return
        except Exception:  # one timer's fault must not stop the others
            log.exception("timer_fault", kind=timer.kind)
            self._postpone(timer)
            return
        if not taken:
            return
        metrics.count("timers", kind=timer.kind, outcome="fired")
        if after is not None:
            try:
                after()
            except HubError as error:
                # Whatever follows the commit can be made again when it is asked for.
                log.warning("timer_after_failed", kind=timer.kind, category=error.category.value, error=error.message)

    def _postpone(self, timer: Timer) -> None:
        metrics.count("timers", kind=timer.kind, outcome="failed")
        later = self._services.clock() + timedelta(seconds=AGAIN_S)

        def work(tx: Tx) -> None:
            if tx.timers.take(timer):
                tx.timers.set(replace(timer, due_at=later))

        self._services.database.write(work)


def _work(tx: Tx, timer: Timer, handler: Handler) -> tuple[bool, Callable[[], None] | None]:
    if not tx.timers.take(timer):
        return False, None
    return True, handler(tx, timer)


def _handlers(services: Services) -> dict[str, Handler]:
    def study_quiet(tx: Tx, timer: Timer) -> Callable[[], None] | None:
        key = services.imaging.on_study_quiet(tx, timer)
        return None if key is None else lambda: services.imaging.prepare_metadata(key)

    def workflow(tx: Tx, timer: Timer) -> None:
        services.tasks.on_timer(tx, timer)

    return {"study-quiet": study_quiet, "workflow": workflow, OVERDUE: CommitmentRequests(services).overdue}
