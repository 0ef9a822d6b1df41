"""Codes of members that no map knows: numbers and codes, and nothing of any patient."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Table

from storage.sql.schema.types import String, metadata

unmapped_code = Table(
    "unmapped_code",
    metadata,
    Column("institution", String, primary_key=True),
    Column("system", String, primary_key=True),
    Column("code", String, primary_key=True),
    Column("first_seen", BigInteger, nullable=False),
    Column("last_seen", BigInteger, nullable=False),
    Column("messages", BigInteger, nullable=False),
    Column("first_seq", BigInteger, nullable=False),
    Column("sample_seq", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
