"""New versions of FHIR resources: checked, stamped, the old ones kept (https://hl7.org/fhir/R4/http.html#update).

All versions that belong together are written by one statement for each table, whatever their number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from fhir_mappings.definitions.compartments import patient_of
from fhir_mappings.json import dumps, loads
from hub.access import is_restricted
from hub.clock import from_us, instant, to_us
from hub.errors import Category, HubError
from hub.ports import NewVersion, Stored
from storage.sql import index
from storage.sql._dialect import insert
from storage.sql.access import RESTRICTED
from storage.sql.prepared import Prepared
from storage.sql.record_rows import COLUMNS, CURRENT, stored
from storage.sql.schema import condition_lock, record, record_history

if TYPE_CHECKING:
    from storage.sql.transaction import SqlTx

#: Stands in the body of every Patient that a merge replaced.
_REPLACED = b'"replaced-by"'
_NONE: frozenset[str] = frozenset()


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
    statement = sa.select(record.c.rid, *CURRENT).select_from(source).order_by(record.c.rid)
    # Rows are locked in one order, so that two bundles over the same resources wait instead of deadlocking.
    return statement.with_for_update(of=record) if lock else statement


_READ_SQLITE = Prepared(_by_keys(sqlite=True, lock=False))
_READ_POSTGRES = _by_keys(sqlite=False, lock=False)
_LOCK_POSTGRES = _by_keys(sqlite=False, lock=True)

_INSERT = Prepared(sa.insert(record).returning(record.c.rid), keys=COLUMNS)
_INSERT_PAST = Prepared(sa.insert(record_history), keys=COLUMNS)
_UPDATE = Prepared(
    sa.update(record).where(record.c.rid == sa.bindparam("b_rid")),
    keys=[name for name in COLUMNS if name not in {"type", "id"}],
)


class RecordWriting:
    """What a transaction writes of resources."""

    def __init__(self, tx: SqlTx) -> None:
        self._tx = tx
        self._connection = tx.connection

    def _now(self) -> int:
        return to_us(self._tx.clock())

    def rows_of(self, keys: Sequence[tuple[str, str]], *, lock: bool) -> dict[tuple[str, str], Any]:
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

    def _put_round(self, versions: Sequence[NewVersion]) -> list[Stored]:
        now = self._now()
        keys = [(one.resource["resourceType"], one.resource["id"]) for one in versions]
        current = self.rows_of(keys, lock=True)
        results: list[Stored | None] = []
        inserts: list[dict[str, Any]] = []
        updates: list[dict[str, Any]] = []
        past: list[dict[str, Any]] = []
        confirmed: list[dict[str, Any]] = []
        narrowed: list[tuple[str, str]] = []
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
                "visibility": _visibility(one),
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
                past.append({name: getattr(row, name) for name in COLUMNS})
                if values["visibility"] == RESTRICTED != row.visibility:
                    past[-1]["visibility"] = RESTRICTED
                    narrowed.append(key)
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
        for type_, id_ in narrowed:
            # Who may not see what the resource says now must not read it in what it said before the label.
            older = sa.and_(record_history.c.type == type_, record_history.c.id == id_)
            self._connection.execute(sa.update(record_history).where(older).values(visibility=RESTRICTED))
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
        row = self.rows_of([(type, id)], lock=True).get((type, id))
        if row is None or row.deleted:
            return None
        if row.owner != owner:
            raise HubError(
                Category.FORBIDDEN, "Only the institution that owns a resource may delete it.", where=f"{type}/{id}"
            )
        _expect(expected_version, row.version, f"{type}/{id}")
        values = {name: getattr(row, name) for name in COLUMNS}
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


def _visibility(one: NewVersion) -> str:
    return RESTRICTED if one.visibility == "institution" and is_restricted(one.resource) else one.visibility


def _unchanged(row: Any, one: NewVersion) -> bool:
    if row.deleted or row.visibility != _visibility(one):
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
