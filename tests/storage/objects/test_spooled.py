"""The spool before S3: nothing is lost while the server is away, lies or breaks off, and reads find the nearest copy."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from hub.config import Settings
from hub.errors import Category, HubError
from storage.objects import SpoolSettings, SweepableStore, open_from, open_store
from storage.objects.s3 import S3Store
from storage.objects.settings import S3Settings
from storage.objects.spooled import SpooledStore
from tests.support.s3_stub import Stub, s3_stub
from tests.support.seaweedfs import SeaweedFS

MIB = 1 << 20
NEVER = threading.Event()


@pytest.fixture
def stub() -> Iterator[Stub]:
    with s3_stub() as running:
        yield running


def s3_settings(endpoint: str, **changes: object) -> S3Settings:
    values: dict[str, object] = {
        "endpoint": endpoint,
        "access_key": "a",
        "secret_key": "b",
        "retries": 0,
        "read_timeout_s": 5.0,
        "multipart_bytes": 11 * MIB,
        "part_bytes": 5 * MIB,
    }
    return S3Settings(**(values | changes))  # type: ignore[arg-type]


def opened(
    tmp_path: Path,
    endpoint: str,
    *,
    now_s: object = None,
    min_free_bytes: int = 0,
    s3: object = None,
    **changes: object,
) -> SpooledStore:
    settings = s3 if isinstance(s3, S3Settings) else s3_settings(endpoint)
    return SpooledStore(
        tmp_path,
        lambda: S3Store("bucket", settings=settings, spool_dir=tmp_path / "spool"),
        settings=SpoolSettings(**({"fetch_bytes": MIB, "cache_bytes": 100 * MIB} | changes)),  # type: ignore[arg-type]
        min_free_bytes=min_free_bytes,
        **({"now_s": now_s} if now_s else {}),  # type: ignore[arg-type]
    )


@pytest.fixture
def store(stub: Stub, tmp_path: Path) -> Iterator[SpooledStore]:
    one = opened(tmp_path, stub.endpoint)
    yield one
    one.close()


def far(stub: Stub, digest: str) -> str:
    return f"bucket/objects/{digest[:2]}/{digest}"


def puts(stub: Stub) -> int:
    return sum(command == "PUT" and "/objects/" in path and "probe" not in path for command, path in stub.requests)


def gets(stub: Stub, digest: str) -> int:
    return sum(command == "GET" and digest in path for command, path in stub.requests)


def spoil(path: Path) -> None:
    path.chmod(0o600)
    with path.open("r+b") as file:
        first = file.read(1)
        file.seek(0)
        file.write(bytes([first[0] ^ 1]))


def waiting_file(tmp_path: Path, digest: str) -> Path:
    return tmp_path / "uploads" / digest[:2] / digest


def cached_file(tmp_path: Path, digest: str) -> Path:
    [found] = (tmp_path / "cache").rglob(digest)
    return found


def test_a_put_is_answered_from_this_disk_and_s3_is_not_asked(store: SpooledStore, stub: Stub, tmp_path: Path) -> None:
    digest = store.put_bytes(b"received").digest
    assert stub.requests == []
    assert waiting_file(tmp_path, digest).read_bytes() == b"received"
    assert store.read(digest) == b"received"
    waiting = store.waiting()
    assert (waiting.count, waiting.size) == (1, 8)


def test_what_s3_has_confirmed_leaves_the_spool_and_stays_near(store: SpooledStore, stub: Stub, tmp_path: Path) -> None:
    digests = [store.put_bytes(os.urandom(1000)).digest for _ in range(20)]
    done = store.upload(NEVER)
    assert (done.sent, done.failed, done.error) == (20, 0, "")
    assert {far(stub, digest) for digest in digests} == set(stub.objects)
    assert store.waiting().count == 0
    stub.requests.clear()
    for digest in digests:
        assert hashlib.sha256(store.read(digest)).hexdigest() == digest
    assert stub.requests == []


def test_a_hub_whose_s3_is_away_starts_takes_and_gives_data(tmp_path: Path) -> None:
    store = opened(tmp_path, "http://127.0.0.1:9")
    digest = store.put_bytes(b"taken").digest
    store.healthy()
    assert store.read(digest) == b"taken"
    assert store.verify(digest)
    assert store.guarantees()["s3-durable"].startswith("not known")
    for call in (lambda: store.read("0" * 64), store.reachable):
        with pytest.raises(HubError) as caught:
            call()
        assert caught.value.category is Category.UNAVAILABLE
    done = store.upload(NEVER)
    assert (done.sent, done.failed) == (0, 1)
    assert done.error
    store.close()
    again = opened(tmp_path, "http://127.0.0.1:9")
    assert again.waiting().count == 1
    again.close()


def test_what_waited_through_a_restart_is_found_and_uploaded(stub: Stub, tmp_path: Path) -> None:
    first = opened(tmp_path, "http://127.0.0.1:9")
    digests = [first.put_bytes(str(number).encode()).digest for number in range(5)]
    first.close()
    second = opened(tmp_path, stub.endpoint)
    assert second.upload(NEVER).sent == 5
    assert [ref.digest for ref in second.digests()] == sorted(digests)
    second.close()


@pytest.mark.parametrize("fault", ["503", "lost answer", "lost object", "spoilt object", "no answer"])
def test_a_server_in_trouble_costs_nothing_but_time(stub: Stub, tmp_path: Path, fault: str) -> None:
    settings = s3_settings(stub.endpoint, read_timeout_s=0.3 if fault == "no answer" else 5.0)
    # A server that compared checksums when it was tried and does not now is found out by reading back.
    check = "read" if fault == "spoilt object" else "head"
    store = opened(tmp_path, stub.endpoint, s3=settings, threads=2, check=check)
    digest = store.put_bytes(b"x" * 5000).digest
    store.reachable()
    if fault == "503":
        stub.faults.status = 503
    elif fault == "lost answer":
        stub.faults.lose_answer_of = {"PUT"}
    elif fault == "lost object":
        stub.faults.lose = True
    elif fault == "spoilt object":
        stub.faults.check_sums = False
        stub.faults.spoil = True
    else:
        stub.faults.hold = threading.Event()
    done = store.upload(NEVER)
    assert (done.sent, done.failed) == (0, 1)
    assert waiting_file(tmp_path, digest).exists()
    assert store.read(digest) == b"x" * 5000
    if stub.faults.hold is not None:
        stub.faults.hold.set()
    stub.faults = type(stub.faults)()
    assert store.upload(NEVER).sent == 1
    assert stub.objects[far(stub, digest)] == b"x" * 5000
    assert not waiting_file(tmp_path, digest).exists()
    store.close()


def test_by_setting_the_local_copy_goes_only_after_s3_was_read_back(stub: Stub, tmp_path: Path) -> None:
    store = opened(tmp_path, stub.endpoint, check="read")
    digest = store.put_bytes(b"received").digest
    store.reachable()
    stub.requests.clear()
    assert store.upload(NEVER).sent == 1
    assert gets(stub, digest) == 1
    store.close()


def test_a_large_object_goes_in_parts(store: SpooledStore, stub: Stub) -> None:
    data = os.urandom(12 * MIB)
    digest = store.put_bytes(data).digest
    assert store.upload(NEVER).sent == 1
    assert stub.objects[far(stub, digest)] == data
    assert sum("partNumber" in path for _, path in stub.requests) == 3


def test_one_object_that_s3_refuses_does_not_hold_up_the_others(store: SpooledStore, stub: Stub) -> None:
    digests = sorted(store.put_bytes(str(number).encode()).digest for number in range(10))
    stub.faults.refuse_keys = {digests[0]}
    done = store.upload(NEVER)
    assert (done.sent, done.failed) == (9, 1)
    assert store.waiting().count == 1


def test_many_objects_that_s3_refuses_do_not_hold_up_the_one_behind_them(store: SpooledStore, stub: Stub) -> None:
    *refused, last = sorted(store.put_bytes(str(number).encode()).digest for number in range(30))
    stub.faults.refuse_keys = set(refused)
    runs = [store.upload(NEVER) for _ in range(5)]
    assert sum(run.sent for run in runs) == 1
    assert [path.rpartition("/")[2] for path in stub.objects] == [last]


def test_a_server_that_is_away_is_not_asked_for_each_object(store: SpooledStore, stub: Stub) -> None:
    for number in range(100):
        store.put_bytes(str(number).encode())
    store.reachable()
    stub.faults.status = 503
    stub.requests.clear()
    done = store.upload(NEVER)
    assert done.sent == 0
    assert done.failed <= 12
    assert len(stub.requests) <= 12
    assert store.waiting().count == 100


def test_a_stop_ends_the_run_between_two_objects(store: SpooledStore) -> None:
    store.put_bytes(b"1")
    stopped = threading.Event()
    stopped.set()
    assert store.upload(stopped).sent == 0


def test_two_processes_do_not_upload_at_once(store: SpooledStore, stub: Stub, tmp_path: Path) -> None:
    store.put_bytes(b"1")
    other = opened(tmp_path, stub.endpoint)
    store.reachable()
    stub.faults.hold = held = threading.Event()
    runner = threading.Thread(target=store.upload, args=(NEVER,))
    runner.start()
    assert stub.held.acquire(timeout=20)
    done = other.upload(NEVER)
    held.set()
    runner.join()
    assert (done.sent, done.failed) == (0, 0)
    other.close()


def test_a_waiting_file_that_rotted_is_not_uploaded(store: SpooledStore, stub: Stub, tmp_path: Path) -> None:
    digest = store.put_bytes(b"received").digest
    spoil(waiting_file(tmp_path, digest))
    done = store.upload(NEVER)
    assert (done.sent, done.failed) == (0, 1)
    assert far(stub, digest) not in stub.objects
    assert store.waiting().count == 1
    with pytest.raises(HubError) as caught:
        store.read(digest)
    assert caught.value.category is Category.FAULT
    store.put_bytes(b"received")
    assert store.upload(NEVER).sent == 1


def test_an_object_that_is_put_again_while_it_is_given_up_stays(
    store: SpooledStore, stub: Stub, tmp_path: Path
) -> None:
    digest = store.put_bytes(b"received").digest
    source = store._local.open(digest)
    spoil(waiting_file(tmp_path, digest))
    # The put replaces the damaged file by a new one, which the upload that reads the old one must not remove.
    store.put_bytes(b"received")
    with source:
        assert not store._local.release(digest, source, keep=lambda *_: None)
    assert waiting_file(tmp_path, digest).read_bytes() == b"received"


def test_the_age_of_what_waits_is_that_of_its_first_arrival(stub: Stub, tmp_path: Path) -> None:
    now_s = [0.0]
    store = opened(tmp_path, stub.endpoint, now_s=lambda: now_s[0])
    digest = store.put_bytes(b"received").digest
    now_s[0] = waiting_file(tmp_path, digest).stat().st_mtime + 500
    store.put_bytes(b"received")
    assert 499 < store.waiting().oldest_s < 501
    store.put_bytes(b"another")
    assert store.waiting(max_age_s=1e9).count == 1
    assert store.waiting().count == 2
    store.close()


# --- reading ---


def test_a_small_object_is_fetched_whole_once(stub: Stub, tmp_path: Path) -> None:
    first = opened(tmp_path / "a", stub.endpoint)
    digest = first.put_bytes(b"0123456789").digest
    first.upload(NEVER)
    store = opened(tmp_path / "b", stub.endpoint)
    assert store.read(digest, 3, 4) == b"3456"
    with store.open(digest) as source:
        source.seek(8)
        assert source.read() == b"89"
    assert b"".join(store.stream(digest)) == b"0123456789"
    assert gets(stub, digest) == 1
    first.close()
    store.close()


def test_of_a_large_object_only_the_ranges_are_fetched(stub: Stub, tmp_path: Path) -> None:
    store = opened(tmp_path, stub.endpoint, cache_bytes=0)
    data = os.urandom(6 * MIB)
    digest = store.put_bytes(data).digest
    store.upload(NEVER)
    asked: list[int] = []
    real = S3Store._range

    def counting(self: S3Store, name: str, start: int, length: int | None) -> bytes:
        found = real(self, name, start, length)
        asked.append(len(found))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(S3Store, "_range", counting)
        assert store.read(digest, 4 * MIB, 1000) == data[4 * MIB : 4 * MIB + 1000]
        with store.open(digest) as source:
            source.seek(5 * MIB)
            assert source.read(500_000) == data[5 * MIB : 5 * MIB + 500_000]
    assert 0 < sum(asked) <= 2 * MIB
    store.close()


def test_a_large_object_that_is_streamed_is_kept(stub: Stub, tmp_path: Path) -> None:
    store = opened(tmp_path, stub.endpoint)
    data = os.urandom(3 * MIB)
    digest = store.put_bytes(data).digest
    store.upload(NEVER)
    store._cache.drop(digest)  # type: ignore[union-attr]
    assert b"".join(store.stream(digest)) == data
    assert b"".join(store.stream(digest)) == data
    assert gets(stub, digest) == 1
    assert b"".join(store.uncached().stream(digest)) == data
    assert gets(stub, digest) == 2
    store.close()


def test_a_copy_in_the_cache_that_rotted_is_passed_over(store: SpooledStore, tmp_path: Path) -> None:
    data = os.urandom(1000)
    digest = store.put_bytes(data).digest
    store.upload(NEVER)

    def whole(source: BinaryIO) -> bytes:
        with source:
            return source.read()

    for read in (
        lambda: store.read(digest),
        lambda: b"".join(store.stream(digest)),
        lambda: whole(store.open(digest, verify=True)),
    ):
        spoil(cached_file(tmp_path, digest))
        assert read() == data
        store.read(digest)
    spoil(cached_file(tmp_path, digest))
    assert store.verify(digest)


def test_a_large_rotten_copy_in_the_cache_is_told_and_gone_the_next_time(store: SpooledStore, tmp_path: Path) -> None:
    data = os.urandom(2 * MIB)
    digest = store.put_bytes(data).digest
    store.upload(NEVER)
    spoil(cached_file(tmp_path, digest))
    with pytest.raises(HubError) as caught:
        list(store.stream(digest))
    assert caught.value.category is Category.FAULT
    assert b"".join(store.stream(digest)) == data


def test_what_s3_sends_damaged_is_neither_served_nor_kept(stub: Stub, tmp_path: Path) -> None:
    store = opened(tmp_path, stub.endpoint)
    digest = store.put_bytes(b"received").digest
    store.upload(NEVER)
    store._cache.drop(digest)  # type: ignore[union-attr]
    stub.objects[far(stub, digest)] = b"RECEIVED"
    for call in (lambda: store.read(digest), lambda: store.read(digest, 1, 2), lambda: list(store.stream(digest))):
        with pytest.raises(HubError) as caught:
            call()
        assert caught.value.category is Category.FAULT
    stub.objects[far(stub, digest)] = b"received"
    assert store.read(digest) == b"received"
    store.close()


def test_an_answer_that_is_cut_off_is_unavailable_and_not_kept(store: SpooledStore, stub: Stub) -> None:
    digest = store.put_bytes(os.urandom(5000)).digest
    store.upload(NEVER)
    store._cache.drop(digest)  # type: ignore[union-attr]
    stub.faults.cut_reads = True
    for call in (lambda: store.read(digest), lambda: list(store.stream(digest))):
        with pytest.raises(HubError) as caught:
            call()
        assert caught.value.category is Category.UNAVAILABLE
    stub.faults.cut_reads = False
    assert store._cache.open(digest) is None  # type: ignore[union-attr]
    assert len(store.read(digest)) == 5000


# --- the disk ---


class Disk:
    """What ``statvfs`` tells of a small disk that holds what lies under *folder*."""

    f_frsize = 1

    def __init__(self, folder: Path, size: int) -> None:
        self._folder = folder
        self._size = size

    def __call__(self, path: object) -> Disk:
        return self

    @property
    def f_bavail(self) -> int:
        files = {path.stat().st_ino: path.stat().st_size for path in self._folder.rglob("*") if len(path.name) == 64}
        return self._size - sum(files.values())


def test_the_cache_gives_way_before_data_is_refused(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "statvfs", Disk(tmp_path, 20 * MIB))
    store = opened(tmp_path, stub.endpoint, min_free_bytes=8 * MIB)
    for _ in range(3):
        store.put_bytes(os.urandom(4 * MIB))
        store.upload(NEVER)
        store.healthy()
    stub.faults.status = 503
    # 12 MiB above the reserve, and the one that crosses it.
    for _ in range(4):
        store.put_bytes(os.urandom(4 * MIB))
    with pytest.raises(HubError) as caught:
        store.put_bytes(os.urandom(4 * MIB))
    assert caught.value.category is Category.UNAVAILABLE
    with pytest.raises(HubError) as unhealthy:
        store.healthy()
    assert unhealthy.value.category is Category.UNAVAILABLE
    assert store._cache.total() == 0  # type: ignore[union-attr]
    stub.faults.status = 0
    store.close()
    again = opened(tmp_path, stub.endpoint, min_free_bytes=8 * MIB)
    assert again.upload(NEVER).sent == 4
    again.healthy()
    again.put_bytes(b"taken again")
    again.close()


# --- removing and listing ---


def test_an_object_in_both_is_listed_once_and_removed_from_both(
    store: SpooledStore, stub: Stub, tmp_path: Path
) -> None:
    digest = store.put_bytes(b"received").digest
    store.upload(NEVER)
    store.put_bytes(b"received")
    assert [ref.digest for ref in store.digests()] == [digest]
    assert not store.discard(digest, idle_s=60)
    assert store.discard(digest, idle_s=0)
    assert stub.objects == {}
    assert store.stat(digest) is None
    assert list(tmp_path.rglob(digest)) == []


def test_an_object_that_is_uploaded_while_all_are_listed_is_in_the_list(store: SpooledStore) -> None:
    digests = sorted(store.put_bytes(str(number).encode()).digest for number in range(50))
    listing = store.digests()
    found = [next(listing).digest]
    store.upload(NEVER)
    found += [ref.digest for ref in listing]
    assert found == digests


def test_a_removal_waits_for_the_upload_under_way(store: SpooledStore, stub: Stub) -> None:
    digest = store.put_bytes(b"received").digest
    store.reachable()
    stub.faults.hold = held = threading.Event()
    runner = threading.Thread(target=store.upload, args=(NEVER,))
    runner.start()
    assert stub.held.acquire(timeout=20)
    removed = threading.Event()
    remover = threading.Thread(target=lambda: (store.delete(digest), removed.set()))
    remover.start()
    assert not removed.is_set()
    stub.faults.hold = None
    held.set()
    runner.join()
    remover.join()
    assert removed.is_set()
    assert store.stat(digest) is None


# --- settings ---


def test_turning_the_spool_off_while_objects_wait_is_refused(stub: Stub, tmp_path: Path) -> None:
    values = {
        "data_dir": tmp_path,
        "objects_url": "s3://bucket",
        "s3_endpoint": stub.endpoint,
        "s3_access_key": "a",
        "s3_secret_key": "b",
    }
    on, off = Settings(**values, objects_spool="durable"), Settings(**values)  # type: ignore[arg-type]
    store = open_from(on)
    assert isinstance(store, SpooledStore)
    digest = store.put_bytes(b"received").digest
    with pytest.raises(HubError) as caught:
        open_from(off)
    assert caught.value.category is Category.CONFLICT
    assert store.upload(NEVER).sent == 1
    store.close()
    plain: SweepableStore = open_from(off)
    assert isinstance(plain, S3Store)
    assert plain.read(digest) == b"received"
    plain.close()


@pytest.mark.parametrize("url", ["file:///tmp/x", "memory://"])
def test_a_spool_before_another_store_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(HubError) as caught:
        open_store(url, data_dir=tmp_path, spool=SpoolSettings())
    assert caught.value.category is Category.INCORRECT
    assert caught.value.where == "HUB_OBJECTS_SPOOL"


def test_without_s3_settings_the_start_fails_as_ever(tmp_path: Path) -> None:
    with pytest.raises(HubError) as caught:
        open_store("s3://bucket", data_dir=tmp_path, spool=SpoolSettings())
    assert caught.value.category is Category.INCORRECT


# --- a process that dies ---

CHILD = """
import itertools, os, signal, sys, threading
from pathlib import Path
from storage.objects.s3 import S3Store
from storage.objects.settings import S3Settings, SpoolSettings
from storage.objects.spooled import SpooledStore
folder, endpoint, part = Path(sys.argv[1]), sys.argv[2], 5 << 20
settings = S3Settings(
    endpoint=endpoint, access_key="hub-test", secret_key="hub-test-secret",
    retries=0, multipart_bytes=6 << 20, part_bytes=part,
)
store = SpooledStore(
    folder, lambda: S3Store("bucket", prefix=sys.argv[3], settings=settings, spool_dir=folder / "spool"),
    settings=SpoolSettings(threads=3, cache_bytes=50 << 20, fetch_bytes=1 << 20),
)
store.reachable()
for number in range(12):
    size = 7 << 20 if number == 0 else 2000
    print(store.put_bytes(bytes([number]) * size).digest, flush=True)
