"""Column types and conditions that the two databases spell differently, as revision 0001 uses them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

#: Text that is compared by code point on both databases: searches by start and sorted pages rely on it.
String = sa.String().with_variant(sa.String(collation="C"), "postgresql")
#: SQLite numbers rows with INTEGER PRIMARY KEY only, PostgreSQL with BIGINT identity.
Serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def partial(condition: str, *, postgresql: str = "") -> Mapping[str, Any]:
    """Return what makes an index hold only the rows that fulfil *condition*, which *postgresql* may spell otherwise."""
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(postgresql or condition)}
