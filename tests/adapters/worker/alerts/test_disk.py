"""The data disk is told of while its room is short, once when that begins and once when it is over."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from adapters.worker.alerts.disk import BYTES, SHARE
from hub.boot import Services
from tests.adapters.worker.alerts.conftest import Turn, told
from tests.support.hub import SetClock

TOTAL = 100 << 30
#: The least share of free room of which nothing is said.
ENOUGH = round(TOTAL * SHARE)


class Usage(NamedTuple):
    total: int
    used: int
    free: int


class Disk:
    """The disk that the hub sees; ``None`` cannot be read."""

    def __init__(self) -> None:
        self.total = TOTAL
        self.free: int | None = TOTAL
        self.asked: list[Path] = []

    def usage(self, path: Path) -> Usage:
        self.asked.append(path)
        if self.free is None:
            raise OSError(5, "Input/output error")
        return Usage(self.total, self.total - self.free, self.free)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    one = Disk()
    monkeypatch.setattr(shutil, "disk_usage", one.usage)
    return one


def test_a_disk_with_room_is_not_told_of_and_the_data_folder_is_what_counts(
    sqlite_services: Services, disk: Disk, turn: Turn
) -> None:
    disk.free = ENOUGH
    assert turn() == []
    assert set(disk.asked) == {sqlite_services.settings.data_dir}


def test_short_room_is_told_once_and_once_more_when_it_is_over(
    sqlite_services: Services, disk: Disk, turn: Turn, set_clock: SetClock
) -> None:
    disk.free = ENOUGH - 1
    assert turn() == ["disk"]
    assert turn() == ["disk"]
    assert len(told(sqlite_services)) == 1
    disk.free = TOTAL
    assert turn() == []
    assert turn() == []
    assert len(told(sqlite_services)) == 2
    set_clock.forward(60)
    disk.free = 0
    assert turn() == ["disk"], "a full disk is told of like a short one"
    assert len(told(sqlite_services)) == 3


def test_what_swings_about_the_limit_is_told_once(sqlite_services: Services, disk: Disk, turn: Turn) -> None:
    disk.free = ENOUGH - 1
    turn()
    for free in (ENOUGH, ENOUGH - 1, round(ENOUGH * 1.1) - 1, ENOUGH + 1):
        disk.free = free
        assert turn() == ["disk"]
    assert len(told(sqlite_services)) == 1
    disk.free = round(ENOUGH * 1.1) + 1
    assert turn() == []


def test_on_a_large_disk_the_bytes_count(disk: Disk, turn: Turn) -> None:
    disk.total = 100 * TOTAL
    disk.free = BYTES
    assert turn() == []
    disk.free = BYTES - 1
    assert turn() == ["disk"]
    disk.free = round(BYTES * 1.1) - 1
    assert turn() == ["disk"]
    disk.free = round(BYTES * 1.1) + 1
    assert turn() == []


def test_a_volume_that_cannot_be_read_is_told_of_and_clears_nothing(
    sqlite_services: Services, disk: Disk, turn: Turn
) -> None:
    disk.free = None
    assert turn() == ["disk"]
    assert "cannot be read" in told(sqlite_services)[0]
    disk.free = TOTAL
    assert turn() == []
    disk.free = ENOUGH - 1
    assert turn() == ["disk"]
    disk.free = None
    assert turn() == ["disk"]
    disk.free = TOTAL
    assert turn() == []
