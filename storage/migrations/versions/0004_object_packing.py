"""Objects whose frames are kept compressed without loss.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from storage.migrations.revision_0001.types import String

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table and its indexes."""
    op.create_table(
        "object_packing",
        sa.Column("digest", String, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("packed_digest", String, nullable=False),
        sa.Column("packed_size", sa.BigInteger(), nullable=False),
        sa.Column("TransferSyntaxUID", String, nullable=False),
        sa.Column("reason", String, nullable=False),
        sa.Column("settled", sa.Boolean(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_object_packing"),
        sqlite_with_rowid=False,
    )
    packed = sa.column("packed_digest", String) != ""
    unsettled = packed & ~sa.column("settled", sa.Boolean())
    op.create_index(
        "ix_object_packing_packed", "object_packing", ["packed_digest"], sqlite_where=packed, postgresql_where=packed
    )
    op.create_index(
        "ix_object_packing_unsettled", "object_packing", ["at"], sqlite_where=unsettled, postgresql_where=unsettled
    )
