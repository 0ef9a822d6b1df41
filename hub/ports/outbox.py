"""Deliveries to partners, in lanes, and what sends them (DESIGN rule 8)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from hub.ports.members import MemberEndpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDelivery:
    """Something to be handed to a partner.

    Attributes:
        destination: member endpoint id, for example ``KN/mllp``.
        lane: destination and patient, as :func:`hub.delivery.lane_name` says; deliveries of one lane go in order (DESIGN
            rule 8).
        kind: sender name, a key of :data:`hub.boot.SENDERS`: ``mllp``, ``fhir``, ``dimse``.
        payload: the exact bytes to send, or for ``dimse`` JSON naming the objects.
        control_id: MSH-10 of the message, or another id the partner's answer must name.
    """

    destination: str
    lane: str
    kind: str
    payload: bytes
    owner: str
    control_id: str = ""
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    correlation_id: str = ""
    task_id: str = ""
    patient_id: str = ""
    on_ack: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery(NewDelivery):
    id: int
    state: str
    attempts: int
    next_at: datetime
    created_at: datetime
    last_error: str = ""
    ack: bytes | None = None
    acked_at: datetime | None = None


class Outbox(Protocol):
    def enqueue(self, delivery: NewDelivery) -> int: ...
    def lease(
        self, worker: str, *, now: datetime, lease_s: float, limit: int, busy: Collection[tuple[str, str]] = ()
    ) -> Sequence[tuple[str, int, Delivery]]:
        """Lease up to *limit* lanes whose head is due; returns (lane, epoch, head).

        Args:
            busy: what is left alone, as destination and slot (:func:`hub.delivery.slot_of`).
        """
        ...

    def renew(self, worker: str, *, until: datetime) -> None:
        """Keep every lane that *worker* holds until *until*."""
        ...

    def give_back(self, worker: str, *, lanes: Sequence[str] | None = None) -> None:
        """End the leases of *worker* (on *lanes*, or all) without an attempt, so that another may take them at once."""
        ...

    def succeeded(self, lane: str, epoch: int, delivery_id: int, *, ack: bytes, now: datetime) -> bool:
        """Record the stored acknowledgement and release the lane; ``False`` when the lease was lost."""
        ...

    def failed(
        self,
        lane: str,
        epoch: int,
        delivery_id: int,
        *,
        error: str,
        next_at: datetime | None,
        now: datetime,
        reached: bool = True,
        ack: bytes = b"",
        rest_until: datetime | None = None,
        opens: bool = True,
    ) -> bool:
        """Record a failed attempt; ``next_at=None`` moves the delivery to the dead letters and parks its lane.

        When the partner was not reached, the whole destination rests until *rest_until*, or else *next_at*. Then each of
        its slots is tried with one lane, until one is delivered or at least answered. With *opens* false that is so only
        where it rests or is tried already; a destination that was reached before goes on as it is.
        """
        ...

    def handed_over(self, lane: str, epoch: int, delivery_id: int, *, until: datetime, now: datetime) -> bool:
        """Record that the partner has the message and its acknowledgement comes by another way, at the latest *until*.

        That is no attempt; the lane waits. ``False`` when the lease was lost.
        """
        ...

    def answered(self, destination: str, control_id: str, *, ack: bytes, now: datetime, refuses: bool = False) -> bool:
        """Keep *ack* for the oldest delivery *control_id* that was handed over to *destination*, which is due at once.

        With *refuses* also for the newest one that counts as sent, if its partner had only said that it has it.

        A refusal that waits to be judged is not replaced. ``False`` when nothing of that number is awaited there.
        """
        ...

    def told(self, destination: str, control_id: str, *, ack: bytes) -> bool:
        """Keep *ack* behind the receipt (CA) of the newest delivery *control_id* that *destination* has; it stays sent.

        ``False`` when there is none, or when its application has spoken before.
        """
        ...

    def lanes(self) -> Sequence[Mapping[str, Any]]:
        """Return one mapping per lane: lane, destination, state, depth, oldest_at, attempts, next_at, last_error, paused."""
        ...

    def destinations(self) -> Sequence[Mapping[str, Any]]:
        """Return one mapping per destination: destination, depth, dead, oldest_at, paused, failures, open_until, last_error, last_ok_at."""
        ...

    def deliveries(self, criteria: Mapping[str, str], *, limit: int) -> Sequence[Delivery]: ...
    def get(self, delivery_id: int) -> Delivery | None: ...
    def set_paused(self, destination: str, paused: bool) -> None: ...
    def replay(self, delivery_id: int, *, now: datetime) -> None: ...
    def skip(self, delivery_id: int, *, now: datetime, reason: str) -> None: ...
    def annotate(self, delivery_id: int, *, ack: bytes) -> None:
        """Replace the stored acknowledgement of a delivery that is sent by one that says more."""
        ...

    def by_correlation(self, correlation_id: str) -> Sequence[Delivery]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SendResult:
    """What came of one attempt to deliver.

    Attributes:
        ack: the partner's answer as it came; stored whether it accepts or refuses.
        error: empty on success; else what happened, without patient data.
        permanent: the partner refused this very content (AR, CR, HTTP 4xx, DICOM failure other than out-of-resources);
            sending it again cannot help.
        reached: the partner answered at all; a connection failure never counts towards giving up.
        awaits_s: how long its acknowledgement may take, which comes by another way; 0 where the attempt was all.
    """

    ack: bytes = b""
    error: str = ""
    permanent: bool = False
    reached: bool = True
    awaits_s: float = 0.0


class Sender(Protocol):
    """Hands one delivery to a partner; one file per protocol in the adapters."""

    def send(self, delivery: Delivery, endpoint: MemberEndpoint) -> SendResult:
        """Send and wait for the matching acknowledgement; never raises for a partner's fault."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Interruptible(Protocol):
    """A :class:`Sender` whose work may take longer than a hub that stops can wait."""

    def interrupt(self) -> None:
        """Let what is in progress end early, as if the partner had not been reached; called from another thread, perhaps twice."""
        ...
