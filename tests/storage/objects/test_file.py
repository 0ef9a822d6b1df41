"""The file driver's own promises: layout, modes, damage, repair, temporary files and full disks."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.errors import Category, HubError
from hub.ports import ObjectRef
from storage.objects.file import FileStore
from storage.objects.sweep import check, scrub


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "objects"


@pytest.fixture
def store(root: Path) -> Iterator[FileStore]:
    opened = FileStore(root)
    yield opened
    opened.close()


def path_of(root: Path, digest: str) -> Path:
    return root / digest[:2] / digest


def test_an_object_is_a_private_file_under_its_digest(store: FileStore, root: Path) -> None:
    digest = store.put_bytes(b"bytes").digest
    found = path_of(root, digest)
    assert found.read_bytes() == b"bytes"
    assert stat.S_IMODE(found.stat().st_mode) == 0o600
    assert found.stat().st_nlink == 1
    assert stat.S_IMODE(root.stat().st_mode) == 0o700


def test_objects_outlive_the_store_and_temporary_files_do_not(root: Path) -> None:
    first = FileStore(root)
    digest = first.put_bytes(b"kept").digest
    first.close()
    second = FileStore(root)
    assert second.read(digest) == b"kept"
    second.close()
    assert [path.name for path in (root / "tmp").iterdir()] == [".lock"]


def test_foreign_files_are_not_objects(store: FileStore, root: Path) -> None:
    (root / "ab" / "notes.txt").write_text("an operator was here")
    ref = store.put_bytes(b"object")
    assert list(store.digests()) == [ref]


@pytest.mark.parametrize("harm", ["flip", "cut", "grow"])
def test_damage_is_found_on_every_whole_read(store: FileStore, root: Path, harm: str) -> None:
    data = os.urandom(100_000)
    ref = store.put_bytes(data)
    changed = {"flip": data[:500] + bytes([data[500] ^ 1]) + data[501:], "cut": data[:-1], "grow": data + b"\0"}[harm]
    path_of(root, ref.digest).write_bytes(changed)

    for read in (lambda: store.read(ref.digest), lambda: store.open(ref.digest, verify=True)):
        with pytest.raises(HubError) as caught:
            read()
        assert caught.value.category is Category.FAULT
    chunks = store.stream(ref.digest, chunk_bytes=4096)
    with pytest.raises(HubError) as caught:
        list(chunks)
    assert caught.value.category is Category.FAULT
    assert not store.verify(ref.digest)
    assert [found.reason for found in check(store, [ref], deep=True)] == ["hash" if harm == "flip" else "size"]
    assert [bad for day in range(2) for bad in scrub(store, day=day, days=2)] == [ref.digest]


@pytest.mark.parametrize("harm", [b"", b"other bytes of any length"])
def test_sending_again_mends_a_damaged_object(store: FileStore, root: Path, harm: bytes) -> None:
    ref = store.put_bytes(b"the right bytes")
    path_of(root, ref.digest).write_bytes(harm)
    assert store.put_bytes(b"the right bytes") == ref
    assert store.read(ref.digest) == b"the right bytes"
    assert list(store.digests()) == [ref]


def test_a_link_planted_under_a_digest_is_not_followed(store: FileStore, root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"secret")
    digest = hashlib.sha256(b"secret").hexdigest()
    path_of(root, digest).symlink_to(elsewhere)
    with pytest.raises(HubError):
        store.read(digest)


def test_a_second_put_keeps_the_sweeper_away(root: Path) -> None:
    clock = [0.0]
    store = FileStore(root, now_s=lambda: clock[0])
    digest = store.put_bytes(b"an orphan until now").digest
    before = path_of(root, digest).stat().st_ctime_ns
    while path_of(root, digest).stat().st_ctime_ns == before:
        store.put_bytes(b"an orphan until now")
    clock[0] = path_of(root, digest).stat().st_ctime + 99
    assert not store.discard(digest, idle_s=100)
    clock[0] += 2
    assert store.discard(digest, idle_s=100)
    store.close()


def test_a_live_process_keeps_its_spool_when_another_starts(root: Path) -> None:
    first = FileStore(root)
    with first.spool(max_bytes=100) as spool:
        spool.write(b"half received")
        second = FileStore(root)
        ref = first.put(spool)
        assert second.read(ref.digest) == b"half received"
        second.close()
    first.close()


def test_the_room_of_a_dead_process_is_removed_at_the_next_start(root: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from storage.objects.file import FileStore\n"
        "spool = FileStore(Path(sys.argv[1])).spool(max_bytes=100)\n"
        "spool.write(b'never finished')\n"
        "os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(root)], check=False).returncode == 9
    left = [path for path in (root / "tmp").rglob("*") if path.is_file() and path.stat().st_size == 14]
    assert len(left) == 1
    store = FileStore(root)
    assert not left[0].exists()
    assert list(store.digests()) == []
    store.close()


@pytest.mark.parametrize("number", [errno.EIO, errno.EBADF])
def test_a_failed_fsync_ends_all_writing(
    store: FileStore, root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    kept = store.put_bytes(b"before").digest

    def fail(fd: int) -> None:
        raise OSError(number, "injected")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(HubError) as caught:
            store.put_bytes(b"lost")
    assert caught.value.category is Category.FAULT
    assert caught.value.fatal
    assert store.stat(hashlib.sha256(b"lost").hexdigest()) is None

    for call in (lambda: store.put_bytes(b"after"), store.healthy, lambda: store.spool(max_bytes=1)):
        with pytest.raises(HubError) as caught:
            call()
        assert caught.value.category is Category.UNAVAILABLE
    assert store.read(kept) == b"before"


def test_a_full_disk_at_fsync_passes(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delayed allocation can report a full disk as late as the fsync."""

    def fail(fd: int) -> None:
        raise OSError(errno.ENOSPC, "injected")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(HubError) as caught:
            store.put_bytes(b"again later")
    assert caught.value.category is Category.UNAVAILABLE
    assert not caught.value.fatal
    assert store.read(store.put_bytes(b"again later").digest) == b"again later"


