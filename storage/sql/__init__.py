"""SQL stores: SQLite for one machine, PostgreSQL for several nodes, behind the same ports."""

from __future__ import annotations

from hub.clock import Clock, utc_now
from hub.config import Settings
from storage.sql.database import SqlDatabase
from storage.sql.engines import engines
from storage.sql.migrate import require_current


def open_database(settings: Settings, *, node: str, clock: Clock = utc_now) -> SqlDatabase:
    """Return the database of *settings*, checked for durability and schema version.

    Raises:
        HubError: fault when its settings are weaker than the rules or its schema is not the one of this version;
            unavailable when it does not answer.
    """
    writer, readers = engines(settings.database())
    require_current(writer)
    return SqlDatabase(writer, node=node, clock=clock, readers=readers)
