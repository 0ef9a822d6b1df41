"""Links by which patients see studies; of secrets, passwords and tokens only hashes are kept."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, Table, Text

from storage.sql.schema.types import String, metadata

share_link = Table(
    "share_link",
    metadata,
    Column("id", String, primary_key=True),
    Column("institution", String, nullable=False),
    Column("StudyInstanceUID", String, nullable=False),
    Column("secret_hash", String, nullable=False),
    Column("password_hash", String, nullable=False),
    Column("created_by", String, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("revoked_at", BigInteger, nullable=True),
    Column("revoked_by", String, nullable=False),
    Index("uq_share_link_secret_hash", "secret_hash", unique=True),
    Index("ix_share_link_study", "StudyInstanceUID", "institution"),
)

share_study = Table(
    "share_study",
    metadata,
    Column("share", String, primary_key=True),
    Column("StudyInstanceUID", String, primary_key=True),
    # Whose the study was when it was shared.
    Column("patient_id", String, nullable=False),
    sqlite_with_rowid=False,
)

share_token = Table(
    "share_token",
    metadata,
    Column("token_hash", String, primary_key=True),
    Column("share", String, nullable=False),
    Column("issued_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
)

#: Wrong passwords, by link (known or not, so that a stranger learns nothing from the answers) and by address.
share_attempt = Table(
    "share_attempt",
    metadata,
    Column("key", String, primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("ever", Integer, nullable=False),
    Column("locked_until", BigInteger, nullable=False),
    Column("last_at", BigInteger, nullable=False, index=True),
)
