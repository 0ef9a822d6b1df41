"""Column types and names that all tables share."""

from __future__ import annotations

from sqlalchemy import BigInteger, Integer, MetaData
from sqlalchemy import String as _String

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: Text that is compared by code point on both databases: searches by start and sorted pages rely on it.
String = _String().with_variant(_String(collation="C"), "postgresql")
#: SQLite numbers rows with INTEGER PRIMARY KEY only, PostgreSQL with BIGINT identity.
Serial = BigInteger().with_variant(Integer(), "sqlite")
