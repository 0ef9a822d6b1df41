"""Events of workitems that wait for their subscriber's WebSocket."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, LargeBinary, Table

from storage.sql.schema.types import Serial, String, metadata

workitem_event = Table(
    "workitem_event",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("institution", String, nullable=False),
    Column("ae_title", String, nullable=False),
    Column("owner", String, nullable=False),
    Column("task_id", String, nullable=False),
    Column("patient_id", String, nullable=False),
    Column("item", String, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("correlation_id", String, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("ix_workitem_event_channel", "institution", "ae_title", "id"),
    # A number that was given is not given again, so that what was sent is never taken for something newer.
    sqlite_autoincrement=True,
)
