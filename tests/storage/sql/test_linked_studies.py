"""How the links between institutions' patients are followed: by indexes, and at no cost where nobody is linked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from hub.access import Scope
from hub.attribute_matching import parse
from hub.imaging_ids import number_record_id
from hub.ports import NewVersion
from storage.sql.database import SqlDatabase
from tests.support.plans import full_scans, plan

YL = Scope(institution="YL")
TABLES = ("imaging_study", "imaging_series", "imaging_instance", "record", "idx_reference", "idx_token")


def patient(owner: str, number: str, merged_into: str = "") -> NewVersion:
    resource: dict[str, Any] = {
        "resourceType": "Patient", "id": number_record_id(owner, number), "identifier": [{"value": number}]
    }  # fmt: skip
    if merged_into:
        other = {"reference": f"Patient/{number_record_id(owner, merged_into)}"}
        resource["link"] = [{"other": other, "type": "replaced-by"}]
    return NewVersion(resource=resource, owner=owner)


def linkage(number: int, *sides: tuple[str, str]) -> NewVersion:
    items = [
        {"type": kind, "resource": {"reference": f"Patient/{number_record_id(*side)}"}}
        for kind, side in zip(("source", "alternate"), sides, strict=True)
    ]
    resource = {"resourceType": "Linkage", "id": f"l{number}", "active": True, "item": items}
    return NewVersion(resource=resource, owner="YY")


def fill(database: SqlDatabase) -> None:
    versions = []
    for number in range(60):
        versions += [patient("KN", f"K{number}"), patient("YL", f"Y{number}")]
        versions.append(linkage(number, ("KN", f"K{number}"), ("YL", f"Y{number}")))
    versions += [patient("KN", "dead", merged_into="K1"), patient("YL", "gone", merged_into="Y2")]
    database.write(lambda tx: tx.records.put_many(versions))


def work(tx: Any) -> None:
    for keys in ({"PatientID": "Y1"}, {"PatientID": "Y1\\Y2"}, {"PatientID": "Y1", "IssuerOfPatientID": "YL"}):
        matches = [match for name, value in keys.items() if (match := parse(name, value, level="study")) is not None]
        for query in (tx.imaging.studies, tx.imaging.series, tx.imaging.instances, tx.imaging.patients):
            query(YL, matches, limit=50)
        tx.imaging.count("study", YL, matches)
    foreign = [number_record_id("KN", one) for one in ("K1", "K2", "dead", "K90")]
    assert len(tx.identity.persons("YL", foreign)) == 3
    assert len(tx.identity.persons("YL", [number_record_id("YL", "gone")])) == 1


def test_sqlite_follows_links_by_indexes_alone(sqlite_database: SqlDatabase) -> None:
    fill(sqlite_database)
    assert full_scans(plan(sqlite_database, work), *TABLES) == []


def test_postgresql_follows_links_by_indexes_alone(postgres_database: SqlDatabase) -> None:
    fill(postgres_database)
    asked: list[tuple[str, Any]] = []

    def watch(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: Any) -> None:
        asked.append((statement, parameters))

    sa.event.listen(postgres_database.engine, "before_cursor_execute", watch)
    try:
        postgres_database.write(work)
    finally:
        sa.event.remove(postgres_database.engine, "before_cursor_execute", watch)

    def explain(tx: Any) -> list[str]:
        # Few rows make the planner prefer a scan; forbidden, it takes one only where no index serves.
        tx.connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        lines = []
        for statement, parameters in asked:
            if "idx_reference" in statement and statement.lstrip().startswith(("SELECT", "WITH")):
                lines += [row[0] for row in tx.connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)]
        return lines

    lines = postgres_database.write(explain)
    assert any("idx_reference" in line for line in lines)
    assert [line for line in lines if "Seq Scan on idx_reference" in line or "Seq Scan on record" in line] == []


def test_without_any_link_a_query_looks_once_and_no_further(sqlite_database: SqlDatabase) -> None:
    [match] = [parse("PatientID", "Y1", level="study")]

    def steps() -> list[str]:
        return plan(sqlite_database, lambda tx: tx.imaging.studies(YL, [match], limit=50))

    before = steps()
    fill(sqlite_database)
    assert len(steps()) > len(before)
    looks = [step for step in before if "idx_reference" in step and "target_id" not in step]
    assert len(looks) == 1


def test_links_of_many_patients_take_few_statements(sqlite_database: SqlDatabase) -> None:
    fill(sqlite_database)

    def statements(count: int) -> int:
        asked: list[str] = []

        def trace(connection: sa.Connection) -> None:
            driver: Any = connection.connection.dbapi_connection
            driver.set_trace_callback(asked.append)

        def ask(tx: Any) -> None:
            ids = [number_record_id("KN", f"K{number}") for number in range(10, 10 + count)]
            assert len(tx.identity.persons("YL", ids)) == count

        sa.event.listen(sqlite_database.engine, "begin", trace)
        try:
            sqlite_database.write(ask)
        finally:
            sa.event.remove(sqlite_database.engine, "begin", trace)
        return len(asked)

    assert statements(40) == statements(2)


@pytest.fixture
def postgres_database(postgres: Any) -> Iterator[SqlDatabase]:
    from tests.support.databases import opened

    with opened(postgres.migrated_database()) as one:
        yield one
