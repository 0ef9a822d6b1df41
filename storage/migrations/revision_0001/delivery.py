"""Outbox lanes, timers, leases and alerts, as revision 0001 makes them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from storage.migrations.revision_0001.types import Serial, String, partial


def create() -> None:
    """Create the tables and their indexes."""
    op.create_table(
        "outbox",
        sa.Column("id", Serial, nullable=False),
        sa.Column("lane", String, nullable=False),
        sa.Column("destination", String, nullable=False),
        sa.Column("kind", String, nullable=False),
        sa.Column("owner", String, nullable=False),
        sa.Column("control_id", String, nullable=False),
        sa.Column("content_type", String, nullable=False),
        sa.Column("headers", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("state", String, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=False),
        sa.Column("ack", sa.LargeBinary(), nullable=True),
        sa.Column("acked_at", sa.BigInteger(), nullable=True),
        sa.Column("correlation_id", String, nullable=False),
        sa.Column("task_id", String, nullable=False),
        sa.Column("patient_id", String, nullable=False),
        sa.Column("on_ack", String, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
    )
    op.create_index("ix_outbox_correlation_id", "outbox", ["correlation_id"])
    op.create_index("ix_outbox_destination", "outbox", ["destination", "id"])
    op.create_index("ix_outbox_kind", "outbox", ["kind", "id"])
    op.create_index("ix_outbox_lane", "outbox", ["lane", "id"])
    op.create_index("ix_outbox_owner", "outbox", ["owner", "id"])
    op.create_index(
        "ix_outbox_open", "outbox", ["lane", "id", "state", "created_at"], **partial("state IN ('pending', 'dead')")
    )
    op.create_index("ix_outbox_unsent", "outbox", ["state", "id"], **partial("state != 'sent'"))
    for name in ("control_id", "patient_id", "task_id"):
        op.create_index(f"ix_outbox_{name}", "outbox", [name], **partial(f"{name} != ''"))
    op.create_table(
        "outbox_lane",
        sa.Column("lane", String, nullable=False),
        sa.Column("destination", String, nullable=False),
        sa.Column("state", String, nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=False),
        sa.Column("lease_owner", String, nullable=False),
        sa.Column("lease_until", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("lane", name="pk_outbox_lane"),
    )
    op.create_index("ix_outbox_lane_due", "outbox_lane", ["destination", "state", "next_at"])
    op.create_index("ix_outbox_lane_leased", "outbox_lane", ["destination", "lease_until"])
    op.create_table(
        "outbox_destination",
        sa.Column("destination", String, nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("open_until", sa.BigInteger(), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=False),
        sa.Column("last_ok_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("destination", name="pk_outbox_destination"),
    )
    op.create_table(
        "timer",
        sa.Column("kind", String, nullable=False),
        sa.Column("key", String, nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "key", name="pk_timer"),
    )
    op.create_index("ix_timer_due_at", "timer", ["due_at"])
    op.create_table(
        "lease",
        sa.Column("name", String, nullable=False),
        sa.Column("holder", String, nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_lease"),
    )
    op.create_table(
        "alert",
        sa.Column("key", String, nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_alert"),
    )
