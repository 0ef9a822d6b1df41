"""Typed index tables of the search parameters (https://hl7.org/fhir/R4/search.html).

They have no row id of their own: their primary key is the covering index of the search, and a second index by record
serves replacement, and the check of one record against a filter that many fulfil."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Table

from storage.sql.schema.types import String, metadata

idx_token = Table(
    "idx_token",
    metadata,
    Column("param", String, primary_key=True),
    Column("code", String, primary_key=True),
    Column("system", String, primary_key=True),
    Column("rid", BigInteger, primary_key=True),
    Column("text", String, primary_key=True, default=""),
    Index("ix_idx_token_rid", "rid", "param", "code"),
    sqlite_with_rowid=False,
)

idx_string = Table(
    "idx_string",
    metadata,
    Column("param", String, primary_key=True),
    Column("value", String, primary_key=True),
    Column("kind", String, primary_key=True),
    Column("rid", BigInteger, primary_key=True),
    Column("exact", String, primary_key=True, default=""),
    Index("ix_idx_string_rid", "rid", "param", "value"),
    sqlite_with_rowid=False,
)

idx_reference = Table(
    "idx_reference",
    metadata,
    Column("param", String, primary_key=True),
    Column("target_id", String, primary_key=True),
    Column("target_type", String, primary_key=True),
    Column("rid", BigInteger, primary_key=True),
    Column("url", String, primary_key=True, default=""),
    Column("identifier_value", String, primary_key=True, default=""),
    Column("identifier_system", String, primary_key=True, default=""),
    Index("ix_idx_reference_rid", "rid", "param", "target_id"),
    sqlite_with_rowid=False,
)

Index(
    "ix_idx_reference_identifier",
    idx_reference.c.param,
    idx_reference.c.identifier_value,
    sqlite_where=idx_reference.c.identifier_value != "",
    postgresql_where=idx_reference.c.identifier_value != "",
)

Index(
    "ix_idx_reference_url",
    idx_reference.c.param,
    idx_reference.c.url,
    sqlite_where=idx_reference.c.url != "",
    postgresql_where=idx_reference.c.url != "",
)

idx_date = Table(
    "idx_date",
    metadata,
    Column("param", String, primary_key=True),
    Column("low", BigInteger, primary_key=True),
    Column("high", BigInteger, primary_key=True),
    Column("rid", BigInteger, primary_key=True),
    Index("ix_idx_date_rid", "rid", "param", "low"),
    Index("ix_idx_date_high", "param", "high", "low"),
    sqlite_with_rowid=False,
)

idx_quantity = Table(
    "idx_quantity",
    metadata,
    Column("param", String, primary_key=True),
    Column("low", Float, primary_key=True),
    Column("high", Float, primary_key=True),
    Column("rid", BigInteger, primary_key=True),
    Column("system", String, primary_key=True, default=""),
    Column("code", String, primary_key=True, default=""),
    Column("unit", String, primary_key=True, default=""),
    Index("ix_idx_quantity_rid", "rid", "param", "low"),
    sqlite_with_rowid=False,
)

idx_uri = Table(
    "idx_uri",
    metadata,
    Column("param", String, primary_key=True),
    Column("value", String, primary_key=True),
    Column("rid", BigInteger, primary_key=True),
    Index("ix_idx_uri_rid", "rid", "param", "value"),
    sqlite_with_rowid=False,
)
