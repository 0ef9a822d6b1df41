"""Schema migrations by alembic, from the first table on.

``hub migrate`` runs :func:`upgrade`; every other command refuses a database whose schema is not the newest.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from hub.config import Settings
from hub.errors import Category, HubError
from storage.sql.engines import engines

_LOCATION = Path(__file__).parent.parent / "migrations"


#: What names a revision and the one before it, in the files of the revisions.
_REVISION = re.compile(r'^(?P<name>revision|down_revision)\b[^=\n]*= *"(?P<value>[^"]+)"', re.MULTILINE)


def upgrade(engine: Engine) -> None:
    """Bring the schema of *engine* to the newest revision; safe to repeat, and safe when several nodes start at once."""
    # Only this needs alembic, which every process of the hub would else hold 10 MB for.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_LOCATION))
    config.attributes["engine"] = engine
    command.upgrade(config, "head")


def current(engine: Engine) -> str | None:
    """Return the revision the database is at, or ``None`` for an empty one."""
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        found: str | None = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
        return found


@cache
def newest() -> str | None:
    """Return the newest revision this version brings: the one that no other comes after."""
    found: dict[str, set[str]] = {"revision": set(), "down_revision": set()}
    for path in (_LOCATION / "versions").glob("*.py"):
        for match in _REVISION.finditer(path.read_text("utf-8")):
            found[match["name"]].add(match["value"])
    heads = found["revision"] - found["down_revision"]
    assert len(heads) == 1, "The revisions must form one line."
    return heads.pop()


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
        HubError: as :func:`storage.sql.engines.engines`.
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
