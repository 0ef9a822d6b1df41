"""FHIR resources and their history, as revision 0001 makes them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from storage.migrations.revision_0001.types import Serial, String, partial


def create() -> None:
    """Create the tables and their indexes."""
    op.create_table(
        "record",
        sa.Column("rid", Serial, nullable=False),
        sa.Column("type", String, nullable=False),
        sa.Column("id", String, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("owner", String, nullable=False),
        sa.Column("visibility", String, nullable=False),
        sa.Column("patient_id", String, nullable=False),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.Column("method", String, nullable=False),
        sa.Column("last_updated", sa.BigInteger(), nullable=False),
        sa.Column("asserted_at", sa.BigInteger(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("rid", name="pk_record"),
        sa.UniqueConstraint("type", "id", name="uq_record_type_id"),
    )
    op.create_index("ix_record_directory", "record", ["type", "rid"], **partial("visibility = 'consortium'"))
    op.create_index("ix_record_owner", "record", ["owner", "type", "rid"])
    op.create_index("ix_record_patient", "record", ["patient_id", "type", "rid"], **partial("patient_id != ''"))
    op.create_index("ix_record_updated", "record", ["type", "last_updated", "rid"])
    op.create_table(
        "record_history",
        sa.Column("type", String, nullable=False),
        sa.Column("id", String, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("owner", String, nullable=False),
        sa.Column("visibility", String, nullable=False),
        sa.Column("patient_id", String, nullable=False),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.Column("method", String, nullable=False),
        sa.Column("last_updated", sa.BigInteger(), nullable=False),
        sa.Column("asserted_at", sa.BigInteger(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("type", "id", "version", name="pk_record_history"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_record_history_updated", "record_history", ["type", "last_updated"])
    op.create_table(
        "condition_lock",
        sa.Column("key", String, nullable=False),
        sa.Column("touched", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_condition_lock"),
    )
