"""Schema migrations by alembic, from the first table on.

``hub migrate`` runs :func:`upgrade`; every other command refuses a database whose schema is not the newest.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Engine

from hub.config import Settings
from hub.errors import Category, HubError
from storage.sql.database import engines

_LOCATION = Path(__file__).parent.parent / "migrations"


def _config(engine: Engine) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_LOCATION))
    config.attributes["engine"] = engine
    return config


def upgrade(engine: Engine) -> None:
    """Bring the schema of *engine* to the newest revision; safe to repeat, and safe when several nodes start at once."""
    command.upgrade(_config(engine), "head")


def current(engine: Engine) -> str | None:
    """Return the revision the database is at, or ``None`` for an empty one."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def newest() -> str | None:
    """Return the newest revision this version brings."""
    config = Config()
    config.set_main_option("script_location", str(_LOCATION))
    return ScriptDirectory.from_config(config).get_current_head()


def require_current(engine: Engine) -> None:
    """Raise HubError(fault) unless the schema is the newest."""
    try:
        found = current(engine)
    except sa.exc.OperationalError as error:
        raise HubError(Category.UNAVAILABLE, "The database does not answer.", remedy="Check that it runs.") from error
    if found != newest():
        raise HubError(
            Category.FAULT,
            f"The database schema is at {found or 'nothing'}, this version needs {newest()}.",
            where="database",
            remedy="Run `hub migrate`, then start again.",
        )


def migrate(settings: Settings) -> str | None:
    """Bring the database of *settings* to the newest schema; returns the revision it had before.

    Raises:
        HubError: as :func:`storage.sql.database.engines`.
    """
    writer, readers = engines(settings.database())
    try:
        before = current(writer)
        if before != newest():
            upgrade(writer)
        return before
    finally:
        readers.dispose()
        writer.dispose()
