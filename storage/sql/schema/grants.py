"""What open Tasks let partners see."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Table

from storage.sql.schema.types import String, metadata

access_grant = Table(
    "access_grant",
    metadata,
    Column("grantee", String, primary_key=True),
    Column("target_type", String, primary_key=True),
    Column("target_id", String, primary_key=True),
    Column("task_id", String, primary_key=True),
    Column("opened_at", BigInteger, nullable=False),
    # The far future while the Task is open, so that one comparison decides.
    Column("until", BigInteger, nullable=False),
    Index("ix_access_grant_task", "task_id"),
    sqlite_with_rowid=False,
)
