"""The migrations make exactly the tables that the stores are written for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import storage.migrations
from hub.errors import Category, HubError
from storage.sql.database import engines
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


def test_the_migrations_make_the_tables_of_the_schema(empty_url: str) -> None:
    writer, _ = engines(empty_url)
    upgrade(writer)
    with writer.connect() as connection:
        differences = compare_metadata(
            MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True}),
            metadata,
        )
        found = sa.inspect(connection)
        names = {one["name"] for table in metadata.tables for one in found.get_indexes(table)}
    writer.dispose()

    assert differences == []
    assert {str(index.name) for table in metadata.tables.values() for index in table.indexes} <= names


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
from storage.sql.database import engines
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
