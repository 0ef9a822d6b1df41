"""Packed objects: which object holds the frames of which, compressed without loss."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Table

from storage.sql.schema.types import String, metadata

#: About bytes and not about patients: whoever sent an object owns the rows that name it, and this one names none.
object_packing = Table(
    "object_packing",
    metadata,
    Column("digest", String, primary_key=True),
    Column("size", BigInteger, nullable=False),
    # Empty for an object that stays as it is, and then there is a reason.
    Column("packed_digest", String, nullable=False, default=""),
    Column("packed_size", BigInteger, nullable=False, default=0),
    Column("TransferSyntaxUID", String, nullable=False),
    Column("reason", String, nullable=False, default=""),
    Column("settled", Boolean, nullable=False, default=False),
    Column("at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

Index(
    "ix_object_packing_packed",
    object_packing.c.packed_digest,
    sqlite_where=object_packing.c.packed_digest != "",
    postgresql_where=object_packing.c.packed_digest != "",
)

#: Keeps its cost with what waits, not with what is packed.
Index(
    "ix_object_packing_unsettled",
    object_packing.c.at,
    sqlite_where=(object_packing.c.packed_digest != "") & ~object_packing.c.settled,
    postgresql_where=(object_packing.c.packed_digest != "") & ~object_packing.c.settled,
)
