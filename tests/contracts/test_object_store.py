"""What every object store must do, run on all drivers; the S3 driver talks to a real server.

The spool before S3 is tried in both states of an object: waiting on the local disk, and uploaded and given up there,
without a cache, so that every read asks the server.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import pytest

from adapters.pixels.lossless import PooledCodec
from hub.config import Settings
from hub.errors import Category, HubError
from hub.ports import ObjectRef, Spool
from storage.objects import SpoolSettings, SweepableStore, open_store
from storage.objects.packed import packed_store
from storage.objects.s3 import S3Store
from storage.objects.spooled import SpooledStore
from storage.objects.sweep import check, scrub, sweep

ABSENT = hashlib.sha256(b"never stored").hexdigest()
MIB = 1 << 20


class UploadingAtOnce(SpooledStore):
    """Uploads each object before it answers, so that the local disk has nothing when the test looks."""

    def put(self, spool: Spool) -> ObjectRef:
        ref = super().put(spool)
        # Where several threads put at once, one of them uploads and the others find nothing to do.
        assert self.upload(threading.Event()).failed == 0
        return ref


SEAWEEDFS = pytest.mark.xdist_group("seaweedfs")


@pytest.fixture(
    params=[
        "file",
        "memory",
        "packed",
        *(pytest.param(name, marks=SEAWEEDFS) for name in ("s3", "waiting", "uploaded")),
    ]
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SweepableStore]:
    opened: SweepableStore
    if request.param in {"file", "memory", "packed"}:
        url = "memory://" if request.param == "memory" else f"file://{tmp_path / 'objects'}"
        opened = open_store(url, data_dir=tmp_path, min_free_bytes=0)
        if request.param == "packed":
            codec = PooledCodec(Settings(data_dir=tmp_path))
            opened = packed_store(opened, request.getfixturevalue("sqlite_database"), codec)
    else:
        server = request.getfixturevalue("seaweedfs")
        # Small parts so that a test object of a few MiB takes the multipart way.
        settings = server.settings(multipart_bytes=11 * MIB, part_bytes=5 * MIB)
        url = server.new_url()
        spool = SpoolSettings(cache_bytes=0, fetch_bytes=64 * 1024)
        if request.param == "uploaded":

            def connect() -> S3Store:
                bucket, _, prefix = url.removeprefix("s3://").partition("/")
                return S3Store(bucket, prefix=prefix, settings=settings, spool_dir=tmp_path / "spool")

            opened = UploadingAtOnce(tmp_path, connect, settings=spool)
        else:
            opened = open_store(
                url,
                data_dir=tmp_path,
                s3=settings,
                spool=spool if request.param == "waiting" else None,
                min_free_bytes=0,
            )
    yield opened
    opened.close()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_what_is_put_is_read_back_byte_for_byte(store: SweepableStore) -> None:
    data = os.urandom(300_000)
    ref = store.put_bytes(data)
    assert ref == ObjectRef(digest=sha256(data), size=len(data))
    assert store.read(ref.digest) == data
    assert store.stat(ref.digest) == ref
    assert store.verify(ref.digest)
    assert b"".join(store.stream(ref.digest, chunk_bytes=65536)) == data


def test_an_empty_object_is_an_object(store: SweepableStore) -> None:
    ref = store.put_bytes(b"")
    assert ref.size == 0
    assert store.read(ref.digest) == b""
    assert list(store.stream(ref.digest)) == []
    assert store.stat(ref.digest) == ref


def test_a_spool_counts_and_hashes_while_it_receives(store: SweepableStore) -> None:
    with store.spool(max_bytes=100) as spool:
        assert spool.write(b"first ") == 6
        assert spool.digest == sha256(b"first ")
        assert spool.write(bytearray(b"second ")) == 7
        assert spool.write(memoryview(b"third")) == 5
        assert (spool.size, spool.digest) == (18, sha256(b"first second third"))
        with spool.open() as handle:
            assert handle.read() == b"first second third"
            handle.seek(6)
            assert handle.read(6) == b"second"
            assert handle.seek(-5, os.SEEK_END) == 13
            assert handle.read() == b"third"
        ref = store.put(spool)
    assert store.read(ref.digest) == b"first second third"


def test_the_spool_stays_readable_after_put(store: SweepableStore) -> None:
    with store.spool(max_bytes=10) as spool:
        spool.write(b"0123456789")
        store.put(spool)
        with spool.open() as handle:
            assert handle.read() == b"0123456789"


def test_a_spool_takes_exactly_its_cap_and_no_byte_more(store: SweepableStore) -> None:
    with store.spool(max_bytes=8) as spool:
        spool.write(b"12345678")
        store.put(spool)
    with store.spool(max_bytes=8) as spool:
        spool.write(b"1234567")
        with pytest.raises(HubError) as caught:
            spool.write(b"89")
        assert caught.value.category is Category.INCORRECT
        assert caught.value.status == 413
        with pytest.raises(HubError):
            store.put(spool)
    assert [ref.size for ref in store.digests()] == [8]


def test_a_spool_that_was_not_put_leaves_nothing(store: SweepableStore) -> None:
    with store.spool(max_bytes=100) as spool:
        spool.write(b"given up")
    assert store.stat(sha256(b"given up")) is None
    assert list(store.digests()) == []


def test_a_spool_is_put_once(store: SweepableStore) -> None:
    with store.spool(max_bytes=100) as spool:
        spool.write(b"once")
        store.put(spool)
        with pytest.raises(HubError) as caught:
            store.put(spool)
    assert caught.value.category is Category.FAULT


def test_putting_twice_is_the_same_as_putting_once(store: SweepableStore) -> None:
    first = store.put_bytes(b"the same bytes")
    second = store.put_bytes(b"the same bytes")
    assert first == second
    assert list(store.digests()) == [first]


def test_writers_that_race_with_the_same_bytes_all_succeed(store: SweepableStore) -> None:
    data = os.urandom(200_000)
    barrier = threading.Barrier(6)

    def put(_: int) -> ObjectRef:
        with store.spool(max_bytes=len(data)) as spool:
            spool.write(data)
            barrier.wait(timeout=30)
            return store.put(spool)

    with ThreadPoolExecutor(6) as pool:
        refs = set(pool.map(put, range(6)))
    assert refs == {ObjectRef(digest=sha256(data), size=len(data))}
    assert store.read(sha256(data)) == data


def test_writers_that_race_with_other_bytes_do_not_mix(store: SweepableStore) -> None:
    bodies = [bytes([number]) * 50_000 for number in range(12)]
    with ThreadPoolExecutor(4) as pool:
        refs = list(pool.map(store.put_bytes, bodies))
    for body, ref in zip(bodies, refs, strict=True):
        assert store.read(ref.digest) == body


def test_an_object_of_many_parts_comes_back_whole(store: SweepableStore) -> None:
    block = os.urandom(MIB)
    expected = hashlib.sha256()
    with store.spool(max_bytes=20 * MIB) as spool:
        for number in range(12):
            piece = number.to_bytes(4, "big") + block
            spool.write(piece)
            expected.update(piece)
        ref = store.put(spool)
    assert ref.digest == expected.hexdigest()
    assert store.verify(ref.digest)
    assert store.read(ref.digest, 4 + len(block), 4) == (1).to_bytes(4, "big")
    assert store.put_bytes(store.read(ref.digest)) == ref


def test_ranges_are_cut_at_the_end(store: SweepableStore) -> None:
    digest = store.put_bytes(b"0123456789").digest
    assert store.read(digest, 3, 4) == b"3456"
    assert store.read(digest, 8) == b"89"
    assert store.read(digest, 8, 100) == b"89"
    assert store.read(digest, 0, 3) == b"012"
    assert store.read(digest, 5, 0) == b""
    assert store.read(digest, 10) == b""
    assert store.read(digest, 99, 5) == b""


def test_an_open_handle_seeks(store: SweepableStore) -> None:
    data = os.urandom(2 * MIB + 17)
    digest = store.put_bytes(data).digest
    with store.open(digest, verify=True) as handle:
        assert handle.seekable()
        assert handle.seek(0, os.SEEK_END) == len(data)
        handle.seek(MIB - 3)
        assert handle.read(6) == data[MIB - 3 : MIB + 3]
        handle.seek(-10, os.SEEK_CUR)
        assert handle.tell() == MIB - 7
        assert handle.read() == data[MIB - 7 :]
        assert handle.read() == b""


@pytest.mark.parametrize("verb", ["open", "read", "stream", "read a part"])
def test_a_missing_object_is_not_found(store: SweepableStore, verb: str) -> None:
    calls: dict[str, Callable[[], object]] = {
        "open": lambda: store.open(ABSENT),
        "read": lambda: store.read(ABSENT),
        # Known before the first chunk, so that a door can still answer 404.
        "stream": lambda: store.stream(ABSENT),
        "read a part": lambda: store.read(ABSENT, 1, 2),
    }
    with pytest.raises(HubError) as caught:
        calls[verb]()
    assert caught.value.category is Category.NOT_FOUND


def test_asking_for_a_missing_object_is_no_error(store: SweepableStore) -> None:
    assert store.stat(ABSENT) is None
    assert not store.verify(ABSENT)
    store.delete(ABSENT)


@pytest.mark.parametrize(
    "name", ["", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 65, "a" * 64 + "\n", "٠" * 64], ids=repr
)
def test_only_a_digest_is_a_name(store: SweepableStore, name: str) -> None:
    for call in (store.stat, store.open, store.read, store.stream, store.verify, store.delete):
        with pytest.raises(HubError) as caught:
            call(name)
        assert caught.value.category is Category.INCORRECT


def test_a_deleted_object_is_gone_and_can_come_back(store: SweepableStore) -> None:
    digest = store.put_bytes(b"to be deleted").digest
    store.delete(digest)
    assert store.stat(digest) is None
    store.put_bytes(b"to be deleted")
    assert store.read(digest) == b"to be deleted"


def test_digests_lists_all_in_order(store: SweepableStore) -> None:
    refs = {store.put_bytes(str(number).encode()) for number in range(40)}
    listed = list(store.digests())
    assert set(listed) == refs
    assert [ref.digest for ref in listed] == sorted(ref.digest for ref in refs)


def test_a_spool_of_another_store_is_refused(store: SweepableStore) -> None:
    class Foreign:
        size = 3
        digest = sha256(b"abc")

        def write(self, data: bytes | bytearray | memoryview) -> int:
            return len(data)

        def open(self) -> io.BytesIO:
            return io.BytesIO(b"abc")

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *exc: object) -> None: ...

    with pytest.raises(HubError) as caught:
        store.put(Foreign())
    assert caught.value.category is Category.FAULT


def test_a_dropped_stream_frees_its_source(store: SweepableStore) -> None:
    digest = store.put_bytes(os.urandom(3 * MIB)).digest
    for _ in range(5):
        stream = store.stream(digest, chunk_bytes=1000)
        assert len(next(stream)) == 1000
        del stream
    assert store.verify(digest)


def test_a_healthy_store_says_so_and_what_it_guarantees(store: SweepableStore) -> None:
    store.healthy()
    found = store.guarantees()
    assert found["driver"] in {"file", "s3", "memory"}
    assert found["durable"]


def test_the_sweeper_takes_old_orphans_only(store: SweepableStore) -> None:
    named = store.put_bytes(b"named by a row").digest
    orphan = store.put_bytes(b"named by no row").digest

    def referenced(digests: object) -> set[str]:
        return {named}

    young = sweep(store, referenced)
    assert (young.seen, list(young.orphans), list(young.removed)) == (2, [orphan], [])
    dry = sweep(store, referenced, remove_after_s=0, dry_run=True)
    assert list(dry.orphans) == [orphan]
    done = sweep(store, referenced, remove_after_s=0)
    assert (list(done.orphans), list(done.removed)) == ([], [orphan])
    assert [ref.digest for ref in store.digests()] == [named]


def test_check_names_rows_without_their_object(store: SweepableStore) -> None:
    good = store.put_bytes(b"good")
    rows = [good, ObjectRef(digest=ABSENT, size=1), ObjectRef(digest=good.digest, size=99)]
    assert [(found.digest, found.reason) for found in check(store, rows, deep=True)] == [
        (ABSENT, "missing"),
        (good.digest, "size"),
    ]


def test_scrubbing_finds_nothing_in_a_sound_store(store: SweepableStore) -> None:
    for number in range(10):
        store.put_bytes(str(number).encode())
    assert [bad for day in range(3) for bad in scrub(store, day=day, days=3)] == []
