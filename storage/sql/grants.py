"""Leave to see, opened and closed by workflow transitions in their own transaction.

A grant for a patient's whole record is for a person: where the owner's merges (HL7 v2 3.3.40) say that several records
are one person's, it opens them all. What a Task asked for is one row (``patient-record``); the rows that follow from
merges beside it (``merged-record``) are made anew whenever a link between records changes, so that a merge that is
taken back closes what it had opened. They end when the Task's own row ends. A grant for a single resource stays with
that resource.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from hub.clock import from_us, to_us
from hub.ports import Grant
from storage.sql import merges
from storage.sql._dialect import insert
from storage.sql.access import FOREVER_US, MERGED_RECORD, WHOLE_RECORD
from storage.sql.schema import access_grant, idx_reference, record

if TYPE_CHECKING:
    from storage.sql.transaction import SqlTx


#: ``param`` of the index rows that lead from a Task to its patient (``Task.for``).
_TASK_FOR = "Task.patient"


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
        if grant.target_type == WHOLE_RECORD:
            self.follow_merges([grant.target_id])

    def follow_merges(self, patients: Iterable[str]) -> None:
        """Let every grant that reaches one of *patients* reach what is one person's now, and nothing else."""
        t = access_grant
        joined = {id_ for one in patients for id_ in self._one_person(one)}
        reaching = sa.select(t.c.grantee, t.c.task_id).where(
            t.c.target_id.in_(sorted(joined)), t.c.target_type.in_((WHOLE_RECORD, MERGED_RECORD))
        )
        for grantee, task_id in self._connection.execute(reaching.distinct()).all():
            of_task = sa.and_(t.c.grantee == grantee, t.c.task_id == task_id)
            self._connection.execute(sa.delete(t).where(of_task, t.c.target_type == MERGED_RECORD))
            asked = self._connection.execute(sa.select(t).where(of_task, t.c.target_type == WHOLE_RECORD)).all()
            rows: dict[str, dict[str, Any]] = {}
            for row in asked:
                for id_ in merges.one_person(self._connection, row.target_id)[1:]:
                    # Two that reach the same record end with the later of them.
                    if id_ not in rows or rows[id_]["until"] < row.until:
                        rows[id_] = {
                            "grantee": grantee,
                            "target_type": MERGED_RECORD,
                            "target_id": id_,
                            "task_id": task_id,
                            "opened_at": row.opened_at,
                            "until": row.until,
                        }
            if rows:
                self._connection.execute(sa.insert(t), list(rows.values()))

    def _one_person(self, patient_id: str) -> list[str]:
        """Return the person's records, with a lock on each so that no merge and no grant can pass the other unseen."""
        found = merges.one_person(self._connection, patient_id)
        if self._tx.sqlite:
            # A write transaction holds the whole database from its start.
            return found
        self._connection.execute(
            sa.select(record.c.rid)
            .where(record.c.type == "Patient", record.c.id.in_(found))
            .order_by(record.c.rid)
            .with_for_update()
        )
        return merges.one_person(self._connection, patient_id)

    def close(self, task_id: str, *, grantee: str | None, until: datetime, patient_record: bool | None = None) -> None:
        """Let the grants of *task_id* end at *until*; one that ends sooner keeps its end."""
        conditions = [access_grant.c.task_id == task_id, access_grant.c.until > to_us(until)]
        if grantee is not None:
            conditions.append(access_grant.c.grantee == grantee)
        if patient_record is not None:
            same = access_grant.c.target_type.in_((WHOLE_RECORD, MERGED_RECORD))
            conditions.append(same if patient_record else sa.not_(same))
        self._connection.execute(sa.update(access_grant).where(*conditions).values(until=to_us(until)))

    def close_across(
        self, patients: Collection[str], others: Collection[str], *, until: datetime
    ) -> Sequence[tuple[str, str]]:
        """End what Tasks for the one opened of the other's single resources; return (Task id, ``Type/id``) of each."""
        t, target, task, whose = access_grant, record.alias(), record.alias(), idx_reference.alias()

        def between(one: Collection[str], other: Collection[str]) -> sa.ColumnElement[bool]:
            return sa.and_(target.c.patient_id.in_(sorted(one)), whose.c.target_id.in_(sorted(other)))

        statement = (
            sa.select(t.c.task_id, t.c.target_type, t.c.target_id)
            .join(target, sa.and_(target.c.type == t.c.target_type, target.c.id == t.c.target_id))
            .join(task, sa.and_(task.c.type == "Task", task.c.id == t.c.task_id))
            .join(whose, sa.and_(whose.c.rid == task.c.rid, whose.c.param == _TASK_FOR))
            .where(t.c.until > to_us(until), sa.or_(between(patients, others), between(others, patients)))
            .distinct()
        )
        found = sorted((row.task_id, row.target_type, row.target_id) for row in self._connection.execute(statement))
        for task_id, type_, id_ in found:
            of_one = sa.and_(t.c.task_id == task_id, t.c.target_type == type_, t.c.target_id == id_)
            later = sa.and_(of_one, t.c.until > to_us(until))
            self._connection.execute(sa.update(t).where(later).values(until=to_us(until)))
        return [(task_id, f"{type_}/{id_}") for task_id, type_, id_ in found]

    def of_task(self, task_id: str) -> Sequence[Grant]:
        """Return the grants that *task_id* opened, ended ones included; what merges add to them is left out."""
        rows = self._connection.execute(
            sa.select(access_grant)
            .where(access_grant.c.task_id == task_id, access_grant.c.target_type != MERGED_RECORD)
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
