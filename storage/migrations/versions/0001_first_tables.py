"""First tables.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

from storage.migrations.revision_0001 import audit, delivery, directory, imaging, journal, records, search_index

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create every table of the first version."""
    for tables in (directory, journal, records, search_index, imaging, delivery, audit):
        tables.create()
