"""What is wrong now: one row for each open alert, so that several nodes tell of it once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from hub.clock import from_us, to_us
from storage.sql._dialect import insert
from storage.sql.schema import alert

if TYPE_CHECKING:
    from storage.sql.transaction import SqlTx


class SqlAlerts:
    """The :class:`hub.ports.Alerts` of one transaction."""

    def __init__(self, tx: SqlTx) -> None:
        self._tx = tx
        self._connection = tx.connection

    def open(self, key: str, *, detail: str, now: datetime) -> bool:
        """Open the alert *key*; ``False`` when it is already open."""
        # RETURNING, because not every driver counts inserted rows.
        result = self._connection.execute(
            insert(alert, on_sqlite=self._tx.sqlite)
            .values(key=key, opened_at=to_us(now), detail=detail)
            .on_conflict_do_nothing()
            .returning(alert.c.key)
        )
        return result.first() is not None

    def clear(self, key: str) -> Mapping[str, Any] | None:
        """Close the alert and return what it was, or ``None`` when none is open."""
        row = self._connection.execute(sa.select(alert).where(alert.c.key == key)).first()
        if row is None:
            return None
        result = self._connection.execute(sa.delete(alert).where(alert.c.key == key))
        return _alert(row) if result.rowcount == 1 else None

    def all(self) -> Sequence[Mapping[str, Any]]:
        """Return the open alerts, oldest first."""
        return [_alert(row) for row in self._connection.execute(sa.select(alert).order_by(alert.c.opened_at))]


def _alert(row: Any) -> Mapping[str, Any]:
    return {"key": row.key, "opened_at": from_us(row.opened_at), "detail": row.detail}
