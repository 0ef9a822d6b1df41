"""Where files are picked up: a port that a folder of this machine fulfils, and any other file store can.

Every method works inside one partner's place; names of files are the partner's and are never joined to a path that could
lead elsewhere: a local folder is opened once, and files are named relative to its descriptor (openat, renameat).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

#: Files looked at in one turn; the rest waits for the next, so that a flooded folder costs bounded memory.
MAX_LISTED = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One entry of the folder ``in``.

    Attributes:
        regular: whether it is an ordinary file; links, pipes and devices are never opened.
        changed: when it was last written, in the place's own clock and unit; only compared with itself.
    """

    name: str
    size: int
    changed: int
    regular: bool = True


class Place(Protocol):
    """One partner's folders ``in``, ``done``, ``refused`` and ``answers``. OSError means that the place is away."""

    def seen(self) -> Sequence[Seen]:
        """Return what stands in ``in``, folders left out, oldest first."""
        ...

    def read(self, one: Seen) -> bytes | None:
        """Return the bytes of *one*; ``None`` when it is not any more what was seen."""
        ...

    def put(self, folder: str, name: str, data: bytes) -> None:
        """Make the file *name* in *folder* hold *data*, all of it or nothing; durable on return."""
        ...

    def move(self, name: str, folder: str, to: str) -> None:
        """Move *name* from ``in`` to *folder* under the name *to*; durable on return. Nothing to do when it is gone."""
        ...

    def remove(self, name: str) -> None:
        """Remove *name* from ``in``; nothing to do when it is gone."""
        ...


class LocalPlace:
    """A :class:`Place` below *base*, whose folder ``in`` must exist: without it a share may not be mounted."""

    def __init__(self, base: Path) -> None:
        self._base = base

    def seen(self) -> Sequence[Seen]:
        """See :class:`Place`."""
        found: list[Seen] = []
        with self._opened("in", make=False) as folder, os.scandir(folder) as entries:
            for entry in entries:
                try:
                    about = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISDIR(about.st_mode):
                    continue
                found.append(
                    Seen(
                        name=entry.name,
                        size=about.st_size,
                        changed=about.st_mtime_ns,
                        regular=stat.S_ISREG(about.st_mode),
                    )
                )
                if len(found) >= MAX_LISTED:
                    break
        return sorted(found, key=lambda one: (one.changed, one.name))

    def read(self, one: Seen) -> bytes | None:
        """See :class:`Place`."""
        with self._opened("in", make=False) as folder:
            try:
                # Neither a link is followed nor a pipe waited for, should one have taken the file's place.
                handle = os.open(one.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
            except FileNotFoundError:
                return None
            with os.fdopen(handle, "rb") as file:
                data = file.read(one.size + 1)
                about = os.fstat(handle)
        same = stat.S_ISREG(about.st_mode) and (about.st_size, about.st_mtime_ns) == (one.size, one.changed)
        return data if same and len(data) == one.size else None

    def put(self, folder: str, name: str, data: bytes) -> None:
        """See :class:`Place`."""
        write_whole(self._base / folder, name, data, make=True)

    def move(self, name: str, folder: str, to: str) -> None:
        """See :class:`Place`."""
        with self._opened("in", make=False) as source, self._opened(folder, make=True) as target:
            with contextlib.suppress(FileNotFoundError):
                os.rename(name, to, src_dir_fd=source, dst_dir_fd=target)
            # The new name first: a crash between leaves two, never none.
            os.fsync(target)
            os.fsync(source)

    def remove(self, name: str) -> None:
        """See :class:`Place`."""
        with self._opened("in", make=False) as folder, contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)

    @contextlib.contextmanager
    def _opened(self, folder: str, *, make: bool) -> Iterator[int]:
        with _opened(self._base / folder, make=make) as handle:
            yield handle


def write_whole(folder: Path, name: str, data: bytes, *, make: bool) -> None:
    """Make the file *name* in *folder* hold *data*: written aside, synced, renamed, synced; never seen half.

    Raises:
        OSError: the folder is missing (and *make* is false), full or not writable.
    """
    aside = f".{name}.{os.getpid()}.tmp"
    with _opened(folder, make=make) as into:
        handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o640, dir_fd=into)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.rename(aside, name, src_dir_fd=into, dst_dir_fd=into)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(aside, dir_fd=into)
            raise
        os.fsync(into)


@contextlib.contextmanager
def _opened(folder: Path, *, make: bool) -> Iterator[int]:
    if make:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o750)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield handle
    finally:
        os.close(handle)
