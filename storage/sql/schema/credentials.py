"""Clients and bearer tokens (RFC 6749, RFC 6750); of secrets only hashes are kept."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Table, Text

from storage.sql.schema.types import String, metadata

oauth_client = Table(
    "oauth_client",
    metadata,
    Column("client_id", String, primary_key=True),
    Column("secret_hash", String, nullable=False),
    Column("institution", String, nullable=False),
    Column("roles", Text, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

access_token = Table(
    "access_token",
    metadata,
    Column("token_hash", String, primary_key=True),
    Column("institution", String, nullable=False),
    Column("practitioner", String, nullable=True),
    Column("roles", Text, nullable=False),
    Column("client", String, nullable=False),
    Column("patient", String, nullable=True),
    Column("issued_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
    Column("revoked_at", BigInteger, nullable=True),
)