def test_a_file_size_limit_refuses_and_leaves_nothing(store: FileStore, root: Path) -> None:
    """The kernel itself refuses the write, as on a full disk, and no privilege is needed for the test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with store.spool(max_bytes=1 << 20) as spool:
            spool.write(bytes(90_000))
            with pytest.raises(HubError) as caught:
                spool.write(bytes(90_000))
            with pytest.raises(HubError):
                store.put(spool)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.category is Category.UNAVAILABLE
    assert list(store.digests()) == []
    assert not any(path.stat().st_size for path in (root / "tmp").rglob("*") if path.is_file())


def test_a_nearly_full_disk_refuses_new_data_and_still_reads(root: Path) -> None:
    roomy = FileStore(root)
    digest = roomy.put_bytes(b"kept").digest
    roomy.close()
    free = os.statvfs(root)
    tight = FileStore.__new__(FileStore)
    with pytest.raises(HubError) as caught:
        tight.__init__(root, min_free_bytes=free.f_blocks * free.f_frsize * 2)  # type: ignore[misc]
    assert caught.value.category is Category.UNAVAILABLE
    again = FileStore(root)
    assert again.read(digest) == b"kept"
    again.close()


@pytest.fixture
def small_volume(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB; a test that uses it is marked ``tool("mount")``."""
    volume = tmp_path / "small"
    volume.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", str(volume)], check=True)
    try:
        yield volume
    finally:
        subprocess.run(["umount", "-l", str(volume)], check=True)


@pytest.mark.tool("mount")
def test_a_full_volume_refuses_and_recovers_alone(small_volume: Path) -> None:
    store = FileStore(small_volume / "objects")
    assert store.guarantees()["durable"].startswith("no")
    stored: list[ObjectRef] = []

    def fill() -> None:
        for number in range(100):
            stored.append(store.put_bytes(bytes([number]) * 200_000))

    with pytest.raises(HubError) as caught:
        fill()
    assert caught.value.category is Category.UNAVAILABLE
    assert stored
    assert sorted(store.digests(), key=lambda ref: ref.digest) == sorted(stored, key=lambda ref: ref.digest)
    assert all(store.verify(ref.digest) for ref in stored)

    store.delete(stored.pop().digest)
    ref = store.put_bytes(b"room again" * 1000)
    assert store.verify(ref.digest)
    store.close()


def test_an_unusable_root_is_said_at_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(HubError) as caught:
        FileStore(tmp_path / "file" / "objects")
    assert caught.value.category in {Category.UNAVAILABLE, Category.FAULT}


def test_a_spool_handle_outlives_its_spool(store: FileStore) -> None:
    with store.spool(max_bytes=100) as spool:
        spool.write(b"still here")
        handle = spool.open()
    assert handle.read() == b"still here"
    handle.close()


def test_spools_and_streams_do_not_leak_files(store: FileStore) -> None:
    digest = store.put_bytes(bytes(100_000)).digest
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        with store.spool(max_bytes=10) as spool:
            spool.write(b"x")
        stream = store.stream(digest, chunk_bytes=10)
        next(stream)
        del stream
        store.verify(digest)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
