"""The S3 driver against servers that lie, fail or are away; the contract suite runs against a real one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hub.errors import Category, HubError
from storage.objects import open_store
from storage.objects.breaker import Breaker
from storage.objects.s3 import S3Store
from storage.objects.settings import S3Settings
from tests.support.s3_stub import Stub, s3_stub
from tests.support.seaweedfs import SeaweedFS

MIB = 1 << 20


@pytest.fixture
def stub() -> Iterator[Stub]:
    with s3_stub() as running:
        yield running


def settings_for(stub: Stub, **changes: object) -> S3Settings:
    values: dict[str, object] = {
        "endpoint": stub.endpoint,
        "access_key": "a",
        "secret_key": "b",
        "retries": 0,
        "read_timeout_s": 5.0,
        "multipart_bytes": 11 * MIB,
        "part_bytes": 5 * MIB,
    }
    return S3Settings(**(values | changes))  # type: ignore[arg-type]


def connect(stub: Stub, tmp_path: Path, breaker: Breaker | None = None, **changes: object) -> S3Store:
    return S3Store("bucket", settings=settings_for(stub, **changes), spool_dir=tmp_path / "spool", breaker=breaker)


def unavailable(call: object, *args: object) -> HubError:
    with pytest.raises(HubError) as caught:
        call(*args)  # type: ignore[operator]
    assert caught.value.category is Category.UNAVAILABLE
    return caught.value


@pytest.mark.xdist_group("seaweedfs")
def test_seaweedfs_gives_all_guarantees(seaweedfs: SeaweedFS, tmp_path: Path) -> None:
    store = open_store(seaweedfs.new_url(), data_dir=tmp_path, s3=seaweedfs.settings(), min_free_bytes=0)
    found = store.guarantees()
    assert found["only-if-absent"] == "honoured"
    assert found["checksum"] == found["part-checksum"] == "verified by the server"
    store.close()


@pytest.mark.xdist_group("seaweedfs")
def test_wrong_keys_are_named_at_start(seaweedfs: SeaweedFS, tmp_path: Path) -> None:
    error = unavailable(
        lambda: open_store(
            "s3://hub-tests", data_dir=tmp_path, s3=seaweedfs.settings(secret_key="wrong"), min_free_bytes=0
        )
    )
    assert "HUB_S3_SECRET_KEY" in error.remedy
    assert "wrong" not in str(error)


@pytest.mark.xdist_group("seaweedfs")
def test_objects_outlive_the_client(seaweedfs: SeaweedFS, tmp_path: Path) -> None:
    url = seaweedfs.new_url()
    first = open_store(url, data_dir=tmp_path, s3=seaweedfs.settings(), min_free_bytes=0)
    digest = first.put_bytes(b"kept").digest
    first.close()
    second = open_store(url, data_dir=tmp_path, s3=seaweedfs.settings(), min_free_bytes=0)
    assert second.read(digest) == b"kept"
    second.close()


def test_the_secret_is_not_in_the_settings_text(stub: Stub) -> None:
    assert "secret_key" not in repr(settings_for(stub, secret_key="hidden"))


def test_the_self_test_leaves_nothing_behind(stub: Stub, tmp_path: Path) -> None:
    connect(stub, tmp_path).close()
    assert stub.objects == {}


@pytest.mark.parametrize("sums", [True, False])
@pytest.mark.parametrize("conditions", [True, False])
def test_guarantees_say_what_the_server_really_does(stub: Stub, tmp_path: Path, sums: bool, conditions: bool) -> None:
    stub.faults.check_sums, stub.faults.honour_conditions = sums, conditions
    store = connect(stub, tmp_path)
    found = store.guarantees()
    assert (found["checksum"] == "verified by the server") is sums
    assert (found["part-checksum"] == "verified by the server") is sums
    assert (found["only-if-absent"] == "honoured") is conditions
    ref = store.put_bytes(b"the same bytes")
    assert store.put_bytes(b"the same bytes") == ref
    assert store.read(ref.digest) == b"the same bytes"
    store.close()


@pytest.mark.parametrize("sums", [True, False])
def test_a_server_that_confirms_and_loses_is_found_out(stub: Stub, tmp_path: Path, sums: bool) -> None:
    stub.faults.check_sums = sums
    store = connect(stub, tmp_path)
    stub.faults.lose = True
    unavailable(store.put_bytes, b"lost")
    unavailable(store.put_bytes, os.urandom(12 * MIB))
    store.close()


@pytest.mark.parametrize("size", [1000, 12 * MIB])
def test_a_server_that_checks_nothing_and_spoils_is_found_out(stub: Stub, tmp_path: Path, size: int) -> None:
    stub.faults.check_sums = False
    store = connect(stub, tmp_path)
    stub.faults.spoil = True
    unavailable(store.put_bytes, os.urandom(size))
    store.close()


def test_sending_again_mends_a_spoiled_object(stub: Stub, tmp_path: Path) -> None:
    store = connect(stub, tmp_path)
    ref = store.put_bytes(b"the right bytes")
    (key,) = stub.objects
    stub.objects[key] = b"the wrong bytes"
    with pytest.raises(HubError) as caught:
        store.read(ref.digest)
    assert caught.value.category is Category.FAULT
    assert not store.verify(ref.digest)
    store.put_bytes(b"the right bytes")
    assert store.read(ref.digest) == b"the right bytes"
    store.close()


@pytest.mark.parametrize("status", [500, 503, 507, 403])
def test_a_refusing_server_is_unavailable_and_never_a_success(stub: Stub, tmp_path: Path, status: int) -> None:
    store = connect(stub, tmp_path)
    stub.faults.status = status
    unavailable(store.put_bytes, b"refused")
    unavailable(store.stat, "0" * 64)
    unavailable(store.healthy)
    stub.faults.status = 0
    store.put_bytes(b"refused")
    store.close()


def test_an_absent_server_is_unavailable_at_start(tmp_path: Path) -> None:
    with s3_stub() as gone:
        pass
    unavailable(connect, gone, tmp_path)


def test_a_lost_answer_is_repeated_without_harm(stub: Stub, tmp_path: Path) -> None:
    store = connect(stub, tmp_path, retries=2)
    stub.faults.lose_answer_of = {"PUT"}
    ref = store.put_bytes(b"stored, but the answer is lost")
    assert store.read(ref.digest) == b"stored, but the answer is lost"
    assert list(stub.objects.values()) == [b"stored, but the answer is lost"]
    store.close()


def test_a_multipart_upload_whose_last_answer_is_lost_counts_as_stored(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = connect(stub, tmp_path)
    data = os.urandom(12 * MIB)
    finish_parts = store._client.finish_parts

    def finish(bucket: str, key: str, upload: str, etags: list[str]) -> None:
        stub.faults.lose_answer_of.add("POST")
        finish_parts(bucket, key, upload, etags)

    monkeypatch.setattr(store._client, "finish_parts", finish)
    ref = store.put_bytes(data)
    assert store.verify(ref.digest)
    store.close()


def test_a_failed_multipart_upload_is_aborted(stub: Stub, tmp_path: Path) -> None:
    store = connect(stub, tmp_path)
    stub.faults.refuse_parts = True
    unavailable(store.put_bytes, os.urandom(12 * MIB))
    assert stub.uploads == {}
    assert stub.objects == {}
    store.close()


@pytest.mark.parametrize("verb", ["read", "stream", "handle"])
def test_a_cut_answer_is_unavailable_not_a_short_object(stub: Stub, tmp_path: Path, verb: str) -> None:
    store = connect(stub, tmp_path)
    data = os.urandom(100_000)
    digest = store.put_bytes(data).digest
    stub.faults.cut_reads = True
    calls: dict[str, Callable[[], object]] = {
        "read": lambda: store.read(digest),
        "stream": lambda: list(store.stream(digest, chunk_bytes=10_000)),
        "handle": lambda: store.open(digest).read(),
    }
    with pytest.raises(HubError) as caught:
        calls[verb]()
    assert caught.value.category is Category.UNAVAILABLE
    store.close()


def test_the_breaker_opens_and_closes_again_with_the_server(stub: Stub, tmp_path: Path) -> None:
    clock = [0.0]
    store = connect(stub, tmp_path, Breaker("S3 server", failures=3, rest_s=10, now_s=lambda: clock[0]))
    stub.faults.status = 500
    for _ in range(3):
        unavailable(store.put_bytes, b"x")
    asked = len(stub.requests)
    stub.faults.status = 0
    unavailable(store.put_bytes, b"x")
    assert len(stub.requests) == asked, "an open breaker must not ask the server"
    clock[0] = 10.0
    assert store.put_bytes(b"x").size == 1
    store.healthy()
    store.close()


def test_a_large_object_is_sent_from_the_spool_file_and_not_copied(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = connect(stub, tmp_path)
    sent: list[type] = []
    original = store._client._upload_part

    def upload(bucket: str, key: str, data: bytes, *rest: object) -> str:
        sent.append(type(data))
        return original(bucket, key, data, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(store._client, "_upload_part", upload)
    ref = store.put_bytes(os.urandom(18 * MIB))
    assert sent == [memoryview] * 4
    assert store.verify(ref.digest)
    store.close()


@pytest.mark.parametrize("url", ["s3://", "ftp://x", "objects", "file://", ""])
def test_an_unknown_url_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(HubError) as caught:
        open_store(url, data_dir=tmp_path)
    assert caught.value.category is Category.INCORRECT
    assert caught.value.where == "HUB_OBJECTS_URL"


def test_s3_without_settings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HubError) as caught:
        open_store("s3://bucket", data_dir=tmp_path)
    assert caught.value.where == "HUB_S3_ENDPOINT"
