"""A :class:`adapters.folder.place.Place` below one folder of an SFTP server, by the same rules as one of this machine.

A file gets its name when it is whole: written aside, synced where the server can (``fsync@openssh.com``), renamed. Names
of the listing are single names (:mod:`adapters.folder.sftp_protocol`); whatever bytes they are, they go back as they came.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Sequence
from functools import partial

from adapters.folder.place import MAX_LISTED, Seen
from adapters.folder.sftp_connection import Connection, ServerAwayError
from adapters.folder.sftp_protocol import RefusedError, Sftp

#: What one line of a listing may cost: two names of at most 255 bytes in any alphabet, and numbers.
_LINE = 2048


class SftpPlace:
    """The place of one endpoint; its folder ``in`` (to pick up) or ``out`` (to drop) must exist."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._made: set[str] = set()

    def seen(self) -> Sequence[Seen]:
        """See :class:`adapters.folder.place.Place`.

        Raises:
            OSError: also for a server that says no size or kind, without which a file cannot be judged.
        """
        listed = self._connection.use(lambda sftp: sftp.listing(self._path("in"), MAX_LISTED), size=MAX_LISTED * _LINE)
        found: list[Seen] = []
        for name, about in listed:
            if about.size is None or about.mode is None:
                raise ServerAwayError("the server's listing has no sizes or kinds of files")
            if not about.is_folder:
                text = name.decode("utf-8", "surrogateescape")
                found.append(Seen(name=text, size=about.size, changed=about.changed or 0, regular=about.is_regular))
        return sorted(found, key=lambda one: (one.changed, one.name))

    def read(self, one: Seen) -> bytes | None:
        """See :class:`adapters.folder.place.Place`."""
        path = self._path("in", one.name)
        try:
            data, about = self._connection.use(lambda sftp: sftp.read(path, one.size + 1), size=one.size)
        except RefusedError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        same = about.is_regular and (about.size, about.changed or 0) == (one.size, one.changed)
        return data if same and len(data) == one.size else None

    def put(self, folder: str, name: str, data: bytes) -> None:
        """See :class:`adapters.folder.place.Place`."""
        with self._made_folder(folder):
            self.drop(folder, name, data)

    def drop(self, folder: str, name: str, data: bytes) -> None:
        """Make the file *name* in *folder*, which exists, hold *data*, all of it or nothing."""
        aside, final = self._path(folder, f".{name}.tmp"), self._path(folder, name)

        def work(sftp: Sftp) -> None:
            sftp.write(aside, data)
            sftp.rename(aside, final)

        self._connection.use(work, size=len(data))

    def move(self, name: str, folder: str, to: str) -> None:
        """See :class:`adapters.folder.place.Place`."""
        old, new = self._path("in", name), self._path(folder, to)

        def work(sftp: Sftp) -> None:
            try:
                sftp.rename(old, new)
            except RefusedError:
                if sftp.about(old) is not None:
                    raise

        with self._made_folder(folder):
            self._connection.use(work)

    def remove(self, name: str) -> None:
        """See :class:`adapters.folder.place.Place`."""
        path = self._path("in", name)
        self._connection.use(partial(_remove, path))

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    @contextlib.contextmanager
    def _made_folder(self, folder: str) -> Iterator[None]:
        if folder not in self._made:
            path = self._path(folder)
            self._connection.use(lambda sftp: sftp.make_folder(path))
            self._made.add(folder)
        try:
            yield
        except RefusedError:
            # Somebody may have removed it; it is made again next time.
            self._made.discard(folder)
            raise

    def _path(self, *names: str) -> bytes:
        return b"/".join((self._connection.base, *(name.encode("utf-8", "surrogateescape") for name in names)))


def _remove(path: bytes, sftp: Sftp) -> None:
    try:
        sftp.remove(path)
    except RefusedError as error:
        if error.errno != errno.ENOENT:
            raise
