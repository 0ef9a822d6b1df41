"""What waits to be processed, found by the institution that sent it.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from storage.migrations.revision_0001.types import String

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the index."""
    received = sa.column("state", String) == "received"
    op.create_index(
        "ix_journal_waiting",
        "journal",
        ["institution", "seq"],
        sqlite_where=received,
        postgresql_where=received,
    )
