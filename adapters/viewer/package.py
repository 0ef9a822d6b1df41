"""OHIF's npm package: fetched with npm, checked against the pinned integrity, slimmed, changed and laid out for serving.

The tarball is hostile until its digest is the pinned one, and is unpacked with bounds even then. What is served is
written beside the old one and takes its place by one rename.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from adapters.viewer import release
from hub.errors import Category, HubError

MANIFEST = "viewer.json"
#: npm gives up on a registry that does not answer after this long, and tries once more.
_FETCH_TIMEOUT_S = 60
_NPM_TIMEOUT_S = 300
#: Compressed once here, so that no request pays for it; pictures, fonts and small files gain nothing.
_COMPRESSED = (".js", ".css", ".wasm")
_WORTH_BYTES = 1024

_BY_HAND = (
    f"有网络时运行 / with a network: hub viewer add; 或自备 / or bring the file: npm pack {release.PACKAGE}@{release.VERSION}, "
    "hub viewer add --tarball FILE"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What is installed.

    Attributes:
        build: the :data:`release.BUILD` that made it.
        script: name of the program; *style*: of its style sheet.
        files: size of each file by name; *compressed*: of those that lie beside it as ``.gz``.
    """

    version: str
    build: str
    script: str
    style: str
    files: Mapping[str, int]
    compressed: Mapping[str, int]


def read(folder: Path) -> Manifest | None:
    """Return what is installed in *folder*; ``None`` where it is nothing, or of another build than this hub's."""
    try:
        found = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError):
        return None
    return found if found.build == release.BUILD else None


def fetch(folder: Path) -> Path:
    """Return the tarball, fetched into *folder* by npm from the registry that npm is configured for.

    Raises:
        HubError: unavailable when npm is missing or cannot fetch.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise HubError(Category.UNAVAILABLE, "没有 npm / npm is not installed.", where="npm", remedy=_BY_HAND)
    command = [npm, "pack", f"{release.PACKAGE}@{release.VERSION}", "--silent", "--ignore-scripts"]
    command += ["--fetch-retries=1", f"--fetch-timeout={_FETCH_TIMEOUT_S * 1000}", "--pack-destination", str(folder)]
    try:
        # npm finds the configuration of the account; it must not find one of the folder that the hub happens to run in.
        done = subprocess.run(  # noqa: S603 - every word of the command is ours
            command, cwd=folder, check=False, capture_output=True, timeout=_NPM_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _not_fetched(type(error).__name__) from error
    tarballs = sorted(folder.glob("*.tgz"))
    if done.returncode != 0 or len(tarballs) != 1:
        raise _not_fetched(f"npm: {done.returncode}")
    return tarballs[0]


def _not_fetched(why: str) -> HubError:
    return HubError(
        Category.UNAVAILABLE,
        f"影像浏览器取不到 / {release.PACKAGE}@{release.VERSION} cannot be fetched ({why}).",
        where="npm",
        remedy=_BY_HAND,
    )


def install(tarball: Path, folder: Path) -> Manifest:
    """Check *tarball*, and put what is served of it into *folder*, in the place of what was there.

    Raises:
        HubError: incorrect when the file is not the pinned release, or is not built as expected; unavailable when the
            folder cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
            made = Path(scratch) / "new"
            with tarball.open("rb") as stream:
                check_integrity(stream.fileno())
            manifest = _lay_out(unpack(tarball), made)
            old = Path(scratch) / "old"
            with contextlib.suppress(FileNotFoundError):
                folder.rename(old)
            made.rename(folder)
    except OSError as error:
        raise HubError(
            Category.UNAVAILABLE,
            f"无法写入 / cannot be written: {error}",
            where=str(folder),
            remedy="Set viewer_dir to a folder that can be written.",
        ) from error
    return manifest


def check_integrity(descriptor: int) -> None:
    """Raise HubError(incorrect) unless the open file is the pinned release, byte for byte."""
    digest, size = hashlib.sha512(), 0
    os.lseek(descriptor, 0, os.SEEK_SET)
    while (data := os.read(descriptor, 1 << 20)) and size <= release.MAX_TARBALL_BYTES:
        digest.update(data)
        size += len(data)
    found = "sha512-" + base64.b64encode(digest.digest()).decode()
    if found != release.INTEGRITY:
        raise HubError(
            Category.INCORRECT,
            f"这不是 / This is not {release.PACKAGE}@{release.VERSION}: {found[:24]}… ({size} bytes).",
            where="tarball",
            remedy=f"npm pack {release.PACKAGE}@{release.VERSION}",
        )


