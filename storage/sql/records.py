"""FHIR resources: the current version apart from the history, and typed index rows for search.

https://hl7.org/fhir/R4/http.html#history. ``record`` holds exactly one row per resource; a superseded version moves to
``record_history`` in the same transaction, so reads and searches never pay for old versions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa

from hub.access import Scope
from hub.clock import to_us
from hub.errors import Category, HubError
from hub.ports import Page, Stored
from hub.search.ast import Query
from storage.sql import index, merges, search
from storage.sql.access import visible
from storage.sql.prepared import Prepared
from storage.sql.record_rows import CURRENT, PAST, stored
from storage.sql.record_writing import RecordWriting
from storage.sql.schema import idx_reference, idx_token, record, record_history

#: So few resources are read one by one.
_FEW = 8

#: The hot read, built once: current version by type and id inside an institution's reach.
_GET = Prepared(
    sa.select(*CURRENT).where(
        record.c.type == sa.bindparam("type"),
        record.c.id == sa.bindparam("id"),
        visible(record, Scope(institution=""), sa.bindparam("now"), institution=sa.bindparam("institution")),
    )
)

#: Many of one type, built once likewise.
_GET_MANY = sa.select(*CURRENT).where(
    record.c.type == sa.bindparam("type"),
    record.c.id.in_(sa.bindparam("ids", expanding=True)),
    visible(record, Scope(institution=""), sa.bindparam("now"), institution=sa.bindparam("institution")),
)


def _reach(everything: bool) -> sa.ColumnElement[bool]:
    if everything:
        return sa.true()
    return visible(record, Scope(institution=""), sa.bindparam("now"), institution=sa.bindparam("institution"))


def _with_identifier(*, everything: bool, system: bool, owner: bool) -> sa.Select[Any]:
    """Return the statement of :meth:`SqlRecords.by_identifier`."""
    conditions = [idx_token.c.param == sa.bindparam("param"), idx_token.c.code == sa.bindparam("code")]
    if system:
        conditions.append(idx_token.c.system == sa.bindparam("system"))
    statement = sa.select(*CURRENT).where(
        record.c.rid.in_(sa.select(idx_token.c.rid).where(*conditions)),
        record.c.type == sa.bindparam("type"),
        record.c.deleted == sa.false(),
        _reach(everything),
    )
    if owner:
        statement = statement.where(record.c.owner == sa.bindparam("owner"))
    return statement.order_by(record.c.rid)


def _pointing(*, everything: bool) -> sa.Select[Any]:
    """Return the statement of :meth:`SqlRecords.referring`."""
    targets = sa.select(idx_reference.c.rid).where(
        idx_reference.c.param == sa.bindparam("param"),
        idx_reference.c.target_id == sa.bindparam("target_id"),
        idx_reference.c.target_type == sa.bindparam("target_type"),
    )
    return (
        sa.select(*CURRENT)
        .where(
            record.c.rid.in_(targets),
            record.c.type == sa.bindparam("type"),
            record.c.deleted == sa.false(),
            _reach(everything),
        )
        .order_by(record.c.rid.desc())
        .limit(sa.bindparam("most", type_=sa.Integer))
    )


@cache
def _by_identifier(*, everything: bool, system: bool, owner: bool) -> Prepared:
    return Prepared(_with_identifier(everything=everything, system=system, owner=owner))


@cache
def _referring(*, everything: bool) -> Prepared:
    return Prepared(_pointing(everything=everything))


def _plain(scope: Scope) -> bool:
    """Return whether *scope* is an institution's own, which the statements built once are made for."""
    return scope.patient is None and not scope.everything and not scope.directory_only


