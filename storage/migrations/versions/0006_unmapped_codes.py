"""Codes of members that wait for a map.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from storage.migrations.revision_0001.types import String

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "unmapped_code",
        sa.Column("institution", String, nullable=False),
        sa.Column("system", String, nullable=False),
        sa.Column("code", String, nullable=False),
        sa.Column("first_seen", sa.BigInteger(), nullable=False),
        sa.Column("last_seen", sa.BigInteger(), nullable=False),
        sa.Column("messages", sa.BigInteger(), nullable=False),
        sa.Column("first_seq", sa.BigInteger(), nullable=False),
        sa.Column("sample_seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("institution", "system", "code", name="pk_unmapped_code"),
        sqlite_with_rowid=False,
    )
