"""The rooms of a spool area: folders of limited size, in block groups of their own where the file system has them."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

import pytest

from storage.objects import spool as module
from storage.objects.block_groups import spread
from storage.objects.spool import SpoolArea

_GET_FLAGS, _TOP = 0x80086601, 0x00020000


@pytest.fixture
def area(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SpoolArea:
    monkeypatch.setattr(module, "FILES_PER_FOLDER", 3)
    return SpoolArea(tmp_path / "tmp")


def _folders(area: SpoolArea) -> set[Path]:
    return {path for path in area.room.iterdir() if path.is_dir()}


def test_a_folder_takes_a_limited_number_of_files(area: SpoolArea) -> None:
    spools = [area.spool(max_bytes=10) for _ in range(7)]
    paths = [one.path for one in spools if one.path is not None]
    counts = sorted(sum(path.parent == folder for path in paths) for folder in _folders(area))
    assert counts == [1, 3, 3]
    for one in spools:
        one.close()


def test_folders_that_have_become_empty_are_taken_away(area: SpoolArea) -> None:
    for _ in range(30):
        area.spool(max_bytes=10).close()
    assert len(_folders(area)) == 1


def test_a_folder_with_a_file_in_it_stays_and_goes_later(area: SpoolArea) -> None:
    slow = area.spool(max_bytes=10)
    assert slow.path is not None
    kept = slow.path.parent
    for _ in range(9):
        area.spool(max_bytes=10).close()
    assert kept in _folders(area)
    slow.write(b"still here")
    with slow.open() as stream:
        assert stream.read() == b"still here"
    slow.close()
    for _ in range(6):
        area.spool(max_bytes=10).close()
    assert kept not in _folders(area)
    assert len(_folders(area)) == 1


def test_closing_the_area_takes_everything_away(area: SpoolArea, tmp_path: Path) -> None:
    left = area.spool(max_bytes=10)
    area.close()
    left.close()
    assert {path.name for path in (tmp_path / "tmp").iterdir()} == {".lock"}


def test_an_area_that_was_forgotten_lets_go_of_its_lock(tmp_path: Path) -> None:
    def held() -> int:
        opened = [one for one in Path("/proc/self/fd").iterdir() if one.is_symlink()]
        return sum(str(one.readlink()).startswith(str(tmp_path)) for one in opened if one.exists())

    area = SpoolArea(tmp_path / "tmp")
    room = area.room
    assert held() == 1
    del area

    assert held() == 0
    SpoolArea(tmp_path / "tmp").close()
    assert not room.exists()


def test_the_promise_of_own_block_groups_is_kept_as_a_flag(tmp_path: Path) -> None:
    promised = spread(tmp_path)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        flags = struct.unpack_from("@i", fcntl.ioctl(fd, _GET_FLAGS, bytes(8)))[0]
    except OSError:
        flags = 0
    finally:
        os.close(fd)
    assert promised == bool(flags & _TOP)
    assert spread(tmp_path) == promised


def test_a_folder_that_cannot_be_opened_promises_nothing(tmp_path: Path) -> None:
    assert spread(tmp_path / "missing") is False
