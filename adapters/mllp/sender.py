"""Delivers HL7 v2 messages to partners by MLLP and keeps their acknowledgement (HL7 v2 chapter 2.9).

As many connections as the endpoint's setting ``connections`` says, one if it is absent, and one message in flight on each. An answer counts only when its MSA-2 is the MSH-10 that was
sent; anything else closes the socket, so that a late acknowledgement can never be credited to the next message.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import structlog

from adapters._tls import client_context
from adapters.mllp.client import MllpClient, NoAnswer
from adapters.mllp.later import Hear, LaterAnswers
from fhir_mappings.hl7v2.charset import decode_message
from hub.acknowledge import UNANSWERED
from hub.acknowledged import came, judge
from hub.certificates import Line
from hub.config import Settings
from hub.delivery import connections_of
from hub.errors import HubError
from hub.ports import Delivery, MemberEndpoint, Sender, SendResult

if TYPE_CHECKING:
    from hub.boot import Services

log = structlog.get_logger("adapters.mllp.sender")


def open_sender(services: Services) -> Sender:
    """Return a sender for deliveries of kind ``mllp``; safe for several threads."""
    return MllpSender(
        services.settings, shown=services.presented_certificates.note, hear=services.messages.receive_later
    )


class MllpSender:
    """The :class:`hub.ports.Sender` for MLLP.

    Args:
        shown: told with each message what the endpoint's server showed; a line may last for months.
    """

    def __init__(
        self, settings: Settings, *, shown: Callable[[str, Line], None] | None = None, hear: Hear | None = None
    ) -> None:
        self._hear = hear
        self._settings = settings
        self._shown = shown
        self._lock = threading.Lock()
        self._lines: dict[str, _Line] = {}

    def send(self, delivery: Delivery, endpoint: MemberEndpoint) -> SendResult:
        """Send the payload and wait for its acknowledgement; never raises for a partner's fault.

        AA and CA are success. AR and CR are permanent. AE and CE are tried again unless the endpoint's setting
        ``retry-ae`` is false, because senders and receivers differ in what they mean by them. With the setting
        ``validate-out`` a message is judged first; ``reject`` keeps back what is not fit, as a dead letter. A refusal that
        came by another connection is read first; what it makes due again is sent at the next attempt. After a CA the
        application's answer is awaited on the same connection where it was asked for (:mod:`adapters.mllp.later`).
        """
        if (told := came(delivery, endpoint)) is not None:
            return told
        unfit = self._unfit(delivery, endpoint)
        if unfit is not None:
            return unfit
        try:
            line = self._line(endpoint)
        except (ValueError, OSError) as error:
            return SendResult(error=f"The address of {endpoint.id} is of no use: {error}", reached=False)
        try:
            return self._exchange(line, delivery, endpoint)
        finally:
            line.later.tell(endpoint)

    def _exchange(self, line: _Line, delivery: Delivery, endpoint: MemberEndpoint) -> SendResult:
        stray = line.later.stray(delivery.control_id, endpoint)
        with line.client() as client:
            try:
                if UNANSWERED in delivery.headers:
                    # An application acknowledgement is never acknowledged: handing it to TCP is all there is.
                    client.post(delivery.payload, stray=stray)
                    return SendResult()
                answer = client.exchange(delivery.payload, stray=stray)
            except NoAnswer as error:
                return SendResult(error=str(error), reached=error.reached)
            except HubError as error:
                return SendResult(error=error.message, permanent=True)
            finally:
                if self._shown is not None:
                    self._shown(endpoint.id, client.line)
            result = judge(answer, control_id=delivery.control_id, endpoint=endpoint)
            if result is None:
                client.close()
                return SendResult(
                    ack=answer, error="The answer does not acknowledge this message (MSA-2 is not its MSH-10)."
                )
            return line.later.outcome(client, delivery, endpoint, result)

    @staticmethod
    def _unfit(delivery: Delivery, endpoint: MemberEndpoint) -> SendResult | None:
        """Return the refusal of a message that the endpoint's own setting does not let out."""
        level = str(endpoint.settings.get("validate-out", "off"))
        if level == "off" or UNANSWERED in delivery.headers:
            return None
        from fhir_mappings.hl7v2.outbound.validation import findings

        found = findings(decode_message(delivery.payload).text)
        if not found:
            return None
        log.warning("message_unfit", destination=endpoint.id, control_id=delivery.control_id, findings=found[:20])
        if level != "reject":
            return None
        return SendResult(error=f"Not sent (validate-out): {'; '.join(found[:20])}", permanent=True)

    def close(self) -> None:
        """Close all connections, having handed over what had come on them."""
        with self._lock:
            lines = list(self._lines.values())
            self._lines.clear()
        for line in lines:
            line.close()
            line.later.tell(line.endpoint)
            if lost := line.later.unheard():
                log.error("late_answer_lost", destination=line.endpoint.id, why="the hub stops", count=lost)

    def _line(self, endpoint: MemberEndpoint) -> _Line:
        with self._lock:
            line = self._lines.get(endpoint.id)
            if line is None or (line.address, line.connections) != (endpoint.address, connections_of(endpoint)):
                # What came for earlier messages is the endpoint's, wherever it is reached now.
                later = LaterAnswers(self._hear) if line is None else line.later
                fresh = _Line(endpoint, self._settings, later)
                if line is not None:
                    line.close()
                line = self._lines[endpoint.id] = fresh
            return line


class _Line:
    """The connections to one endpoint, each for one message at a time."""

    def __init__(self, endpoint: MemberEndpoint, settings: Settings, later: LaterAnswers) -> None:
        self.endpoint = endpoint
        self.later = later
        self.address = endpoint.address
        self.connections = connections_of(endpoint)
        scheme, _, rest = self.address.rpartition("://")
        if scheme not in {"", "mllp", "mllps"}:
            raise ValueError("write host:port, mllp://host:port or mllps://host:port")
        host, _, port = rest.rstrip("/").rpartition(":")
        if not host or not port.isdigit():
            raise ValueError("write host:port, mllp://host:port or mllps://host:port")
        tls = client_context(settings) if scheme == "mllps" else None
        self._new = partial(MllpClient, host.strip("[]"), int(port), timeout_s=settings.delivery_timeout_s, tls=tls)
        self._free = threading.BoundedSemaphore(self.connections)
        self._lock = threading.Lock()
        self._idle: list[MllpClient] = []
        #: No message is in flight where it is asked.
        self._stray = later.stray("", endpoint)
        self._closed = False

    @contextlib.contextmanager
    def client(self) -> Iterator[MllpClient]:
        """Hold one of the connections, the one that was used last if there is a choice."""
        with self._free:
            with self._lock:
                client = self._idle.pop() if self._idle else self._new()
            try:
                yield client
            finally:
                with self._lock:
                    self._idle.append(client)
                    if self._closed:
                        client.leave(stray=self._stray)

    def close(self) -> None:
        """Close the connections, those in use when they are given back; what had come on them waits to be told."""
        with self._lock:
            self._closed = True
            for client in self._idle:
                client.leave(stray=self._stray)