print("answered", flush=True)
sys.stdin.readline()
if len(sys.argv) > 4:
    step, when = sys.argv[4:]
    owner = {"put_file": S3Store, "link": os, "unlink": Path}[step]
    real = getattr(owner, step)
    calls = itertools.count(1)
    def killed(*args, **kwargs):
        # Some uploads are whole by then, and others in the middle.
        last = next(calls) == 4
        if last and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        real(*args, **kwargs)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
    setattr(owner, step, killed)
store.upload(threading.Event())
print("uploaded", flush=True)
"""


def test_a_kill_in_the_middle_of_uploads_loses_nothing(stub: Stub, tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path), stub.endpoint, ""],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    digests = [child.stdout.readline().strip() for _ in range(12)]
    assert child.stdout.readline() == "answered\n"
    stub.faults.hold = held = threading.Event()
    child.stdin.write("go\n")
    child.stdin.flush()
    # All three workers, one of them perhaps with three parts, are in the middle of a request.
    for _ in range(3):
        assert stub.held.acquire(timeout=20)
    child.kill()
    child.communicate()
    stub.faults.hold = None
    held.set()
    assert not stub.objects
    store = opened(tmp_path, stub.endpoint)
    assert store.waiting().count == 12
    assert all(store.verify(digest) for digest in digests)
    assert store.upload(NEVER).sent == 12
    assert {far(stub, digest) for digest in digests} == set(stub.objects)
    assert all(hashlib.sha256(data).hexdigest() in name for name, data in stub.objects.items())
    store.close()


@pytest.mark.xdist_group("seaweedfs")
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["put_file", "link", "unlink"])
def test_a_kill_at_any_step_of_an_upload_loses_nothing(
    seaweedfs: SeaweedFS, tmp_path: Path, step: str, when: str
) -> None:
    prefix = seaweedfs.new_url().rpartition("/")[2]
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), seaweedfs.endpoint, prefix, step, when],
        input="go\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    *digests, answered = child.stdout.split()
    assert (len(digests), answered) == (12, "answered")
    store = SpooledStore(
        tmp_path,
        lambda: S3Store("bucket", prefix=prefix, settings=seaweedfs.settings(), spool_dir=tmp_path / "spool"),
        settings=SpoolSettings(cache_bytes=0),
    )
    assert all(store.verify(digest) for digest in digests)
    assert [ref.digest for ref in store.digests()] == sorted(digests)
    assert store.upload(NEVER).failed == 0
    assert store.waiting().count == 0
    assert all(store.verify(digest) for digest in digests)
    store.close()
