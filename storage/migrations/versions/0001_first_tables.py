"""First tables.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

from alembic import op

from storage.sql.schema import metadata

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create every table of the first version."""
    metadata.create_all(bind=op.get_bind())
