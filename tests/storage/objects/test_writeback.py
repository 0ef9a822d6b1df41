"""The hint to begin writing: given for each received object, and never an answer of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from storage.objects import spool as spool_module
from storage.objects import writeback
from storage.objects.file import FileStore


def test_the_system_has_the_call() -> None:
    assert writeback._SYNC_FILE_RANGE is not None


def test_the_call_is_taken_for_a_file_and_its_refusal_for_another_thing_is_nobodys_trouble(tmp_path: Path) -> None:
    path = tmp_path / "object"
    with path.open("wb") as handle:
        handle.write(b"x" * 100_000)
        handle.flush()
        assert writeback._SYNC_FILE_RANGE is not None
        assert writeback._SYNC_FILE_RANGE(handle.fileno(), 0, 0, 2) == 0
        writeback.begin_writing(handle.fileno())
    read, write = os.pipe()
    try:
        writeback.begin_writing(write)
    finally:
        os.close(read)
        os.close(write)
    assert path.stat().st_size == 100_000


def test_an_object_that_is_looked_into_is_on_its_way_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    monkeypatch.setattr(spool_module, "begin_writing", begun.append)
    store = FileStore(tmp_path / "objects")
    with store.spool(max_bytes=100) as spool:
        spool.write(b"bytes")
        assert begun == []
        with spool.open() as handle:
            assert handle.read() == b"bytes"
        assert begun == [spool.fileno()]
        assert store.read(store.put(spool).digest) == b"bytes"
    store.close()
