"""The migrations make exactly the tables that the stores are written for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import storage.migrations
import storage.sql.schema
from hub.errors import Category, HubError
from storage.sql.engines import engines
from storage.sql.migrate import current, newest, require_current, upgrade
from storage.sql.schema import metadata
from tests.support.databases import PostgresServer


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


def test_an_empty_database_is_refused_until_it_is_migrated(empty_url: str) -> None:
    writer, _ = engines(empty_url)
    with pytest.raises(HubError) as caught:
        require_current(writer)
    upgrade(writer)
    require_current(writer)
    upgrade(writer)
    found = current(writer)
    writer.dispose()

    assert caught.value.category is Category.FAULT
    assert "hub migrate" in caught.value.remedy
    assert found == newest()


def catalogue(connection: sa.Connection) -> dict[str, Any]:
    """Return all that the database itself knows about its tables, by name, without those that alembic keeps."""
    read = _sqlite_facts if connection.dialect.name == "sqlite" else _postgresql_facts
    return {name: facts for name, facts in read(connection) if not name.startswith("alembic_version")}


#: Each gives the table first, then the kind of fact, its name, and what the server itself says about it.
_POSTGRESQL_FACTS = (
    """
    SELECT c.relname, 'column', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, k.collname,
           pg_get_expr(d.adbin, d.adrelid), a.attidentity, a.attgenerated
      FROM pg_attribute a
      JOIN pg_class c ON c.oid = a.attrelid
      LEFT JOIN pg_collation k ON k.oid = a.attcollation
      LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
    """,
    """
    SELECT c.relname, 'constraint', o.conname, pg_get_constraintdef(o.oid)
      FROM pg_constraint o JOIN pg_class c ON c.oid = o.conrelid
     WHERE c.relnamespace = 'public'::regnamespace
    """,
    """
    SELECT c.relname, 'index', i.relname, pg_get_indexdef(i.oid), i.reloptions::text
      FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class c ON c.oid = x.indrelid
     WHERE c.relnamespace = 'public'::regnamespace
    """,
    """
    SELECT c.relname, 'table', c.relkind::text, c.relpersistence::text, c.reloptions::text, c.relrowsecurity
      FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'S', 'v', 'm')
    """,
)


def _postgresql_facts(connection: sa.Connection) -> Iterator[tuple[str, tuple[Any, ...]]]:
    for statement in _POSTGRESQL_FACTS:
        for table, *facts in connection.exec_driver_sql(statement):
            yield f"{table} {facts[0]} {facts[1]}", tuple(facts)


def _sqlite_facts(connection: sa.Connection) -> Iterator[tuple[str, tuple[Any, ...]]]:
    def ask(statement: str) -> list[Any]:
        return list(connection.exec_driver_sql(statement))

    made = ask("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")
    conditions = {name: statement.partition(" WHERE ")[2] for name, statement in made}
    for _, table, kind, _, without_rowid, strict in ask("PRAGMA main.table_list"):
        if table.startswith("sqlite_"):
            continue
        yield table, (kind, without_rowid, strict)
        for _, column, type_, not_null, default, primary, hidden in ask(f'PRAGMA table_xinfo("{table}")'):
            yield f"{table} column {column}", (type_, not_null, default, primary, hidden)
        for _, index, unique, origin, partial in ask(f'PRAGMA index_list("{table}")'):
            parts = tuple(tuple(part)[2:] for part in ask(f'PRAGMA index_xinfo("{index}")'))
            yield f"{table} index {index}", (unique, origin, partial, parts, conditions.get(index, ""))
    # The names of the keys stand nowhere but in the statement.
    for table, statement in ask("SELECT name, sql FROM sqlite_master WHERE type = 'table'"):
        named = (line.strip().rstrip(",") for line in statement.splitlines() if "CONSTRAINT" in line)
        yield f"{table} constraints", tuple(sorted(named))


def wanted_catalogue(url: str) -> dict[str, Any]:
    """Return the catalogue of a database at *url* that the schema itself has made."""
    writer, _ = engines(url)
    with writer.begin() as connection:
        metadata.create_all(connection)
        found = catalogue(connection)
    writer.dispose()
    return found


@pytest.fixture
def other_empty_url(request: pytest.FixtureRequest, empty_url: str, tmp_path: Path) -> str:
    if empty_url.startswith("sqlite"):
        return f"sqlite:///{tmp_path / 'other.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


def test_the_migrations_make_the_tables_of_the_schema(empty_url: str, other_empty_url: str) -> None:
    """Columns, types, collations, nullability, defaults, keys and indexes with their conditions, as the database says."""
    writer, _ = engines(empty_url)
    upgrade(writer)
    with writer.connect() as connection:
        differences = compare_metadata(
            MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True}),
            metadata,
        )
        found = catalogue(connection)
    writer.dispose()

    assert differences == []
    assert found == wanted_catalogue(other_empty_url)


def test_the_catalogue_tells_what_a_comparison_must_not_miss(empty_url: str) -> None:
    found = wanted_catalogue(empty_url)
    pending = next(facts for name, facts in found.items() if name.endswith("index ix_journal_pending"))
    names = " ".join(found)

    assert "received" in str(pending)
    assert all(
        f"{table.name} column {column.name}" in found for table in metadata.tables.values() for column in table.c
    )
    assert all(str(index.name) in names for table in metadata.tables.values() for index in table.indexes)
    assert "pk_journal" in str(found), "the names of the keys count"
    assert "uq_audit_id" in str(found)


def test_a_revision_makes_the_same_tables_whatever_the_schema_of_today_is(
    empty_url: str, other_empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = wanted_catalogue(other_empty_url)
    monkeypatch.setattr(storage.sql.schema, "metadata", sa.MetaData())
    writer, _ = engines(empty_url)
    upgrade(writer)
    with writer.connect() as connection:
        found = catalogue(connection)
    writer.dispose()

    assert found == wanted


def test_a_newer_schema_than_this_version_knows_is_refused(empty_url: str) -> None:
    writer, _ = engines(empty_url)
    upgrade(writer)
    with writer.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(HubError) as caught:
        require_current(writer)
    writer.dispose()

    assert "9999" in caught.value.message


_NODE = """
import sys
from storage.sql.engines import engines
from storage.sql.migrate import require_current, upgrade
writer, _ = engines(sys.argv[1])
upgrade(writer)
require_current(writer)
"""


def test_nodes_that_start_at_once_migrate_once(empty_url: str) -> None:
    nodes = [subprocess.Popen([sys.executable, "-c", _NODE, empty_url], cwd=Path.cwd()) for _ in range(3)]

    assert [node.wait(60) for node in nodes] == [0, 0, 0]


def test_text_compares_by_code_point_on_postgresql(postgres: PostgresServer) -> None:
    writer, _ = engines(postgres.migrated_database())
    with writer.connect() as connection:
        collations = set(
            connection.exec_driver_sql(
                "SELECT collation_name FROM information_schema.columns"
                " WHERE table_name LIKE 'idx_%%' AND data_type = 'character varying'"
            ).scalars()
        )
    writer.dispose()

    assert collations == {"C"}


def test_the_newest_revision_is_the_one_alembic_would_go_to() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(storage.migrations.__file__).parent))
    assert newest() == ScriptDirectory.from_config(config).get_current_head()


def test_an_open_database_does_not_load_alembic() -> None:
    code = "import sys, storage.sql; sys.exit('alembic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