def unpack(tarball: Path) -> dict[str, bytes]:
    """Return the licence, the index page and the files to keep, by their name in the package.

    Only regular files are read, and only under names that are listed; nothing of the archive becomes a path.

    Raises:
        HubError: incorrect for an archive that is no tarball or larger than any release.
    """
    found: dict[str, bytes] = {}
    total = 0
    try:
        with tarfile.open(tarball, "r|gz") as archive:
            for count, member in enumerate(archive):
                total += max(member.size, 0)
                if count >= release.MAX_MEMBERS or total > release.MAX_UNPACKED_BYTES:
                    raise _odd("The archive is larger than any release.")
                if not member.isreg() or not _is_kept(member.name):
                    continue
                if member.size > release.MAX_FILE_BYTES or member.name in found:
                    raise _odd(f"{member.name} is too large, or there twice.")
                content = archive.extractfile(member)
                assert content is not None
                found[member.name] = content.read(release.MAX_FILE_BYTES)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise _odd("The file is not a gzipped tar archive.") from error
    return found


def _is_kept(name: str) -> bool:
    if name in {release.LICENSE, release.INDEX}:
        return True
    return name.startswith(release.ROOT) and release.KEPT.fullmatch(name.removeprefix(release.ROOT)) is not None


def changed(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return *files*, by name below the root, with every change made.

    Raises:
        HubError: incorrect when a text is not found as often as it must be.
    """
    made = dict(files)
    for change in release.CHANGES:
        times = 0
        new = change.new.replace(b"{place}", release.PLACE.encode())
        for name in files:
            if change.files.fullmatch(name):
                times += made[name].count(change.old)
                made[name] = made[name].replace(change.old, new)
        if times != change.times:
            raise _odd(f"{change.old.decode()!r} is there {times} times instead of {change.times}. {change.why}")
    return made


def _named(index: bytes) -> tuple[str, str]:
    """Return the names of program and style sheet that the package's own page starts."""
    found = [pattern.findall(index) for pattern in (release.SCRIPT, release.STYLE, release.NAMES)]
    if [len(one) for one in found] != [1, 1, 1]:
        raise _odd("The index page does not start one program with one style sheet.")
    return found[0][0].decode(), found[1][0].decode()


def _lay_out(unpacked: Mapping[str, bytes], folder: Path) -> Manifest:
    if release.LICENSE not in unpacked or release.INDEX not in unpacked:
        raise _odd("The licence or the index page is missing.")
    script, style = _named(unpacked[release.INDEX])
    files = changed({name.removeprefix(release.ROOT): data for name, data in _served(unpacked)})
    if script not in files or style not in files:
        raise _odd("The program or its style sheet is missing.")
    sizes: dict[str, int] = {}
    compressed: dict[str, int] = {}
    folder.mkdir()
    (folder / "LICENSE.ohif").write_bytes(unpacked[release.LICENSE])
    for name, data in sorted(files.items()):
        # The names have the form of release.KEPT: at most two folders, and no dots but before the ending.
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        sizes[name] = len(data)
        if name.endswith(_COMPRESSED) and len(data) >= _WORTH_BYTES:
            packed = gzip.compress(data, compresslevel=9, mtime=0)
            path.with_name(f"{path.name}.gz").write_bytes(packed)
            compressed[name] = len(packed)
    manifest = Manifest(
        version=release.VERSION, build=release.BUILD, script=script, style=style, files=sizes, compressed=compressed
    )
    (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    return manifest


def _served(unpacked: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    return ((name, data) for name, data in unpacked.items() if name not in {release.LICENSE, release.INDEX})


def _odd(message: str) -> HubError:
    return HubError(
        Category.INCORRECT,
        f"压缩包与预期不符 / the package is not as expected. {message}",
        where="tarball",
        remedy=f"Only {release.PACKAGE}@{release.VERSION} is known to fit; adapters/viewer/release.py says what is changed.",
    )
