"""Instances marked deleted, studies on legal hold, series that nothing is shown of.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from storage.migrations.revision_0001.types import String

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the two tables and the column."""
    op.create_table(
        "imaging_deletion",
        sa.Column("owner", String, nullable=False),
        sa.Column("SOPInstanceUID", String, nullable=False),
        sa.Column("StudyInstanceUID", String, nullable=False),
        sa.Column("SeriesInstanceUID", String, nullable=False),
        sa.Column("digest", String, nullable=False),
        sa.Column("reason", String, nullable=False),
        sa.Column("marked_by", String, nullable=False),
        sa.Column("marked_at", sa.BigInteger(), nullable=False),
        sa.Column("purged_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("owner", "SOPInstanceUID", name="pk_imaging_deletion"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_imaging_deletion_study", "imaging_deletion", ["owner", "StudyInstanceUID"])
    op.create_table(
        "imaging_hold",
        sa.Column("owner", String, nullable=False),
        sa.Column("StudyInstanceUID", String, nullable=False),
        sa.Column("reason", String, nullable=False),
        sa.Column("held_by", String, nullable=False),
        sa.Column("held_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "StudyInstanceUID", name="pk_imaging_hold"),
        sqlite_with_rowid=False,
    )
    op.add_column("imaging_series", sa.Column("emptied", sa.Boolean(), nullable=False, server_default=sa.false()))
