"""Reading one of several copies of an object: whether it is sound, and what is said when none of them is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, Self

from hub.errors import Category, HubError
from storage.objects.checksum import Check
from storage.objects.reading import HashedStream
from storage.objects.trouble import damaged, from_os


class Told(Iterator[bytes]):
    """Chunks of a copy whose owner is told when they turn out damaged."""

    def __init__(self, chunks: HashedStream, tell: Callable[[], None]) -> None:
        self._chunks = chunks
        self._tell = tell

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._chunks)
        except HubError:
            self._tell()
            raise

    def close(self) -> None:
        """Close the source; safe to repeat."""
        self._chunks.close()


def sound(source: BinaryIO, check: Check) -> bool:
    """Whether all bytes of *source* pass *check*; it is at its start again afterwards."""
    while chunk := read_from(source, 1 << 20):
        check.update(chunk)
    source.seek(0)
    return check.matches()


def read_from(source: BinaryIO, length: int | None) -> bytes:
    """Return *length* bytes of *source*, all of them for None; raises HubError and closes it when its disk cannot."""
    try:
        return source.read() if length is None else source.read(length)
    except OSError as error:
        source.close()
        raise from_os(error, "reading an object") from error


@contextlib.contextmanager
def damaged_if(broken: bool, digest: str) -> Iterator[None]:
    """Say of an object whose only copy was found *broken* that it is damaged, not that it is missing."""
    try:
        yield
    except HubError as error:
        if broken and error.category is Category.NOT_FOUND:
            raise damaged(digest) from None
        raise
