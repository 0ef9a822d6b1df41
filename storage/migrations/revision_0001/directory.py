"""Members, the hub's own facts, credentials and grants, as revision 0001 makes them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from storage.migrations.revision_0001.types import String


def create() -> None:
    """Create the tables and their indexes."""
    op.create_table(
        "member",
        sa.Column("code", String, nullable=False),
        sa.Column("organization_id", String, nullable=False),
        sa.Column("name", String, nullable=False),
        sa.Column("kind", String, nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("entitlements", sa.Text(), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("code", name="pk_member"),
    )
    op.create_table(
        "member_endpoint",
        sa.Column("id", String, nullable=False),
        sa.Column("member", String, nullable=False),
        sa.Column("kind", String, nullable=False),
        sa.Column("address", String, nullable=False),
        sa.Column("ae_title", String, nullable=False),
        sa.Column("sending_application", String, nullable=False),
        sa.Column("sending_facility", String, nullable=False),
        sa.Column("cidr", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_member_endpoint"),
    )
    op.create_index("ix_member_endpoint_member", "member_endpoint", ["member"])
    op.create_table(
        "member_practitioner",
        sa.Column("member", String, nullable=False),
        sa.Column("code", String, nullable=False),
        sa.Column("practitioner_id", String, nullable=False),
        sa.Column("role_id", String, nullable=False),
        sa.Column("name", String, nullable=False),
        sa.Column("roles", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("member", "code", name="pk_member_practitioner"),
    )
    op.create_table(
        "setting",
        sa.Column("key", String, nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_setting"),
    )
    op.create_table(
        "oauth_client",
        sa.Column("client_id", String, nullable=False),
        sa.Column("secret_hash", String, nullable=False),
        sa.Column("institution", String, nullable=False),
        sa.Column("roles", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("client_id", name="pk_oauth_client"),
    )
    op.create_table(
        "access_token",
        sa.Column("token_hash", String, nullable=False),
        sa.Column("institution", String, nullable=False),
        sa.Column("practitioner", String, nullable=True),
        sa.Column("roles", sa.Text(), nullable=False),
        sa.Column("client", String, nullable=False),
        sa.Column("patient", String, nullable=True),
        sa.Column("issued_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("token_hash", name="pk_access_token"),
    )
    op.create_index("ix_access_token_expires_at", "access_token", ["expires_at"])
    op.create_table(
        "access_grant",
        sa.Column("grantee", String, nullable=False),
        sa.Column("target_type", String, nullable=False),
        sa.Column("target_id", String, nullable=False),
        sa.Column("task_id", String, nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("grantee", "target_type", "target_id", "task_id", name="pk_access_grant"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_access_grant_task", "access_grant", ["task_id"])
