"""The cache keeps what was checked, within its cap, for several processes, and is never a reason for a read to fail."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hub.errors import Category, HubError
from storage.objects import cache as module
from storage.objects.cache import Cache, Filling

KIB = 1024


class Clock:
    """Nanoseconds that tests put forward."""

    def __init__(self) -> None:
        self.ns = 2_000_000_000 * 10**9

    def __call__(self) -> int:
        return self.ns

    def forward(self, seconds: int) -> None:
        self.ns += seconds * 10**9


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(tmp_path: Path, clock: Clock) -> Iterator[Cache]:
    opened = Cache(tmp_path / "cache", max_bytes=100 * KIB, now_ns=clock)
    yield opened
    opened.close()


def keep(cache: Cache, size: int) -> str:
    data = os.urandom(size)
    digest = hashlib.sha256(data).hexdigest()
    cache.insert(digest, data)
    return digest


def has(cache: Cache, digest: str) -> bool:
    source = cache.open(digest)
    if source is None:
        return False
    with source:
        return hashlib.sha256(source.read()).hexdigest() == digest


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if len(path.name) == 64)


def test_what_was_not_read_for_longest_goes_first(cache: Cache, clock: Clock, tmp_path: Path) -> None:
    kept = []
    for _ in range(10):
        kept.append(keep(cache, 10 * KIB))
        clock.forward(100)
    assert has(cache, kept[0])
    clock.forward(100)
    newest = keep(cache, 10 * KIB)
    assert [has(cache, one) for one in kept[:3]] == [True, False, False]
    assert all(has(cache, one) for one in [*kept[3:], newest])
    assert cache.total() == on_disk(tmp_path) <= 100 * KIB


def test_the_cap_holds_with_many_writers_in_two_processes_worth_of_caches(cache: Cache, tmp_path: Path) -> None:
    other = Cache(tmp_path / "cache", max_bytes=100 * KIB)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: keep((cache, other)[number % 2], 7 * KIB), range(80)))
    assert cache.total() == other.total() == on_disk(tmp_path) <= 100 * KIB
    other.close()


def test_one_object_of_more_than_a_quarter_of_the_cap_is_not_kept(cache: Cache) -> None:
    assert not has(cache, keep(cache, 26 * KIB))
    assert has(cache, keep(cache, 25 * KIB))


def test_bytes_that_do_not_match_their_name_are_not_kept(cache: Cache) -> None:
    digest = hashlib.sha256(b"right").hexdigest()
    cache.insert(digest, b"wrong")
    assert cache.open(digest) is None


def test_a_copy_that_is_dropped_no_longer_counts(cache: Cache) -> None:
    digest = keep(cache, 5 * KIB)
    cache.drop(digest)
    cache.drop(digest)
    assert (cache.open(digest), cache.total()) == (None, 0)


def test_a_lost_count_is_made_again(cache: Cache, tmp_path: Path) -> None:
    keep(cache, 5 * KIB)
    [count] = (tmp_path / "cache").rglob("total")
    count.write_text("")
    assert cache.total() == 5 * KIB


def test_an_open_copy_stays_readable_when_it_goes(cache: Cache) -> None:
    digest = keep(cache, 5 * KIB)
    source = cache.open(digest)
    assert source is not None
    assert cache.make_room(1)
    assert cache.open(digest) is None
    with source:
        assert hashlib.sha256(source.read()).hexdigest() == digest
    assert not cache.make_room(1)


def test_what_an_earlier_boot_left_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Cache(tmp_path / "cache", max_bytes=100 * KIB)
    digest = keep(first, KIB)
    first.close()
    again = Cache(tmp_path / "cache", max_bytes=100 * KIB)
    assert has(again, digest)
    again.close()
    monkeypatch.setattr(module, "boot_id", lambda: "the-next-boot")
    after = Cache(tmp_path / "cache", max_bytes=100 * KIB)
    assert after.open(digest) is None
    assert on_disk(tmp_path) == 0
    after.close()


def test_a_kernel_without_a_boot_id_is_said_at_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BOOT_ID", tmp_path / "none")
    with pytest.raises(HubError) as caught:
        Cache(tmp_path / "cache", max_bytes=KIB)
    assert caught.value.category is Category.UNSUPPORTED


def test_a_disk_that_takes_nothing_fails_no_reader(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*args: object, **kwargs: object) -> None:
        raise OSError(28, "no room")

    monkeypatch.setattr(os, "link", no_room)
    assert not has(cache, keep(cache, KIB))
    data = os.urandom(3 * KIB)
    digest = hashlib.sha256(data).hexdigest()
    spool = cache.spool(len(data))
    assert spool is not None
    monkeypatch.setattr(os, "write", no_room)
    assert b"".join(Filling(iter([data[:KIB], data[KIB:]]), cache, digest, spool)) == data
    assert cache.open(digest) is None


def test_a_near_full_disk_is_left_to_what_is_received(tmp_path: Path) -> None:
    full = Cache(tmp_path / "cache", max_bytes=100 * KIB, min_free_bytes=1 << 60)
    assert not has(full, keep(full, KIB))
    full.close()


def test_a_read_that_is_broken_off_keeps_nothing(cache: Cache, tmp_path: Path) -> None:
    data = os.urandom(3 * KIB)
    spool = cache.spool(len(data))
    assert spool is not None
    filling = Filling(iter([data[:KIB], data[KIB:]]), cache, hashlib.sha256(data).hexdigest(), spool)
    next(filling)
    filling.close()
    assert on_disk(tmp_path) == 0
    assert [path for path in (tmp_path / "cache").rglob("tmp/*/*") if path.is_file()] == []


def test_readers_and_writers_at_once_never_see_other_bytes(cache: Cache) -> None:
    digests = [keep(cache, 9 * KIB) for _ in range(5)]
    stop = threading.Event()
    wrong = []

    def look() -> None:
        while not stop.is_set():
            for digest in digests:
                source = cache.open(digest)
                if source is not None:
                    with source:
                        if hashlib.sha256(source.read()).hexdigest() != digest:
                            wrong.append(digest)

    reader = threading.Thread(target=look)
    reader.start()
    for _ in range(60):
        digests.append(keep(cache, 9 * KIB))
    stop.set()
    reader.join()
    assert wrong == []
