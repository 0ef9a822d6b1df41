"""Statements that go to the driver as text and values mean what they mean through the Core."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from storage.sql.database import SqlDatabase
from storage.sql.prepared import Prepared, execute
from storage.sql.schema import imaging_series, journal, record, record_history

_COLUMNS = [column.name for column in record_history.columns]
_INSERT = Prepared(sa.insert(record_history), keys=_COLUMNS)
_BY_ID = Prepared(
    sa.select(record_history).where(
        record_history.c.type == "Patient",
        record_history.c.id == sa.bindparam("wanted"),
        record_history.c.deleted == sa.bindparam("deleted", type_=sa.Boolean),
    )
)


def row(id: str, *, deleted: bool = False) -> dict[str, Any]:
    return {
        "type": "Patient",
        "id": id,
        "version": 1,
        "owner": "KN",
        "visibility": "owner",
        "patient_id": "",
        "deleted": deleted,
        "method": "PUT",
        "last_updated": 1 << 52,
        "asserted_at": None,
        "body": b"\x00\xff{}",
    }


def test_rows_come_back_as_the_core_gives_them(database: SqlDatabase) -> None:
    database.write(lambda tx: _INSERT.run_many(tx.connection, [row("100%", deleted=True), row("100%s")]))

    def both(tx: Any) -> tuple[Any, Any]:
        ours = _BY_ID.first(tx.connection, {"wanted": "100%", "deleted": True})
        return ours, tx.connection.execute(sa.select(record_history).where(record_history.c.id == "100%")).first()

    ours, core = database.read(both)

    assert {name: getattr(ours, name) for name in _COLUMNS} == dict(core._mapping)
    assert ours.deleted is True
    assert database.read(lambda tx: _BY_ID.all(tx.connection, {"wanted": "100%", "deleted": False})) == []


def test_what_the_database_refuses_is_named_as_by_the_core(database: SqlDatabase) -> None:
    def twice(tx: Any) -> None:
        _INSERT.run(tx.connection, row("a"))
        _INSERT.run(tx.connection, row("a"))

    def broken(tx: Any) -> None:
        execute(tx.connection, "SELECT nothing FROM nowhere")

    with pytest.raises(sa.exc.IntegrityError):
        _raw(database, twice)
    with pytest.raises(sa.exc.DBAPIError) as refused:
        _raw(database, broken)
    assert not refused.value.connection_invalidated


def _raw(database: SqlDatabase, work: Any) -> None:
    """Run *work* outside the writer, which would put the error into the hub's words."""
    with database.engine.connect() as connection, connection.begin() as transaction:
        try:
            work(type("Tx", (), {"connection": connection}))
        finally:
            transaction.rollback()


def test_a_read_is_of_one_moment(database: SqlDatabase) -> None:
    counted = sa.select(sa.func.count()).select_from(record_history)

    def work(tx: Any) -> tuple[int, Any]:
        before = _BY_ID.all(tx.connection, {"wanted": "later", "deleted": False})
        database.write(lambda other: _INSERT.run(other.connection, row("later")))
        return len(before), tx.connection.execute(counted).scalar()

    assert database.read(work) == (0, 0)


def test_a_value_that_is_missing_is_an_error(database: SqlDatabase) -> None:
    with pytest.raises(KeyError):
        database.read(lambda tx: _BY_ID.first(tx.connection, {"wanted": "a"}))


@pytest.mark.parametrize(
    "statement",
    [
        sa.select(record.c.rid).where(record.c.id.in_(sa.bindparam("ids", expanding=True))),
        sa.select(sa.func.json_each(journal.c.body)),
    ],
)
def test_a_statement_whose_text_or_values_are_not_plain_is_refused(database: SqlDatabase, statement: Any) -> None:
    with pytest.raises(TypeError):
        database.read(lambda tx: Prepared(statement).all(tx.connection, {"ids": ["a"]}))


def test_defaults_of_the_schema_are_not_left_out_silently(database: SqlDatabase) -> None:
    some = Prepared(sa.insert(imaging_series), keys=["owner", "StudyInstanceUID", "SeriesInstanceUID"])

    with pytest.raises(TypeError):
        _raw(database, lambda tx: some.run(tx.connection, {"owner": "KN"}))
