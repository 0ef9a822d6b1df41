"""The search index of the resources, as revision 0001 makes it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from storage.migrations.revision_0001.types import String, partial


def create() -> None:
    """Create the tables and their indexes."""
    op.create_table(
        "idx_token",
        sa.Column("param", String, nullable=False),
        sa.Column("code", String, nullable=False),
        sa.Column("system", String, nullable=False),
        sa.Column("rid", sa.BigInteger(), nullable=False),
        sa.Column("text", String, nullable=False),
        sa.PrimaryKeyConstraint("param", "code", "system", "rid", "text", name="pk_idx_token"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_idx_token_rid", "idx_token", ["rid", "param", "code"])
    op.create_table(
        "idx_string",
        sa.Column("param", String, nullable=False),
        sa.Column("value", String, nullable=False),
        sa.Column("kind", String, nullable=False),
        sa.Column("rid", sa.BigInteger(), nullable=False),
        sa.Column("exact", String, nullable=False),
        sa.PrimaryKeyConstraint("param", "value", "kind", "rid", "exact", name="pk_idx_string"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_idx_string_rid", "idx_string", ["rid", "param", "value"])
    op.create_table(
        "idx_reference",
        sa.Column("param", String, nullable=False),
        sa.Column("target_id", String, nullable=False),
        sa.Column("target_type", String, nullable=False),
        sa.Column("rid", sa.BigInteger(), nullable=False),
        sa.Column("url", String, nullable=False),
        sa.Column("identifier_value", String, nullable=False),
        sa.Column("identifier_system", String, nullable=False),
        sa.PrimaryKeyConstraint(
            "param",
            "target_id",
            "target_type",
            "rid",
            "url",
            "identifier_value",
            "identifier_system",
            name="pk_idx_reference",
        ),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_idx_reference_identifier",
        "idx_reference",
        ["param", "identifier_value"],
        **partial("identifier_value != ''"),
    )
    op.create_index("ix_idx_reference_rid", "idx_reference", ["rid", "param", "target_id"])
    op.create_index("ix_idx_reference_url", "idx_reference", ["param", "url"], **partial("url != ''"))
    op.create_table(
        "idx_date",
        sa.Column("param", String, nullable=False),
        sa.Column("low", sa.BigInteger(), nullable=False),
        sa.Column("high", sa.BigInteger(), nullable=False),
        sa.Column("rid", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("param", "low", "high", "rid", name="pk_idx_date"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_idx_date_high", "idx_date", ["param", "high", "low"])
    op.create_index("ix_idx_date_rid", "idx_date", ["rid", "param", "low"])
    op.create_table(
        "idx_quantity",
        sa.Column("param", String, nullable=False),
        sa.Column("low", sa.Float(), nullable=False),
        sa.Column("high", sa.Float(), nullable=False),
        sa.Column("rid", sa.BigInteger(), nullable=False),
        sa.Column("system", String, nullable=False),
        sa.Column("code", String, nullable=False),
        sa.Column("unit", String, nullable=False),
        sa.PrimaryKeyConstraint("param", "low", "high", "rid", "system", "code", "unit", name="pk_idx_quantity"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_idx_quantity_rid", "idx_quantity", ["rid", "param", "low"])
    op.create_table(
        "idx_uri",
        sa.Column("param", String, nullable=False),
        sa.Column("value", String, nullable=False),
        sa.Column("rid", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("param", "value", "rid", name="pk_idx_uri"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_idx_uri_rid", "idx_uri", ["rid", "param", "value"])
