"""Leave to see, opened and closed by workflow transitions in their own transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from hub.clock import from_us, to_us
from hub.ports import Grant
from storage.sql._dialect import insert
from storage.sql.access import FOREVER_US
from storage.sql.schema import access_grant

if TYPE_CHECKING:
    from storage.sql.transaction import SqlTx


class SqlGrants:
    """The :class:`hub.ports.Grants` of one transaction."""

    def __init__(self, tx: SqlTx) -> None:
        self._tx = tx
        self._connection = tx.connection

    def open(self, grant: Grant, *, now: datetime) -> None:
        """Open *grant*, or give an ended one of the same Task its new end."""
        until = FOREVER_US if grant.until is None else to_us(grant.until)
        statement = insert(access_grant, on_sqlite=self._tx.sqlite).values(
            grantee=grant.grantee,
            target_type=grant.target_type,
            target_id=grant.target_id,
            task_id=grant.task_id,
            opened_at=to_us(now),
            until=until,
        )
        self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=["grantee", "target_type", "target_id", "task_id"], set_={"until": until}
            )
        )

    def close(self, task_id: str, *, grantee: str | None, until: datetime, patient_record: bool | None = None) -> None:
        """Let the grants of *task_id* end at *until*; one that ends sooner keeps its end."""
        conditions = [access_grant.c.task_id == task_id, access_grant.c.until > to_us(until)]
        if grantee is not None:
            conditions.append(access_grant.c.grantee == grantee)
        if patient_record is not None:
            same = access_grant.c.target_type == "patient-record"
            conditions.append(same if patient_record else sa.not_(same))
        self._connection.execute(sa.update(access_grant).where(*conditions).values(until=to_us(until)))

    def of_task(self, task_id: str) -> Sequence[Grant]:
        """Return the grants that *task_id* opened, ended ones included."""
        rows = self._connection.execute(
            sa.select(access_grant)
            .where(access_grant.c.task_id == task_id)
            .order_by(access_grant.c.grantee, access_grant.c.target_type, access_grant.c.target_id)
        )
        return [
            Grant(
                grantee=row.grantee,
                target_type=row.target_type,
                target_id=row.target_id,
                task_id=row.task_id,
                until=None if row.until == FOREVER_US else from_us(row.until),
            )
            for row in rows
        ]
