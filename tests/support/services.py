"""The hub's services in one process, on SQLite and files in a temporary folder, with the sample consortium."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hub.boot import Services
from hub.clock import Clock, utc_now
from hub.config import Settings
from storage.objects import open_store
from tests.support.databases import migrate, opened

MEMBERS = Path(__file__).parent.parent.parent / "sample_data" / "members" / "consortium.json"


def consortium() -> list[dict[str, Any]]:
    """Return the sample consortium's resources."""
    return [entry["resource"] for entry in json.loads(MEMBERS.read_text("utf-8"))["entry"]]


@contextlib.contextmanager
def running(folder: Path, *, clock: Clock = utc_now, url: str | None = None, **settings: Any) -> Iterator[Services]:
    """Open the services on *url* (or SQLite in *folder*) and import the sample consortium."""
    chosen = Settings(data_dir=folder, **settings)
    database_url = url or chosen.database()
    if url is None:
        migrate(database_url)
    objects = open_store(chosen.objects(), data_dir=folder, min_free_bytes=0)
    with opened(database_url, clock=clock) as database:
        services = Services(settings=chosen, database=database, objects=objects, node="test", clock=clock)
        services.directory.load(consortium())
        yield services
