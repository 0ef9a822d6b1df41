"""What a store remembers of sound objects: enough to hash a study once, and never more than it saw."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.errors import HubError
from storage.objects import reading
from storage.objects import verified as verified_module
from storage.objects.file import FileStore
from storage.objects.verified import KEEP_S, SETTLED_S, Board, Verified

DIGEST = "ab" * 32


class Clock:
    """Both clocks of a Verified, standing still until they are moved."""

    def __init__(self, at: float = 0.0) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "object"
    path.write_bytes(b"bytes")
    fd = os.open(path, os.O_RDWR)
    yield fd
    os.close(fd)


def remembering(fd: int, *, after_s: float = SETTLED_S + 1) -> tuple[Verified, Clock]:
    monotonic = Clock()
    verified = Verified(board=Board(), now_s=Clock(os.fstat(fd).st_ctime + after_s), monotonic=monotonic)
    return verified, monotonic


def test_an_object_that_was_hashed_is_known(opened: int) -> None:
    verified, _ = remembering(opened)
    look = verified.look(DIGEST, opened)
    assert look is not None
    look.sound()

    assert verified.look(DIGEST, opened) is None


def test_an_object_that_was_only_looked_at_is_not_known(opened: int) -> None:
    verified, _ = remembering(opened)
    verified.look(DIGEST, opened)

    assert verified.look(DIGEST, opened) is not None


def test_another_file_of_the_same_name_is_not_known(opened: int, tmp_path: Path) -> None:
    verified, _ = remembering(opened)
    look = verified.look(DIGEST, opened)
    assert look is not None
    look.sound()
    (tmp_path / "other").write_bytes(b"bytes")

    with (tmp_path / "other").open("rb") as other:
        assert verified.look(DIGEST, other.fileno()) is not None


def test_a_file_changed_so_lately_that_its_time_says_nothing_is_not_remembered(opened: int) -> None:
    verified, _ = remembering(opened, after_s=SETTLED_S - 1)
    look = verified.look(DIGEST, opened)
    assert look is not None
    look.sound()

    assert verified.look(DIGEST, opened) is not None


def test_a_file_touched_while_it_was_read_is_not_remembered(opened: int) -> None:
    verified, _ = remembering(opened)
    look = verified.look(DIGEST, opened)
    os.utime(opened, ns=(1, 1))
    assert look is not None
    look.sound()

    assert verified.look(DIGEST, opened) is not None


def test_what_was_known_ends_after_its_time(opened: int) -> None:
    verified, monotonic = remembering(opened)
    look = verified.look(DIGEST, opened)
    assert look is not None
    look.sound()
    monotonic.at = KEEP_S + 1

    assert verified.look(DIGEST, opened) is not None


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The streams that hashed, one number each."""
    made: list[int] = []

    class Counting:
        def __init__(self) -> None:
            made.append(len(made))
            self._real = real()

        def update(self, data: bytes) -> None:
            self._real.update(data)

        def hexdigest(self) -> str:
            return self._real.hexdigest()

    real = reading.hashlib.sha256
    monkeypatch.setattr(reading.hashlib, "sha256", Counting)
    return made


@pytest.fixture
def later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileStore]:
    """A store whose clock is ahead, so that all its objects are settled, with a memory of its own."""
    monkeypatch.setattr(verified_module, "SHARED", Board())
    store = FileStore(tmp_path / "objects", now_s=lambda: 4e9)
    yield store
    store.close()


def touched(root: Path, digest: str) -> None:
    path = root / "objects" / digest[:2] / digest
    before = path.stat()
    while path.stat().st_ctime_ns == before.st_ctime_ns:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_what_was_hashed_when_it_came_is_not_hashed_when_it_goes(later: FileStore, hashes: list[int]) -> None:
    data = os.urandom(300_000)
    ref = later.put_bytes(data)
    hashes.clear()

    assert b"".join(later.stream(ref.digest, chunk_bytes=65536)) == data
    assert hashes == []


def test_a_study_read_twice_is_hashed_once(later: FileStore, hashes: list[int], tmp_path: Path) -> None:
    data = os.urandom(300_000)
    ref = later.put_bytes(data)
    touched(tmp_path, ref.digest)
    hashes.clear()

    assert b"".join(later.stream(ref.digest, chunk_bytes=65536)) == data
    assert b"".join(later.stream(ref.digest, chunk_bytes=65536)) == data
    assert len(hashes) == 1


def test_a_stream_that_was_left_early_vouches_for_nothing(later: FileStore, hashes: list[int], tmp_path: Path) -> None:
    ref = later.put_bytes(os.urandom(300_000))
    touched(tmp_path, ref.digest)
    hashes.clear()
    first = later.stream(ref.digest, chunk_bytes=65536)
    next(first)
    first.close()

    list(later.stream(ref.digest))
    assert len(hashes) == 2


def test_an_object_that_was_there_before_vouches_for_nothing(
    later: FileStore, hashes: list[int], tmp_path: Path
) -> None:
    data = os.urandom(1000)
    ref = later.put_bytes(data)
    touched(tmp_path, ref.digest)
    later.put_bytes(data)
    hashes.clear()

    list(later.stream(ref.digest))
    assert len(hashes) == 1


def test_processes_forked_from_this_one_know_what_it_has_hashed(opened: int) -> None:
    board = Board()
    child = os.fork()
    if child == 0:
        Verified(board=board).received(DIGEST, opened)
        os._exit(0)
    os.waitpid(child, 0)

    assert Verified(board=board).look(DIGEST, opened) is None


def test_an_entry_torn_by_another_writer_vouches_for_nothing(opened: int) -> None:
    board = Board()
    verified = Verified(board=board)
    verified.received(DIGEST, opened)
    mark, until = board.read(DIGEST)
    board.write(DIGEST, mark, until + 1)

    assert verified.look(DIGEST, opened) is not None


def test_damage_done_after_a_sound_read_is_found_by_every_read(later: FileStore, tmp_path: Path) -> None:
    data = os.urandom(100_000)
    ref = later.put_bytes(data)
    assert later.read(ref.digest) == data
    assert b"".join(later.stream(ref.digest)) == data

    # Same length, same inode, and the time of the bytes set back: what is left to see it by is the time of the change.
    path = tmp_path / "objects" / ref.digest[:2] / ref.digest
    before = path.stat()
    with path.open("r+b") as handle:
        handle.write(bytes([data[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    while path.stat().st_ctime_ns == before.st_ctime_ns:
        # Both in one tick of the kernel's clock, which is why a store waits until a time has settled.
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    with pytest.raises(HubError):
        later.read(ref.digest)
    with pytest.raises(HubError):
        list(later.stream(ref.digest))
    assert not later.verify(ref.digest)


def test_verify_reads_what_is_remembered_too(later: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = later.put_bytes(b"x" * 1000)
    later.read(ref.digest)
    hashed: list[str] = []
    real = reading.hashlib.file_digest

    def counting(*args: object) -> object:
        hashed.append("once")
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(reading.hashlib, "file_digest", counting)

    assert later.verify(ref.digest)
    assert hashed == ["once"]
