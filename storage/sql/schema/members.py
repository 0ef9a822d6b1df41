"""The member directory as the doors ask it, distilled from its FHIR resources, and small facts of the hub."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Table, Text

from storage.sql.schema.types import String, metadata

member = Table(
    "member",
    metadata,
    Column("code", String, primary_key=True),
    Column("organization_id", String, nullable=False),
    Column("name", String, nullable=False),
    Column("kind", String, nullable=False, default=""),
    Column("active", Boolean, nullable=False),
    Column("entitlements", Text, nullable=False, default="[]"),
    Column("settings", Text, nullable=False, default="{}"),
)

member_endpoint = Table(
    "member_endpoint",
    metadata,
    Column("id", String, primary_key=True),
    Column("member", String, nullable=False, index=True),
    Column("kind", String, nullable=False),
    Column("address", String, nullable=False, default=""),
    Column("ae_title", String, nullable=False, default=""),
    Column("sending_application", String, nullable=False, default=""),
    Column("sending_facility", String, nullable=False, default=""),
    Column("cidr", Text, nullable=False, default="[]"),
    Column("active", Boolean, nullable=False),
    Column("settings", Text, nullable=False, default="{}"),
)

member_practitioner = Table(
    "member_practitioner",
    metadata,
    Column("member", String, primary_key=True),
    Column("code", String, primary_key=True),
    Column("practitioner_id", String, nullable=False),
    Column("role_id", String, nullable=False),
    Column("name", String, nullable=False),
    Column("roles", Text, nullable=False, default="[]"),
    Column("active", Boolean, nullable=False),
)

#: Small facts of the hub itself, for example the version of the member directory.
setting = Table(
    "setting",
    metadata,
    Column("key", String, primary_key=True),
    Column("value", Text, nullable=False),
)
