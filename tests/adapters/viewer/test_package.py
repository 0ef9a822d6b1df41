"""OHIF's package is taken when it is the pinned one and built as expected, and leaves nothing behind otherwise."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.viewer import package, release
from hub.errors import Category, HubError
from tests.adapters.viewer.conftest import SCRIPT, pack
from tests.adapters.viewer.conftest import package as whole

Pin = Callable[[Path], Path]


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_release_is_laid_out_with_its_changes(tmp_path: Path, pinned: Pin) -> None:
    target = tmp_path / "env" / "viewer"
    manifest = package.install(pinned(pack(tmp_path, whole())), target)
    assert package.read(target) == manifest
    program = (target / SCRIPT).read_bytes()
    assert program.count(f'__webpack_require__.p = "{release.PLACE}";'.encode()) == 8
    assert b"jsdelivr" not in program
    assert gzip.decompress((target / f"{SCRIPT}.gz").read_bytes()) == program
    assert manifest.files.keys() >= {SCRIPT, "app.bundle.css", "assets/images/CT-Bone.png"}
    assert (target / "LICENSE.ohif").read_bytes() == b"MIT"
    # Nothing but the target is left, whatever was there on the way.
    assert everything(tmp_path / "env")[0] == "viewer"
    assert {path.name for path in (tmp_path / "env").iterdir()} == {"viewer"}


def test_another_release_takes_the_place_of_the_one_before(tmp_path: Path, pinned: Pin) -> None:
    target = tmp_path / "viewer"
    target.mkdir()
    (target / "stale.js").write_text("old")
    package.install(pinned(pack(tmp_path, whole())), target)
    assert not (target / "stale.js").exists()


def test_what_is_not_the_pinned_release_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HubError, match="not @ohif/app") as caught:
        package.install(pack(tmp_path, whole()), tmp_path / "viewer")
    assert caught.value.category is Category.INCORRECT
    assert not (tmp_path / "viewer").exists()


@pytest.mark.parametrize(
    "name",
    [
        "package/dist/../../../escape.js",
        "/etc/cron.d/escape",
        "package/dist/sub/../../../0123456789abcdef.wasm",
        "package/dist/sw.js",
        "package/dist/init-service-worker.js",
        "package/dist/google.js",
        "package/dist/ort/ort.bundle.0123456789abcdef.js",
        "package/dist/app.bundle.0123456789abcdef.js.map",
        "package/dist/dicom-microscopy-viewer/dicomMicroscopyViewer.min.js",
        "package/dist/silent-refresh.html",
        "0123456789abcdef.wasm",
    ],
)
def test_what_is_not_to_be_served_is_not_unpacked(tmp_path: Path, pinned: Pin, name: str) -> None:
    target = tmp_path / "viewer"
    package.install(pinned(pack(tmp_path, {**whole(), name: b"x"})), target)
    clean = tmp_path / "clean"
    package.install(pinned(pack(tmp_path, whole())), clean)
    assert everything(target) == everything(clean)


def test_links_and_devices_are_not_followed(tmp_path: Path, pinned: Pin) -> None:
    odd = []
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        member = tarfile.TarInfo("package/dist/fedcba9876543210.wasm")
        member.type, member.linkname = kind, "/etc/passwd"
        odd.append(member)
    manifest = package.install(pinned(pack(tmp_path, whole(), *odd)), tmp_path / "viewer")
    assert "fedcba9876543210.wasm" not in manifest.files


@pytest.mark.parametrize("change", release.CHANGES, ids=lambda change: change.old.decode()[:30])
def test_a_release_in_which_a_change_does_not_fit_is_refused(
    tmp_path: Path, pinned: Pin, change: release.Change
) -> None:
    files = {name: data.replace(change.old, b"", 1) for name, data in whole().items()}
    with pytest.raises(HubError, match="is there"):
        package.install(pinned(pack(tmp_path, files)), tmp_path / "viewer")
    assert not (tmp_path / "viewer").exists()


@pytest.mark.parametrize(
    "missing", [release.LICENSE, release.INDEX, f"package/dist/{SCRIPT}", "package/dist/app.bundle.css"]
)
def test_a_release_without_its_parts_is_refused(tmp_path: Path, pinned: Pin, missing: str) -> None:
    files = whole()
    del files[missing]
    with pytest.raises(HubError):
        package.install(pinned(pack(tmp_path, files)), tmp_path / "viewer")


def test_a_page_that_starts_two_programs_is_refused(tmp_path: Path, pinned: Pin) -> None:
    files = whole()
    files[release.INDEX] *= 2
    with pytest.raises(HubError, match="one program"):
        package.install(pinned(pack(tmp_path, files)), tmp_path / "viewer")


@pytest.mark.parametrize("limit", ["MAX_MEMBERS", "MAX_UNPACKED_BYTES", "MAX_FILE_BYTES"])
def test_an_archive_beyond_the_bounds_is_refused(
    tmp_path: Path, pinned: Pin, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    tarball = pinned(pack(tmp_path, whole()))
    monkeypatch.setattr(release, limit, 3)
    with pytest.raises(HubError, match=r"larger|too large"):
        package.install(tarball, tmp_path / "viewer")


@pytest.mark.parametrize("data", [b"", b"no archive", b"\x1f\x8b\x08\0cut"])
def test_what_is_no_archive_is_refused(tmp_path: Path, pinned: Pin, data: bytes) -> None:
    path = tmp_path / "odd.tgz"
    path.write_bytes(data)
    with pytest.raises(HubError):
        package.install(pinned(path), tmp_path / "viewer")


def test_what_another_version_of_the_hub_installed_counts_for_nothing(
    tmp_path: Path, pinned: Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    package.install(pinned(pack(tmp_path, whole())), tmp_path / "viewer")
    monkeypatch.setattr(release, "BUILD", "another")
    assert package.read(tmp_path / "viewer") is None


def test_without_npm_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HubError, match="没有 npm") as caught:
        package.fetch(tmp_path)
    assert caught.value.category is Category.UNAVAILABLE
    assert "--tarball" in str(caught.value)


def test_without_a_network_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(HubError, match="取不到"):
        package.fetch(tmp_path)


def hub(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HUB_")}
    return subprocess.run(
        [sys.executable, "-m", "hub", "viewer", *arguments],
        env={**environment, "HUB_VIEWER_DIR": str(folder / "viewer"), "HUB_DATA_DIR": str(folder / "data")},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_tells_that_it_is_not_there_and_refuses_another_file(tmp_path: Path) -> None:
    status = hub(tmp_path, "status")
    assert (status.returncode, "未安装" in status.stdout, "not installed" in status.stdout) == (1, True, True)
    added = hub(tmp_path, "add", "--tarball", str(pack(tmp_path, whole())))
    assert added.returncode == 1
    assert "not @ohif/app" in added.stderr
    assert not (tmp_path / "viewer").exists()
