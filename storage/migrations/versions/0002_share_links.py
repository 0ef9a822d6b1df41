"""Links by which patients see studies.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from storage.migrations.revision_0001.types import String

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables of links, what they show, their tokens and the counters of wrong passwords."""
    op.create_table(
        "share_link",
        sa.Column("id", String, nullable=False),
        sa.Column("institution", String, nullable=False),
        sa.Column("StudyInstanceUID", String, nullable=False),
        sa.Column("secret_hash", String, nullable=False),
        sa.Column("password_hash", String, nullable=False),
        sa.Column("created_by", String, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.Column("revoked_by", String, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_share_link"),
    )
    op.create_index("uq_share_link_secret_hash", "share_link", ["secret_hash"], unique=True)
    op.create_index("ix_share_link_study", "share_link", ["StudyInstanceUID", "institution"])
    op.create_table(
        "share_study",
        sa.Column("share", String, nullable=False),
        sa.Column("StudyInstanceUID", String, nullable=False),
        sa.Column("patient_id", String, nullable=False),
        sa.PrimaryKeyConstraint("share", "StudyInstanceUID", name="pk_share_study"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "share_token",
        sa.Column("token_hash", String, nullable=False),
        sa.Column("share", String, nullable=False),
        sa.Column("issued_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("token_hash", name="pk_share_token"),
    )
    op.create_index("ix_share_token_expires_at", "share_token", ["expires_at"])
    op.create_table(
        "share_attempt",
        sa.Column("key", String, nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("ever", sa.Integer(), nullable=False),
        sa.Column("locked_until", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_share_attempt"),
    )
    op.create_index("ix_share_attempt_last_at", "share_attempt", ["last_at"])
