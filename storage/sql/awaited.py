"""Deliveries whose acknowledgement comes by another way than the connection (:mod:`hub.acknowledged`).

Where one stands its last error says, so that lists show it; there is no column to keep right.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from hub.acknowledged import ACKNOWLEDGED, AWAITING, UNACKNOWLEDGED
from storage.sql.schema import outbox, outbox_lane

_OPEN = ("pending", "dead")


def begin(connection: sa.Connection, delivery_id: int, *, until: int, moment: int) -> None:
    """Let the delivery wait *until* then; or not at all, because a partner may be quicker than this commit."""
    came = outbox.c.last_error == ACKNOWLEDGED
    connection.execute(
        sa.update(outbox)
        .where(outbox.c.id == delivery_id, outbox.c.state == "pending")
        .values(last_error=sa.case((came, ACKNOWLEDGED), else_=AWAITING), next_at=sa.case((came, moment), else_=until))
    )


def overtook(connection: sa.Connection, delivery_id: int, error: str) -> bool:
    """Return whether the acknowledgement came while a worker was about to say by *error* that none did."""
    if error != UNACKNOWLEDGED:
        return False
    came = sa.select(outbox.c.id).where(outbox.c.id == delivery_id, outbox.c.last_error == ACKNOWLEDGED)
    return connection.execute(came).first() is not None


def find(connection: sa.Connection, destination: str, control_id: str, *, moment: int) -> int | None:
    """Return the oldest delivery of that number that *destination* has and did not acknowledge yet."""
    on_its_way = sa.exists().where(outbox_lane.c.lane == outbox.c.lane, outbox_lane.c.lease_until > moment)
    statement = sa.select(outbox.c.id).where(
        outbox.c.control_id == control_id,
        outbox.c.destination == destination,
        outbox.c.state.in_(_OPEN),
        # One that was not dropped yet is not answered, though an earlier one of its number may have been.
        sa.or_(outbox.c.last_error.in_((AWAITING, UNACKNOWLEDGED)), on_its_way),
    )
    found: int | None = connection.execute(statement.order_by(outbox.c.id).limit(1)).scalar()
    return found


def taken(connection: sa.Connection, destination: str, control_id: str) -> int | None:
    """Return the newest delivery of that number that *destination* has taken."""
    statement = sa.select(outbox.c.id).where(
        outbox.c.control_id == control_id,
        # As a literal, so that the index of those that have a number serves.
        outbox.c.control_id != sa.literal_column("''"),
        outbox.c.destination == destination,
        outbox.c.state == sa.literal_column("'sent'"),
    )
    found: int | None = connection.execute(statement.order_by(outbox.c.id.desc()).limit(1)).scalar()
    return found


def sent(ack: bytes, *, moment: int) -> dict[str, Any]:
    """Return what a delivery becomes that its partner took, saying *ack*.

    A partner's refusal may be quicker than this commit; then the delivery is due, for its sender to read that.
    """
    came = sa.and_(outbox.c.last_error == ACKNOWLEDGED, outbox.c.ack != ack)
    return {
        "state": sa.case((came, "pending"), else_="sent"),
        "ack": sa.case((came, outbox.c.ack), else_=ack),
        "last_error": sa.case((came, ACKNOWLEDGED), else_=""),
        "next_at": sa.case((came, moment), else_=outbox.c.next_at),
    }


def end(connection: sa.Connection, delivery_id: int, *, ack: bytes, moment: int) -> None:
    """Keep *ack* and make the delivery due, for its sender to read; one that was given up meanwhile or was taken too."""
    connection.execute(
        sa.update(outbox)
        .where(outbox.c.id == delivery_id, outbox.c.state != "skipped")
        .values(state="pending", ack=ack, last_error=ACKNOWLEDGED, next_at=moment)
    )
