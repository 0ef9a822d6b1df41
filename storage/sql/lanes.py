"""Which lanes of the outbox may be leased now.

A destination has slots (:func:`hub.delivery.slot_of`), and each takes its turn for itself, so that what waits long for an
answer in one does not keep another from its share of leases. A slot is a range of lane names, which the primary key of
``outbox_lane`` finds; there is no column to keep right. A destination that could not be reached is tried with one lane of
a slot at a time, until it answers (a circuit breaker that is half open).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from hub.delivery import MAIN, SLOTS, lane_name
from storage.sql.schema import outbox_destination, outbox_lane

#: At most this many lanes of one slot are leased at once, so that a slow partner cannot hold every worker.
LANES_PER_SLOT = 8


def due(
    connection: sa.Connection, moment: int, limit: int, *, busy: Collection[tuple[str, str]], lock: bool
) -> list[list[Any]]:
    """Return, for each slot with a lane that is due, its first lanes, the longest waiting first.

    Args:
        busy: slots, as (destination, slot), that are left alone.
        lock: keep the rows from other transactions, and pass over those that another one keeps.
    """
    return [
        _of_slot(connection, destination, slot, moment, limit, most=1 if failures else LANES_PER_SLOT, lock=lock)
        for destination, failures in _destinations(connection, moment)
        for slot in (MAIN, *_others(connection, destination, moment))
        if (destination, slot) not in busy
    ]


def _destinations(connection: sa.Connection, moment: int) -> list[tuple[str, int]]:
    """Return destinations with a lane that is due and their failures in a row, the longest waiting first."""
    first = (
        sa.select(sa.func.min(outbox_lane.c.next_at))
        .where(
            outbox_lane.c.destination == outbox_destination.c.destination,
            outbox_lane.c.state == "ready",
            outbox_lane.c.next_at <= moment,
        )
        .correlate(outbox_destination)
        .scalar_subquery()
    )
    found = (
        sa.select(outbox_destination.c.destination, outbox_destination.c.failures, first.label("first"))
        .where(outbox_destination.c.paused == sa.false(), outbox_destination.c.open_until <= moment)
        .subquery()
    )
    statement = (
        sa.select(found.c.destination, found.c.failures).where(found.c.first.is_not(None)).order_by(found.c.first)
    )
    return [(row.destination, row.failures) for row in connection.execute(statement)]


def _others(connection: sa.Connection, destination: str, moment: int) -> list[str]:
    """Return the slots of *destination* beside the main one that have a lane that is due."""
    found = [
        sa.exists(
            sa.select(1).where(
                *_range(destination, slot), outbox_lane.c.state == "ready", outbox_lane.c.next_at <= moment
            )
        ).label(slot)
        for slot in SLOTS
    ]
    row = connection.execute(sa.select(*found)).one()
    return [slot for slot, there in zip(SLOTS, row, strict=True) if there]


def _of_slot(
    connection: sa.Connection, destination: str, slot: str, moment: int, limit: int, *, most: int, lock: bool
) -> list[Any]:
    of_it = [outbox_lane.c.destination == destination, *_inside(destination, slot)]
    leased = connection.execute(
        sa.select(sa.func.count()).select_from(outbox_lane).where(*of_it, outbox_lane.c.lease_until > moment)
    ).scalar_one()
    room = min(limit, most - leased)
    if room <= 0:
        return []
    statement = (
        sa.select(outbox_lane.c.lane, outbox_lane.c.epoch)
        .where(
            *of_it,
            outbox_lane.c.state == "ready",
            outbox_lane.c.next_at <= moment,
            outbox_lane.c.lease_until <= moment,
        )
        .order_by(outbox_lane.c.next_at, outbox_lane.c.lane)
        .limit(room)
    )
    if lock:
        statement = statement.with_for_update(skip_locked=True)
    return list(connection.execute(statement))


def _inside(destination: str, slot: str) -> list[sa.ColumnElement[bool]]:
    if slot != MAIN:
        return _range(destination, slot)
    return [sa.not_(sa.and_(*_range(destination, other))) for other in SLOTS]


def _range(destination: str, slot: str) -> list[sa.ColumnElement[bool]]:
    start = lane_name(destination, "", slot=slot)
    # Names are compared by code point, and the character after the bar ends the range.
    return [outbox_lane.c.lane >= start, outbox_lane.c.lane < start[:-1] + chr(ord(start[-1]) + 1)]
