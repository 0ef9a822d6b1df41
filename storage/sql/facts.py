"""Small facts in the table ``setting``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from storage.sql._dialect import insert
from storage.sql.schema import setting

if TYPE_CHECKING:
    from storage.sql.transaction import SqlTx


class SqlFacts:
    """The :class:`hub.ports.facts.Facts` of one transaction."""

    def __init__(self, tx: SqlTx) -> None:
        self._tx = tx

    def get(self, name: str) -> str | None:
        """Return the fact, ``None`` when there is none."""
        found: str | None = self._tx.connection.execute(
            sa.select(setting.c.value).where(setting.c.key == name)
        ).scalar()
        return found

    def keep(self, name: str, value: str) -> None:
        """Make *value* the fact of that name."""
        statement = insert(setting, on_sqlite=self._tx.sqlite).values(key=name, value=value)
        self._tx.connection.execute(statement.on_conflict_do_update(index_elements=["key"], set_={"value": value}))
