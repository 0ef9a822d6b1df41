"""FHIR resources: the current version apart from the history, and typed index rows for search.

https://hl7.org/fhir/R4/http.html#history. ``record`` holds exactly one row per resource; a superseded version moves to
``record_history`` in the same transaction, so reads and searches never pay for old versions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from fhir_mappings.definitions.compartments import patient_of
from fhir_mappings.json import dumps, loads
from hub.access import Scope
from hub.clock import from_us, instant, to_us
from hub.errors import Category, HubError
from hub.ports import NewVersion, Page, Stored
from hub.search.ast import Query
from storage.sql import index, merges, search
from storage.sql._dialect import insert
from storage.sql.access import visible
from storage.sql.prepared import Prepared
from storage.sql.schema import condition_lock, idx_reference, idx_token, record, record_history

if TYPE_CHECKING:
    from storage.sql.transaction import SqlTx

_COLUMNS = (
    "type",
    "id",
    "version",
    "owner",
    "visibility",
    "patient_id",
    "deleted",
    "method",
    "last_updated",
    "asserted_at",
    "body",
)
#: Stands in the body of every Patient that a merge replaced.
_REPLACED = b'"replaced-by"'
_NONE: frozenset[str] = frozenset()
#: So few resources are read one by one.
_FEW = 8
_CURRENT = tuple(record.c[name] for name in _COLUMNS)
_PAST = tuple(record_history.c[name] for name in _COLUMNS)

#: The hot read, built once: current version by type and id inside an institution's reach.
_GET = Prepared(
    sa.select(*_CURRENT).where(
        record.c.type == sa.bindparam("type"),
        record.c.id == sa.bindparam("id"),
        visible(record, Scope(institution=""), sa.bindparam("now"), institution=sa.bindparam("institution")),
    )
)


def _by_keys(*, sqlite: bool, lock: bool) -> sa.Select[Any]:
    """Return the statement that reads current rows by many (type, id) at once; built once, whatever their number."""
    if sqlite:
        pairs = sa.func.json_each(sa.bindparam("keys", type_=sa.Text)).table_valued("value")
        type_, id_ = (sa.func.json_extract(pairs.c.value, f"$[{place}]") for place in (0, 1))
        source = pairs.join(record, sa.and_(record.c.type == type_, record.c.id == id_))
    else:
        texts = ARRAY(sa.Text)
        keys = sa.func.unnest(sa.bindparam("types", type_=texts), sa.bindparam("ids", type_=texts))
        rows = keys.table_valued("type", "id").render_derived()
        source = rows.join(record, sa.and_(record.c.type == rows.c.type, record.c.id == rows.c.id))
    statement = sa.select(record.c.rid, *_CURRENT).select_from(source).order_by(record.c.rid)
    # Rows are locked in one order, so that two bundles over the same resources wait instead of deadlocking.
    return statement.with_for_update(of=record) if lock else statement


_READ_SQLITE = Prepared(_by_keys(sqlite=True, lock=False))
_READ_POSTGRES = _by_keys(sqlite=False, lock=False)
_LOCK_POSTGRES = _by_keys(sqlite=False, lock=True)

_INSERT = Prepared(sa.insert(record).returning(record.c.rid), keys=_COLUMNS)
_INSERT_PAST = Prepared(sa.insert(record_history), keys=_COLUMNS)
_UPDATE = Prepared(
    sa.update(record).where(record.c.rid == sa.bindparam("b_rid")),
    keys=[name for name in _COLUMNS if name not in {"type", "id"}],
)

#: Many of one type, built once likewise.
_GET_MANY = sa.select(*_CURRENT).where(
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
    statement = sa.select(*_CURRENT).where(
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
        sa.select(*_CURRENT)
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


def stored(row: Any) -> Stored:
    """Return a table row as a :class:`Stored`."""
    return Stored(
        type=row.type,
        id=row.id,
        version=row.version,
        owner=row.owner,
        visibility=row.visibility,
        patient_id=row.patient_id,
        deleted=bool(row.deleted),
        method=row.method,
        last_updated=from_us(row.last_updated),
        asserted_at=None if row.asserted_at is None else from_us(row.asserted_at),
        body=bytes(row.body),
    )


class SqlRecords:
    """The :class:`hub.ports.Records` of one transaction."""

    def __init__(self, tx: SqlTx) -> None:
        self._tx = tx
        self._connection = tx.connection

    def _now(self) -> int:
        return to_us(self._tx.clock())

    # --- reading ---------------------------------------------------------------------------------------------

    def get(self, type: str, id: str, scope: Scope) -> Stored | None:
        """Return the current version, or ``None`` when absent or out of scope."""
        if _plain(scope):
            row = _GET.first(
                self._connection, {"type": type, "id": id, "now": self._now(), "institution": scope.institution}
            )
        else:
            row = self._connection.execute(
                sa.select(*_CURRENT).where(
                    record.c.type == type, record.c.id == id, visible(record, scope, self._now())
                )
            ).first()
        return None if row is None else stored(row)

    def get_many(self, refs: Sequence[tuple[str, str]], scope: Scope) -> dict[tuple[str, str], Stored]:
        """Return the current versions of *refs* that exist and are in scope."""
        if scope.everything:
            return {key: stored(row) for key, row in self._rows_of(refs, lock=False).items()}
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
                        sa.select(*_CURRENT).where(
                            record.c.type == type_, record.c.id.in_(part), visible(record, scope, self._now())
                        )
                    )
                found.update({(row.type, row.id): stored(row) for row in rows})
        return found

    def version(self, type: str, id: str, version: int, scope: Scope) -> Stored | None:
        """Return one version, current or past."""
        for table, columns in ((record, _CURRENT), (record_history, _PAST)):
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
        for table, columns in ((record, _CURRENT), (record_history, _PAST)):
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
        statement = sa.select(record.c.rid, *_CURRENT).where(
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

    # --- writing ---------------------------------------------------------------------------------------------

    def lock_condition(self, key: str) -> None:
        """Hold *key* until the transaction ends."""
        if self._tx.sqlite:
            # A write transaction of SQLite begins by taking the only write lock there is.
            return
        statement = insert(condition_lock, on_sqlite=self._tx.sqlite).values(key=key, touched=1)
        self._connection.execute(
            statement.on_conflict_do_update(index_elements=["key"], set_={"touched": condition_lock.c.touched + 1})
        )

    def put_many(self, versions: Sequence[NewVersion]) -> list[Stored]:
        """Write *versions*; see :class:`hub.ports.Records`."""
        results: list[Stored] = []
        # A resource that stands twice in the list is written in two rounds, so that each round meets it once.
        round_: list[NewVersion] = []
        seen: set[tuple[str, str]] = set()
        for one in versions:
            key = (one.resource["resourceType"], one.resource["id"])
            if key in seen:
                results += self._put_round(round_)
                round_, seen = [], set()
            round_.append(one)
            seen.add(key)
        if round_:
            results += self._put_round(round_)
        return results

    def _rows_of(self, keys: Sequence[tuple[str, str]], *, lock: bool) -> dict[tuple[str, str], Any]:
        """Return the current rows of *keys*; with *lock* nobody else can change them until the transaction ends."""
        if not keys:
            return {}
        if self._tx.sqlite:
            # The write transaction holds the whole database from its start.
            rows: Iterable[Any] = _READ_SQLITE.all(self._connection, {"keys": dumps(list(keys)).decode()})
        else:
            values = {"types": [type_ for type_, _ in keys], "ids": [id_ for _, id_ in keys]}
            rows = self._connection.execute(_LOCK_POSTGRES if lock else _READ_POSTGRES, values)
        return {(row.type, row.id): row for row in rows}

    def _put_round(self, versions: Sequence[NewVersion]) -> list[Stored]:
        now = self._now()
        keys = [(one.resource["resourceType"], one.resource["id"]) for one in versions]
        current = self._rows_of(keys, lock=True)
        results: list[Stored | None] = []
        inserts: list[dict[str, Any]] = []
        updates: list[dict[str, Any]] = []
        past: list[dict[str, Any]] = []
        confirmed: list[dict[str, Any]] = []
        indexed: list[tuple[tuple[str, str], dict[str, Any]]] = []
        rids: dict[tuple[str, str], int] = {}
        for one in versions:
            key = (one.resource["resourceType"], one.resource["id"])
            row = current.get(key)
            _check(one, row)
            if row is not None and _unchanged(row, one):
                results.append(stored(row))
                if one.asserted_at is not None and to_us(one.asserted_at) > (row.asserted_at or 0):
                    # The same said again at a later moment: no new version, but older news no longer counts.
                    confirmed.append({"b_rid": row.rid, "b_asserted_at": to_us(one.asserted_at)})
                continue
            version = 1 if row is None else row.version + 1
            # A clock that steps back must not make a later version look older than the one it follows.
            moment = now if row is None else max(now, row.last_updated + 1)
            resource = _stamped(one.resource, version, from_us(moment))
            values = {
                "type": key[0],
                "id": key[1],
                "version": version,
                "owner": one.owner,
                "visibility": one.visibility,
                "patient_id": (patient_of(resource) or "").removeprefix("Patient/"),
                "deleted": False,
                "method": "PUT" if row is not None and one.method == "POST" else one.method,
                "last_updated": moment,
                "asserted_at": None if one.asserted_at is None else to_us(one.asserted_at),
                "body": dumps(resource),
            }
            if row is None:
                inserts.append(values)
            else:
                past.append({name: getattr(row, name) for name in _COLUMNS})
                updates.append({**values, "b_rid": row.rid})
                rids[key] = row.rid
            indexed.append((key, resource))
            results.append(_of(values))
        for values in inserts:
            rids[(values["type"], values["id"])] = _INSERT.first(self._connection, values).rid
        if confirmed:
            self._connection.execute(
                sa.update(record)
                .where(record.c.rid == sa.bindparam("b_rid"))
                .values(asserted_at=sa.bindparam("b_asserted_at")),
                confirmed,
            )
        if past:
            _INSERT_PAST.run_many(self._connection, past)
            _UPDATE.run_many(self._connection, updates)
        if indexed:
            index.replace(
                self._connection,
                [(rids[key], resource) for key, resource in indexed],
                stale=[values["b_rid"] for values in updates],
            )
            self._follow(past, indexed)
        return [one for one in results if one is not None]

    def delete(self, type: str, id: str, *, owner: str, expected_version: int | None = None) -> Stored | None:
        """Mark the resource deleted: it leaves search at once, its history stays."""
        row = self._rows_of([(type, id)], lock=True).get((type, id))
        if row is None or row.deleted:
            return None
        if row.owner != owner:
            raise HubError(
                Category.FORBIDDEN, "Only the institution that owns a resource may delete it.", where=f"{type}/{id}"
            )
        _expect(expected_version, row.version, f"{type}/{id}")
        values = {name: getattr(row, name) for name in _COLUMNS}
        _INSERT_PAST.run(self._connection, values)
        moment = max(self._now(), row.last_updated + 1)
        values |= {"version": row.version + 1, "deleted": True, "method": "DELETE", "last_updated": moment}
        self._connection.execute(
            sa.update(record)
            .where(record.c.rid == row.rid)
            .values({name: values[name] for name in ("version", "deleted", "method", "last_updated")})
        )
        index.remove(self._connection, [row.rid])
        self._follow([{**values, "deleted": False}], [])
        return _of(values)

    def _follow(self, past: Sequence[Mapping[str, Any]], new: Sequence[tuple[tuple[str, str], dict[str, Any]]]) -> None:
        """Let grants follow the merges that the *new* versions of Patients make or take back."""
        before = {
            row["id"]: index.survivors(loads(bytes(row["body"])))
            for row in past
            if row["type"] == "Patient" and not row["deleted"] and _REPLACED in bytes(row["body"])
        }
        after = {id_: index.survivors(resource) for (type_, id_), resource in new if type_ == "Patient"}
        changed = {id_ for id_ in before.keys() | after.keys() if before.get(id_, _NONE) != after.get(id_, _NONE)}
        if changed:
            # Of a link that is gone both ends are looked at, because each may be the one that a Task asked for.
            ends = {end for id_ in changed for end in before.get(id_, _NONE)}
            self._tx.grants.follow_merges(sorted(changed | ends))


def _of(values: dict[str, Any]) -> Stored:
    return Stored(
        **{
            **values,
            "last_updated": from_us(values["last_updated"]),
            "asserted_at": None if values["asserted_at"] is None else from_us(values["asserted_at"]),
        }
    )


def _expect(expected: int | None, found: int, where: str) -> None:
    if expected is not None and expected != found:
        raise HubError(
            Category.CONFLICT,
            f"The version asked for is not the current one, which is {found}."
            if found
            else "The resource does not exist yet.",
            where=where,
            remedy="Read the present version, apply the change to it and send again.",
            status=412,
            issue_code="conflict",
        )


def _check(one: NewVersion, row: Any) -> None:
    where = f"{one.resource['resourceType']}/{one.resource['id']}"
    _expect(one.expected_version, 0 if row is None else row.version, where)
    if row is not None and row.owner != one.owner:
        raise HubError(
            Category.FORBIDDEN,
            "This id belongs to a resource of another institution.",
            where=where,
            remedy="Let the hub choose the id (POST), or use one of your own.",
        )


def _without_stamp(resource: dict[str, Any]) -> dict[str, Any]:
    meta = {key: value for key, value in resource.get("meta", {}).items() if key not in {"versionId", "lastUpdated"}}
    rest = {key: value for key, value in resource.items() if key != "meta"}
    return {**rest, "meta": meta} if meta else rest


def _unchanged(row: Any, one: NewVersion) -> bool:
    if row.deleted or row.visibility != one.visibility:
        return False
    return _same(loads(bytes(row.body)), one.resource)


def _same(old: dict[str, Any], new: dict[str, Any]) -> bool:
    # Text comparison of the JSON keeps 6.9 and 6.90 apart, which comparing Decimals would not.
    return dumps(_sorted(_without_stamp(old))) == dumps(_sorted(_without_stamp(new)))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_sorted(one) for one in value]
    return value


def _stamped(resource: dict[str, Any], version: int, moment: datetime) -> dict[str, Any]:
    meta = {**resource.get("meta", {}), "versionId": str(version), "lastUpdated": instant(moment)}
    stamped: dict[str, Any] = {"resourceType": resource["resourceType"], "id": resource["id"], "meta": meta}
    stamped.update({key: value for key, value in resource.items() if key not in stamped})
    return stamped
