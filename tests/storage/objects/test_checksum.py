"""The checksum beside the name: every reading is checked, SHA-256 is asked where nothing is written down, and decides."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.errors import HubError
from storage.objects import checksum as module
from storage.objects.cache import Cache
from storage.objects.checksum import ATTRIBUTE
from storage.objects.file import FileStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FileStore]:
    opened = FileStore(tmp_path / "objects")
    # Every file system that Linux keeps temporary files on has attributes; tmpfs since 6.6.
    assert "XXH3 when a whole object is read" in opened.guarantees()["checked"]
    yield opened
    opened.close()


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One number for each reading that asked SHA-256."""
    made: list[int] = []
    real = module.hashlib.sha256

    def counting() -> object:
        made.append(len(made))
        return real()

    monkeypatch.setattr(module.hashlib, "sha256", counting)
    return made


def path_of(tmp_path: Path, digest: str) -> Path:
    return tmp_path / "objects" / digest[:2] / digest


def damage(path: Path) -> None:
    """Change one bit in place, and nothing that a look at the file would show but its time."""
    with path.open("r+b") as handle:
        first = handle.read(1)
        handle.seek(0)
        handle.write(bytes([first[0] ^ 1]))


def test_what_was_hashed_when_it_came_is_not_hashed_again(store: FileStore, hashes: list[int]) -> None:
    data = os.urandom(300_000)
    ref = store.put_bytes(data)
    hashes.clear()

    assert b"".join(store.stream(ref.digest, chunk_bytes=65536)) == data
    assert store.read(ref.digest) == data
    assert hashes == []


def test_damage_is_found_by_every_reading(store: FileStore, tmp_path: Path) -> None:
    ref = store.put_bytes(os.urandom(300_000))
    damage(path_of(tmp_path, ref.digest))

    for _ in range(3):
        with pytest.raises(HubError):
            list(store.stream(ref.digest))
        with pytest.raises(HubError):
            store.read(ref.digest)
    assert not store.verify(ref.digest)


def test_a_file_without_a_checksum_is_hashed_once_and_has_one_then(
    store: FileStore, hashes: list[int], tmp_path: Path
) -> None:
    data = os.urandom(300_000)
    ref = store.put_bytes(data)
    os.removexattr(path_of(tmp_path, ref.digest), ATTRIBUTE)
    hashes.clear()

    assert b"".join(store.stream(ref.digest, chunk_bytes=65536)) == data
    assert b"".join(store.stream(ref.digest, chunk_bytes=65536)) == data
    assert len(hashes) == 1


def test_a_stream_that_was_left_early_vouches_for_nothing(store: FileStore, hashes: list[int], tmp_path: Path) -> None:
    ref = store.put_bytes(os.urandom(300_000))
    os.removexattr(path_of(tmp_path, ref.digest), ATTRIBUTE)
    hashes.clear()
    first = store.stream(ref.digest, chunk_bytes=65536)
    next(first)
    first.close()

    list(store.stream(ref.digest))
    assert len(hashes) == 2


def test_damage_without_a_checksum_is_found_and_never_sealed(store: FileStore, tmp_path: Path) -> None:
    ref = store.put_bytes(os.urandom(1000))
    path = path_of(tmp_path, ref.digest)
    os.removexattr(path, ATTRIBUTE)
    damage(path)

    with pytest.raises(HubError):
        store.read(ref.digest)
    assert ATTRIBUTE not in os.listxattr(path)


def test_a_checksum_that_is_wrong_costs_one_reading(store: FileStore, tmp_path: Path) -> None:
    data = os.urandom(1000)
    ref = store.put_bytes(data)
    path = path_of(tmp_path, ref.digest)
    kept = os.getxattr(path, ATTRIBUTE)
    os.setxattr(path, ATTRIBUTE, kept[:-1] + bytes([kept[-1] ^ 1]))

    with pytest.raises(HubError):
        store.read(ref.digest)
    assert store.read(ref.digest) == data
    assert os.getxattr(path, ATTRIBUTE) == kept


def test_the_checksum_of_another_object_says_nothing(store: FileStore, hashes: list[int], tmp_path: Path) -> None:
    one, other = store.put_bytes(b"one"), store.put_bytes(b"other")
    os.setxattr(path_of(tmp_path, one.digest), ATTRIBUTE, os.getxattr(path_of(tmp_path, other.digest), ATTRIBUTE))
    hashes.clear()

    assert store.read(one.digest) == b"one"
    assert len(hashes) == 1


def test_whoever_asks_whether_an_object_is_sound_goes_by_sha_256(store: FileStore, tmp_path: Path) -> None:
    # Somebody who can write to the disk can write a checksum that fits; the name he cannot make fit.
    ref = store.put_bytes(b"what was received")
    path = path_of(tmp_path, ref.digest)
    with path.open("r+b") as handle:
        handle.write(b"WHAT")
    with path.open("rb") as handle:
        module.seal(handle.fileno(), ref.digest, module.xxhash.xxh3_128(handle.read()).digest())

    assert not store.verify(ref.digest)
    with pytest.raises(HubError):
        store.open(ref.digest, verify=True)


def test_a_file_system_without_attributes_is_told_and_read_by_sha_256(
    tmp_path: Path, hashes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_args: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(module.os, "setxattr", refused)
    monkeypatch.setattr(module.os, "getxattr", refused)
    store = FileStore(tmp_path / "objects")
    try:
        assert "no XXH3" in store.guarantees()["checked"]
        ref = store.put_bytes(b"received")
        hashes.clear()
        assert store.read(ref.digest) == b"received"
        assert len(hashes) == 1
        damage(path_of(tmp_path, ref.digest))
        with pytest.raises(HubError):
            store.read(ref.digest)
    finally:
        store.close()


def test_a_copy_in_the_cache_carries_its_checksum(store: FileStore, tmp_path: Path) -> None:
    data = b"from far away"
    ref = store.put_bytes(data)
    cache = Cache(tmp_path / "cache", max_bytes=1 << 20)
    try:
        cache.insert(ref.digest, data)
        copy = cache.open(ref.digest)
        assert copy is not None
        with copy:
            assert os.getxattr(copy.fileno(), ATTRIBUTE) == os.getxattr(path_of(tmp_path, ref.digest), ATTRIBUTE)
    finally:
        cache.close()
