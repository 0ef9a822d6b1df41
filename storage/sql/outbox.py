"""What is still to be delivered, in lanes.

Theory of operation. A lane is one destination and one patient; its deliveries go out in the order they were enqueued,
one at a time. ``outbox_lane`` has a row for each lane that has something open; a worker leases the row (never a
delivery), sends the head, and reports back with the lease's epoch, so that a worker that lost its lease cannot disturb
the next one. A dead letter at the head parks its own lane only. A destination that cannot be reached rests as a whole.

What is open (pending or dead) is found by partial indexes, so nothing here grows with what was delivered. How people
look at lanes, destinations and deliveries is in :mod:`storage.sql.outbox_views`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from fhir_mappings.json import dumps
from hub.acknowledged import ACKNOWLEDGED, both, is_open_to_refusal, is_receipt, is_refusal
from hub.clock import to_us
from hub.errors import Category, HubError
from hub.ports import Delivery, NewDelivery
from storage.sql import awaited, lanes, outbox_views
from storage.sql._dialect import insert
from storage.sql.outbox_views import IS_OPEN, OPEN, delivery_of
from storage.sql.schema import outbox, outbox_destination, outbox_lane

if TYPE_CHECKING:
    from storage.sql.transaction import SqlTx


class SqlOutbox:
    """The :class:`hub.ports.Outbox` of one transaction."""

    def __init__(self, tx: SqlTx) -> None:
        self._tx = tx
        self._connection = tx.connection

    def enqueue(self, delivery: NewDelivery) -> int:
        """Append *delivery* to its lane; returns its id."""
        now = to_us(self._tx.clock())
        # The lane's lock is taken before the number, so that numbers in a lane grow in the order of the commits.
        self._wake(delivery.lane, delivery.destination, now)
        result = self._connection.execute(
            sa.insert(outbox).values(
                lane=delivery.lane,
                destination=delivery.destination,
                kind=delivery.kind,
                owner=delivery.owner,
                control_id=delivery.control_id,
                content_type=delivery.content_type,
                headers=dumps(dict(delivery.headers)).decode(),
                payload=delivery.payload,
                state="pending",
                next_at=now,
                created_at=now,
                correlation_id=delivery.correlation_id,
                task_id=delivery.task_id,
                patient_id=delivery.patient_id,
                on_ack=delivery.on_ack,
            )
        )
        key = result.inserted_primary_key
        assert key is not None
        return int(key[0])

    def _wake(self, lane: str, destination: str, now: int) -> None:
        statement = insert(outbox_lane, on_sqlite=self._tx.sqlite).values(
            lane=lane, destination=destination, state="ready", next_at=now
        )
        # Updating the row to itself takes its lock, so that a worker that is just closing an empty lane comes first.
        self._connection.execute(
            statement.on_conflict_do_update(index_elements=["lane"], set_={"destination": destination})
        )
        self._connection.execute(
            insert(outbox_destination, on_sqlite=self._tx.sqlite)
            .values(destination=destination, paused=False)
            .on_conflict_do_nothing()
        )

    def lease(
        self, worker: str, *, now: datetime, lease_s: float, limit: int, busy: Collection[tuple[str, str]] = ()
    ) -> Sequence[tuple[str, int, Delivery]]:
        """Lease up to *limit* lanes whose head is due, none of the *busy* slots."""
        moment = to_us(now)
        until = to_us(now + timedelta(seconds=lease_s))
        by_slot = lanes.due(self._connection, moment, limit, busy=busy, lock=not self._tx.sqlite)
        # One lane of each slot in turn, so that a long queue for one partner cannot delay another.
        turns = max(map(len, by_slot), default=0)
        chosen = [of_slot[turn] for turn in range(turns) for of_slot in by_slot if turn < len(of_slot)]
        leased: list[tuple[str, int, Delivery]] = []
        for row in chosen:
            if len(leased) == limit:
                break
            head = self._head(row.lane)
            if head is None:
                self._connection.execute(sa.delete(outbox_lane).where(outbox_lane.c.lane == row.lane))
                continue
            if head.state == "dead":
                self._connection.execute(
                    sa.update(outbox_lane).where(outbox_lane.c.lane == row.lane).values(state="parked")
                )
                continue
            self._connection.execute(
                sa.update(outbox_lane)
                .where(outbox_lane.c.lane == row.lane)
                .values(lease_owner=worker, lease_until=until, epoch=row.epoch + 1)
            )
            leased.append((row.lane, row.epoch + 1, delivery_of(head)))
        return leased

    def renew(self, worker: str, *, until: datetime) -> None:
        """Keep every lane that *worker* holds until *until*."""
        self._connection.execute(
            sa.update(outbox_lane)
            .where(outbox_lane.c.lease_owner == worker, outbox_lane.c.lease_until > 0)
            .values(lease_until=to_us(until))
        )

    def give_back(self, worker: str, *, lanes: Sequence[str] | None = None) -> None:
        """End the leases of *worker* without an attempt; see :class:`hub.ports.Outbox`."""
        statement = sa.update(outbox_lane).where(outbox_lane.c.lease_owner == worker)
        if lanes is not None:
            statement = statement.where(outbox_lane.c.lane.in_(list(lanes)))
        self._connection.execute(statement.values(lease_owner="", lease_until=0))

    def _head(self, lane: str) -> Any:
        return self._connection.execute(
            sa.select(outbox).where(outbox.c.lane == lane, IS_OPEN).order_by(outbox.c.id).limit(1)
        ).first()

    def _holds(self, lane: str, epoch: int) -> bool:
        statement = sa.select(outbox_lane.c.epoch).where(outbox_lane.c.lane == lane, outbox_lane.c.epoch == epoch)
        if not self._tx.sqlite:
            statement = statement.with_for_update()
        return self._connection.execute(statement).first() is not None

    def _release(self, lane: str, now: int) -> None:
        """Give the lane back, to go on with its head when that is due."""
        head = self._head(lane)
        if head is None:
            self._connection.execute(sa.delete(outbox_lane).where(outbox_lane.c.lane == lane))
            return
        self._connection.execute(
            sa.update(outbox_lane)
            .where(outbox_lane.c.lane == lane)
            .values(
                state="parked" if head.state == "dead" else "ready",
                next_at=max(now, head.next_at),
                lease_owner="",
                lease_until=0,
            )
        )

    def succeeded(self, lane: str, epoch: int, delivery_id: int, *, ack: bytes, now: datetime) -> bool:
        """Record the acknowledgement and release the lane; ``False`` when the lease was lost."""
        if not self._holds(lane, epoch):
            return False
        moment = to_us(now)
        # One that was skipped while it was on its way has arrived all the same, and is kept as sent.
        self._connection.execute(
            sa.update(outbox)
            .where(outbox.c.id == delivery_id, outbox.c.lane == lane)
            .values(acked_at=moment, attempts=outbox.c.attempts + 1, **awaited.sent(ack, moment=moment))
        )
        self._release(lane, moment)
        self._change_destination(delivery_id, failures=0, open_until=0, last_error="", last_ok_at=moment)
        return True

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
        """Record a failed attempt; see :class:`hub.ports.Outbox`."""
        if not self._holds(lane, epoch):
            return False
        if awaited.overtook(self._connection, delivery_id, error):
            # It is due at once, for its sender to read.
            self._release(lane, to_us(now))
            return True
        values: dict[str, Any] = {"last_error": error}
        if reached:
            # Only attempts that the partner answered count towards giving up (a partner may be away for days).
            values["attempts"] = outbox.c.attempts + 1
        if ack:
            values["ack"] = ack
        if next_at is None:
            values["state"] = "dead"
        else:
            values["next_at"] = to_us(next_at)
        # One that was skipped while it was on its way stays skipped.
        self._connection.execute(
            sa.update(outbox)
            .where(outbox.c.id == delivery_id, outbox.c.lane == lane, outbox.c.state == "pending")
            .values(**values)
        )
        self._release(lane, to_us(now))
        # Failures in a row are those to reach the partner; an answer, even a refusal, ends the row.
        row = outbox_destination.c
        is_open = sa.true() if opens else row.failures > 0
        failures = sa.case((is_open, row.failures + 1), else_=row.failures)
        change: dict[str, Any] = {"failures": 0 if reached else failures, "last_error": error}
        if reached:
            change["open_until"] = 0
        elif (until := rest_until or next_at) is not None:
            change["open_until"] = sa.case((is_open, to_us(until)), else_=row.open_until)
        self._change_destination(delivery_id, **change)
        return True

    def handed_over(self, lane: str, epoch: int, delivery_id: int, *, until: datetime, now: datetime) -> bool:
        """Record that an acknowledgement is awaited; see :class:`hub.ports.Outbox`."""
        if not self._holds(lane, epoch):
            return False
        awaited.begin(self._connection, delivery_id, until=to_us(until), moment=to_us(now))
        self._release(lane, to_us(now))
        self._change_destination(delivery_id, failures=0, open_until=0, last_error="")
        return True

    def answered(self, destination: str, control_id: str, *, ack: bytes, now: datetime, refuses: bool = False) -> bool:
        """Keep an acknowledgement that came by another way; see :class:`hub.ports.Outbox`."""
        moment = to_us(now)
        found = awaited.find(self._connection, destination, control_id, moment=moment)
        if found is None and refuses:
            found = awaited.taken(self._connection, destination, control_id)
        if found is None:
            return False
        one = self._locked(found)
        if one.last_error == ACKNOWLEDGED and one.state != "sent" and is_refusal(one.ack or b""):
            # A refusal that still waits to be judged stands, whatever is said behind it.
            return True
        if one.state == "sent":
            if not is_open_to_refusal(one):
                return False
            # A lane that had nothing more to deliver is gone.
            self._wake(one.lane, one.destination, moment)
        awaited.end(self._connection, found, ack=ack, moment=moment)
        self._release_idle(one.lane, moment)
        return True

    def told(self, destination: str, control_id: str, *, ack: bytes) -> bool:
        """Keep what an application said of a delivery that its partner had; see :class:`hub.ports.Outbox`."""
        found = awaited.taken(self._connection, destination, control_id)
        if found is None:
            return False
        one = self._locked(found)
        if one.state != "sent" or not is_receipt(one.ack or b""):
            return False
        self.annotate(found, ack=both(one.ack or b"", ack))
        return True

    def _change_destination(self, delivery_id: int, **values: Any) -> None:
        name = sa.select(outbox.c.destination).where(outbox.c.id == delivery_id).scalar_subquery()
        self._connection.execute(
            sa.update(outbox_destination).where(outbox_destination.c.destination == name).values(**values)
        )

    def lanes(self) -> Sequence[Mapping[str, Any]]:
        """Return what each open lane holds, longest waiting first."""
        return outbox_views.lanes(self._connection)

    def destinations(self) -> Sequence[Mapping[str, Any]]:
        """Return the state of each destination that ever had a delivery."""
        return outbox_views.destinations(self._connection)

    def deliveries(self, criteria: Mapping[str, str], *, limit: int) -> Sequence[Delivery]:
        """Return deliveries whose columns equal *criteria*, newest first; incorrect for one that cannot be searched."""
        return outbox_views.deliveries(self._connection, criteria, limit=limit)

    def get(self, delivery_id: int) -> Delivery | None:
        """Return one delivery."""
        row = self._connection.execute(sa.select(outbox).where(outbox.c.id == delivery_id)).first()
        return None if row is None else delivery_of(row)

    def set_paused(self, destination: str, paused: bool) -> None:
        """Hold or release everything for *destination*."""
        statement = insert(outbox_destination, on_sqlite=self._tx.sqlite).values(destination=destination, paused=paused)
        self._connection.execute(
            statement.on_conflict_do_update(index_elements=["destination"], set_={"paused": paused, "open_until": 0})
        )

    def replay(self, delivery_id: int, *, now: datetime) -> None:
        """Send a dead letter again in its old place, or a sent or skipped delivery once more at the end of its lane.

        Raises:
            HubError: not-found; conflict while it is still waiting.
        """
        one = self._locked(delivery_id)
        moment = to_us(now)
        if one.state == "dead":
            self._connection.execute(
                sa.update(outbox).where(outbox.c.id == delivery_id).values(state="pending", attempts=0, next_at=moment)
            )
            self._release(one.lane, moment)
        elif one.state == "pending":
            raise HubError(
                Category.CONFLICT,
                "The delivery is still waiting; there is nothing to replay.",
                where=f"delivery {delivery_id}",
                remedy="Resume its destination if it is paused.",
            )
        else:
            self.enqueue(NewDelivery(**{name: getattr(one, name) for name in NewDelivery.__dataclass_fields__}))

    def skip(self, delivery_id: int, *, now: datetime, reason: str) -> None:
        """Give up one delivery for good; the lane goes on with the next.

        A delivery that is on its way at this moment is let through, and the worker's report closes it.

        Raises:
            HubError: not-found; conflict when it is no longer waiting.
        """
        one = self._locked(delivery_id)
        if one.state not in OPEN:
            raise HubError(
                Category.CONFLICT,
                f"The delivery is already {one.state}.",
                where=f"delivery {delivery_id}",
                remedy="Only waiting deliveries and dead letters can be skipped.",
            )
        self._connection.execute(
            sa.update(outbox).where(outbox.c.id == delivery_id).values(state="skipped", last_error=f"skipped: {reason}")
        )
        self._release_idle(one.lane, to_us(now))

    def annotate(self, delivery_id: int, *, ack: bytes) -> None:
        """Replace the stored acknowledgement of a delivery that is sent."""
        self._connection.execute(
            sa.update(outbox)
            .where(outbox.c.id == delivery_id, outbox.c.state == sa.literal_column("'sent'"))
            .values(ack=ack)
        )

    def _release_idle(self, lane: str, moment: int) -> None:
        """Let the lane go on, unless a worker has it: then its report does that."""
        lease = self._connection.execute(
            sa.select(outbox_lane.c.lease_until).where(outbox_lane.c.lane == lane)
        ).scalar()
        if lease is None or lease <= moment:
            self._release(lane, moment)

    def _locked(self, delivery_id: int) -> Delivery:
        """Return the delivery, its lane locked so that nothing is enqueued or sent meanwhile."""
        one = self._existing(delivery_id)
        if not self._tx.sqlite:
            self._connection.execute(
                sa.select(outbox_lane.c.lane).where(outbox_lane.c.lane == one.lane).with_for_update()
            )
            one = self._existing(delivery_id)
        return one

    def _existing(self, delivery_id: int) -> Delivery:
        one = self.get(delivery_id)
        if one is None:
            raise HubError(Category.NOT_FOUND, "There is no such delivery.", where=f"delivery {delivery_id}")
        return one

    def by_correlation(self, correlation_id: str) -> Sequence[Delivery]:
        """Return the deliveries of one correlation id, oldest first."""
        rows = self._connection.execute(
            sa.select(outbox).where(outbox.c.correlation_id == correlation_id).order_by(outbox.c.id)
        )
        return [delivery_of(row) for row in rows]
