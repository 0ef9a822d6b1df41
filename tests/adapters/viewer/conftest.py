"""A release of the viewer that is like OHIF's in all that the door looks at, and small."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from adapters.viewer import release

SCRIPT = "app.bundle.0123456789abcdef.js"
INDEX = (
    f'<script>function browserImportFunction(n){{return import(n)}}window.PUBLIC_URL="/"</script>'
    f'<script defer src="/{SCRIPT}"></script><link href="/app.bundle.css" rel="stylesheet">'
).encode()


def package() -> dict[str, bytes]:
    """Return the files of a release in which every change finds what it looks for."""
    program, others = b"// program\n" * 200, {}
    for number, change in enumerate(release.CHANGES):
        if change.files.fullmatch(SCRIPT):
            program += change.old * change.times
        else:
            others[f"package/dist/{number}.css"] = change.old * change.times
    return {
        release.LICENSE: b"MIT",
        release.INDEX: INDEX,
        f"package/dist/{SCRIPT}": program,
        "package/dist/app.bundle.css": b"body{}",
        "package/dist/0123456789abcdef.wasm": b"\0asm" * 400,
        "package/dist/assets/images/CT-Bone.png": b"\x89PNG",
        **others,
    }


def pack(folder: Path, files: Mapping[str, bytes], *more: tarfile.TarInfo) -> Path:
    """Write *files* as a tarball, *more* members without content after them."""
    path = folder / "release.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for member in more:
            archive.addfile(member)
    return path


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Path]:
    """Make a tarball the release that is pinned."""

    def pin(tarball: Path) -> Path:
        digest = base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
        monkeypatch.setattr(release, "INTEGRITY", f"sha512-{digest}")
        return tarball

    return pin
