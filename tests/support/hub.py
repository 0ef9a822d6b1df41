"""Services over a temporary database, a memory object store and a clock that tests can set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hub.boot import Services
from hub.config import Settings
from hub.ports import Member, MemberEndpoint, Tx
from storage.objects.memory import MemoryStore
from storage.sql.database import SqlDatabase
from storage.sql.engines import engines
from tests.support.databases import migrate

NOW = datetime(2025, 6, 11, 8, 30, tzinfo=UTC)


@dataclass
class SetClock:
    """A clock that moves only when told to."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def members(*endpoints: MemberEndpoint) -> list[Member]:
    """Return a member for each code that *endpoints* name, and the operator."""
    codes = {"YY", *(one.member for one in endpoints)}
    return [Member(code=code, organization_id=f"org-{code.lower()}", name=f"{code}（测试）") for code in sorted(codes)]


@pytest.fixture
def set_clock() -> SetClock:
    return SetClock()


@pytest.fixture
def hub_services(tmp_path: Path, database_url: str, set_clock: SetClock) -> Iterator[Services]:
    """Services of a node called ``test``, once on SQLite and once on PostgreSQL."""
    yield from _services(tmp_path, database_url, set_clock)


@pytest.fixture
def sqlite_services(tmp_path: Path, set_clock: SetClock) -> Iterator[Services]:
    """Services on SQLite, where the kind of database does not matter."""
    url = f"sqlite:///{tmp_path / 'hub.db'}"
    migrate(url)
    yield from _services(tmp_path, url, set_clock)


def _services(tmp_path: Path, url: str, clock: SetClock) -> Iterator[Services]:
    settings = Settings(data_dir=tmp_path, database_url=url, objects_url="memory://")
    writer, readers = engines(url)
    database = SqlDatabase(writer, node="test", clock=clock, readers=readers)
    services = Services(settings=settings, database=database, objects=MemoryStore(), node="test", clock=clock)
    try:
        yield services
    finally:
        services.close()


def register(services: Services, *endpoints: MemberEndpoint) -> None:
    """Make *endpoints* and their members known."""

    def work(tx: Tx) -> None:
        tx.members.replace(members(*endpoints), list(endpoints), [])

    services.database.write(work)
    services.directory.refresh()
