"""Audit checkpoints are signed with a key that is made once and kept private."""

from __future__ import annotations

import stat
from pathlib import Path

import sqlalchemy as sa

from adapters.worker.housekeeping import KEY_NAME, Housekeeping, audit_check, audit_key
from hub.actor import HUB
from hub.boot import Services
from hub.ports import AuditLine
from storage.sql.database import SqlDatabase


def audited(services: Services) -> None:
    line = AuditLine(type="admin", action="E", subtype="test", actor=HUB, recorded_at=services.clock())
    services.database.write(lambda tx: tx.audit.write(line))


def broken(services: Services) -> list[str]:
    check = audit_check(services.settings.data_dir)
    return services.database.read(lambda tx: list(tx.audit.verify(check)))


def test_the_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    first, again = audit_key(tmp_path), audit_key(tmp_path)
    assert first.public_key() == again.public_key()
    assert stat.S_IMODE((tmp_path / "keys" / KEY_NAME).stat().st_mode) == 0o600


def test_a_chain_with_checkpoints_holds(hub_services: Services) -> None:
    keeper = Housekeeping(hub_services)
    for _ in range(3):
        audited(hub_services)
        keeper.turn()
    assert broken(hub_services) == []


def test_a_cut_end_shows_against_the_checkpoint(sqlite_services: Services) -> None:
    audited(sqlite_services)
    audited(sqlite_services)
    Housekeeping(sqlite_services).turn()
    database = sqlite_services.database
    assert isinstance(database, SqlDatabase)
    with database.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM audit WHERE seq = 2"))
    assert broken(sqlite_services) == ["Chain test: its end from 2 to 2 was cut off."]


def test_a_checkpoint_of_another_key_does_not_count(sqlite_services: Services) -> None:
    audited(sqlite_services)
    Housekeeping(sqlite_services).turn()
    (sqlite_services.settings.data_dir / "keys" / KEY_NAME).unlink()
    assert broken(sqlite_services) == ["Chain test: the checkpoint at 1 is not signed by this hub."]
