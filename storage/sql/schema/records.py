"""FHIR resources: current versions, and those before them (https://hl7.org/fhir/R4/http.html#history)."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, Table, UniqueConstraint

from storage.sql.schema.types import Serial, String, metadata

record = Table(
    "record",
    metadata,
    Column("rid", Serial, primary_key=True, autoincrement=True),
    Column("type", String, nullable=False),
    Column("id", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("owner", String, nullable=False),
    Column("visibility", String, nullable=False),
    Column("patient_id", String, nullable=False, default=""),
    Column("deleted", Boolean, nullable=False),
    Column("method", String, nullable=False),
    Column("last_updated", BigInteger, nullable=False),
    Column("asserted_at", BigInteger, nullable=True),
    Column("body", LargeBinary, nullable=False),
    UniqueConstraint("type", "id"),
    Index("ix_record_updated", "type", "last_updated", "rid"),
    Index("ix_record_owner", "owner", "type", "rid"),
)

Index(
    "ix_record_directory",
    record.c.type,
    record.c.rid,
    sqlite_where=record.c.visibility == "consortium",
    postgresql_where=record.c.visibility == "consortium",
)

Index(
    "ix_record_patient",
    record.c.patient_id,
    record.c.type,
    record.c.rid,
    sqlite_where=record.c.patient_id != "",
    postgresql_where=record.c.patient_id != "",
)

record_history = Table(
    "record_history",
    metadata,
    Column("type", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("owner", String, nullable=False),
    Column("visibility", String, nullable=False),
    Column("patient_id", String, nullable=False, default=""),
    Column("deleted", Boolean, nullable=False),
    Column("method", String, nullable=False),
    Column("last_updated", BigInteger, nullable=False),
    Column("asserted_at", BigInteger, nullable=True),
    Column("body", LargeBinary, nullable=False),
    Index("ix_record_history_updated", "type", "last_updated"),
    sqlite_with_rowid=False,
)

#: One row per condition that a conditional write has locked; the row lock makes the write race-free on PostgreSQL.
condition_lock = Table(
    "condition_lock",
    metadata,
    Column("key", String, primary_key=True),
    Column("touched", Integer, nullable=False),
)
