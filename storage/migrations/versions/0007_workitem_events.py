"""Events of workitems that wait for their subscriber's WebSocket.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from storage.migrations.revision_0001.types import Serial, String

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "workitem_event",
        sa.Column("id", Serial, autoincrement=True, nullable=False),
        sa.Column("institution", String, nullable=False),
        sa.Column("ae_title", String, nullable=False),
        sa.Column("owner", String, nullable=False),
        sa.Column("task_id", String, nullable=False),
        sa.Column("patient_id", String, nullable=False),
        sa.Column("item", String, nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("correlation_id", String, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workitem_event"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_workitem_event_channel", "workitem_event", ["institution", "ae_title", "id"])
