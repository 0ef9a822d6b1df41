"""The worker uploads what waits, backs off while S3 is away, and goes on at once when it is back."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

from adapters.worker import WorkerDoor
from adapters.worker.uploads import IDLE_S, LONGEST_S, UploadLoop
from hub.boot import Services
from hub.ports import Uploaded, Waiting
from storage.objects import SpoolSettings, open_store
from storage.objects.settings import S3Settings
from tests.support.s3_stub import s3_stub


class Store:
    """Answers what the test says."""

    def __init__(self) -> None:
        self.answer = Uploaded()

    def upload(self, stop: threading.Event) -> Uploaded:
        return self.answer

    def waiting(self, *, max_age_s: float = 0.0) -> Waiting:
        return Waiting(count=0, size=0, oldest_s=0.0)

    def reachable(self) -> None: ...


def test_the_distance_between_runs_grows_while_s3_is_away_and_not_beyond_a_bound() -> None:
    store = Store()
    loop = UploadLoop(store, threading.Event())
    assert loop.turn() == IDLE_S
    store.answer = Uploaded(sent=3)
    assert loop.turn() == 0.0
    store.answer = Uploaded(failed=8, error="away")
    waits = [loop.turn() for _ in range(10)]
    assert waits[0] <= IDLE_S
    assert all(LONGEST_S / 2 <= wait <= LONGEST_S for wait in waits[5:])
    store.answer = Uploaded(sent=1)
    assert loop.turn() == 0.0
    store.answer = Uploaded(failed=1, error="away")
    assert loop.turn() <= IDLE_S


def test_the_worker_sends_what_doors_have_answered(sqlite_services: Services, tmp_path: Path) -> None:
    with s3_stub() as stub:
        settings = S3Settings(endpoint=stub.endpoint, access_key="a", secret_key="b", retries=0)
        store = open_store("s3://bucket", data_dir=tmp_path, s3=settings, spool=SpoolSettings(), min_free_bytes=0)
        digest = store.put_bytes(b"received").digest
        services = replace(sqlite_services, objects=store)
        arrived, stop = threading.Event(), threading.Event()
        objects = stub.objects

        class Watched(dict[str, bytes]):
            def __setitem__(self, key: str, value: bytes) -> None:
                super().__setitem__(key, value)
                if digest in key:
                    arrived.set()

        stub.objects = Watched(objects)
        worker = threading.Thread(target=WorkerDoor().serve, args=(services, {}, stop, 0))
        worker.start()
        came = arrived.wait(30)
        stop.set()
        worker.join()
        assert came
        assert store.read(digest) == b"received"
        store.close()
