"""What packing must do on every store and both databases: not one byte changes, whenever the power goes."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adapters.pixels.lossless import PooledCodec
from hub.config import Settings
from hub.errors import Category, HubError
from hub.ports import ObjectRef, UploadingStore
from hub.ports.packing import CodedFrame, NotPackableError, Packing, PackingStore, Shape
from hub.recompression import JPEG_2000, JPEG_LS
from storage.objects import SpoolSettings, SweepableStore, open_store
from storage.objects.packed import PackedStore, packed_store
from storage.sql.database import SqlDatabase
from tests.support.part10 import Part10

NOW = datetime(2025, 6, 11, 3, 0, tzinfo=UTC)
GO_ON = threading.Event()
SEAWEEDFS = pytest.mark.xdist_group("seaweedfs")


@pytest.fixture(scope="module")
def codec() -> Iterator[PooledCodec]:
    opened = PooledCodec(Settings(pixel_processes=1))
    yield opened
    opened.close()


@pytest.fixture(params=["file", "memory", *(pytest.param(name, marks=SEAWEEDFS) for name in ("s3", "spooled"))])
def inner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SweepableStore]:
    if request.param in {"file", "memory"}:
        url = f"file://{tmp_path / 'objects'}" if request.param == "file" else "memory://"
        opened = open_store(url, data_dir=tmp_path, min_free_bytes=0)
    else:
        server = request.getfixturevalue("seaweedfs")
        spool = SpoolSettings(cache_bytes=0, fetch_bytes=1024) if request.param == "spooled" else None
        opened = open_store(server.new_url(), data_dir=tmp_path, s3=server.settings(), spool=spool, min_free_bytes=0)
    yield opened
    opened.close()


@pytest.fixture
def store(inner: SweepableStore, sqlite_database: SqlDatabase, codec: PooledCodec) -> PackedStore:
    return packed_store(inner, sqlite_database, codec)


def upload(store: SweepableStore) -> None:
    if isinstance(store, UploadingStore):
        assert store.upload(threading.Event()).failed == 0


def packing(original: ObjectRef, packed: ObjectRef | None, **more: object) -> Packing:
    made = Packing(digest=original.digest, size=original.size, packed=packed, syntax=JPEG_LS, at=NOW)
    return replace(made, **more)  # type: ignore[arg-type]


def settled(store: PackedStore, database: SqlDatabase, data: bytes, syntax: str = JPEG_LS) -> Packing:
    """Put *data*, pack it and let the packed form take its place, as the worker does."""
    ref = store.put_bytes(data)
    upload(store.inner)
    made = packing(*store.pack(ref.digest, syntax, GO_ON))
    database.write(lambda tx: tx.packings.record(made))
    upload(store.inner)
    assert store.settle(made, idle_s=0)
    done = replace(made, settled=True)
    database.write(lambda tx: tx.packings.record(done))
    return done


CT = Part10(
    rows=128, columns=96, frames=3, signed=True, content="ramp", private_after=b"after", padding=b"pad", surplus=3
)


@pytest.mark.parametrize("syntax", [JPEG_LS, JPEG_2000])
def test_a_packed_object_is_read_as_it_was_sent(store: PackedStore, sqlite_database: SqlDatabase, syntax: str) -> None:
    data = CT.data()
    done = settled(store, sqlite_database, data, syntax)
    digest = done.digest
    assert done.packed is not None
    assert done.packed.size < len(data) / 2
    assert store.inner.stat(digest) is None
    assert [ref.digest for ref in store.digests()] == [done.packed.digest]

    assert store.read(digest) == data
    assert b"".join(store.stream(digest, chunk_bytes=1000)) == data
    assert store.stat(digest) == ObjectRef(digest=digest, size=len(data))
    assert store.verify(digest)
    with store.open(digest, verify=True) as handle:
        handle.seek(20_000)
        assert handle.read(5_000) == data[20_000:25_000]
    assert store.read(digest, 30_000, 9) == data[30_000:30_009]
    assert store.read(digest, len(data) - 4) == data[-4:]


def test_both_copies_are_there_until_the_packed_form_is_proved(
    store: PackedStore, sqlite_database: SqlDatabase
) -> None:
    """Each step is where the power may go; the object is whole after every one."""
    data = CT.data()
    ref = store.put_bytes(data)
    upload(store.inner)

    original, packed = store.pack(ref.digest, JPEG_LS, GO_ON)
    assert store.inner.read(ref.digest) == data == store.read(ref.digest)
    made = packing(original, packed)
    sqlite_database.write(lambda tx: tx.packings.record(made))
    upload(store.inner)
    assert store.inner.read(ref.digest) == data == store.read(ref.digest)

    assert store.settle(made, idle_s=0)
    # The row still says that the original is there.
    assert store.inner.stat(ref.digest) is None
    assert store.read(ref.digest) == data
    assert store.settle(made, idle_s=0)
    assert store.read(ref.digest) == data


def test_whoever_reads_an_original_reads_on_when_it_is_removed(
    store: PackedStore, sqlite_database: SqlDatabase
) -> None:
    """A store far away is read in ranges, and the original may go between two of them."""
    data = Part10(rows=1024, columns=1024, frames=2, content="ramp").data()
    ref = store.put_bytes(data)
    upload(store.inner)
    with store.open(ref.digest) as handle:
        assert handle.read(100) == data[:100]
        settled(store, sqlite_database, data)
        assert store.inner.stat(ref.digest) is None
        assert handle.read() == data[100:]
        handle.seek(50)
        assert handle.read(50) == data[50:100]


def test_packing_again_after_a_crash_gives_the_same_packed_form(store: PackedStore) -> None:
    ref = store.put_bytes(CT.data())
    upload(store.inner)
    assert store.pack(ref.digest, JPEG_LS, GO_ON) == store.pack(ref.digest, JPEG_LS, GO_ON)


def test_an_object_that_was_sent_again_just_now_keeps_its_original(
    store: PackedStore, sqlite_database: SqlDatabase
) -> None:
    ref = store.put_bytes(CT.data())
    upload(store.inner)
    made = packing(*store.pack(ref.digest, JPEG_LS, GO_ON))
    upload(store.inner)
    assert not store.settle(made, idle_s=3600)
    assert store.inner.stat(ref.digest) is not None


def test_what_was_packed_and_is_sent_again_is_packed_again(store: PackedStore, sqlite_database: SqlDatabase) -> None:
    data = CT.data()
    done = settled(store, sqlite_database, data)
    assert store.put_bytes(data).digest == done.digest
    upload(store.inner)
    assert store.inner.stat(done.digest) is not None
    assert store.settle(done, idle_s=0)
    assert store.read(done.digest) == data


def test_a_packed_form_that_is_gone_removes_no_original(store: PackedStore, sqlite_database: SqlDatabase) -> None:
    ref = store.put_bytes(CT.data())
    upload(store.inner)
    made = packing(*store.pack(ref.digest, JPEG_LS, GO_ON))
    upload(store.inner)
    assert made.packed is not None
    store.inner.delete(made.packed.digest)
    if isinstance(store.inner, UploadingStore):
        # S3 does not have it, as far as anybody can tell.
        assert not store.settle(made, idle_s=0)
    else:
        with pytest.raises(NotPackableError, match="not-the-same"):
            store.settle(made, idle_s=0)
    assert store.read(ref.digest) == CT.data()


def test_a_missing_object_stays_missing(store: PackedStore, sqlite_database: SqlDatabase) -> None:
    absent = hashlib.sha256(b"never stored").hexdigest()
    for ask in (store.read, store.open, store.stream):
        with pytest.raises(HubError) as caught:
            ask(absent)
        assert caught.value.category is Category.NOT_FOUND
    assert store.stat(absent) is None
    assert not store.verify(absent)
    done = settled(store, sqlite_database, CT.data())
    assert done.packed is not None
    store.inner.delete(done.packed.digest)
    assert store.stat(done.digest) is None
    assert not store.verify(done.digest)
    with pytest.raises(HubError) as caught:
        store.read(done.digest)
    assert caught.value.category is Category.NOT_FOUND


def test_noise_is_left_as_it_is(store: PackedStore) -> None:
    ref = store.put_bytes(Part10(rows=64, columns=64, bits_stored=16, content="noise").data())
    upload(store.inner)
    with pytest.raises(NotPackableError, match="no-gain"):
        store.pack(ref.digest, JPEG_LS, GO_ON)
    assert [one.digest for one in store.digests()] == [ref.digest]


class Wrong(PooledCodec):
    """A codec that loses a bit in each frame."""

    def decode(self, shape: Shape, syntax: str, coded: CodedFrame) -> bytes:
        frame = bytearray(super().decode(shape, syntax, coded))
        frame[0] ^= 1
        return bytes(frame)


def test_an_original_never_gives_way_to_a_codec_that_is_wrong(
    inner: SweepableStore, sqlite_database: SqlDatabase, codec: PooledCodec
) -> None:
    wrong = Wrong(Settings(pixel_processes=1))
    store = packed_store(inner, sqlite_database, wrong)
    ref = store.put_bytes(CT.data())
    upload(inner)
    with pytest.raises(NotPackableError, match="not-the-same"):
        store.pack(ref.digest, JPEG_LS, GO_ON)
    made = packing(*packed_store(inner, sqlite_database, codec).pack(ref.digest, JPEG_LS, GO_ON))
    upload(inner)
    with pytest.raises(NotPackableError, match="not-the-same"):
        store.settle(made, idle_s=0)
    wrong.close()
    assert inner.read(ref.digest) == CT.data()


def test_a_spool_is_still_seen_behind_it(store: PackedStore) -> None:
    assert isinstance(store, PackingStore)
    assert isinstance(store, UploadingStore) == isinstance(store.inner, UploadingStore)


@pytest.mark.xdist_group("seaweedfs")
def test_an_original_stays_until_s3_has_the_packed_form(
    sqlite_database: SqlDatabase, codec: PooledCodec, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    server = request.getfixturevalue("seaweedfs")
    inner = open_store(
        server.new_url(), data_dir=tmp_path, s3=server.settings(), spool=SpoolSettings(cache_bytes=0), min_free_bytes=0
    )
    store = packed_store(inner, sqlite_database, codec)
    ref = store.put_bytes(CT.data())
    upload(inner)
    made = packing(*store.pack(ref.digest, JPEG_LS, GO_ON))
    assert not store.settle(made, idle_s=0)
    assert inner.stat(ref.digest) is not None
    upload(inner)
    assert store.settle(made, idle_s=0)
    inner.close()


# --- the table -----------------------------------------------------------------------------------------------------


def test_the_last_word_on_an_object_stands(database: SqlDatabase) -> None:
    first, second = ObjectRef(digest="a" * 64, size=100), ObjectRef(digest="b" * 64, size=40)
    refused = packing(first, None, reason="codec")
    database.write(lambda tx: tx.packings.record(refused))
    assert database.read(lambda tx: tx.packings.find(first.digest)) is None
    made = packing(first, second)
    database.write(lambda tx: tx.packings.record(made))
    assert database.read(lambda tx: tx.packings.find(first.digest)) == made
    assert database.read(lambda tx: tx.packings.find(second.digest)) is None


def test_originals_wait_their_time_the_oldest_first(database: SqlDatabase) -> None:
    refs = [ObjectRef(digest=f"{number:064x}", size=100) for number in range(6)]
    packed = ObjectRef(digest="b" * 64, size=40)
    hour = timedelta(hours=1)
    for ref, at, done in zip(refs, (3, 1, 2, 9, 0, 1), (False, False, False, False, True, True), strict=True):
        one = packing(ref, packed, at=NOW + at * hour, settled=done)
        database.write(lambda tx, of=one: tx.packings.record(of))  # type: ignore[misc]
    found = database.read(lambda tx: tx.packings.unsettled(before=NOW + 3 * hour, limit=2))
    assert [one.digest for one in found] == [refs[1].digest, refs[2].digest]


def test_totals_tell_what_was_saved_and_why_the_rest_stays(database: SqlDatabase) -> None:
    refs = [ObjectRef(digest=f"{number:064x}", size=100) for number in range(6)]
    packed = ObjectRef(digest="b" * 64, size=40)
    rows = [
        packing(refs[0], packed, settled=True),
        packing(refs[1], packed, settled=True),
        packing(refs[2], packed),
        packing(refs[3], None, reason="no-gain"),
        packing(refs[4], None, reason="no-gain"),
        packing(refs[5], None, reason="codec"),
    ]
    for one in rows:
        database.write(lambda tx, of=one: tx.packings.record(of))  # type: ignore[misc]
    found = database.read(lambda tx: tx.packings.totals())
    assert (found.settled, found.waiting, found.original_bytes, found.saved_bytes) == (2, 1, 200, 120)
    assert found.refused == {"no-gain": 2, "codec": 1}
