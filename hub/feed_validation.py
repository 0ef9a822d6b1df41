"""Messages of a feed held against the standard and its own profile, as the sender's Endpoint asks (``validate``, ``profile``).

``reject``: judged before anything is answered, and refused with one ERR for everything that is an error. ``warn``: answered
and processed as ever; the worker judges it afterwards (:class:`Validations`), and what it finds stands in the journal's
outcome. hl7apy costs processor time (:mod:`fhir_mappings.hl7v2.conformance`), so ``reject`` is for feeds that are being
brought in and for small ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from fhir_mappings.hl7v2 import profile as profiles
from fhir_mappings.hl7v2.ack import AckError
from hub import metrics
from hub.arrival import Arrival, read_arrival
from hub.ports import MemberEndpoint, Timer, Tx

if TYPE_CHECKING:
    from hub.boot import Services

log = structlog.get_logger("hub.feed_validation")

#: Timers of this kind are messages that wait to be judged; the worker's timers leave them alone.
KIND = "v2-validation"
#: Findings that are told or kept of one message.
MOST = 50
#: A message that is not processed yet is looked at again after this time.
_AGAIN_S = 5.0
_MARK = "validation: "


def level_of(endpoint: MemberEndpoint | None) -> str:
    """Return ``off``, ``warn`` or ``reject``."""
    return str(endpoint.settings.get("validate", "off")) if endpoint is not None else "off"


def findings(arrival: Arrival) -> list[AckError]:
    """Return what is wrong with *arrival* by the standard and by its feed's profile, errors first."""
    from fhir_mappings.hl7v2 import conformance

    if arrival.message is None or arrival.error is not None or arrival.endpoint is None:
        return []
    found = conformance.findings(arrival.message)
    text = str(arrival.endpoint.settings.get("profile", ""))
    if text:
        found += profiles.findings(profiles.read_profile(text), arrival.message)
    return sorted(found, key=lambda one: one.severity != "E")


def errors(arrival: Arrival) -> tuple[AckError, ...]:
    """Return why *arrival* is to be refused, at most :data:`MOST`; empty unless its feed is judged before the answer."""
    if level_of(arrival.endpoint) != "reject":
        return ()
    found = tuple(one for one in findings(arrival) if one.severity == "E")[:MOST]
    if found:
        metrics.count("messages_unfit", institution=arrival.institution, level="reject")
    return found


def in_words(found: Sequence[AckError]) -> str:
    """Return *found* for the journal: places and reasons."""
    more = f"; {len(found) - MOST} more" if len(found) > MOST else ""
    return "; ".join(f"{one.severity} {one.code} {one.location}: {one.text}" for one in found[:MOST]) + more


def afterwards(tx: Tx, arrival: Arrival, seq: int, now: datetime) -> None:
    """Let the worker judge journal entry *seq* if the feed asks for warnings; durable with *tx*."""
    if level_of(arrival.endpoint) == "warn":
        tx.timers.set(Timer(kind=KIND, key=str(seq), due_at=now, payload={}))


class Validations:
    """The worker's side."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def turn(self, limit: int) -> int:
        """Judge up to *limit* messages; returns how many were looked at.

        Raises:
            HubError: transient, when the stores cannot work now; what was not judged stays.
        """
        services = self._services
        due = services.database.read(lambda tx: tx.timers.due(services.clock(), limit=limit, kind=KIND))
        for timer in due:
            self._judge(timer)
        return len(due)

    def _judge(self, timer: Timer) -> None:
        services = self._services
        seq = int(timer.key)
        entry = services.database.read(lambda tx: tx.journal.get(seq))
        found: list[AckError] = []
        if entry is not None and entry.state != "received":
            body = entry.body if entry.body is not None else services.objects.read(entry.digest)
            arrival = read_arrival(
                body,
                services.directory,
                peer=entry.peer,
                door=entry.door,
                received_at=entry.received_at,
                institution_hint=entry.institution,
                correlation_id=entry.correlation_id,
            )
            # An endpoint that was changed meanwhile is asked what it wants now.
            found = findings(arrival) if level_of(arrival.endpoint) == "warn" else []

        def work(tx: Tx) -> bool:
            if not tx.timers.take(timer):
                return False
            now = tx.journal.get(seq)
            if now is not None and now.state == "received":
                # Its processing will say what came of it, and must not write over this.
                tx.timers.set(replace(timer, due_at=services.clock() + timedelta(seconds=_AGAIN_S)))
                return False
            if now is None or not found or _MARK in now.outcome:
                return False
            said = "; ".join(one for one in (now.outcome, _MARK + in_words(found)) if one)
            tx.journal.finish(seq, state=now.state, outcome=said)
            return True

        if services.database.write(work) and entry is not None:
            metrics.count("messages_unfit", institution=entry.institution, level="warn")
            log.warning("message_unfit", seq=seq, institution=entry.institution, findings=len(found))
