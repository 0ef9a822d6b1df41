"""The outbox as people look at it: lanes, destinations, and deliveries by what is known of them.

What is open (pending or dead) is found by partial indexes, whose condition must stand in the statements word for word,
else SQLite does not use them. What is sent is found by the values that people ask for, newest first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fhir_mappings.json import loads
from hub.clock import from_us
from hub.errors import Category, HubError
from hub.ports import Delivery
from storage.sql.criteria import beside, equal, has_key, named
from storage.sql.schema import outbox, outbox_destination, outbox_lane

#: States of what is not done with.
OPEN = ("pending", "dead")
#: The condition of the partial indexes, word for word.
IS_OPEN = outbox.c.state.in_([sa.literal_column(f"'{state}'") for state in OPEN])
#: Columns whose value few deliveries share; a state other than sent is one too.
_KEYS = frozenset({"lane", "control_id", "correlation_id", "task_id", "patient_id"})
#: Columns whose value many deliveries share, each with an index of its own.
_SHARED = frozenset({"destination", "kind", "owner"})
_PARTIAL = {name: named(outbox.c[name]) for name in ("control_id", "task_id", "patient_id")}
_UNSENT = {"state": outbox.c.state != sa.literal_column("'sent'")}
#: Columns by which deliveries are found.
SEARCHABLE = frozenset(
    {"lane", "destination", "kind", "state", "control_id", "correlation_id", "task_id", "patient_id", "owner"}
)


def delivery_of(row: Any) -> Delivery:
    """Return what a row of ``outbox`` says."""
    return Delivery(
        id=row.id,
        lane=row.lane,
        destination=row.destination,
        kind=row.kind,
        owner=row.owner,
        control_id=row.control_id,
        content_type=row.content_type,
        headers=loads(row.headers),
        payload=bytes(row.payload),
        state=row.state,
        attempts=row.attempts,
        next_at=from_us(row.next_at),
        created_at=from_us(row.created_at),
        last_error=row.last_error,
        ack=None if row.ack is None else bytes(row.ack),
        acked_at=None if row.acked_at is None else from_us(row.acked_at),
        correlation_id=row.correlation_id,
        task_id=row.task_id,
        patient_id=row.patient_id,
        on_ack=row.on_ack,
    )


def lanes(connection: Connection) -> Sequence[Mapping[str, Any]]:
    """Return what each open lane holds, longest waiting first."""
    heads = (
        sa.select(
            outbox.c.lane,
            sa.func.count().label("depth"),
            sa.func.min(outbox.c.created_at).label("oldest_at"),
            sa.func.min(outbox.c.id).label("head"),
        )
        .where(IS_OPEN)
        .group_by(outbox.c.lane)
        .subquery()
    )
    statement = (
        sa.select(
            outbox_lane,
            heads.c.depth,
            heads.c.oldest_at,
            outbox.c.attempts,
            outbox.c.last_error,
            outbox.c.id.label("head"),
            outbox_destination.c.paused,
        )
        .join(heads, heads.c.lane == outbox_lane.c.lane)
        .join(outbox, outbox.c.id == heads.c.head)
        .join(outbox_destination, outbox_destination.c.destination == outbox_lane.c.destination)
        .order_by(heads.c.oldest_at)
    )
    return [
        {
            "lane": row.lane,
            "destination": row.destination,
            "state": "paused" if row.paused else row.state,
            "depth": row.depth,
            "oldest_at": from_us(row.oldest_at),
            "attempts": row.attempts,
            "next_at": from_us(row.next_at),
            "last_error": row.last_error,
            "paused": bool(row.paused),
            "head": row.head,
        }
        for row in connection.execute(statement)
    ]


def destinations(connection: Connection) -> Sequence[Mapping[str, Any]]:
    """Return the state of each destination that ever had a delivery."""
    counts = (
        sa.select(
            outbox_lane.c.destination,
            sa.func.count().label("depth"),
            sa.func.sum(sa.case((outbox.c.state == "dead", 1), else_=0)).label("dead"),
            sa.func.min(outbox.c.created_at).label("oldest_at"),
        )
        # Whatever is open has its lane's row, which names the destination that the index of what is open does not.
        .join(outbox, outbox.c.lane == outbox_lane.c.lane)
        .where(IS_OPEN)
        .group_by(outbox_lane.c.destination)
        .subquery()
    )
    statement = (
        sa.select(outbox_destination, counts.c.depth, counts.c.dead, counts.c.oldest_at)
        .outerjoin(counts, counts.c.destination == outbox_destination.c.destination)
        .order_by(outbox_destination.c.destination)
    )
    return [
        {
            "destination": row.destination,
            "depth": int(row.depth or 0),
            "dead": int(row.dead or 0),
            "oldest_at": None if row.oldest_at is None else from_us(row.oldest_at),
            "paused": bool(row.paused),
            "failures": row.failures,
            "open_until": from_us(row.open_until) if row.open_until else None,
            "last_error": row.last_error,
            "last_ok_at": None if row.last_ok_at is None else from_us(row.last_ok_at),
        }
        for row in connection.execute(statement)
    ]


def deliveries(connection: Connection, criteria: Mapping[str, str], *, limit: int) -> Sequence[Delivery]:
    """Return deliveries whose columns equal *criteria*, newest first.

    Raises:
        HubError: incorrect for a column that cannot be searched.
    """
    for name in criteria:
        if name not in SEARCHABLE:
            raise HubError(
                Category.INCORRECT,
                f"Deliveries cannot be searched by {name}.",
                where=name,
                remedy=f"Use {', '.join(sorted(SEARCHABLE))}.",
            )
    unsent = criteria.get("state", "sent") != "sent"
    keys = _KEYS | {"state"} if unsent else _KEYS
    partial = _PARTIAL | _UNSENT if unsent else _PARTIAL
    led, more = has_key(criteria, keys), list[sa.ColumnElement[bool]]()
    if not led:
        criteria, more = beside(connection, outbox, "id", criteria, _SHARED)
    conditions = [*equal(outbox, criteria, keys=keys, led=led, partial=partial), *more]
    statement = sa.select(outbox).where(*conditions)
    return [delivery_of(row) for row in connection.execute(statement.order_by(outbox.c.id.desc()).limit(limit))]
