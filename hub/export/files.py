"""The files of exports: the keys of projects, and a folder for each job with what says how far it is."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from fhir_mappings.dicom.deidentify.keys import KEY_BYTES
from fhir_mappings.json import dumps, loads
from hub.errors import Category, HubError

Json = dict[str, Any]

#: In the folder of a job: what is there only until it ends, the list of its instances in it, and what stays.
STATE: Final = ".state"
PLAN: Final = "plan.jsonl"
MANIFEST: Final = "manifest.json"


def key_file(data_dir: Path, institution: str, project: str) -> Path:
    """Return the file of the project's key; it lies beside the other keys, so a backup holds it."""
    return data_dir / "keys" / f"deidentify-{sha256(f'{institution}|{project}'.encode()).hexdigest()[:32]}.key"


def project_key(data_dir: Path, institution: str, project: str, *, make: bool) -> bytes:
    """Return the key of a project.

    Args:
        make: make one where there is none; durable on return.

    Raises:
        FileNotFoundError: there is none, and none is to be made.
    """
    path = key_file(data_dir, institution, project)
    if make and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            # A link never replaces: of two that ask at once, one key stays.
            path.hardlink_to(fresh)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
        sync(path.parent)
    return path.read_bytes()


def folder_of(data_dir: Path, job: str) -> Path:
    """Return the folder of a job, whether or not it is there.

    Raises:
        HubError: incorrect when no job of the hub's has such an id.
    """
    # Ids are checked when a resource is stored (FHIR id); this is the fence behind it.
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", job):
        raise HubError(Category.INCORRECT, "The id of the export is not one of the hub's.", where="Task.id")
    return data_dir / "exports" / job


def _span_name(span: tuple[int, int]) -> str:
    return f"{span[0]:08d}-{span[1]:08d}.json"


def spans(folder: Path) -> list[tuple[int, int]]:
    """Return the steps that have a record, in order."""
    names = sorted(one.stem for one in (folder / STATE).glob("*-*.json") if not one.name.startswith("."))
    return [(int(start), int(end)) for start, _, end in (name.partition("-") for name in names)]


def record_of(folder: Path, span: tuple[int, int]) -> list[Json]:
    """Return what came of each instance of one step."""
    found: list[Json] = loads((folder / STATE / _span_name(span)).read_bytes())["record"]
    return found


def write_record(folder: Path, span: tuple[int, int], record: Sequence[Json]) -> None:
    """Keep what came of each instance of one step; durable on return."""
    write(folder / STATE / _span_name(span), dumps({"record": record}))


def written(path: Path, chunks: Iterator[bytes]) -> tuple[str, int]:
    """Write *chunks* as *path*, whole or not at all; returns digest and size.

    The name is durable when its folder has been synced.

    Raises:
        HubError: unavailable when the disk does not take it.
    """
    digest, size = sha256(), 0
    fresh = path.with_name(f".{path.name}")
    try:
        with fresh.open("wb") as file:
            for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise HubError(
            Category.UNAVAILABLE, "The export cannot be written now.", remedy="Look at the disk of the data directory."
        ) from error
    finally:
        fresh.unlink(missing_ok=True)
    return digest.hexdigest(), size


def write(path: Path, data: bytes) -> None:
    """Write *data* as *path*, whole or not at all; durable on return."""
    written(path, iter([data]))
    sync(path.parent)


def sync(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
