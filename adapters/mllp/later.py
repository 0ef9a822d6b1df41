"""What a partner says on the hub's own connection after it has said that it has the message (HL7 v2 chapter 2.9.3).

In enhanced mode two answers follow a message: the receipt (CA), and what its application makes of it (AA, AE, AR). Where the
second was asked for (MSH-16 AL), the sender waits for it a bounded time, and a partner that gave none has the message all
the same. Many send it on a connection of their own, or after hours; so one wait that was for nothing ends the waiting, until
such an answer is seen on this way. What comes later still is found before the next message is sent or the connection is
closed, and told to the intake: it is never the answer to another message.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import structlog

from adapters.mllp.client import ANSWER_MAX_BYTES, MllpClient, Stray
from hub.acknowledged import answered_number, answers_wanted, both, is_receipt, judge, wait_s
from hub.errors import HubError
from hub.ports import Delivery, MemberEndpoint, SendResult

log = structlog.get_logger("adapters.mllp.later")

#: Receives an answer that came for an earlier delivery to the endpoint; durable on return.
Hear = Callable[[bytes, MemberEndpoint], None]

#: Messages of one endpoint whose late answers are known on its connections.
KEPT = 1024


class LaterAnswers:
    """The answers after the first, of all connections to one endpoint; safe for several threads."""

    def __init__(self, hear: Hear | None) -> None:
        self._hear = hear
        self._lock = threading.Lock()
        self._sent: dict[str, None] = {}
        self._unheard: deque[bytes] = deque()
        self._unheard_bytes = 0
        #: Whether a wait is worth while.
        self._here = True

    def stray(self, control_id: str, endpoint: MemberEndpoint) -> Stray:
        """Return what takes answers to messages that went before the one *control_id*."""

        def take(frame: bytes) -> bool:
            number = answered_number(frame, endpoint)
            with self._lock:
                if number == control_id or number not in self._sent:
                    return False
                self._here = True
                if is_receipt(frame):
                    return True
                if self._unheard_bytes + len(frame) > ANSWER_MAX_BYTES:
                    # It repeats itself, or nothing can be kept now; either way the connection is replaced.
                    log.warning("late_answer_lost", destination=endpoint.id, why="too many wait")
                    return False
                self._unheard.append(frame)
                self._unheard_bytes += len(frame)
                return True

        return take

    def outcome(
        self, client: MllpClient, delivery: Delivery, endpoint: MemberEndpoint, first: SendResult
    ) -> SendResult:
        """Return what came of *delivery*, to which *first* was said at once, with the application's answer if it comes."""
        with self._lock:
            self._sent[delivery.control_id] = None
            while len(self._sent) > KEPT:
                del self._sent[next(iter(self._sent))]
            waits = self._here and answers_wanted(delivery.payload)
        if not is_receipt(first.ack):
            return first
        until = time.monotonic() + (wait_s(endpoint) if waits else 0.0)
        stray = self.stray(delivery.control_id, endpoint)
        while (frame := client.more(max(0.0, until - time.monotonic()), stray=stray)) is not None:
            told = judge(frame, control_id=delivery.control_id, endpoint=endpoint)
            if told is None:
                # It belongs to nothing that was sent here; who talks like that gets a fresh connection.
                client.close()
                return first
            if not is_receipt(frame):
                with self._lock:
                    self._here = True
                return replace(told, ack=both(first.ack, frame))
        if waits:
            with self._lock:
                self._here = False
        return first

    def unheard(self) -> int:
        """Return how many answers came and are not handed over."""
        with self._lock:
            return len(self._unheard)

    def tell(self, endpoint: MemberEndpoint) -> None:
        """Hand over to the intake what came for earlier messages; what it cannot take now is kept for the next time.

        Never fails, because the message that was sent last has its own answer. What can never be kept is let go.
        """
        while self._hear is not None:
            with self._lock:
                if not self._unheard:
                    return
                frame = self._unheard.popleft()
                self._unheard_bytes -= len(frame)
            try:
                self._hear(frame, endpoint)
            except HubError as error:
                if not (error.transient or error.fatal):
                    log.error("late_answer_lost", destination=endpoint.id, why=error.message)  # noqa: TRY400 - no fault
                    continue
                with self._lock:
                    self._unheard.appendleft(frame)
                    self._unheard_bytes += len(frame)
                log.warning("late_answer_waits", destination=endpoint.id, category=error.category.value)
                return
            except Exception:  # whatever an answer to an earlier message meets, this one is delivered
                log.exception("late_answer_lost", destination=endpoint.id)
