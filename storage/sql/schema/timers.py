"""Deadlines, leases and alerts."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, Table, Text

from storage.sql.schema.types import String, metadata

timer = Table(
    "timer",
    metadata,
    Column("kind", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("due_at", BigInteger, nullable=False, index=True),
    Column("payload", Text, nullable=False, default="{}"),
)

#: Work that one node at a time may do; the epoch grows with each holder, so that a late one is known as such.
lease = Table(
    "lease",
    metadata,
    Column("name", String, primary_key=True),
    Column("holder", String, nullable=False),
    Column("until", BigInteger, nullable=False),
    Column("epoch", Integer, nullable=False),
)

alert = Table(
    "alert",
    metadata,
    Column("key", String, primary_key=True),
    Column("opened_at", BigInteger, nullable=False),
    Column("detail", Text, nullable=False, default=""),
)
