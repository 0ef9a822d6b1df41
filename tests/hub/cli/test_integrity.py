"""``hub fsck``, ``backup`` and ``restore`` on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.cli.common import services
from tests.hub.cli.conftest import Hub


def test_fsck_fails_when_a_named_object_is_gone(consortium: Hub, data_dir: Path) -> None:
    large = b"MSH|^~\\&|HIS|KNYY|Y|HUB|20250611083000||ADT^A08|BIG|P|2.4|||AL|NE\rNTE|1||" + b"x" * 100_000
    with services() as opened:
        opened.messages.receive(large, "127.0.0.1:5")
        [ref] = opened.objects.digests()
    assert consortium("fsck").exit_code == 0
    [path] = (data_dir / "objects").rglob(ref.digest)
    path.unlink()
    told = consortium("fsck")
    assert told.exit_code == 1
    assert ref.digest in told.output


def test_a_backup_is_restored_into_another_folder(
    consortium: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = consortium("members", "list").output
    assert consortium("backup", str(tmp_path / "copy")).exit_code == 0
    assert consortium("restore", str(tmp_path / "copy")).exit_code != 0, "there is a hub already"
    monkeypatch.setenv("HUB_DATA_DIR", str(tmp_path / "other"))
    assert consortium("restore", str(tmp_path / "copy")).exit_code == 0
    assert consortium("members", "list").output == before
    assert consortium("audit", "verify").exit_code == 0


def test_a_refused_restore_leaves_no_data_directory_behind(hub: Hub, data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "manifest.json").write_text('{"format": 1, "files": {"../../hub.toml": "00"}}')
    assert hub("restore", str(tmp_path / "copy")).exit_code != 0
    assert not data_dir.exists()
