"""fsck tells what is missing, damaged or without a row, and removes nothing for good."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hub.boot import Services
from hub.clock import utc_now
from hub.ports import NewEntry, NewVersion
from storage.fsck import QUARANTINE_AFTER_S, Report, fsck, sweep
from storage.objects import SpoolSettings, open_store
from storage.objects.file import FileStore
from storage.objects.spooled import SpooledStore
from tests.support.hub import register
from tests.support.seaweedfs import SeaweedFS

LARGE = b"x" * 100_000


class Later:
    """The store's own clock, which tests can put forward; a file's real age cannot be set."""

    ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


@pytest.fixture
def later() -> Later:
    return Later()


@pytest.fixture
def stored(sqlite_services: Services, tmp_path: Path, later: Later) -> Iterator[Services]:
    """Services whose objects are files."""
    store = FileStore(tmp_path / "objects", now_s=later)
    yield replace(sqlite_services, objects=store)
    store.close()


def journaled(services: Services, body: bytes) -> str:
    """Keep *body* as a large message and return its digest."""
    ref = services.objects.put_bytes(body)
    entry = NewEntry(
        door="mllp",
        institution="KN",
        peer="",
        correlation_id="c",
        message_type="ADT^A01",
        digest=ref.digest,
        size=ref.size,
        received_at=utc_now(),
    )
    services.database.write(lambda tx: tx.journal.append(entry))
    return ref.digest


def path_of(services: Services, digest: str) -> Path:
    [found] = (services.settings.data_dir / "objects").rglob(digest)
    return found


def check(services: Services, *, repair: bool = False, deep: bool = True) -> Report:
    return fsck(services.database, services.objects, services.settings.data_dir, repair=repair, deep=deep)


def test_a_sound_hub_has_nothing_to_tell(stored: Services) -> None:
    journaled(stored, LARGE)
    report = check(stored)
    assert (report.sound, report.objects, report.rows, report.orphans) == (True, 1, 1, [])


def test_a_row_without_its_object_is_told(stored: Services) -> None:
    digest = journaled(stored, LARGE)
    path_of(stored, digest).unlink()
    report = check(stored)
    assert (report.sound, report.missing) == (False, [digest])


def test_bytes_that_rotted_are_told(stored: Services) -> None:
    digest = journaled(stored, LARGE)
    path = path_of(stored, digest)
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.write(b"y")
    assert check(stored).wrong == [digest]
    assert check(stored, deep=False).sound


def test_a_young_orphan_stays_and_an_old_one_goes_to_the_quarantine(stored: Services, later: Later) -> None:
    old = stored.objects.put_bytes(b"old")
    young = check(stored, repair=True)
    assert (young.orphans, young.quarantined) == ([old.digest], [])
    assert list((stored.settings.data_dir / "quarantine").iterdir()) == []
    later.ahead_s = QUARANTINE_AFTER_S + 60
    assert check(stored).orphans == [old.digest]
    report = check(stored, repair=True)
    assert (report.orphans, report.quarantined) == ([], [old.digest])
    kept = stored.settings.data_dir / "quarantine" / old.digest
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == old.digest
    assert stored.objects.stat(old.digest) is None


def test_an_attachment_is_named_by_its_binary_even_in_old_versions(stored: Services, later: Later) -> None:
    register(stored)
    ref = stored.objects.put_bytes(b"%PDF-1.4")
    binary = {
        "resourceType": "Binary",
        "id": "b1",
        "contentType": "application/pdf",
        "_data": {"extension": [{"url": "x/object-digest", "valueString": ref.digest}]},
    }
    stored.database.write(lambda tx: tx.records.put_many([NewVersion(resource=dict(binary), owner="KN")]))
    plain = {"resourceType": "Binary", "id": "b1", "contentType": "application/pdf"}
    stored.database.write(lambda tx: tx.records.put_many([NewVersion(resource=plain, owner="KN")]))
    later.ahead_s = 30 * 24 * 3600
    assert check(stored, repair=True).quarantined == []
    assert sweep(stored.database, stored.objects).removed == []


def test_the_hourly_sweep_removes_orphans_after_days_only(stored: Services, later: Later) -> None:
    named = journaled(stored, LARGE)
    orphan = stored.objects.put_bytes(b"orphan")
    later.ahead_s = 2 * 24 * 3600
    assert sweep(stored.database, stored.objects).removed == []
    later.ahead_s = 9 * 24 * 3600
    assert sweep(stored.database, stored.objects).removed == [orphan.digest]
    assert stored.objects.stat(named) is not None


# --- a spool before S3 ---


@pytest.fixture
def two_tiers(sqlite_services: Services, seaweedfs: SeaweedFS, tmp_path: Path) -> Iterator[Services]:
    """Services whose objects wait on this disk and are uploaded when the test says so."""
    store = open_store(
        seaweedfs.new_url(), data_dir=tmp_path, s3=seaweedfs.settings(), spool=SpoolSettings(), min_free_bytes=0
    )
    yield replace(sqlite_services, objects=store)
    store.close()


def spooled(services: Services) -> SpooledStore:
    assert isinstance(services.objects, SpooledStore)
    return services.objects


def uploaded(services: Services, *bodies: bytes) -> list[str]:
    digests = [journaled(services, body) for body in bodies]
    assert spooled(services).upload(threading.Event()).sent == len(bodies)
    return digests


def near(services: Services, digest: str) -> Path:
    return services.settings.data_dir / "uploads" / digest[:2] / digest


def spoil_far(services: Services, digest: str) -> None:
    """Let the object in S3 have other bytes of the same length, as a disk that rots would."""
    far = spooled(services)._remote.get()
    far._client.put_bytes(far._bucket, far._key(digest), memoryview(b"y" * len(LARGE)))


def both(services: Services, body: bytes) -> str:
    """Keep *body* in S3 and, sent once more, in the spool."""
    [digest] = uploaded(services, body)
    services.objects.put_bytes(body)
    return digest


def spoil(path: Path) -> None:
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.write(b"z")


@pytest.mark.xdist_group("seaweedfs")
def test_objects_of_either_tier_or_both_are_sound(two_tiers: Services) -> None:
    uploaded(two_tiers, b"1" * 100_000)
    both(two_tiers, b"2" * 100_000)
    journaled(two_tiers, b"3" * 100_000)
    report = check(two_tiers)
    assert (report.sound, report.objects, report.rows, report.mended, report.orphans) == (True, 3, 3, [], [])


@pytest.mark.xdist_group("seaweedfs")
@pytest.mark.parametrize("harm", ["spool", "s3"])
def test_a_damaged_copy_is_mended_from_the_other_tier(two_tiers: Services, harm: str) -> None:
    digest = both(two_tiers, LARGE)
    spooled(two_tiers)._cache.drop(digest)  # type: ignore[union-attr]
    if harm == "spool":
        spoil(near(two_tiers, digest))
    else:
        spoil_far(two_tiers, digest)
    told = check(two_tiers)
    assert (told.sound, told.missing, told.wrong) == (False, [], [])
    [line] = told.mended
    assert line.startswith(f"{digest}: damaged in {'the spool' if harm == 'spool' else 'S3'}")
    mended = check(two_tiers, repair=True)
    assert (mended.sound, mended.mended) == (True, [line])
    assert near(two_tiers, digest).exists() == (harm == "s3")
    spooled(two_tiers).upload(threading.Event())
    assert (check(two_tiers).sound, check(two_tiers).mended) == (True, [])
    assert spooled(two_tiers)._remote.get().verify(digest)


@pytest.mark.xdist_group("seaweedfs")
@pytest.mark.parametrize("harm", ["damaged", "missing"])
def test_what_s3_lost_comes_back_from_the_cache(two_tiers: Services, harm: str) -> None:
    [digest] = uploaded(two_tiers, LARGE)
    if harm == "damaged":
        spoil_far(two_tiers, digest)
    else:
        spooled(two_tiers)._remote.get().delete(digest)
    report = check(two_tiers, repair=True)
    assert (report.sound, report.missing, report.wrong) == (True, [], [])
    assert report.mended == [f"{digest}: {harm}; the copy in the cache is uploaded in its place"]
    spooled(two_tiers).upload(threading.Event())
    assert spooled(two_tiers)._remote.get().verify(digest)


@pytest.mark.xdist_group("seaweedfs")
def test_what_no_copy_can_mend_is_damage(two_tiers: Services) -> None:
    [gone, rotten] = uploaded(two_tiers, LARGE, b"w" * len(LARGE))
    waiting = journaled(two_tiers, b"v" * len(LARGE))
    for digest in (gone, rotten):
        spooled(two_tiers)._cache.drop(digest)  # type: ignore[union-attr]
    spooled(two_tiers)._remote.get().delete(gone)
    spoil_far(two_tiers, rotten)
    spoil(near(two_tiers, waiting))
    report = check(two_tiers, repair=True)
    assert (report.sound, report.missing, sorted(report.wrong)) == (False, [gone], sorted([rotten, waiting]))
    assert near(two_tiers, waiting).exists()
