"""``hub migrate``: bring the database to the schema of this version."""

from __future__ import annotations

from hub.cli.common import command_settings, say, tool


def migrate() -> None:
    """升级数据库结构 / Bring the database to this version's schema; safe to repeat."""
    found = command_settings()
    found.data_dir.mkdir(parents=True, exist_ok=True)
    schema = tool("storage.sql.migrate")
    before, newest = schema.migrate(found), schema.newest()
    if before == newest:
        say(f"已是最新 / already at {newest}")
    else:
        say(f"已升级 / migrated: {before or '-'} -> {newest}")
