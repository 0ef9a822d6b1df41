"""Inputs that once broke a rule: kept as files, and replayed by the tests."""

from __future__ import annotations

import hashlib
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "kept"


def keep(target: str, data: bytes, folder: Path = FOLDER) -> Path:
    """Write *data* down for *target* and return where."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{target}-{hashlib.sha256(data).hexdigest()[:16]}"
    path.write_bytes(data)
    return path


def kept(folder: Path = FOLDER) -> list[tuple[str, Path]]:
    """Return target and file of each input that is kept."""
    return sorted((path.name.rpartition("-")[0], path) for path in folder.iterdir() if "-" in path.name)
