"""Deliveries to partners, in lanes."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, Table, Text

from storage.sql.schema.types import Serial, String, metadata

outbox = Table(
    "outbox",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("lane", String, nullable=False),
    Column("destination", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("owner", String, nullable=False),
    Column("control_id", String, nullable=False, default=""),
    Column("content_type", String, nullable=False, default=""),
    Column("headers", Text, nullable=False, default="{}"),
    Column("payload", LargeBinary, nullable=False),
    # pending, sent, dead or skipped
    Column("state", String, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_at", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("last_error", Text, nullable=False, default=""),
    Column("ack", LargeBinary, nullable=True),
    Column("acked_at", BigInteger, nullable=True),
    Column("correlation_id", String, nullable=False, default="", index=True),
    Column("task_id", String, nullable=False, default=""),
    Column("patient_id", String, nullable=False, default=""),
    Column("on_ack", String, nullable=False, default=""),
    # Each gives the newest deliveries of one value first.
    Index("ix_outbox_destination", "destination", "id"),
    Index("ix_outbox_kind", "kind", "id"),
    Index("ix_outbox_lane", "lane", "id"),
    Index("ix_outbox_owner", "owner", "id"),
)

# Holds all that the state of the queues needs, so that what waits is counted without a look at its payload.
Index(
    "ix_outbox_open",
    outbox.c.lane,
    outbox.c.id,
    outbox.c.state,
    outbox.c.created_at,
    sqlite_where=outbox.c.state.in_(("pending", "dead")),
    postgresql_where=outbox.c.state.in_(("pending", "dead")),
)

Index(
    "ix_outbox_unsent",
    outbox.c.state,
    outbox.c.id,
    sqlite_where=outbox.c.state != "sent",
    postgresql_where=outbox.c.state != "sent",
)

for _name in ("control_id", "patient_id", "task_id"):
    Index(
        f"ix_outbox_{_name}",
        outbox.c[_name],
        sqlite_where=outbox.c[_name] != "",
        postgresql_where=outbox.c[_name] != "",
    )

#: A lane exists while it has something to deliver; the lease keeps two workers from sending one lane.
outbox_lane = Table(
    "outbox_lane",
    metadata,
    Column("lane", String, primary_key=True),
    Column("destination", String, nullable=False),
    # ready or parked (its head is a dead letter)
    Column("state", String, nullable=False),
    Column("next_at", BigInteger, nullable=False),
    Column("lease_owner", String, nullable=False, default=""),
    Column("lease_until", BigInteger, nullable=False, default=0),
    Column("epoch", Integer, nullable=False, default=0),
    Index("ix_outbox_lane_due", "destination", "state", "next_at"),
    Index("ix_outbox_lane_leased", "destination", "lease_until"),
)

outbox_destination = Table(
    "outbox_destination",
    metadata,
    Column("destination", String, primary_key=True),
    Column("paused", Boolean, nullable=False, default=False),
    Column("failures", Integer, nullable=False, default=0),
    Column("open_until", BigInteger, nullable=False, default=0),
    Column("last_error", Text, nullable=False, default=""),
    Column("last_ok_at", BigInteger, nullable=True),
)