class SqlRecords(RecordWriting):
    """The :class:`hub.ports.Records` of one transaction."""

    def get(self, type: str, id: str, scope: Scope) -> Stored | None:
        """Return the current version, or ``None`` when absent or out of scope."""
        if _plain(scope):
            row = _GET.first(
                self._connection, {"type": type, "id": id, "now": self._now(), "institution": scope.institution}
            )
        else:
            row = self._connection.execute(
                sa.select(*CURRENT).where(record.c.type == type, record.c.id == id, visible(record, scope, self._now()))
            ).first()
        return None if row is None else stored(row)

    def get_many(self, refs: Sequence[tuple[str, str]], scope: Scope) -> dict[tuple[str, str], Stored]:
        """Return the current versions of *refs* that exist and are in scope."""
        if scope.everything:
            return {key: stored(row) for key, row in self.rows_of(refs, lock=False).items()}
        if _plain(scope) and len(refs) <= _FEW:
            # One by one they cost less than a list, whose statement is made anew for each length.
            each = ((key, self.get(*key, scope)) for key in dict.fromkeys(refs))
            return {key: one for key, one in each if one is not None}
        found: dict[tuple[str, str], Stored] = {}
        by_type: dict[str, list[str]] = {}
        for type_, id_ in refs:
            by_type.setdefault(type_, []).append(id_)
        for type_, ids in by_type.items():
            for start in range(0, len(ids), 500):
                part = ids[start : start + 500]
                if _plain(scope):
                    rows = self._connection.execute(
                        _GET_MANY, {"type": type_, "ids": part, "now": self._now(), "institution": scope.institution}
                    )
                else:
                    rows = self._connection.execute(
                        sa.select(*CURRENT).where(
                            record.c.type == type_, record.c.id.in_(part), visible(record, scope, self._now())
                        )
                    )
                found.update({(row.type, row.id): stored(row) for row in rows})
        return found

    def version(self, type: str, id: str, version: int, scope: Scope) -> Stored | None:
        """Return one version, current or past."""
        for table, columns in ((record, CURRENT), (record_history, PAST)):
            row = self._connection.execute(
                sa.select(*columns).where(
                    table.c.type == type,
                    table.c.id == id,
                    table.c.version == version,
                    visible(table, scope, self._now()),
                )
            ).first()
            if row is not None:
                return stored(row)
        return None

    def history(
        self,
        type: str | None,
        id: str | None,
        scope: Scope,
        *,
        count: int,
        since: datetime | None = None,
        before: tuple[datetime, str] | None = None,
    ) -> Sequence[Stored]:
        """Return versions newest first; *before* is the (lastUpdated, ``Type/id/version``) of the last row of the page before."""
        parts = []
        for table, columns in ((record, CURRENT), (record_history, PAST)):
            statement = sa.select(*columns).where(visible(table, scope, self._now()))
            if type is not None:
                statement = statement.where(table.c.type == type)
            if id is not None:
                statement = statement.where(table.c.id == id)
            if since is not None:
                statement = statement.where(table.c.last_updated >= to_us(since))
            if before is not None:
                moment, key = to_us(before[0]), before[1].split("/")
                later_type, later_id, later_version = key[0], key[1], int(key[2])
                statement = statement.where(
                    sa.or_(
                        table.c.last_updated < moment,
                        sa.and_(
                            table.c.last_updated == moment,
                            sa.or_(
                                table.c.type > later_type,
                                sa.and_(table.c.type == later_type, table.c.id > later_id),
                                sa.and_(
                                    table.c.type == later_type, table.c.id == later_id, table.c.version < later_version
                                ),
                            ),
                        ),
                    )
                )
            parts.append(
                statement.order_by(table.c.last_updated.desc(), table.c.type, table.c.id, table.c.version.desc()).limit(
                    count
                )
            )
        rows = [stored(row) for part in parts for row in self._connection.execute(part)]
        rows.sort(key=lambda one: (-to_us(one.last_updated), one.type, one.id, -one.version))
        return rows[:count]

    def search(self, query: Query, scope: Scope) -> Page:
        """Return one page of *query* inside *scope*."""
        return search.run(self._connection, query, scope, self._now())

    def find_ids(self, query: Query, scope: Scope, *, limit: int) -> list[str]:
        """Return logical ids of at most *limit* matches."""
        return search.ids(self._connection, query, scope, self._now(), limit=limit)

    def by_identifier(
        self, type: str, system: str | None, value: str, scope: Scope, *, owner: str | None = None
    ) -> list[Stored]:
        """Return resources of *type* that carry the identifier, oldest first."""
        values: dict[str, Any] = {"param": f"{type}.identifier", "code": index.whole(value), "type": type}
        if system is not None:
            values["system"] = index.whole(system)
        if owner is not None:
            values["owner"] = owner
        shape = {"system": system is not None, "owner": owner is not None}
        if scope.everything or _plain(scope):
            values |= {} if scope.everything else {"now": self._now(), "institution": scope.institution}
            rows: Iterable[Any] = _by_identifier(everything=scope.everything, **shape).all(self._connection, values)
        else:
            statement = _with_identifier(everything=True, **shape).where(visible(record, scope, self._now()))
            rows = self._connection.execute(statement, values)
        return [stored(row) for row in rows]

    def referring(self, type: str, param: str, target: str, scope: Scope, *, limit: int = 100) -> list[Stored]:
        """Return resources of *type* whose reference parameter *param* points at *target*, newest first."""
        target_type, target_id = target.split("/", 1)
        values: dict[str, Any] = {
            "param": f"{type}.{param}", "target_id": target_id, "target_type": target_type, "type": type, "most": limit,
        }  # fmt: skip
        if scope.everything or _plain(scope):
            values |= {} if scope.everything else {"now": self._now(), "institution": scope.institution}
            rows: Iterable[Any] = _referring(everything=scope.everything).all(self._connection, values)
        else:
            statement = _pointing(everything=True).where(visible(record, scope, self._now()))
            rows = self._connection.execute(statement, values)
        return [stored(row) for row in rows]

    def compartment(
        self, patient_id: str, scope: Scope, *, types: Sequence[str] | None, count: int, after: str | None
    ) -> Page:
        """Return the Patient's compartment in the order of first arrival; *after* is the cursor of the page before.

        What was stored of records that were merged into the Patient is part of it, those records included.
        """
        now = self._now()
        of_one = merges.standing_for(self._connection, [patient_id], lambda table: visible(table, scope, now))
        statement = sa.select(record.c.rid, *CURRENT).where(
            record.c.patient_id.in_(of_one) if len(of_one) > 1 else record.c.patient_id == patient_id,
            # SQLite uses the partial index only where its condition stands word for word.
            record.c.patient_id != sa.literal_column("''"),
            record.c.deleted == sa.false(),
            visible(record, scope, now),
        )
        if types:
            statement = statement.where(record.c.type.in_(types))
        if after is not None:
            if not after.isdigit():
                raise HubError(
                    Category.INCORRECT,
                    "The page link is not one of this hub.",
                    where="_cursor",
                    remedy="Start again from the first page.",
                )
            statement = statement.where(record.c.rid > int(after))
        rows = list(self._connection.execute(statement.order_by(record.c.rid).limit(count + 1)))
        page = rows[:count]
        return Page(
            matches=tuple(stored(row) for row in page), next_cursor=str(page[-1].rid) if len(rows) > count else None
        )

    def one_person(self, patient_id: str) -> list[str]:
        """Return *patient_id* and behind it the records that its owner's merges make the same person's."""
        return merges.one_person(self._connection, patient_id)
