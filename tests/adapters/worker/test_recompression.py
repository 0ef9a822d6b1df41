"""Images are packed while nobody needs the hub, by one node at a time, and nobody can tell afterwards."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.pixels.lossless import PooledCodec
from adapters.worker.recompression import BUSY_S, RETRY, RecompressionLoop
from hub import metrics
from hub.actor import HUB
from hub.boot import Services
from hub.config import Settings
from hub.deletion import Deletion
from hub.errors import HubError
from hub.ports import AuditLine, Member, StudyKey
from hub.ports.packing import CodedFrame, NotPackableError, PackedTotals, Shape
from hub.recompression import JPEG_2000, LEASE
from storage.fsck import fsck, sweep
from storage.objects.file import FileStore
from storage.objects.packed import PackedStore, packed_store
from storage.objects.sweep import REMOVE_AFTER_S
from tests.support.databases import opened
from tests.support.images import KN, QH, FakeClock, receive, services
from tests.support.part10 import Part10

STUDY = "2.25.1"
HOUR = 3600.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def hub(database_url: str, tmp_path: Path, clock: FakeClock) -> Iterator[Services]:
    codec = PooledCodec(Settings(pixel_processes=1))
    with opened(database_url, clock=clock) as database:
        began = clock.now
        # Files get older with the clock of the test.
        inner = FileStore(tmp_path / "objects", now_s=lambda: time.time() + (clock.now - began).total_seconds())
        made = services(database, tmp_path, clock, recompression_keep_s=HOUR)
        yield replace(made, objects=packed_store(inner, database, codec))
    codec.close()


class Counts:
    """What was counted."""

    def __init__(self) -> None:
        self.counted: list[tuple[str, float, dict[str, str]]] = []

    def count(self, name: str, amount: float, labels: dict[str, str]) -> None:
        self.counted.append((name, amount, labels))

    def observe(self, name: str, seconds: float, labels: dict[str, str]) -> None:
        pass


@pytest.fixture
def counts() -> Iterator[Counts]:
    sink = Counts()
    metrics.set_sink(sink)
    yield sink
    metrics.set_sink(None)


def packed(hub: Services) -> PackedStore:
    assert isinstance(hub.objects, PackedStore)
    return hub.objects


def policy(hub: Services, text: str, code: str = "KN") -> None:
    member = Member(code=code, organization_id=code.lower(), name=code, settings={"recompression": text})
    hub.database.write(lambda tx: tx.members.replace([member], [], []))
    hub.directory.refresh()


def loop(hub: Services, stop: threading.Event | None = None, node: str = "test") -> RecompressionLoop:
    # A test must not make the rest of its process come last.
    return RecompressionLoop(replace(hub, node=node), packed(hub), stop or threading.Event(), come_last=lambda: None)


def run(worker: RecompressionLoop, turns: int = 12) -> None:
    for _ in range(turns):
        worker.turn()


def totals(hub: Services) -> PackedTotals:
    return hub.database.read(lambda tx: tx.packings.totals())


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def lies_there(hub: Services, data: bytes) -> bool:
    return packed(hub).inner.stat(digest_of(data)) is not None


def form(hub: Services, data: bytes) -> str:
    """Return the digest of the packed form of an image."""
    found = hub.database.read(lambda tx: tx.packings.find(digest_of(data)))
    assert found is not None
    assert found.packed is not None
    return found.packed.digest


def image(instance: int = 1, **more: Any) -> bytes:
    return Part10(**{"rows": 64, "columns": 64, "content": "ramp", "instance": instance, **more}).data()


def arrive(hub: Services, clock: FakeClock, *images: bytes, **more: Any) -> None:
    """Receive *images* and let so much time go by that the hub is idle."""
    for one in images:
        receive(hub, one, **more)
    clock.forward(hub.settings.recompression_idle_s + 1)


def read(hub: Services, data: bytes) -> bool:
    digest = digest_of(data)
    with hub.objects.open(digest) as handle:
        return handle.read() == data and hub.objects.read(digest) == data


def test_nothing_is_packed_without_a_policy(hub: Services, clock: FakeClock) -> None:
    policy(hub, "")
    arrive(hub, clock, image())
    clock.forward(400 * 86_400)
    run(loop(hub))
    assert totals(hub) == PackedTotals(settled=0, waiting=0, original_bytes=0, packed_bytes=0, refused={})


def test_an_image_is_packed_and_its_original_goes_when_its_time_is_over(
    hub: Services, clock: FakeClock, counts: Counts
) -> None:
    policy(hub, "transfer-syntax=jpeg-ls after-days=0")
    data = image()
    arrive(hub, clock, data)
    worker = loop(hub)
    run(worker)
    assert (totals(hub).waiting, totals(hub).settled, lies_there(hub, data)) == (1, 0, True)
    clock.forward(HOUR - 60)
    run(worker)
    assert lies_there(hub, data)
    clock.forward(61)
    run(worker)
    found = totals(hub)
    assert (found.waiting, found.settled, lies_there(hub, data)) == (0, 1, False)
    assert found.original_bytes == len(data)
    assert found.saved_bytes > len(data) / 3
    assert read(hub, data)
    assert ("packings", 1, {"outcome": "packed"}) in counts.counted
    assert ("packed_bytes_saved", found.saved_bytes, {}) in counts.counted


def test_days_modalities_and_owner_are_those_of_the_policy(hub: Services, clock: FakeClock) -> None:
    policy(hub, "transfer-syntax=jpeg-2000 modalities=CT,MR after-days=10")
    ct, us = image(1), Part10(rows=64, columns=64, content="ramp", modality="US", study=2).data()
    arrive(hub, clock, ct, us)
    receive(hub, image(2, study=3), QH)
    clock.forward(10 * 86_400 - 60)
    worker = loop(hub)
    run(worker)
    assert totals(hub).waiting == 0
    clock.forward(120)
    run(loop(hub))
    made = hub.database.read(lambda tx: tx.packings.unsettled(before=clock.now, limit=10))
    assert [(one.digest, one.syntax) for one in made] == [(digest_of(ct), JPEG_2000)]


def test_the_hub_comes_first(hub: Services, clock: FakeClock) -> None:
    policy(hub, "transfer-syntax=jpeg-ls after-days=0")
    receive(hub, image())
    worker = loop(hub)
    assert worker.turn() == BUSY_S
    clock.forward(hub.settings.recompression_idle_s + 1)
    looked = AuditLine(type="dicom", action="R", subtype="WADO-RS frames", actor=HUB, recorded_at=clock.now)
    hub.database.write(lambda tx: tx.audit.write(looked))
    assert worker.turn() == BUSY_S
    assert totals(hub).waiting == 0
    clock.forward(hub.settings.recompression_idle_s + 1)
    # Somebody who asks for a worklist each minute does not keep the hub busy.
    asked = replace(looked, subtype="MWL C-FIND", recorded_at=clock.now)
    hub.database.write(lambda tx: tx.audit.write(asked))
    run(worker)
    assert totals(hub).waiting == 1


def test_the_rate_is_kept_by_a_rest_after_each_object(hub: Services, clock: FakeClock) -> None:
    policy(hub, "transfer-syntax=jpeg-ls after-days=0")
    data = image()
    arrive(hub, clock, data)
    slow = replace(hub, settings=hub.settings.model_copy(update={"recompression_bytes_per_s": 1}))
    rest_s = RecompressionLoop(slow, packed(hub), threading.Event(), come_last=lambda: None).turn()
    assert len(data) - hub.settings.pixel_deadline_s < rest_s <= len(data)


def test_one_node_works_at_a_time(hub: Services, clock: FakeClock) -> None:
    policy(hub, "transfer-syntax=jpeg-ls after-days=0")
    arrive(hub, clock, image())
    epoch = hub.database.write(lambda tx: tx.timers.lease(LEASE, "other", now=clock.now, lease_s=HOUR))
    assert epoch is not None
    assert loop(hub).turn() == BUSY_S
    assert totals(hub).waiting == 0
    hub.database.write(lambda tx: tx.timers.release(LEASE, epoch))
    run(loop(hub))
    assert totals(hub).waiting == 1
    assert hub.database.read(lambda tx: tx.timers.leased(LEASE, now=clock.now)) == ""


def test_a_node_that_lost_its_lease_writes_nothing(hub: Services, clock: FakeClock) -> None:
    policy(hub, "transfer-syntax=jpeg-ls after-days=0")
    arrive(hub, clock, image())
    store = packed(hub)

    class Overtaken(PackedStore):
        def pack(self, digest: str, syntax: str, stop: threading.Event) -> Any:
            made = super().pack(digest, syntax, stop)
            later = clock.forward(HOUR)
            assert hub.database.write(lambda tx: tx.timers.lease(LEASE, "other", now=later, lease_s=HOUR)) is not None
            return made

    slow = Overtaken(store.inner, hub.database, store._codec)
    RecompressionLoop(hub, slow, threading.Event(), come_last=lambda: None).turn()
    assert totals(hub).waiting == 0


def test_what_cannot_be_packed_is_not_tried_twice(hub: Services, clock: FakeClock, counts: Counts) -> None:
    policy(hub, "transfer-syntax=jpeg-ls after-days=0")
    noise = image(content="noise", bits_stored=16)
    arrive(hub, clock, noise)
    run(loop(hub))
    assert totals(hub).refused == {"no-gain": 1}
    assert ("packings", 1, {"outcome": "no-gain"}) in counts.counted
    counts.counted.clear()
    run(loop(hub))
    assert [name for name, _, _ in counts.counted if name == "packings"] == []
    # Another transfer syntax is another question.
    policy(hub, "transfer-syntax=jpeg-2000 after-days=0")
    run(loop(hub))
    assert [name for name, _, _ in counts.counted if name == "packings"] == ["packings"]
    assert lies_there(hub, noise)


class Failing(PooledCodec):
    """A codec that fails, as under a load that lets it run out of time."""

    def encode(self, shape: Shape, syntax: str, frame: bytes) -> CodedFrame:
        raise NotPackableError("codec")


def test_what_the_codec_failed_at_is_tried_again_after_a_week(hub: Services, clock: FakeClock) -> None:
    policy(hub, "transfer-syntax=jpeg-ls after-days=0")
    arrive(hub, clock, image())
    failing = replace(hub, objects=PackedStore(packed(hub).inner, hub.database, Failing(hub.settings)))
    run(loop(failing))
    assert totals(hub).refused == {"codec": 1}
    clock.forward(RETRY.total_seconds() - 60)
    run(loop(hub))
    assert totals(hub).waiting == 0
    clock.forward(120)
    run(loop(hub))
    assert (totals(hub).waiting, totals(hub).refused) == (1, {})


def test_an_image_in_hand_waits_for_the_next_start_when_the_hub_stops(hub: Services, clock: FakeClock) -> None:
    policy(hub, "transfer-syntax=jpeg-ls after-days=0")
    arrive(hub, clock, image())
    stop = threading.Event()
    stop.set()
    run(loop(hub, stop), 3)
    assert (totals(hub).waiting, totals(hub).refused) == (0, {})
    run(loop(hub))
    assert totals(hub).waiting == 1


def test_several_stretches_of_the_index_are_looked_at(
    hub: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.worker.recompression.SPAN", 2)
    policy(hub, "transfer-syntax=jpeg-ls after-days=0")
    arrive(hub, clock, *(image(number) for number in range(1, 6)))
    run(loop(hub), 20)
    assert totals(hub).waiting == 5


# --- what else there is in a hub ----------------------------------------------------------------------------------


def settle_all(hub: Services, clock: FakeClock) -> None:
    run(loop(hub))
    clock.forward(HOUR + 1)
    run(loop(hub))


def test_an_image_on_hold_and_one_marked_deleted_are_packed_like_others(hub: Services, clock: FakeClock) -> None:
    policy(hub, "transfer-syntax=jpeg-ls after-days=0")
    held, marked = image(1), image(2, study=2)
    arrive(hub, clock, held, marked)
    desk = Deletion(hub)
    admin = replace(KN, roles=frozenset({"admin"}))
    desk.hold(admin, STUDY, reason="law")
    desk.delete(admin, "2.25.2", reason="wrong patient")
    clock.forward(HOUR)
    settle_all(hub, clock)
    assert totals(hub).settled == 2
    assert read(hub, held)
    assert read(hub, marked)
    desk.restore(admin, "2.25.2", reason="was right")
    assert hub.database.read(lambda tx: tx.imaging.instances_of(StudyKey(owner="KN", StudyInstanceUID="2.25.2")))


def test_fsck_finds_a_packed_hub_sound_and_names_the_object_that_is_not(hub: Services, clock: FakeClock) -> None:
    policy(hub, "transfer-syntax=jpeg-ls after-days=0")
    whole, rotten, gone = (image(number) for number in (1, 2, 3))
    arrive(hub, clock, whole, rotten, gone)

    def check() -> Any:
        return fsck(hub.database, packed(hub), hub.settings.data_dir, repair=False)

    run(loop(hub))
    assert (check().sound, check().orphans) == (True, [])
    clock.forward(HOUR + 1)
    run(loop(hub))
    report = check()
    assert (report.sound, report.orphans, report.objects, report.rows) == (True, [], 3, 3)
    packed(hub).inner.delete(form(hub, gone))
    [path] = (hub.settings.data_dir / "objects").rglob(form(hub, rotten))
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(600)
        file.write(b"rot")
    report = check()
    assert (report.missing, report.wrong) == ([digest_of(gone)], [digest_of(rotten)])
    with pytest.raises(HubError):
        hub.objects.read(digest_of(rotten))


def test_a_sweep_spares_packed_forms_and_takes_those_of_purged_images(hub: Services, clock: FakeClock) -> None:
    policy(hub, "transfer-syntax=jpeg-ls after-days=0")
    kept, purged = image(1), image(2, study=2)
    arrive(hub, clock, kept, purged)
    settle_all(hub, clock)
    clock.forward(REMOVE_AFTER_S)
    assert list(sweep(hub.database, packed(hub)).removed) == []
    key = StudyKey(owner="KN", StudyInstanceUID="2.25.2")
    hub.database.write(lambda tx: tx.imaging.deletions.purge(key, reason="x", by="y", at=clock.now))
    assert len(sweep(hub.database, packed(hub)).removed) == 1
    assert totals(hub).settled == 1
    assert read(hub, kept)
    with pytest.raises(HubError):
        hub.objects.read(digest_of(purged))


def test_an_image_that_is_sent_again_loses_its_second_original(hub: Services, clock: FakeClock) -> None:
    policy(hub, "transfer-syntax=jpeg-ls after-days=0")
    data = image()
    arrive(hub, clock, data)
    settle_all(hub, clock)
    assert not lies_there(hub, data)
    assert receive(hub, data) == "duplicate"
    assert lies_there(hub, data)
    sweep(hub.database, packed(hub))
    assert totals(hub).waiting == 1
    run(loop(hub))
    assert lies_there(hub, data)
    clock.forward(HOUR + 1)
    run(loop(hub))
    assert (totals(hub).settled, lies_there(hub, data)) == (1, False)
    assert read(hub, data)
