"""A copy of everything a hub would need to go on elsewhere, taken while it runs.

The database is copied first, as one consistent snapshot (SQLite's online backup, https://www.sqlite.org/backup.html, or
``pg_dump``), then the objects: objects are written before their rows, so every object that the snapshot names exists by
then. Objects are compared with their hash on the way out and on the way in. The manifest is written last; a folder
without one is not a backup. A folder that holds an older backup of the same hub is brought up to date.

A backup that comes back may have been in other hands. What a restore reads is therefore what :func:`backup` writes and
nothing else: its manifest names no other place, no part of it is a symbolic link, and all of that is known before the
first byte is written.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from hub import __version__
from hub.clock import instant
from hub.config import Settings
from hub.errors import Category, HubError
from hub.ports import ObjectStore
from storage.objects.packed import behind
from storage.objects.spooled import SpooledStore
from storage.sql.migrate import newest

MANIFEST = "manifest.json"
_FORMAT = 1
_CHUNK = 1 << 20
#: The files that a manifest may name besides the database: keys lie in one flat folder, and none is hidden.
_KEY = re.compile(r"keys/[^./\\\0][^/\\\0]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")

Tick = Callable[[int], None]


def backup(
    settings: Settings, store: ObjectStore, target: Path, *, now: datetime, tick: Tick = lambda _: None
) -> Mapping[str, Any]:
    """Copy database, objects and keys to *target* and return the manifest.

    Args:
        tick: told the size of each object that was copied or was there already.

    Raises:
        HubError: conflict when *target* holds something else; fault when an object is damaged; unavailable when the
            database cannot be copied.
    """
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    manifest = target / MANIFEST
    if not manifest.exists() and any(one.name not in {"database", "objects", "keys"} for one in target.iterdir()):
        raise HubError(
            Category.CONFLICT,
            "The folder holds something that is not a backup.",
            where=str(target),
            remedy="Give a new or an empty folder.",
        )
    manifest.unlink(missing_ok=True)
    files = {"database": _dump(settings.database(), target / "database")}
    for key in sorted((settings.data_dir / "keys").glob("[!.]*")):
        files[f"keys/{key.name}"] = _copy(key, target / "keys" / key.name)
    count = size = 0
    # Packed forms are copied as they lie; the rows of the database say what they stand for.
    store = behind(store)
    if isinstance(store, SpooledStore):
        # Waiting objects are copied like the others; reading all of them must not empty the cache of what is in use.
        store = store.uncached()
    for ref in store.digests():
        _copy_object(store, ref.digest, ref.size, _object_path(target, ref.digest))
        count, size = count + 1, size + ref.size
        tick(ref.size)
    written: dict[str, Any] = {
        "format": _FORMAT,
        "hub": __version__,
        "schema": newest(),
        "created": instant(now),
        "database": "sqlite" if settings.database().startswith("sqlite:") else "postgresql",
        "files": files,
        "objects": {"count": count, "bytes": size},
    }
    _write(manifest, json.dumps(written, indent=1).encode())
    return written


def restore(
    settings: Settings, open_store: Callable[[], ObjectStore], source: Path, *, tick: Tick = lambda _: None
) -> Mapping[str, Any]:
    """Bring a backup back into an empty hub and return its manifest; objects first, the database last.

    Raises:
        HubError: incorrect when *source* is not a whole backup or holds what no backup does, unsupported when its format
            is not known, conflict when the data directory holds anything or there is a database: all before anything is
            written; incorrect, too, for an object whose hash is wrong, with the objects before it restored.
    """
    manifest = _manifest(source)
    kind = "sqlite" if settings.database().startswith("sqlite:") else "postgresql"
    if manifest["database"] != kind:
        raise HubError(
            Category.CONFLICT,
            f"The backup is of a {manifest['database']} database, the settings name a {kind} one.",
            where="database_url",
            remedy="Set HUB_DATABASE_URL to a database of the same kind.",
        )
    objects = _objects(source)
    if len(objects) < manifest["objects"]["count"]:
        raise _broken(source / "objects")
    _require_empty(settings)
    for name, digest in manifest["files"].items():
        path = _inside(source, name)
        if not path.is_file() or _digest(path) != digest:
            raise _broken(source / name)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    store = open_store()
    for path in objects:
        with store.spool(max_bytes=path.stat().st_size) as spool:
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    spool.write(chunk)
            if spool.digest != path.name:
                raise _broken(path)
            tick(store.put(spool).size)
    for name in manifest["files"]:
        if name.startswith("keys/"):
            _copy(source / name, settings.data_dir / name)
    _load(settings.database(), source / "database")
    return manifest


# --- the database ------------------------------------------------------------------------------------------------


def _dump(url: str, target: Path) -> str:
    fresh = target.with_name(".database.new")
    fresh.unlink(missing_ok=True)
    if url.startswith("sqlite:///"):
        with (
            closing(sqlite3.connect(f"file:{url.removeprefix('sqlite:///')}?mode=ro", uri=True, timeout=30)) as live,
            closing(sqlite3.connect(fresh)) as copy,
        ):
            # All pages in one step: writers go on in the WAL, and the copy is one moment of the database.
            live.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
            [[state]] = copy.execute("PRAGMA integrity_check(1)").fetchall()
        if state != "ok":
            raise HubError(
                Category.FAULT,
                "The database is damaged.",
                where=url,
                remedy="Restore an earlier backup; keep this file.",
            )
    else:
        _postgres("pg_dump", url, "--format=custom", "--no-owner", "--no-privileges", "--file", str(fresh))
    fresh.chmod(0o600)
    with fresh.open("rb") as file:
        os.fsync(file.fileno())
    fresh.replace(target)
    return _digest(target)


def _load(url: str, source: Path) -> None:
    if url.startswith("sqlite:///"):
        path = Path(url.removeprefix("sqlite:///"))
        path.parent.mkdir(parents=True, exist_ok=True)
        _copy(source, path)
    else:
        _postgres(
            "pg_restore", url, "--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction", str(source)
        )


def _postgres(tool: str, url: str, *arguments: str) -> None:
    found = shutil.which(tool)
    if found is None:
        raise HubError(
            Category.UNAVAILABLE,
            f"{tool} is not installed.",
            where="PATH",
            remedy="Install the PostgreSQL client of the server's version.",
        )
    parts = sa.engine.make_url(url)
    # The environment, unlike the command line, is not shown to every user of the machine.
    named = {
        "PGHOST": str(parts.query.get("host", "")) or parts.host,
        "PGPORT": str(parts.port) if parts.port else None,
        "PGUSER": parts.username,
        "PGPASSWORD": parts.password,
        "PGDATABASE": parts.database,
    }
    environment = {**os.environ, **{key: value for key, value in named.items() if value}}
    where = ["--dbname", parts.database or ""] if tool == "pg_restore" else []
    done = subprocess.run([found, *where, *arguments], env=environment, capture_output=True, check=False)  # noqa: S603 - a fixed tool, no shell
    if done.returncode != 0:
        raise HubError(
            Category.UNAVAILABLE,
            f"{tool} failed: {done.stderr.decode(errors='replace').strip()[-500:]}",
            where="database",
            remedy="Mend what it names and try again.",
        )


def _require_empty(settings: Settings) -> None:
    """Raise HubError(conflict) when the data directory holds anything, or when there is a database."""
    folder = settings.data_dir
    if (folder.exists() or folder.is_symlink()) and (not folder.is_dir() or any(folder.iterdir())):
        raise HubError(
            Category.CONFLICT,
            "The data directory is not empty, and a restore never mixes a backup with other data.",
            where=str(folder),
            remedy="Set HUB_DATA_DIR to a new or an empty folder; where an earlier restore broke off, delete what it left.",
        )
    url = settings.database()
    if url.startswith("sqlite:///"):
        # A write-ahead log that is left of another database would be played into the restored one.
        path = url.removeprefix("sqlite:///")
        taken = any(Path(path + suffix).exists() for suffix in ("", "-wal", "-shm", "-journal"))
    else:
        engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
        try:
            taken = bool(sa.inspect(engine).get_table_names())
        finally:
            engine.dispose()
    if taken:
        raise HubError(
            Category.CONFLICT,
            "There is a database already, and a restore never overwrites one.",
            where="database_url",
            remedy="Stop the hub and set HUB_DATA_DIR (or HUB_DATABASE_URL) to an empty place.",
        )


# --- files -------------------------------------------------------------------------------------------------------


def _manifest(source: Path) -> dict[str, Any]:
    """Return the manifest of the backup in *source*, with nothing in it that :func:`backup` does not write."""
    path = _inside(source, MANIFEST)
    unreadable = HubError(
        Category.INCORRECT,
        "The folder is not a whole backup: it has no readable manifest.",
        where=str(source),
        remedy="Give the folder that `hub backup` finished.",
    )
    # Here and below, only a plain file is opened: a pipe would hold the command up for ever.
    if not path.is_file():
        raise unreadable
    try:
        manifest: Any = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable from error
    if isinstance(manifest, dict) and manifest.get("format") != _FORMAT:
        raise HubError(
            Category.UNSUPPORTED,
            "The backup has a format that this version does not know.",
            where=str(path),
            remedy="Restore it with the version of the hub that made it.",
        )
    match manifest:
        case {"database": "sqlite" | "postgresql", "created": str(), "files": dict(files), "objects": {"count": int()}}:
            pass
        case _:
            raise _foreign("The manifest lacks what every backup says.", path)
    for name in files:
        if name != "database" and not _KEY.fullmatch(name):
            raise _foreign(f"The manifest names {name!r}, which no backup holds.", path)
    if "database" not in files:
        raise _foreign("The manifest names no database.", path)
    return dict(manifest)


def _objects(source: Path) -> list[Path]:
    """Return the objects in *source*, sorted; raises HubError(incorrect) for anything else in their folder."""
    found: list[Path] = []
    folder = source / "objects"
    if not folder.exists() and not folder.is_symlink():
        return found
    for shelf in sorted(_inside(source, "objects").iterdir()):
        if not _inside(source, f"objects/{shelf.name}").is_dir():
            raise _foreign("The backup holds a file that is no object.", shelf)
        for path in sorted(shelf.iterdir()):
            # A backup that was broken off leaves its last file under this name; the next one wrote it again.
            if path.name.startswith(".") and path.name.endswith(".new"):
                continue
            if not _SHA256.fullmatch(path.name) or shelf.name != path.name[:2]:
                raise _foreign("The backup holds a file that is no object.", path)
            if not _inside(source, f"objects/{shelf.name}/{path.name}").is_file():
                raise _foreign("The backup holds something that is no file.", path)
            found.append(path)
    return found


def _inside(source: Path, name: str) -> Path:
    """Return *source* / *name*; raises HubError(incorrect) where a symbolic link would lead elsewhere."""
    path = source
    for part in name.split("/"):
        path = path / part
        if path.is_symlink():
            raise _foreign("The backup holds a symbolic link, which no backup does.", path)
    return path


def _foreign(message: str, where: Path) -> HubError:
    return HubError(
        Category.INCORRECT,
        f"{message} Nothing was restored.",
        where=str(where),
        remedy="Somebody may have changed it. Use a backup as `hub backup` made it.",
    )


def _object_path(target: Path, digest: str) -> Path:
    return target / "objects" / digest[:2] / digest


def _copy_object(store: ObjectStore, digest: str, size: int, target: Path) -> None:
    if target.exists() and target.stat().st_size == size and _digest(target) == digest:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    _write(target, store.stream(digest, verify=True))


def _copy(source: Path, target: Path) -> str:
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write(target, _chunks(source))
    return _digest(target)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _write(target: Path, content: bytes | Iterator[bytes]) -> None:
    fresh = target.with_name(f".{target.name}.new")
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        for chunk in (content,) if isinstance(content, bytes) else content:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _broken(path) from error


def _broken(path: Path) -> HubError:
    return HubError(
        Category.INCORRECT,
        "The backup is damaged: a file is missing or its hash is not the one in the manifest.",
        where=str(path),
        remedy="Use another backup.",
    )
