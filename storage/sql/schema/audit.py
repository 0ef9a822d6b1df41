"""The audit trail: chains of hashed lines, and their signed ends."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, LargeBinary, Table

from storage.sql.schema.types import String, metadata

audit = Table(
    "audit",
    metadata,
    Column("shard", String, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("recorded_at", BigInteger, nullable=False),
    Column("institution", String, nullable=False),
    Column("who", String, nullable=False, default=""),
    Column("type", String, nullable=False),
    Column("subtype", String, nullable=False),
    Column("action", String, nullable=False),
    Column("outcome", String, nullable=False),
    Column("correlation_id", String, nullable=False, default=""),
    Column("body", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Index("ix_audit_institution", "institution", "recorded_at"),
    Index("ix_audit_recorded", "recorded_at"),
)

#: Whose data an audit line is about, so that each institution can list who looked at its patients.
audit_patient = Table(
    "audit_patient",
    metadata,
    Column("shard", String, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("owner", String, primary_key=True),
    Column("patient_id", String, primary_key=True),
    Column("recorded_at", BigInteger, nullable=False),
    Index("ix_audit_patient_owner", "owner", "recorded_at"),
    Index("ix_audit_patient_patient", "patient_id", "recorded_at"),
    sqlite_with_rowid=False,
)

audit_checkpoint = Table(
    "audit_checkpoint",
    metadata,
    Column("shard", String, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("hash", LargeBinary, nullable=False),
    Column("signed_at", BigInteger, nullable=False),
    Column("signature", LargeBinary, nullable=False),
)
