"""The audit chain, as revision 0001 makes it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from storage.migrations.revision_0001.types import String


def create() -> None:
    """Create the tables and their indexes."""
    op.create_table(
        "audit",
        sa.Column("shard", String, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("id", String, nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.Column("institution", String, nullable=False),
        sa.Column("who", String, nullable=False),
        sa.Column("type", String, nullable=False),
        sa.Column("subtype", String, nullable=False),
        sa.Column("action", String, nullable=False),
        sa.Column("outcome", String, nullable=False),
        sa.Column("correlation_id", String, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("shard", "seq", name="pk_audit"),
        sa.UniqueConstraint("id", name="uq_audit_id"),
    )
    op.create_index("ix_audit_institution", "audit", ["institution", "recorded_at"])
    op.create_index("ix_audit_recorded", "audit", ["recorded_at"])
    op.create_table(
        "audit_patient",
        sa.Column("shard", String, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("owner", String, nullable=False),
        sa.Column("patient_id", String, nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("shard", "seq", "owner", "patient_id", name="pk_audit_patient"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_audit_patient_owner", "audit_patient", ["owner", "recorded_at"])
    op.create_index("ix_audit_patient_patient", "audit_patient", ["patient_id", "recorded_at"])
    op.create_table(
        "audit_checkpoint",
        sa.Column("shard", String, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("signed_at", sa.BigInteger(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("shard", "seq", name="pk_audit_checkpoint"),
    )
